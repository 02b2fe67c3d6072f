#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/stream.h"
#include "bucket/bucket.h"
#include "bucket/file_list.h"
#include "bucket/file_path.h"
#include "bucket/probe.h"
#include "bucket/url.h"

#include "bucket/file.h"

/* No key has a '~': names of our own neither collide nor are listed. */
#define LOCK_NAME	"~lock"
#define TEMPORARY_NAME	"~%016" PRIx64

#define NS_PER_MS 1000000

struct file_bucket {
	struct bucket bucket;
	char *url;
	char *path;
	bool create;		 /* what is missing is made by the first put */
	pthread_mutex_t opening; /* guards root while it is -1 */
	_Atomic int root;	 /* -1: there is no directory yet */
	/*
	 * The file system's clock (another machine's, on NFS) minus ours, as
	 * the last put found it.
	 */
	_Atomic int64_t clock_offset_ms;
	pthread_mutex_t probing; /* guards probed and caps */
	bool probed;
	unsigned caps;
};

static int64_t time_ms(const struct timespec *time)
{
	return (int64_t)time->tv_sec * 1000 + time->tv_nsec / NS_PER_MS;
}

static void format_etag(const struct stat *st, char ret[BUCKET_ETAG_SIZE])
{
	(void)snprintf(ret, BUCKET_ETAG_SIZE, "\"%jx-%jx.%lx-%jx\"",
		       (uintmax_t)st->st_ino, (uintmax_t)st->st_mtim.tv_sec,
		       (unsigned long)st->st_mtim.tv_nsec,
		       (uintmax_t)st->st_size);
}

static void fill_info(struct file_bucket *f, const struct stat *st,
		      struct bucket_info *ret)
{
	ret->size = (uint64_t)st->st_size;
	ret->modified_ms = time_ms(&st->st_mtim);
	ret->date_ms = clock_wall_ms() + atomic_load(&f->clock_offset_ms);
	format_etag(st, ret->etag);
}

/*
 * The directory itself
 * --------------------
 *
 * Once it is open it stays the same one, as long as the bucket is: another that
 * turns up at its path may be another bucket, or an empty one, and who uses us
 * has looked at this one.
 */

/* mkdir -p for an absolute path, in which each step survives a crash. */
static int make_root(const char *path)
{
	char part[PATH_MAX];

	if (strlen(path) >= sizeof(part))
		return error_set(-ENAMETOOLONG, "the path is too long");
	for (size_t n = 1; path[n]; n++) {
		n += strcspn(path + n, "/");
		memcpy(part, path, n);
		part[n] = '\0';
		if (mkdir(part, 0700) == 0) {
			int rc = io_sync_parent(AT_FDCWD, part);

			if (rc < 0)
				return rc;
		} else if (errno != EEXIST) {
			return error_errno("creating '%s'", part);
		}
		if (!path[n])
			break;
	}
	return 0;
}

/* As root_of(); the lock is held. */
static int open_root(struct file_bucket *f, bool make)
{
	const int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
	int fd = open(f->path, flags);

	if (fd < 0 && errno == ENOENT && f->create) {
		int rc = make ? make_root(f->path) : -ENOENT;

		if (rc == -ENOENT)
			return rc;
		if (rc < 0)
			return error_wrap(rc, "creating the bucket %s", f->url);
		fd = open(f->path, flags);
	}
	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
		return error_set(-ENODEV, "there is no bucket or database at %s: "
				 "'%s' is no directory", f->url, f->path);
	if (fd < 0)
		return error_errno("opening the bucket %s", f->url);
	return fd;
}

/*
 * The directory's descriptor, which stays ours.  -ENOENT, without a sentence:
 * there is none yet, and make does not ask for it.
 */
static int root_of(struct file_bucket *f, bool make)
{
	AUTO(unlock) pthread_mutex_t *held = NULL;
	int root = atomic_load(&f->root);

	if (root >= 0)
		return root;
	held = lock(&f->opening);
	root = atomic_load(&f->root);
	if (root >= 0)
		return root;
	root = open_root(f, make);
	if (root >= 0)
		atomic_store(&f->root, root);
	return root;
}

