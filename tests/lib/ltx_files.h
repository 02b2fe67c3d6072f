#ifndef LITEBUCKET_TESTS_LIB_LTX_FILES_H
#define LITEBUCKET_TESTS_LIB_LTX_FILES_H

/*
 * For tests of the file format: fixtures, files decoded into memory, and
 * files forged by hand, whose checksum holds whatever else is wrong.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <lz4.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "base/stream.h"
#include "ltx/crc64.h"
#include "ltx/decoder.h"
#include "ltx/encoder.h"
#include "ltx/index.h"

#define AUTO_BUF(name) AUTO(buf) struct buf name = BUF_INIT(SIZE_MAX / 4)
#define MAYBE_UNUSED   __attribute__((unused))

/* The error sentence must hold these words. */
#define assert_message(words)                                         \
	do {                                                          \
		if (!strstr(error_message(), words))                  \
			fail_msg("'%s' is not in '%s'", words,        \
				 error_message());                    \
	} while (0)

/* Put the content of a file of the fixtures' directory into ret. */
PRINTF_LIKE(2, 3)
MAYBE_UNUSED static void read_fixture(struct buf *ret, const char *fmt, ...)
{
	char path[512] = FIXTURES "/ltx/";
	size_t length = strlen(path);
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(path + length, sizeof(path) - length, fmt, args);
	va_end(args);
	buf_reset(ret);
	if (io_read_file(AT_FDCWD, path, ret) < 0)
		fail_msg("%s", error_message());
}

/* A page of a pattern (seed 0: zeros), or of noise that nothing compresses. */
MAYBE_UNUSED static void fill_page(uint8_t *page, size_t size, unsigned seed)
{
	for (size_t i = 0; i < size; i++)
		page[i] = (uint8_t)(seed * (i / 7 + 3));
}

MAYBE_UNUSED static void fill_noise(uint8_t *page, size_t size, uint64_t seed)
{
	uint64_t x = seed * 0x9e3779b97f4a7c15u + 1;

	for (size_t i = 0; i < size; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		page[i] = (uint8_t)(x >> 32);
	}
}

/*
 * What a file is worth.  db is the database it is applied to and grows with
 * it; NULL to throw the pages away.
 */
struct decoded {
	struct ltx_header header;
	struct ltx_trailer trailer;
	uint32_t n_pages;
	uint32_t first_pgno, last_pgno;
};

static int apply_page(struct buf *db, uint32_t pgno, const void *page,
		      uint32_t page_size)
{
	size_t end = (size_t)pgno * page_size;

	if (!db)
		return 0;
	if (end > db->size) {
		int rc = buf_reserve(db, end - db->size);

		if (rc < 0)
			return rc;
		memset(db->data + db->size, 0, end - db->size);
		db->size = end;
	}
	memcpy(db->data + end - page_size, page, page_size);
	return 0;
}

static int decode_source(struct source *in, struct buf *db,
			 struct decoded *ret)
{
	static uint8_t page[LTX_MAX_PAGE_SIZE];
	AUTO(ltx_decoder) struct ltx_decoder *dec = NULL;
	uint32_t pgno;
	int rc = ltx_decoder_new(in, &dec);

	if (rc < 0)
		return rc;
	*ret = (struct decoded){ .header = *ltx_decoder_header(dec) };
	while ((rc = ltx_decoder_page(dec, &pgno, page)) > 0) {
		if (ret->n_pages++ == 0)
			ret->first_pgno = pgno;
		ret->last_pgno = pgno;
		rc = apply_page(db, pgno, page, ret->header.page_size);
		if (rc < 0)
			return rc;
	}
	if (rc < 0)
		return rc;
	rc = ltx_decoder_finish(dec, &ret->trailer);
	if (rc == 0 && db &&
	    db->size > (size_t)ret->header.commit * ret->header.page_size)
		db->size = (size_t)ret->header.commit * ret->header.page_size;
	return rc;
}

MAYBE_UNUSED static int decode(const void *data, size_t size, struct buf *db,
			       struct decoded *ret)
{
	struct mem_source in;

	mem_source_init(&in, data, size);
	return decode_source(&in.source, db, ret);
}

MAYBE_UNUSED static int decode_buf(const struct buf *file)
{
	struct decoded d;

	return decode(file->data, file->size, NULL, &d);
}

/* A batch in our own style. */
MAYBE_UNUSED static struct ltx_header plain_header(uint32_t page_size,
						   uint32_t commit,
						   uint64_t min, uint64_t max)
{
	return (struct ltx_header){
		.flags = LTX_NO_CHECKSUM,
		.page_size = page_size,
		.commit = commit,
		.min_txid = min,
		.max_txid = max,
		.timestamp_ms = 1700000000123,
	};
}

