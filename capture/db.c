#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "ltx/dbsum.h"
#include "ltx/spool.h"

#include "capture/db.h"
#include "capture/table.h"

int db_new(struct capture *c, const struct capture_config *config,
	   const char *path, struct db **ret)
{
	struct db *db = calloc(1, sizeof(*db));

	if (db)
		db->path = strdup(path);
	if (!db || !db->path) {
		free(db);
		return error_set(-ENOMEM, "out of memory");
	}
	db->capture = c;
	db->config = config;
	db->durable = config->durable && config->durable(config->arg, path);
	db->state_fd = db->main_fd = db->wal_fd = db->look_fd = -1;
	(void)pthread_mutex_init(&db->settle_lock, NULL);
	(void)pthread_mutex_init(&db->seal_lock, NULL);
	(void)pthread_mutex_init(&db->lock, NULL);
	(void)pthread_mutex_init(&db->mark, NULL);
	*ret = db;
	return 0;
}

void db_close_files(struct db *db)
{
	if (db->main_fd >= 0)
		(void)close(db->main_fd);
	if (db->wal_fd >= 0)
		(void)close(db->wal_fd);
	db->main_fd = db->wal_fd = -1;
	db->files++;
}

void db_free(struct db *db)
{
	if (!db)
		return;
	db_close_files(db);
	fd_cleanup(&db->look_fd);
	free(db->late);
	batch_free(db->open);
	batch_free(db->sealing);
	pages_free(db->pages);
	spool_free(db->spool);
	if (db->state_fd >= 0)
		(void)close(db->state_fd);
	pgmap_clear(&db->wal_index);
	pgmap_clear(&db->dirty.pages);
	(void)pthread_mutex_destroy(&db->mark);
	(void)pthread_mutex_destroy(&db->lock);
	(void)pthread_mutex_destroy(&db->seal_lock);
	(void)pthread_mutex_destroy(&db->settle_lock);
	free(db->path);
	free(db);
}

/*
 * The log hears of trouble once, until it is over: a full disk fails one thing
 * after the other.  Status has the latest.
 */
static void note_error(struct db *db, const char *error)
{
	bool is_new = db->error[0] == '\0';

	(void)snprintf(db->error, sizeof(db->error), "%s", error);
	if (is_new)
		log_error("database is not captured; it will be compared",
			  "db=%s error=%s", log_quote(db->path),
			  log_quote(error));
}

void db_trouble(struct db *db, const char *doing)
{
	char error[sizeof(db->error)];

	(void)snprintf(error, sizeof(error), "%s: %s", doing, error_message());
	db->in_doubt = true;
	db_let_rest(db);
	note_error(db, error);
}

void db_fail(struct db *db, const char *doing)
{
	char error[sizeof(db->error)];

	(void)snprintf(error, sizeof(error), "%s: %s", doing, error_message());
	db_compare(db, 1, error);
	note_error(db, error);
}

