#ifndef LITEBUCKET_CAPTURE_DB_H
#define LITEBUCKET_CAPTURE_DB_H

/*
 * One database, while its directory is open
 * =========================================
 *
 * Three sets of page hashes, each newer than the next; a page is known by the
 * first that has it, and what none has is "unknown" and differs from anything:
 *
 *	open		committed, not yet being sealed		(memory)
 *	sealing		closed, being written into the spool	(memory)
 *	pages		as of position, the last sealed batch	(disk)
 *
 * How a page gets there depends on how SQLite commits:
 *
 *	WAL		pull:	  frames beyond the captured end, up to the last
 *				  commit frame, when a batch is sealed, and
 *				  before anything that could make frames vanish
 *	journal		finalise: pages written while the journal was live,
 *				  just before SQLite takes the journal away
 *	neither		settle:	  pages written, once the file is at rest
 *	doubt		compare:  every page, while the file is in use
 *
 * The life of a journal, as the mount sees it:
 *
 *	        header with magic            unlink, truncate to 0,
 *	IDLE ----------------------> LIVE --- or a header without magic ---> IDLE
 *	                                      (finalise: commit or rollback,
 *	                                       the pages' contents tell)
 *
 * Invariants (docs/architecture.md explains where they come from):
 *
 *	I1  What is sealed is committed: no page enters open while it belongs to
 *	    a transaction that could still be undone, or in_doubt is set, and
 *	    nothing is sealed while it is.
 *	I2  Before the main file of a database with a WAL is written, everything
 *	    committed in the WAL has been pulled; a WAL cannot start over without
 *	    such a write, so no commit is lost.
 *	I3  A page's content is the WAL's latest committed version, if there is
 *	    one, and the main file's otherwise.
 *	I4  dbsum is the sum of the known hashes of pages 1..commit.
 *	I5  A TXID given to a batch is on disk (position) before the batch can be
 *	    seen in the spool, and is never given again once the batch may have
 *	    been sent (spool_claim).
 *	I6  Every page above the previous batch's size is in a batch that grows
 *	    the database, also those that SQLite never wrote.
 *	I7  Each page of 1..commit is known as the main file has it, or as the
 *	    WAL has it where wal_index names it; unless it is
 *		dirty		written since it was looked at,
 *		at or above next_pgno, while compare is set,
 *		late		committed, and not looked at yet, or
 *		in the run	being looked at.
 *	    While there is one of the last three, in_doubt is set.
 *
 * Looking at pages without a lock
 * -------------------------------
 * Compare, late pages, and dirty ones of a file at rest are looked at in runs
 * of at most RUN_MAX pages: a run is chosen under lock (db_fill_run), read and
 * hashed without any, and entered under lock.  Meanwhile applications write,
 * and finalise, and pull.  A page of the run is entered only if all that time
 *
 *	- no write to it began or was under way: db_mark() touches it before
 *	  the system call, and a page that is dirty is not chosen;
 *	- it was not hidden by the WAL: one that wal_index names is not chosen,
 *	  and pull touches those that it adds, so that a WAL that starts over
 *	  in between leaves its pages touched;
 *	- the descriptor it was read by is that of the file (files).
 *
 * A page that was touched needs no second look: who touched it has made it
 * dirty, in which case a finalisation or a moment of rest looks at it, or put
 * the WAL's version into open.  So whatever writes meanwhile, a run is never
 * read twice, and as many runs as there are pages bring the end:
 *
 *	WAL	   The main file changes by checkpoints alone, which write what
 *		   wal_index hides.  The end is a pull under lock.
 *	journal	   A running transaction's pages are dirty; what was chosen is as
 *		   it was committed.  The end is under lock while no journal is
 *		   live, or the next finalisation (db_settled() in
 *		   file_finalise_end()), so that there need be no such moment.
 *	neither	   Dirty pages become late once the file is at rest (capture/rest.c),
 *		   after begun writes; the end is that there was none since.
 *
 * What changes all pages at once begins again from page 1: another page size,
 * another file under the name (dirty.all), a WAL that cannot be read.  When the
 * database grows, db_fill() reads what nobody put, or leaves it to compare.  The
 * pages of a transaction of more than COLLECT_MAX pages become late when it is
 * finalised (D18), and the application goes on.
 *
 * Locks, outermost first: settle_lock, seal_lock, lock, mark.  An application's
 * write waits for lock only where a comment in capture/file.c says so; who
 * holds lock reads at most COLLECT_MAX pages, or what SQLite itself wrote since
 * the last pull.  mark is held for a few instructions.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "capture/batch.h"
#include "capture/capture.h"
#include "capture/pages.h"
#include "capture/pgmap.h"
#include "capture/position.h"
#include "ltx/header.h"
#include "sqlite/format.h"
#include "sqlite/wal.h"

/* Pages written since they were last looked at. */
struct dirty {
	struct pgmap pages;
	uint32_t page_size; /* of the numbers in pages */
	bool all;
};

