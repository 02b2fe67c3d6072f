#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/log.h"
#include "base/stream.h"
#include "ltx/compact.h"
#include "ltx/decoder.h"
#include "ltx/merge.h"
#include "ltx/spool.h"

#include "capture/db.h"

/*
 * Taking back what was sealed and never sent (D19), so that a crash at any
 * point leaves either all of it or none.  Position decides, as when sealing:
 *
 *	merge		1. the merged file, as MERGED, synced
 *			2. spool_bar: none of its batches was or will be sent
 *			3. MERGED becomes the file that is being sealed, and
 *			   then position goes back to its TXID
 *			4. it takes the place of its batches in the spool
 *
 *	give up		1. spool_bar
 *			2. pages of these batches are unknown, synced
 *			3. position goes back to the batch before them
 *			4. they are removed from the spool
 *
 * After a crash between 3 and 4, db_recover_sealing() finds the file, and what
 * the spool has behind position goes.  Before 3 the file is of no use and is
 * removed; pages that do not fit are noticed by their sum.
 */
static const char MERGED[] = "merged.tmp";

/* Batches at the end of the spool that were never sent. */
struct unsent {
	uint64_t first, last;
	uint64_t from;	    /* the first that has not another page size */
	uint64_t pre_dbsum; /* of the first */
	uint64_t oldest, bytes; /* size of the first, and of all */
};

static int read_header(struct db *db, uint64_t txid, struct ltx_header *ret,
		       uint64_t *ret_size)
{
	uint8_t data[LTX_HEADER_SIZE];
	AUTO(fd) int fd = -1;
	ssize_t n;
	int rc = spool_open_batch(db->spool, txid, &fd);

	if (rc < 0)
		return rc;
	n = io_pread(fd, data, sizeof(data), 0);
	if (n < 0)
		return (int)n;
	if (n < (ssize_t)sizeof(data))
		return error_set(-ERR_CORRUPT, "a batch is too short");
	*ret_size = (uint64_t)io_size(fd);
	return ltx_header_decode(data, ret);
}

/*
 * Those that can become one: no further back than the last that is no plain
 * batch.  What is before a drop is a database's last state, which is worth
 * keeping for itself.
 */
static bool find_unsent(struct db *db, uint64_t last, struct unsent *ret)
{
	struct ltx_header header;
	uint32_t page_size = 0;
	uint64_t size;

	*ret = (struct unsent){ .last = last };
	for (uint64_t txid = last; txid && !spool_is_claimed(db->spool, txid);
	     txid--) {
		if (read_header(db, txid, &header, &size) < 0 ||
		    header.kind != LTX_BATCH)
			break;
		if (!page_size)
			page_size = header.page_size;
		/* A new page size began with every page. */
		if (page_size != header.page_size && !ret->from)
			ret->from = txid + 1;
		ret->first = txid;
		ret->pre_dbsum = header.pre_dbsum;
		ret->oldest = size;
		ret->bytes += size;
	}
	if (!ret->from)
		ret->from = ret->first;
	return ret->first && ret->first < last;
}

/* The first is merged again and again: the others must be a fair part of it. */
static bool is_worth_it(const struct unsent *u)
{
	return (u->bytes - u->oldest) * 8 >= u->oldest;
}

/* Step 1.  Nothing is locked: batches that may not be sent stay as they are. */
static int write_merged(struct db *db, const struct unsent *u,
			struct ltx_header *ret)
{
	AUTO(fd) int fd = openat(db->state_fd, MERGED,
				 O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	AUTO(mem) struct fd_sink *sink = malloc(sizeof(*sink));
	const struct ltx_compact_batch as = {
		.txid = u->first,
		.node_id = db_node_id(db),
		.pre_dbsum = u->pre_dbsum,
	};
	int rc;

	if (fd < 0)
		return error_errno("creating '%s'", MERGED);
	if (!sink)
		return error_set(-ENOMEM, "out of memory");
	fd_sink_init(sink, fd, 0);
	rc = merge_batches(db->spool, u->from, u->last, db->state_fd, &as,
			   &sink->sink, ret);
	if (rc == 0)
		rc = fd_sink_flush(sink);
	if (rc == 0 && fsync(fd) < 0)
		rc = error_errno("syncing '%s'", MERGED);
	FAILPOINT("room-merged");
	return rc;
}

/* Steps 2 to 4, unless something was sealed or sent meanwhile. */
static int put_merged(struct db *db, const struct unsent *u,
		      const struct ltx_header *header)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->seal_lock);
	int rc = db_resume(db);

	if (rc == 0 && db->position.txid != u->last)
		rc = error_set(-EBUSY, "another batch was sealed");
	/* It could not be written, and publishing takes what is there for done. */
	if (rc == 0 && db->sealing)
		rc = error_set(-EBUSY, "a batch is being sealed");
	if (rc == 0)
		rc = spool_bar(db->spool, u->first);
	return rc < 0 ? rc : db_seal_over(db, MERGED, header);
}

