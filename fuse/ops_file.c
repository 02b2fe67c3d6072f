#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "capture/capture.h"

#include "fuse/ops.h"
#include "fuse/outside.h"

/*
 * What of open(2)'s flags belongs to the backing file.  The kernel gives
 * offsets for O_APPEND, sends O_TRUNC as a request of its own, and does
 * O_DIRECT between the caller and us; our buffers are not aligned for it.
 */
enum {
	KEPT_FLAGS = O_ACCMODE | O_SYNC
};

bool ops_is_stale(struct mount *m, struct inode *inode)
{
	char path[INODE_PATH_SIZE];
	struct stat st;

	if (!atomic_load(&inode->replaced))
		return false;
	if (inode_path(&m->inodes, inode, path) < 0 ||
	    fstatat(m->inodes.root.fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
	    st.st_dev != inode->dev || st.st_ino != inode->ino)
		return true;
	/* It is what came in its place, or nothing did. */
	atomic_store(&inode->replaced, false);
	return false;
}

void ops_describe_handle(struct handle *handle, struct fuse_file_info *fi)
{
	fi->fh = (uintptr_t)handle;
	fi->keep_cache = 1;
	/* Else who closes the file waits for who writes it, and that for long. */
	fi->noflush = 1;
}

static void op_open(fuse_req_t req, fuse_ino_t number,
		    struct fuse_file_info *fi);

/* Its name cannot have gone meanwhile, but it can lead to another file. */
static void open_again(fuse_req_t req, const struct held_args *args)
{
	struct inode *inode = inode_of_request(req, args->number);

	atomic_store(&inode->replaced, true);
	op_open(req, args->number, args->fi);
}

static void op_open(fuse_req_t req, fuse_ino_t number,
		    struct fuse_file_info *fi)
{
	const struct held_args args = { .number = number, .fi = fi };
	struct mount *m = mount_of(req);
	struct inode *inode = inode_of_request(req, number);
	struct handle *handle;
	int fd, rc;

	if (!held_admits(req, &args, false, open_again))
		return;
	if (ops_is_stale(m, inode)) {
		(void)fuse_reply_err(req, ESTALE);
		return;
	}
	if (outside_found(m, inode) &&
	    !held_admits(req, &args, false, open_again))
		return;
	fd = ops_reopen(m, inode->fd, (fi->flags & KEPT_FLAGS) | O_NONBLOCK);
	if (fd < 0) {
		reply_errno(req);
		return;
	}
	rc = handle_open(&m->handles, inode, fd, fi->flags, &handle);
	if (rc < 0) {
		reply_result(req, rc);
		return;
	}
	ops_describe_handle(handle, fi);
	if (fuse_reply_open(req, fi) == -ENOENT)
		handle_close(&m->handles, handle);
}

static void op_release(fuse_req_t req, fuse_ino_t number,
		       struct fuse_file_info *fi)
{
	handle_close(&mount_of(req)->handles, handle_of(fi));
	(void)fuse_reply_err(req, 0);
}

struct file_task {
	struct task task;
	fuse_req_t req;
	struct handle *handle;
	int mode; /* fallocate's; or fsync's datasync */
	off_t offset, length;
};

static void park(fuse_req_t req, void (*run)(struct task *task),
		 const struct file_task *args)
{
	struct file_task *t = malloc(sizeof(*t));

	if (!t) {
		(void)fuse_reply_err(req, ENOMEM);
		return;
	}
	*t = *args;
	t->task.run = run;
	t->req = req;
	workers_park(&mount_of(req)->workers, &t->task);
}

static void fsync_parked(struct task *task)
{
	struct file_task *t = (struct file_task *)task;
	int fd = t->handle->fd;
	int rc = t->mode ? fdatasync(fd) : fsync(fd);

	reply_result(t->req, rc < 0 ? -errno : 0);
	free(t);
}

static void op_fsync(fuse_req_t req, fuse_ino_t number, int datasync,
		     struct fuse_file_info *fi)
{
	const struct file_task args = {
		.handle = handle_of(fi),
		.mode = datasync,
	};

	park(req, fsync_parked, &args);
}

static void fallocate_parked(struct task *task)
{
	struct file_task *t = (struct file_task *)task;
	const struct handle *h = t->handle;
	int rc;

	if (h->captured)
		rc = capture_fallocate(h->captured, h->fd, t->mode,
				       (uint64_t)t->offset,
				       (uint64_t)t->length);
	else
		rc = fallocate(h->fd, t->mode, t->offset, t->length) < 0
			     ? -errno
			     : 0;
	reply_result(t->req, rc);
	free(t);
}

static void op_fallocate(fuse_req_t req, fuse_ino_t number, int mode,
			 off_t offset, off_t length, struct fuse_file_info *fi)
{
	const struct file_task args = {
		.handle = handle_of(fi),
		.mode = mode,
		.offset = offset,
		.length = length,
	};

	if (ops_guards_file(req, args.handle->inode, NULL, 0, 0))
		(void)fuse_reply_err(req, EROFS);
	else
		park(req, fallocate_parked, &args);
}

/* SEEK_DATA and SEEK_HOLE; nothing of ours uses the descriptor's position. */
static void op_lseek(fuse_req_t req, fuse_ino_t number, off_t offset,
		     int whence, struct fuse_file_info *fi)
{
	off_t at = lseek(handle_of(fi)->fd, offset, whence);

	if (at < 0)
		reply_errno(req);
	else
		(void)fuse_reply_lseek(req, at);
}

void ops_file_fill(struct fuse_lowlevel_ops *ops)
{
	ops->open = op_open;
	ops->release = op_release;
	ops->fsync = op_fsync;
	ops->fallocate = op_fallocate;
	ops->lseek = op_lseek;
}
