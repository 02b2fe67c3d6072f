#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "ltx/header.h"

#include "capture/db.h"

/* More pages than this are not worth listing one by one. */
enum { DIRTY_MAX = 1 << 20 };

/* ---------------------------------------------------------------- writes */

/* Whatever was read of these pages may be old.  Mark held. */
static void touch(struct run *run, uint64_t offset, uint64_t size)
{
	uint64_t first, last;

	if (run->n == 0)
		return;
	first = offset / run->page_size + 1;
	last = (offset + size - 1) / run->page_size + 1;
	if (last < run->pgnos[0] || first > run->pgnos[run->n - 1])
		return;
	for (uint32_t i = 0; i < run->n; i++)
		if (run->pgnos[i] >= first && run->pgnos[i] <= last)
			run->touched[i] = true;
}

/* Mark held. */
static void mark_all(struct db *db)
{
	db->dirty.all = true;
	pgmap_clear(&db->dirty.pages);
	memset(db->run.touched, true, sizeof(db->run.touched));
}

void db_mark(struct db *db, uint64_t offset, uint64_t size)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->mark);
	struct dirty *dirty = &db->dirty;
	uint64_t first, last;

	db->last_write_ms = clock_monotonic_ms();
	if (size == 0)
		return;
	touch(&db->run, offset, size);
	if (dirty->all)
		return;
	if (dirty->page_size == 0 || size > (uint64_t)DIRTY_MAX * 512) {
		mark_all(db);
		return;
	}
	first = offset / dirty->page_size + 1;
	last = (offset + size - 1) / dirty->page_size + 1;
	if (last > UINT32_MAX || dirty->pages.used + (last - first) > DIRTY_MAX) {
		mark_all(db);
		return;
	}
	for (uint64_t pgno = first; pgno <= last; pgno++)
		if (pgmap_set(&dirty->pages, (uint32_t)pgno, 1) < 0) {
			mark_all(db);
			return;
		}
}

void db_mark_all(struct db *db)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->mark);

	db->last_write_ms = clock_monotonic_ms();
	db->begun++;
	db->done++;
	mark_all(db);
}

void db_touch(struct db *db, uint32_t pgno)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->mark);
	uint64_t page_size = db->run.page_size;

	touch(&db->run, (pgno - 1) * page_size, page_size);
}

void db_number_dirty(struct db *db)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->mark);

	/* Pages of another size have other numbers. */
	if (db->dirty.page_size && db->dirty.page_size != db->page_size)
		mark_all(db);
	db->dirty.page_size = db->page_size;
}

void db_renumber_dirty(struct db *db)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->mark);

	mark_all(db);
	db->dirty.page_size = db->page_size;
}

uint64_t db_writes_begun(struct db *db)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->mark);

	return db->begun;
}

/* ------------------------------------------------------ what is looked at */

void db_compare(struct db *db, uint32_t from, const char *why)
{
	struct comparing *c = &db->comparing;

	if (why && (!db->compare || c->why[0] == '\0')) {
		memset(c, 0, sizeof(*c));
		(void)snprintf(c->why, sizeof(c->why), "%s", why);
	}
	if (!db->compare || from < db->next_pgno)
		db->next_pgno = from;
	db->compare = db->in_doubt = true;
	if (from == 1) {
		/* All pages include these. */
		free(TAKE(db->late));
		db->n_late = db->late_at = 0;
	}
	atomic_store(&db->looking, true);
	db_let_rest(db);
}

/* The pages of both, each once, ascending. */
static size_t merge(const uint32_t *a, size_t n_a, const uint32_t *b,
		    size_t n_b, uint32_t *ret)
{
	size_t n = 0, i = 0, j = 0;

	while (i < n_a || j < n_b) {
		if (j == n_b || (i < n_a && a[i] < b[j]))
			ret[n++] = a[i++];
		else if (i == n_a || b[j] < a[i])
			ret[n++] = b[j++];
		else
			j++;
	}
	return n;
}

int db_add_late(struct db *db, const uint32_t *pgnos, size_t n)
{
	size_t left = db->n_late - db->late_at;
	uint32_t *late;

	if (n == 0)
		return 0;
	if (left + n > DIRTY_MAX) {
		db_compare(db, 1, "more pages were written than are noted one "
				  "by one");
		return 0;
	}
	late = malloc((left + n) * sizeof(*late));
	if (!late)
		return error_set(-ENOMEM, "out of memory for %zu pages",
				 left + n);
	n = merge(db->late + db->late_at, left, pgnos, n, late);
	free(db->late);
	db->late = late;
	db->n_late = n;
	db->late_at = 0;
	db->in_doubt = true;
	atomic_store(&db->looking, true);
	db_let_rest(db);
	return 0;
}

