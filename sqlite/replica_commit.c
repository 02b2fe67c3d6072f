#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fail.h"
#include "base/io.h"
#include "ltx/dbsum.h"
#include "ltx/header.h"

#include "sqlite/replica_parts.h"

/* Room in the log for a commit, or -EAGAIN. */
static int make_room(struct replica *r, bool must_be_empty)
{
	const struct replica_options *o = &r->options;
	int rc = 0;

	if (must_be_empty) {
		rc = replica_empty_log(r, o->wait_ms);
		return rc ? (rc < 0 ? rc : 0) :
			    error_set(-EAGAIN,
				      "changing the page size of %s: readers "
				      "are at work in the old one", r->path);
	}
	if (wal_cursor_offset(&r->end) >= o->max_bytes &&
	    clock_monotonic_ms() >= r->next_try)
		rc = replica_empty_log(r, o->wait_ms);
	if (rc < 0)
		return rc;
	if (o->hard_bytes && wal_cursor_offset(&r->end) >= o->hard_bytes)
		return error_set(-EAGAIN,
				 "%s stands still: readers that do not end keep "
				 "its log of %" PRIu64 " bytes", r->path,
				 wal_cursor_offset(&r->end));
	return 0;
}

/*
 * C2: on disk before anything that its salts make valid.  The salts are new
 * each time, so that nothing that was staged and given up, or killed, fits.
 */
static int begin_log(struct replica *r, uint32_t page_size)
{
	uint8_t header[WAL_HEADER_SIZE];
	uint32_t salt[2] = { r->end.salt[0] + 1 };
	struct wal_cursor c;
	int rc;

	io_random(&salt[1], sizeof(salt[1]));
	wal_make_header(header, page_size, r->checkpoint, salt, &c);
	rc = io_pwrite(r->wal, header, sizeof(header), 0);
	if (rc < 0)
		return error_wrap(rc, "beginning %s-wal", r->path);
	FAILPOINT("replica-log-begun");
	if (fdatasync(r->wal) < 0)
		return error_errno("syncing %s-wal", r->path);
	r->end = c;
	return 0;
}

int replica_begin(struct replica *r, uint32_t page_size, uint32_t pages)
{
	struct replica_stage *s = &r->stage;
	bool other_size = page_size != r->page_size;
	int rc;

	if (s->active)
		return error_set(-EINVAL, "a commit to %s is under way",
				 r->path);
	if (!ltx_page_size_valid(page_size) || pages == 0)
		return error_set(-EINVAL, "no database has %u pages of %u "
				 "bytes", pages, page_size);
	rc = make_room(r, other_size);
	if (rc == 0 && r->end.frames == 0)
		rc = begin_log(r, page_size);
	if (rc < 0)
		return rc;
	s->frame = malloc(WAL_FRAME_HEADER_SIZE + page_size);
	if (!s->frame)
		return error_set(-ENOMEM, "out of memory for a page");
	s->active = true;
	s->page_size = page_size;
	s->pages = pages;
	s->end = r->end;
	s->sum = other_size ? 0 : r->sum;
	memcpy(s->format, r->format, sizeof(s->format));
	return 0;
}

void replica_abort(struct replica *r)
{
	free(r->stage.frame);
	free(r->stage.pgnos.items);
	memset(&r->stage, 0, sizeof(r->stage));
}

static uint32_t last_page(const struct replica_stage *s)
{
	return s->pgnos.items[s->pgnos.n - 1];
}

/* The page that is held back becomes a frame. */
static int write_frame(struct replica *r, uint32_t commit)
{
	struct replica_stage *s = &r->stage;
	uint64_t offset = wal_cursor_offset(&s->end);
	int rc;

	wal_make_frame(&s->end, s->frame, last_page(s), commit);
	rc = io_pwrite(r->wal, s->frame, WAL_FRAME_HEADER_SIZE + s->page_size,
		       offset);
	FAILPOINT("replica-frame");
	return rc < 0 ? error_wrap(rc, "writing %s-wal", r->path) : 0;
}

