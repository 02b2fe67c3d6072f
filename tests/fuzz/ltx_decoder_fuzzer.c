#include <lz4.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/stream.h"
#include "ltx/compact.h"
#include "ltx/crc64.h"
#include "ltx/decoder.h"
#include "ltx/encoder.h"
#include "ltx/index.h"

/*
 * Any bytes as an LTX file.  They are decoded as they are; and once more with
 * an index and trailer that fit the pages they seem to hold, because no
 * mutation finds a checksum.
 *
 * What the decoder accepts must mean something: written again by our encoder,
 * and merged alone, it must give the same pages.
 */
enum { LIMIT = 1 << 24 };

#define AUTO_BUF(name) AUTO(buf) struct buf name = BUF_INIT(LIMIT)

static void require(bool holds)
{
	if (!holds)
		abort();
}

/*
 * Decode; if ret_sum is given it identifies the pages, and if copy is given
 * the file is written again there.
 */
static int decode(const struct buf *file, uint64_t *ret_sum, struct buf *copy)
{
	static uint8_t page[LTX_MAX_PAGE_SIZE];
	AUTO(ltx_decoder) struct ltx_decoder *dec = NULL;
	AUTO(ltx_encoder) struct ltx_encoder *enc = NULL;
	const struct ltx_header *h;
	struct ltx_trailer trailer;
	struct mem_source in;
	struct buf_sink out;
	uint64_t sum = 0;
	uint32_t pgno;
	int rc;

	mem_source_init(&in, file->data, file->size);
	rc = ltx_decoder_new(&in.source, &dec);
	if (rc < 0)
		return rc;
	h = ltx_decoder_header(dec);
	buf_sink_init(&out, copy);
	require(!copy || ltx_encoder_new(&out.sink, h, &enc) == 0);
	while ((rc = ltx_decoder_page(dec, &pgno, page)) > 0) {
		sum = sum * 31 + ltx_crc64_page(pgno, page, h->page_size);
		require(!copy || ltx_encoder_page(enc, pgno, page) == 0);
	}
	if (rc < 0)
		return rc;
	rc = ltx_decoder_finish(dec, &trailer);
	if (rc < 0)
		return rc;
	require(!copy || ltx_encoder_finish(enc, trailer.post_apply) == 0);
	*ret_sum = sum;
	return 0;
}

static void check_merge(const struct buf *file, uint64_t expected)
{
	AUTO_BUF(merged);
	struct mem_source in;
	struct source *inputs[] = { &in.source };
	struct buf_sink out;
	struct ltx_header h;
	uint64_t sum = 0;
	int rc;

	mem_source_init(&in, file->data, file->size);
	buf_sink_init(&out, &merged);
	rc = ltx_compact(inputs, 1, &out.sink, &h);
	/* Only a record of what is elsewhere cannot be merged. */
	if (rc == -EINVAL && strstr(error_message(), "only names"))
		return;
	require(rc == 0 && decode(&merged, &sum, NULL) == 0);
	require(sum == expected);
}

static void check(const struct buf *file)
{
	AUTO_BUF(copy);
	uint64_t sum = 0, again = 0;

	if (decode(file, &sum, NULL) < 0) {
		require(error_message()[0] != '\0');
		return;
	}
	require(decode(file, &sum, &copy) == 0);
	require(decode(&copy, &again, NULL) == 0 && again == sum);
	check_merge(file, sum);
}

/* A file that is being repaired: how far it was followed, and what it needs. */
struct repair {
	const uint8_t *data;
	size_t size, at;
	uint32_t page_size;
	uint64_t crc, rolling;
	struct buf index;
};

/*
 * Follow a page in a block; false where there is none.  Frames are left to
 * files whose pages need no repair.
 */
static bool follow_page(struct repair *r)
{
	static uint8_t page[LTX_MAX_PAGE_SIZE];
	const uint8_t *frame = r->data + r->at;
	size_t left = r->size - r->at;
	uint8_t entry[LTX_INDEX_ENTRY_MAX];
	uint32_t pgno, n;

	if (left < 10 || get_be16(frame + 4) != LTX_PAGE_BLOCK)
		return false;
	pgno = get_be32(frame);
	n = get_be32(frame + 6);
	if (n > left - 10 ||
	    LZ4_decompress_safe((const char *)frame + 10, (char *)page, (int)n,
				(int)r->page_size) != (int)r->page_size)
		return false;
	r->crc = ltx_crc64(ltx_crc64(r->crc, frame, 10), page, r->page_size);
	r->rolling ^= ltx_crc64_page(pgno, page, r->page_size);
	require(buf_append(&r->index, entry,
			   ltx_index_put_entry(pgno, r->at, 10 + n, entry)) ==
		0);
	r->at += 10 + n;
	return true;
}

/* What stands behind the pages of a good file. */
static void append_end(const struct repair *r, const struct ltx_header *h,
		       struct buf *file)
{
	size_t begin = file->size;
	uint8_t number[8];
	uint64_t post = LTX_CHECKSUM_FLAG | (h->commit ? r->rolling : 0);

	require(buf_append(file, "\0\0\0\0\0", 6) == 0);
	require(buf_append(file, r->index.data, r->index.size) == 0);
	require(buf_append(file, "", 1) == 0);
	put_be64(number, r->index.size + 1);
	require(buf_append(file, number, 8) == 0);
	put_be64(number, h->flags & LTX_NO_CHECKSUM ? 0 : post);
	require(buf_append(file, number, 8) == 0);
	put_be64(number, LTX_CHECKSUM_FLAG |
				 ltx_crc64(r->crc, file->data + begin,
					   file->size - begin));
	require(buf_append(file, number, 8) == 0);
}

static void check_repaired(const uint8_t *data, size_t size)
{
	AUTO_BUF(file);
	struct ltx_header h;
	struct repair r = {
		.data = data,
		.size = size,
		.at = LTX_HEADER_SIZE,
		.index = BUF_INIT(LIMIT),
	};

	if (size < LTX_HEADER_SIZE || ltx_header_decode(data, &h) < 0)
		return;
	r.page_size = h.page_size;
	r.crc = ltx_crc64(0, data, LTX_HEADER_SIZE);
	while (follow_page(&r))
		;
	require(buf_append(&file, data, r.at) == 0);
	append_end(&r, &h, &file);
	check(&file);
	buf_cleanup(&r.index);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct buf file = { .data = (char *)data, .size = size };

	if (size > LIMIT / 2)
		return 0;
	check(&file);
	check_repaired(data, size);
	return 0;
}
