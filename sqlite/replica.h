#ifndef LITEBUCKET_SQLITE_REPLICA_H
#define LITEBUCKET_SQLITE_REPLICA_H

/*
 * A database that only we write, while SQLite reads it
 * ====================================================
 *
 * A replica is an ordinary database in WAL mode.  Its readers are SQLite; its
 * one writer is this: each commit's pages are appended to the log, the
 * wal-index is told, and every connection sees the next state, at once and
 * without having waited.  No SQLite is involved on our side.
 *
 *	replica_open()
 *	while there is something to do
 *		replica_begin(page size, size of the database)
 *		replica_put(page number, page)		ascending
 *		replica_prepare(), replica_commit()	or replica_abort()
 *		replica_tend()				once in a while
 *	replica_close()
 *
 * States
 * ------
 *
 *	                 begin             prepare, then commit; abort
 *	 replica_open ----------> STAGING ---------------+
 *	      |      ^                                   |
 *	      v      |                                   |
 *	   recover   +----------------- IDLE <-----------+
 *	  if the index                 |    ^
 *	  is not whole           tend  |    |
 *	                               v    |    readers in the way: later
 *	                  checkpoint: frames go into the database file
 *	                               |    |
 *	                               v    |
 *	                  reset: the log begins again at frame 1
 *
 * Staged frames lie in the log behind the last committed one, as those of a
 * transaction that spills its cache.  No reader looks there.
 *
 * Invariants
 * ----------
 *
 * I1  From open to close we hold, as open file description locks: SHARED on
 *     the database (no last closer deletes the log), the switch (nobody
 *     empties the index), WRITE and CHECKPOINT exclusively (nobody else
 *     commits, checkpoints, resets or recovers).
 * I2  The index's header names a frame that ends a commit, and its page
 *     numbers and hash tables hold every frame up to it.
 * I3  Readers see whole commits only, since a commit becomes visible by one
 *     shm_publish().
 * I4  backfilled <= frames, at any moment and in any order of our stores.
 * I5  Whatever moment we are killed at, the state is the one before a commit
 *     or the one after it.  Which, nobody but the caller's position knows: so
 *     who opens a replica again commits, first, something that is right on
 *     both (page images are; only all that may have been begun must be in).
 *
 * A commit
 *
 * C1  The frame that ends it is written last.  What is not yet known to be
 *     right (the checksum) is not yet written.
 * C2  Frame 1 of a new log is written only when the log's header, with its new
 *     salts, is on disk: after a power loss, old frames must not look like
 *     new ones.
 * C3  Growth carries every new page; so nothing is read from behind the end
 *     of the database file.
 * C4  Another page size carries every page, in a log of its own: it begins
 *     with a reset.
 *
 * A checkpoint and the reset
 *
 * K1  The log is on disk before its pages are written into the database, and
 *     those are before "backfilled" says so.
 * K2  No frame behind a reader's mark is copied: it reads the file for pages
 *     that its part of the log lacks.
 * K3  While READ 0 is held by a reader, no page of the database file changes:
 *     it reads nothing else.
 * K4  A reset needs READ 1 to 4 for oneself, all frames backfilled.
 * K5  At a reset, "backfilled" becomes zero first and the header follows.
 *     (SQLite has the other order.  Who is killed in between leaves an index in
 *     which frames 1 to backfilled of the new log are invisible.)
 * K6  Some read mark is always at or before the end that a reader may have read,
 *     for who may not set one: the last is zero while nobody uses it.
 *
 * Protection
 * ----------
 *
 * In page 1 of a replica the write version (byte 18) is 3, the read version
 * (byte 19) is 2: to SQLite a database of a later format, which it may read
 * and must not write, whoever runs it and whether or not we do.  Everything
 * handed in is changed so on its way into the log.  Checksums are those of the
 * original: replica_sum() puts the two bytes back.
 *
 * The log's size
 * --------------
 *
 * Readers that overlap can keep a log from ever beginning again.  At max_bytes
 * replica_begin() waits up to wait_ms for a gap between them, during which
 * nobody but us waits, then goes on, and tries again a second later.  At
 * hard_bytes it gives -EAGAIN: the replica stands still, and its readers stay
 * right.
 *
 * A replica is used by one thread at a time.  Errors are sentences
 * (base/error.h) that name the file.
 */
#include <stdbool.h>
#include <stdint.h>

struct replica;

struct replica_options {
	uint64_t max_bytes;  /* 0: 8 MiB */
	uint64_t hard_bytes; /* 0: never stand still */
	unsigned wait_ms;    /* 0: do not wait */
	bool sync;	     /* a commit is on disk when it returns */
};

