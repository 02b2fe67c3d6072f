#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"

#include "fuse/ops.h"

/*
 * An open directory.  The kernel lets one reader at a time at it, so that
 * nothing here needs a lock.
 */
struct directory {
	DIR *stream;
	struct inode *inode;
	struct dirent *pending; /* read, but there was no room for it */
	off_t next;		/* where the stream is */
	struct directory *newer, **link; /* in the mount's list; the loop's */
};

static void stream_cleanup(DIR **stream)
{
	if (*stream)
		(void)closedir(*stream);
}

static struct directory *directory_of(const struct fuse_file_info *fi)
{
	return (struct directory *)(uintptr_t)fi->fh;
}

static int open_directory(struct inode *inode, struct directory **ret)
{
	AUTO(mem) struct directory *d = calloc(1, sizeof(*d));
	AUTO(fd)
	int fd = openat(inode->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (!d)
		return -ENOMEM;
	if (fd < 0)
		return -errno;
	d->stream = fdopendir(fd);
	if (!d->stream)
		return -errno;
	(void)TAKE_FD(fd); /* the stream's from here on */
	d->inode = inode;
	*ret = TAKE(d);
	return 0;
}

static void enter(struct mount *m, struct directory *d)
{
	d->newer = m->directories;
	d->link = &m->directories;
	if (d->newer)
		d->newer->link = &d->newer;
	m->directories = d;
}

static void close_directory(struct directory *d)
{
	*d->link = d->newer;
	if (d->newer)
		d->newer->link = d->link;
	stream_cleanup(&d->stream);
	free(d);
}

void ops_dir_cleanup(struct mount *m)
{
	while (m->directories)
		close_directory(m->directories);
}

static void op_opendir(fuse_req_t req, fuse_ino_t number,
		       struct fuse_file_info *fi)
{
	struct directory *d = NULL;
	int rc = open_directory(inode_of_request(req, number), &d);

	if (rc < 0) {
		reply_result(req, rc);
		return;
	}
	enter(mount_of(req), d);
	fi->fh = (uintptr_t)d;
	fi->keep_cache = 1;
	fi->cache_readdir = 1;
	if (fuse_reply_open(req, fi) == -ENOENT)
		close_directory(d);
}

static void op_releasedir(fuse_req_t req, fuse_ino_t number,
			  struct fuse_file_info *fi)
{
	close_directory(directory_of(fi));
	(void)fuse_reply_err(req, 0);
}

struct dir_task {
	struct task task;
	fuse_req_t req;
	struct directory *directory;
	size_t size;
	off_t offset;
	int datasync;
};

static void park(fuse_req_t req, void (*run)(struct task *task),
		 const struct dir_task *args)
{
	struct dir_task *t = malloc(sizeof(*t));

	if (!t) {
		(void)fuse_reply_err(req, ENOMEM);
		return;
	}
	*t = *args;
	t->task.run = run;
	t->req = req;
	workers_park(&mount_of(req)->workers, &t->task);
}

static struct dirent *next_entry(struct directory *d)
{
	struct dirent *entry = d->pending;

	if (!entry)
		entry = readdir(d->stream);
	d->pending = NULL;
	return entry;
}

/* The bytes that the entry took; 0: there is no room for it. */
static size_t add_entry(fuse_req_t req, const struct directory *d, char *buffer,
			size_t room, const struct dirent *entry)
{
	const struct stat st = {
		.st_ino = entry->d_ino,
		.st_mode = DTTOIF(entry->d_type),
	};
	size_t size;

	if (ops_is_hidden_name(mount_of(req), d->inode, entry->d_name))
		return 0;
	size = fuse_add_direntry(req, buffer, room, entry->d_name, &st,
				 entry->d_off);
	return size <= room ? size : room + 1;
}

/* Fill buffer with entries from offset on; the bytes filled, or -errno. */
static ssize_t fill(fuse_req_t req, struct directory *d, char *buffer,
		    size_t size, off_t offset)
{
	size_t used = 0;

	if (offset != d->next) {
		seekdir(d->stream, offset);
		d->pending = NULL;
		d->next = offset;
	}
	for (;;) {
		struct dirent *entry;
		size_t taken;

		errno = 0;
		entry = next_entry(d);
		if (!entry)
			return errno && !used ? -errno : (ssize_t)used;
		taken = add_entry(req, d, buffer + used, size - used, entry);
		if (taken > size - used) {
			d->pending = entry;
			return (ssize_t)used;
		}
		used += taken;
		d->next = entry->d_off;
	}
}

static void readdir_parked(struct task *task)
{
	struct dir_task *t = (struct dir_task *)task;
	AUTO(mem) char *buffer = malloc(t->size);
	ssize_t used = -ENOMEM;

	if (buffer)
		used = fill(t->req, t->directory, buffer, t->size, t->offset);
	if (used < 0)
		reply_result(t->req, (int)used);
	else
		(void)fuse_reply_buf(t->req, buffer, (size_t)used);
	free(t);
}

/* A directory that is not in memory yet takes its time, so always parked. */
static void op_readdir(fuse_req_t req, fuse_ino_t number, size_t size,
		       off_t offset, struct fuse_file_info *fi)
{
	const struct dir_task args = {
		.directory = directory_of(fi),
		.size = size,
		.offset = offset,
	};

	park(req, readdir_parked, &args);
}

static void fsyncdir_parked(struct task *task)
{
	struct dir_task *t = (struct dir_task *)task;
	int fd = dirfd(t->directory->stream);
	int rc = t->datasync ? fdatasync(fd) : fsync(fd);

	reply_result(t->req, rc < 0 ? -errno : 0);
	free(t);
}

static void op_fsyncdir(fuse_req_t req, fuse_ino_t number, int datasync,
			struct fuse_file_info *fi)
{
	const struct dir_task args = {
		.directory = directory_of(fi),
		.datasync = datasync,
	};

	park(req, fsyncdir_parked, &args);
}

void ops_dir_fill(struct fuse_lowlevel_ops *ops)
{
	ops->opendir = op_opendir;
	ops->releasedir = op_releasedir;
	ops->readdir = op_readdir;
	ops->fsyncdir = op_fsyncdir;
}
