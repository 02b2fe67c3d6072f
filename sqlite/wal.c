#include <stdlib.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/io.h"
#include "ltx/header.h"

#include "sqlite/wal.h"

enum { WAL_MAGIC = 0x377f0682, WAL_VERSION = 3007000 };

/* SQLite's walChecksumBytes(): two running sums over pairs of words. */
void wal_checksum(bool big_endian, const uint8_t *data, size_t size,
		  uint32_t sum[2])
{
	uint32_t a = sum[0], b = sum[1];

	if (big_endian) {
		for (size_t i = 0; i < size; i += 8) {
			a += get_be32(data + i) + b;
			b += get_be32(data + i + 4) + a;
		}
	} else {
		for (size_t i = 0; i < size; i += 8) {
			a += get_le32(data + i) + b;
			b += get_le32(data + i + 4) + a;
		}
	}
	sum[0] = a;
	sum[1] = b;
}

int wal_begin(int fd, struct wal_cursor *ret)
{
	uint8_t header[WAL_HEADER_SIZE];
	struct wal_cursor c = { 0 };
	ssize_t n = io_pread(fd, header, sizeof(header), 0);
	uint32_t magic;

	if (n < 0)
		return error_wrap((int)n, "reading the WAL's header");
	if ((size_t)n < sizeof(header))
		return 0;
	magic = get_be32(header);
	c.page_size = get_be32(header + 8);
	if ((magic & ~1u) != WAL_MAGIC || get_be32(header + 4) != WAL_VERSION ||
	    !ltx_page_size_valid(c.page_size))
		return 0;
	c.big_endian = magic & 1;
	c.salt[0] = get_be32(header + 16);
	c.salt[1] = get_be32(header + 20);
	wal_checksum(c.big_endian, header, 24, c.checksum);
	if (c.checksum[0] != get_be32(header + 24) ||
	    c.checksum[1] != get_be32(header + 28))
		return 0;
	*ret = c;
	return 1;
}

static bool has_words(const uint8_t *data, const uint32_t words[2])
{
	return get_be32(data) == words[0] && get_be32(data + 4) == words[1];
}

int wal_check(int fd, const struct wal_cursor *cursor)
{
	uint8_t data[WAL_HEADER_SIZE];
	uint32_t size = cursor->frames ? WAL_FRAME_HEADER_SIZE :
					 WAL_HEADER_SIZE;
	uint64_t offset = cursor->frames ?
				  wal_frame_offset(cursor->page_size,
						   cursor->frames - 1) :
				  0;
	ssize_t n = io_pread(fd, data, size, offset);

	if (n < 0)
		return error_wrap((int)n, "reading the WAL's last frame");
	/* Salts and checksum are the last 16 bytes of both headers. */
	return n == size && has_words(data + size - 16, cursor->salt) &&
	       has_words(data + size - 8, cursor->checksum);
}

/* Is this frame the next of the chain?  If so the cursor's sum goes on. */
static bool frame_follows(struct wal_cursor *c, const uint8_t *frame)
{
	if (get_be32(frame) == 0 || get_be32(frame + 8) != c->salt[0] ||
	    get_be32(frame + 12) != c->salt[1])
		return false;
	wal_checksum(c->big_endian, frame, 8, c->checksum);
	wal_checksum(c->big_endian, frame + WAL_FRAME_HEADER_SIZE, c->page_size,
		     c->checksum);
	return c->checksum[0] == get_be32(frame + 16) &&
	       c->checksum[1] == get_be32(frame + 20);
}

int wal_pgnos_append(struct wal_pgnos *list, uint32_t pgno)
{
	if (list->n == list->capacity) {
		size_t capacity = list->capacity ? list->capacity * 2 : 64;
		uint32_t *items =
			realloc(list->items, capacity * sizeof(*items));

		if (!items)
			return error_set(-ENOMEM,
					 "out of memory for %zu WAL frames",
					 capacity);
		list->items = items;
		list->capacity = capacity;
	}
	list->items[list->n++] = pgno;
	return 0;
}

