#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "capture/capture.h"

#include "fuse/ops.h"

static void reply_attr(fuse_req_t req, struct inode *inode)
{
	struct stat st;

	if (fstatat(inode->fd, "", &st, AT_EMPTY_PATH) < 0) {
		reply_errno(req);
		return;
	}
	inode_note_mode(inode, st.st_mode);
	(void)fuse_reply_attr(req, &st, FOREVER);
}

static void op_getattr(fuse_req_t req, fuse_ino_t number,
		       struct fuse_file_info *fi)
{
	reply_attr(req, inode_of_request(req, number));
}

struct setattr_task {
	struct task task;
	fuse_req_t req;
	struct inode *inode;
	struct stat attr;
	int set;	       /* FUSE_SET_ATTR_* */
	struct handle *handle; /* to truncate through */
	bool temporary;	       /* the handle is ours */
	enum capture_wait wait; /* for the truncation */
	struct db *db;		/* that it commits to, to be confirmed; or NULL */
};

static int set_owner(const struct setattr_task *t)
{
	uid_t uid = t->set & FUSE_SET_ATTR_UID ? t->attr.st_uid : (uid_t)-1;
	gid_t gid = t->set & FUSE_SET_ATTR_GID ? t->attr.st_gid : (gid_t)-1;

	return fchownat(t->inode->fd, "", uid, gid, AT_EMPTY_PATH);
}

static int set_mode(struct mount *m, const struct inode *inode, mode_t mode)
{
	return fchmodat(m->proc_fd, ops_fd_name(inode->fd).text, mode & 07777,
			0);
}

/* As the kernel does natively for one who is not privileged. */
static mode_t without_setid(mode_t mode)
{
	mode &= ~(mode_t)S_ISUID;
	if (mode & S_IXGRP)
		mode &= ~(mode_t)S_ISGID;
	return mode;
}

void ops_clear_setid(fuse_req_t req, struct inode *inode)
{
	struct stat st;

	if (!atomic_load_explicit(&inode->setid, memory_order_relaxed) ||
	    fuse_req_ctx(req)->uid == 0 ||
	    fstatat(inode->fd, "", &st, AT_EMPTY_PATH) < 0)
		return;
	if (without_setid(st.st_mode) != st.st_mode)
		(void)set_mode(mount_of(req), inode, without_setid(st.st_mode));
}

static int set_size(const struct setattr_task *t)
{
	const struct handle *h = t->handle;
	uint64_t size = (uint64_t)t->attr.st_size;
	int rc;

	if (h->captured)
		rc = capture_truncate(h->captured, h->fd, size);
	else
		rc = ftruncate(h->fd, t->attr.st_size) < 0 ? -errno : 0;
	if (rc == 0)
		ops_clear_setid(t->req, t->inode);
	return rc;
}

static struct timespec time_to_set(int set, int given, int now,
				   struct timespec value)
{
	if (set & now)
		value.tv_nsec = UTIME_NOW;
	else if (!(set & given))
		value.tv_nsec = UTIME_OMIT;
	return value;
}

static int set_times(const struct setattr_task *t)
{
	const struct timespec times[2] = {
		time_to_set(t->set, FUSE_SET_ATTR_ATIME,
			    FUSE_SET_ATTR_ATIME_NOW, t->attr.st_atim),
		time_to_set(t->set, FUSE_SET_ATTR_MTIME,
			    FUSE_SET_ATTR_MTIME_NOW, t->attr.st_mtim),
	};

	return utimensat(t->inode->fd, "", times, AT_EMPTY_PATH);
}

enum {
	SET_OWNER = FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID,
	SET_TIMES = FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME |
		    FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME_NOW,
};

/*
 * The order matters: a new owner clears bits of the mode, and a new size
 * changes the times.
 */
static int set_all(struct mount *m, const struct setattr_task *t)
{
	if (t->set & SET_OWNER && set_owner(t) < 0)
		return -errno;
	if (t->set & FUSE_SET_ATTR_MODE &&
	    set_mode(m, t->inode, t->attr.st_mode) < 0)
		return -errno;
	if (t->set & FUSE_SET_ATTR_SIZE) {
		int rc = set_size(t);

		if (rc < 0)
			return rc;
	}
	if (t->set & SET_TIMES && set_times(t) < 0)
		return -errno;
	return 0;
}

/* Before the answer, because nobody must take the old size for the file's. */
static void reply_unconfirmed(const struct setattr_task *t)
{
	struct mount *m = mount_of(t->req);

	ops_look_again(m, inode_number(&m->inodes, t->inode));
	(void)fuse_reply_err(t->req, EIO);
}

