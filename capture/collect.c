#include <stdlib.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/io.h"

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
 * shortens the file only after the journal went.  While a WAL has commits, it
 * tells the size (I3).
 */
static uint32_t database_size(const struct db *db,
			      const struct file_state *state)
{
	if (db->wal.commit)
		return db->wal.commit;
	if (state->header.pages)
		return state->header.pages;
	return (uint32_t)(state->size / state->header.page_size);
}

/* ------------------------------------------------------- a finalisation */

/* The pages to look at: all, or the dirty ones. */
static int list_dirty(struct db *db, bool *ret_all, uint32_t **ret_pgnos,
		      size_t *ret_n)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->mark);

	*ret_all = db->dirty.all;
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

static int put_all(struct db *db, void *page)
{
	int rc = 0;

	if (db->commit > COLLECT_MAX) {
		db_compare(db, 1,
			   "a transaction wrote more pages than are noted");
		return 0;
	}
	for (uint32_t pgno = 1; rc == 0 && pgno <= db->commit; pgno++)
		rc = put_page(db, pgno, page);
	return rc;
}

/* How many quiet times huge transactions may go on, one after the other. */
enum { OVERDUE = 5 };

/*
 * The pages of a huge transaction are looked at later (D18).  But if they come
 * one after the other, so that there is always something late, the application
 * has to wait for once.
 */
static bool may_be_late(struct db *db, size_t n)
{
	int64_t since = clock_monotonic_ms() - atomic_load(&db->resting_ms);

	return n > COLLECT_MAX &&
	       (!db->in_doubt || since < OVERDUE * db_quiet_ms(db));
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
	if (rc < 0 || all)
		return rc < 0 ? rc : put_all(db, page);
	if (may_be_late(db, n))
		return db_add_late(db, pgnos, n);
	for (size_t i = 0; rc == 0 && i < n; i++)
		rc = put_page(db, pgnos[i], page);
	return rc;
}

int db_collect(struct db *db)
{
	struct file_state file;
	uint32_t old;
	int rc = look_at_main(db, &file);

	if (rc == 0)
		rc = db_begin(db, file.header.page_size);
	if (rc < 0)
		return rc;
	old = db->commit;
	rc = db_resize(db, database_size(db, &file));
	if (rc == 0)
		rc = put_dirty(db);
	return rc == 0 ? db_fill(db, old) : rc;
}

/* -------------------------------------------------------- a file at rest */

/*
 * A file that is being copied in has a header long before it has all pages.
 * An unfinished copy of a database is not a database yet.  As for SQLite, a page
 * that the file ends in is one: a backup of an empty database makes such.
 */
static int check_whole(struct db *db, const struct file_state *file)
{
	if (!db->wal.commit && file->header.pages &&
	    (uint64_t)(file->header.pages - 1) * file->header.page_size >=
		    file->size)
		return error_set(-EBUSY, "'%s' is not complete: its header "
					 "says %u pages, and there are %llu",
				 db->path, file->header.pages,
				 (unsigned long long)(file->size /
						      file->header.page_size));
	return 0;
}

int db_measure(struct db *db, uint64_t begun)
{
	struct file_state file;
	uint32_t old;
	int rc = look_at_main(db, &file);

	if (rc == 0)
		rc = check_whole(db, &file);
	if (rc == 0)
		rc = db_begin(db, file.header.page_size);
	if (rc == 0)
		rc = db_take_dirty(db, begun);
	if (rc < 0)
		return rc;
	old = db->commit;
	rc = db_resize(db, database_size(db, &file));
	return rc == 0 ? db_fill(db, old) : rc;
}
