#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fail.h"
#include "base/io.h"

#include "sqlite/replica_parts.h"

enum { RETRY_MS = 1000, PAUSE_MS = 1 };

/*
 * K2: how far no reader would notice.  A mark that nobody holds is moved out of
 * the way, the first one to where new readers want to be.
 */
static uint32_t safe_frame(struct replica *r)
{
	uint32_t safe = r->end.frames;

	for (unsigned i = 1; i < SHM_READERS; i++) {
		uint32_t mark = shm_mark(r->shm, i);

		if (mark >= safe)
			continue;
		if (shm_lock(r->shm, SHM_READ_0 + i, 1) < 0) {
			safe = mark;
			continue;
		}
		shm_set_mark(r->shm, i, i == 1 ? safe : replica_idle_mark(i));
		shm_unlock(r->shm, SHM_READ_0 + i, 1);
	}
	return safe;
}

/* The newest frame of each page, and of no page behind the end. */
static int copy_frames(struct replica *r, uint32_t from, uint32_t to)
{
	AUTO(mem) uint8_t *page = malloc(r->page_size);

	if (!page)
		return error_set(-ENOMEM, "out of memory for a page");
	for (uint32_t frame = from + 1; frame <= to; frame++) {
		uint32_t pgno = shm_page(r->shm, frame);
		ssize_t n;
		int rc;

		if (pgno > r->pages || shm_find(r->shm, pgno, to) != frame)
			continue;
		n = io_pread(r->wal, page, r->page_size,
			     wal_frame_offset(r->page_size, frame - 1) +
				     WAL_FRAME_HEADER_SIZE);
		if (n != (ssize_t)r->page_size)
			return n < 0 ? (int)n :
				       error_set(-ERR_CORRUPT,
						 "%s-wal was cut", r->path);
		rc = io_pwrite(r->db, page, r->page_size,
			       (uint64_t)(pgno - 1) * r->page_size);
		if (rc < 0)
			return rc;
		FAILPOINT("replica-page-copied");
	}
	return 0;
}

/* With READ 0 held (K3): from the log into the file, in the order of K1. */
static int backfill(struct replica *r, uint32_t from, uint32_t safe)
{
	int rc;

	shm_set_attempted(r->shm, safe);
	if (fdatasync(r->wal) < 0)
		return error_errno("syncing %s-wal", r->path);
	FAILPOINT("replica-log-synced");
	rc = copy_frames(r, from, safe);
	if (rc < 0)
		return rc;
	if (safe == r->end.frames &&
	    ftruncate(r->db, (off_t)r->pages * r->page_size) < 0)
		return error_errno("setting the size of %s", r->path);
	if (fdatasync(r->db) < 0)
		return error_errno("syncing %s", r->path);
	FAILPOINT("replica-copied");
	shm_set_backfilled(r->shm, safe);
	FAILPOINT("replica-backfilled");
	return 0;
}

int replica_checkpoint(struct replica *r)
{
	uint32_t from = shm_backfilled(r->shm);
	uint32_t safe;
	int rc = 0;

	if (from == r->end.frames)
		return 1;
	safe = safe_frame(r);
	if (safe <= from || shm_lock(r->shm, SHM_READ_0, 1) < 0)
		return 0;
	rc = backfill(r, from, safe);
	shm_unlock(r->shm, SHM_READ_0, 1);
	if (rc < 0)
		return error_wrap(rc, "checkpointing %s", r->path);
	return safe == r->end.frames;
}

int replica_reset(struct replica *r)
{
	struct wal_cursor fresh = { .page_size = r->page_size };

	if (r->end.frames == 0)
		return 1;
	if (shm_lock(r->shm, SHM_READ_1, SHM_READERS - 1) < 0)
		return 0;
	fresh.big_endian = WAL_NATIVE_BIG_ENDIAN;
	fresh.salt[0] = r->end.salt[0] + 1;
	io_random(&fresh.salt[1], sizeof(fresh.salt[1]));
	r->end = fresh;
	r->checkpoint++;
	/* K5 */
	shm_set_backfilled(r->shm, 0);
	shm_set_attempted(r->shm, 0);
	FAILPOINT("replica-reset-counted");
	shm_set_mark(r->shm, 1, 0);
	for (unsigned i = 2; i < SHM_READERS; i++)
		shm_set_mark(r->shm, i, replica_idle_mark(i));
	FAILPOINT("replica-reset-marked");
	replica_publish(r);
	FAILPOINT("replica-reset");
	shm_unlock(r->shm, SHM_READ_1, SHM_READERS - 1);
	return 1;
}

/* Nobody reads an empty log: its bytes are only in the way. */
static void cut_log(const struct replica *r)
{
	int64_t size = io_size(r->wal);

	/* A log that stays long is no failure. */
	if (size > 0 && (uint64_t)size / 2 > r->options.max_bytes)
		(void)!ftruncate(r->wal, 0);
}

int replica_empty_log(struct replica *r, unsigned wait_ms)
{
	int64_t deadline = clock_monotonic_ms() + wait_ms;
	int rc;

	for (;;) {
		rc = replica_checkpoint(r);
		if (rc > 0)
			rc = replica_reset(r);
		if (rc != 0 || clock_monotonic_ms() >= deadline)
			break;
		clock_sleep_ms(PAUSE_MS);
	}
	r->held_back = rc == 0;
	r->next_try = rc ? 0 : clock_monotonic_ms() + RETRY_MS;
	if (rc > 0)
		cut_log(r);
	return rc;
}

int replica_tend(struct replica *r)
{
	if (r->end.frames == 0)
		return 1;
	if (r->stage.active ||
	    wal_cursor_offset(&r->end) < r->options.max_bytes ||
	    clock_monotonic_ms() < r->next_try)
		return 0;
	return replica_empty_log(r, r->options.wait_ms);
}

int replica_close(struct replica *r)
{
	int rc;

	replica_abort(r);
	rc = replica_empty_log(r, r->options.wait_ms);
	if (rc > 0 && ftruncate(r->wal, 0) < 0)
		rc = error_errno("emptying %s-wal", r->path);
	replica_free(r);
	return rc < 0 ? rc : 0;
}
