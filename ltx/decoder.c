#include <inttypes.h>
#include <lz4.h>
#include <lz4frame.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/stream.h"
#include "ltx/crc64.h"
#include "ltx/index.h"
#include "ltx/order.h"

#include "ltx/decoder.h"

/*
 * What the file checksum covers, in the order of the file: the header; each
 * page's header and size field, and the page uncompressed; the end of the
 * pages; the index and its size; the post-apply checksum.
 *
 * The index holds nothing that the pages have not told: frames lie one behind
 * the other.  So its bytes are known when the last page was read, and a hash
 * of them is enough to compare, however many pages there are.
 */
struct ltx_decoder {
	struct source *in;
	struct ltx_header header;
	uint64_t offset; /* bytes read */
	uint64_t crc;
	uint32_t last_pgno;
	bool pages_done, finished;
	int failed;

	/* What the index must be. */
	XXH3_state_t *index_hash;
	uint64_t index_size;

	/* XOR of the page checksums, where post_apply can be proved. */
	uint64_t rolling;

	LZ4F_dctx *frames; /* made when the first is met */

	size_t packed_capacity;
	char packed[]; /* one page, compressed */
};

static int corrupt(int rc)
{
	return rc == -EINVAL ? -ERR_CORRUPT : rc;
}

/* Exactly size bytes; what names them when they are not there. */
static int take(struct ltx_decoder *dec, void *data, size_t size,
		const char *what)
{
	ssize_t n = source_read_full(dec->in, data, size);

	if (n < 0)
		return (int)n;
	if ((size_t)n < size)
		return error_set(-ERR_CORRUPT,
				 "the file is cut off in the %s: it ends after "
				 "%" PRIu64 " bytes",
				 what, dec->offset + (uint64_t)n);
	dec->offset += size;
	return 0;
}

static int take_covered(struct ltx_decoder *dec, void *data, size_t size,
			const char *what)
{
	int rc = take(dec, data, size, what);

	if (rc < 0)
		return rc;
	dec->crc = ltx_crc64(dec->crc, data, size);
	return 0;
}

static int new_decoder(struct source *in, const struct ltx_header *header,
		       struct ltx_decoder **ret)
{
	size_t capacity = (size_t)LZ4_compressBound((int)header->page_size);
	AUTO(ltx_decoder) struct ltx_decoder *dec =
		calloc(1, sizeof(*dec) + capacity);

	if (!dec)
		return error_set(-ENOMEM, "out of memory for an LTX decoder");
	dec->index_hash = XXH3_createState();
	if (!dec->index_hash)
		return error_set(-ENOMEM, "out of memory for an LTX decoder");
	(void)XXH3_64bits_reset(dec->index_hash);
	dec->in = in;
	dec->header = *header;
	dec->packed_capacity = capacity;
	dec->rolling = LTX_CHECKSUM_FLAG;
	*ret = TAKE(dec);
	return 0;
}

int ltx_decoder_new(struct source *in, struct ltx_decoder **ret)
{
	uint8_t data[LTX_HEADER_SIZE] = { 0 };
	struct ltx_header header;
	struct ltx_decoder *dec = NULL;
	ssize_t n = source_read_full(in, data, sizeof(data));
	int rc;

	if (n < 0)
		return (int)n;
	if ((size_t)n < sizeof(data))
		return error_set(-ERR_CORRUPT,
				 "the file is cut off in the header: it ends "
				 "after %zd bytes",
				 n);
	rc = ltx_header_decode(data, &header);
	if (rc < 0)
		return rc;
	rc = new_decoder(in, &header, &dec);
	if (rc < 0)
		return rc;
	dec->offset = sizeof(data);
	dec->crc = ltx_crc64(0, data, sizeof(data));
	*ret = dec;
	return 0;
}

const struct ltx_header *ltx_decoder_header(const struct ltx_decoder *dec)
{
	return &dec->header;
}