/* It may be removed, moved away or covered while we have it open. */
static int check_root(struct file_bucket *f)
{
	int root = atomic_load(&f->root);
	struct stat ours, there;

	if (root < 0)
		return 0;
	if (fstat(root, &ours) < 0 || ours.st_nlink == 0)
		return error_set(-ENODEV, "the directory of %s was removed; "
				 "if it is put back, start again: that looks "
				 "whether it is the same bucket", f->url);
	if (stat(f->path, &there) == 0 && there.st_ino == ours.st_ino &&
	    there.st_dev == ours.st_dev)
		return 0;
	return error_set(-ENODEV, "the directory of %s is not at its place any "
			 "more, or hidden by another: put it back, or start "
			 "again, which looks whether what is there is the same "
			 "bucket", f->url);
}

static int no_such_object(struct file_bucket *f, const char *key)
{
	int rc = check_root(f);

	if (rc < 0)
		return rc;
	return error_set(-ENOENT, "there is no '%s' in %s", key, f->url);
}

/* Is this errno how the file system says that there is no such object? */
static bool means_missing(int error)
{
	return error == ENOENT || error == ENOTDIR || error == ELOOP;
}

/* The directory that holds a key's file, and the file's name in it. */
static int open_place(struct file_bucket *f, const char *key, bool create,
		      char path[FILE_PATH_MAX], const char **ret_name)
{
	int rc = file_path_of_key(key, path);
	int root = rc < 0 ? rc : root_of(f, create);

	if (root < 0)
		return root;
	return file_path_open_parent(root, path, create, ret_name);
}

/* An object's file, open for reading, and what it is like. */
static int open_object(struct file_bucket *f, const char *key,
		       struct stat *ret_stat)
{
	char path[FILE_PATH_MAX];
	const char *name;
	AUTO(fd) int dir = open_place(f, key, false, path, &name);
	if (dir < 0)
		return dir == -ENOENT ? no_such_object(f, key) : dir;
	/* O_NONBLOCK: somebody may have put a FIFO there. */
	AUTO(fd) int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW |
						    O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 && means_missing(errno))
		return no_such_object(f, key);
	if (fd < 0)
		return error_errno("opening '%s' in %s", key, f->url);
	if (fstat(fd, ret_stat) < 0)
		return error_errno("looking at '%s' in %s", key, f->url);
	if (!S_ISREG(ret_stat->st_mode))
		return no_such_object(f, key);
	return TAKE_FD(fd);
}

static int send_range(int fd, uint64_t offset, uint64_t end, struct sink *sink)
{
	char block[1 << 16];

	while (offset < end) {
		size_t want = end - offset < sizeof(block) ?
				      (size_t)(end - offset) :
				      sizeof(block);
		ssize_t n = io_pread(fd, block, want, offset);
		int rc;

		if (n < 0)
			return (int)n;
		if ((size_t)n < want)
			return error_set(-EIO, "the file was cut short");
		rc = sink_write(sink, block, want);
		if (rc < 0)
			return rc;
		offset += want;
	}
	return 0;
}

static int file_get(struct bucket *b, const char *key, uint64_t offset,
		    uint64_t length, const char *if_match, struct sink *sink,
		    struct bucket_info *ret)
{
	struct file_bucket *f = (struct file_bucket *)b;
	struct stat st;
	AUTO(fd) int fd = open_object(f, key, &st);
	uint64_t end;
	int rc;

	if (fd < 0)
		return fd;
	fill_info(f, &st, ret);
	if (if_match && strcmp(if_match, ret->etag) != 0)
		return error_set(-ERR_PRECOND, "'%s' in %s is another object "
				 "than before", key, f->url);
	if (offset == 0 && length == BUCKET_TO_END)
		end = ret->size;
	else if (offset >= ret->size)
		return error_set(-ERANGE, "'%s' in %s has %" PRIu64 " bytes, "
				 "none at %" PRIu64, key, f->url, ret->size,
				 offset);
	else
		end = length < ret->size - offset ? offset + length : ret->size;
	rc = send_range(fd, offset, end, sink);
	return rc < 0 ? error_wrap(rc, "reading '%s' in %s", key, f->url) : 0;
}

static int file_head(struct bucket *b, const char *key,
		     struct bucket_info *ret)
{
	struct file_bucket *f = (struct file_bucket *)b;
	struct stat st;
	AUTO(fd) int fd = open_object(f, key, &st);

