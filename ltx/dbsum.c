#include <xxhash.h>

#include "ltx/dbsum.h"

uint64_t ltx_dbsum_page(uint32_t pgno, const void *page, uint32_t page_size)
{
	return XXH3_64bits_withSeed(page, page_size, pgno);
}