/*
 * Older formats have the same header.  What distinguishes them comes first
 * behind it: version 2 has a frame right behind the page number, version 1
 * the page itself, of which we see two bytes as flags.
 */
static int check_page_flags(const struct ltx_decoder *dec, uint32_t pgno,
			    uint16_t flags)
{
	bool first = dec->last_pgno == 0;

	if (first && flags == 0x0422)
		return error_set(-ERR_CORRUPT,
				 "this is a file of an early Litestream beta "
				 "(LTX version 2), which has another format");
	if (first && flags & ~LTX_PAGE_BLOCK)
		return error_set(-ERR_CORRUPT,
				 "the page flags 0x%04x are unknown; this may "
				 "be a file of LiteFS (LTX version 1), which "
				 "has another format",
				 flags);
	if (flags & ~LTX_PAGE_BLOCK)
		return error_set(-ERR_CORRUPT,
				 "the page flags 0x%04x are unknown", flags);
	if (pgno == 0)
		return error_set(-ERR_CORRUPT,
				 "page number 0 with page flags 0x%04x", flags);
	return 0;
}

static int take_block(struct ltx_decoder *dec, void *page)
{
	uint32_t page_size = dec->header.page_size, size;
	uint8_t field[4];
	int rc = take_covered(dec, field, sizeof(field), "size of a page");

	if (rc < 0)
		return rc;
	size = get_be32(field);
	if (size == 0 || size > dec->packed_capacity)
		return error_set(-ERR_CORRUPT,
				 "its block size %u is not from 1 to %zu", size,
				 dec->packed_capacity);
	rc = take(dec, dec->packed, size, "block of a page");
	if (rc < 0)
		return rc;
	rc = LZ4_decompress_safe(dec->packed, page, (int)size, (int)page_size);
	if (rc < 0)
		return error_set(-ERR_CORRUPT, "its LZ4 block is damaged");
	if ((uint32_t)rc != page_size)
		return error_set(-ERR_CORRUPT,
				 "its LZ4 block gives %d bytes instead of %u",
				 rc, page_size);
	return 0;
}

/*
 * The magic number, and the two bytes that choose the frame's features.
 * Writers use blocks of 64 KiB, which is a page at most and bounds what the
 * library allocates, and a checksum at the end.
 */
static int check_frame_header(const uint8_t *header)
{
	if (get_le32(header) != LZ4F_MAGICNUMBER)
		return error_set(-ERR_CORRUPT,
				 "no LZ4 frame begins where one should; this "
				 "may be a file of LiteFS (LTX version 1), "
				 "which has another format");
	if ((header[4] & 0x04) == 0)
		return error_set(-ERR_CORRUPT,
				 "its LZ4 frame has no content checksum");
	if ((header[5] & 0x70) != LZ4F_max64KB << 4)
		return error_set(-ERR_CORRUPT,
				 "its LZ4 frame has blocks larger than a page");
	return 0;
}

/* Hand size bytes of packed to the library; returns how many it wants next. */
static int feed_frame(struct ltx_decoder *dec, size_t size, uint8_t *page,
		      size_t *filled, size_t *ret_wanted)
{
	size_t room = dec->header.page_size - *filled, consumed = size;
	size_t wanted = LZ4F_decompress(dec->frames, page + *filled, &room,
					dec->packed, &consumed, NULL);

	if (LZ4F_isError(wanted))
		return error_set(-ERR_CORRUPT, "its LZ4 frame is damaged: %s",
				 LZ4F_getErrorName(wanted));
	*filled += room;
	if (consumed < size)
		return error_set(-ERR_CORRUPT,
				 "its LZ4 frame gives more than %u bytes",
				 dec->header.page_size);
	if (wanted > dec->packed_capacity)
		return error_set(-ERR_CORRUPT,
				 "its LZ4 frame has a block of %zu bytes",
				 wanted);
	*ret_wanted = wanted;
	return 0;
}

/*
 * A frame does not say how long it is.  But the library says after each piece
 * how much it needs next, and never asks for more than the frame has.
 */
