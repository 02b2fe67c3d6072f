#include <lz4.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/stream.h"
#include "ltx/crc64.h"
#include "ltx/index.h"
#include "ltx/order.h"

#include "ltx/encoder.h"

/*
 * A page becomes a frame:
 *
 *	pgno (4) | flags (2): LTX_PAGE_BLOCK | size (4) | one LZ4 block
 *
 * The file checksum runs over the frame's first ten bytes and the page itself,
 * not over the block.
 */
enum {
	FRAME_HEADER_SIZE = LTX_PAGE_HEADER_SIZE + 4,

	/* Some 300 million pages. */
	STEPS_LIMIT = 1 << 30,
};

struct ltx_encoder {
	struct sink *out;
	struct ltx_header header;
	uint64_t size;
	uint64_t crc;
	uint32_t last_pgno;
	bool finished;
	int failed;

	/*
	 * The page index in short: for each page two varints, the step from
	 * the page before and the frame's length.  Frames lie one behind the
	 * other, so the offsets follow.
	 */
	struct buf steps;

	char *lz4;
	size_t block_capacity;
	uint8_t frame[]; /* one page's */
};

static int emit(struct ltx_encoder *enc, const void *data, size_t size)
{
	int rc = sink_write(enc->out, data, size);

	if (rc < 0)
		return rc;
	enc->size += size;
	return 0;
}

/* What the file checksum covers as it stands in the file. */
static int emit_covered(struct ltx_encoder *enc, const void *data, size_t size)
{
	enc->crc = ltx_crc64(enc->crc, data, size);
	return emit(enc, data, size);
}

static int emit_header(struct ltx_encoder *enc)
{
	uint8_t data[LTX_HEADER_SIZE];

	ltx_header_encode(&enc->header, data);
	return emit_covered(enc, data, sizeof(data));
}

static int new_encoder(struct sink *out, const struct ltx_header *header,
		       struct ltx_encoder **ret)
{
	size_t capacity = (size_t)LZ4_compressBound((int)header->page_size);
	AUTO(ltx_encoder) struct ltx_encoder *enc =
		calloc(1, sizeof(*enc) + FRAME_HEADER_SIZE + capacity);

	if (!enc)
		return error_set(-ENOMEM, "out of memory for an LTX encoder");
	enc->lz4 = malloc((size_t)LZ4_sizeofState());
	if (!enc->lz4)
		return error_set(-ENOMEM, "out of memory for an LTX encoder");
	enc->out = out;
	enc->header = *header;
	enc->steps = (struct buf)BUF_INIT(STEPS_LIMIT);
	enc->block_capacity = capacity;
	*ret = TAKE(enc);
	return 0;
}

int ltx_encoder_new(struct sink *out, const struct ltx_header *header,
		    struct ltx_encoder **ret)
{
	AUTO(ltx_encoder) struct ltx_encoder *enc = NULL;
	int rc = ltx_header_check(header);

	if (rc < 0)
		return error_wrap(rc, "writing an LTX file");
	rc = new_encoder(out, header, &enc);
	if (rc < 0)
		return rc;
	rc = emit_header(enc);
	if (rc < 0)
		return error_wrap(rc, "writing an LTX header");
	*ret = TAKE(enc);
	return 0;
}

/* A further call after a failure, or after the end. */
static int check_usable(const struct ltx_encoder *enc)
{
	if (enc->failed)
		return error_set(enc->failed,
				 "writing this LTX file has failed before");
	if (enc->finished)
		return error_set(-EINVAL, "this LTX file is finished");
	return 0;
}

static int remember_step(struct ltx_encoder *enc, uint32_t pgno, size_t length)
{
	uint8_t step[2 * LTX_VARINT_MAX];
	size_t size = ltx_index_put_varint(pgno - enc->last_pgno, step);

	size += ltx_index_put_varint(length, step + size);
	return buf_append(&enc->steps, step, size);
}

