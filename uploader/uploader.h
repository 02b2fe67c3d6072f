#ifndef LITEBUCKET_UPLOADER_UPLOADER_H
#define LITEBUCKET_UPLOADER_UPLOADER_H

/*
 * From the spool to the bucket
 * ============================
 *
 * For each database, one batch at a time and in order:
 *
 *	IDLE --notify--> DUE --seal--> SEALED --put if absent--> SENT
 *	  ^                                                       |
 *	  +-------- confirmed: 200, or 412 and our own bytes -----+
 *	                                                          |
 *	                     412 and other bytes -> CONFLICT (stays)
 *
 *   1. The slot after the last confirmed one is the only one open: N+2 is
 *      never sent before N+1 is confirmed (protocol rule R3).
 *   2. A batch stays in the spool until its fate is known (R12).
 *   3. A doubtful reply is tried again for ever; the answer is found by
 *      reading the slot and comparing bytes (R13).
 *   4. Another writer's bytes in our slot: this database stops, with an error
 *      that says so.  Nothing is ever overwritten.
 *   5. Nothing is sent to a bucket without the last confirmed slot, because
 *      nothing behind it could be restored: the database stops.
 *   6. The base snapshot, 0009/1-1, is made from slot 1 after that is
 *      confirmed; 0009/1-N likewise after a slot with another page size (R19).
 *      It is as large as the database, so batches that wait go first, but not
 *      more than a few dozen.  Until it is there the batch is kept in the
 *      spool, also over a restart.
 *   7. A batch is claimed in the spool before it is sent (spool_claim).  What
 *      is not may be merged with others meanwhile (D19), and get a lower TXID.
 *      Times never go back, so who waits is told by the time of a batch.
 *   8. While another node has the lease, nothing is sent: may_send is asked
 *      before each slot, snapshot, and put of the catalog.  Whoever has taken
 *      the lease takes the catalog before it lets anything go out (R17).  All
 *      that is for order only; what keeps writers apart are the slots (rule 4).
 *
 * Pacing: the first batch after a pause goes out at once; then a database is
 * sealed at most once per interval, unless somebody waits.  What is already
 * in the spool goes out without pause.
 *
 * Trouble never reaches who commits, but through uploader_wait().  While the
 * bucket does not answer, each database tries again after growing pauses, for
 * ever; that is logged when it begins and when it ends.
 *
 * Databases upload in parallel, by connections threads of this module's own,
 * and take turns batch by batch.  While nothing is committed no thread wakes
 * and no request is made, but for one per database at the start: does the
 * bucket hold the last batch that was confirmed?  The uploader never calls back
 * with a lock held.
 *
 * Which databases the bucket has, and which were dropped, is written to its
 * catalog after it is in the log (uploader/catalog.h).
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct bucket;
struct spool;
struct uploader;

struct uploader_config {
	struct bucket *bucket; /* stays the caller's, must outlive us */
	unsigned connections;  /* 1.. */
	int64_t interval_ms;   /* 0: as fast as the bucket answers */

	/*
	 * Bring what is committed into the spool.  Returns 1 if a batch was
	 * sealed, 0 if there was nothing new, or a negative errno (-EDQUOT: the
	 * spool is full; it is tried again like any other failure); called from
	 * the uploader's threads, for one database never twice at a time.
	 */
	int (*seal)(void *arg, const char *path);

	/* txid is in the bucket; in order, never twice.  May be NULL. */
	void (*confirmed)(void *arg, const char *path, uint64_t txid);

	/*
	 * The store's clock minus ours.  Called when a reply proves that the
	 * last value given (at first 0) is wrong; replies tell the time in
	 * whole seconds only.  May be NULL.
	 */
	void (*clock_offset)(void *arg, int64_t offset_ms);

	/*
	 * The id that the bucket had last time, or NULL or ""; it is copied.
	 * And what is called once when that is known for the first time: from now on something of
	 * ours is in the bucket of this id.  A failure is logged; may be NULL.
	 */
	const char *bucket_id;
	int (*identified)(void *arg, const char *bucket_id);

	/*
	 * Is the bucket ours to write to?  Asked by the uploader's threads
	 * before each slot and snapshot is put, and before the catalog is.
	 * NULL: always.
	 *
	 * -ERR_FENCED: never again; the database stops as after a conflict.
	 * -EBUSY, or any other error: not now.  Nothing is asked of the bucket
	 * then, and it is tried again after growing pauses, or at uploader_wake().
	 * The sentence becomes the status's error.  Nothing is logged, because
	 * who keeps the lease does that, once and not for each database.
	 * (-EBUSY, as lease_take() says of another's lease, and because -EAGAIN
	 * is the bucket's; but only that it was refused counts here.)
	 */
	int (*may_send)(void *arg);

	void *arg;

	/*
	 * A directory on disk for files that are re-encoded before they are
	 * sent (a whole database, after a change of its page size).  NULL:
	 * TMPDIR, else /var/tmp.
	 */
	const char *temp_dir;
};

