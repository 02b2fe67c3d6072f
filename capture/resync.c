#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/log.h"
#include "ltx/dbsum.h"

#include "capture/db.h"

/*
 * Looking at pages while applications use the file: capture/db.h has the
 * argument, and this the steps.
 */
enum {
	RUN_BYTES = 1 << 20, /* read at once */
	SLICE_MS = 50,	     /* then it is another database's turn */
	RETRY_MAX_MS = 60000, /* the longest pause between two tries */
	/* In quiet times: what takes longer is told. */
	LONG = 60,
};

int64_t db_settle_due_ms(struct db *db)
{
	int64_t retry;

	if (!atomic_load(&db->resting) || atomic_load(&db->held))
		return INT64_MAX;
	AUTO(unlock) pthread_mutex_t *held = lock(&db->mark);
	retry = db->retry_wait_ms ? db->retry_at_ms : 0;
	if (atomic_load(&db->looking))
		return retry;
	if (atomic_load(&db->journal_live))
		return INT64_MAX;
	if ((!db->rest.bare && db->begun == db->done) ||
	    db_rest_due_ms(db) < retry)
		return retry;
	return db_rest_due_ms(db);
}

/* --------------------------------------------------------------- a step */

/* Once, when the first page of a comparison is chosen.  Lock held. */
static void tell_beginning(struct db *db)
{
	struct comparing *c = &db->comparing;

	if (!db->compare || c->told || c->why[0] == '\0')
		return;
	c->told = true;
	log_info("comparing database", "db=%s why=%s pages=%u",
		 log_quote(db->path), log_quote(c->why), db->commit);
}

/* The main file, by a descriptor of our own.  Lock and settle_lock held. */
static int open_look(struct db *db)
{
	int rc = db_open_main(db);

	if (rc < 0 || (db->look_fd >= 0 && db->look_files == db->files))
		return rc;
	if (db->look_fd >= 0)
		(void)close(db->look_fd);
	db->look_fd = fcntl(db->main_fd, F_DUPFD_CLOEXEC, 0);
	if (db->look_fd < 0)
		return error_errno("opening '%s'", db->path);
	db->look_files = db->files;
	return 0;
}

static uint32_t run_max(const struct db *db)
{
	uint32_t n = RUN_BYTES / db->page_size;

	return n < RUN_MAX ? n : RUN_MAX;
}

/* What db_check_rest() said. */
struct answer {
	int rc;
	uint64_t begun;
	char why[sizeof(((struct db *)NULL)->waits)];
};

static void ask_rest(struct db *db, bool now, struct answer *ret)
{
	ret->rc = db_check_rest(db, now, &ret->begun);
	(void)snprintf(ret->why, sizeof(ret->why), "%s",
		       ret->rc < 0 ? error_message() : "");
}

/* Nothing is left to choose.  0: settled; 1: it is, but a limit was reached. */
static int finish(struct db *db, const struct answer *rest)
{
	if (!db_is_through(db))
		return 1;
	atomic_store(&db->looking, false);
	if (atomic_load(&db->journal_live))
		return error_set(-EBUSY, "'%s' is in a transaction", db->path);
	if (rest->rc < 0)
		return error_set(rest->rc, "%s", rest->why);
	if (!db_settled(db, rest->begun))
		return error_set(-EBUSY, "'%s' is being written", db->path);
	if (db_has_news(db))
		db_notify(db);
	return 0;
}

/*
 * Choose a run: 2.  Or as finish().  What a running transaction writes is not
 * a state of the database, so neither size nor dirty pages are taken then.
 */
static int choose(struct db *db, const struct answer *rest)
{
	int rc = db_pull(db);

	if (rc == 0 && rest->rc == 0 && !atomic_load(&db->journal_live))
		rc = db_measure(db, rest->begun);
	if (rc == -ERR_NO_DATABASE) {
		/* Another write may make it a database yet. */
		atomic_store(&db->resting, false);
		return rc;
	}
	if (rc == -EAGAIN)
		rc = 0; /* what is not dirty can be looked at all the same */
	if (rc < 0)
		return rc;
	if (db->page_size == 0 || db_fill_run(db, run_max(db)) == 0)
		return finish(db, rest);
	tell_beginning(db);
	rc = open_look(db);
	if (rc < 0)
		db_end_run(db, true);
	return rc < 0 ? rc : 2;
}

/* Zeros beyond the end of the file, as db_read_page(). */
static int read_pages(struct db *db, uint32_t first, uint32_t n, uint8_t *pages)
{
	size_t size = (size_t)n * db->run.page_size;
	ssize_t got = io_pread(db->look_fd, pages, size,
			       (uint64_t)(first - 1) * db->run.page_size);

	if (got < 0)
		return error_wrap((int)got, "reading page %u", first);
	memset(pages + got, 0, size - (size_t)got);
	return 0;
}