enum {
	RUN_MAX = 256,	     /* pages that are looked at together */
	COLLECT_MAX = 1024,  /* pages that are read with lock held */
};

/* Pages that are being looked at; which of them need not be any more. */
struct run {
	uint32_t page_size; /* of the numbers */
	uint32_t n;
	uint32_t pgnos[RUN_MAX]; /* ascending */
	bool touched[RUN_MAX];
};

/* Is a file at rest that is written without a journal?  (D10; rest.c) */
struct rest {
	bool bare;	/* it was written so since it was last settled */
	bool asked;	/* config->writer was called since; */
	bool held;	/* it said that somebody is in a transaction */
	bool rested;	/* it was at rest, */
	uint64_t begun; /* after so many writes */
	int64_t poll_ms, poll_at_ms;
	int64_t held_ms; /* since when: monotonic, 0: not now */
};

/* A comparison of all pages, for the log and for status. */
struct comparing {
	char why[160]; /* "": nobody need know of it */
	bool told;	/* that it began */
	uint32_t differed;
	uint64_t looked;
};

struct db {
	const struct capture_config *config;
	struct capture *capture;
	char *path;	/* below the directory */
	bool durable;	/* commits wait for the bucket (D17) */
	struct db *next; /* in the capture's table; its lock guards */
	unsigned refs;	 /* likewise */

	pthread_mutex_t settle_lock; /* one who looks at pages at a time */

	/* Guarded by settle_lock. */
	int look_fd;	     /* the main file, as of */
	uint64_t look_files; /* files, when it was opened */

	pthread_mutex_t seal_lock; /* one sealer at a time */

	/* Changed with seal_lock and lock held, read with either. */
	struct position position;
	struct batch *sealing;
	uint32_t last_epoch; /* of the batch at position; 0: of an earlier life */
	bool sealed;		  /* the batch of this header is on disk whole, */
	struct ltx_header header; /* to be sealed before anything else */
	bool adopt; /* position is ahead of the spool: the file is to be renamed, */
	bool supersede; /* in the place of all batches from its TXID on */
	bool position_unsure; /* to be written again before anything else, and */
			      /* what the spool has behind it removed */

	/* Guarded by seal_lock: the last sealing left out what was in doubt. */
	bool kept_back;

	/*
	 * Found at the start, and not taken up (capture_config.found), or of a
	 * standby: nothing is looked at, settled, sealed or told.  Cleared by
	 * capture_let_go(), once, or by capture_take_up().
	 */
	atomic_bool held;

	pthread_mutex_t lock;

	/* Guarded by lock. */
	int state_fd; /* its directory below .litebucket; -1: it has none yet */
	struct pages *pages;
	struct spool *spool;
	struct batch *open;
	uint32_t page_size; /* 0: not a database (yet, or any more) */
	uint32_t commit;
	uint64_t dbsum;
	int collected;	    /* how far file_finalise_begin() came, */
	uint64_t collected_begun; /* and the writes before it */
	bool in_doubt;	    /* open may hold what is not committed (I1) */
	bool compare;	    /* pages from next_pgno on are to be looked at */
	uint64_t next_pgno;
	uint32_t *late;	    /* these, too (I7); ascending */
	size_t n_late, late_at; /* those before late_at are done */
	struct comparing comparing;
	char waits[160];    /* why it could not be settled the last time */
	bool told_waits;    /* the log was told that this takes long */
	int main_fd, wal_fd; /* backing files, read-only; -1: not open */
	uint64_t files;	    /* how often they were closed */
	bool wal_valid;	    /* wal is behind a header or a commit */
	bool wal_rewound;   /* captured frames were overwritten */
	struct wal_cursor wal;
	struct pgmap wal_index; /* page -> latest committed frame + 1 */
	char error[512];

