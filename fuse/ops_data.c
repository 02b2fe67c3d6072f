#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "capture/capture.h"

#include "fuse/ops.h"

struct data_task {
	struct task task;
	fuse_req_t req;
	struct handle *handle;
	size_t size;
	off_t offset;
	struct db *db; /* that a write commits to, to be confirmed; or NULL */
	char data[];
};

/* With room for size bytes.  NULL, and answered, if there is no memory. */
static struct data_task *new_task(fuse_req_t req, struct handle *handle,
				  size_t size, off_t offset)
{
	struct data_task *t = malloc(sizeof(*t) + size);

	if (!t) {
		(void)fuse_reply_err(req, ENOMEM);
		return NULL;
	}
	t->req = req;
	t->handle = handle;
	t->size = size;
	t->offset = offset;
	t->db = NULL;
	return t;
}

static void reply_read(fuse_req_t req, const char *data, ssize_t n)
{
	if (n < 0)
		reply_result(req, (int)n);
	else
		(void)fuse_reply_buf(req, data, (size_t)n);
}

static void read_parked(struct task *task)
{
	struct data_task *t = (struct data_task *)task;

	reply_read(t->req, t->data,
		   io_pread(t->handle->fd, t->data, t->size,
			    (uint64_t)t->offset));
	free(t);
}

/*
 * Read what is in memory.  A short read means the end of the file to the
 * kernel, so it is all that was asked for, up to the end, or -EAGAIN.
 */
static ssize_t read_cached(struct handle *h, char *data, size_t size,
			   off_t offset)
{
	size_t done = 0;

	while (done < size && !h->no_nowait) {
		struct iovec rest = {data + done, size - done};
		ssize_t n = preadv2(h->fd, &rest, 1, offset + (off_t)done,
				    RWF_NOWAIT);

		if (n == 0)
			return (ssize_t)done;
		if (n > 0)
			done += (size_t)n;
		else if (errno == EOPNOTSUPP)
			h->no_nowait = true;
		else if (errno != EINTR)
			return -errno;
	}
	if (!h->no_nowait)
		return (ssize_t)done;
	return io_pread(h->fd, data, size, (uint64_t)offset);
}

static void op_read(fuse_req_t req, fuse_ino_t number, size_t size,
		    off_t offset, struct fuse_file_info *fi)
{
	struct mount *m = mount_of(req);
	struct handle *h = handle_of(fi);
	struct data_task *t;
	ssize_t n = -EAGAIN;

	if (size <= READ_BUFFER_SIZE)
		n = read_cached(h, m->read_buffer, size, offset);
	if (n != -EAGAIN) {
		reply_read(req, m->read_buffer, n);
		return;
	}
	t = new_task(req, h, size, offset);
	if (t) {
		t->task.run = read_parked;
		workers_park(&m->workers, &t->task);
	}
}

/* The kernel holds the pages until it is answered. */
static void reply_unconfirmed(fuse_req_t req, struct inode *inode)
{
	struct mount *m = mount_of(req);
	fuse_ino_t number = inode_number(&m->inodes, inode);

	(void)fuse_reply_err(req, EIO);
	ops_look_again(m, number);
}

/* db: to be confirmed, or NULL; it is given back. */
static void write_now(fuse_req_t req, struct handle *h, const char *data,
		      size_t size, off_t offset, struct db *db)
{
	ssize_t n;

	if (h->captured)
		n = capture_write(h->captured, h->fd, data, size,
				  (uint64_t)offset);
	else
		n = io_pwrite(h->fd, data, size, (uint64_t)offset);
	if (n < 0) {
		capture_forget_db(db);
		reply_result(req, (int)n);
		return;
	}
	ops_clear_setid(req, h->inode);
	if (ops_confirm(req, db))
		(void)fuse_reply_write(req, size);
	else
		reply_unconfirmed(req, h->inode);
}

static void write_parked(struct task *task)
{
	struct data_task *t = (struct data_task *)task;

	write_now(t->req, t->handle, t->data, t->size, t->offset, t->db);
	free(t);
}

/*
 * Someone who writes this much at once copies files, and will be made to wait
 * for the disk by the kernel.  SQLite's writes are pages.
 */
enum {
	LARGE_WRITE = 256 << 10
};

static enum capture_wait write_may_wait(const struct handle *h,
					const char *data, size_t size,
					off_t offset, struct db **ret_db)
{
	enum capture_wait wait = CAPTURE_AT_ONCE;

	if (h->captured)
		wait = capture_may_wait(h->captured, CAPTURE_WRITE, data, size,
					(uint64_t)offset, ret_db);
	if (wait == CAPTURE_AT_ONCE && (h->synchronous || size >= LARGE_WRITE))
		wait = CAPTURE_MAY_WAIT;
	return wait;
}

static void op_write(fuse_req_t req, fuse_ino_t number, const char *data,
		     size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct handle *h = handle_of(fi);
	struct db *db = NULL;
	enum capture_wait wait;
	struct data_task *t;

	if (ops_guards_file(req, h->inode, data, size, offset)) {
		(void)fuse_reply_err(req, EROFS);
		return;
	}
	wait = write_may_wait(h, data, size, offset, &db);
	if (wait == CAPTURE_AT_ONCE) {
		write_now(req, h, data, size, offset, NULL);
		return;
	}
	t = new_task(req, h, size, offset);
	if (!t) {
		capture_forget_db(db);
		return;
	}
	memcpy(t->data, data, size);
	t->db = db;
	t->task.run = write_parked;
	workers_park(ops_pool(mount_of(req), wait), &t->task);
}

void ops_data_fill(struct fuse_lowlevel_ops *ops)
{
	ops->read = op_read;
	ops->write = op_write;
}
