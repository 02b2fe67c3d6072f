#ifndef LITEBUCKET_CLI_GATE_H
#define LITEBUCKET_CLI_GATE_H

/*
 * Databases that may not be opened (now)
 * ======================================
 *
 *	gate_pend(path, reason)			OPEN -> PENDING
 *	gate_close(path, reason, rc, why)	     -> CLOSED
 *	gate_lift(path, reason)			     -> OPEN
 *
 * A database can be held by several reasons at once.  Each comes, changes and
 * goes by itself, at any time while the directory is mounted; whoever found a
 * reason is the only one to take it back.  The database is the worst of what
 * its reasons say: CLOSED if one closes it, else PENDING if one is being
 * decided, else OPEN.
 *
 * What it means in the mount (mount_config.admit asks gate_admit()):
 *
 *	PENDING	whoever opens it waits, for a bounded time; a change of its name
 *		waits for a short one only, because everybody who changes names
 *		in the same directory has to wait with it (fuse/held.h)
 *	CLOSED	who opens it gets rc, which SQLite reports as "unable to open
 *		database file"; the log has said why, once, and status says it
 *
 * Opening means: open, create, truncate by name, unlink, rename and link of the
 * database's file or its -wal, -journal, -shm, and a rename of a directory
 * above.  Reading attributes and listing go on.  Handles that are open stay
 * usable: a reason that comes while there are some has to deal with them itself.
 *
 * A reason is held by this process alone: what must outlive it is found again
 * at the next start.
 *
 * Threads: any.  changed() is called without a lock, after a reason went or
 * changed; the mount then asks again for those who wait.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

enum gate_reason {
	GATE_HISTORY, /* local files, .litebucket and the bucket do not agree */
	GATE_IN_USE,  /* other processes have the files open beneath the mount */
	GATE_LEASE,   /* another node writes the bucket by now */
	GATE_REASONS,
};

enum gate_state {
	GATE_OPEN,
	GATE_PENDING,
	GATE_CLOSED,
};

enum {
	GATE_WHY_SIZE = 1024,
};

struct gate_entry;

struct gate {
	pthread_mutex_t lock;
	struct gate_entry **entries; /* in order of path; guarded by lock */
	size_t n, capacity;
	atomic_uint held;	     /* n, for who only wants to know whether */
	void (*changed)(void *arg);
	void *arg;
};

/* changed may be NULL. */
void gate_init(struct gate *g, void (*changed)(void *arg), void *arg);
void gate_cleanup(struct gate *g);

/* -ENOMEM: it is not held. */
int gate_pend(struct gate *g, const char *path, enum gate_reason reason);

/*
 * rc is what open(2) will give, negative.  why is a sentence that says what to
 * do; it is logged, unless it was the last one for this reason.
 */
int gate_close(struct gate *g, const char *path, enum gate_reason reason,
	       int rc, const char *why);

/* Nothing if there is none. */
void gate_lift(struct gate *g, const char *path, enum gate_reason reason);

/*
 * May the file at path, if it belongs to a database that is held, be opened?
 * 0, -EAGAIN while that is pending, or the rc of gate_close().  With below,
 * also for every database below path as a directory.
 */
int gate_admit(struct gate *g, const char *path, bool below);

/*
 * How the database at path is, and the sentences of what closes it, one after
 * the other ("" if nothing does).
 */
enum gate_state gate_look(struct gate *g, const char *path,
			  char ret_why[GATE_WHY_SIZE]);

/*
 * Call fn with every database that is held, in order of path, without the lock;
 * non-zero stops and is returned.
 */
int gate_each(struct gate *g, int (*fn)(const char *path, void *arg),
	      void *arg);

#endif