/* Pages of the state before, which the new one does not have any more. */
static int subtract(struct replica *r, uint32_t first, uint32_t last)
{
	uint64_t sum;
	int rc;

	if (!r->sum_known || r->stage.page_size != r->page_size || first > last)
		return 0;
	rc = replica_sum_pages(r, first, last, r->format, &sum);
	if (rc == 0)
		r->stage.sum -= sum;
	return rc;
}

static int put(struct replica *r, uint32_t pgno, const void *page)
{
	struct replica_stage *s = &r->stage;
	uint8_t *held;
	int rc = 0;

	if (s->pgnos.n > 0 && pgno <= last_page(s))
		return error_set(-EINVAL, "page %u of a commit to %s comes "
				 "after page %u", pgno, r->path,
				 last_page(s));
	if (s->pgnos.n > 0)
		rc = write_frame(r, 0);
	if (rc == 0)
		rc = wal_pgnos_append(&s->pgnos, pgno);
	if (rc == 0 && pgno <= r->pages)
		rc = subtract(r, pgno, pgno);
	if (rc < 0)
		return rc;
	s->sum += ltx_dbsum_page(pgno, page, s->page_size);
	if (pgno > r->pages)
		s->grown++;
	held = s->frame + WAL_FRAME_HEADER_SIZE;
	memcpy(held, page, s->page_size);
	if (pgno == 1) {
		memcpy(s->format, held + REPLICA_VERSIONS, 2);
		held[REPLICA_VERSIONS] = REPLICA_WRITE;
		held[REPLICA_VERSIONS + 1] = REPLICA_READ;
	}
	return 0;
}

int replica_put(struct replica *r, uint32_t pgno, const void *page)
{
	struct replica_stage *s = &r->stage;
	int rc;

	if (!s->active || s->failed || s->prepared || pgno == 0)
		return error_set(-EINVAL, "no commit to %s takes page %u",
				 r->path, pgno);
	if (pgno > s->pages || pgno == replica_lock_page(s->page_size))
		return 0;
	rc = put(r, pgno, page);
	s->failed = rc < 0;
	return rc;
}

/* How many pages there are from first to last, without the lock page. */
static uint32_t count_pages(uint32_t page_size, uint32_t first, uint32_t last)
{
	uint32_t lock = replica_lock_page(page_size);

	if (first > last)
		return 0;
	return last - first + 1 - (first <= lock && lock <= last);
}

/* C3 and C4. */
static int check_complete(const struct replica *r)
{
	const struct replica_stage *s = &r->stage;
	bool other_size = s->page_size != r->page_size;
	uint32_t first = other_size ? 1 : r->pages + 1;
	uint32_t want = count_pages(s->page_size, first, s->pages);
	uint32_t got = other_size ? (uint32_t)s->pgnos.n : s->grown;

	if (got == want)
		return 0;
	return error_set(-ERR_CORRUPT,
			 "a commit to %s has %u of the %u pages that are new",
			 r->path, got, want);
}

/* A commit that changes no page is still a commit: page 1 again. */
static int put_page_one(struct replica *r)
{
	AUTO(mem) uint8_t *page = malloc(r->page_size);
	int rc;

	if (!page)
		return error_set(-ENOMEM, "out of memory for a page");
	rc = replica_read(r, 1, page);
	if (rc < 0)
		return rc;
	if (r->sum_known)
		memcpy(page + REPLICA_VERSIONS, r->format, sizeof(r->format));
	return put(r, 1, page);
}

/* C1: everything that can be wrong or fail comes before the last frame. */
static int prepare(struct replica *r, uint64_t post_sum)
{
	struct replica_stage *s = &r->stage;
	bool sum_known = r->sum_known || s->page_size != r->page_size;
	int rc = 0;

	if (!s->active || s->failed)
		return error_set(-EINVAL, "no commit to %s can be ended",
				 r->path);
	if (s->pgnos.n == 0 && s->page_size == r->page_size)
		rc = put_page_one(r);
	if (rc == 0)
		rc = check_complete(r);
	if (rc == 0)
		rc = subtract(r, s->pages + 1, r->pages);
	if (rc < 0)
		return rc;
	if (sum_known && post_sum && s->sum != post_sum)
		return error_set(-ERR_CORRUPT,
				 "a commit to %s makes another state than its "
				 "checksum says", r->path);
	return shm_reserve(r->shm, s->end.frames + 1);
}