	pthread_mutex_t mark;

	/* Guarded by mark. */
	struct dirty dirty;
	struct run run;
	struct rest rest;
	unsigned writers; /* open writable handles of the main file */
	uint64_t begun, done; /* writes that change what the main file says */
	int64_t last_write_ms; /* monotonic */
	int64_t retry_wait_ms, retry_at_ms; /* after db_settle() failed */

	/* Written under lock or after the write they tell of, read freely. */
	atomic_bool journal_live;
	atomic_bool resting;	  /* waits for db_settle() */
	atomic_int_least64_t resting_ms; /* since when, monotonic */
	atomic_bool looking;	  /* there is what needs no rest: I7's last three */
	atomic_bool wal_touched;  /* WAL written since the last pull */
	atomic_bool wal_in_use;	  /* it has, or may have, frames */
	atomic_uint_least64_t wal_end;	   /* captured up to here */
	atomic_uint_least32_t wal_page_size;
	atomic_uint_least64_t wal_commit_end; /* of the last commit frame written */

	/*
	 * While it is durable: the same, whatever was captured, and how far the
	 * WAL is written at all.  Changed by who writes the WAL, one at a time.
	 */
	atomic_uint_least64_t wal_durable_end, wal_written_end;
	atomic_uint confirming; /* calls of capture_confirm() under way */
	atomic_bool told_undurable; /* the log knows of commits that cannot wait */
};

/* ------------------------------------------------------------- db.c */

int db_new(struct capture *c, const struct capture_config *config,
	   const char *path, struct db **ret);
void db_free(struct db *db);

/*
 * Give the database its state directory below .litebucket (state_root_fd), and
 * take up what an earlier run left there.  Lock held.
 */
int db_attach(struct db *db, int state_root_fd);

/*
 * The state directory is there, and its content is read, but nobody was told:
 * db_announce() does.  Lock held.  db_detach() undoes db_attach().
 */
void db_announce(struct db *db);
void db_detach(struct db *db);

/*
 * Remember why it is not captured, and log it once; have it compared.  Lock
 * held.  db_trouble: what was known stays so, and it is enough to try again.
 */
void db_fail(struct db *db, const char *doing);
void db_trouble(struct db *db, const char *doing);

/* Open the backing files if they are not.  Lock held.  -ENOENT. */
int db_open_main(struct db *db);
int db_open_wal(struct db *db);
void db_close_files(struct db *db);

/* The page as committed (I3), zeros beyond the file's end.  Lock held. */
int db_read_page(struct db *db, uint32_t pgno, void *ret_page);

/* The hash by which a page is known; 0: unknown.  Lock held. */
uint64_t db_known(const struct db *db, uint32_t pgno);

/*
 * The page is committed with this content (and hash): into open, if it is
 * news, which is 1.
 */
int db_put_page(struct db *db, uint32_t pgno, const void *page);
int db_put_hashed(struct db *db, uint32_t pgno, const void *page,
		  uint64_t hash);

/*
 * The database is committed with this size.  Growing leaves the new pages
 * unknown: db_fill(), with the size before, then sees to those that nobody put
 * (I6).
 */
int db_resize(struct db *db, uint32_t commit);
int db_fill(struct db *db, uint32_t old);

/*
 * A commit of a database with this page size.  If that is not what is known,
 * it is a new one, or VACUUM changed its page size: all that is known is
 * forgotten (an empty open hides it), so that every page is news.
 */
int db_begin(struct db *db, uint32_t page_size);

/* Is there something that db_seal() would bring?  Lock held. */
bool db_has_news(const struct db *db);

/* Tell the uploader's side that there is.  Any locks. */
void db_notify(struct db *db);

