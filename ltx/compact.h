#ifndef LITEBUCKET_LTX_COMPACT_H
#define LITEBUCKET_LTX_COMPACT_H

/*
 * Merging files that follow each other into one
 * =============================================
 *
 * The result has the first input's min_txid, the last one's max_txid, commit
 * and timestamp, and each page as the latest input that holds it has it; pages
 * beyond the final commit are dropped.  It is written with LTX_NO_CHECKSUM,
 * zero WAL fields and node id, pre_dbsum of the first and post_dbsum of the
 * last input.  It is a batch, or a drop if the last input is one.
 *
 * Inputs are oldest first.  Each must begin at most one above the end of the
 * one before and reach further than it (so overlapping is allowed, a gap is
 * not), and all have the same page size.  Where both are known, each input's
 * pre_dbsum must be the post_dbsum of the one before.  A page that one input
 * cut off and a later one grew the database over again must be in the later.
 *
 * Streams: one page per input in memory.
 */
#include <stddef.h>
#include <stdint.h>

struct sink;
struct source;
struct ltx_header;

/*
 * The inputs' file checksums are verified before this returns 0; on any error
 * what was written to out is garbage.  ret_header may be NULL.
 *
 * -ERR_GAP: inputs do not follow each other.  -ERR_CORRUPT: an input is bad;
 * the sentence says which by its TXIDs.  -EINVAL: page sizes differ, n is 0, or
 * an input is of kind LTX_STAGED.
 */
int ltx_compact(struct source *const inputs[], size_t n, struct sink *out,
		struct ltx_header *ret_header);

/* What a merged file is, when it is to be one batch of the log. */
struct ltx_compact_batch {
	uint64_t txid;
	uint64_t node_id;
	uint64_t pre_dbsum;
};

/*
 * As ltx_compact, but the result is batch as->txid, and of nobody else (R2),
 * made on top of the state with checksum as->pre_dbsum.  For batches that
 * nobody has seen yet.
 */
int ltx_compact_as(struct source *const inputs[], size_t n,
		   const struct ltx_compact_batch *as, struct sink *out,
		   struct ltx_header *ret_header);

#endif
