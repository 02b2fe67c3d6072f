#ifndef LITEBUCKET_CAPTURE_CAPTURE_H
#define LITEBUCKET_CAPTURE_CAPTURE_H

/*
 * From SQLite's files to batches of changed pages
 * ===============================================
 *
 * Capture pulls from the backing files; whoever passes the writes through (the
 * mount) only tells it when.  So it works without FUSE, costs a commit next to
 * nothing, and everything it doubts it can look up again: resync.
 *
 * One struct capture is a directory of databases; it keeps its state in
 * .litebucket/ there.  A database is found by its path below the directory.
 * docs/architecture.md follows one commit through; capture/db.h has the states
 * and invariants of one database.
 *
 *	capture_open  ->  (mount)  ->  capture_file_get, capture_write, ...
 *		      ->  (unmount)  ->  capture_close
 *
 * The calls that change files do the system call themselves, between looking
 * before and looking after: capture_write() is pwrite(2) and so on.  They
 * return what the system call would, as a negative errno; an error of
 * capture's own never reaches an application, it only makes the database one
 * to be resynced.
 *
 * Some of these calls may take longer than the system call, because something
 * has to be captured before it may happen (a checkpoint's first write, the end
 * of a large rollback-journal transaction).  capture_may_wait() says so
 * beforehand: a mount does such a call in another thread and goes on serving.
 * It also says which calls may complete a commit that is to be in the bucket
 * before anybody sees it (D17): after such a call, and before it is answered,
 * capture_confirm() tells what there is to wait for.  As long as SQLite has no
 * answer it keeps its locks, and in a WAL does not tell of the commit.
 *
 * Threads: everything may be called from any thread at the same time, except
 * capture_open and capture_close.  Callbacks come from any thread, possibly
 * with locks held: they take note, and must not call back into capture.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"

/* There is no database in the main file (yet, or any more), or no file. */
#define ERR_NO_DATABASE ENOMEDIUM

struct capture;
struct capture_file;
struct db; /* a database that somebody waits for */
struct spool;

/* A database, as it is found by capture_open(). */
struct capture_found {
	const char *path;
	struct spool *spool;	/* capture's */
	uint64_t txid;		/* the last sealed; 0: it was never seen here */
	uint64_t dbsum;		/* after that; 0: not known */
	bool dropped;		/* that was a drop: the state before it */
	/*
	 * Power was lost, and the files look older than txid (D20): unless they
	 * hold just that, they are to be rolled forward to it, from spool and
	 * bucket (R11).
	 */
	bool behind;
};

/* A state of a database, as a log has it. */
struct capture_state {
	uint64_t txid;
	uint64_t dbsum;	       /* 0: not known */
	uint32_t page_size, commit;
	int64_t timestamp_ms;
	bool dropped;	       /* the log has ended; what is there is a new one */
};

struct capture_config {
	int dirfd; /* the backing directory; stays the caller's */

	/*
	 * The directory is ours, and not looked at yet: files may be put into
	 * it.  A failure is capture_open()'s.  NULL: nothing is to be done.
	 */
	int (*prepare)(void *arg);

	/*
	 * The epoch of what is sealed at first (capture_set_epoch()); asked once,
	 * after prepare.  0, or NULL: 1.
	 */
	uint32_t (*epoch)(void *arg);

	/*
	 * Are the databases somebody else's to change, until capture_take_up()?
	 * Asked once, after prepare.  NULL: no.
	 */
	bool (*standby)(void *arg);

	/*
	 * Is a database of .litebucket whose file is gone to be left so, because
	 * somebody else decides about it later?  Asked when databases are taken
	 * up.  NULL: no, it was removed or lost while nobody looked.
	 */
	bool (*leave_missing)(void *arg);

	/*
	 * May the database be taken up?  True: not yet; it is held, and nothing
	 * is done with it until capture_let_go().  It should not be opened, or
	 * lose its name, meanwhile.  From capture_open() or capture_take_up(); a
	 * database that appears later was made by somebody who saw what there
	 * is.  NULL: all may.
	 */
	bool (*found)(void *arg, const struct capture_found *found);

	/*
	 * A database is there: from capture_open(), or later when one is
	 * created.  Called once per path; spool stays capture's until
	 * capture_close().  confirmed is the TXID below the spool's first.
	 */
	void (*appeared)(void *arg, const char *path, struct spool *spool,
			 uint64_t confirmed);