/* What has been sealed, once nothing is left over of earlier tries. */
static int last_sealed(struct db *db, uint64_t *ret)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->seal_lock);
	int rc = db->spool ? db_resume(db) : 0;

	*ret = db->position.txid;
	return rc;
}

int db_merge(struct db *db, bool always)
{
	struct ltx_header header;
	struct unsent u;
	uint64_t last;
	int rc = last_sealed(db, &last);

	if (rc < 0 || !db->spool || !find_unsent(db, last, &u) ||
	    (!always && !is_worth_it(&u)))
		return rc;
	rc = write_merged(db, &u, &header);
	if (rc == 0)
		rc = put_merged(db, &u, &header);
	if (rc < 0) {
		(void)unlinkat(db->state_fd, MERGED, 0);
		return error_wrap(rc, "merging batches of '%s'", db->path);
	}
	log_info("batches merged, to make room in the spool",
		 "db=%s first=%016" PRIx64 " last=%016" PRIx64
		 " bytes=%" PRIu64,
		 log_quote(db->path), u.first, u.last, u.bytes);
	return 1;
}

/* ---------------------------------------------------------------- give up */

/* What has to be forgotten of pages. */
struct forgotten {
	struct pgmap pages;
	bool all;	 /* or everything */
	uint32_t commit; /* the smallest that the database has been */
};

static int note_batch(struct db *db, uint64_t txid, struct forgotten *f,
		      uint32_t page_size)
{
	AUTO(mem) struct fd_source *source = malloc(sizeof(*source));
	AUTO(ltx_decoder) struct ltx_decoder *decoder = NULL;
	AUTO(mem) void *page = malloc(LTX_MAX_PAGE_SIZE);
	const struct ltx_header *h;
	AUTO(fd) int fd = -1;
	uint32_t pgno;
	int rc;

	if (!source || !page)
		return error_set(-ENOMEM, "out of memory");
	rc = spool_open_batch(db->spool, txid, &fd);
	if (rc < 0)
		return rc;
	fd_source_init(source, fd, 0, UINT64_MAX);
	rc = ltx_decoder_new(&source->source, &decoder);
	if (rc < 0)
		return rc;
	h = ltx_decoder_header(decoder);
	if (h->commit < f->commit)
		f->commit = h->commit;
	if (h->kind != LTX_BATCH || h->page_size != page_size)
		f->all = true;
	while ((rc = ltx_decoder_page(decoder, &pgno, page)) > 0) {
		rc = pgmap_set(&f->pages, pgno, 1);
		if (rc < 0)
			return rc;
	}
	return rc;
}

static void note_batches(struct db *db, uint64_t kept, uint64_t last,
			 const struct ltx_header *header, struct forgotten *f)
{
	f->commit = header->commit;
	f->all = header->kind != LTX_BATCH;
	for (uint64_t txid = kept + 1; !f->all && txid <= last; txid++)
		/* A batch that cannot be read may have held any page. */
		if (note_batch(db, txid, f, header->page_size) < 0)
			f->all = true;
}

/* Step 2.  Lock held. */
static int forget_pages(struct db *db, const struct forgotten *f)
{
	AUTO(mem) uint32_t *pgnos = NULL;
	const uint64_t unknown = 0;
	size_t n = 0;
	int rc = pages_truncate(db->pages, f->all ? 0 : f->commit);

	if (rc == 0 && !f->all)
		rc = pgmap_sorted(&f->pages, &pgnos, &n);
	for (size_t i = 0; rc == 0 && i < n; i++)
		if (pgnos[i] <= pages_count(db->pages))
			rc = pages_write(db->pages, pgnos[i], &unknown, 1);
	if (rc == 0)
		rc = pages_sync(db->pages);
	FAILPOINT("room-pages");
	return rc;
}

