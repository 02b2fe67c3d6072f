#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "ltx/name.h"

#include "restorer/plan.h"

static int by_min_txid(const void *pa, const void *pb)
{
	const struct archive_file *a = pa, *b = pb;

	return (a->min_txid > b->min_txid) - (a->min_txid < b->min_txid);
}

static bool better(const struct archive_file *a, const struct archive_file *b)
{
	if (a->max_txid != b->max_txid)
		return a->max_txid > b->max_txid;
	if (a->size != b->size)
		return a->size < b->size;
	return a->level < b->level;
}

/* Nothing leads from have towards want: say what is the matter. */
static int stuck(const struct archive_file *listed, size_t n, uint64_t have,
		 uint64_t want)
{
	char missing[LTX_TXID_TEXT_SIZE], wanted[LTX_TXID_TEXT_SIZE];
	char next[LTX_TXID_TEXT_SIZE];
	uint64_t resume = UINT64_MAX;

	ltx_txid_format(have + 1, missing);
	ltx_txid_format(want, wanted);
	for (size_t i = 0; i < n; i++) {
		const struct archive_file *f = &listed[i];

		if (f->min_txid > have + 1 && f->min_txid < resume)
			resume = f->min_txid;
		if (f->min_txid <= have + 1 && f->max_txid > have)
			return error_set(-ENOENT,
					 "transaction %s is only in "
					 "files that go on beyond %s",
					 missing, wanted);
	}
	ltx_txid_format(resume, next);
	if (have == 0 && n > 0)
		return error_set(-ENOENT,
				 "no file begins at transaction 1, "
				 "so there is nothing to start from (the first "
				 "begins at %s)",
				 next);
	if (have == 0)
		return error_set(-ENOENT, "there are no files");
	if (resume == UINT64_MAX)
		return error_set(-ERR_GAP,
				 "transaction %s is missing: no file has it",
				 missing);
	return error_set(-ERR_GAP,
			 "transaction %s is missing: no file has it, "
			 "and the next one begins at %s",
			 missing, next);
}

/*
 * One pass over the files in the order in which they begin: best is the best
 * of those that begin early enough.  The plan grows over the part of the array
 * that was already looked at, from which best was copied.
 */
int restorer_plan(const struct archive_file *listed, size_t n, uint64_t want,
		  struct archive_file *ret_plan)
{
	struct archive_file best = { 0 };
	size_t seen = 0;
	uint64_t have = 0;
	int chosen = 0;

	if (n > 0) {
		memcpy(ret_plan, listed, n * sizeof(*listed));
		qsort(ret_plan, n, sizeof(*ret_plan), by_min_txid);
	}
	while (have < want) {
		for (; seen < n && ret_plan[seen].min_txid <= have + 1; seen++)
			if (ret_plan[seen].max_txid <= want &&
			    better(&ret_plan[seen], &best))
				best = ret_plan[seen];
		if (best.max_txid <= have)
			return stuck(listed, n, have, want);
		ret_plan[chosen++] = best;
		have = best.max_txid;
	}
	return chosen;
}