static int emit_page(struct ltx_encoder *enc, uint32_t pgno, const void *page)
{
	uint32_t page_size = enc->header.page_size;
	uint8_t *block = enc->frame + FRAME_HEADER_SIZE;
	int rc = ltx_order_check(&enc->header, enc->last_pgno, pgno);
	int block_size;

	if (rc < 0)
		return rc;
	block_size = LZ4_compress_fast_extState(enc->lz4, page, (char *)block,
						(int)page_size,
						(int)enc->block_capacity, 1);
	if (block_size <= 0)
		return error_set(-EIO, "LZ4 could not compress page %u", pgno);
	put_be32(enc->frame, pgno);
	put_be16(enc->frame + 4, LTX_PAGE_BLOCK);
	put_be32(enc->frame + LTX_PAGE_HEADER_SIZE, (uint32_t)block_size);
	enc->crc = ltx_crc64(enc->crc, enc->frame, FRAME_HEADER_SIZE);
	enc->crc = ltx_crc64(enc->crc, page, page_size);
	rc = remember_step(enc, pgno, FRAME_HEADER_SIZE + (size_t)block_size);
	if (rc < 0)
		return rc;
	enc->last_pgno = pgno;
	return emit(enc, enc->frame, FRAME_HEADER_SIZE + (size_t)block_size);
}

int ltx_encoder_page(struct ltx_encoder *enc, uint32_t pgno, const void *page)
{
	int rc = check_usable(enc);

	if (rc < 0)
		return rc;
	rc = emit_page(enc, pgno, page);
	if (rc < 0)
		return enc->failed = error_wrap(rc, "writing an LTX file");
	return 0;
}

static int check_post_apply(const struct ltx_header *h, uint64_t post_apply)
{
	if (h->flags & LTX_NO_CHECKSUM && post_apply)
		return error_set(-EINVAL,
				 "a post-apply checksum in a file whose flags "
				 "say that it has none");
	if (h->flags & LTX_NO_CHECKSUM)
		return 0;
	if (!(post_apply & LTX_CHECKSUM_FLAG))
		return error_set(-EINVAL, "the post-apply checksum is missing");
	if (h->commit == 0 && post_apply != LTX_CHECKSUM_FLAG)
		return error_set(-EINVAL,
				 "the post-apply checksum is not that of an "
				 "empty database");
	return 0;
}

/* Six zero bytes where a page header would be. */
static int emit_end_of_pages(struct ltx_encoder *enc)
{
	static const uint8_t zero[LTX_PAGE_HEADER_SIZE];

	return emit_covered(enc, zero, sizeof(zero));
}

static int emit_index(struct ltx_encoder *enc)
{
	const uint8_t *steps = (const uint8_t *)enc->steps.data;
	uint64_t begin = enc->size, offset = LTX_HEADER_SIZE;
	uint32_t pgno = 0;
	uint8_t size[8];
	int rc;

	for (size_t at = 0; at < enc->steps.size;) {
		uint8_t entry[LTX_INDEX_ENTRY_MAX];
		uint64_t skip, length;

		at += ltx_index_get_varint(steps + at, &skip);
		at += ltx_index_get_varint(steps + at, &length);
		pgno += (uint32_t)skip;
		rc = emit_covered(enc, entry,
				  ltx_index_put_entry(pgno, offset, length,
						      entry));
		if (rc < 0)
			return rc;
		offset += length;
	}
	rc = emit_covered(enc, "", 1);
	if (rc < 0)
		return rc;
	put_be64(size, enc->size - begin);
	return emit_covered(enc, size, sizeof(size));
}

static int emit_trailer(struct ltx_encoder *enc, uint64_t post_apply)
{
	uint8_t sum[8];
	int rc;

	put_be64(sum, post_apply);
	rc = emit_covered(enc, sum, sizeof(sum));
	if (rc < 0)
		return rc;
	put_be64(sum, LTX_CHECKSUM_FLAG | enc->crc);
	return emit(enc, sum, sizeof(sum));
}

static int finish(struct ltx_encoder *enc, uint64_t post_apply)
{
	int rc = ltx_order_check_end(&enc->header, enc->last_pgno);

	if (rc < 0)
		return rc;
	rc = check_post_apply(&enc->header, post_apply);
	if (rc < 0)
		return rc;
	rc = emit_end_of_pages(enc);
	if (rc < 0)
		return rc;
	rc = emit_index(enc);
	if (rc < 0)
		return rc;
	return emit_trailer(enc, post_apply);
}

int ltx_encoder_finish(struct ltx_encoder *enc, uint64_t post_apply)
{
	int rc = check_usable(enc);

	if (rc < 0)
		return rc;
	rc = finish(enc, post_apply);
	if (rc < 0)
		return enc->failed = error_wrap(rc, "writing an LTX file");
	enc->finished = true;
	return 0;
}

uint64_t ltx_encoder_size(const struct ltx_encoder *enc)
{
	return enc->size;
}

void ltx_encoder_free(struct ltx_encoder *enc)
{
	if (!enc)
		return;
	buf_cleanup(&enc->steps);
	free(enc->lz4);
	free(enc);
}
