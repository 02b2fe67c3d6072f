#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "ltx/dbsum.h"

#include "capture/db.h"

void db_forget_wal(struct db *db)
{
	pgmap_clear(&db->wal_index);
	memset(&db->wal, 0, sizeof(db->wal));
	db->wal_valid = db->wal_rewound = false;
	atomic_store(&db->wal_end, 0);
	atomic_store(&db->wal_commit_end, 0);
}

/* A WAL beside an empty database is void: SQLite deletes it, unread. */
static int main_is_empty(struct db *db)
{
	int rc = db_open_main(db);
	int64_t size;

	if (rc < 0)
		return rc == -ENOENT ? 1 : rc;
	size = io_size(db->main_fd);
	return size < 0 ? (int)size : size == 0;
}

/*
 * Be behind the header of the WAL there is.  1: so; 0: there is none, or
 * nothing valid in it.
 */
static int find_wal(struct db *db)
{
	int rc = db_open_wal(db);

	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	if (db->wal_valid)
		return 1;
	rc = main_is_empty(db);
	if (rc != 0)
		return rc < 0 ? rc : 0;
	rc = wal_begin(db->wal_fd, &db->wal);
	if (rc <= 0)
		return rc;
	db->wal_valid = true;
	atomic_store(&db->wal_page_size, db->wal.page_size);
	return 1;
}

/* The range's frames into the index: where each page is now. */
static int index_frames(struct db *db, const uint32_t *pgnos, size_t n,
			uint32_t first)
{
	for (size_t i = 0; i < n; i++) {
		int rc = pgmap_set(&db->wal_index, pgnos[i],
				   first + (uint32_t)i + 1);
		if (rc < 0)
			return rc;
		db_touch(db, pgnos[i]);
	}
	return 0;
}

