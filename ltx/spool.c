#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/fail.h"
#include "base/io.h"
#include "ltx/name.h"

#include "ltx/spool.h"

/* NAME.ltx is a batch; with a suffix, one that is being written, or is kept. */
static const char temporary_suffix[] = ".tmp";
static const char kept_suffix[] = ".kept";

enum { SUFFIXED_SIZE = LTX_NAME_SIZE + sizeof(kept_suffix) - 1 };

struct spool {
	int fd;
	char *path; /* for messages */
	struct spool_budget *budget; /* constant once set; NULL: none */

	pthread_mutex_t lock; /* for all below; held for no I/O but an unlink */
	uint64_t claimed;     /* the last that may have been sent */
	uint64_t barred;      /* from here on nothing can be claimed; 0: none */
	uint64_t counted;     /* in the budget, */
	size_t n;	      /* of so many batches, */
	uint64_t favoured;    /* of which this counts half of it at most */
};

static void batch_name(uint64_t txid, char ret[LTX_NAME_SIZE])
{
	ltx_name_format(txid, txid, ret);
}

static void suffixed_name(uint64_t txid, const char *suffix,
			  char ret[SUFFIXED_SIZE])
{
	char name[LTX_NAME_SIZE];

	batch_name(txid, name);
	(void)snprintf(ret, SUFFIXED_SIZE, "%s%s", name, suffix);
}

static void temporary_name(uint64_t txid, char ret[SUFFIXED_SIZE])
{
	suffixed_name(txid, temporary_suffix, ret);
}

/* Is this the name of one batch?  A file of several is no batch. */
static bool parse_batch_name(const char *name, uint64_t *ret_txid)
{
	uint64_t min, max;

	if (ltx_name_parse(name, &min, &max) < 0 || min != max)
		return false;
	*ret_txid = min;
	return true;
}

static bool parse_suffixed_name(const char *name, const char *suffix,
				uint64_t *ret_txid)
{
	char batch[LTX_NAME_SIZE];

	if (strlen(name) != LTX_NAME_SIZE - 1 + strlen(suffix) ||
	    strcmp(name + LTX_NAME_SIZE - 1, suffix) != 0)
		return false;
	memcpy(batch, name, LTX_NAME_SIZE - 1);
	batch[LTX_NAME_SIZE - 1] = '\0';
	return parse_batch_name(batch, ret_txid);
}

static bool is_temporary_name(const char *name)
{
	uint64_t txid;

	return parse_suffixed_name(name, temporary_suffix, &txid);
}

static void directory_cleanup(DIR **dir)
{
	if (*dir)
		(void)closedir(*dir);
}

/* A directory stream of its own, at the first entry. */
static int open_listing(struct spool *s, DIR **ret)
{
	AUTO(fd) int fd = openat(s->fd, ".",
				 O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);

	if (!dir)
		return error_errno("listing spool '%s'", s->path);
	(void)TAKE_FD(fd);
	*ret = dir;
	return 0;
}

/* The next name: 1, or 0 at the end. */
static int next_name(struct spool *s, DIR *dir, const char **ret)
{
	struct dirent *entry;

	errno = 0;
	entry = readdir(dir);
	if (!entry && errno)
		return error_errno("listing spool '%s'", s->path);
	if (!entry)
		return 0;
	*ret = entry->d_name;
	return 1;
}

/* What was being written when we were killed is nobody's any more. */
static int remove_leftovers(struct spool *s)
{
	AUTO(directory) DIR *dir = NULL;
	const char *name = NULL;
	int rc = open_listing(s, &dir);

	if (rc < 0)
		return rc;
	while ((rc = next_name(s, dir, &name)) > 0)
		if (is_temporary_name(name) && unlinkat(s->fd, name, 0) < 0)
			return error_errno("removing '%s/%s'", s->path, name);
	return rc;
}

static int sync_names(struct spool *s)
{
	return fsync(s->fd) < 0 ? error_errno("syncing spool '%s'", s->path) :
				  0;
}

static int new_spool(int dirfd, const char *path, struct spool **ret)
{
	AUTO(spool) struct spool *s = calloc(1, sizeof(*s));

	if (!s)
		return error_set(-ENOMEM, "out of memory");
	s->fd = -1;
	(void)pthread_mutex_init(&s->lock, NULL);
	s->path = strdup(path);
	if (!s->path)
		return error_set(-ENOMEM, "out of memory");
	s->fd = openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->fd < 0)
		return error_errno("opening spool '%s'", path);
	*ret = TAKE(s);
	return 0;
}

/* What an earlier process left, and may have sent the first of. */
static int take_stock(struct spool *s)
{
	uint64_t last;

	return spool_range(s, &s->claimed, &last);
}