static void setattr_now(const struct setattr_task *t)
{
	struct mount *m = mount_of(t->req);
	int rc = set_all(m, t);
	bool confirmed = rc < 0 || ops_confirm(t->req, t->db);

	if (rc < 0)
		capture_forget_db(t->db);
	if (t->temporary)
		handle_close(&m->handles, t->handle);
	if (!confirmed)
		reply_unconfirmed(t);
	else if (rc < 0)
		reply_result(t->req, rc);
	else
		reply_attr(t->req, t->inode);
}

static void setattr_parked(struct task *task)
{
	setattr_now((struct setattr_task *)task);
	free(task);
}

static void park(const struct setattr_task *args)
{
	struct mount *m = mount_of(args->req);
	struct setattr_task *t = malloc(sizeof(*t));

	if (t) {
		*t = *args;
		t->task.run = setattr_parked;
		workers_park(ops_pool(m, t->wait), &t->task);
		return;
	}
	capture_forget_db(args->db);
	if (args->temporary)
		handle_close(&m->handles, args->handle);
	(void)fuse_reply_err(args->req, ENOMEM);
}

/* Freeing or zeroing this much at once takes noticeable time. */
enum {
	LARGE_CHANGE = 64 << 20
};

static enum capture_wait truncate_may_wait(const struct setattr_task *t,
					   struct db **ret_db)
{
	enum capture_wait wait = CAPTURE_AT_ONCE;
	struct stat st;

	if (t->handle->captured)
		wait = capture_may_wait(t->handle->captured, CAPTURE_TRUNCATE,
					NULL, 0, (uint64_t)t->attr.st_size,
					ret_db);
	if (wait == CAPTURE_AT_ONCE && fstat(t->handle->fd, &st) == 0 &&
	    st.st_size > t->attr.st_size + LARGE_CHANGE)
		wait = CAPTURE_MAY_WAIT;
	return wait;
}

/* truncate(2) and O_TRUNC come without a handle. */
static int open_to_truncate(struct mount *m, struct setattr_task *t)
{
	int fd = ops_reopen(m, t->inode->fd, O_WRONLY | O_NONBLOCK);
	int rc;

	if (fd < 0)
		return -errno;
	rc = handle_open(&m->handles, t->inode, fd, O_WRONLY, &t->handle);
	t->temporary = rc == 0;
	return rc;
}

static void op_setattr(fuse_req_t req, fuse_ino_t number, struct stat *attr,
		       int set, struct fuse_file_info *fi);

static void setattr_again(fuse_req_t req, const struct held_args *args)
{
	op_setattr(req, args->number, args->attr, args->set, args->fi);
}

static void op_setattr(fuse_req_t req, fuse_ino_t number, struct stat *attr,
		       int set, struct fuse_file_info *fi)
{
	const struct held_args args = {
		.number = number,
		.attr = attr,
		.set = set,
		.fi = fi,
	};
	struct mount *m = mount_of(req);
	struct setattr_task t = {
		.req = req,
		.inode = inode_of_request(req, number),
		.attr = *attr,
		.set = set,
		.handle = fi ? handle_of(fi) : NULL,
	};
	int rc = 0;

	if (set & FUSE_SET_ATTR_SIZE && !t.handle &&
	    !held_admits(req, &args, false, setattr_again))
		return;
	if (set & FUSE_SET_ATTR_SIZE &&
	    ops_guards_file(req, t.inode, NULL, 0, 0)) {
		(void)fuse_reply_err(req, EROFS);
		return;
	}
	if (!t.handle && set & FUSE_SET_ATTR_SIZE &&
	    ops_is_stale(m, t.inode)) {
		(void)fuse_reply_err(req, ESTALE);
		return;
	}
	if (set & FUSE_SET_ATTR_SIZE && (!t.handle || !t.handle->writable))
		rc = open_to_truncate(m, &t);
	if (rc == 0 && set & FUSE_SET_ATTR_SIZE)
		t.wait = truncate_may_wait(&t, &t.db);
	if (rc < 0)
		reply_result(req, rc);
	else if (t.wait != CAPTURE_AT_ONCE)
		park(&t);
	else
		setattr_now(&t);
}

static void op_statfs(fuse_req_t req, fuse_ino_t number)
{
	struct statvfs st;

	if (fstatvfs(inode_of_request(req, number)->fd, &st) < 0)
		reply_errno(req);
	else
		(void)fuse_reply_statfs(req, &st);
}

void ops_attr_fill(struct fuse_lowlevel_ops *ops)
{
	ops->getattr = op_getattr;
	ops->setattr = op_setattr;
	ops->statfs = op_statfs;
}
