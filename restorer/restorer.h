#ifndef LITEBUCKET_RESTORER_RESTORER_H
#define LITEBUCKET_RESTORER_RESTORER_H

/*
 * From the bucket back to a database
 * ==================================
 *
 * Calling sequence: restorer_restore() does all of it; the other functions
 * are its parts that have a use of their own (history, list).
 *
 *   1. List the LTX files of all levels.
 *   2. Choose the point: the last TXID, a given one, or the last at or before
 *      a time.  A time is found by binary search over the headers' times.
 *   3. Plan (restorer/plan.h): a base and what leads from it to the point.
 *   4. Fetch the planned files in parallel, small ones into memory, large ones
 *      into temporary files, and verify each one's checksum before anything of
 *      it is used.
 *   5. Apply them in order to a temporary file next to the target.
 *   6. After each, compare the rolling checksum of the database with what the
 *      file says it is before and after it.
 *   7. Ask whether the result is to be accepted (the bucket's format).
 *   8. fsync, rename, fsync of the directory.
 *
 * The result is byte for byte the committed state, or an error that names the
 * object that is to blame; nothing is left half-done.  (Promise 4.)
 */
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "bucket/archive.h"

/* Called now and then, from one thread; total 0 means not yet known. */
typedef void (*restorer_progress_fn)(uint64_t done_bytes, uint64_t total_bytes,
				     void *arg);

struct restorer_options {
	struct bucket *bucket;
	const char *db;	      /* archive's DB part, "" for the URL itself */
	const char *output;   /* path of the file to make */
	uint64_t txid;	      /* 0: not chosen by TXID */
	int64_t timestamp_ms; /* 0: not chosen by time */
	unsigned parallel;    /* fetches at a time; 0: 8 */
	bool force;	      /* replace an existing output */
	restorer_progress_fn progress; /* or NULL */
	void *progress_arg;

	/*
	 * Called when the result is whole, after all of it was read and before
	 * it appears: a negative errno keeps it from appearing.  ours: its last
	 * file has a rolling checksum, so it is litebucket's.  May be NULL.
	 */
	int (*accept)(bool ours, void *arg);
	void *accept_arg;

	/* Set by a signal handler: stop, leave nothing.  NULL: never. */
	const volatile sig_atomic_t *cancel;

	/*
	 * What a spool has beyond the bucket: called for i from 0 on, opens the
	 * i-th LTX file to apply behind those of the bucket.  1: it did; 0:
	 * there are no more.  NULL: there are none.
	 */
	int (*more)(void *arg, unsigned i, int *ret_fd);
	void *more_arg;
	bool only_more; /* the bucket has nothing of it yet, so it is not asked */
};

struct restorer_result {
	uint64_t txid;
	int64_t timestamp_ms; /* of the batch txid */
	uint32_t page_size, commit;
	uint64_t dbsum;	/* the rolling checksum of what was restored */
	uint64_t bytes_fetched;
	unsigned files; /* LTX files used */
	bool proven;	/* the rolling checksum was known, and agreed */
};

/*
 * -ENOENT: no such database, TXID, or time, or the database was dropped there;
 * the sentence states what there is.  -EEXIST: output exists (or its -wal, -shm
 * or -journal) and force is not set.  -ERR_GAP: a file in the middle is
 * missing.  -ERR_CORRUPT: the sentence names the object.  -EOPNOTSUPP: the
 * bucket holds something a newer litebucket wrote.  -ECANCELED: as asked.  Or
 * what accept returned.
 *
 * On any error the output is as it was before.  A new output has mode 0600 and
 * is the caller's; a replaced one keeps mode and owner.
 */
int restorer_restore(const struct restorer_options *options,
		     struct restorer_result *ret);

/* One point that can be restored. */
struct restorer_point {
	uint64_t txid;
	int64_t timestamp_ms;
	unsigned level; /* the lowest level that ends in it */
	uint64_t size;	/* of that file */
	uint32_t page_size, commit;
	uint32_t kind;	/* enum ltx_kind */
	bool ours;	/* it has a rolling checksum */
	uint32_t epoch; /* of its writer; 0: not known */
	uint64_t dbsum; /* after it; 0: not known */
};

/*
 * Every restorable point in ascending order, each with its header fetched.
 * fn's non-zero return stops and is returned.
 */
typedef int (*restorer_point_fn)(const struct restorer_point *point, void *arg);
int restorer_history(struct bucket *b, const char *db, restorer_point_fn fn,
		     void *arg);

/*
 * The newest point: what a plain restore would give.  -ENOENT: no database
 * here.  -ERR_GAP: the newest transaction cannot be reached.
 */
int restorer_head(struct bucket *b, const char *db, struct restorer_point *ret);

#endif