/*
 * Follow the chain from scan through one block of whole frames.  *committed
 * follows it at each commit.  0: the chain ends here; 1: it may go on.
 */
static int follow_block(struct wal_cursor *scan, const uint8_t *block,
			size_t size, struct wal_pgnos *pgnos,
			struct wal_cursor *committed, size_t *n_committed)
{
	size_t frame_size = WAL_FRAME_HEADER_SIZE + scan->page_size;

	for (const uint8_t *f = block; f + frame_size <= block + size;
	     f += frame_size) {
		int rc;

		if (!frame_follows(scan, f))
			return 0;
		rc = wal_pgnos_append(pgnos, get_be32(f));
		if (rc < 0)
			return rc;
		scan->frames++;
		scan->commit = get_be32(f + 4);
		if (scan->commit == 0)
			continue;
		*committed = *scan;
		*n_committed = pgnos->n;
	}
	return 1;
}

int64_t wal_advance(int fd, struct wal_cursor *cursor, uint32_t **ret_pgnos)
{
	size_t frame_size = WAL_FRAME_HEADER_SIZE + cursor->page_size;
	size_t block_size = (1 + (1 << 18) / frame_size) * frame_size;
	AUTO(mem) uint8_t *block = malloc(block_size);
	struct wal_cursor scan = *cursor, committed = *cursor;
	struct wal_pgnos pgnos = { 0 };
	size_t n_committed = 0;
	int more = 1;

	*ret_pgnos = NULL;
	if (!block)
		return error_set(-ENOMEM, "out of memory for WAL frames");
	while (more > 0) {
		ssize_t n = io_pread(fd, block, block_size,
				     wal_cursor_offset(&scan));

		if (n < 0)
			more = error_wrap((int)n, "reading the WAL");
		else
			more = follow_block(&scan, block, (size_t)n, &pgnos,
					    &committed, &n_committed);
		if (more > 0 && (size_t)n < block_size)
			break;
	}
	if (more < 0 || n_committed == 0) {
		free(pgnos.items);
		return more < 0 ? more : 0;
	}
	*cursor = committed;
	*ret_pgnos = pgnos.items;
	return (int64_t)n_committed;
}

void wal_make_header(uint8_t ret[WAL_HEADER_SIZE], uint32_t page_size,
		     uint32_t checkpoint, const uint32_t salt[2],
		     struct wal_cursor *ret_cursor)
{
	struct wal_cursor c = {
		.page_size = page_size,
		.big_endian = WAL_NATIVE_BIG_ENDIAN,
		.salt = { salt[0], salt[1] },
	};

	put_be32(ret, WAL_MAGIC | WAL_NATIVE_BIG_ENDIAN);
	put_be32(ret + 4, WAL_VERSION);
	put_be32(ret + 8, page_size);
	put_be32(ret + 12, checkpoint);
	put_be32(ret + 16, salt[0]);
	put_be32(ret + 20, salt[1]);
	wal_checksum(c.big_endian, ret, 24, c.checksum);
	put_be32(ret + 24, c.checksum[0]);
	put_be32(ret + 28, c.checksum[1]);
	*ret_cursor = c;
}

void wal_make_frame(struct wal_cursor *c, uint8_t *frame, uint32_t pgno,
		    uint32_t commit)
{
	put_be32(frame, pgno);
	put_be32(frame + 4, commit);
	put_be32(frame + 8, c->salt[0]);
	put_be32(frame + 12, c->salt[1]);
	wal_checksum(c->big_endian, frame, 8, c->checksum);
	wal_checksum(c->big_endian, frame + WAL_FRAME_HEADER_SIZE,
		     c->page_size, c->checksum);
	put_be32(frame + 16, c->checksum[0]);
	put_be32(frame + 20, c->checksum[1]);
	c->frames++;
	c->commit = commit;
}
