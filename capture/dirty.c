#include "base/cleanup.h"
#include "base/clock.h"

#include "capture/db.h"

/* More pages than this are not worth listing one by one. */
enum { DIRTY_MAX = 1 << 20 };

static void mark_all(struct dirty *dirty)
{
	dirty->all = true;
	pgmap_clear(&dirty->pages);
}

void db_mark(struct db *db, uint64_t offset, uint64_t size)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->mark);
	struct dirty *dirty = &db->dirty;
	uint64_t first, last;

	db->last_write_ms = clock_monotonic_ms();
	if (dirty->all || size == 0)
		return;
	if (dirty->page_size == 0 || size > (uint64_t)DIRTY_MAX * 512) {
		mark_all(dirty);
		return;
	}
	first = offset / dirty->page_size + 1;
	last = (offset + size - 1) / dirty->page_size + 1;
	if (last > UINT32_MAX || dirty->pages.used + (last - first) > DIRTY_MAX) {
		mark_all(dirty);
		return;
	}
	for (uint64_t pgno = first; pgno <= last; pgno++)
		if (pgmap_set(&dirty->pages, (uint32_t)pgno, 1) < 0) {
			mark_all(dirty);
			return;
		}
}

void db_number_dirty(struct db *db)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->mark);

	/* Pages of another size have other numbers. */
	if (db->dirty.page_size && db->dirty.page_size != db->page_size)
		mark_all(&db->dirty);
	db->dirty.page_size = db->page_size;
}

bool db_is_unsettled(struct db *db)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->mark);

	return db->dirty.all || db->dirty.pages.used > 0 || db->compare;
}

uint64_t db_writes_begun(struct db *db)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->mark);

	return db->begun;
}

bool db_settled(struct db *db, uint64_t begun)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->mark);

	if (db->begun != begun || db->done != begun)
		return false;
	pgmap_clear(&db->dirty.pages);
	db->dirty.all = false;
	db->compare = db->in_doubt = false;
	db->error[0] = '\0';
	db->retry_wait_ms = 0;
	/* Within mark: who writes after this sets it again. */
	atomic_store(&db->resting, false);
	return true;
}

void db_mark_all(struct db *db)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->mark);

	db->last_write_ms = clock_monotonic_ms();
	mark_all(&db->dirty);
}
