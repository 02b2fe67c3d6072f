#ifndef LITEBUCKET_FUSE_MOUNT_H
#define LITEBUCKET_FUSE_MOUNT_H

/*
 * The mount
 * =========
 *
 * Passes a directory through, and tells capture of what is written.  It may be
 * mounted over the directory itself: everything below works by descriptors
 * that were opened before (the caller's dirfd).
 *
 *	mount_new  ->  mount_serve (returns when stopped)  ->  mount_free
 *
 * One thread reads requests and answers all that cannot wait, which is the
 * fastest arrangement there is for one SQLite connection (no thread has to be
 * woken).  What can wait (fsync, a cold read, whatever capture_may_wait()
 * says) is parked: its arguments are copied, a worker does it and replies.
 * Commits that wait for the bucket have workers of their own, so that they keep
 * nobody else from being served.
 *
 * The kernel keeps names, attributes and pages for as long as it likes,
 * because nobody but the kernel changes anything here; locks are the kernel's
 * alone.  Nothing of this process ever opens a file through the mount.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct buf;
struct capture;
struct db;
struct mount;

struct mount_config {
	struct capture *capture; /* stays the caller's */
	int dirfd;		 /* the backing directory; stays the caller's */
	const char *mountpoint;	 /* absolute */
	const char *source;	 /* shown in /proc/mounts as litebucket:source */
	bool allow_other;

	/*
	 * CONTROL_NONCE_SIZE bytes by which our own helper's descriptors are
	 * known (fuse/control.h); the caller's.  NULL: there is no helper.
	 */
	const uint8_t *helper_nonce;

	/* After mount_stop(), how long open files may stay open; 0: not. */
	int64_t stop_timeout_ms;

	/* If it is in use even then: take the mount away from its users. */
	bool unmount_in_use;

	/*
	 * May the file at path be opened, or created, truncated by its name,
	 * linked, unlinked or renamed, now?  With below, also everything below
	 * it is meant.  0: yes.  -EAGAIN: not yet; who asked waits, for a bounded
	 * time, and this is asked again after mount_ask_again().  Anything else
	 * is what the caller gets.  Called by the thread that reads requests, so
	 * it must not wait.  NULL: always.
	 */
	int (*admit)(void *arg, const char *path, bool below);

	/*
	 * The database at path is being opened, nobody has it open through the
	 * mount, and a process outside writes it; or that cannot be told here
	 * (unknown), and somebody who may wait has to find out.  True: admit()
	 * has something to say now.  Called as admit() is.  NULL: it is not
	 * looked for.
	 */
	bool (*in_use)(void *arg, const char *path, bool unknown);

	/*
	 * While the mount is guarded (mount_guard()): may the database at path be
	 * changed all the same?  Called as admit() is.  NULL: none may.
	 */
	bool (*unlocked)(void *arg, const char *path);
	bool guarded; /* from the beginning */

	/*
	 * A commit of this database may be complete that is to be in the bucket
	 * before it is answered (CAPTURE_CONFIRMS).  Called in a thread of its
	 * own, waits for that for however long it takes, and asks gone(waiter)
	 * several times a second whether anybody waits no more.  0: it is in the
	 * bucket.  1: nobody waits.  Negative: it cannot come to be there, and
	 * who committed gets an I/O error.  NULL: no database is durable.
	 */
	int (*confirm)(void *arg, struct db *db, bool (*gone)(void *waiter),
		       void *waiter);

	/*
	 * A request by fuse/control.h on the file or directory at path (below
	 * the root; "" is the root).  Called in a thread of its own, may wait
	 * long.  Its reply is text; or a negative errno, and then the sentence
	 * of error_message() goes to the client.  Once mount_stop() was
	 * called it should come to an end: mount_free() waits for it.  NULL:
	 * there is nothing to ask.
	 */
	int (*control)(void *arg, unsigned command, const char *path,
		       struct buf *ret_reply);
	void *arg;
};

/*
 * Mount.  A dead mount that a crashed daemon left at the mountpoint is
 * replaced.  -EBUSY: a live one is there.  -EPERM, -ENODEV: no /dev/fuse or no
 * right to mount; the sentence says what to do.
 */
int mount_new(const struct mount_config *config, struct mount **ret);

/*
 * Serve until mount_stop(), or until somebody unmounts or cuts the connection.
 *
 * A stop goes on serving, everything as before, until no file is open any
 * more or stop_timeout_ms is over.  If nobody uses the mount then, it is
 * removed.  Otherwise its connection is cut: whoever has a file open gets
 * errors (ENOTCONN) and can no longer write.  And it stays where it is, dead,
 * because its users would open their files again, and meet the directory
 * beneath, where nothing of what they write would be seen.  With
 * unmount_in_use it is removed, but only after it was cut, so that those who
 * still have files open and those who open the directory beneath, under locks
 * of their own, never write the same database.
 *
 * At any other end (the connection was cut by somebody else, as umount -f does;
 * the FUSE device cannot be read; there is no thread for a stop) the mount is
 * left in the same way, but at once.  What somebody else has unmounted is gone.
 *
 * -EBUSY: it was in use to the end; the sentence names the users, and says what
 * became of the mount.  Other errors: of the device.  Nothing that was answered
 * is lost.
 *
 * Commits that wait for the bucket wait on while it goes on serving, and then get
 * an I/O error.
 *
 * When it returns there is no connection any more, and all requests are done.
 */
int mount_serve(struct mount *m);

/*
 * Make mount_serve() return; the second call does not wait for open files any
 * longer.  Async-signal-safe, any thread.
 */
void mount_stop(struct mount *m);

/*
 * The files of the database at path, which nobody has open and admit() does not
 * admit, were replaced beneath the mount: who opens one gets what is there now.
 * For before it is admitted; mount_forget() is for right after.
 */
void mount_replaced(struct mount *m, const char *path);

/*
 * Databases are replicas (sqlite/replica.h): their files, journal and WAL can be
 * changed, removed or renamed by the follower alone, and others get EROFS.  What
 * readers need of the wal-index, and files that are no databases, are as always.
 *
 * The follower is one process of ours, a child that is not reaped as long as it is
 * named here; it also sees .litebucket.  0: there is none.  Any thread.
 */
void mount_guard(struct mount *m, bool guarded);
void mount_set_follower(struct mount *m, int pid);

/* Something that mount_config.admit() says may have changed.  Any thread. */
void mount_ask_again(struct mount *m);

/*
 * The database at path was changed past the mount: the kernel is to forget what
 * it knows of its files.  Waits for requests that are under way.  Any thread
 * but those that call back from here.  Nothing outside mount_serve(): the kernel
 * knows nothing yet, or is not served any more.
 */
void mount_forget(struct mount *m, const char *path);

/*
 * Wait for calls of control, give every file back to capture, free.  A mount
 * that was never served is removed, unless somebody uses it or it came in the
 * place of a dead one: then it stays, dead.  NULL is allowed.
 */
void mount_free(struct mount *m);
AUTO_FREE(mount);

#endif