/* Links, pipes, sockets and directories are no file of a database: -ENOENT. */
static int open_backing(struct db *db, const char *suffix, int *fd)
{
	char path[4200];
	struct stat st;

	if (*fd >= 0)
		return 0;
	(void)snprintf(path, sizeof(path), "%s%s", db->path, suffix);
	if (fstatat(db->config->dirfd, path, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    !S_ISREG(st.st_mode))
		return error_set(-ENOENT, "'%s' is no regular file", path);
	*fd = openat(db->config->dirfd, path,
		     O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	return *fd < 0 ? error_errno("opening '%s'", path) : 0;
}

int db_open_main(struct db *db)
{
	return open_backing(db, "", &db->main_fd);
}

int db_open_wal(struct db *db)
{
	return open_backing(db, "-wal", &db->wal_fd);
}

/* The state directory's name: a hash, because paths are longer than names. */
static void state_name(const char *path, char ret[33])
{
	XXH128_hash_t hash = XXH3_128bits(path, strlen(path));

	(void)snprintf(ret, 33, "%016" PRIx64 "%016" PRIx64,
		       (uint64_t)hash.high64, (uint64_t)hash.low64);
}

int capture_known(int dirfd, const char *path, uint64_t *ret_txid)
{
	char name[33], file[80];
	struct position position;
	int rc;

	state_name(path, name);
	(void)snprintf(file, sizeof(file), ".litebucket/db/%s/position", name);
	rc = position_load(dirfd, file, &position);
	*ret_txid = rc == 0 ? position.txid : 0;
	return rc == -ENOENT ? 0 : rc;
}

int capture_note_dropped(int dirfd, const char *path,
			 const struct capture_state *drop)
{
	const struct position position = {
		.txid = drop->txid,
		.dbsum = drop->dbsum,
		.known = drop->dbsum,
		.timestamp_ms = drop->timestamp_ms,
		.dropped = true,
	};
	char name[33], file[80];
	int rc;

	state_name(path, name);
	(void)snprintf(file, sizeof(file), ".litebucket/db/%s", name);
	rc = io_make_durable_dirs(dirfd, file, 0700);
	(void)snprintf(file, sizeof(file), ".litebucket/db/%s/name", name);
	if (rc == 0)
		rc = io_write_atomically(dirfd, file, path, strlen(path));
	(void)snprintf(file, sizeof(file), ".litebucket/db/%s/position", name);
	return rc < 0 ? rc : position_store(dirfd, file, &position);
}

/* A new one must outlive a power loss: what is in it will have been sent. */
static int name_state(struct db *db, int state_root_fd, const char *directory)
{
	int rc = io_sync_parent(state_root_fd, directory);

	if (rc < 0)
		return rc;
	return io_write_atomically(db->state_fd, "name", db->path,
				   strlen(db->path));
}

/* What another database left, copied here by hand, is not to be believed. */
static int claim_state(struct db *db, int state_root_fd, const char *directory)
{
	AUTO(buf) struct buf name = BUF_INIT(PATH_MAX);
	int rc = io_read_file(db->state_fd, "name", &name);

	if (rc == -ENOENT)
		return name_state(db, state_root_fd, directory);
	if (rc < 0)
		return rc;
	if (name.size == strlen(db->path) &&
	    memcmp(name.data, db->path, name.size) == 0)
		return 0;
	return error_set(-ERR_CORRUPT,
			 "its state directory .litebucket/db/%s says that it "
			 "is another database's; remove that directory",
			 directory);
}

static int open_state(struct db *db, int state_root_fd)
{
	char name[33];
	int rc;

	state_name(db->path, name);
	rc = io_make_dirs(state_root_fd, name, 0700);
	if (rc < 0)
		return rc;
	db->state_fd = openat(state_root_fd, name,
			      O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (db->state_fd < 0)
		return error_errno("opening state directory '%s'", name);
	return claim_state(db, state_root_fd, name);
}

/* position and pages belong together, or everything is unknown. */
static int check_pages(struct db *db)
{
	uint64_t sum = pages_sum(db->pages, db->position.commit);

	if (db->position.page_size == 0 || sum == db->position.known ||
	    pages_count(db->pages) == 0)
		return 0;
	log_warn("page hashes do not fit; comparing and sending every page",
		 "db=%s", log_quote(db->path));
	return pages_truncate(db->pages, 0);
}

/*
 * The end of what a crash interrupted.  Position is written before a batch can
 * be seen, so what is behind it was taken back.
 */
static int recover(struct db *db, bool has_position)
{
	int rc;

	(void)unlinkat(db->state_fd, "merged.tmp", 0);
	rc = db_recover_sealing(db);
	if (rc == 0 && has_position)
		rc = spool_cut(db->spool, db->position.txid);
	return rc;
}

static int take_up_state(struct db *db)
{
	int rc = db_recover_adopting(db);
	bool has_position;

	if (rc < 0)
		return rc;
	rc = position_load(db->state_fd, "position", &db->position);
	has_position = rc == 0;
	if (rc < 0 && rc != -ENOENT)
		return rc;
	rc = pages_open(db->state_fd, "pages", &db->pages);
	if (rc == 0)
		rc = spool_open(db->state_fd, "spool", &db->spool);
	if (rc == 0)
		rc = recover(db, has_position);
	if (rc == 0)
		rc = spool_join(db->spool, &db->capture->budget);
	if (rc == 0)
		rc = check_pages(db);
	if (rc < 0)
		return rc;
	db->page_size = db->position.page_size;
	db_number_dirty(db);
	/* Until somebody knows better: the file may have changed since. */
	if (db->page_size)
		db_compare(db, 1, "it may have changed since it was captured");
	if (pages_count(db->pages) == 0)
		return 0;
	db->commit = db->position.commit;
	db->dbsum = db->position.known;
	return 0;
}

static uint64_t confirmed_txid(struct db *db)
{
	uint64_t first, last;

	if (spool_range(db->spool, &first, &last) < 0 || first == 0)
		return db->position.txid;
	return first - 1;
}

int db_attach(struct db *db, int state_root_fd)
{
	int rc;

	if (db->spool)
		return 0;
	rc = open_state(db, state_root_fd);
	if (rc == 0)
		rc = take_up_state(db);
	if (rc < 0) {
		db_detach(db);
		return error_wrap(rc, "taking up the state of '%s'", db->path);
	}
	if (!atomic_load(&db->held))
		db_announce(db);
	return 0;
}

void db_announce(struct db *db)
{
	if (db->config->appeared)
		db->config->appeared(db->config->arg, db->path, db->spool,
				     confirmed_txid(db));
}

void db_detach(struct db *db)
{
	pages_free(TAKE(db->pages));
	spool_free(TAKE(db->spool));
	fd_cleanup(&db->state_fd);
	db->state_fd = -1;
}

uint64_t db_known(const struct db *db, uint32_t pgno)
{
	const struct batch *layers[] = { db->open, db->sealing };
	uint64_t hash;

	for (int i = 0; i < 2; i++) {
		if (!layers[i])
			continue;
		if (batch_find(layers[i], pgno, &hash))
			return hash;
		if (pgno > layers[i]->low_commit)
			return 0;
	}
	if (pgno > db->position.commit)
		return 0;
	return pages_get(db->pages, pgno);
}

static int read_from_wal(struct db *db, uint32_t frame, void *ret_page)
{
	uint64_t offset = wal_frame_offset(db->wal.page_size, frame) +
			  WAL_FRAME_HEADER_SIZE;
	ssize_t n = io_pread(db->wal_fd, ret_page, db->page_size, offset);

	if (n == (ssize_t)db->page_size)
		return 0;
	return n < 0 ? error_wrap((int)n, "reading the WAL") :
		       error_set(-EIO, "WAL frame %u vanished", frame);
}

int db_read_page(struct db *db, uint32_t pgno, void *ret_page)
{
	uint32_t frame = pgmap_get(&db->wal_index, pgno);
	ssize_t n;
	int rc;

	if (frame)
		return read_from_wal(db, frame - 1, ret_page);
	rc = db_open_main(db);
	if (rc < 0)
		return rc;
	n = io_pread(db->main_fd, ret_page, db->page_size,
		     (uint64_t)(pgno - 1) * db->page_size);
	if (n < 0)
		return error_wrap((int)n, "reading page %u", pgno);
	memset((char *)ret_page + n, 0, db->page_size - (size_t)n);
	return 0;
}

static int ensure_open(struct db *db)
{
	if (db->open)
		return 0;
	return batch_new(db->state_fd, db->page_size, db->commit, &db->open);
}

int db_put_hashed(struct db *db, uint32_t pgno, const void *page, uint64_t hash)
{
	uint64_t known = db_known(db, pgno);
	int rc;

	if (hash == known)
		return 0;
	rc = ensure_open(db);
	if (rc == 0)
		rc = batch_put(db->open, pgno, page, hash);
	/* If that failed, an older version of the page may be gone (I4). */
	db->dbsum += db_known(db, pgno) - known;
	return rc < 0 ? error_wrap(rc, "capturing page %u", pgno) : 1;
}

int db_put_page(struct db *db, uint32_t pgno, const void *page)
{
	int rc = db_put_hashed(db, pgno, page,
			       ltx_dbsum_page(pgno, page, db->page_size));

	return rc < 0 ? rc : 0;
}

int db_resize(struct db *db, uint32_t commit)
{
	uint32_t lock_pgno = ltx_lock_pgno(db->page_size);
	int rc;

	if (commit == db->commit)
		return 0;
	rc = ensure_open(db);
	if (rc < 0)
		return rc;
	for (uint32_t pgno = commit + 1; pgno <= db->commit; pgno++)
		if (pgno != lock_pgno)
			db->dbsum -= db_known(db, pgno);
	batch_resize(db->open, commit);
	db->commit = commit;
	return 0;
}

/* Pages above old of which nothing is known: 0, or -E2BIG for many. */
static int read_unknown(struct db *db, uint32_t old)
{
	uint32_t lock_pgno = ltx_lock_pgno(db->page_size);
	AUTO(mem) void *page = malloc(db->page_size);
	int left = COLLECT_MAX;

	if (!page)
		return error_set(-ENOMEM, "out of memory for a page");
	for (uint32_t pgno = old + 1; pgno <= db->commit; pgno++) {
		int rc;

		if (pgno == lock_pgno || db_known(db, pgno) != 0)
			continue;
		if (left-- == 0)
			return -E2BIG;
		rc = db_read_page(db, pgno, page);
		if (rc == 0)
			rc = db_put_page(db, pgno, page);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int db_fill(struct db *db, uint32_t old)
{
	int rc;

	/* Whoever compares has not come to them yet. */
	if (db->commit <= old || (db->compare && db->next_pgno <= old))
		return 0;
	rc = db->late_at < db->n_late ? -E2BIG : read_unknown(db, old);
	if (rc == -E2BIG) {
		db_compare(db, old + 1, NULL);
		return 0;
	}
	if (rc == 0 && db->compare)
		db->next_pgno = (uint64_t)db->commit + 1;
	return rc;
}

static int restart(struct db *db, uint32_t page_size)
{
	struct batch *fresh;
	int rc = batch_new(db->state_fd, page_size, 0, &fresh);

	if (rc < 0)
		return rc;
	batch_free(db->open);
	db->open = fresh;
	db->page_size = page_size;
	db->commit = 0;
	db->dbsum = 0;
	db_renumber_dirty(db);
	return 0;
}

int db_begin(struct db *db, uint32_t page_size)
{
	int rc = capture_attach(db);

	if (rc < 0 || page_size == db->page_size)
		return rc;
	return restart(db, page_size);
}

int db_go_back(struct db *db, const struct position *to, uint32_t page_size)
{
	int rc;

	batch_free(TAKE(db->open));
	db->position = *to;
	db->last_epoch = 0;
	db->page_size = to->page_size;
	db->commit = to->commit;
	db->dbsum = to->known;
	/* What is only in the WAL is to be read once more. */
	db_forget_wal(db);
	atomic_store(&db->wal_touched, true);
	if (page_size == 0)
		return 0;
	rc = db_begin(db, page_size);
	if (rc == 0)
		rc = ensure_open(db);
	/* Who waits for what was given up is told by the next batch. */
	if (rc == 0)
		db->open->changed = true;
	return rc;
}

bool db_has_news(const struct db *db)
{
	return db->sealing || (db->open && db->open->changed);
}

void db_let_rest(struct db *db)
{
	if (atomic_exchange(&db->resting, true))
		return;
	atomic_store(&db->resting_ms, clock_monotonic_ms());
	capture_wake(db->capture);
}

void db_notify(struct db *db)
{
	if (db->config->committed)
		db->config->committed(db->config->arg, db->path);
}
