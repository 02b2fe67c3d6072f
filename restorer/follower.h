#ifndef LITEBUCKET_RESTORER_FOLLOWER_H
#define LITEBUCKET_RESTORER_FOLLOWER_H

/*
 * A directory of replicas
 * =======================
 *
 *	follower_new()  ->  follower_run()  ->  follower_free()
 *	                    follower_stop(), from anywhere
 *
 * Every database of a bucket (or those that are wanted) is a file below the
 * directory, kept as it is in the bucket by restorer/follow.h.  Threads take
 * the database whose turn has come: at once after a step that went forward,
 * after an interval when there was nothing new, later and later after failures.
 * One that fails keeps no other.
 *
 * Which databases there are is what a list at the start says, and then
 * catalog.json, asked for every ten seconds; a bucket without one (Litestream's)
 * is listed again once a minute, or as often while it has no database yet.
 *
 * What is kept where is in restorer/layout.h.
 *
 * Idle requests: one GET per database and interval, one for the catalog.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "restorer/follow.h"

struct follower;

struct follower_options {
	struct bucket *bucket;
	const char *directory; /* exists */
	const char *name;      /* of the database whose own the bucket's URL is */
	bool (*wanted)(const char *path, void *arg); /* NULL: all are */
	void *wanted_arg;
	int64_t interval_ms;  /* 0: 1 s */
	int64_t catalog_ms;   /* 0: 10 s */
	unsigned connections; /* threads; 0: 8 */
	bool once;	      /* run ends when all are as new as the bucket */
	void (*ready)(size_t databases, void *arg); /* all were, or failed, once */
	void *ready_arg;
	bool stop_on_divergence;
	bool in_mount;	      /* the directory is our own standby's (cli/standby.h) */
	unsigned mode;	      /* of new files; 0: 0600 */
	bool pos_files;	      /* see restorer/follow.h */
	struct replica_options replica;
};

/*
 * -EBUSY: another follower is at work there.  -EEXIST: the directory is a
 * mount's.  Nothing is asked of the bucket yet.  Strings must outlive it.
 */
int follower_new(const struct follower_options *o, struct follower **ret);

/*
 * 0: it was stopped, or with once all is well.  With once: the first failure,
 * whose sentence says how many there were; -ENOENT: there is no database, or
 * none that is wanted.  Otherwise failures are logged and tried again.
 */
int follower_run(struct follower *f);

/* End the run soon: any thread, any number of times, but no signal handler. */
void follower_stop(struct follower *f);

/* One database, as it was after its last step. */
struct follower_database {
	const char *path;
	struct follow_state state;
	const char *error; /* why it does not go on, or NULL */
	bool blocked;	   /* by readers or a lock; tried again very soon */
	unsigned readers;  /* of five read marks, how many are in use */
	/*
	 * The replica has all that was in the bucket so long ago; -1: it is not
	 * known since when it lacks something.
	 */
	int64_t lag_ms;
	double requests_per_minute, bytes_per_minute;
};

/* fn must not call back; its non-zero return stops and is returned. */
typedef int (*follower_fn)(const struct follower_database *d, void *arg);
int follower_each(struct follower *f, follower_fn fn, void *arg);

/* What is told of all together. */
struct follower_totals {
	double requests_per_minute, bytes_per_minute;
	char error[ERROR_MESSAGE_SIZE]; /* of looking for databases, or "" */
};
void follower_totals(struct follower *f, struct follower_totals *ret);

/* After run has returned.  Replicas end cleanly. */
void follower_free(struct follower *f);
AUTO_FREE(follower);

#endif
