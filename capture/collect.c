#include <stdlib.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"

#include "capture/db.h"

/* What a database's main file says of itself. */
struct file_state {
	struct format_header header;
	uint64_t size;
};

/* -ERR_NO_DATABASE. */
static int look_at_main(struct db *db, struct file_state *ret)
{
	uint8_t data[FORMAT_HEADER_SIZE];
	struct file_state state = { 0 };
	ssize_t n;
	int64_t size;
	int rc = db_open_main(db);

	if (rc == -ENOENT)
		return error_set(-ERR_NO_DATABASE, "'%s' is gone", db->path);
	if (rc < 0)
		return rc;
	size = io_size(db->main_fd);
	if (size < 0)
		return (int)size;
	state.size = (uint64_t)size;
	n = io_pread(db->main_fd, data, sizeof(data), 0);
	if (n < 0)
		return (int)n;
	if (n < (ssize_t)sizeof(data) ||
	    !format_parse_header(data, &state.header))
		return error_set(-ERR_NO_DATABASE, "'%s' is not a database",
				 db->path);
	*ret = state;
	return 0;
}

int db_find_main(struct db *db)
{
	struct file_state file;

	return look_at_main(db, &file);
}

/*
 * The size of the database: what the header says, where it is valid; SQLite
 * shortens the file only after the journal went.
 */
static uint32_t database_size(const struct file_state *state)
{
	if (state->header.pages)
		return state->header.pages;
	return (uint32_t)(state->size / state->header.page_size);
}

/* The longest pause between two tries to settle. */
enum { RETRY_MAX_MS = 60000 };

/* The pages to look at: all, or the dirty ones. */
static int list_dirty(struct db *db, bool *ret_all, uint32_t **ret_pgnos,
		      size_t *ret_n)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->mark);

	*ret_all = db->dirty.all || db->compare;
	if (*ret_all)
		return 0;
	return pgmap_sorted(&db->dirty.pages, ret_pgnos, ret_n);
}

static int put_page(struct db *db, uint32_t pgno, void *page)
{
	int rc;

	if (pgno > db->commit || pgno == ltx_lock_pgno(db->page_size))
		return 0;
	rc = db_read_page(db, pgno, page);
	return rc < 0 ? rc : db_put_page(db, pgno, page);
}

static int put_dirty(struct db *db)
{
	AUTO(mem) void *page = malloc(db->page_size);
	AUTO(mem) uint32_t *pgnos = NULL;
	size_t n = 0;
	bool all;
	int rc = list_dirty(db, &all, &pgnos, &n);

	if (!page)
		return error_set(-ENOMEM, "out of memory for a page");
	for (uint32_t pgno = 1; rc == 0 && all && pgno <= db->commit; pgno++)
		rc = put_page(db, pgno, page);
	for (size_t i = 0; rc == 0 && !all && i < n; i++)
		rc = put_page(db, pgnos[i], page);
	return rc;
}

int db_collect(struct db *db)
{
	struct file_state file;
	uint32_t old;
	int rc = look_at_main(db, &file);

	if (rc < 0)
		return rc;
	rc = db_begin(db, file.header.page_size);
	if (rc < 0)
		return rc;
	old = db->commit;
	/* While a WAL has commits, it tells the size (I3). */
	rc = db_resize(db, db->wal.commit ? db->wal.commit :
					    database_size(&file));
	if (rc == 0)
		rc = put_dirty(db);
	if (rc == 0 && db->commit > old)
		rc = db_fill(db, old + 1);
	return rc;
}

/* ------------------------------------------------ files nobody finalised */

static int64_t quiet_ms(const struct db *db)
{
	return db->config->quiet_ms ? db->config->quiet_ms : 1000;
}

int64_t db_settle_due_ms(struct db *db)
{
	int64_t due;

	if (!atomic_load(&db->resting) || atomic_load(&db->journal_live))
		return INT64_MAX;
	AUTO(unlock) pthread_mutex_t *held = lock(&db->mark);
	due = db->last_write_ms + quiet_ms(db);
	return db->retry_wait_ms && db->retry_at_ms > due ? db->retry_at_ms :
							    due;
}

/* Writes begun so far; -EBUSY if one is under way or was just now. */
static int64_t writes_at_rest(struct db *db, bool now)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->mark);
	int64_t since = clock_monotonic_ms() - db->last_write_ms;

	if (db->begun != db->done)
		return -EBUSY;
	if (since < quiet_ms(db) && !(now && db->writers == 0))
		return -EBUSY;
	return (int64_t)db->begun;
}

/*
 * A file that is being copied in has a header long before it has all pages.
 * An unfinished copy of a database is not a database yet.
 */
static int check_whole(struct db *db)
{
	struct file_state file;
	int rc = look_at_main(db, &file);

	if (rc < 0)
		return rc;
	if (!db->wal.commit && file.header.pages &&
	    (uint64_t)file.header.pages * file.header.page_size > file.size)
		return error_set(-EBUSY, "'%s' is not complete", db->path);
	return 0;
}

/* Lock held.  The file is a database, whole and at rest. */
static int settle_database(struct db *db, uint64_t begun)
{
	int rc;

	/* Reading like a seqlock: what a write came into is not committed. */
	db->in_doubt = true;
	rc = db_collect(db);
	if (rc < 0) {
		db_fail(db, "comparing");
		return rc;
	}
	if (atomic_load(&db->journal_live) || !db_settled(db, begun))
		return error_set(-EBUSY, "'%s' is being written", db->path);
	if (db_has_news(db))
		db_notify(db);
	return 0;
}

static int try_settle(struct db *db, bool now)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->lock);
	int64_t begun;
	int rc;

	if (!atomic_load(&db->resting) && !db->in_doubt)
		return 0;
	if (atomic_load(&db->journal_live))
		return error_set(-EBUSY, "'%s' is in a transaction", db->path);
	begun = writes_at_rest(db, now);
	if (begun < 0)
		return error_set(-EBUSY, "'%s' is being written", db->path);
	/* A WAL that was void while the main file was empty is not any more. */
	atomic_store(&db->wal_touched, true);
	rc = db_pull(db);
	if (rc == 0)
		rc = check_whole(db);
	if (rc == -ERR_NO_DATABASE)
		/* Another write may make it a database yet. */
		atomic_store(&db->resting, false);
	return rc < 0 ? rc : settle_database(db, (uint64_t)begun);
}

/* A disk that stays full is not asked, nor all pages compared, every second. */
static void wait_longer(struct db *db)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->mark);

	db->retry_wait_ms = db->retry_wait_ms ? 2 * db->retry_wait_ms : 1000;
	if (db->retry_wait_ms > RETRY_MAX_MS)
		db->retry_wait_ms = RETRY_MAX_MS;
	db->retry_at_ms = clock_monotonic_ms() + db->retry_wait_ms;
}

int db_settle(struct db *db, bool now)
{
	int rc = try_settle(db, now);

	if (rc == -ERR_NO_DATABASE)
		rc = db_drop(db);
	if (rc < 0 && rc != -EBUSY)
		wait_longer(db);
	return rc;
}