	if (fd < 0)
		return fd;
	fill_info(f, &st, ret);
	return 0;
}

/*
 * put
 * ---
 *
 * First the whole object under a temporary name, on disk; then one atomic step
 * that gives it its own name.
 */
struct temporary {
	int dir;
	char name[24]; /* "" once it has become something else */
};

static void temporary_cleanup(struct temporary *t)
{
	int saved = errno;

	if (t->name[0])
		(void)unlinkat(t->dir, t->name, 0);
	errno = saved;
}

static int copy_file(int from, int to, uint64_t size)
{
	char block[1 << 16];

	for (uint64_t done = 0; done < size;) {
		size_t want = size - done < sizeof(block) ?
				      (size_t)(size - done) :
				      sizeof(block);
		ssize_t n = io_pread(from, block, want, done);
		int rc;

		if (n < 0)
			return (int)n;
		if ((size_t)n < want)
			return error_set(-EINVAL, "the file to be written is "
					 "shorter than %" PRIu64 " bytes",
					 size);
		rc = io_pwrite(to, block, want, done);
		if (rc < 0)
			return rc;
		done += want;
	}
	return 0;
}

static int write_body(int fd, const struct bucket_put *put)
{
	if (put->data)
		return io_pwrite(fd, put->data, put->size, 0);
	return copy_file(put->fd, fd, put->size);
}

/* The time that metadata asks for, or the one the file system gave. */
static struct timespec object_time(const struct bucket_put *put,
				   const struct stat *st)
{
	struct timespec time = st->st_mtim;
	uint32_t random;
	int64_t ms;

	for (size_t i = 0; i < put->n_meta; i++)
		if (strcmp(put->meta[i].name, "litestream-timestamp") == 0 &&
		    clock_parse(put->meta[i].value, &ms) == 0 && ms >= 0) {
			time.tv_sec = (time_t)(ms / 1000);
			time.tv_nsec = (long)(ms % 1000) * NS_PER_MS;
		}
	/* A new ETag, even for the same bytes in the inode freed just now. */
	io_random(&random, sizeof(random));
	time.tv_nsec -= time.tv_nsec % NS_PER_MS;
	time.tv_nsec += (long)(random % NS_PER_MS);
	return time;
}

static int set_time(struct file_bucket *f, int fd, const struct bucket_put *put)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT } };
	struct stat st;

	if (fstat(fd, &st) < 0)
		return error_errno("looking at the temporary file");
	atomic_store(&f->clock_offset_ms,
		     time_ms(&st.st_mtim) - clock_wall_ms());
	times[1] = object_time(put, &st);
	if (futimens(fd, times) < 0)
		return error_errno("setting the temporary file's time");
	return 0;
}

static int write_temporary(struct file_bucket *f, const struct bucket_put *put,
			   struct temporary *t, struct stat *ret_stat)
{
	char name[sizeof(t->name)];
	uint64_t nonce;
	int rc;

	io_random(&nonce, sizeof(nonce));
	(void)snprintf(name, sizeof(name), TEMPORARY_NAME, nonce);
	AUTO(fd) int fd = openat(t->dir, name, O_WRONLY | O_CREAT | O_EXCL |
						       O_CLOEXEC, 0600);
	if (fd < 0)
		return error_errno("creating a temporary file");
	memcpy(t->name, name, sizeof(name));
	rc = write_body(fd, put);
	if (rc == 0)
		rc = set_time(f, fd, put);
	if (rc < 0)
		return rc;
	if (fsync(fd) < 0 || fstat(fd, ret_stat) < 0)
		return error_errno("syncing the temporary file");
	FAILPOINT("bucket-file-temporary");
	return 0;
}

/* Holds the bucket's lock until the descriptor is closed. */
static int take_lock(struct file_bucket *f, int operation)
{
	/* Opened anew each time: flock() does not part users of one opening. */
	AUTO(fd) int fd = openat(atomic_load(&f->root), LOCK_NAME, O_RDWR | O_CREAT |
						     O_NOFOLLOW | O_CLOEXEC,
				 0600);

	if (fd < 0)
		return error_errno("opening '" LOCK_NAME "' in %s", f->url);
	while (flock(fd, operation) < 0)
		if (errno != EINTR)
			return error_errno("locking '" LOCK_NAME "' in %s",
					   f->url);
	return TAKE_FD(fd);
}

