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
static bool nobody_waits(void *waiter)
{
	fuse_req_t req = waiter;

	return atomic_load(&mount_of(req)->giving_up) ||
	       (fuse_req_interrupted(req) &&
		caller_is_dying(fuse_req_ctx(req)->pid));
}

bool ops_confirm(fuse_req_t req, struct db *db)
{
	struct mount *m = mount_of(req);
	int rc = 0;

	if (db && m->config.confirm)
		rc = m->config.confirm(m->config.arg, db, nobody_waits, req);
	capture_forget_db(db);
	return rc == 0 || (rc == 1 && !atomic_load(&m->giving_up));
}

void ops_look_again(struct mount *m, fuse_ino_t number)
{
	if (!notifier_begin(&m->notifier))
		return;
	(void)fuse_lowlevel_notify_inval_inode(m->session, number, 0, 0);
	notifier_end(&m->notifier);
}
