#ifndef LITEBUCKET_CLI_STANDBY_H
#define LITEBUCKET_CLI_STANDBY_H

/*
 * A standby's follower
 * ====================
 *
 * The replicas of a mount are kept by a process of its own (D15), this program
 * again as "litebucket standby": a client of the mount like their readers, so that
 * all see the same locks, wal-index and pages.  It is the follower of
 * restorer/follower.h, at work in the mount, and knows nothing but a socket to the
 * daemon, its environment (the credentials), and what its arguments tell.
 *
 *	standby_new -> (the mount is served) -> [standby_promote] -> standby_free
 *
 *	FOLLOWING ---standby_promote()---> HANDING OVER ---it has ended---> take_over()
 *	    |  ^                                |   ^
 *	    v  |                                v   |
 *	another is started if it ends      (and here, too)
 *
 * To hand over: it stops, goes forward to the end of each log once more (R6),
 * stops again, and makes ordinary databases of the replicas (restorer/unlock.h).
 * What it could not do the next one tries again, or the decider finds
 * (cli/decide.h).
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

/* A verb that nobody types. */
#define STANDBY_VERB "standby"

struct standby;

/* All of it stays the caller's, and outlives the standby. */
struct standby_config {
	const char *mountpoint; /* absolute */
	const char *bucket;	/* URL */
	const char *log_level;

	/* The process that is at work now; 0: none.  It is not reaped before. */
	void (*process)(void *arg, int pid);

	/* Every database that the bucket has is there; once, at most. */
	void (*ready)(void *arg, size_t databases);

	/* The directory holds ordinary databases.  Nothing follows any more. */
	void (*take_over)(void *arg);
	void *arg;
};

/* Callbacks come from a thread of its own. */
int standby_new(const struct standby_config *config, struct standby **ret);

/* The lease is ours.  Any thread; returns at once.  NULL is allowed. */
void standby_promote(struct standby *s);

/* End the process, soon: what it has open keeps the mount in use.  Likewise. */
void standby_stop(struct standby *s);

/* And wait for what is under way.  NULL is allowed. */
void standby_free(struct standby *s);
AUTO_FREE(standby);

/*
 * The process's own main(): its arguments behind the verb are the mountpoint, the
 * bucket and the level of its log.
 */
int standby_main(char **arguments);

#endif