/* Each page of the list once: its latest version, if it is part of the database. */
static int put_listed(struct db *db, const uint32_t *pgnos, size_t n)
{
	uint32_t lock_pgno = ltx_lock_pgno(db->page_size);
	AUTO(mem) void *page = malloc(db->page_size);

	if (!page)
		return error_set(-ENOMEM, "out of memory for a page");
	for (size_t i = 0; i < n; i++) {
		int rc;

		if (pgnos[i] > db->commit || pgnos[i] == lock_pgno)
			continue;
		rc = db_read_page(db, pgnos[i], page);
		if (rc == 0)
			rc = db_put_page(db, pgnos[i], page);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* Pages of the list, each once, in ascending order. */
static int distinct(const uint32_t *pgnos, size_t n, struct pgmap *ret)
{
	for (size_t i = 0; i < n; i++) {
		int rc = pgmap_set(ret, pgnos[i], 1);

		if (rc < 0)
			return rc;
	}
	return 0;
}

/* What these frames say is the database now. */
static int take_frames(struct db *db, const uint32_t *pgnos, size_t n)
{
	struct pgmap set = PGMAP_INIT;
	AUTO(mem) uint32_t *sorted = NULL;
	size_t n_sorted = 0;
	uint32_t old = db->commit;
	int rc = distinct(pgnos, n, &set);

	if (rc == 0)
		rc = pgmap_sorted(&set, &sorted, &n_sorted);
	pgmap_clear(&set);
	if (rc == 0)
		rc = db_resize(db, db->wal.commit);
	if (rc == 0)
		rc = put_listed(db, sorted, n_sorted);
	return rc == 0 ? db_fill(db, old) : rc;
}

/*
 * What was committed since the last time.  The end is told before the pages
 * are read: from then on a writer that writes over frames waits for the lock.
 */
static int pull_frames(struct db *db)
{
	AUTO(mem) uint32_t *pgnos = NULL;
	uint32_t first = db->wal.frames;
	int64_t n = wal_advance(db->wal_fd, &db->wal, &pgnos);
	bool unsettled;
	int rc;

	if (n <= 0)
		return (int)n;
	atomic_store(&db->wal_end, wal_cursor_offset(&db->wal));
	unsettled = db_is_unsettled(db);
	rc = db_begin(db, db->wal.page_size);
	if (rc == 0)
		rc = index_frames(db, pgnos, (size_t)n, first);
	if (rc == 0)
		rc = take_frames(db, pgnos, (size_t)n);
	if (rc == 0 && unsettled) {
		/*
		 * Somebody else wrote the main file beneath this commit; the
		 * two are a state of the database only together (I1).
		 */
		db->in_doubt = true;
		db_let_rest(db);
	}
	return rc;
}

static int pull(struct db *db)
{
	int rc = find_wal(db);

	return rc <= 0 ? rc : pull_frames(db);
}

/*
 * Captured frames were written over: that commit was given up (its fsync
 * failed).  Read the log from its beginning, and look again at every page that
 * the old or the new chain names.
 */
static int pull_rewound(struct db *db)
{
	AUTO(mem) uint32_t *before = NULL;
	size_t n = 0;
	int rc = pgmap_sorted(&db->wal_index, &before, &n);

	if (rc < 0)
		return rc;
	log_warn("a commit was taken back; comparing its pages", "db=%s",
		 log_quote(db->path));
	db_forget_wal(db);
	rc = pull(db);
	if (rc == 0 && db->wal.commit == 0)
		rc = db_collect(db); /* only the main file tells the size */
	if (rc == 0)
		rc = put_listed(db, before, n);
	return rc;
}

/* Is what was captured last still there?  1: yes, or nothing was; 0: no. */
static int check_end(struct db *db)
{
	int rc;

	if (db->wal_rewound)
		return 0;
	if (!db->wal_valid)
		return 1;
	rc = db_open_wal(db);
	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	return wal_check(db->wal_fd, &db->wal);
}

int db_pull(struct db *db)
{
	int rc;

	if (!atomic_exchange(&db->wal_touched, false) && !db->wal_rewound)
		return 0;
	rc = check_end(db);
	if (rc >= 0)
		rc = rc > 0 ? pull(db) : pull_rewound(db);
	if (rc < 0) {
		/* Half known is worse than not known: from its beginning. */
		db_forget_wal(db);
		atomic_store(&db->wal_touched, true);
		db_fail(db, "reading the WAL");
		return rc;
	}
	atomic_store(&db->wal_in_use, db->wal_valid);
	if (atomic_load(&db->wal_commit_end) == UINT64_MAX)
		atomic_store(&db->wal_commit_end, 0);
	return 0;
}

/* A page that the WAL had hidden: is it in the main file what was captured? */
static int look_behind(struct db *db, uint32_t pgno, void *page)
{
	int rc = db_read_page(db, pgno, page);

	if (rc < 0 ||
	    ltx_dbsum_page(pgno, page, db->page_size) == db_known(db, pgno))
		return rc;
	/*
	 * No: somebody took the WAL away, or a commit was given up that was
	 * its first.  What open says of the page is not so (any more).
	 */
	db_mark(db, (uint64_t)(pgno - 1) * db->page_size, 1);
	db->in_doubt = true;
	db_let_rest(db);
	return 0;
}

int db_wal_gone(struct db *db)
{
	AUTO(mem) uint32_t *hidden = NULL;
	AUTO(mem) uint8_t *page = NULL;
	size_t n = 0;
	int rc = pgmap_sorted(&db->wal_index, &hidden, &n);

	db_forget_wal(db);
	fd_cleanup(&db->wal_fd);
	db->wal_fd = -1;
	atomic_store(&db->wal_in_use, false);
	if (rc < 0 || n == 0)
		return rc;
	page = malloc(db->page_size);
	if (!page)
		return error_set(-ENOMEM, "out of memory for a page");
	for (size_t i = 0; rc == 0 && i < n; i++)
		if (hidden[i] <= db->commit &&
		    hidden[i] != ltx_lock_pgno(db->page_size))
			rc = look_behind(db, hidden[i], page);
	return rc;
}
