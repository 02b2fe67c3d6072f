#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/io.h"
#include "capture/db.h"
#include "ltx/dbsum.h"

#include "capture/content.h"

static int open_file(int dirfd, const char *path, const char *suffix)
{
	char name[4200];
	int fd;

	(void)snprintf(name, sizeof(name), "%s%s", path, suffix);
	fd = openat(dirfd, name,
		    O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	return fd < 0 ? error_errno("opening '%s'", name) : fd;
}

/* The latest committed version of each page that the WAL has. */
static int index_wal(struct content *c)
{
	AUTO(mem) uint32_t *pgnos = NULL;
	int64_t n = wal_begin(c->wal_fd, &c->wal);
	int rc = 0;

	if (n > 0)
		n = wal_advance(c->wal_fd, &c->wal, &pgnos);
	for (int64_t i = 0; rc == 0 && i < n; i++)
		rc = pgmap_set(&c->wal_index, pgnos[i], (uint32_t)i + 1);
	return n < 0 ? (int)n : rc;
}

static int open_wal(int dirfd, const char *path, struct content *c)
{
	int fd = open_file(dirfd, path, "-wal");

	if (fd == -ENOENT)
		return 0;
	if (fd < 0)
		return fd;
	c->wal_fd = fd;
	return index_wal(c);
}

/* Page 1 as it is committed; a file may be too short for its pages. */
static int read_header(struct content *c, const char *path,
		       struct format_header *ret)
{
	uint8_t data[FORMAT_HEADER_SIZE] = { 0 };
	uint32_t frame = pgmap_get(&c->wal_index, 1);
	ssize_t n =
		frame ? io_pread(c->wal_fd, data, sizeof(data),
				 wal_frame_offset(c->wal.page_size, frame - 1) +
					 WAL_FRAME_HEADER_SIZE)
		      : io_pread(c->main_fd, data, sizeof(data), 0);

	if (n < 0)
		return (int)n;
	if (n < (ssize_t)sizeof(data) || !format_parse_header(data, ret))
		return error_set(-ERR_NO_DATABASE, "'%s' is not a database",
				 path);
	return 0;
}

/* What a header claims costs memory, so it must be worth something. */
static int check_size(const struct content *c, const char *path, uint64_t size)
{
	uint64_t there = size / c->page_size + c->wal.frames;

	if (c->commit / 2 <= there + 1)
		return 0;
	return error_set(-ERR_NO_DATABASE, "'%s' is not complete", path);
}

static int find_size(struct content *c, const char *path)
{
	struct format_header header;
	int64_t size = io_size(c->main_fd);
	int rc = read_header(c, path, &header);

	if (rc < 0)
		return rc;
	if (size < 0)
		return (int)size;
	c->page_size = c->wal.commit ? c->wal.page_size : header.page_size;
	c->change_counter = header.change_counter;
	c->commit = c->wal.commit  ? c->wal.commit
		    : header.pages ? header.pages
				   : (uint32_t)((uint64_t)size / c->page_size);
	return check_size(c, path, (uint64_t)size);
}

int content_open(int dirfd, const char *path, struct content *ret)
{
	AUTO(content) struct content c = { .main_fd = -1, .wal_fd = -1 };
	int rc = c.main_fd = open_file(dirfd, path, "");

	/* A WAL beside an empty database is void: SQLite deletes it, unread. */
	if (rc >= 0)
		rc = io_size(c.main_fd) > 0 ? open_wal(dirfd, path, &c) : 0;
	if (rc >= 0)
		rc = find_size(&c, path);
	if (rc < 0)
		return rc;
	*ret = c;
	c = (struct content){ .main_fd = -1, .wal_fd = -1 };
	return 0;
}

static int read_page(struct content *c, uint32_t pgno, void *page)
{
	uint32_t frame = pgmap_get(&c->wal_index, pgno);
	ssize_t n = frame ? io_pread(c->wal_fd, page, c->page_size,
				     wal_frame_offset(c->page_size, frame - 1) +
					     WAL_FRAME_HEADER_SIZE)
			  : io_pread(c->main_fd, page, c->page_size,
				     (uint64_t)(pgno - 1) * c->page_size);

	if (n < 0)
		return error_wrap((int)n, "reading page %u", pgno);
	memset((char *)page + n, 0, c->page_size - (size_t)n);
	return 0;
}

int content_sum(struct content *c, const atomic_bool *cancel)
{
	AUTO(mem) void *page = malloc(c->page_size);
	uint32_t lock_pgno = ltx_lock_pgno(c->page_size);

	free(c->hashes);
	c->hashes = calloc((size_t)c->commit + 1, sizeof(*c->hashes));
	if (!page || !c->hashes)
		return error_set(-ENOMEM, "out of memory for %u pages",
				 c->commit);
	c->dbsum = 0;
	for (uint32_t pgno = 1; pgno <= c->commit; pgno++) {
		int rc;

		if (pgno == lock_pgno)
			continue;
		if (atomic_load_explicit(cancel, memory_order_relaxed))
			return error_set(-ECANCELED, "stopped while looking at "
						     "the pages");
		rc = read_page(c, pgno, page);
		if (rc < 0)
			return rc;
		c->hashes[pgno - 1] = ltx_dbsum_page(pgno, page, c->page_size);
		c->dbsum += c->hashes[pgno - 1];
	}
	return 0;
}

void content_cleanup(struct content *c)
{
	fd_cleanup(&c->main_fd);
	fd_cleanup(&c->wal_fd);
	pgmap_clear(&c->wal_index);
	free(c->hashes);
	*c = (struct content){ .main_fd = -1, .wal_fd = -1 };
}
