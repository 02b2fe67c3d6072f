#ifndef LITEBUCKET_RESTORER_UNLOCK_H
#define LITEBUCKET_RESTORER_UNLOCK_H

/*
 * A replica becomes an ordinary database
 * ======================================
 *
 * Its protection goes, its -wal and -shm with it, and its journal mode is the
 * original's again.  Its position is forgotten, so that a follower that comes
 * to this directory later finds somebody's database, and leaves it alone.
 */
#include <stdbool.h>
#include <stdint.h>

struct unlocked {
	/* The bucket's state that it is in; 0: not known, or changed since. */
	uint64_t txid;
	bool wal; /* its journal mode; where that is not known it stays so */
};

/*
 * state: the directory of its position (restorer/layout.h), or NULL for a copy
 * that was taken elsewhere.  No follower may be at work on it.
 *
 * -EEXIST: it is no replica.  -EBUSY: it is open in another program; nothing
 * has changed.
 */
int unlock_replica(const char *path, const char *state, struct unlocked *ret);

/*
 * At once, and also while it is open in other programs (replica_hand_over()).  Its
 * pages are not read: who goes on with it compares.  A follower has ended cleanly
 * there.
 */
int unlock_hand_over(const char *path, const char *state);

/*
 * That for every replica of a follower's directory.  One that fails is logged, and
 * keeps no other; the first error.  -EBUSY: a follower is at work there.  0 also
 * if there never was one.
 */
int unlock_all(const char *directory);

#endif