/* The frame that ends the commit, written but not shown, is no more. */
static void retract(struct replica *r)
{
	static const uint8_t zeros[WAL_FRAME_HEADER_SIZE];
	uint64_t offset =
		wal_frame_offset(r->stage.page_size, r->stage.end.frames - 1);

	(void)io_pwrite(r->wal, zeros, sizeof(zeros), offset);
}

/* Some other program's checkpoint may have put it out of use. */
static void keep_low_mark(struct replica *r)
{
	if (shm_mark(r->shm, REPLICA_LOW_MARK) != (uint32_t)SHM_MARK_UNUSED ||
	    shm_lock(r->shm, SHM_READ_0 + REPLICA_LOW_MARK, 1) < 0)
		return;
	shm_set_mark(r->shm, REPLICA_LOW_MARK,
		     replica_idle_mark(REPLICA_LOW_MARK));
	shm_unlock(r->shm, SHM_READ_0 + REPLICA_LOW_MARK, 1);
}

/* New readers find a mark, also those that may not set one. */
static void mark_for_readers(struct replica *r)
{
	keep_low_mark(r);
	for (unsigned i = 1; i < SHM_READERS; i++) {
		if (shm_lock(r->shm, SHM_READ_0 + i, 1) < 0)
			continue;
		shm_set_mark(r->shm, i, r->end.frames);
		shm_unlock(r->shm, SHM_READ_0 + i, 1);
		break;
	}
}

static void show(struct replica *r)
{
	struct replica_stage *s = &r->stage;
	uint32_t first = r->end.frames + 1;

	for (size_t i = 0; i < s->pgnos.n; i++)
		shm_add(r->shm, first + (uint32_t)i, s->pgnos.items[i]);
	FAILPOINT("replica-all-indexed");
	r->end = s->end;
	r->sum_known = r->sum_known || s->page_size != r->page_size;
	r->page_size = s->page_size;
	r->pages = s->pages;
	r->sum = s->sum;
	memcpy(r->format, s->format, sizeof(r->format));
	replica_publish(r);
	FAILPOINT("replica-published");
	mark_for_readers(r);
}

int replica_prepare(struct replica *r, uint64_t post_sum,
		    struct replica_mark *ret)
{
	struct replica_stage *s = &r->stage;
	int rc = prepare(r, post_sum);

	s->prepared = rc == 0;
	s->failed = rc < 0;
	if (rc < 0)
		return rc;
	ret->sum = r->sum_known || s->page_size != r->page_size ? s->sum : 0;
	memcpy(ret->format, s->format, sizeof(s->format));
	return 0;
}

int replica_commit(struct replica *r)
{
	int rc;

	if (!r->stage.prepared)
		return error_set(-EINVAL, "a commit to %s is not prepared",
				 r->path);
	rc = write_frame(r, r->stage.pages);
	if (rc == 0 && r->options.sync && fdatasync(r->wal) < 0)
		rc = error_errno("syncing %s-wal", r->path);
	if (rc == 0)
		show(r);
	else
		retract(r);
	replica_abort(r);
	return rc;
}

/* What put() holds back is the last page, as it will be in the log. */
int replica_commit_format(struct replica *r, const uint8_t format[2])
{
	struct replica_mark mark;
	int rc = replica_begin(r, r->page_size, r->pages);

	if (rc == 0)
		rc = put_page_one(r);
	if (rc == 0)
		memcpy(r->stage.frame + WAL_FRAME_HEADER_SIZE +
			       REPLICA_VERSIONS,
		       format, 2);
	if (rc == 0)
		rc = replica_prepare(r, 0, &mark);
	if (rc == 0) {
		r->options.sync = true;
		rc = replica_commit(r);
	}
	replica_abort(r);
	return rc;
}
