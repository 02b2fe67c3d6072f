#ifndef LITEBUCKET_LTX_HEADER_H
#define LITEBUCKET_LTX_HEADER_H

/*
 * The first hundred bytes of an LTX file
 * ======================================
 *
 * An LTX file is the net effect of the transactions min_txid..max_txid on one
 * database: every page they changed, as it stood after max_txid, once and in
 * ascending order.  docs/format.md draws the bytes.
 *
 *	header (100) | page * N | zero page header (6) | page index | its size (8) | trailer (16)
 *
 * All integers are big-endian.  The lock page, the one that holds byte
 * 0x40000000 of the database (SQLite locks there and never stores anything),
 * is in no file and in no checksum.
 *
 * We write files with LTX_NO_CHECKSUM and zero WAL fields, because Litestream
 * refuses to compact or restore others.  What that loses (the binding of a
 * file to its base, and a proof of its result) is in the 20 reserved bytes,
 * which every reader hashes and none examines: pre_dbsum, post_dbsum, kind.
 * They are zero, which reads as "unknown", in files of other writers.
 */
#include <stdbool.h>
#include <stdint.h>

enum {
	LTX_HEADER_SIZE = 100,
	LTX_PAGE_HEADER_SIZE = 6,
	LTX_TRAILER_SIZE = 16,
	LTX_MIN_PAGE_SIZE = 512,
	LTX_MAX_PAGE_SIZE = 65536,
};

/* The only flag that exists: pre_apply and post_apply are not kept. */
#define LTX_NO_CHECKSUM 0x2u

/* In a page's header: its size follows, and then one LZ4 block. */
#define LTX_PAGE_BLOCK 0x1u

/* Every stored CRC has this bit, so that none is zero. */
#define LTX_CHECKSUM_FLAG (UINT64_C(1) << 63)

enum ltx_kind {
	LTX_BATCH = 0,	 /* committed pages */
	LTX_BARRIER = 1, /* no pages: closes the log for older epochs */
	LTX_DROP = 2,	 /* no pages: the database was removed here */
	LTX_STAGED = 3,	 /* names an object too large for a slot */
};

struct ltx_header {
	uint32_t flags;
	uint32_t page_size;
	uint32_t commit;       /* size in pages after max_txid, pages or not */
	uint64_t min_txid;     /* from 1; 1 means snapshot: all pages */
	uint64_t max_txid;
	int64_t timestamp_ms;  /* since the Unix epoch */
	uint64_t pre_apply;    /* CRC rolling checksum, other writers only */
	uint64_t wal_offset, wal_size;
	uint32_t wal_salt1, wal_salt2;
	uint64_t node_id;      /* ours: epoch << 32 | nonce */
	uint64_t pre_dbsum;    /* ltx/dbsum.h before and after; 0 unknown */
	uint64_t post_dbsum;
	uint32_t kind;	       /* enum ltx_kind */
};

static inline bool ltx_header_is_snapshot(const struct ltx_header *h)
{
	return h->min_txid == 1;
}

/* A power of two, 512..65536. */
bool ltx_page_size_valid(uint32_t page_size);

/* The lock page's number for a page size. */
static inline uint32_t ltx_lock_pgno(uint32_t page_size)
{
	return 0x40000000u / page_size + 1;
}

/*
 * The rules that hold for every header, whoever wrote it: flags, page size,
 * TXID order, WAL fields, and when pre_apply may or must be set.
 * -ERR_CORRUPT with a sentence that names the field.
 */
int ltx_header_check(const struct ltx_header *h);

void ltx_header_encode(const struct ltx_header *h,
		       uint8_t ret[LTX_HEADER_SIZE]);

/*
 * Decode and check.  The files of LiteFS and of early Litestream betas have
 * the same magic but other bodies; they are refused by name.
 */
int ltx_header_decode(const uint8_t data[LTX_HEADER_SIZE],
		      struct ltx_header *ret);

#endif