	/*
	 * Are commits of this database to be in the bucket before they are
	 * answered?  Asked once per path.  NULL: none are.
	 */
	bool (*durable)(void *arg, const char *path);

	/* Something was committed that capture_seal() would bring. */
	void (*committed)(void *arg, const char *path);

	/* The time of a batch, wall clock; may correct ours by the bucket's. */
	int64_t (*now_ms)(void *arg);

	/*
	 * Does a client of the mount hold SQLite's RESERVED lock, or a greater
	 * one, on the main file of this path?  1: yes; 0: no; negative: it
	 * cannot be told.  The byte that tells is 0x40000001: a writer has a lock on it
	 * in every rollback journal mode, MEMORY and OFF included.  Asked only
	 * about files that are written without a journal and without a WAL
	 * (D10), by the settling thread and within capture_settle(), with no
	 * lock held; it may take some milliseconds, but not wait for the
	 * holder.  NULL: it can never be told.
	 */
	int (*writer)(void *arg, const char *path);

	/*
	 * This database has a journal that can be played back only through the
	 * mount, because it names a super-journal (D21).  Until SQLite has opened
	 * it there, nothing of it is sealed.  NULL: that is left to whoever
	 * opens it first.
	 */
	void (*interrupted)(void *arg, const char *path);

	/*
	 * The verb of our own program that calls capture_play() in a process
	 * of its own.  A fork of a process that has threads may do nothing but
	 * exec: their locks stay locked in it.  NULL: there are no threads.
	 */
	const char *player;

	void *arg;

	/* How long a file that SQLite does not write must rest; 0: 1 s (D9). */
	int64_t quiet_ms;

	/*
	 * What the spools of all databases may hold, in bytes; 0: as much as
	 * fits on the disk.  What does not fit is not sealed: commits gather,
	 * batches that were never sent are merged and, if there is more than
	 * that nevertheless, given up for a later comparison (D19).
	 */
	uint64_t spool_max;
};

/*
 * Read the state and recover.  A hot journal is played first, by SQLite in a
 * child process.  A database that was not left clean is compared afterwards,
 * by a thread of capture's, while it is in use; of one that was no page is
 * read.  One bad database is logged and left out; it does not keep the others.
 *
 * -EBUSY: another process has this directory.  -EROFS, -EACCES: the state
 * directory cannot be made.
 */
int capture_open(const struct capture_config *config, struct capture **ret);

/*
 * On a standby nothing is captured: the calls below only do their system call,
 * and every database is held.  From here on it is as if it had just been opened.
 * Nobody changes a database while this goes on.
 */
int capture_take_up(struct capture *c);

/*
 * The last TXID sealed of the database at path, by what .litebucket has; 0: it
 * was never seen here.  For capture_config.prepare.
 */
int capture_known(int dirfd, const char *path, uint64_t *ret_txid);

/*
 * Its log has ended in this drop, and there is no file: what is created under
 * the name follows it.  For capture_config.prepare.
 */
int capture_note_dropped(int dirfd, const char *path,
			 const struct capture_state *drop);

/*
 * What that process does: let SQLite play back the journal of the database at
 * path, below the working directory, as the file's owner.  Its exit status.
 */
int capture_play(const char *path);

/*
 * Seal what is committed, and note that all was left clean.  No file of the
 * directory may be in use any more.  NULL is allowed.
 */
void capture_close(struct capture *c);

/*
 * What capture knows of one file, by its path below the directory (no leading
 * slash).  One per inode and held while the inode is open: got at the first
 * open, put after the last close.  Never fails but for memory.
 */
int capture_file_get(struct capture *c, const char *path,
		     struct capture_file **ret);
void capture_file_put(struct capture_file *f);

/* A handle was opened or closed. */
void capture_opened(struct capture_file *f, bool writable);
void capture_closed(struct capture_file *f, bool writable);

enum capture_op {
	CAPTURE_WRITE,
	CAPTURE_TRUNCATE,
	CAPTURE_UNLINK,
};

enum capture_wait {
	CAPTURE_AT_ONCE,  /* it takes what its system call takes */
	CAPTURE_MAY_WAIT, /* it might take longer */
	CAPTURE_CONFIRMS, /* likewise; and capture_confirm() is due after it */
};