/* Nothing is sealed until everything was compared.  Lock held. */
static void compare_later(struct db *db, uint64_t kept, uint64_t last)
{
	(void)error_set(-EDQUOT,
			"the spool is full, and %" PRIu64 " batches that were "
			"never sent were given up", last - kept);
	db_fail(db, "making room in the spool");
}

/* It did not work: the position is as before, but the pages are not known. */
static int stay(struct db *db, uint32_t page_size, int rc)
{
	struct position same = db->position;

	same.known = pages_sum(db->pages, same.commit);
	db->position_unsure = true;
	(void)db_go_back(db, &same, page_size);
	return rc;
}

/*
 * Steps 2 and 3.  Seal lock held, the batches are barred.  Where the files were
 * at the batch before is not known any more: until the next one is sealed, a
 * start after a power loss cannot tell an older file from a newer one (D20).
 */
static int go_back(struct db *db, const struct ltx_header *kept,
		   const struct forgotten *f)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->lock);
	struct position to = db_position_after(kept);
	uint32_t page_size = db->page_size;
	int rc;

	compare_later(db, kept->max_txid, db->position.txid);
	rc = forget_pages(db, f);
	to.known = pages_sum(db->pages, to.commit);
	if (rc == 0)
		rc = position_store(db->state_fd, "position", &to);
	FAILPOINT("room-position");
	if (rc < 0)
		return stay(db, page_size, rc);
	/* Times go on from the last one that was given. */
	to.timestamp_ms = db->position.timestamp_ms;
	return db_go_back(db, &to, page_size);
}

/*
 * The last batch that has to stay: one that may have been sent; the first, which
 * the next start has to take for one; or a drop, because no file is left that
 * could tell what came before it.
 */
static int find_kept(struct db *db, uint64_t last, struct ltx_header *ret)
{
	uint64_t first, kept, size;
	int rc = spool_range(db->spool, &first, &kept);

	if (rc == 0 && (!first || last < first))
		rc = error_set(-ENOENT, "nothing is in the spool");
	if (rc < 0)
		return rc;
	for (kept = last; kept > first; kept--) {
		/* What cannot be read is of no use anyway. */
		if (read_header(db, kept, ret, &size) == 0 &&
		    ret->kind == LTX_DROP)
			return 0;
		if (spool_is_claimed(db->spool, kept))
			break;
	}
	return read_header(db, kept, ret, &size);
}

static int give_up(struct db *db, const struct ltx_header *kept, uint64_t last,
		   const struct forgotten *f)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->seal_lock);
	int rc = db_resume(db);

	if (rc == 0 && db->position.txid != last)
		rc = error_set(-EBUSY, "another batch was sealed");
	if (rc == 0 && db->sealing)
		rc = error_set(-EBUSY, "a batch is being sealed");
	if (rc == 0)
		rc = spool_bar(db->spool, kept->max_txid + 1);
	if (rc < 0)
		return rc;
	rc = go_back(db, kept, f);
	if (rc < 0)
		return rc;
	rc = spool_cut(db->spool, kept->max_txid);
	/* What stays there must not be sent, and stand in nobody's way. */
	if (rc < 0)
		db->position_unsure = true;
	else
		spool_unbar(db->spool);
	return rc;
}

int db_give_up(struct db *db)
{
	struct forgotten f = { .pages = PGMAP_INIT };
	struct ltx_header kept;
	uint64_t last;
	int rc = last_sealed(db, &last);

	if (rc < 0 || !db->spool)
		return rc;
	rc = find_kept(db, last, &kept);
	if (rc < 0 || kept.max_txid >= last)
		return rc == -ENOENT ? 0 : rc;
	note_batches(db, kept.max_txid, last, &kept, &f);
	rc = give_up(db, &kept, last, &f);
	pgmap_clear(&f.pages);
	return rc < 0 ? error_wrap(rc, "giving up batches of '%s'", db->path) :
			1;
}
