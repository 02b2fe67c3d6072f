#ifndef LITEBUCKET_LTX_INDEX_H
#define LITEBUCKET_LTX_INDEX_H

/*
 * The page index: for each page its number, the offset of its frame in the
 * file, and the frame's length, as three varints; then one zero byte.
 *
 * A varint has seven bits a byte, the lowest first, and bit 7 where more
 * follow (as in protobuf; SQLite's are others).
 */
#include <stddef.h>
#include <stdint.h>

enum {
	LTX_VARINT_MAX = 10,
	LTX_INDEX_ENTRY_MAX = 3 * LTX_VARINT_MAX,
};

/* Both return the number of bytes. */
size_t ltx_index_put_varint(uint64_t value, uint8_t ret[LTX_VARINT_MAX]);
size_t ltx_index_put_entry(uint32_t pgno, uint64_t offset, uint64_t length,
			   uint8_t ret[LTX_INDEX_ENTRY_MAX]);

/* What ltx_index_put_varint() wrote, and only that: nothing is checked. */
size_t ltx_index_get_varint(const uint8_t *data, uint64_t *ret);

#endif
