#ifndef LITEBUCKET_UPLOADER_CATALOG_H
#define LITEBUCKET_UPLOADER_CATALOG_H

/*
 * The writer's side of catalog.json
 * =================================
 *
 *	turn: slot confirmed --note--> PENDING --read, compare--> UP TO DATE
 *	                                  ^            |              ^
 *	                                  |         it differs        |
 *	                                  +-- failed --+-- put -------+
 *
 *   1. Log first: what is noted here is in the bucket's log already.  A crash
 *      in between is mended after the next start, where each database is
 *      noted once as its log was left.
 *   2. Nothing is put unless it changes what the catalog says; and nothing is
 *      asked of the bucket unless something was noted.
 *   3. It is made if absent, and changed only as it was read (If-Match).  Who
 *      loses a race reads again and adds its own to what it finds.  So a reply
 *      that was lost needs no care: what is found then has it all.
 *   4. What is noted within GATHER_MS goes out as one.
 *   5. Trouble here keeps no batch: a thread of this module's own tries again,
 *      after growing pauses, for ever.  Only a bucket that is not ours, by its
 *      id or its format, or that another litebucket has taken over, is a reason
 *      to send nothing (D3).
 *   6. Who has taken the lease makes the catalog one of its epoch first (R17).
 *      From then on each put brings that epoch, and a greater one that is found
 *      is another's.  Without a lease a new one is of epoch 1, and what is there
 *      keeps its own.
 *
 * A store that does not keep If-Match is written to without: two writers can
 * then lose each other's lines, until each one's next start.  That is bearable
 * as long as readers believe the log; it is logged.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"

struct bucket;
struct ltx_header;
struct uploader_catalog;

struct uploader_catalog_config {
	struct bucket *bucket; /* stays the caller's, must outlive us */

	/* The id that it had last time, or NULL or ""; it is copied. */
	const char *bucket_id;

	/*
	 * Something of ours is in this bucket from now on.  Once, or again if
	 * it fails; not if the id is the one above.  May be NULL.
	 */
	int (*identified)(void *arg, const char *bucket_id);

	/* As uploader_config's; asked before the bucket is.  NULL: always. */
	int (*may_send)(void *arg);
	void *arg;
};

/* Starts the thread.  Asks nothing of the bucket. */
int uploader_catalog_new(const struct uploader_catalog_config *config,
			 struct uploader_catalog **ret);

/*
 * Is the bucket ours?  Reads the catalog.
 *
 * -ERR_GAP: it is another one than last time.  -EOPNOTSUPP: of a newer format.
 * Any other error: that could not be found out.
 */
int uploader_catalog_check(struct uploader_catalog *c);

/*
 * The same by what is known, without asking: 0 unless it is not ours.  Also
 * -ERR_FENCED: another litebucket has taken it over.
 */
int uploader_catalog_verdict(struct uploader_catalog *c);

/*
 * The lease was taken, with this epoch: rewrite the catalog with it, so that
 * what was put of it earlier, and has not arrived, can do nothing any more.
 * Once per epoch and before anything is sent; again with the same one if it
 * fails, because the put may have arrived.  Not from the thread that calls back.
 * If there is no catalog, or it is damaged, none is put; one that is made later
 * is of this epoch.  Waits as long as this thread does (bucket/patience.h).
 *
 * -ERR_FENCED: it is of a greater epoch; the lease is to be taken again, with
 * a greater one still.  That is no verdict, and success lifts one that was
 * made of an earlier epoch.  -EINVAL: no epoch, or less than the last one.  Or
 * the verdict, or the store's error.
 */
int uploader_catalog_take(struct uploader_catalog *c, uint64_t epoch);

/*
 * The slot that this header is of is the last one in the log of db (its part
 * of keys).  Any thread; cheap.
 */
void uploader_catalog_note(struct uploader_catalog *c, const char *db,
			   const struct ltx_header *slot);

/*
 * Write what is pending now: wait for it until until_ms (monotonic), or until
 * it has failed once.  What is left is logged.
 */
void uploader_catalog_drain(struct uploader_catalog *c, int64_t until_ms);

/* It may be sent to, or answers again: what is pending is tried now. */
void uploader_catalog_wake(struct uploader_catalog *c);

/* Why it is not up to date, or "". */
void uploader_catalog_error(struct uploader_catalog *c, char *ret, size_t size);

/* Ends the thread, after what it is doing.  NULL is allowed. */
void uploader_catalog_free(struct uploader_catalog *c);
AUTO_FREE(uploader_catalog);

#endif
