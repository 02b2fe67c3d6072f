#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fail.h"
#include "base/stream.h"
#include "bucket/archive.h"
#include "ltx/decoder.h"
#include "ltx/encoder.h"
#include "uploader/batch.h"

#include "uploader/snapshot.h"

bool snapshot_due(const struct ltx_header *before,
		  const struct ltx_header *slot)
{
	if (slot->kind != LTX_BATCH)
		return false;
	return slot->max_txid == 1 || before->page_size != slot->page_size ||
	       before->kind == LTX_DROP;
}

/* A file without a name. */
static int open_temp(const char *dir, int *ret_fd)
{
	char path[4096];
	int fd;

	if (!dir)
		dir = getenv("TMPDIR");
	if (!dir || !*dir)
		dir = "/var/tmp";
	if (snprintf(path, sizeof(path), "%s/litebucket-XXXXXX", dir) >=
	    (int)sizeof(path))
		return error_set(-ENAMETOOLONG, "%s: too long", dir);
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		return error_errno("making a temporary file in %s", dir);
	(void)unlink(path);
	*ret_fd = fd;
	return 0;
}

static int copy_pages(struct ltx_decoder *decoder, struct ltx_encoder *encoder,
		      void *page)
{
	uint32_t pgno;
	int rc;

	while ((rc = ltx_decoder_page(decoder, &pgno, page)) > 0) {
		rc = ltx_encoder_page(encoder, pgno, page);
		if (rc < 0)
			return rc;
	}
	if (rc == 0)
		rc = ltx_decoder_finish(decoder, NULL);
	return rc < 0 ? rc : ltx_encoder_finish(encoder, 0);
}

/* in's pages as a file with this header. */
static int encode(struct source *in, const struct ltx_header *header,
		  struct sink *out, uint64_t *ret_size)
{
	AUTO(ltx_decoder) struct ltx_decoder *decoder = NULL;
	AUTO(ltx_encoder) struct ltx_encoder *encoder = NULL;
	AUTO(mem) void *page = malloc(header->page_size);
	int rc;

	if (!page)
		return error_set(-ENOMEM, "no memory for a page");
	rc = ltx_decoder_new(in, &decoder);
	if (rc == 0)
		rc = ltx_encoder_new(out, header, &encoder);
	if (rc == 0)
		rc = copy_pages(decoder, encoder, page);
	if (rc == 0)
		*ret_size = ltx_encoder_size(encoder);
	return rc;
}

/* Its own base instead of the slots before it. */
static int rebase(const struct batch *batch, const char *temp_dir,
		  struct batch *ret)
{
	AUTO(batch) struct batch snapshot = BATCH_NONE;
	struct fd_source in;
	struct fd_sink out;
	int rc = open_temp(temp_dir, &snapshot.fd);

	if (rc < 0)
		return rc;
	snapshot.header = batch->header;
	snapshot.header.min_txid = 1;
	snapshot.header.pre_dbsum = 0;
	fd_source_init(&in, batch->fd, 0, batch->size);
	fd_sink_init(&out, snapshot.fd, 0);
	rc = encode(&in.source, &snapshot.header, &out.sink, &snapshot.size);
	if (rc == 0)
		rc = fd_sink_flush(&out);
	if (rc < 0)
		return rc;
	*ret = snapshot;
	snapshot.fd = -1;
	return 0;
}

static int put(struct bucket *b, const char *db, const struct batch *snapshot,
	       uint64_t *ret_size)
{
	struct bucket_info info;
	int rc = archive_put(b, db, ARCHIVE_SNAPSHOT_LEVEL, &snapshot->header,
			     snapshot->fd, snapshot->size, true, &info);

	if (rc < 0 && rc != -ERR_PRECOND)
		return rc;
	FAILPOINT("snapshot-put");
	*ret_size = rc == 0 ? snapshot->size : 0;
	return 0;
}

int snapshot_put(struct bucket *b, const char *db, const struct batch *batch,
		 const char *temp_dir, uint64_t *ret_size)
{
	AUTO(batch) struct batch rebased = BATCH_NONE;
	int rc;

	if (ltx_header_is_snapshot(&batch->header))
		return put(b, db, batch, ret_size);
	rc = rebase(batch, temp_dir, &rebased);
	return rc < 0 ? rc : put(b, db, &rebased, ret_size);
}
