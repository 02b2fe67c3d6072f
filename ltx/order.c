#include "base/error.h"
#include "ltx/header.h"

#include "ltx/order.h"

/* The page that follows in a database, whether or not it is large enough. */
static uint64_t successor(const struct ltx_header *h, uint32_t pgno)
{
	uint64_t next = (uint64_t)pgno + 1;

	return next == ltx_lock_pgno(h->page_size) ? next + 1 : next;
}

int ltx_order_check(const struct ltx_header *h, uint32_t previous,
		    uint32_t pgno)
{
	uint64_t next = successor(h, previous);

	if (pgno == 0)
		return error_set(-EINVAL, "pages are numbered from 1, not 0");
	if (pgno > h->commit)
		return error_set(-EINVAL,
				 "page %u is beyond the end of the database, "
				 "which has %u pages",
				 pgno, h->commit);
	if (pgno == ltx_lock_pgno(h->page_size))
		return error_set(-EINVAL,
				 "page %u is SQLite's lock page, which is in "
				 "no file",
				 pgno);
	if (pgno <= previous)
		return error_set(-EINVAL,
				 "page %u comes after page %u, out of order",
				 pgno, previous);
	if (ltx_header_is_snapshot(h) && pgno != next)
		return error_set(-EINVAL,
				 "page %u is missing from a snapshot: page %u "
				 "follows page %u",
				 (uint32_t)next, pgno, previous);
	return 0;
}

int ltx_order_check_end(const struct ltx_header *h, uint32_t last)
{
	uint64_t next = successor(h, last);

	if (ltx_header_is_snapshot(h) && next <= h->commit)
		return error_set(-EINVAL,
				 "page %u is missing from a snapshot of %u "
				 "pages: it ends after page %u",
				 (uint32_t)next, h->commit, last);
	return 0;
}