/* Without any lock but settle_lock: only who has that changes n and pgnos. */
static int read_run(struct db *db, uint8_t *pages, uint64_t *hashes)
{
	const struct run *run = &db->run;
	int rc = 0;

	for (uint32_t i = 0, n; rc == 0 && i < run->n; i += n) {
		for (n = 1; i + n < run->n &&
			    run->pgnos[i + n] == run->pgnos[i] + n;
		     n++)
			;
		rc = read_pages(db, run->pgnos[i], n,
				pages + (size_t)i * run->page_size);
	}
	for (uint32_t i = 0; rc == 0 && i < run->n; i++)
		hashes[i] = ltx_dbsum_page(run->pgnos[i],
					   pages + (size_t)i * run->page_size,
					   run->page_size);
	return rc;
}

/* As they are now; a page that is touched later is dirty then. */
static void copy_touched(struct db *db, bool touched[RUN_MAX])
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->mark);

	memcpy(touched, db->run.touched, sizeof(db->run.touched));
}

static int put_run(struct db *db, const uint8_t *pages, const uint64_t *hashes)
{
	const struct run *run = &db->run;
	bool touched[RUN_MAX];

	copy_touched(db, touched);
	for (uint32_t i = 0; i < run->n; i++) {
		int rc;

		if (touched[i] || run->pgnos[i] > db->commit)
			continue;
		rc = db_put_hashed(db, run->pgnos[i],
				   pages + (size_t)i * run->page_size,
				   hashes[i]);
		if (rc < 0)
			return rc;
		db->comparing.differed += (uint32_t)rc;
	}
	db->comparing.looked += run->n;
	return 0;
}

static int enter_run(struct db *db, const uint8_t *pages,
		     const uint64_t *hashes, int rc)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->lock);
	bool same = db->look_files == db->files &&
		    db->run.page_size == db->page_size;

	if (rc == 0 && same)
		rc = put_run(db, pages, hashes);
	db_end_run(db, rc < 0 || !same);
	return rc < 0 ? rc : 1;
}

/* One run.  Results as db_settle(). */
static int step(struct db *db, bool now, uint8_t *pages)
{
	uint64_t hashes[RUN_MAX];
	struct answer rest;
	int rc = 0;

	ask_rest(db, now, &rest);
	(void)pthread_mutex_lock(&db->lock);
	if (atomic_load(&db->resting) || db->in_doubt)
		rc = choose(db, &rest);
	(void)pthread_mutex_unlock(&db->lock);
	if (rc != 2)
		return rc;
	rc = read_run(db, pages, hashes);
	SLOWPOINT("resync-run");
	return enter_run(db, pages, hashes, rc);
}

/* ---------------------------------------------------------- what came of it */

/* A disk that stays full is not asked, nor all pages compared, every second. */
static void wait_longer(struct db *db)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->mark);

	db->retry_wait_ms = db->retry_wait_ms ? 2 * db->retry_wait_ms : 1000;
	if (db->retry_wait_ms > RETRY_MAX_MS)
		db->retry_wait_ms = RETRY_MAX_MS;
	db->retry_at_ms = clock_monotonic_ms() + db->retry_wait_ms;
}

/* Say once what keeps a database from being settled. */
static void note_waiting(struct db *db)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->lock);
	int64_t since = clock_monotonic_ms() - atomic_load(&db->resting_ms);

	(void)snprintf(db->waits, sizeof(db->waits), "%s", error_message());
	if (since < LONG * db_quiet_ms(db) || db->told_waits)
		return;
	db->told_waits = true;
	log_warn("database is not captured until it comes to rest",
		 "db=%s seconds=%" PRId64 " waits=%s", log_quote(db->path),
		 since / 1000, log_quote(db->waits));
}

static void note_failure(struct db *db)
{
	(void)pthread_mutex_lock(&db->lock);
	db_trouble(db, "comparing");
	(void)pthread_mutex_unlock(&db->lock);
	wait_longer(db);
}

static int settle(struct db *db, bool now)
{
	AUTO(mem) uint8_t *pages = malloc(RUN_BYTES);
	int64_t until = clock_monotonic_ms() + SLICE_MS;
	int rc;

	if (!pages)
		return error_set(-ENOMEM, "out of memory for pages");
	/* A WAL that was void while the main file was empty is not any more. */
	if (atomic_load(&db->resting))
		atomic_store(&db->wal_touched, true);
	do {
		rc = step(db, now, pages);
	} while (rc == 1 && clock_monotonic_ms() < until);
	return rc;
}

int db_settle(struct db *db, bool now)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->settle_lock);
	int rc;

	if (atomic_load(&db->held))
		return error_set(-EBUSY, "'%s' is not taken up yet", db->path);
	rc = settle(db, now);
	if (rc == -ERR_NO_DATABASE)
		rc = db_drop(db);
	if (rc == -EBUSY)
		note_waiting(db);
	else if (rc < 0)
		note_failure(db);
	return rc;
}