/* Starts the threads.  Asks nothing of the bucket. */
int uploader_new(const struct uploader_config *config, struct uploader **ret);

/*
 * Is this a bucket that can be written to?  For the start, so that a typing
 * error is seen at once.  A bucket that does not answer is none: that is
 * logged, and 1.
 *
 * -EOPNOTSUPP: the store ignores conditions, so two writers could overwrite
 * each other, or what is there is of a newer format; nothing is ever sent to
 * it.  -ERR_GAP: it is another bucket than last time; likewise.  -ENODEV: no
 * such bucket.  -EACCES.
 */
int uploader_check(struct uploader *u);

/*
 * The lease was taken, with this epoch (1 up to UINT32_MAX): the catalog is made
 * one of it.  Once per epoch, directly after the lease and before may_send lets
 * anything go out; again if it fails.  What uploader_check() looks at is checked
 * before, if it was not.  Waits as long as this thread does (bucket/patience.h).
 * Databases that stopped because of an earlier epoch's end stay so.
 *
 * -ERR_FENCED: the catalog is of a greater epoch; the lease is to be taken
 * again, with a greater one still.  -EOPNOTSUPP, -ERR_GAP: as uploader_check().
 * -EINVAL: no epoch, or less than the last one.  Or the store's error.
 */
int uploader_take(struct uploader *u, uint64_t epoch);

/*
 * Take care of a database: its path below the mount (its key in the bucket is
 * archive_escape's), its spool (stays the caller's, must outlive us), the last
 * TXID known to be confirmed, or 0.  What is in the spool is sent at once.  If
 * the bucket lacks the confirmed one, the database stops.
 *
 * -EEXIST: it was added before.  -ENAMETOOLONG: as archive_escape.  -ERR_GAP:
 * batches between confirmed and the spool's first are missing.
 */
int uploader_add(struct uploader *u, const char *path, struct spool *spool,
		 uint64_t confirmed);

/*
 * Something was committed: seal it when its time comes.  Any thread; cheap.
 * Paths that were not added are ignored.
 */
void uploader_notify(struct uploader *u, const char *path);

/*
 * As uploader_notify, but now, whatever the interval: somebody waits.  If the
 * bucket did not answer, it is asked again within a second.
 */
void uploader_urge(struct uploader *u, const char *path);

/*
 * It may send now: what was refused is tried again at once, and what failed is,
 * too.  Any thread; cheap.
 */
void uploader_wake(struct uploader *u);

/*
 * Wait until what was sealed as batch txid, with time_ms in its header, is
 * confirmed, at most timeout_ms (-1: for ever).  ret_txid (may be NULL) gets the
 * TXID under which it is in the bucket: txid, or a lower one if it was merged.
 *
 * -ETIMEDOUT, with the reason if it is known; -ENOENT: not added; or the error
 * that stopped the database (-ERR_FENCED for a conflict).
 */
int uploader_wait(struct uploader *u, const char *path, uint64_t txid,
		  int64_t time_ms, int64_t timeout_ms, uint64_t *ret_txid);

/*
 * Seal and send everything of all databases, at most timeout_ms (-1: for
 * ever).  -ETIMEDOUT, with a count of what stays in the spools; or the error
 * that stopped a database, after the others were sent.
 */
int uploader_drain(struct uploader *u, int64_t timeout_ms);

enum uploader_state {
	UPLOADER_IDLE,	   /* nothing to do */
	UPLOADER_BUSY,	   /* sealing or sending, now or when it is time */
	UPLOADER_RETRYING, /* it failed or may not, and will be tried again */
	UPLOADER_CONFLICT, /* another writer has our slot, or bucket: stopped */
	UPLOADER_STOPPED,  /* something else that trying again cannot mend */
};

struct uploader_status {
	enum uploader_state state;
	uint64_t confirmed;	  /* the last TXID in the bucket */
	int64_t confirmed_at_ms;  /* wall; 0 never */
	uint64_t spool_batches, spool_bytes;
	uint64_t sent_bytes, sent_objects; /* since the start; snapshots too */
	char error[512];	  /* the last one while it lasts, else "" */
};

/* -ENOENT: not added. */
int uploader_status(struct uploader *u, const char *path,
		    struct uploader_status *ret);

/* Why the catalog is not up to date, or "". */
void uploader_catalog_status(struct uploader *u, char *ret, size_t size);

/* "idle", "busy", "retrying", "conflict", "stopped" */
const char *uploader_state_name(enum uploader_state state);

/*
 * Stops the threads, after what each is doing; unsent batches stay in their
 * spools.  No other call may be under way.  NULL is allowed.
 */
void uploader_free(struct uploader *u);
AUTO_FREE(uploader);

#endif
