#ifndef LITEBUCKET_BASE_BYTES_H
#define LITEBUCKET_BASE_BYTES_H

/*
 * Integers in files.  SQLite and LTX are big-endian; our own state is
 * little-endian.  All take unaligned pointers.
 */
#include <endian.h>
#include <stdint.h>
#include <string.h>

#define BYTES_GETTER(name, type, convert)             \
	static inline type name(const void *p)        \
	{                                             \
		type v;                               \
		memcpy(&v, p, sizeof(v));             \
		return convert(v);                    \
	}
#define BYTES_SETTER(name, type, convert)             \
	static inline void name(void *p, type v)      \
	{                                             \
		v = convert(v);                       \
		memcpy(p, &v, sizeof(v));             \
	}

BYTES_GETTER(get_be16, uint16_t, be16toh)
BYTES_GETTER(get_be32, uint32_t, be32toh)
BYTES_GETTER(get_be64, uint64_t, be64toh)
BYTES_GETTER(get_le32, uint32_t, le32toh)
BYTES_GETTER(get_le64, uint64_t, le64toh)
BYTES_SETTER(put_be16, uint16_t, htobe16)
BYTES_SETTER(put_be32, uint32_t, htobe32)
BYTES_SETTER(put_be64, uint64_t, htobe64)
BYTES_SETTER(put_le32, uint32_t, htole32)
BYTES_SETTER(put_le64, uint64_t, htole64)

#endif
