#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/error.h"

#include "base/io.h"

ssize_t io_pread(int fd, void *data, size_t size, uint64_t offset)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = pread(fd, (char *)data + done, size - done,
				  (off_t)(offset + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_errno("reading %zu bytes at %llu", size,
					   (unsigned long long)offset);
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

int io_pwrite(int fd, const void *data, size_t size, uint64_t offset)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = pwrite(fd, (const char *)data + done, size - done,
				   (off_t)(offset + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_errno("writing %zu bytes at %llu", size,
					   (unsigned long long)offset);
		done += (size_t)n;
	}
	return 0;
}

int io_read_file(int dirfd, const char *path, struct buf *ret)
{
	AUTO(fd) int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return error_errno("opening '%s'", path);
	for (;;) {
		char block[4096];
		ssize_t n = read(fd, block, sizeof(block));
		int rc;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_errno("reading '%s'", path);
		if (n == 0)
			return 0;
		rc = buf_append(ret, block, (size_t)n);
		if (rc < 0)
			return error_wrap(rc, "reading '%s'", path);
	}
}

/* The new content, complete and on disk, under its temporary name. */
static int write_temporary(int dirfd, const char *temporary, const void *data,
			   size_t size)
{
	AUTO(fd) int fd = openat(dirfd, temporary,
				 O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
				 0600);
	int rc;

	if (fd < 0)
		return error_errno("creating '%s'", temporary);
	rc = io_pwrite(fd, data, size, 0);
	if (rc < 0)
		return error_wrap(rc, "writing '%s'", temporary);
	if (fsync(fd) < 0)
		return error_errno("syncing '%s'", temporary);
	return 0;
}

int io_write_atomically(int dirfd, const char *path, const void *data,
			size_t size)
{
	char temporary[PATH_MAX];
	int rc;

	if (snprintf(temporary, sizeof(temporary), "%s.tmp", path) >=
	    (int)sizeof(temporary))
		return error_set(-ENAMETOOLONG, "'%s' is too long", path);
	rc = write_temporary(dirfd, temporary, data, size);
	if (rc == 0 && renameat(dirfd, temporary, dirfd, path) < 0)
		rc = error_errno("renaming '%s' to '%s'", temporary, path);
	if (rc < 0) {
		(void)unlinkat(dirfd, temporary, 0);
		return rc;
	}
	return io_sync_parent(dirfd, path);
}

int io_rename_new(int from_dir, const char *from, int to_dir, const char *to)
{
	if (renameat2(from_dir, from, to_dir, to, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS && errno != ENOTSUP)
		return -errno;
	if (linkat(from_dir, from, to_dir, to, 0) < 0 ||
	    unlinkat(from_dir, from, 0) < 0)
		return -errno;
	return 0;
}

/* Some file systems have no O_TMPFILE: ours, and other FUSE ones, for instance. */
int io_open_unnamed(int dirfd, int *ret_fd)
{
	char name[32];
	uint64_t random;
	int fd = openat(dirfd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0) {
		io_random(&random, sizeof(random));
		(void)snprintf(name, sizeof(name), "tmp-%016" PRIx64, random);
		fd = openat(dirfd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC,
			    0600);
		if (fd >= 0)
			(void)unlinkat(dirfd, name, 0);
	}
	if (fd < 0)
		return error_errno("making a temporary file");
	*ret_fd = fd;
	return 0;
}

int io_sync_parent(int dirfd, const char *path)
{
	const char *slash = strrchr(path, '/');
	char parent[PATH_MAX] = ".";

	if (slash == path)
		strcpy(parent, "/");
	else if (slash && (size_t)(slash - path) < sizeof(parent)) {
		memcpy(parent, path, (size_t)(slash - path));
		parent[slash - path] = '\0';
	}
	AUTO(fd) int fd = openat(dirfd, parent,
				 O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return error_errno("opening directory '%s'", parent);
	if (fsync(fd) < 0)
		return error_errno("syncing directory '%s'", parent);
	return 0;
}

int io_make_dirs(int dirfd, const char *path, unsigned mode)
{
	char part[PATH_MAX];

	if (strlen(path) >= sizeof(part))
		return error_set(-ENAMETOOLONG, "'%s' is too long", path);
	for (const char *p = path; *p;) {
		const char *slash = strchr(p[0] == '/' ? p + 1 : p, '/');
		size_t length = slash ? (size_t)(slash - path) : strlen(path);

		memcpy(part, path, length);
		part[length] = '\0';
		if (mkdirat(dirfd, part, mode) < 0 && errno != EEXIST)
			return error_errno("creating directory '%s'", part);
		p = slash ? slash + 1 : path + length;
	}
	return 0;
}

int io_make_durable_dirs(int dirfd, const char *path, unsigned mode)
{
	char part[PATH_MAX];
	int rc = io_make_dirs(dirfd, path, mode);

	if (rc < 0)
		return rc;
	(void)snprintf(part, sizeof(part), "%s", path);
	for (;;) {
		char *slash = strrchr(part, '/');

		rc = io_sync_parent(dirfd, part);
		if (rc < 0 || !slash || slash == part)
			return rc;
		*slash = '\0';
	}
}

int64_t io_size(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return error_errno("looking at an open file");
	return st.st_size;
}

int io_lock(int fd, short type, uint64_t start, uint64_t size)
{
	struct flock l = {
		.l_type = type,
		.l_whence = SEEK_SET,
		.l_start = (off_t)start,
		.l_len = (off_t)size,
	};

	if (fcntl(fd, F_OFD_SETLK, &l) == 0)
		return 0;
	if (errno == EAGAIN || errno == EACCES || errno == EINTR)
		return -EAGAIN;
	return error_errno("locking a file");
}

void io_random(void *data, size_t size)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = getrandom((char *)data + done, size - done, 0);

		if (n > 0)
			done += (size_t)n;
	}
}