static bool is_directory(int dir, const char *name)
{
	struct stat st;

	return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	       S_ISDIR(st.st_mode);
}

static int in_the_way(const char *key)
{
	return error_set(-EOPNOTSUPP, "other keys go on below '%s': in a file "
			 "bucket it cannot be an object, too", key);
}

static int publish_if_absent(const char *key, struct temporary *t,
			     const char *name)
{
	int rc = io_rename_new(t->dir, t->name, t->dir, name);

	if (rc == -EEXIST && is_directory(t->dir, name))
		return in_the_way(key);
	if (rc == -EEXIST)
		return error_set(-ERR_PRECOND, "there is an object already");
	if (rc < 0) {
		errno = -rc;
		return error_errno("giving the temporary file its name");
	}
	t->name[0] = '\0';
	return 0;
}

static int replace(const char *key, struct temporary *t, const char *name)
{
	if (renameat(t->dir, t->name, t->dir, name) < 0) {
		if (errno == EISDIR)
			return in_the_way(key);
		return error_errno("giving the temporary file its name");
	}
	t->name[0] = '\0';
	return 0;
}

static int check_etag(int dir, const char *name, const char *if_match)
{
	char etag[BUCKET_ETAG_SIZE];
	struct stat st;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		if (errno != ENOENT)
			return error_errno("looking at the object");
		return error_set(-ERR_PRECOND, "the object is gone");
	}
	format_etag(&st, etag);
	if (!S_ISREG(st.st_mode) || strcmp(etag, if_match) != 0)
		return error_set(-ERR_PRECOND,
				 "the object is another one than before");
	return 0;
}

/*
 * The atomic step.  The lock keeps the object as it was compared until it is
 * replaced: whoever would replace or remove it takes the lock as well, shared
 * if it compares nothing.  A rename that never replaces needs no lock.
 */
static int publish(struct file_bucket *f, const struct bucket_put *put,
		   struct temporary *t, const char *name)
{
	int rc = 0;

	if (put->if_absent)
		return publish_if_absent(put->key, t, name);
	AUTO(fd) int held = take_lock(f, put->if_match ? LOCK_EX : LOCK_SH);
	if (held < 0)
		return held;
	if (put->if_match)
		rc = check_etag(t->dir, name, put->if_match);
	return rc < 0 ? rc : replace(put->key, t, name);
}

static int put_object(struct file_bucket *f, const struct bucket_put *put,
		      struct bucket_info *ret)
{
	char path[FILE_PATH_MAX];
	const char *name;
	struct stat st;
	AUTO(fd) int dir = open_place(f, put->key, true, path, &name);
	AUTO(temporary) struct temporary t = { .dir = dir };
	int rc;

	if (dir < 0)
		return dir;
	rc = write_temporary(f, put, &t, &st);
	if (rc == 0)
		rc = publish(f, put, &t, name);
	if (rc < 0)
		return rc;
	FAILPOINT("bucket-file-published");
	if (fsync(dir) < 0)
		return error_errno("syncing its directory");
	fill_info(f, &st, ret);
	return 0;
}

static int file_put(struct bucket *b, const struct bucket_put *put,
		    struct bucket_info *ret)
{
	struct file_bucket *f = (struct file_bucket *)b;
	int rc = check_root(f);

	if (rc == 0)
		rc = put_object(f, put, ret);
	if (rc < 0)
		return error_wrap(rc, "writing '%s' in %s", put->key, f->url);
	return 0;
}

static int file_list_objects(struct bucket *b, const char *prefix,
			     const char *after, size_t limit,
			     bucket_list_fn fn, void *arg)
{
	struct file_bucket *f = (struct file_bucket *)b;
	int rc = check_root(f);
	int root = rc < 0 ? rc : root_of(f, false);

	if (root < 0)
		return root == -ENOENT ? 0 : root;
	return file_list(root, prefix, after, limit, fn, arg);
}

static int remove_object(struct file_bucket *f, const char *key, bool sync)
{
	char path[FILE_PATH_MAX];
	const char *name;
	AUTO(fd) int dir = open_place(f, key, false, path, &name);

	if (dir == -ENOENT)
		return 0;
	if (dir < 0)
		return dir;
	/* A directory is other keys' and no object. */
	if (unlinkat(dir, name, 0) < 0 && !means_missing(errno) &&
	    !is_directory(dir, name))
		return error_errno("unlinking it");
	if (sync && fsync(dir) < 0)
		return error_errno("syncing its directory");
	return 0;
}