/*
 * Might this call wait for more than its system call?  data is what is to be
 * written, or NULL; size is nothing for a CAPTURE_TRUNCATE.  Cheap.
 *
 * With CAPTURE_CONFIRMS ret_db gets the database whose commit it may complete,
 * whatever becomes of the file's names meanwhile: for capture_confirm(), and
 * given back with capture_forget_db() in any case.
 */
enum capture_wait capture_may_wait(struct capture_file *f, enum capture_op op,
				   const void *data, size_t size,
				   uint64_t offset, struct db **ret_db);
enum capture_wait capture_path_may_wait(struct capture *c, const char *path,
					enum capture_op op,
					struct db **ret_db);
void capture_forget_db(struct db *db);

/* Its path below the directory, while there is a reference. */
const char *capture_db_path(const struct db *db);

/*
 * pwrite(2) and ftruncate(2) on fd, a writable descriptor of the backing file
 * f.  The write is complete or fails.
 */
ssize_t capture_write(struct capture_file *f, int fd, const void *data,
		      size_t size, uint64_t offset);
int capture_truncate(struct capture_file *f, int fd, uint64_t size);

/* fallocate(2). */
int capture_fallocate(struct capture_file *f, int fd, int mode,
		      uint64_t offset, uint64_t size);

/*
 * unlinkat(2) and renameat2(2).  name is below parent_fd, path is the same
 * below the directory.
 */
int capture_unlink(struct capture *c, int parent_fd, const char *name,
		   const char *path);
int capture_rename(struct capture *c, int from_fd, const char *from_name,
		   const char *from_path, int to_fd, const char *to_name,
		   const char *to_path, unsigned flags);

/* Do these bytes, or the file, begin as a database does? */
bool capture_is_magic(const void *data, size_t size);
bool capture_is_magic_in(int fd);

/*
 * Is this, by its name, the journal, WAL or wal-index of a file that is there?  Such
 * a file belongs to its name: SQLite finds it by that.
 */
bool capture_is_side(struct capture *c, const char *path);

/*
 * The files of this database were changed past the calls above, while nobody
 * had them open through those: all that is known of them is doubtful.
 */
void capture_distrust(struct capture *c, const char *path);

/*
 * Bring all that is committed now into the spool, as one batch.  1: a batch
 * was sealed; 0: nothing new.  ret_txid (may be NULL) gets the last sealed
 * TXID in both cases.  -ENOENT: no database of that path.  -EDQUOT: the spool
 * is full; what is committed stays where it is.
 */
int capture_seal(struct capture *c, const char *path, uint64_t *ret_txid);

/*
 * As capture_seal, but do not wait for a file's quiet time: what is there and
 * at rest is captured now.  For sync.  -EBUSY: a transaction without a journal
 * (or a copy) is under way; try again.  -EINPROGRESS: it is being compared, and
 * this call did some seconds of that; call again.
 */
int capture_settle(struct capture *c, const char *path, uint64_t *ret_txid);

/*
 * The last batch sealed, by what the uploader knows it.  Its TXID may become a
 * lower one while it was never sent (D19); its time never goes back.
 */
struct capture_point {
	uint64_t txid;
	int64_t time_ms;
};

/*
 * The epoch of what is sealed from now on (bucket/lease.h), what a crash left
 * half sealed excepted.
 */
void capture_set_epoch(struct capture *c, uint32_t epoch);

/*
 * Close the log for older epochs: seal what is committed, or, if that is
 * nothing, a barrier, which is a batch without pages.  Once it is in its slot,
 * nothing of an older epoch can come to be in one behind (R4).  1: ret is the
 * batch that does it.  0: there is no log to close, or it has ended in a drop.
 * Errors as capture_seal().
 */
int capture_close_log(struct capture *c, const char *path,
		      struct capture_point *ret);

/* As capture_settle(), and tell both. */
int capture_sync(struct capture *c, const char *path,
		 struct capture_point *ret);

