#ifndef LITEBUCKET_RESTORER_PLAN_H
#define LITEBUCKET_RESTORER_PLAN_H

/*
 * Which files to apply
 * ====================
 *
 * Pure: looks at the list, does no I/O.  Choose the LTX files that take a
 * database from nothing to transaction want: at every step, of the files that
 * leave no gap, the one that reaches furthest without going beyond want.  (So
 * the first one begins at 1 and holds all pages: a snapshot, or a file of
 * another level that is as good.)  A file holds each page as it was after its
 * last transaction, so it may start earlier than it must, but never later:
 *
 *	have = 4, want = 9	1-8  5-6  7-7  8-8  9-9   listed
 *				1-8                 9-9   chosen
 *
 * That is the classic interval cover, and the fewest files there can be.  Of
 * two that reach equally far the smaller is taken.
 */
#include <stddef.h>
#include <stdint.h>

#include "bucket/archive.h"

/*
 * Fill ret_plan, which has room for n files, in the order they are to be
 * applied, and return how many were chosen.
 *
 * -ENOENT: no file begins at transaction 1 (there is no base), or want lies
 * inside files that all go on beyond it.
 * -ERR_GAP: some transaction up to want is in no listed file; the sentence
 * names the first one missing.
 */
int restorer_plan(const struct archive_file *listed, size_t n, uint64_t want,
		  struct archive_file *ret_plan);

#endif
