#include <stdbool.h>

#include "base/bytes.h"
#include "ltx/header.h"

#include "ltx/crc64.h"

/*
 * Two ways to the same number.  The tables take eight bytes a step and work
 * everywhere.  Where the processor multiplies polynomials (PCLMULQDQ), blocks
 * of 64 bytes are folded into each other until 16 bytes are left; that is five
 * times as fast, faster than the pages come from anywhere.
 *
 * "Raw" is the register without the inversion before and after.
 */

/* x^64 + x^4 + x^3 + x + 1 without its first term, the lowest bit first. */
#define POLYNOMIAL UINT64_C(0xd800000000000000)

/* tables[k][b]: the register after byte b and then k zero bytes. */
static uint64_t tables[8][256];

static uint64_t raw_tables(uint64_t crc, const uint8_t *p, size_t size)
{
	for (; size >= 8; p += 8, size -= 8) {
		crc ^= get_le64(p);
		crc = tables[7][crc & 0xff] ^ tables[6][crc >> 8 & 0xff] ^
		      tables[5][crc >> 16 & 0xff] ^
		      tables[4][crc >> 24 & 0xff] ^
		      tables[3][crc >> 32 & 0xff] ^
		      tables[2][crc >> 40 & 0xff] ^
		      tables[1][crc >> 48 & 0xff] ^ tables[0][crc >> 56];
	}
	for (; size > 0; p++, size--)
		crc = tables[0][(crc ^ *p) & 0xff] ^ crc >> 8;
	return crc;
}

#ifdef __x86_64__
#include <immintrin.h>

#define WITH_PCLMUL __attribute__((target("pclmul,sse4.1")))

enum {
	LANES = 4,
	FOLD_SIZE = LANES * 16,
	WORTH_FOLDING = 2 * FOLD_SIZE, /* or it does not pay for its end */
};

static bool has_pclmul;

/*
 * Folding replaces 16 bytes by what they leave, modulo the polynomial, some
 * bits further on: each half is multiplied by a power of x and both land on
 * the bytes there.  Bits are reflected: the low half is the one further away,
 * and a product is off by one bit, hence the odd exponents.
 *
 *	across 512 bits: low by x^(512+63), high by x^(512-1)
 *	across 128 bits: low by x^(128+63), high by x^(128-1)
 */
WITH_PCLMUL static inline __m128i factors(uint64_t low, uint64_t high)
{
	return _mm_set_epi64x((long long)high, (long long)low);
}

WITH_PCLMUL static inline __m128i fold(__m128i from, __m128i by, __m128i onto)
{
	__m128i low = _mm_clmulepi64_si128(from, by, 0x00);
	__m128i high = _mm_clmulepi64_si128(from, by, 0x11);

	return _mm_xor_si128(_mm_xor_si128(low, high), onto);
}

WITH_PCLMUL static inline __m128i load(const uint8_t *p)
{
	return _mm_loadu_si128((const __m128i *)(const void *)p);
}

/* At least FOLD_SIZE bytes. */
WITH_PCLMUL static uint64_t raw_pclmul(uint64_t crc, const uint8_t *p,
				       size_t size)
{
	const __m128i across_512 = factors(0x01b001b1b0000001u,
					   0xb100010100000001u);
	const __m128i across_128 = factors(0x6b70000000000001u,
					   0xf500000000000001u);
	__m128i lane[LANES];
	uint8_t left[16];

	for (size_t i = 0; i < LANES; i++)
		lane[i] = load(p + 16 * i);
	lane[0] = _mm_xor_si128(lane[0], _mm_cvtsi64_si128((long long)crc));
	for (p += FOLD_SIZE, size -= FOLD_SIZE; size >= FOLD_SIZE;
	     p += FOLD_SIZE, size -= FOLD_SIZE)
		for (size_t i = 0; i < LANES; i++)
			lane[i] = fold(lane[i], across_512, load(p + 16 * i));
	for (size_t i = 1; i < LANES; i++)
		lane[i] = fold(lane[i - 1], across_128, lane[i]);
	for (; size >= 16; p += 16, size -= 16)
		lane[3] = fold(lane[3], across_128, load(p));
	_mm_storeu_si128((__m128i *)(void *)left, lane[3]);
	crc = raw_tables(0, left, sizeof(left));
	return raw_tables(crc, p, size);
}
#endif

/* Before main(), so that threads need not agree on who does it. */
__attribute__((constructor)) static void prepare(void)
{
	for (unsigned b = 0; b < 256; b++) {
		uint64_t crc = b;

		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
		tables[0][b] = crc;
	}
	for (int k = 1; k < 8; k++)
		for (unsigned b = 0; b < 256; b++) {
			uint64_t crc = tables[k - 1][b];

			tables[k][b] = tables[0][crc & 0xff] ^ crc >> 8;
		}
#ifdef __x86_64__
	__builtin_cpu_init();
	has_pclmul = __builtin_cpu_supports("pclmul") &&
		     __builtin_cpu_supports("sse4.1");
#endif
}

uint64_t ltx_crc64(uint64_t crc, const void *data, size_t size)
{
#ifdef __x86_64__
	if (has_pclmul && size >= WORTH_FOLDING)
		return ~raw_pclmul(~crc, data, size);
#endif
	return ~raw_tables(~crc, data, size);
}

uint64_t ltx_crc64_page(uint32_t pgno, const void *page, uint32_t page_size)
{
	uint8_t number[4];

	put_be32(number, pgno);
	return LTX_CHECKSUM_FLAG |
	       ltx_crc64(ltx_crc64(0, number, sizeof(number)), page, page_size);
}
