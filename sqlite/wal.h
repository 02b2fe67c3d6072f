#ifndef LITEBUCKET_SQLITE_WAL_H
#define LITEBUCKET_SQLITE_WAL_H

/*
 * Reading a write-ahead log beside SQLite, and writing one
 * ========================================================
 *
 * WAL header, 32 bytes, and then frames of 24 bytes and a page
 * (sqlite.org/fileformat2.html, section 4.1; all big-endian):
 *
 *	header:	 0 magic 0x377f0682 or ..83	 4 version 3007000
 *		 8 page size	12 checkpoint number	16 salt-1   20 salt-2
 *		24 checksum of bytes 0..23
 *	frame:	 0 page number	 4 size in pages after commit, 0 within a transaction
 *		 8 salt-1	12 salt-2
 *		16 checksum of all before: of the frame before, then of this
 *		   frame's bytes 0..7 and its page
 *
 * A frame is valid if its salts are the header's and the cumulative checksum
 * is right.  What is committed is the valid chain up to its last frame with a
 * non-zero size: never "up to the end of the file", because frames of the log's
 * previous life lie behind the end, and never "up to the last valid frame",
 * because SQLite rewrites frames inside a transaction.
 *
 * The lowest bit of the magic says in which byte order the checksum adds
 * words: 0 little-endian, 1 big-endian.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WAL_HEADER_SIZE = 32, WAL_FRAME_HEADER_SIZE = 24 };

/* A place in a log: just behind its header, or behind a commit frame. */
struct wal_cursor {
	uint32_t page_size;
	bool big_endian;
	uint32_t salt[2];
	uint32_t checksum[2]; /* cumulative, up to here */
	uint32_t frames;      /* before here */
	uint32_t commit;      /* size in pages at this commit; 0 behind the header */
};

static inline uint64_t wal_frame_offset(uint32_t page_size, uint32_t frame)
{
	return WAL_HEADER_SIZE +
	       (uint64_t)frame * (WAL_FRAME_HEADER_SIZE + page_size);
}

/* The pages of some frames, in order; the items are the owner's to free. */
struct wal_pgnos {
	uint32_t *items;
	size_t n, capacity;
};
int wal_pgnos_append(struct wal_pgnos *list, uint32_t pgno);

/* Where the cursor is in the file. */
static inline uint64_t wal_cursor_offset(const struct wal_cursor *c)
{
	return wal_frame_offset(c->page_size, c->frames);
}

/*
 * Read the header.  1: valid, and ret is behind it; 0: there is no valid
 * header (an empty file, or one being written).
 */
int wal_begin(int fd, struct wal_cursor *ret);

/* Is what the cursor is behind still there?  1: yes; 0: no. */
int wal_check(int fd, const struct wal_cursor *cursor);

/*
 * Go from *cursor over all that is committed beyond it, and leave it there.
 * ret_pgnos gets the page number of each frame passed (the caller's to free;
 * NULL if there are none), and their count is returned.
 */
int64_t wal_advance(int fd, struct wal_cursor *cursor, uint32_t **ret_pgnos);

/*
 * The same bytes the other way: the header of a new log, and the frame at the
 * cursor, whose page stands behind its header already.  Both leave the cursor
 * behind what they made.  Checksums add words in this machine's order, as
 * SQLite's writer has it.
 */
void wal_make_header(uint8_t ret[WAL_HEADER_SIZE], uint32_t page_size,
		     uint32_t checkpoint, const uint32_t salt[2],
		     struct wal_cursor *ret_cursor);
void wal_make_frame(struct wal_cursor *cursor, uint8_t *frame, uint32_t pgno,
		    uint32_t commit);

/* SQLite's sum over words; size is a multiple of eight, sum starts as zeros. */
void wal_checksum(bool big_endian, const uint8_t *data, size_t size,
		  uint32_t sum[2]);

#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define WAL_NATIVE_BIG_ENDIAN true
#else
#define WAL_NATIVE_BIG_ENDIAN false
#endif

#endif
