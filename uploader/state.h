#ifndef LITEBUCKET_UPLOADER_STATE_H
#define LITEBUCKET_UPLOADER_STATE_H

/*
 * What the uploader remembers
 * ===========================
 *
 * A database is in the queue when something is due for it, in one worker's
 * hands while it has its turn, or neither.  Its turn (uploader/turn.h) is the
 * only thing that sends or seals, so that for one database these happen one
 * after the other.
 *
 * uploader.lock guards all fields but those said to be constant or the turn's.
 * It is the only lock here, and held neither for I/O nor in callbacks.  The
 * catalog has one of its own, which is never taken together with it.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ltx/header.h"
#include "uploader/queue.h"
#include "uploader/uploader.h"

struct uploader_db {
	struct queue_entry entry;

	/* Constant. */
	char *path, *key;
	struct spool *spool;
	uint64_t found; /* the last TXID that was in the spool at the start */

	/*
	 * The turn's.  settled <= confirmed <= settled + 1: between the two is
	 * a batch whose slot is filled and which is still in the spool.
	 */
	uint64_t settled;	  /* the last TXID that left the spool */
	bool owes;		  /* a batch is kept for its snapshot, */
	bool found_kept;	  /* perhaps one of an earlier life */
	unsigned passed;	  /* batches sent since; never too many */
	struct ltx_header before; /* of that slot; page_size 0: not known */
	uint64_t verified;	  /* the last of those found */
	bool told_dropped;	  /* what the catalog was last told */
	uint32_t told_page_size;  /* 0: nothing yet */

	bool running; /* has its turn */
	bool dirty;   /* committed since the last seal began */
	bool urged;   /* somebody waits since the last seal began */
	/*
	 * The bucket was seen to hold what an earlier life sent to it; written
	 * by the turn only.  Until then confirmed is what the spool's owner
	 * says, and nobody is told so.
	 */
	bool joined;
	int stopped;  /* the error that stopped it for good, or 0 */
	unsigned failures; /* in a row; written by the turn only */
	unsigned refusals; /* by may_send, in a row */
	bool woken;	   /* since this turn began */
	bool slow;	   /* the last failure is for a person to mend; likewise */
	char error[512];   /* of the last failure, while it lasts */

	int64_t sealed_ms; /* monotonic, or PACE_NEVER */
	uint64_t confirmed;
	int64_t confirmed_time_ms; /* in that batch's header; 0: not known */
	int64_t confirmed_at_ms;   /* wall */
	uint64_t sent_bytes, sent_objects;

	/* confirmed, stopped, or an end of all there was to do. */
	pthread_cond_t changed;
};

struct uploader {
	struct uploader_config config; /* constant */
	char *temp_dir;		       /* constant; NULL for the usual place */
	struct uploader_catalog *catalog; /* constant */
	atomic_bool closing; /* what is under way is of no use any more */
	pthread_t *threads;	       /* new's and free's */
	unsigned n_threads;

	pthread_mutex_t lock;
	struct queue queue;
	struct uploader_db **dbs; /* in order of path */
	size_t n_dbs, capacity;
	bool trusted; /* the store is known to keep if-absent */
	bool draining;
	int64_t offset_ms;
};

/* Is anything being done for this database, or due?  The lock is held. */
static inline bool uploader_db_active(const struct uploader_db *db)
{
	return db->running || db->entry.queued;
}

#endif