static int take_frame(struct ltx_decoder *dec, uint8_t *page)
{
	size_t wanted = LZ4F_HEADER_SIZE_MIN, filled = 0;
	bool first = true;

	if (!dec->frames && LZ4F_isError(LZ4F_createDecompressionContext(
				    &dec->frames, LZ4F_VERSION)))
		return error_set(-ENOMEM, "out of memory for an LZ4 frame");
	while (wanted > 0) {
		size_t size = wanted;
		int rc = take(dec, dec->packed, size, "frame of a page");

		if (rc == 0 && first)
			rc = check_frame_header((uint8_t *)dec->packed);
		if (rc == 0)
			rc = feed_frame(dec, size, page, &filled, &wanted);
		if (rc < 0)
			return rc;
		first = false;
	}
	if (filled < dec->header.page_size)
		return error_set(-ERR_CORRUPT,
				 "its LZ4 frame gives %zu bytes instead of %u",
				 filled, dec->header.page_size);
	return 0;
}

static bool is_proved(const struct ltx_decoder *dec)
{
	return ltx_header_is_snapshot(&dec->header) &&
	       !(dec->header.flags & LTX_NO_CHECKSUM);
}

/* A page is complete: what follows from it for the end of the file. */
static void account(struct ltx_decoder *dec, uint32_t pgno, const void *page,
		    uint64_t begin)
{
	uint8_t entry[LTX_INDEX_ENTRY_MAX];
	size_t size = ltx_index_put_entry(pgno, begin, dec->offset - begin,
					  entry);

	(void)XXH3_64bits_update(dec->index_hash, entry, size);
	dec->index_size += size;
	dec->crc = ltx_crc64(dec->crc, page, dec->header.page_size);
	if (is_proved(dec))
		dec->rolling = LTX_CHECKSUM_FLAG |
			       (dec->rolling ^
				ltx_crc64_page(pgno, page,
					       dec->header.page_size));
	dec->last_pgno = pgno;
}

static int end_of_pages(struct ltx_decoder *dec)
{
	int rc = ltx_order_check_end(&dec->header, dec->last_pgno);

	if (rc < 0)
		return corrupt(rc);
	(void)XXH3_64bits_update(dec->index_hash, "", 1);
	dec->index_size += 1;
	dec->pages_done = true;
	return 0;
}

static int take_page(struct ltx_decoder *dec, uint32_t *ret_pgno, void *page)
{
	uint64_t begin = dec->offset;
	uint8_t header[LTX_PAGE_HEADER_SIZE];
	uint32_t pgno;
	uint16_t flags;
	int rc = take_covered(dec, header, sizeof(header), "page header");

	if (rc < 0)
		return rc;
	pgno = get_be32(header);
	flags = get_be16(header + 4);
	if (pgno == 0 && flags == 0)
		return end_of_pages(dec);
	rc = check_page_flags(dec, pgno, flags);
	if (rc == 0)
		rc = corrupt(ltx_order_check(&dec->header, dec->last_pgno,
					     pgno));
	if (rc < 0)
		return rc;
	rc = flags & LTX_PAGE_BLOCK ? take_block(dec, page) :
				      take_frame(dec, page);
	if (rc < 0)
		return error_wrap(rc, "page %u, at byte %" PRIu64, pgno, begin);
	account(dec, pgno, page, begin);
	*ret_pgno = pgno;
	return 1;
}

static int fail_again(const struct ltx_decoder *dec)
{
	return error_set(dec->failed, "reading this LTX file has failed before");
}

int ltx_decoder_page(struct ltx_decoder *dec, uint32_t *ret_pgno, void *page)
{
	int rc;

	if (dec->failed)
		return fail_again(dec);
	if (dec->pages_done)
		return 0;
	rc = take_page(dec, ret_pgno, page);
	if (rc < 0)
		dec->failed = rc;
	return rc;
}

