#ifndef LITEBUCKET_TESTS_LIB_CAPTURE_VFS_H
#define LITEBUCKET_TESTS_LIB_CAPTURE_VFS_H

/*
 * A SQLite VFS whose writes go through capture
 * ============================================
 *
 * What the mount does for other processes, this does within one: every write,
 * truncation and removal of a file goes through capture's calls, and all else
 * to SQLite's own VFS.  So capture is tested with the real SQLite, at the
 * granularity of single system calls, without FUSE.
 *
 * One process only: closing a descriptor drops the process's POSIX locks, and
 * SQLite keeps its own connections apart by itself.
 */
#include <stdint.h>

struct capture;
struct db;

/*
 * Register (or point again) the VFS "capture" at this capture of directory,
 * an absolute path.  Paths below it go through capture.
 */
void capture_vfs_use(struct capture *c, const char *directory, int dirfd);

/*
 * Called before each call with what it is ("write", "truncate", "sync",
 * "unlink") and the path below the directory.  Non-zero: capture's call is made,
 * but the system call in it fails.
 */
typedef int (*capture_vfs_hook)(const char *what, const char *path,
				uint64_t offset, void *arg);
void capture_vfs_set_hook(capture_vfs_hook hook, void *arg);

/*
 * As the mount does: ask before each call whether it may complete a commit that
 * is to be confirmed, and after it, let this do so.  A failure is SQLite's.
 * NULL: nothing is confirmed.
 */
typedef int (*capture_vfs_confirm)(struct db *db, void *arg);
void capture_vfs_set_confirm(capture_vfs_confirm confirm, void *arg);

/*
 * capture_settle(), called again for as long as a comparison goes on: on a busy
 * machine one call does only a part of it.
 */
int capture_vfs_settle(struct capture *c, const char *path, uint64_t *ret_txid);

#endif
