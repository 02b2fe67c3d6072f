#ifndef LITEBUCKET_RESTORER_APPLY_H
#define LITEBUCKET_RESTORER_APPLY_H

/*
 * Building a database from LTX files
 * ==================================
 *
 *	apply_new  ->  apply_file for each file  ->  apply_finish  ->  apply_free
 *
 * Three rules tie the files together.  Each error says which was broken.
 *
 *   1. A file begins at most one transaction after the state it is applied to.
 *   2. A file that makes the database larger holds every new page (but the
 *      lock page).  So what a header claims never costs more than the file is
 *      worth.  A file that begins at 1, or has another page size than the
 *      state before it, starts from nothing: it must hold every page.
 *   3. Where a file knows the rolling checksum of the database before or after
 *      it (ltx/dbsum.h), the state must have it.  This finds a file that is
 *      sound by itself but belongs to another history.
 *
 * In memory: 8 bytes per page, and a block of constant size.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "ltx/header.h"

struct source;

struct apply {
	int fd;			/* the caller's */
	struct ltx_header last; /* of the last file; all zero: none yet */
	uint32_t page_size;
	uint32_t commit;	/* pages there are now */
	uint64_t dbsum;		/* the rolling checksum of them */
	bool proven;		/* the last file knew it, and it agreed */

	uint64_t *sums;		/* of page n at [n - 1] */
	size_t sums_capacity;

	char *run;		/* consecutive pages not yet written */
	uint32_t run_pgno;	/* the first of them */
	uint32_t run_pages;
};

/* fd must be an empty file. */
int apply_new(int fd, struct apply **ret);

/*
 * Apply one file.  After an error the content of fd is of no use.
 *
 * -ERR_CORRUPT, -ERR_GAP: the file is bad, or broke a rule.
 */
int apply_file(struct apply *a, struct source *in);

/* Cut the file to its size. */
int apply_finish(struct apply *a);

/* NULL is allowed. */
void apply_free(struct apply *a);
AUTO_FREE(apply);

#endif