static int check_index(struct ltx_decoder *dec)
{
	uint64_t expected = XXH3_64bits_digest(dec->index_hash);
	uint64_t left = dec->index_size;
	uint8_t size[8];
	int rc;

	(void)XXH3_64bits_reset(dec->index_hash);
	while (left > 0) {
		uint8_t data[4096];
		size_t n = left < sizeof(data) ? (size_t)left : sizeof(data);

		rc = take_covered(dec, data, n, "page index");
		if (rc < 0)
			return rc;
		(void)XXH3_64bits_update(dec->index_hash, data, n);
		left -= n;
	}
	rc = take_covered(dec, size, sizeof(size), "size of the page index");
	if (rc < 0)
		return rc;
	if (XXH3_64bits_digest(dec->index_hash) != expected ||
	    get_be64(size) != dec->index_size)
		return error_set(-ERR_CORRUPT,
				 "the page index does not match the pages");
	return 0;
}

static int check_post_apply(const struct ltx_decoder *dec, uint64_t post_apply)
{
	const struct ltx_header *h = &dec->header;

	if (h->flags & LTX_NO_CHECKSUM && post_apply)
		return error_set(-ERR_CORRUPT,
				 "the post-apply checksum is set in a file "
				 "whose flags say that it has none");
	if (h->flags & LTX_NO_CHECKSUM)
		return 0;
	if (!(post_apply & LTX_CHECKSUM_FLAG))
		return error_set(-ERR_CORRUPT,
				 "the post-apply checksum is missing");
	if ((is_proved(dec) || h->commit == 0) && post_apply != dec->rolling)
		return error_set(-ERR_CORRUPT,
				 "the post-apply checksum %016" PRIx64
				 " is not that of the pages, %016" PRIx64,
				 post_apply, dec->rolling);
	return 0;
}

static int check_trailer(struct ltx_decoder *dec, struct ltx_trailer *ret)
{
	uint8_t data[LTX_TRAILER_SIZE];
	int rc = take(dec, data, sizeof(data), "trailer");

	if (rc < 0)
		return rc;
	dec->crc = ltx_crc64(dec->crc, data, 8);
	ret->post_apply = get_be64(data);
	ret->file_checksum = get_be64(data + 8);
	if (ret->file_checksum != (LTX_CHECKSUM_FLAG | dec->crc))
		return error_set(-ERR_CORRUPT,
				 "the file checksum is %016" PRIx64
				 ", but the content gives %016" PRIx64,
				 ret->file_checksum,
				 LTX_CHECKSUM_FLAG | dec->crc);
	return check_post_apply(dec, ret->post_apply);
}

static int check_end(struct ltx_decoder *dec)
{
	char byte;
	ssize_t n = source_read(dec->in, &byte, 1);

	if (n < 0)
		return (int)n;
	if (n > 0)
		return error_set(-ERR_CORRUPT,
				 "something follows the trailer, at byte "
				 "%" PRIu64,
				 dec->offset);
	return 0;
}

static int finish(struct ltx_decoder *dec, struct ltx_trailer *ret)
{
	int rc = check_index(dec);

	if (rc < 0)
		return rc;
	rc = check_trailer(dec, ret);
	if (rc < 0)
		return rc;
	return check_end(dec);
}

int ltx_decoder_finish(struct ltx_decoder *dec, struct ltx_trailer *ret)
{
	struct ltx_trailer trailer;
	int rc;

	if (dec->failed)
		return fail_again(dec);
	if (!dec->pages_done || dec->finished)
		return dec->failed = error_set(
			       -EINVAL, "not at the end of an LTX file's pages");
	rc = finish(dec, &trailer);
	if (rc < 0)
		return dec->failed = rc;
	dec->finished = true;
	if (ret)
		*ret = trailer;
	return 0;
}

void ltx_decoder_free(struct ltx_decoder *dec)
{
	if (!dec)
		return;
	(void)LZ4F_freeDecompressionContext(dec->frames);
	(void)XXH3_freeState(dec->index_hash);
	free(dec);
}
