#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/fail.h"
#include "base/io.h"
#include "ltx/dbsum.h"
#include "ltx/header.h"
#include "sqlite/format.h"

#include "sqlite/replica_parts.h"

enum { MAX_BYTES = 8 << 20 };

/* Where SQLite locks a database file: os.h, "PENDING_BYTE". */
enum { PENDING = 0x40000000, SHARED = PENDING + 2, SHARED_SIZE = 510 };

uint32_t replica_lock_page(uint32_t page_size)
{
	return PENDING / page_size + 1;
}

/* As a reader of SQLite's: past whoever waits for its end. */
static int share_database(int fd)
{
	int rc = io_lock(fd, F_RDLCK, PENDING, 1);

	if (rc == 0)
		rc = io_lock(fd, F_RDLCK, SHARED, SHARED_SIZE);
	(void)io_lock(fd, F_UNLCK, PENDING, 1);
	return rc == -EAGAIN ?
		       error_set(rc, "another connection is closing it") :
		       rc;
}

/* NAME-wal or NAME-shm, as the database's owner would have made it. */
static int open_beside(const struct replica *r, const char *suffix)
{
	char path[4096];
	struct stat main, side;
	AUTO(fd) int fd = -1;

	if ((size_t)snprintf(path, sizeof(path), "%s%s", r->path, suffix) >=
	    sizeof(path))
		return error_set(-ENAMETOOLONG, "%s%s", r->path, suffix);
	fd = openat(r->dirfd, path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW,
		    0600);
	if (fd < 0)
		return error_errno("opening %s", path);
	if (fstat(r->db, &main) < 0 || fstat(fd, &side) < 0)
		return error_errno("looking at %s", path);
	if ((side.st_uid != main.st_uid || side.st_gid != main.st_gid) &&
	    fchown(fd, main.st_uid, main.st_gid) < 0)
		return error_errno("giving %s to the database's owner", path);
	if ((side.st_mode & 0777) != (main.st_mode & 0777) &&
	    fchmod(fd, main.st_mode & 0777) < 0)
		return error_errno("giving %s the database's mode", path);
	return TAKE_FD(fd);
}

/* The database file's own word, which holds while the log is empty. */
static int read_database(struct replica *r)
{
	uint8_t data[FORMAT_HEADER_SIZE];
	struct format_header h;
	ssize_t n = io_pread(r->db, data, sizeof(data), 0);
	int64_t size = io_size(r->db);

	if (n < 0 || size < 0)
		return error_wrap(n < 0 ? (int)n : (int)size, "reading it");
	if ((size_t)n < sizeof(data) || !format_parse_header(data, &h))
		return error_set(-ERR_CORRUPT, "it is not a database");
	if (!replica_is_protected(data + REPLICA_VERSIONS))
		return error_set(-ESTALE,
				 "it is not write-protected as replicas are: "
				 "others may have written it");
	r->page_size = h.page_size;
	r->pages = (uint32_t)((uint64_t)size / h.page_size);
	return 0;
}

/*
 * Take what the index says, if it is whole and is this log's.  (SQLite trusts
 * it while anybody has it open; who replaced the log's file meanwhile has
 * broken more than this.)
 */
static bool adopt_index(struct replica *r)
{
	struct shm_header h;
	struct wal_cursor c = { 0 };

	if (!shm_read_header(r->shm, &h) ||
	    shm_backfilled(r->shm) > h.frames)
		return false;
	c.page_size = (uint32_t)(h.page_size & 0xfffe) |
		      (uint32_t)(h.page_size & 1) << 16;
	c.big_endian = h.big_endian;
	c.frames = h.frames;
	c.commit = h.pages;
	for (int i = 0; i < 2; i++) {
		c.salt[i] = get_be32(h.salt + 4 * i);
		c.checksum[i] = h.frame_checksum[i];
	}
	if (h.frames > 0 && (!ltx_page_size_valid(c.page_size) ||
			     wal_check(r->wal, &c) != 1))
		return false;
	r->end = c;
	r->change = h.change;
	return true;
}

