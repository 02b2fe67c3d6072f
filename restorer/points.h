#ifndef LITEBUCKET_RESTORER_POINTS_H
#define LITEBUCKET_RESTORER_POINTS_H

/*
 * Which transactions can be restored
 * ==================================
 *
 * Pure, like the plan.  An end is a transaction at which some file ends.  A
 * point is an end to which a plan leads; what lies inside compactions only is
 * none.
 *
 *	1-3  4-4  5-8  7-7	listed
 *	  3    4    8    	points: nothing leads to 7 and not beyond it
 *	  3    4    8    7	ends
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bucket/archive.h"

/*
 * Fill ret_points, which has room for n files, with the points (or all ends)
 * in ascending order, each as the file of the lowest level that ends there,
 * and return how many there are.
 */
size_t points_find(const struct archive_file *listed, size_t n, bool all_ends,
		   struct archive_file *ret_points);

/* The last one at or before txid, or NULL. */
const struct archive_file *points_at_or_before(
	const struct archive_file *points, size_t n, uint64_t txid);

/* txid is no point: -ENOENT with a sentence that says which there are. */
int points_unknown(const struct archive_file *points, size_t n, uint64_t txid);

#endif
