#ifndef LITEBUCKET_CLI_TENURE_H
#define LITEBUCKET_CLI_TENURE_H

/*
 * Who writes the bucket: this node's turn
 * =======================================
 *
 *	          tenure_begin()
 *	SEEKING --tenure_begin()--> HELD --renewed at a third of the time to live--+
 *	 |   ^                      |  ^                                           |
 *	 |   +--lock.json is gone---+  +-------------------------------------------+
 *	 |                          |
 *	 +--somebody else has it----+--> LOST (stays; the next start seeks again)
 *
 *   1. While somebody else has the lease, either tenure_begin() waits, and nothing
 *      of the directory is served; or the thread does, for a standby
 *      (cli/node_standby.h), and then SEEKING does not become LOST.  A life that
 *      was killed in this directory is not waited for (cli/lives.h).
 *   2. In this order: the life is noted; the lease; took(), which takes the
 *      catalog (R17); and only then is anything sent (tenure_may_send()).
 *   3. A bucket that did not answer at all at the start, or does not any more, is
 *      no reason to stop (D24): what is committed waits in the spool, in the last
 *      epoch that this directory had.  When the bucket is back the lease is
 *      taken, or renewed if nobody has taken it meanwhile.  But who has seen
 *      another one's lease, or taken it, waits until all of 2 is done.
 *   4. Every log gets a batch of the new epoch before the node counts as alone
 *      (R4): close_logs() is called until it says so.  Not if the last holder
 *      had done so, and handed over cleanly, or was a life of this directory.
 *   5. LOST: somebody else is at work, so what is committed here may never be in
 *      the bucket.  Nothing is sent any more.  What one that is gone has left
 *      behind is none: it expires.
 *
 * The lease is no proof of anything: see bucket/lease.h.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "bucket/lease.h"

struct bucket;
struct tenure;

enum tenure_state {
	TENURE_SEEKING,
	TENURE_HELD,
	TENURE_LOST,
};

/* Strings are copied. */
struct tenure_config {
	struct bucket *bucket;
	int dirfd; /* .litebucket is there, and no other process's */
	const char *owner, *url;
	int64_t ttl_ms; /* 0: LEASE_TTL_MS */

	/*
	 * An epoch has begun.  Its error means that nothing may be sent yet; it
	 * is called again.  -ERR_FENCED: the bucket knows a greater one, so
	 * another is taken.  In tenure_begin(), and in the thread.
	 */
	int (*took)(void *arg, uint32_t epoch);

	/*
	 * 0: every log is closed; else it is called again, soon.  The lease is
	 * not renewed meanwhile, so it ends about until_ms (monotonic).  The
	 * thread, and tenure_close().
	 */
	int (*close_logs)(void *arg, int64_t until_ms);

	/* From SEEKING to HELD, or to LOST.  Without a lock. */
	void (*changed)(void *arg, enum tenure_state state);

	void *arg;
};

int tenure_new(const struct tenure_config *config, struct tenure **ret);

/*
 * Seek the lease; the directory is ours by now.  0: it is held.  1: the bucket
 * says nothing of it, which is logged; tenure_start() goes on seeking.  2: somebody
 * else has it and renews it, and warm is true.  -ECANCELED: *stop became true.  -ENODATA: the store's replies tell no time.
 * Other errors: lock.json is damaged, or of a newer format, or the owner's name
 * or URL is none.
 */
int tenure_begin(struct tenure *t, const atomic_bool *stop, bool warm);

/* Before tenure_start(): wait for it, whoever has it. */
void tenure_stand_by(struct tenure *t);

/* The thread that keeps it, or goes on seeking. */
int tenure_start(struct tenure *t);

/* Logs can be closed now that could not be before. */
void tenure_poke(struct tenure *t);

/* The last epoch that this directory had; 0: none. */
uint32_t tenure_epoch(struct tenure *t);

/* Are there logs that may still be open for older epochs? */
bool tenure_owes_barriers(struct tenure *t);

/*
 * 0; -EBUSY: not (yet); -ERR_FENCED: never again.  With a sentence.
 */
int tenure_may_send(struct tenure *t);

struct tenure_status {
	enum tenure_state state;
	struct lease_state lease; /* as last seen */
	char error[512];	  /* why it could not be renewed or taken; "" */
};

void tenure_status(struct tenure *t, struct tenure_status *ret);

/* "seeking", "held", "lost" */
const char *tenure_state_name(enum tenure_state state);

/* End the thread: no callback comes any more.  NULL is allowed. */
void tenure_stop(struct tenure *t);

/*
 * After tenure_stop(): are all logs closed by now?  What was not while it was
 * served may be after the last batches were sent.  NULL is allowed.
 */
void tenure_close(struct tenure *t);

/*
 * And once nothing is sent any more: give the lease up, if it is held.
 * sent_all: nothing waits in the spools, so others may take over without a
 * barrier if all logs are closed.  Takes some seconds at most.  NULL is allowed.
 */
void tenure_release(struct tenure *t, bool sent_all);

/* After tenure_stop().  NULL is allowed. */
void tenure_free(struct tenure *t);
AUTO_FREE(tenure);

#endif