int spool_open(int dirfd, const char *path, struct spool **ret)
{
	AUTO(spool) struct spool *s = NULL;
	int rc = io_make_durable_dirs(dirfd, path, 0700);

	if (rc < 0)
		return error_wrap(rc, "making spool '%s'", path);
	rc = new_spool(dirfd, path, &s);
	if (rc < 0)
		return rc;
	rc = remove_leftovers(s);
	if (rc == 0)
		rc = take_stock(s);
	if (rc < 0)
		return rc;
	*ret = TAKE(s);
	return 0;
}

int spool_begin(struct spool *s, uint64_t txid, int *ret_fd)
{
	char name[SUFFIXED_SIZE];
	int fd;

	temporary_name(txid, name);
	/* Not O_TRUNC: an old descriptor must not reach the new file. */
	if (unlinkat(s->fd, name, 0) < 0 && errno != ENOENT)
		return error_errno("removing '%s/%s'", s->path, name);
	fd = openat(s->fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return error_errno("creating '%s/%s'", s->path, name);
	*ret_fd = fd;
	return 0;
}

static bool same_bytes(int a, int b)
{
	uint8_t left[4096], right[sizeof(left)];
	uint64_t offset = 0;
	ssize_t n;

	do {
		n = io_pread(a, left, sizeof(left), offset);
		if (n < 0 || io_pread(b, right, sizeof(right), offset) != n ||
		    memcmp(left, right, (size_t)n) != 0)
			return false;
		offset += (uint64_t)n;
	} while (n > 0);
	return true;
}

/*
 * Killed between link and unlink, we find the file under both names.  Some
 * file systems number a file anew with each name, so the bytes tell.
 */
static bool is_named_already(int from_dir, const char *from, int to_dir,
			     const char *to)
{
	AUTO(fd) int a = openat(from_dir, from, O_RDONLY | O_CLOEXEC);
	AUTO(fd) int b = openat(to_dir, to, O_RDONLY | O_CLOEXEC);

	return a >= 0 && b >= 0 && same_bytes(a, b) &&
	       unlinkat(from_dir, from, 0) == 0;
}

static uint64_t at_most_half(const struct spool *s, uint64_t size)
{
	uint64_t half = s->budget->max / 2;

	return size < half ? size : half;
}

uint64_t spool_cost(struct spool *s, uint64_t size)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&s->lock);

	return s->n ? size : at_most_half(s, size);
}

static uint64_t size_at(int dirfd, const char *name)
{
	struct stat st;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	return (uint64_t)st.st_size;
}

static uint64_t size_of(struct spool *s, uint64_t txid)
{
	char name[LTX_NAME_SIZE];

	batch_name(txid, name);
	return size_at(s->fd, name);
}

/* A batch of this size came, or went. */
static void count(struct spool *s, uint64_t txid, uint64_t size, int sign)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&s->lock);

	if (!s->budget)
		return;
	if (sign > 0 && s->n == 0)
		s->favoured = txid;
	if (txid == s->favoured)
		size = at_most_half(s, size);
	if (sign < 0)
		size = -size;
	s->n += (size_t)sign;
	s->counted += size;
	atomic_fetch_add(&s->budget->used, size);
}

/*
 * Give the synced file from in from_dir its name as a batch, durably.  It is
 * counted first: once it can be seen, the reader may have removed it already.
 */
static int name_batch(struct spool *s, int from_dir, const char *from,
		      uint64_t txid)
{
	uint64_t size = size_at(from_dir, from);
	char name[LTX_NAME_SIZE];
	int rc;

	batch_name(txid, name);

	FAILPOINT("spool-written");
	count(s, txid, size, 1);
	rc = io_rename_new(from_dir, from, s->fd, name);
	if (rc == -EEXIST && is_named_already(from_dir, from, s->fd, name))
		rc = 0;
	if (rc < 0)
		count(s, txid, size, -1);
	if (rc == -EEXIST)
		return error_set(rc, "batch '%s/%s' is there already", s->path,
				 name);
	if (rc < 0) {
		errno = -rc;
		return error_errno("naming batch '%s/%s'", s->path, name);
	}
	FAILPOINT("spool-renamed");
	return sync_names(s);
}

static int publish(struct spool *s, const char *temporary, uint64_t txid,
		   int fd)
{
	if (fsync(fd) < 0)
		return error_errno("syncing '%s/%s'", s->path, temporary);
	return name_batch(s, s->fd, temporary, txid);
}

int spool_adopt(struct spool *s, int dirfd, const char *name, uint64_t txid)
{
	return name_batch(s, dirfd, name, txid);
}