/*
 * Begin to write the database at path, beneath dirfd, of at least one page and
 * protected.  -wal and -shm are made if they are missing, with the database's
 * owner and mode.  -EAGAIN, with a sentence: another has a lock; try again.
 * -ESTALE: it is not protected, so others may write it.
 */
int replica_open(int dirfd, const char *path, const struct replica_options *o,
		 struct replica **ret);

/*
 * Stop.  All is in the database file then, and the log is empty, unless
 * readers hold it back; -wal and -shm stay, because who may only read could
 * not make them.
 */
int replica_close(struct replica *r);

/*
 * Stop, and make it an ordinary database again, of these bytes 18 and 19 and
 * without -wal and -shm.  -EBUSY: somebody has it open; it stays what it was.
 * Whoever is killed in here leaves the one or the other.  Frees r in any case.
 */
int replica_release(struct replica *r, const uint8_t format[2]);

/*
 * Likewise, but if somebody has it open, in a commit of ours in the log: -wal and
 * -shm stay, and those who have them open go on.  A connection that has read it as
 * a replica writes nothing until it is opened anew; others do.  With bytes of {1, 1}
 * it is in WAL mode as long as there is that log, which the last one who closes
 * it removes; SQLite looks for the log before it looks at the bytes
 * (pagerOpenWalIfPresent).  Frees r in any case.
 */
int replica_hand_over(struct replica *r, const uint8_t format[2]);

/* Stop as a kill would: nothing is written. */
void replica_free(struct replica *r);

/* Are the files at their paths still the ones that are open?  -ESTALE. */
int replica_check_files(const struct replica *r);

/* The committed state. */
struct replica_state {
	uint32_t page_size, pages;
	uint32_t frames, backfilled; /* of the log */
	uint64_t log_bytes;
	bool held_back;		     /* by readers, when last tried */
};
void replica_state(const struct replica *r, struct replica_state *ret);

/* How many of SQLite's five read marks are in use; asks the kernel. */
unsigned replica_readers(const struct replica *r);

/* A page of it, as SQLite would read it. */
int replica_read(const struct replica *r, uint32_t pgno, void *page);

/*
 * The checksum of ltx/dbsum.h over the committed state, with these bytes 18
 * and 19 of page 1: reads all of it.  What it found is what commits go on from;
 * replica_set_sum() spares the reading to who knows.
 */
int replica_sum(struct replica *r, const uint8_t format[2], uint64_t *ret);
void replica_set_sum(struct replica *r, const uint8_t format[2], uint64_t sum);

/* -EAGAIN: at hard_bytes, or the page size changes and readers are on. */
int replica_begin(struct replica *r, uint32_t page_size, uint32_t pages);

/*
 * The lock page and pages behind the end are skipped.  Pages ascend: -EINVAL.
 * A failure here leaves only abort.
 */
int replica_put(struct replica *r, uint32_t pgno, const void *page);

/* What a state is known by; sum is 0 if it is not known. */
struct replica_mark {
	uint64_t sum;
	uint8_t format[2]; /* bytes 18 and 19 of the original */
};
void replica_mark(const struct replica *r, struct replica_mark *ret);

/* 1: the committed state is that one; 0: it is not.  Reads all of it. */
int replica_is(struct replica *r, const struct replica_mark *m);

/*
 * There are no more pages: is the commit whole, and what will the state be?  If
 * the sum of the old state is known, and post_sum is not 0, the new state's
 * must be that: -ERR_CORRUPT, before anybody has seen it.  -ERR_CORRUPT also if
 * a page is missing (C3, C4).  A failure leaves only abort.
 */
int replica_prepare(struct replica *r, uint64_t post_sum,
		    struct replica_mark *ret);

/*
 * Show what was prepared to the readers.  After a failure the state is the old
 * one, and nothing is staged any more.
 */
int replica_commit(struct replica *r);
void replica_abort(struct replica *r);

/*
 * Checkpoint what can be, and begin the log again if nobody reads it.  1: it is
 * empty; 0: readers hold it back, or it is too short to be worth it.
 */
int replica_tend(struct replica *r);

/* Bytes 18 and 19 of a database; are they a replica's? */
int replica_format(int fd, uint8_t ret[2]);
bool replica_is_protected(const uint8_t format[2]);

/*
 * Protect a database that nobody has open.  Synced.  ret_format: what its bytes
 * 18 and 19 were, {1, 1} with a rollback journal, {2, 2} in WAL mode.
 */
int replica_protect(int fd, uint8_t ret_format[2]);

#include "base/cleanup.h"
AUTO_FREE(replica);

#endif
