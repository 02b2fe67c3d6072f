#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/io.h"
#include "base/stream.h"
#include "ltx/decoder.h"
#include "ltx/name.h"
#include "ltx/spool.h"

#include "uploader/batch.h"

static int read_header(struct batch *batch)
{
	uint8_t bytes[LTX_HEADER_SIZE];
	int64_t size = io_size(batch->fd);
	ssize_t n;

	if (size < 0)
		return (int)size;
	batch->size = (uint64_t)size;
	n = io_pread(batch->fd, bytes, sizeof(bytes), 0);
	if (n < 0)
		return (int)n;
	if (n < (ssize_t)sizeof(bytes))
		return error_set(-ERR_CORRUPT, "it is only %zd bytes long", n);
	return ltx_header_decode(bytes, &batch->header);
}

static int check_name(const struct batch *batch, uint64_t txid)
{
	const struct ltx_header *h = &batch->header;

	if (h->min_txid == txid && h->max_txid == txid)
		return 0;
	return error_set(-ERR_CORRUPT,
			 "it holds transactions %" PRIx64 " to %" PRIx64,
			 h->min_txid, h->max_txid);
}

/* rc, and the descriptor in batch, are of opening it. */
static int take_up(struct batch *batch, uint64_t txid, int rc,
		   struct batch *ret)
{
	char name[LTX_TXID_TEXT_SIZE];

	if (rc < 0)
		return rc;
	rc = read_header(batch);
	if (rc == 0)
		rc = check_name(batch, txid);
	if (rc < 0) {
		ltx_txid_format(txid, name);
		return error_wrap(rc, "batch %s of the spool", name);
	}
	*ret = *batch;
	batch->fd = -1;
	return 0;
}

int batch_open(struct spool *spool, uint64_t txid, struct batch *ret)
{
	AUTO(batch) struct batch batch = BATCH_NONE;
	int rc = spool_claim(spool, txid, &batch.fd);

	return take_up(&batch, txid, rc, ret);
}

int batch_open_kept(struct spool *spool, uint64_t txid, struct batch *ret)
{
	AUTO(batch) struct batch batch = BATCH_NONE;
	int rc = spool_open_kept(spool, txid, &batch.fd);

	return take_up(&batch, txid, rc, ret);
}

static int read_through(struct source *file, uint32_t page_size)
{
	AUTO(ltx_decoder) struct ltx_decoder *decoder = NULL;
	AUTO(mem) void *page = malloc(page_size);
	uint32_t pgno;
	int rc;

	if (!page)
		return error_set(-ENOMEM, "no memory for a page");
	rc = ltx_decoder_new(file, &decoder);
	if (rc < 0)
		return rc;
	do
		rc = ltx_decoder_page(decoder, &pgno, page);
	while (rc > 0);
	return rc < 0 ? rc : ltx_decoder_finish(decoder, NULL);
}

int batch_verify(const struct batch *batch)
{
	struct fd_source file;
	char name[LTX_TXID_TEXT_SIZE];
	int rc;

	fd_source_init(&file, batch->fd, 0, batch->size);
	rc = read_through(&file.source, batch->header.page_size);
	if (rc == 0)
		return 0;
	ltx_txid_format(batch->header.max_txid, name);
	return error_wrap(rc, "batch %s of the spool is damaged", name);
}

void batch_cleanup(struct batch *batch)
{
	fd_cleanup(&batch->fd);
}