/* Nobody will finalise what is to be looked at: settle it.  Any locks. */
void db_let_rest(struct db *db);

/* -------------------------------------------------------- capture.c */

/* db_attach() below this capture's state directory.  Lock held. */
int capture_attach(struct db *db);

/* Which boot of the machine this is; "" if that is not known. */
const char *capture_boot(const struct capture *c);

/* That writes now. */
uint32_t capture_epoch(const struct capture *c);

/* Have db_settle() tried when it is due.  Any locks. */
void capture_wake(struct capture *c);

/* The database of this path, with a reference; NULL: none (yet). */
struct db *capture_find(struct capture *c, const char *path);
int capture_find_or_add(struct capture *c, const char *path, struct db **ret);
void capture_release(struct capture *c, struct db *db);

/*
 * Look at what is under the names of a database that capture sees for the
 * first time, or that was replaced: a file, a journal that is live, a WAL.
 * Takes lock.
 */
void db_probe(struct db *db);

/* Only whether the journal is live. */
void db_probe_journal(struct db *db);

/* ----------------------------------------------------------- adopt.c */

/*
 * Finish what a crash interrupted in capture_adopt() or capture_replace().
 * Called before the state is read.  Lock held; state_fd is open.
 */
int db_recover_adopting(struct db *db);

/*
 * After an unclean stop, in another boot: do the files look older than position
 * says?  Reads no page but the first.  Lock held.
 */
bool db_is_behind(struct db *db);

/* ----------------------------------------------------------- dirty.c */

/*
 * Note a write to the main file, before it is done.  db_mark_all counts as a
 * write of its own.  Take mark.
 */
void db_mark(struct db *db, uint64_t offset, uint64_t size);
void db_mark_all(struct db *db);

/* The page is hidden by the WAL from now on. */
void db_touch(struct db *db, uint32_t pgno);

/* Pages are of db's page size from here on; renumber: and all are dirty. */
void db_number_dirty(struct db *db);
void db_renumber_dirty(struct db *db);

/*
 * The file is at rest after begun writes: its dirty pages become late, or all
 * pages are to be compared.  -EAGAIN: there was another write.  Lock held.
 */
int db_take_dirty(struct db *db, uint64_t begun);

/* Dirty pages of a committed transaction (ascending) become late. */
int db_add_late(struct db *db, const uint32_t *pgnos, size_t n);

/*
 * Choose the next run of pages to look at, at most max; how many.  db_end_run:
 * it is entered; with give_back, it is not, and they are dirty.  Lock held.
 */
uint32_t db_fill_run(struct db *db, uint32_t max);
void db_end_run(struct db *db, bool give_back);

/* Compare every page from this one on; why may be NULL.  Lock held. */
void db_compare(struct db *db, uint32_t from, const char *why);

/* Is there no page that I7 makes an exception of, but for dirty ones? */
bool db_is_through(struct db *db);

/* Does the main file say what nobody has looked at?  Lock held. */
bool db_is_unsettled(struct db *db);

/* Writes to the main file begun so far. */
uint64_t db_writes_begun(struct db *db);

/*
 * All pages that were dirty after begun writes have been looked at.  False,
 * and nothing changes, if there have been others since.  If db_is_through(),
 * nothing is in doubt any more.  Lock held.
 */
bool db_settled(struct db *db, uint64_t begun);

/* ------------------------------------------------------------ rest.c */

/* The main file is written without a journal: settle it at rest.  Any locks. */
void db_write_bare(struct db *db);

/*
 * Is the file at rest?  0: after ret_begun writes it was, or nobody wrote it
 * without a journal; -EBUSY.  now: as for db_settle().  May ask
 * config->writer.  No locks but settle_lock.
 */
int db_check_rest(struct db *db, bool now, uint64_t *ret_begun);

/* How long a file that SQLite does not write must rest (D9). */
int64_t db_quiet_ms(const struct db *db);

/* When that is worth a try, monotonic ms.  Mark held. */
int64_t db_rest_due_ms(const struct db *db);

/* ------------------------------------------------------------ pull.c */

/*
 * Bring what is committed in the WAL into open.  A failure is remembered as
 * by db_fail().  Lock held.
 */
