#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "capture/capture.h"
#include "fuse/caller.h"

#include "fuse/ops.h"

/*
 * Databases that only the follower changes  (D27)
 * ===============================================
 *
 * While the mount is guarded its databases are replicas.  What makes SQLite refuse
 * to write them is in the files (sqlite/replica.h); this is for everybody else, and
 * for who opened one before it became a replica, or looks at it only after it was
 * one.  Readers need no more than locks and the wal-index.
 *
 * A database is known by its first bytes, so one that is made anew is refused at its
 * first page: by then it is an empty file, and may stay one.
 */

bool ops_is_follower(fuse_req_t req)
{
	const struct mount *m = mount_of(req);
	int pid = atomic_load(&m->follower);

	return pid && caller_is_thread_of(fuse_req_ctx(req)->pid, pid);
}

bool ops_is_database(struct mount *m, const struct inode *inode)
{
	AUTO(fd) int fd = -1;

	if (inode->type != S_IFREG)
		return false;
	fd = ops_reopen(m, inode->fd, O_RDONLY);
	return fd >= 0 && capture_is_magic_in(fd);
}

/* Its path below the mount is path: may this caller change what is there? */
static bool is_open_to(fuse_req_t req, const char *path)
{
	const struct mount *m = mount_of(req);

	return ops_is_follower(req) ||
	       (m->config.unlocked && m->config.unlocked(m->config.arg, path));
}

static bool is_side(struct mount *m, const char *path)
{
	static const char shm[] = "-shm";
	size_t n = strlen(path), tail = sizeof(shm) - 1;

	if (n > tail && strcmp(path + n - tail, shm) == 0)
		return false;
	return capture_is_side(m->config.capture, path);
}

bool ops_guards_file(fuse_req_t req, struct inode *inode, const void *data,
		     size_t size, off_t offset)
{
	struct mount *m = mount_of(req);
	char path[INODE_PATH_SIZE];

	if (!atomic_load(&m->guarded))
		return false;
	if (inode_path(&m->inodes, inode, path) < 0)
		path[0] = '\0';
	if (!(offset == 0 && data && capture_is_magic(data, size)) &&
	    !is_side(m, path) && !ops_is_database(m, inode))
		return false;
	return !is_open_to(req, path);
}

/* Is it a file that begins as a database does? */
static bool is_database_at(struct inode *parent, const char *name)
{
	AUTO(fd) int fd = openat(parent->fd, name,
				 O_RDONLY | O_NOFOLLOW | O_NONBLOCK |
					 O_CLOEXEC | O_NOCTTY);

	return fd >= 0 && capture_is_magic_in(fd);
}

static bool is_directory_at(struct inode *parent, const char *name)
{
	struct stat st;

	return fstatat(parent->fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	       S_ISDIR(st.st_mode);
}

bool ops_guards_name(fuse_req_t req, struct inode *parent, const char *name)
{
	struct mount *m = mount_of(req);
	char path[INODE_PATH_SIZE];

	if (!atomic_load(&m->guarded) ||
	    inode_child_path(&m->inodes, parent, name, path) < 0)
		return false;
	/* Below a directory there may be replicas. */
	if (!capture_is_side(m->config.capture, path) &&
	    !is_directory_at(parent, name) && !is_database_at(parent, name))
		return false;
	return !is_open_to(req, path);
}

bool ops_guards_new(fuse_req_t req, struct inode *parent, const char *name)
{
	struct mount *m = mount_of(req);
	char path[INODE_PATH_SIZE];

	if (!atomic_load(&m->guarded) ||
	    inode_child_path(&m->inodes, parent, name, path) < 0)
		return false;
	return is_side(m, path) && !is_open_to(req, path);
}
