#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "capture/capture.h"
#include "fuse/caller.h"

#include "fuse/ops.h"

/*
 * Commits that wait for the bucket  (D17)
 * =======================================
 *
 * The request that completes a commit is done, and then its answer waits.  Until
 * it comes SQLite holds its locks, and in a WAL has not told of the commit, so
 * nobody sees what is not in the bucket.  Meanwhile the kernel holds a lock on the
 * file that is written, or on the directory of a journal that is unlinked.
 */

struct workers *ops_pool(struct mount *m, enum capture_wait wait)
{
	return wait == CAPTURE_CONFIRMS ? &m->confirmers : &m->workers;
}

/*
 * Whoever gets a signal has its request interrupted, once; only those that it
 * kills wait no longer.  Nobody sees what a process that dies is answered.
 */
static bool nobody_waits(const void *waiter)
{
	fuse_req_t req = (fuse_req_t)waiter;

	return atomic_load(&mount_of(req)->giving_up) ||
	       (fuse_req_interrupted(req) &&
		caller_is_dying(fuse_req_ctx(req)->pid));
}

int ops_confirm(fuse_req_t req, const char *path)
{
	struct mount *m = mount_of(req);
	int rc = 0;

	if (m->config.confirm)
		rc = m->config.confirm(m->config.arg, path, nobody_waits, req);
	if (rc == 0 || (rc == 1 && !atomic_load(&m->giving_up)))
		return 0;
	return error_set(-EIO, "a commit is not known to be in the bucket");
}

int ops_confirm_file(fuse_req_t req, struct inode *inode)
{
	char path[INODE_PATH_SIZE];

	/* A file without a name belongs to no database. */
	if (inode_path(&mount_of(req)->inodes, inode, path) < 0)
		return 0;
	return ops_confirm(req, path);
}

void ops_reply_unconfirmed(fuse_req_t req, struct inode *inode)
{
	struct mount *m = mount_of(req);
	fuse_ino_t number = inode_number(&m->inodes, inode);

	(void)fuse_reply_err(req, EIO);
	AUTO(unlock) pthread_mutex_t *held = lock(&m->notify_lock);
	if (m->notifies)
		(void)fuse_lowlevel_notify_inval_inode(m->session, number, 0,
						       0);
}

void ops_reply_unconfirmed_name(fuse_req_t req, const struct inode *parent,
				const char *name)
{
	struct mount *m = mount_of(req);
	fuse_ino_t number = inode_number(&m->inodes, parent);

	(void)fuse_reply_err(req, EIO);
	AUTO(unlock) pthread_mutex_t *held = lock(&m->notify_lock);
	if (m->notifies)
		(void)fuse_lowlevel_notify_inval_entry(m->session, number, name,
						       strlen(name));
}