int db_pull(struct db *db);

/*
 * The WAL vanished or starts over: forget it, and look again at the pages that
 * it had hidden in the main file.  Lock held, after a db_pull().
 */
int db_wal_gone(struct db *db);

/* Whatever is at that name now is another file. */
void db_forget_wal(struct db *db);

/* --------------------------------------------------------- collect.c */

/*
 * Bring the dirty pages into open, as they are in the main file; many become
 * late instead.  The caller knows that they are committed.  Lock held.
 * -ERR_NO_DATABASE.
 */
int db_collect(struct db *db);

/* 0: there is a database in the main file; -ERR_NO_DATABASE.  Lock held. */
int db_find_main(struct db *db);

/*
 * The file is at rest after begun writes: be of the size and page size that it
 * says, and take its dirty pages.  -EBUSY: it is not complete; -EAGAIN: there
 * was another write.  Lock held.
 */
int db_measure(struct db *db, uint64_t begun);

/* ---------------------------------------------------------- resync.c */

/*
 * For a while, look at what is to be looked at.  now: without waiting for the
 * quiet time.  0: settled, or nothing to do; 1: there is more to do, at once;
 * -EBUSY: it is not at rest.  A database that became something else, or
 * nothing, is dropped (D11).
 */
int db_settle(struct db *db, bool now);

/* When db_settle() is worth a try, monotonic ms; INT64_MAX: never. */
int64_t db_settle_due_ms(struct db *db);

/* ------------------------------------------------------------ seal.c */

/* As capture_seal().  Takes seal_lock and lock. */
int db_seal(struct db *db, uint64_t *ret_txid);

/*
 * The file was removed, or is no database any more: a last batch with what is
 * still unsealed, and the batch that says so.  Nothing, if it never was one.
 * Takes seal_lock and lock.
 */
int db_drop(struct db *db);

/* What a crash left between sealing and publishing.  Lock held. */
int db_recover_sealing(struct db *db);

/*
 * As db_seal(), but it is all that is committed, or -EBUSY: something is in
 * doubt.
 */
int db_seal_all(struct db *db, struct capture_point *ret);

/* As capture_close_log().  Takes seal_lock and lock. */
int db_close_log(struct db *db, struct capture_point *ret);

/* What an earlier try did not come to the end of.  Seal lock held. */
int db_resume(struct db *db);

/*
 * name in the state directory is a whole file, synced, with this header: put it
 * in the place of the batches from its TXID to position's, with the same end.
 * They are barred.  Seal lock held.
 */
int db_seal_over(struct db *db, const char *name,
		 const struct ltx_header *header);

/* The epoch that writes, and a nonce of one file's own (R2). */
uint64_t db_node_id(const struct db *db);

/* Where the database is after a batch with this header. */
struct position db_position_after(const struct ltx_header *header);

/* ------------------------------------------------------------ room.c */

/*
 * Room in the spool for what is to be sealed.  ret: what was set aside, to be
 * given back once it is sealed.  make: merge batches if need be; that takes a
 * while.  Takes lock, and without any of this database held.  -EDQUOT.
 */
int db_find_room(struct db *db, bool make, uint64_t *ret_bytes);
void db_leave_room(struct db *db, uint64_t bytes);

/* Where there is none: for the last state of a database that is removed? */
bool room_may_exceed(const struct capture *c);

/* The settling thread looks whether there is too much. */
void room_is_due(struct capture *c);

/*
 * After a start, and once a database is held no more: if the spools hold more
 * than they may.  True: somebody was in the way; again in a while.
 */
bool room_check(struct capture *c);

/* ----------------------------------------------------------- merge.c */

/*
 * One batch of those that were never sent, if that is worth its work; whatever
 * the work with always.  1: done.  Without locks.
 */
int db_merge(struct db *db, bool always);

/*
 * Without those that were never sent: the database is as the batch before them
 * left it, and what they held is found again by comparing.  1: done.  Without
 * locks.
 */
int db_give_up(struct db *db);

/* Bring the state after give-up in line with the new position.  Lock held. */
int db_go_back(struct db *db, const struct position *to, uint32_t page_size);

#endif