/* Put the file in the batch's place, and count it in the other's stead. */
static int replace(struct spool *s, int dirfd, const char *from, uint64_t txid)
{
	uint64_t before = size_of(s, txid);
	char name[LTX_NAME_SIZE];

	batch_name(txid, name);
	if (renameat(dirfd, from, s->fd, name) < 0)
		return error_errno("naming batch '%s/%s'", s->path, name);
	/* Two names of one file are left as they are by a rename. */
	(void)unlinkat(dirfd, from, 0);
	count(s, txid, size_of(s, txid), 1);
	if (before)
		count(s, txid, before, -1);
	return 0;
}

int spool_supersede(struct spool *s, int dirfd, const char *name, uint64_t txid)
{
	int rc = spool_cut(s, txid);

	if (rc < 0)
		return rc;
	FAILPOINT("room-cut");
	rc = replace(s, dirfd, name, txid);
	if (rc < 0)
		return rc;
	FAILPOINT("room-superseded");
	return sync_names(s);
}

int spool_publish(struct spool *s, uint64_t txid, int fd)
{
	AUTO(fd) int owned = fd;
	char temporary[SUFFIXED_SIZE];
	int rc;

	temporary_name(txid, temporary);
	rc = publish(s, temporary, txid, owned);
	if (rc < 0)
		(void)unlinkat(s->fd, temporary, 0);
	return rc;
}

struct txids {
	uint64_t *all;
	size_t n, capacity;
};

static void txids_cleanup(struct txids *t)
{
	free(t->all);
}

static int add_txid(struct txids *t, uint64_t txid)
{
	if (t->n == t->capacity) {
		size_t capacity = t->capacity ? 2 * t->capacity : 64;
		uint64_t *all = realloc(t->all, capacity * sizeof(*all));

		if (!all)
			return error_set(-ENOMEM, "out of memory");
		t->all = all;
		t->capacity = capacity;
	}
	t->all[t->n++] = txid;
	return 0;
}

static int compare_txids(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* A name that appears while the directory is read may be given twice. */
static void sort_and_unite(struct txids *t)
{
	size_t kept = 0;

	if (t->n == 0)
		return;
	qsort(t->all, t->n, sizeof(*t->all), compare_txids);
	for (size_t i = 1; i < t->n; i++)
		if (t->all[i] != t->all[kept])
			t->all[++kept] = t->all[i];
	t->n = kept + 1;
}

/* The batches whose names end in suffix. */
static int collect_suffixed(struct spool *s, const char *suffix,
			    struct txids *t)
{
	AUTO(directory) DIR *dir = NULL;
	const char *name = NULL;
	uint64_t txid;
	int rc = open_listing(s, &dir);

	if (rc < 0)
		return rc;
	while ((rc = next_name(s, dir, &name)) > 0) {
		if (!parse_suffixed_name(name, suffix, &txid))
			continue;
		rc = add_txid(t, txid);
		if (rc < 0)
			return rc;
	}
	sort_and_unite(t);
	return rc;
}

static int collect(struct spool *s, struct txids *t)
{
	return collect_suffixed(s, "", t);
}

int spool_list(struct spool *s, uint64_t **ret_txids, size_t *ret_n)
{
	AUTO(txids) struct txids t = { 0 };
	int rc = collect(s, &t);

	if (rc < 0)
		return rc;
	*ret_n = t.n;
	*ret_txids = TAKE(t.all);
	return 0;
}

int spool_range(struct spool *s, uint64_t *ret_first, uint64_t *ret_last)
{
	AUTO(txids) struct txids t = { 0 };
	int rc = collect(s, &t);

	if (rc < 0)
		return rc;
	*ret_first = t.n ? t.all[0] : 0;
	*ret_last = t.n ? t.all[t.n - 1] : 0;
	return 0;
}

int spool_open_batch(struct spool *s, uint64_t txid, int *ret_fd)
{
	char name[LTX_NAME_SIZE];
	int fd;

	batch_name(txid, name);
	fd = openat(s->fd, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return error_errno("opening batch '%s/%s'", s->path, name);
	*ret_fd = fd;
	return 0;
}

int spool_claim(struct spool *s, uint64_t txid, int *ret_fd)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&s->lock);
	int rc;

	if (s->barred && txid >= s->barred)
		return error_set(-EBUSY, "batch %016" PRIx64 " of '%s' is being "
				 "merged with others", txid, s->path);
	rc = spool_open_batch(s, txid, ret_fd);
	if (rc == 0 && txid > s->claimed)
		s->claimed = txid;
	return rc;
}

bool spool_is_claimed(struct spool *s, uint64_t txid)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&s->lock);

	return txid <= s->claimed;
}

