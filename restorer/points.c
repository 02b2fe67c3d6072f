#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

#include "restorer/points.h"

static int by_end(const void *pa, const void *pb)
{
	const struct archive_file *a = pa, *b = pb;

	if (a->max_txid != b->max_txid)
		return a->max_txid > b->max_txid ? 1 : -1;
	return (a->level > b->level) - (a->level < b->level);
}

/*
 * In the order of their ends: an end is a point if a file that ends there
 * begins no later than right after the last point before.  Files with the same
 * end stand together, the lowest level first.  As in the plan, the result
 * grows over what was already looked at.
 */
size_t points_find(const struct archive_file *listed, size_t n, bool all_ends,
		   struct archive_file *ret_points)
{
	uint64_t reached = 0;
	size_t found = 0, next;

	if (n > 0) {
		memcpy(ret_points, listed, n * sizeof(*listed));
		qsort(ret_points, n, sizeof(*ret_points), by_end);
	}
	for (size_t i = 0; i < n; i = next) {
		const struct archive_file lowest = ret_points[i];
		uint64_t begin = lowest.min_txid;

		for (next = i + 1; next < n; next++) {
			if (ret_points[next].max_txid != lowest.max_txid)
				break;
			if (ret_points[next].min_txid < begin)
				begin = ret_points[next].min_txid;
		}
		if (all_ends || begin <= reached + 1) {
			ret_points[found++] = lowest;
			reached = lowest.max_txid;
		}
	}
	return found;
}

const struct archive_file *points_at_or_before(
	const struct archive_file *points, size_t n, uint64_t txid)
{
	size_t low = 0, high = n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (points[middle].max_txid <= txid)
			low = middle + 1;
		else
			high = middle;
	}
	return low > 0 ? &points[low - 1] : NULL;
}

int points_unknown(const struct archive_file *points, size_t n, uint64_t txid)
{
	const struct archive_file *before, *after;
	char nearest[80];

	if (n == 0)
		return error_set(-ENOENT, "no transaction can be restored");
	before = points_at_or_before(points, n, txid);
	after = before ? before + 1 : points;
	if (before && after < points + n)
		(void)snprintf(nearest, sizeof(nearest),
			       "%016" PRIx64 " and %016" PRIx64,
			       before->max_txid, after->max_txid);
	else
		(void)snprintf(nearest, sizeof(nearest), "%016" PRIx64,
			       before ? before->max_txid : after->max_txid);
	return error_set(-ENOENT,
			 "transaction %016" PRIx64 " cannot be "
			 "restored; there are %zu from %016" PRIx64
			 " to %016" PRIx64 ", nearest: %s",
			 txid, n, points[0].max_txid, points[n - 1].max_txid,
			 nearest);
}