/* What the log holds, by its own checksums. */
static int scan_log(struct replica *r, uint32_t **ret_pgnos)
{
	struct wal_cursor c = { 0 };
	int64_t n = 0;
	int rc = wal_begin(r->wal, &c);

	*ret_pgnos = NULL;
	if (rc > 0)
		n = wal_advance(r->wal, &c, ret_pgnos);
	if (rc < 0 || n < 0)
		return rc < 0 ? rc : (int)n;
	if (c.frames == 0)
		io_random(c.salt, sizeof(c.salt));
	r->end = c;
	return 0;
}

/* As walIndexRecover(): what no reader could use becomes what all can. */
static int recover(struct replica *r)
{
	AUTO(mem) uint32_t *pgnos = NULL;
	int rc = scan_log(r, &pgnos);

	if (rc == 0)
		rc = shm_reserve(r->shm, r->end.frames);
	if (rc == 0)
		rc = shm_rebuild(r->shm, pgnos, r->end.frames);
	if (rc < 0)
		return rc;
	shm_set_backfilled(r->shm, 0);
	shm_set_attempted(r->shm, r->end.frames);
	shm_set_mark(r->shm, 0, 0);
	for (unsigned i = 1; i < SHM_READERS; i++) {
		if (shm_lock(r->shm, SHM_READ_0 + i, 1) < 0)
			continue;
		shm_set_mark(r->shm, i,
			     i == 1 && r->end.frames ? r->end.frames :
						       replica_idle_mark(i));
		shm_unlock(r->shm, SHM_READ_0 + i, 1);
	}
	io_random(&r->change, sizeof(r->change));
	if (r->end.frames > 0)
		r->pages = r->end.commit;
	if (r->end.frames > 0)
		r->page_size = r->end.page_size;
	replica_publish(r);
	FAILPOINT("replica-recovered");
	return 0;
}

/* The header that says where r->end is. */
void replica_publish(struct replica *r)
{
	struct shm_header h = {
		.change = ++r->change,
		.big_endian = r->end.big_endian,
		.page_size = (uint16_t)(r->page_size | r->page_size >> 16),
		.frames = r->end.frames,
		.pages = r->pages,
		.frame_checksum = { r->end.checksum[0], r->end.checksum[1] },
	};

	put_be32(h.salt, r->end.salt[0]);
	put_be32(h.salt + 4, r->end.salt[1]);
	shm_publish(r->shm, &h);
}

static int lock_index(struct replica *r, enum shm_lock byte, const char *what)
{
	int rc = shm_lock(r->shm, byte, 1);

	return rc == -EAGAIN ? error_set(rc, "another connection %s", what) :
			       rc;
}

/* Rule by rule as replica.h has them: the locks come before any look. */
static int join(struct replica *r)
{
	int rc = lock_index(r, SHM_WRITE, "writes to it");

	if (rc == 0)
		rc = lock_index(r, SHM_CHECKPOINT, "checkpoints it");
	FAILPOINT("replica-joined");
	if (rc == 0)
		rc = read_database(r);
	if (rc < 0)
		return rc;
	if (!adopt_index(r)) {
		rc = lock_index(r, SHM_RECOVER, "recovers it");
		if (rc == 0)
			rc = recover(r);
		shm_unlock(r->shm, SHM_RECOVER, 1);
		if (rc < 0)
			return rc;
	}
	if (r->end.frames > 0) {
		r->page_size = r->end.page_size;
		r->pages = r->end.commit;
	}
	return shm_reserve(r->shm, r->end.frames);
}