static bool same_directory(const char *a, const char *b)
{
	const char *slash = strrchr(a, '/');
	size_t length = slash ? (size_t)(slash - a) + 1 : 0;

	return strncmp(a, b, length) == 0 && !strchr(b + length, '/');
}

static int remove_objects(struct file_bucket *f, const char *const keys[],
			  size_t n)
{
	AUTO(fd) int held = take_lock(f, LOCK_SH);

	if (held < 0)
		return held;
	for (size_t i = 0; i < n; i++) {
		/* One sync for all that lie side by side, at the last. */
		bool last = i + 1 == n || !same_directory(keys[i], keys[i + 1]);
		int rc = remove_object(f, keys[i], last);

		if (rc < 0)
			return error_wrap(rc, "removing '%s' in %s", keys[i],
					  f->url);
	}
	return 0;
}

static int file_remove(struct bucket *b, const char *const keys[], size_t n)
{
	struct file_bucket *f = (struct file_bucket *)b;
	int rc = check_root(f);
	int root = rc < 0 ? rc : root_of(f, false);

	if (root < 0)
		return root == -ENOENT ? 0 : root;
	return remove_objects(f, keys, n);
}

/* Could the directory be made?  The nearest one above it tells. */
static int check_above(const struct file_bucket *f)
{
	AUTO(mem) char *path = strdup(f->path);
	char *slash;
	int rc;

	if (!path)
		return error_set(-ENOMEM, "out of memory");
	while ((rc = faccessat(AT_FDCWD, path, W_OK | X_OK, AT_EACCESS)) < 0 &&
	       errno == ENOENT && (slash = strrchr(path, '/')))
		slash[slash == path] = '\0';
	if (rc < 0)
		return error_errno("the bucket %s does not exist, and cannot "
				   "be made in '%s'", f->url, path);
	return 0;
}

/* Before there is a directory nothing is made for a trial: ours keep both. */
static int file_probe(struct bucket *b, unsigned *ret_caps)
{
	struct file_bucket *f = (struct file_bucket *)b;
	AUTO(unlock) pthread_mutex_t *held = lock(&f->probing);
	int root = root_of(f, false);

	if (root == -ENOENT) {
		*ret_caps = BUCKET_IF_ABSENT | BUCKET_IF_MATCH;
		return check_above(f);
	}
	if (root < 0)
		return root;
	if (!f->probed) {
		int rc = bucket_probe_conditions(b, &f->caps);

		if (rc < 0)
			return rc;
		f->probed = true;
	}
	*ret_caps = f->caps;
	return 0;
}

static void file_free(struct bucket *b)
{
	struct file_bucket *f = (struct file_bucket *)b;

	int root = atomic_load(&f->root);

	fd_cleanup(&root);
	(void)pthread_mutex_destroy(&f->probing);
	(void)pthread_mutex_destroy(&f->opening);
	free(f->url);
	free(f->path);
	free(f);
}

static const struct bucket_ops file_ops = {
	.name = "file",
	.get = file_get,
	.head = file_head,
	.put = file_put,
	.list = file_list_objects,
	.remove = file_remove,
	.probe = file_probe,
	.free = file_free,
};

int bucket_file_new(const struct bucket_url *url, bool create,
		    struct bucket **ret)
{
	struct file_bucket *f = malloc(sizeof(*f));
	int rc;

	if (!f)
		return error_set(-ENOMEM, "out of memory");
	*f = (struct file_bucket){
		.bucket = { .ops = &file_ops },
		.url = strdup(url->text),
		.path = strdup(url->path),
		.create = create,
		.root = -1,
		.opening = PTHREAD_MUTEX_INITIALIZER,
		.probing = PTHREAD_MUTEX_INITIALIZER,
	};
	f->bucket.url = f->url;
	if (!f->url || !f->path)
		rc = error_set(-ENOMEM, "out of memory");
	else
		rc = root_of(f, false);
	if (rc < 0 && rc != -ENOENT) {
		file_free(&f->bucket);
		return rc;
	}
	*ret = &f->bucket;
	return 0;
}