/* Encode pages first..last, each filled by its number times seed. */
MAYBE_UNUSED static void encode_range(struct buf *ret,
				      const struct ltx_header *h,
				      uint32_t first, uint32_t last,
				      unsigned seed)
{
	static uint8_t page[LTX_MAX_PAGE_SIZE];
	AUTO(ltx_encoder) struct ltx_encoder *enc = NULL;
	struct buf_sink out;

	buf_reset(ret);
	buf_sink_init(&out, ret);
	assert_int_equal(ltx_encoder_new(&out.sink, h, &enc), 0);
	for (uint32_t pgno = first; pgno && pgno <= last; pgno++) {
		fill_page(page, h->page_size, pgno * seed);
		assert_int_equal(ltx_encoder_page(enc, pgno, page), 0);
	}
	assert_int_equal(ltx_encoder_finish(enc, 0), 0);
	assert_int_equal(ltx_encoder_size(enc), ret->size);
}

/*
 * A file made by hand, in the order of its parts.  Each part can be replaced
 * by other bytes; forge_trailer() makes the checksum fit.
 */
struct forge {
	struct buf file, index;
	uint64_t crc;
};

#define FORGE_INIT                          \
	{                                   \
		BUF_INIT(SIZE_MAX / 4),     \
		BUF_INIT(SIZE_MAX / 4),     \
		0,                          \
	}

MAYBE_UNUSED static void forge_cleanup(struct forge *f)
{
	buf_cleanup(&f->file);
	buf_cleanup(&f->index);
}

/* Not covered by the checksum. */
MAYBE_UNUSED static void forge_payload(struct forge *f, const void *data,
				       size_t size)
{
	assert_int_equal(buf_append(&f->file, data, size), 0);
}

MAYBE_UNUSED static void forge_bytes(struct forge *f, const void *data,
				     size_t size)
{
	f->crc = ltx_crc64(f->crc, data, size);
	forge_payload(f, data, size);
}

MAYBE_UNUSED static void forge_header(struct forge *f,
				      const struct ltx_header *h)
{
	uint8_t data[LTX_HEADER_SIZE];

	ltx_header_encode(h, data);
	forge_bytes(f, data, sizeof(data));
}

MAYBE_UNUSED static void forge_index_entry(struct forge *f, uint32_t pgno,
					   uint64_t offset, uint64_t length)
{
	uint8_t entry[LTX_INDEX_ENTRY_MAX];

	assert_int_equal(buf_append(&f->index, entry,
				    ltx_index_put_entry(pgno, offset, length,
							entry)),
			 0);
}

/*
 * A page whose block is what size bytes of data compress to, but whose
 * checksum is that of page_size bytes.
 */
MAYBE_UNUSED static void forge_page(struct forge *f, uint32_t pgno,
				    const uint8_t *data, int size,
				    uint32_t page_size)
{
	static char block[2 * LTX_MAX_PAGE_SIZE];
	uint64_t begin = f->file.size;
	uint8_t header[10];
	int n = LZ4_compress_default((const char *)data, block, size,
				     sizeof(block));

	put_be32(header, pgno);
	put_be16(header + 4, LTX_PAGE_BLOCK);
	put_be32(header + 6, (uint32_t)n);
	forge_bytes(f, header, sizeof(header));
	f->crc = ltx_crc64(f->crc, data, page_size);
	forge_payload(f, block, (size_t)n);
	forge_index_entry(f, pgno, begin, f->file.size - begin);
}

MAYBE_UNUSED static void forge_end_of_pages(struct forge *f)
{
	forge_bytes(f, "\0\0\0\0\0", LTX_PAGE_HEADER_SIZE);
}

/* What f->index holds, the zero byte, the size. */
MAYBE_UNUSED static void forge_index(struct forge *f)
{
	uint8_t size[8];

	assert_int_equal(buf_append(&f->index, "", 1), 0);
	forge_bytes(f, f->index.data, f->index.size);
	put_be64(size, f->index.size);
	forge_bytes(f, size, sizeof(size));
}

MAYBE_UNUSED static void forge_trailer(struct forge *f, uint64_t post_apply)
{
	uint8_t sum[8];

	put_be64(sum, post_apply);
	forge_bytes(f, sum, sizeof(sum));
	put_be64(sum, LTX_CHECKSUM_FLAG | f->crc);
	forge_payload(f, sum, sizeof(sum));
}

#endif
