#ifndef LITEBUCKET_LTX_ORDER_H
#define LITEBUCKET_LTX_ORDER_H

/*
 * Which pages a file may have, and in which order: ascending, from 1 to
 * commit, never the lock page; and in a snapshot, none left out.  Writer and
 * reader hold each other to the same rules.
 */
#include <stdint.h>

struct ltx_header;

/*
 * May pgno follow previous (0: it is the first)?  -EINVAL with a sentence.
 */
int ltx_order_check(const struct ltx_header *h, uint32_t previous,
		    uint32_t pgno);

/* May the file end after last (0: it has no pages)?  -EINVAL. */
int ltx_order_check_end(const struct ltx_header *h, uint32_t last);

#endif
