#ifndef LITEBUCKET_BUCKET_LEASE_H
#define LITEBUCKET_BUCKET_LEASE_H

/*
 * The lease: who should write to a bucket
 * =======================================
 *
 *	           lease_take               lease_release, or lost
 *	NOT HELD ------------> HELD (epoch) ----------------------> NOT HELD
 *	                        |  ^
 *	                        +--+ lease_renew, at a third of the time to live
 *
 * The lease says who should write; the slots of the logs make sure that only
 * one can.  So nothing here has to be believed for safety: a lease that two
 * believe to have costs one of them its commits of that time (they are set
 * aside), and never the bucket's.
 *
 *   1. Each time that it is taken begins a new *epoch*: one more than that of
 *      the record and than the greatest one that the caller knows of (from the
 *      slots).  So a record that somebody removed brings no epoch twice that
 *      is in a slot; one that is in none yet can come again, and its two
 *      holders tell at the slots (rule R1 in docs/decisions.md).
 *   2. "Mine" is what this *life* wrote: its holder is 64 random bits, made
 *      when the lease is not held.  The owner's name says nothing, because a
 *      process that was started again has it, too.
 *      A life that is over for certain, because what it had belongs to another
 *      one now (the lock of its directory), is not waited for: who has taken
 *      its place names it (formers) and takes the lease at once.
 *   3. No two writes have the same bytes, so no two records the same ETag: a
 *      condition is met by the one record it was meant for.
 *   4. Time is the store's: expiry is written and judged by the Date of its
 *      replies.  The clocks of nodes do not matter, nor what sets them.
 *   5. What a put without an answer did is found out by reading.
 *   6. Once a release was sent, or the loss was seen, the life is over, whatever
 *      the answer: nothing that it sent later may count.
 *
 * A holder that hears nothing from the store knows how long nobody else can
 * have taken the lease: until safe_until_ms of this machine's monotonic clock,
 * as far as that runs at the store's pace.
 *
 * A struct lease is one thread's at a time.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "bucket/lease_record.h"

struct bucket;
struct lease;

enum {
	LEASE_TTL_MS = 10000,
	LEASE_FORMERS = 2,
};

struct lease_config {
	struct bucket *bucket; /* the caller's; with retries, or without */
	const char *owner;     /* for people; shortened if need be */
	const char *url;       /* where writes can be sent, or NULL */
	int64_t ttl_ms;	       /* 0: LEASE_TTL_MS */

	/*
	 * Holders that are over for certain, each "" or as lease_holder() was.
	 * For the first life alone.
	 */
	char formers[LEASE_FORMERS][LEASE_HOLDER_SIZE];
};

/* What is known of it since the last answer. */
struct lease_state {
	bool held;	/* by this life */
	bool free;	/* nobody's, by the store's clock */
	uint64_t epoch; /* of who holds it, or had it last; 0: nobody ever */
	char owner[LEASE_OWNER_SIZE], url[LEASE_URL_SIZE]; /* likewise */
	char holder[LEASE_HOLDER_SIZE];			   /* likewise */
	int64_t acquired_ms, expires_ms; /* wall, of the store's clock */
	int64_t date_ms;		 /* its time at that answer */

	/* If held: */
	bool clean;	       /* who had it before has closed every log */
	char before[LEASE_HOLDER_SIZE]; /* who that was; "": nobody */
	int64_t safe_until_ms; /* monotonic */
};

int lease_new(const struct lease_config *config, struct lease **ret);

/*
 * Whom the next lease_take() makes the holder, or the last one made.  Who wants
 * to be known by it after a crash notes it before.
 */
const char *lease_holder(const struct lease *l);

/*
 * Take it, unless somebody has it.  known_epoch is the greatest one found in
 * the bucket's logs and its catalog (epoch_greatest()) and in our own spools, or
 * 0.  If this life has it, that is renewed.
 *
 * -EBUSY: somebody else has it; lease_state() says who, and until when.
 * -EINVAL: the owner's name or the URL is not UTF-8, or has control characters.
 * -ENODATA: the store's replies tell no time.
 * -ERR_CORRUPT, -EOPNOTSUPP: there is a record that we do not understand; it is
 * left alone.  -EOVERFLOW: there are no more epochs.  -EAGAIN: no try had an
 * effect, because of others or of the store.  Or the store's error: it is not known who has it.
 */
int lease_take(struct lease *l, uint64_t known_epoch);

/*
 * Extend it.  -ERR_FENCED: it is lost, and the sentence says to whom; or
 * somebody removed the record, so that anybody can have it.  Other errors leave
 * it as it was, up to safe_until_ms.
 */
int lease_renew(struct lease *l);

/*
 * Give it up.  clean: every log was closed in this epoch (or found closed), and
 * nothing that was sent is without its answer.  The life is over in any case;
 * an error only means that others may have to wait until it expires.  Nothing
 * if it is not held.
 */
int lease_release(struct lease *l, bool clean);

/* Who has it, without taking it. */
int lease_look(struct lease *l);

/*
 * By what was seen last: would lease_take() take it?  0, or -EBUSY as from that.
 * So who waits need not find out first which epochs there have been.
 */
int lease_may_take(const struct lease *l);

/* As of the last call. */
void lease_state(const struct lease *l, struct lease_state *ret);

/* Does not release.  NULL is allowed. */
void lease_free(struct lease *l);
AUTO_FREE(lease);

#endif