static const char *why_all(const struct db *db)
{
	if (db->rest.bare)
		return "it was written without a journal";
	return db->position.txid ? "another file took its name" :
				   "it was not captured before";
}

int db_take_dirty(struct db *db, uint64_t begun)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->mark);
	AUTO(mem) uint32_t *pgnos = NULL;
	size_t n = 0;
	int rc;

	if (db->begun != begun || db->done != begun)
		return error_set(-EAGAIN, "'%s' is being written", db->path);
	if (db->dirty.all)
		db_compare(db, 1, why_all(db));
	rc = pgmap_sorted(&db->dirty.pages, &pgnos, &n);
	if (rc == 0)
		rc = db_add_late(db, pgnos, n);
	if (rc < 0)
		return rc;
	db->dirty.all = false;
	pgmap_clear(&db->dirty.pages);
	return 0;
}

/* The next page that may have to be looked at, or 0. */
static uint32_t next_page(struct db *db)
{
	if (db->late_at < db->n_late)
		return db->late[db->late_at++];
	if (db->compare && db->next_pgno <= db->commit)
		return (uint32_t)db->next_pgno++;
	return 0;
}

/* What is dirty or hidden is somebody else's to look at (I7).  Mark held. */
static bool is_to_be_looked_at(const struct db *db, uint32_t pgno)
{
	return pgno <= db->commit && pgno != ltx_lock_pgno(db->page_size) &&
	       !db->dirty.all && !pgmap_get(&db->dirty.pages, pgno) &&
	       !pgmap_get(&db->wal_index, pgno);
}

uint32_t db_fill_run(struct db *db, uint32_t max)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->mark);
	struct run *run = &db->run;
	uint32_t pgno;

	run->n = 0;
	run->page_size = db->page_size;
	memset(run->touched, false, sizeof(run->touched));
	/* Many that are left out are no reason to hold the lock for long. */
	for (int tries = 0; run->n < max && tries < 64 * RUN_MAX; tries++) {
		pgno = next_page(db);
		if (pgno == 0)
			break;
		if (is_to_be_looked_at(db, pgno))
			run->pgnos[run->n++] = pgno;
	}
	if (run->n > 0)
		db->in_doubt = true;
	return run->n;
}

void db_end_run(struct db *db, bool give_back)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->mark);
	struct run *run = &db->run;

	for (uint32_t i = 0; give_back && i < run->n && !db->dirty.all; i++)
		if (run->page_size != db->dirty.page_size ||
		    pgmap_set(&db->dirty.pages, run->pgnos[i], 1) < 0)
			mark_all(db);
	run->n = 0;
}

bool db_is_through(struct db *db)
{
	/* run.n is changed with lock held, too. */
	return db->late_at == db->n_late && db->run.n == 0 &&
	       !(db->compare && db->next_pgno <= db->commit);
}

static bool has_dirty(const struct db *db)
{
	return db->dirty.all || db->dirty.pages.used > 0;
}

bool db_is_unsettled(struct db *db)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->mark);

	return has_dirty(db) || db->compare || !db_is_through(db);
}

/* Mark held. */
static void clear_doubt(struct db *db)
{
	db->compare = db->in_doubt = false;
	db->error[0] = db->waits[0] = '\0';
	db->told_waits = false;
	db->retry_wait_ms = 0;
	free(TAKE(db->late));
	db->n_late = db->late_at = 0;
	atomic_store(&db->looking, false);
	/* Within mark: who writes after this sets it again. */
	atomic_store(&db->resting, false);
}

/* What came of it.  A difference is in the batch that is sealed next. */
static void tell_result(struct db *db)
{
	struct comparing *c = &db->comparing;

	if (c->told)
		log_info("database compared",
			 "db=%s pages=%" PRIu64 " differed=%u txid=%016" PRIx64,
			 log_quote(db->path), c->looked, c->differed,
			 db->position.txid + (db->sealing != NULL) +
				 (db->open && db->open->changed));
	memset(c, 0, sizeof(*c));
}

bool db_settled(struct db *db, uint64_t begun)
{
	bool through;

	(void)pthread_mutex_lock(&db->mark);
	if (db->begun != begun || db->done != begun) {
		(void)pthread_mutex_unlock(&db->mark);
		return false;
	}
	pgmap_clear(&db->dirty.pages);
	db->dirty.all = false;
	memset(&db->rest, 0, sizeof(db->rest));
	through = db_is_through(db);
	if (through)
		clear_doubt(db);
	(void)pthread_mutex_unlock(&db->mark);
	if (through)
		tell_result(db);
	return true;
}