int spool_bar(struct spool *s, uint64_t txid)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&s->lock);

	if (txid <= s->claimed)
		return error_set(-EBUSY, "batch %016" PRIx64 " of '%s' is being "
				 "sent", txid, s->path);
	s->barred = txid;
	return 0;
}

void spool_unbar(struct spool *s)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&s->lock);

	s->barred = 0;
}

static int remove_name(struct spool *s, const char *name)
{
	if (unlinkat(s->fd, name, 0) < 0 && errno != ENOENT)
		return error_errno("removing batch '%s/%s'", s->path, name);
	return 0;
}

static int remove_batch(struct spool *s, uint64_t txid)
{
	char name[LTX_NAME_SIZE];
	uint64_t size = size_of(s, txid);
	int rc;

	batch_name(txid, name);
	rc = remove_name(s, name);
	if (rc == 0 && size)
		count(s, txid, size, -1);
	return rc;
}

int spool_remove(struct spool *s, uint64_t txid)
{
	int rc = remove_batch(s, txid);

	return rc < 0 ? rc : sync_names(s);
}

/* The last one first, so that a crash leaves no hole. */
int spool_cut(struct spool *s, uint64_t txid)
{
	AUTO(txids) struct txids t = { 0 };
	int rc = collect(s, &t);
	size_t n = t.n;

	while (rc == 0 && n > 0 && t.all[n - 1] > txid)
		rc = remove_batch(s, t.all[--n]);
	return rc == 0 && n < t.n ? sync_names(s) : rc;
}

/* A batch that is removed meanwhile counts nothing. */
static int add_size(struct spool *s, uint64_t txid, const char *suffix,
		    uint64_t *bytes, size_t *n)
{
	char name[SUFFIXED_SIZE];
	struct stat st;

	suffixed_name(txid, suffix, name);
	if (fstatat(s->fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
		*bytes += (uint64_t)st.st_size;
		(*n)++;
	} else if (errno != ENOENT) {
		return error_errno("looking at batch '%s/%s'", s->path, name);
	}
	return 0;
}

static int add_sizes(struct spool *s, const char *suffix, uint64_t *bytes,
		     size_t *n)
{
	AUTO(txids) struct txids t = { 0 };
	int rc = collect_suffixed(s, suffix, &t);

	for (size_t i = 0; rc == 0 && i < t.n; i++)
		rc = add_size(s, t.all[i], suffix, bytes, n);
	return rc;
}

int spool_size(struct spool *s, uint64_t *ret_bytes, size_t *ret_n)
{
	uint64_t bytes = 0;
	size_t n = 0;
	int rc = add_sizes(s, "", &bytes, &n);

	if (rc == 0)
		rc = add_sizes(s, kept_suffix, &bytes, &n);
	if (rc < 0)
		return rc;
	*ret_bytes = bytes;
	*ret_n = n;
	return 0;
}

int spool_keep(struct spool *s, uint64_t txid)
{
	char name[LTX_NAME_SIZE], kept[SUFFIXED_SIZE];

	uint64_t size = size_of(s, txid);

	batch_name(txid, name);
	suffixed_name(txid, kept_suffix, kept);
	if (renameat(s->fd, name, s->fd, kept) < 0)
		return error_errno("keeping batch '%s/%s'", s->path, name);
	count(s, txid, size, -1);
	return sync_names(s);
}

int spool_kept(struct spool *s, uint64_t *ret_txid)
{
	AUTO(txids) struct txids t = { 0 };
	int rc = collect_suffixed(s, kept_suffix, &t);

	if (rc == 0)
		*ret_txid = t.n ? t.all[0] : 0;
	return rc;
}

int spool_open_kept(struct spool *s, uint64_t txid, int *ret_fd)
{
	char name[SUFFIXED_SIZE];
	int fd;

	suffixed_name(txid, kept_suffix, name);
	fd = openat(s->fd, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return error_errno("opening batch '%s/%s'", s->path, name);
	*ret_fd = fd;
	return 0;
}

int spool_remove_kept(struct spool *s, uint64_t txid)
{
	char name[SUFFIXED_SIZE];

	suffixed_name(txid, kept_suffix, name);
	return remove_name(s, name);
}

int spool_join(struct spool *s, struct spool_budget *budget)
{
	AUTO(txids) struct txids t = { 0 };
	int rc = collect(s, &t);

	if (rc < 0)
		return rc;
	s->budget = budget;
	for (size_t i = 0; i < t.n; i++)
		count(s, t.all[i], size_of(s, t.all[i]), 1);
	return 0;
}

void spool_free(struct spool *s)
{
	if (!s)
		return;
	if (s->budget)
		atomic_fetch_sub(&s->budget->used, s->counted);
	fd_cleanup(&s->fd);
	(void)pthread_mutex_destroy(&s->lock);
	free(s->path);
	free(s);
}
