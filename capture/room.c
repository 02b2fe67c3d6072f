#include <inttypes.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "ltx/spool.h"

#include "capture/table.h"

/*
 * Who seals sets the room aside first.  How much an open batch takes is known
 * only when it is written; it is never more than this.
 */
enum { PAGE_OVERHEAD = 64, BATCH_OVERHEAD = 4096 };

/* What is to be sealed would take, at most.  0: nothing. */
static uint64_t need_of(struct db *db)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->lock);

	/* A failure is remembered, and sealing finds it. */
	if (!db->spool || db_pull(db) < 0 || !db->open || !db->open->changed)
		return 0;
	return BATCH_OVERHEAD + (uint64_t)db->open->map.used *
					(db->page_size + PAGE_OVERHEAD);
}

static bool try_take(struct spool_budget *b, uint64_t bytes)
{
	uint64_t used = atomic_load(&b->used);

	do
		if (used + bytes > b->max)
			return false;
	while (!atomic_compare_exchange_weak(&b->used, &used, used + bytes));
	return true;
}

static bool is_over(struct spool_budget *b, uint64_t bytes)
{
	return atomic_load(&b->used) + bytes > b->max;
}

/*
 * Who decides about a database that is held reads its spool, and may put another
 * in its place.
 */
static bool may_change(struct db *db)
{
	return !atomic_load(&db->held);
}

/* rc: how a try ended.  True: somebody was in the way, for now. */
static bool note(const struct db *db, int rc)
{
	if (rc < 0 && rc != -EBUSY && rc != -ENOENT)
		log_warn("no room made in the spool", "db=%s error=%s",
			 log_quote(db->path), log_quote(error_message()));
	return rc == -EBUSY;
}

/*
 * One database that cannot be merged does not keep the others.  True: one was
 * busy, and it may be possible in a while.
 */
static bool merge_until(struct capture *c, uint64_t bytes, bool always)
{
	bool busy = false;
	struct db **all;
	size_t n;

	if (table_all(c, &all, &n) < 0)
		return true;
	for (size_t i = 0; i < n && is_over(&c->budget, bytes); i++)
		busy |= note(all[i],
			     may_change(all[i]) ? db_merge(all[i], always) : 0);
	table_release_all(c, all, n);
	return busy;
}

/* True: as above. */
static bool give_up_until(struct capture *c)
{
	bool busy = false;
	struct db **all;
	size_t n;

	if (table_all(c, &all, &n) < 0)
		return true;
	for (size_t i = 0; i < n && is_over(&c->budget, 0); i++)
		busy |= note(all[i], may_change(all[i]) ? db_give_up(all[i]) : 0);
	table_release_all(c, all, n);
	return busy;
}

/*
 * One at a time.  Who comes second waits: what the first one makes is often
 * enough, and without waiting it would be refused although there is room to be
 * made.
 */
static void make_room(struct capture *c, uint64_t bytes)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&c->room_lock);
	bool busy = false;

	if (is_over(&c->budget, bytes))
		busy = merge_until(c, bytes, false);
	if (is_over(&c->budget, 0))
		busy |= merge_until(c, 0, true);
	if (is_over(&c->budget, 0))
		busy |= give_up_until(c);
	/* Somebody sealed or sent just then: the settling thread comes again. */
	if (busy && is_over(&c->budget, 0))
		atomic_store(&c->room_due, true);
}

static int refuse(struct capture *c)
{
	uint64_t used = atomic_load(&c->budget.used);

	(void)error_set(-EDQUOT,
			"the spool is full: %" PRIu64 " of %" PRIu64
			" bytes wait for the bucket; commits go on, and gather "
			"until there is room (--spool-max-size)",
			used, c->budget.max);
	if (!atomic_exchange(&c->full, true))
		log_error("spool is full", "bytes=%" PRIu64 " max=%" PRIu64
			  " error=%s", used, c->budget.max,
			  log_quote(error_message()));
	return -EDQUOT;
}

/* Told once it is worth telling, not at each batch that just fits. */
static void note_room(struct capture *c)
{
	uint64_t used = atomic_load(&c->budget.used);

	if (atomic_load(&c->full) && used <= c->budget.max / 2 &&
	    atomic_exchange(&c->full, false))
		log_info("there is room in the spool again",
			 "bytes=%" PRIu64 " max=%" PRIu64, used,
			 c->budget.max);
}

int db_find_room(struct db *db, bool make, uint64_t *ret_bytes)
{
	struct capture *c = db->capture;
	uint64_t bytes;

	if (c->budget.max == 0)
		return 0;
	note_room(c);
	bytes = need_of(db);
	if (bytes == 0)
		return 0;
	bytes = spool_cost(db->spool, bytes);
	if (make && is_over(&c->budget, bytes))
		make_room(c, bytes);
	if (!try_take(&c->budget, bytes))
		return refuse(c);
	*ret_bytes = bytes;
	return 0;
}

/* Many databases may come and go while the bucket is away. */
bool room_may_exceed(const struct capture *c)
{
	return atomic_load(&c->budget.used) / 2 <= c->budget.max;
}

void room_is_due(struct capture *c)
{
	atomic_store(&c->room_due, true);
}

void db_leave_room(struct db *db, uint64_t bytes)
{
	atomic_fetch_sub(&db->capture->budget.used, bytes);
}

bool room_check(struct capture *c)
{
	if (atomic_exchange(&c->room_due, false) && c->budget.max &&
	    is_over(&c->budget, 0))
		make_room(c, 0);
	return atomic_load(&c->room_due);
}

void capture_spool_status(struct capture *c, struct capture_spool *ret)
{
	note_room(c);
	*ret = (struct capture_spool){
		.used = atomic_load(&c->budget.used),
		.max = c->budget.max,
		.full = atomic_load(&c->full),
	};
}
