#ifndef LITEBUCKET_LTX_CRC64_H
#define LITEBUCKET_LTX_CRC64_H

/*
 * CRC-64/GO-ISO, LTX's checksum: polynomial x^64+x^4+x^3+x+1, reflected, all
 * ones before and after.  crc64(0, "123456789", 9) is 0xb90956c775a41001.
 *
 *	crc = ltx_crc64(0, a, size_a);
 *	crc = ltx_crc64(crc, b, size_b);	// as over a and b together
 */
#include <stddef.h>
#include <stdint.h>

uint64_t ltx_crc64(uint64_t crc, const void *data, size_t size);

/* LTX's page checksum: the CRC over BE32(pgno) and the page, with bit 63. */
uint64_t ltx_crc64_page(uint32_t pgno, const void *page, uint32_t page_size);

#endif