static int open_files(struct replica *r)
{
	int rc, fd;

	r->db = openat(r->dirfd, r->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (r->db < 0)
		return error_errno("opening it");
	rc = share_database(r->db);
	if (rc < 0)
		return rc;
	/* Only now: a last closer would have deleted what we opened before. */
	r->wal = open_beside(r, "-wal");
	if (r->wal < 0)
		return r->wal;
	fd = open_beside(r, "-shm");
	if (fd < 0)
		return fd;
	rc = shm_new(fd, &r->shm);
	if (rc == -EAGAIN)
		return error_set(rc, "another connection opens it");
	return rc < 0 ? rc : join(r);
}

int replica_open(int dirfd, const char *path, const struct replica_options *o,
		 struct replica **ret)
{
	AUTO(replica) struct replica *r = calloc(1, sizeof(*r));
	int rc;

	if (!r)
		return error_set(-ENOMEM, "out of memory for a replica");
	r->db = r->wal = r->dirfd = -1;
	r->path = strdup(path);
	if (!r->path)
		return error_set(-ENOMEM, "out of memory for a replica");
	if (dirfd != AT_FDCWD) {
		r->dirfd = fcntl(dirfd, F_DUPFD_CLOEXEC, 0);
		if (r->dirfd < 0)
			return error_errno("opening replica %s", path);
	} else {
		r->dirfd = AT_FDCWD;
	}
	r->options = *o;
	if (r->options.max_bytes == 0)
		r->options.max_bytes = MAX_BYTES;
	rc = open_files(r);
	if (rc < 0)
		return error_wrap(rc, "opening replica %s", path);
	*ret = TAKE(r);
	return 0;
}

void replica_free(struct replica *r)
{
	if (!r)
		return;
	replica_abort(r);
	shm_free(r->shm);
	if (r->wal >= 0)
		(void)close(r->wal);
	if (r->db >= 0)
		(void)close(r->db);
	if (r->dirfd >= 0)
		(void)close(r->dirfd);
	free(r->path);
	free(r);
}

static int check_file(const struct replica *r, const char *suffix, int fd)
{
	char path[4096];
	struct stat here, there;

	(void)snprintf(path, sizeof(path), "%s%s", r->path, suffix);
	if (fstat(fd, &here) < 0)
		return error_errno("looking at %s", path);
	if (fstatat(r->dirfd, path, &there, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ?
			       error_set(-ESTALE, "%s was removed", path) :
			       error_errno("looking at %s", path);
	if (here.st_dev != there.st_dev || here.st_ino != there.st_ino)
		return error_set(-ESTALE, "%s was replaced by another file",
				 path);
	return 0;
}

int replica_check_files(const struct replica *r)
{
	int rc = check_file(r, "", r->db);

	if (rc == 0)
		rc = check_file(r, "-wal", r->wal);
	return rc < 0 ? rc : check_file(r, "-shm", shm_fd(r->shm));
}

void replica_state(const struct replica *r, struct replica_state *ret)
{
	*ret = (struct replica_state){
		.page_size = r->page_size,
		.pages = r->pages,
		.frames = r->end.frames,
		.backfilled = shm_backfilled(r->shm),
		.log_bytes = wal_cursor_offset(&r->end),
		.held_back = r->held_back,
	};
}

unsigned replica_readers(const struct replica *r)
{
	unsigned n = 0;

	for (unsigned i = 0; i < SHM_READERS; i++)
		n += shm_is_locked(r->shm, SHM_READ_0 + i);
	return n;
}

int replica_read(const struct replica *r, uint32_t pgno, void *page)
{
	uint32_t frame = shm_find(r->shm, pgno, r->end.frames);
	uint64_t offset = (uint64_t)(pgno - 1) * r->page_size;
	ssize_t n;

	if (frame)
		offset = wal_frame_offset(r->page_size, frame - 1) +
			 WAL_FRAME_HEADER_SIZE;
	n = io_pread(frame ? r->wal : r->db, page, r->page_size, offset);
	if (n < 0)
		return error_wrap((int)n, "reading page %u of %s", pgno,
				  r->path);
	memset((uint8_t *)page + n, 0, r->page_size - (size_t)n);
	return 0;
}

/* The hash of a page as it is in the bucket; changes bytes of page 1. */
static uint64_t page_sum(const struct replica *r, uint32_t pgno, void *page,
			 const uint8_t format[2])
{
	if (pgno == 1)
		memcpy((uint8_t *)page + REPLICA_VERSIONS, format, 2);
	return ltx_dbsum_page(pgno, page, r->page_size);
}

int replica_sum_pages(const struct replica *r, uint32_t first, uint32_t last,
		      const uint8_t format[2], uint64_t *ret)
{
	AUTO(mem) uint8_t *page = malloc(r->page_size);

	*ret = 0;
	if (!page)
		return error_set(-ENOMEM, "out of memory for a page");
	for (uint32_t pgno = first; pgno <= last; pgno++) {
		int rc;

		if (pgno == replica_lock_page(r->page_size))
			continue;
		rc = replica_read(r, pgno, page);
		if (rc < 0)
			return rc;
		*ret += page_sum(r, pgno, page, format);
	}
	return 0;
}

int replica_sum(struct replica *r, const uint8_t format[2], uint64_t *ret)
{
	int rc = replica_sum_pages(r, 1, r->pages, format, ret);

	if (rc == 0)
		replica_set_sum(r, format, *ret);
	return rc;
}

void replica_set_sum(struct replica *r, const uint8_t format[2], uint64_t sum)
{
	r->sum_known = true;
	r->sum = sum;
	memcpy(r->format, format, sizeof(r->format));
}

void replica_mark(const struct replica *r, struct replica_mark *ret)
{
	ret->sum = r->sum_known ? r->sum : 0;
	memcpy(ret->format, r->format, sizeof(r->format));
}

int replica_is(struct replica *r, const struct replica_mark *m)
{
	uint64_t sum;
	int rc = replica_sum(r, m->format, &sum);

	return rc < 0 ? rc : sum == m->sum;
}

static int write_versions(int fd, const uint8_t versions[2])
{
	int rc = io_pwrite(fd, versions, 2, REPLICA_VERSIONS);

	if (rc == 0 && fsync(fd) < 0)
		rc = error_errno("syncing a replica");
	return rc;
}

int replica_format(int fd, uint8_t ret[2])
{
	ssize_t n = io_pread(fd, ret, 2, REPLICA_VERSIONS);

	if (n != 2)
		return n < 0 ? (int)n :
			       error_set(-ERR_CORRUPT, "it is not a database");
	return 0;
}

bool replica_is_protected(const uint8_t format[2])
{
	return format[0] == REPLICA_WRITE && format[1] == REPLICA_READ;
}

int replica_protect(int fd, uint8_t ret_format[2])
{
	static const uint8_t versions[] = { REPLICA_WRITE, REPLICA_READ };
	int rc = replica_format(fd, ret_format);

	return rc < 0 ? rc : write_versions(fd, versions);
}

/* Nobody has it open from here on: every connection holds SHARED. */
static int own_database(const struct replica *r)
{
	int rc = io_lock(r->db, F_WRLCK, PENDING, SHARED - PENDING);

	if (rc == 0)
		rc = io_lock(r->db, F_WRLCK, SHARED, SHARED_SIZE);
	return rc == -EAGAIN ? error_set(-EBUSY, "%s is open in another program",
					 r->path) :
			       rc;
}

static int remove_sides(const struct replica *r)
{
	for (int i = 0; i < FORMAT_SIDES; i++) {
		char path[4096];

		(void)snprintf(path, sizeof(path), "%s%s", r->path,
			       format_sides[i]);
		if (unlinkat(r->dirfd, path, 0) < 0 && errno != ENOENT)
			return error_errno("removing %s", path);
	}
	return io_sync_parent(r->dirfd, r->path);
}

/* The log is empty and on disk in the database before it goes. */
static int release(struct replica *r, const uint8_t format[2])
{
	int rc = replica_empty_log(r, r->options.wait_ms);

	if (rc == 0)
		rc = -EBUSY;
	if (rc == -EBUSY)
		return error_set(rc, "%s is being read", r->path);
	if (rc > 0)
		rc = own_database(r);
	if (rc == 0)
		rc = remove_sides(r);
	if (rc < 0)
		return rc;
	FAILPOINT("unlock-sides-removed");
	return write_versions(r->db, format);
}

int replica_release(struct replica *r, const uint8_t format[2])
{
	int rc;

	replica_abort(r);
	rc = release(r, format);
	replica_free(r);
	return rc;
}

int replica_hand_over(struct replica *r, const uint8_t format[2])
{
	int rc;

	replica_abort(r);
	rc = release(r, format);
	if (rc == -EBUSY) {
		/* What own_database() got keeps new readers out. */
		(void)io_lock(r->db, F_UNLCK, PENDING, SHARED - PENDING);
		rc = replica_commit_format(r, format);
	}
	replica_free(r);
	return rc;
}