/*
 * After a call that CAPTURE_CONFIRMS: seal what is committed to the database.
 * 1: once ret is in the bucket, all that is.  0: there is no database (yet).
 * -ESTALE: it was renamed or removed, so what its former users commit is in no
 * database.  -EBUSY, -EINPROGRESS,
 * -EDQUOT: as capture_sync(); nothing is wrong, try again.  Other errors: of the
 * disk.
 *
 * For the time of this call the database's locks are taken to be those of the
 * caller's own client, who has come to the end of its transaction.
 */
int capture_confirm(struct db *db, struct capture_point *ret);

/*
 * Everything at rest: as capture_settle() for every database and every file
 * that may be one.  For after the unmount.  Failures are logged.  What has to
 * be compared is until then (monotonic), and else by the next mount.
 */
void capture_settle_all(struct capture *c, int64_t until_ms);

/*
 * Databases that are held
 * -----------------------
 * Whoever holds a database finds out which state of its log the files are, and
 * has them, or what is known of them, made to fit, before it lets go.  One
 * thread per database; they may be on their way at the same time.
 */

/*
 * Read the files, WAL included: page_size, commit and dbsum of ret.
 * -ENOENT, -ERR_NO_DATABASE: there is no database (any more).
 */
int capture_look(struct capture *c, const char *path,
		 struct capture_state *ret);

/*
 * What is known of a database that is held, as capture_config.found was told;
 * behind of ret stays as it is.  After an adopting that failed the spool may be
 * another, and what was decided before is carried out first: if that is not
 * possible yet, so is nothing else with this database.
 */
int capture_find_again(struct capture *c, const char *path,
		       struct capture_found *ret);

/*
 * The log's last state is this one, and the next batch follows it.  If the
 * files hold just that, nothing else is to be sent; otherwise the next batch
 * has all pages.  What is in the spool is set aside, unless the state is the
 * one that was last sealed here.
 */
int capture_adopt(struct capture *c, const char *path,
		  const struct capture_state *state);

/*
 * Put the file name in dirfd (of the same file system), which holds this state,
 * in the database's place, and adopt the state.  Before anything changes, the
 * files that were there get second names in a directory of their own,
 * .litebucket/aside/<...>, and so does what is in the spool.  A crash leaves
 * all old, or is finished by the next capture_open().
 *
 * CAPTURE_KEEP_DIVERGED: what goes holds commits that the log did not get; the
 * directory's name begins with "diverged-".  CAPTURE_KEEP_SPOOL: the log has
 * what the files hold, so that only the spool's batches, if any, are kept.
 */
enum capture_keep {
	CAPTURE_KEEP,
	CAPTURE_KEEP_DIVERGED,
	CAPTURE_KEEP_SPOOL,
};

int capture_replace(struct capture *c, const char *path, int dirfd,
		    const char *name, const struct capture_state *state,
		    enum capture_keep keep);

/*
 * The end is near: looking at a database's pages, which may take long, gives
 * -ECANCELED from here on.  What was decided already is carried out, at the cost
 * of a batch of all pages later.
 */
void capture_hurry(struct capture *c);

/* Take the database up, as capture_open() would have. */
int capture_let_go(struct capture *c, const char *path);

/*
 * Call fn for each directory below .litebucket/aside, with its name and the
 * path of the database; non-zero stops and is returned.
 */
int capture_each_aside(struct capture *c,
		       int (*fn)(const char *name, const char *path, void *arg),
		       void *arg);

struct capture_status {
	char path[4096];
	uint64_t txid; /* last sealed */
	uint32_t page_size, commit;
	bool wal;      /* a WAL with frames is in use */
	bool pending;  /* something is committed and not sealed */
	bool resync;   /* nothing is sealed until it is settled, */
	bool comparing; /* which takes a look at every page */
	uint32_t compared; /* of commit pages */
	char waits[160]; /* why it could not be settled so far; "" */
	bool dropped;
	char error[512]; /* why it is not captured; "" if it is */
};

struct capture_spool {
	uint64_t used, max; /* bytes; max 0: no bound */
	bool full;	    /* something could not be sealed for it */
};

void capture_spool_status(struct capture *c, struct capture_spool *ret);

/*
 * Every database, in order of path, and then every file or directory that
 * could not be read to see whether it is one (only path and error are set);
 * non-zero stops and is returned.
 */
typedef int (*capture_status_fn)(const struct capture_status *status,
				 void *arg);
int capture_each(struct capture *c, capture_status_fn fn, void *arg);

#endif
