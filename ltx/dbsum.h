#ifndef LITEBUCKET_LTX_DBSUM_H
#define LITEBUCKET_LTX_DBSUM_H

/*
 * The rolling checksum of a database
 * ==================================
 *
 * The sum, modulo 2^64, of XXH3-64(page, seed = page number) over all pages
 * but the lock page.  It follows a commit in time that depends on the pages
 * changed: subtract their old hashes, add the new.  (A XOR of CRCs, as LTX
 * defines, is affine: it misses two swapped pages, and the same change in two
 * equal pages.)
 *
 * Bytes 18 and 19 of page 1 count as they are in the bucket's page 1; a
 * replica, which changes them, must put them back before it hashes.
 */
#include <stdint.h>

uint64_t ltx_dbsum_page(uint32_t pgno, const void *page, uint32_t page_size);

#endif
