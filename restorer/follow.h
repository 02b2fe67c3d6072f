#ifndef LITEBUCKET_RESTORER_FOLLOW_H
#define LITEBUCKET_RESTORER_FOLLOW_H

/*
 * One database, kept as it is in the bucket
 * =========================================
 *
 *	follow_new()
 *	follow_step() again and again: at once after 1, after a while after 0
 *	follow_close()
 *
 * A step does one thing that takes the replica forward, and says whether it
 * did.  What it does depends on what there is:
 *
 *	no file			restore the newest state, protect it, put it in place
 *	a file, no position	compare it with the newest state
 *	position N		get slot N + 1 of the log
 *	  there			check it, and commit it (sqlite/replica.h)
 *	  not there		nothing, unless a list said that there is more, as
 *				where others compact: then the newest state
 *	  a drop		remove the file
 *	  damaged		stay, name the object; the newest state, if another
 *				level leads to it
 *
 * "The newest state" is a restore into a file aside, and then one commit of the
 * pages that differ: readers see a jump forward, and no error.
 *
 * The position (restorer/mark.h) has the checksum of the state it speaks of.
 * After anything but a clean stop all pages are read and compared with it.  A
 * state that it does not know was written by somebody else, in spite of the
 * protection: it is kept aside as a file, the log says so, and the newest state
 * takes its place; or, if so asked, the follower stops there.
 *
 * Requests: one GET per step, also in the steady state; a list at the start,
 * after a silence of a minute, and when follow_look() was called.  What has been
 * fetched and has to wait for readers is not fetched again.
 *
 * A log of Litestream's may have holes: who removes its compacted files need not
 * ask how long we were kept.  Where that is to be expected, and while nothing
 * comes, now and then a list of what is in level 0 beyond slot N + 1: five
 * seconds after the last batch, then after twice the time each, in the end every
 * minute.  Whoever removes must leave the newest there, as Litestream does.
 *
 * One thread at a time.  Errors are sentences that name the database.
 */
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "sqlite/replica.h"

struct bucket;
struct follow;

struct follow_options {
	struct bucket *bucket;
	const char *db;	   /* its part of keys, as in bucket/archive.h */
	const char *path;  /* of the replica's file */
	const char *state; /* a directory for what belongs to it; exists */
	const char *aside; /* a directory for states that are not the bucket's */
	unsigned mode;	   /* of a new file; 0: 0600 */
	bool inherit;	   /* or those of the directory, owner and mode */
	bool pos_file;	   /* keep PATH-pos: "TXID/checksum", 16 hex digits each */
	bool stop_on_divergence;
	unsigned gap_ms; /* first look beyond a slot that does not come; 0: 5 s */
	struct replica_options replica;
	const volatile sig_atomic_t *cancel; /* or NULL */
};

/* All strings are copied. */
int follow_new(const struct follow_options *o, struct follow **ret);

/*
 * 1: the replica went forward; 0: it is as new as the bucket.
 *
 * -ENOENT: the bucket has no such database.  -EAGAIN: readers or a lock are in
 * the way, or it was dropped this very moment; try later.  -ERR_CORRUPT, -ERR_GAP: the log cannot be followed; the
 * replica stays at its last state and is served on.  -EEXIST: a file that is no
 * replica is at the path; it is not touched.  -ESTALE: the replica was changed
 * or its files were replaced, and we are to stop then.  And what the bucket gives.
 * A later call tries again.
 */
int follow_step(struct follow *f);

/* Is the log one that somebody else compacts?  At first it is not. */
void follow_expect_holes(struct follow *f, bool holes);

/* Look at the list of files before the next step. */
void follow_look(struct follow *f);

struct follow_state {
	uint64_t txid;	      /* of the replica; 0: there is none yet */
	int64_t timestamp_ms; /* of that batch */
	bool dropped;
	uint64_t seen; /* the newest known to be in the bucket; 0: none */
	/* Monotonic: when the bucket last had nothing newer than it; 0: never. */
	int64_t current_ms;
	uint64_t requests, bytes;
	bool has_replica;
	struct replica_state replica; /* if it has one */
};
void follow_state(const struct follow *f, struct follow_state *ret);

/* Of SQLite's five read marks, how many are in use; asks the kernel. */
unsigned follow_readers(const struct follow *f);

/* Stop cleanly: the next start need not compare.  Frees f in any case. */
int follow_close(struct follow *f);

/* Stop as a kill would. */
void follow_free(struct follow *f);
AUTO_FREE(follow);

#endif
