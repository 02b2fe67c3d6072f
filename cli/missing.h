#ifndef LITEBUCKET_CLI_MISSING_H
#define LITEBUCKET_CLI_MISSING_H

/*
 * Databases that only the bucket has
 * ==================================
 *
 * A machine that takes over has an empty directory, or one that lacks what was
 * made since.  Whoever opened such a database would find nothing, make a new
 * one, and have it beside the history of that name, which goes before it.  So
 * everything that is live in the bucket is restored before anything is served:
 *
 *	in the directory	.litebucket		bucket		then
 *	--------------------------------------------------------------------
 *	a file			-			-		cli/decide.h
 *	nothing			never heard of it	live		restored
 *	nothing			an older state		live		restored
 *	nothing			the bucket's state,	-		it was
 *				or a newer one				removed here
 *	nothing			an older state, or	dropped		what comes under
 *				none					the name goes
 *									behind that
 *
 * What there is is read from the catalog; in a directory that was never joined
 * to a bucket also from a list of its keys, because the catalog may be behind
 * the log, and other programs' buckets have none.
 *
 * A restored file has the owner of the directory that it lies in, and may be
 * read and written by whom that directory's mode lets.  It is whole when it
 * appears; a crash leaves nothing, and the next start begins again.  Then it is
 * a file without a position, and cli/decide.h goes on with it.
 *
 * One that cannot be restored is closed, and keeps no other; if the bucket does
 * not answer any more, all that are still missing are.
 */
#include <signal.h>
#include <stdbool.h>

struct bucket;
struct gate;

/* All of it stays the caller's. */
struct missing_config {
	struct bucket *bucket;
	struct gate *gate;
	int dirfd;   /* which no other litebucket has */
	bool is_new; /* it was never joined to a bucket */
	const volatile sig_atomic_t *cancel;
};

/*
 * 1: which databases the bucket has could not be found out, which is logged.
 * -ECANCELED: as asked.  -ENOMEM, or that .litebucket cannot be written.
 */
int missing_restore(const struct missing_config *config);

#endif
