#ifndef LITEBUCKET_BASE_IO_H
#define LITEBUCKET_BASE_IO_H

/*
 * Files: whole reads and writes, and writes that survive a crash.
 *
 * All take a directory descriptor and a relative path where they open
 * something, because a mount works beneath itself by descriptors only.
 */
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct buf;

/* Read until size bytes or the end of the file; returns the count. */
ssize_t io_pread(int fd, void *data, size_t size, uint64_t offset);

/* Write all of data. */
int io_pwrite(int fd, const void *data, size_t size, uint64_t offset);

/* Append the whole file to ret.  -ENOENT, or -EFBIG at the buffer's limit. */
int io_read_file(int dirfd, const char *path, struct buf *ret);

/*
 * Replace the file's content: temporary file beside it, fsync, rename, fsync
 * of the directory.  After a crash there is the old content or the new.
 */
int io_write_atomically(int dirfd, const char *path, const void *data,
			size_t size);

/*
 * Rename, unless the new name is taken: -EEXIST.  File systems that cannot rename
 * so (NFS) can link so.  A negative errno, without a sentence.
 */
int io_rename_new(int from_dir, const char *from, int to_dir, const char *to);

/*
 * A new file in dirfd that has no name, for reading and writing: it goes with its
 * descriptor.
 */
int io_open_unnamed(int dirfd, int *ret_fd);

/* fsync the directory that holds path, so that a rename or unlink stays. */
int io_sync_parent(int dirfd, const char *path);

/* mkdir -p, each directory with this mode. */
int io_make_dirs(int dirfd, const char *path, unsigned mode);

/* The same, and all of them are still there after a power loss. */
int io_make_durable_dirs(int dirfd, const char *path, unsigned mode);

/* The size of an open file, or a negative errno. */
int64_t io_size(int fd);

/*
 * An open file description lock (F_OFD_SETLK) of a type (F_RDLCK, F_WRLCK,
 * F_UNLCK) on size bytes from start on, size 0 meaning all that follow.
 * -EAGAIN, without a sentence: somebody else's is in the way.
 */
int io_lock(int fd, short type, uint64_t start, uint64_t size);

/* len bytes from the kernel's generator; cannot fail. */
void io_random(void *data, size_t size);

#endif
