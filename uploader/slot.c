#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/stream.h"
#include "bucket/archive.h"
#include "bucket/bucket.h"
#include "ltx/name.h"
#include "uploader/batch.h"

#include "uploader/slot.h"

/* Takes what is in a slot and compares it with our batch on the way. */
struct compare_sink {
	struct sink sink;
	const struct batch *batch;
	uint64_t compared;
	bool differs;
	uint8_t header[LTX_HEADER_SIZE]; /* theirs */
};

static void keep_header(struct compare_sink *c, const void *data, size_t size)
{
	size_t left;

	if (c->compared >= sizeof(c->header))
		return;
	left = sizeof(c->header) - c->compared;
	memcpy(c->header + c->compared, data, size < left ? size : left);
}

/* 1: our bytes at this offset are these; 0: they are not. */
static int is_ours(const struct batch *batch, uint64_t offset, const char *data,
		   size_t size)
{
	char block[16384];

	while (size > 0) {
		size_t part = size < sizeof(block) ? size : sizeof(block);
		ssize_t n = io_pread(batch->fd, block, part, offset);

		if (n < 0)
			return (int)n;
		if ((size_t)n < part || memcmp(block, data, part) != 0)
			return 0;
		offset += part;
		data += part;
		size -= part;
	}
	return 1;
}

static int compare_write(struct sink *sink, const void *data, size_t size)
{
	struct compare_sink *c = (struct compare_sink *)sink;
	int rc;

	keep_header(c, data, size);
	if (!c->differs) {
		rc = is_ours(c->batch, c->compared, data, size);
		if (rc < 0)
			return rc;
		c->differs = rc == 0;
	}
	c->compared += size;

	/* Who they are is in the header; the rest need not be fetched. */
	if (c->differs && c->compared >= sizeof(c->header))
		return error_set(-ECANCELED, "the slot holds other bytes");
	return 0;
}

/* Where the log ends, as far as that can be seen now. */
static uint64_t find_end(struct bucket *b, const char *db)
{
	struct archive_file last;

	return archive_last_slot(b, db, &last) < 0 ? 1 : last.max_txid;
}

/*
 * A start restores what only the bucket has, so another writer's history came
 * afterwards, or could not be seen then.
 */
static int name_taken(struct bucket *b, const char *db)
{
	char text[LTX_TXID_TEXT_SIZE];

	ltx_txid_format(find_end(b, db), text);
	return error_set(-ERR_FENCED,
			 "%.80s has another database '%.80s' already, with a "
			 "history up to transaction %s; this one began without "
			 "it, and is not uploaded. Use another name, or another "
			 "bucket or prefix; the next start compares the two: "
			 "it goes on if they agree, and keeps this one closed "
			 "until --adopt says which counts if not",
			 b->url, db, text);
}

static int conflict(struct bucket *b, const char *db, uint64_t txid,
		    const struct compare_sink *theirs)
{
	char text[LTX_TXID_TEXT_SIZE], who[32] = "no LTX file";
	struct ltx_header header;

	if (txid == 1)
		return name_taken(b, db);
	if (theirs->compared >= sizeof(theirs->header) &&
	    ltx_header_decode(theirs->header, &header) == 0)
		(void)snprintf(who, sizeof(who), "epoch %" PRIu64,
			       header.node_id >> 32);
	ltx_txid_format(txid, text);
	return error_set(-ERR_FENCED,
			 "slot %s of '%s' in %s was written by another writer "
			 "(%s); this one stops uploading it, and what the "
			 "bucket does not have stays in the spool: stop one of "
			 "the two, or give one a bucket or prefix of its own; "
			 "if this is the only one, its next start looks which "
			 "state it is in",
			 text, db, b->url, who);
}

/* The slot is taken: by us? */
static int compare(struct bucket *b, const char *db, const struct batch *batch,
		   struct bucket_info *ret)
{
	struct compare_sink slot = {
		.sink = { .write = compare_write },
		.batch = batch,
	};
	uint64_t txid = batch->header.max_txid;
	char key[BUCKET_KEY_MAX];
	int rc = archive_key(db, 0, txid, txid, key);

	if (rc < 0)
		return rc;
	rc = bucket_get(b, key, 0, BUCKET_TO_END, NULL, &slot.sink, ret);
	if (slot.differs)
		return conflict(b, db, txid, &slot);
	if (rc == -ENOENT)
		return error_set(-EAGAIN, "%s/%s: it exists, and it does not",
				 b->url, key);
	if (rc < 0)
		return error_wrap(rc, "reading back %s", key);
	return slot.compared == batch->size ? 0 : conflict(b, db, txid, &slot);
}

int slot_put(struct bucket *b, const char *db, const struct batch *batch,
	     struct bucket_info *ret)
{
	int rc;

	*ret = (struct bucket_info){ 0 };
	rc = archive_put(b, db, 0, &batch->header, batch->fd, batch->size,
			 true, ret);
	FAILPOINT("put-sent");
	return rc == -ERR_PRECOND ? compare(b, db, batch, ret) : rc;
}

int slot_last(struct bucket *b, const char *db, uint64_t txid,
	      struct ltx_header *ret)
{
	struct archive_file slot = { .min_txid = txid, .max_txid = txid };
	char text[LTX_TXID_TEXT_SIZE];
	int rc = archive_get_header(b, db, &slot, ret);

	if (rc != -ENOENT)
		return rc;
	ltx_txid_format(txid, text);
	return error_set(-ERR_GAP,
			 "transaction %s of '%s', which this directory has "
			 "sent, is not in %s: it is another bucket than "
			 "before, or has lost it, and what is sent behind it "
			 "could not be restored; use the bucket of before, or "
			 "remove .litebucket from the directory, to begin anew "
			 "in an empty one",
			 text, db, b->url);
}

int slot_follows(const struct bucket *b, const char *db,
		 const struct ltx_header *last, const struct ltx_header *next)
{
	char text[LTX_TXID_TEXT_SIZE];

	if (!last->post_dbsum || !next->pre_dbsum ||
	    last->post_dbsum == next->pre_dbsum)
		return 0;
	ltx_txid_format(last->max_txid, text);
	return error_set(-ERR_FENCED,
			 "transaction %s of '%s' in %s is not the one that "
			 "this directory has sent; another writer's history is "
			 "there, so nothing is put behind it: use the bucket of "
			 "before, or a bucket or prefix of its own",
			 text, db, b->url);
}
