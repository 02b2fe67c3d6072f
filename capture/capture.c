#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/boot.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "ltx/spool.h"

#include "capture/table.h"
#include "capture/unread.h"

/* -------------------------------------------------------- state directory */

static int open_state_dirs(struct capture *c)
{
	int rc = io_make_durable_dirs(c->config.dirfd, ".litebucket/db",
				      0700);

	if (rc < 0)
		return rc;
	c->state_fd = openat(c->config.dirfd, ".litebucket",
			     O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (c->state_fd < 0)
		return error_errno("opening '.litebucket'");
	c->state_root_fd = openat(c->state_fd, "db",
				  O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (c->state_root_fd < 0)
		return error_errno("opening '.litebucket/db'");
	c->lock_fd = openat(c->state_fd, "lock",
			    O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (c->lock_fd < 0)
		return error_errno("opening '.litebucket/lock'");
	if (flock(c->lock_fd, LOCK_EX | LOCK_NB) < 0)
		return error_set(-EBUSY, "another litebucket uses this "
					 "directory; stop that one first");
	return 0;
}

/*
 * "clean" names the run that ended in order.  It is taken away while we run,
 * so that after a crash no database is believed to be as it was left.
 */
static int take_clean_mark(struct capture *c)
{
	AUTO(buf) struct buf text = BUF_INIT(64);
	int rc = io_read_file(c->state_fd, "clean", &text);

	if (rc == -ENOENT)
		return 0;
	if (rc < 0)
		return rc;
	c->run = strtoull(text.data ? text.data : "", NULL, 16);
	if (unlinkat(c->state_fd, "clean", 0) < 0)
		return error_errno("removing '.litebucket/clean'");
	return io_sync_parent(c->state_fd, "clean");
}

const char *capture_boot(const struct capture *c)
{
	return c->boot;
}

uint32_t capture_epoch(const struct capture *c)
{
	return atomic_load(&c->epoch);
}

/* What the files look like now, as position remembers it. */
static void look_at_files(struct db *db, struct position *ret)
{
	char wal[4200];
	struct stat st;

	ret->main_size = ret->wal_size = 0;
	ret->main_mtime_ns = ret->main_ctime_ns = ret->wal_mtime_ns = 0;
	if (fstatat(db->config->dirfd, db->path, &st, 0) == 0) {
		ret->main_size = (uint64_t)st.st_size;
		ret->main_mtime_ns = clock_nanoseconds(st.st_mtim);
		ret->main_ctime_ns = clock_nanoseconds(st.st_ctim);
	}
	(void)snprintf(wal, sizeof(wal), "%s-wal", db->path);
	if (fstatat(db->config->dirfd, wal, &st, 0) == 0) {
		ret->wal_size = (uint64_t)st.st_size;
		ret->wal_mtime_ns = clock_nanoseconds(st.st_mtim);
	}
}

static bool is_as_left(struct capture *c, struct db *db)
{
	const struct position *p = &db->position;
	struct position now;

	look_at_files(db, &now);
	return c->run && p->clean == c->run &&
	       pages_count(db->pages) >= p->commit && p->known == p->dbsum &&
	       p->main_size == now.main_size && p->wal_size == now.wal_size &&
	       p->main_mtime_ns == now.main_mtime_ns &&
	       p->main_ctime_ns == now.main_ctime_ns &&
	       p->wal_mtime_ns == now.wal_mtime_ns;
}

/* ------------------------------------------------------------------- open */

void db_probe_journal(struct db *db)
{
	uint8_t magic[FORMAT_JOURNAL_MAGIC_SIZE] = { 0 };
	char journal[4200];

	(void)snprintf(journal, sizeof(journal), "%s-journal", db->path);
	AUTO(fd) int fd = openat(db->config->dirfd, journal,
				 O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd >= 0)
		(void)io_pread(fd, magic, sizeof(magic), 0);
	atomic_store(&db->journal_live, format_journal_live(magic));
}

void db_probe(struct db *db)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->lock);

	db_close_files(db);
	db_forget_wal(db);
	db_probe_journal(db);
	if (db_open_wal(db) == 0 && io_size(db->wal_fd) > 0) {
		atomic_store(&db->wal_in_use, true);
		atomic_store(&db->wal_touched, true);
	}
	if (db_open_main(db) == 0 && io_size(db->main_fd) > 0) {
		/* Not seen so far: perhaps a database. */
		(void)pthread_mutex_lock(&db->mark);
		db->dirty.all = true;
		(void)pthread_mutex_unlock(&db->mark);
		if (!atomic_exchange(&db->resting, true))
			atomic_store(&db->resting_ms, clock_monotonic_ms());
	}
	db_close_files(db);
}

/* Lock held.  A page is read only by the settling thread, later. */
static int take_up_state_of(struct capture *c, struct db *db)
{
	int rc = 0;

	if (!atomic_exchange(&db->held, false))
		rc = capture_attach(db); /* nobody has looked at its state */
	else
		db_announce(db);
	if (rc < 0 || db->position.page_size == 0)
		return rc;
	db->compare = false;
	if (!is_as_left(c, db)) {
		db_compare(db, 1, c->run && db->position.clean == c->run ?
					  "it was changed while not mounted" :
					  "it was not left by a clean stop here");
		return 0;
	}
	(void)db_settled(db, db_writes_begun(db));
	return db_pull(db);
}

/*
 * After a stop that left this database clean it is as somebody wants it.  A mount
 * that ends in order leaves one unclean that it could not take up.
 */
static bool may_be_behind(const struct capture *c, struct db *db)
{
	bool left_clean = c->run && db->position.clean == c->run;

	return db->position.page_size && !left_clean && db_is_behind(db);
}

/* What is there?  Its state is read, and nobody is told. */
static int find(struct capture *c, struct db *db, struct capture_found *ret)
{
	int rc = recover_journal(c, db->path);

	if (rc < 0)
		return rc;
	db_probe(db);
	AUTO(unlock) pthread_mutex_t *held = lock(&db->lock);
	rc = capture_attach(db);
	if (rc < 0)
		return rc;
	*ret = (struct capture_found){
		.path = db->path,
		.spool = db->spool,
		.txid = db->position.txid,
		.dbsum = db->position.dbsum,
		.dropped = db->position.dropped,
		.behind = may_be_behind(c, db),
	};
	return 0;
}

/* Nobody uses the database yet. */
static int take_up_quietly(struct capture *c, struct db *db)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->lock);

	return take_up_state_of(c, db);
}

/* One bad database does not keep the others. */
static void fail_to_take_up(struct db *db)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->lock);

	db_fail(db, "taking up the database");
}

static int take_up(struct capture *c, const char *path, void *arg)
{
	struct capture_found found;
	struct db *db;
	int rc = capture_find_or_add(c, path, &db);

	if (rc < 0)
		return rc;
	atomic_store(&db->held, true);
	rc = find(c, db, &found);
	if (rc < 0)
		atomic_store(&db->held, false);
	else if (c->config.found && c->config.found(c->config.arg, &found))
		return 0; /* capture_let_go() gives the reference back */
	else
		rc = take_up_quietly(c, db);
	if (rc < 0)
		fail_to_take_up(db);
	capture_release(c, db);
	return 0;
}

void capture_hurry(struct capture *c)
{
	atomic_store(&c->hurried, true);
}

int capture_let_go(struct capture *c, const char *path)
{
	struct db *db = capture_find(c, path);
	int rc;

	if (!db || !atomic_load(&db->held)) {
		capture_release(c, db);
		return error_set(-ENOENT, "'%s' is not held", path);
	}
	rc = take_up_quietly(c, db);
	if (rc < 0)
		fail_to_take_up(db);
	capture_release(c, db);
	capture_release(c, db); /* take_up()'s */
	atomic_store(&c->room_due, true);
	capture_wake(c);
	return rc;
}

/*
 * A database with state whose file is gone, or is none any more, was removed
 * while nobody looked; or lost with the power, and is to be rolled forward.
 */
static int take_up_missing(struct capture *c, const char *path)
{
	struct db *db;
	struct stat st;
	bool lost;
	int rc;

	db = capture_find(c, path);
	if (db) {
		capture_release(c, db); /* the walk found it */
		return 0;
	}
	/* Something else, or not to be read: settling tells. */
	if (fstatat(c->config.dirfd, path, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    S_ISREG(st.st_mode) && st.st_size > 0)
		return take_up(c, path, NULL);
	rc = capture_find_or_add(c, path, &db);
	if (rc < 0)
		return rc;
	(void)pthread_mutex_lock(&db->lock);
	atomic_store(&db->held, true);
	rc = capture_attach(db);
	lost = rc == 0 && may_be_behind(c, db);
	atomic_store(&db->held, lost);
	if (rc == 0 && !lost)
		db_announce(db);
	(void)pthread_mutex_unlock(&db->lock);
	if (lost)
		rc = take_up(c, path, NULL);
	else if (rc == 0 && db->position.page_size)
		rc = db_drop(db);
	capture_release(c, db);
	return rc;
}

static void look_for_missing(struct capture *c)
{
	DIR *dir;
	struct dirent *entry;
	int copy = openat(c->state_root_fd, ".", O_RDONLY | O_DIRECTORY |
							 O_CLOEXEC);

	dir = copy < 0 ? NULL : fdopendir(copy);
	while (dir && (entry = readdir(dir))) {
		AUTO(buf) struct buf path = BUF_INIT(4096);
		char name[300];

		if (entry->d_name[0] == '.')
			continue;
		(void)snprintf(name, sizeof(name), "%s/name", entry->d_name);
		if (io_read_file(c->state_root_fd, name, &path) < 0 ||
		    path.size == 0)
			continue;
		if (take_up_missing(c, path.data) < 0)
			log_error("database is gone, and that cannot be noted",
				  "db=%s error=%s", log_quote(path.data),
				  log_quote(error_message()));
	}
	if (dir)
		(void)closedir(dir);
}

/* ------------------------------------------------------- settling thread */

void capture_wake(struct capture *c)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&c->rest_lock);

	c->rest_woken = true;
	(void)pthread_cond_signal(&c->rest_changed);
}

/* Settle what is due; when the next is, monotonic ms. */
static int64_t settle_due(struct capture *c)
{
	int64_t next = INT64_MAX, now = clock_monotonic_ms();
	struct db **all;
	size_t n;

	if (table_all(c, &all, &n) < 0)
		return now + 1000;
	for (size_t i = 0; i < n; i++) {
		int64_t due = db_settle_due_ms(all[i]);

		/* Each for a while, so that none waits for a large one. */
		if (due <= now && db_settle(all[i], false) == 1)
			due = now;
		else if (due <= now) {
			due = db_settle_due_ms(all[i]);
			/* Not at rest yet, or in trouble: look again later. */
			if (due <= now)
				due = now + 1000;
		}
		if (due < next)
			next = due;
	}
	table_release_all(c, all, n);
	return next;
}

static void wait_until(struct capture *c, int64_t due_ms)
{
	struct timespec until = { .tv_sec = due_ms / 1000,
				  .tv_nsec = (long)(due_ms % 1000) * 1000000 };

	if (due_ms == INT64_MAX)
		(void)pthread_cond_wait(&c->rest_changed, &c->rest_lock);
	else
		(void)pthread_cond_timedwait(&c->rest_changed, &c->rest_lock,
					     &until);
}

/* Who was in the way of making room is done by then. */
enum { ROOM_AGAIN_MS = 200 };

static int64_t min_ms(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static void *settle_loop(void *arg)
{
	struct capture *c = arg;

	(void)pthread_mutex_lock(&c->rest_lock);
	while (!c->stopping) {
		bool again;
		int64_t due;

		c->rest_woken = false;
		(void)pthread_mutex_unlock(&c->rest_lock);
		again = room_check(c);
		due = settle_due(c);
		if (again)
			due = min_ms(due, clock_monotonic_ms() + ROOM_AGAIN_MS);
		(void)pthread_mutex_lock(&c->rest_lock);
		if (!c->rest_woken && !c->stopping)
			wait_until(c, due);
	}
	(void)pthread_mutex_unlock(&c->rest_lock);
	return NULL;
}

static int start_thread(struct capture *c)
{
	int rc = pthread_create(&c->rest_thread, NULL, settle_loop, c);

	if (rc != 0)
		return error_set(-rc, "starting capture's thread: %s",
				 strerror(rc));
	c->rest_running = true;
	return 0;
}

static void stop_thread(struct capture *c)
{
	if (!c->rest_running)
		return;
	(void)pthread_mutex_lock(&c->rest_lock);
	c->stopping = true;
	(void)pthread_cond_signal(&c->rest_changed);
	(void)pthread_mutex_unlock(&c->rest_lock);
	(void)pthread_join(c->rest_thread, NULL);
	c->rest_running = false;
}

/* ------------------------------------------------------------ open, close */

static void init_locks(struct capture *c)
{
	pthread_condattr_t monotonic;

	(void)pthread_mutex_init(&c->room_lock, NULL);
	(void)pthread_mutex_init(&c->rename_lock, NULL);
	(void)pthread_mutex_init(&c->table_lock, NULL);
	(void)pthread_mutex_init(&c->rest_lock, NULL);
	(void)pthread_condattr_init(&monotonic);
	(void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&c->rest_changed, &monotonic);
	(void)pthread_condattr_destroy(&monotonic);
}

static void free_capture(struct capture *c)
{
	stop_thread(c);
	for (int i = 0; i < TABLE_BUCKETS; i++)
		while (c->buckets[i]) {
			struct db *db = c->buckets[i];

			c->buckets[i] = db->next;
			db_free(db);
		}
	unread_free_all(c);
	fd_cleanup(&c->lock_fd);
	fd_cleanup(&c->state_root_fd);
	fd_cleanup(&c->state_fd);
	free(c);
}

static bool has_state(struct db *db)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->lock);

	return db->spool != NULL;
}

/*
 * The walk has held what are databases.  The others were held since they are known:
 * what they are is found out from here on, as of any file.
 */
static void let_others_go(struct capture *c)
{
	struct db **all;
	size_t n;

	if (table_all(c, &all, &n) < 0)
		return;
	for (size_t i = 0; i < n; i++) {
		if (has_state(all[i]) || !atomic_load(&all[i]->held))
			continue;
		db_probe(all[i]);
		atomic_store(&all[i]->held, false);
	}
	table_release_all(c, all, n);
	capture_wake(c);
}

static int take_up_all(struct capture *c)
{
	const struct capture_config *config = &c->config;
	int rc = table_walk(c, "", take_up, NULL);

	if (rc == 0 && !(config->leave_missing &&
			 config->leave_missing(config->arg)))
		look_for_missing(c);
	return rc;
}

int capture_take_up(struct capture *c)
{
	int rc = take_up_all(c);

	if (rc < 0)
		return rc;
	(void)pthread_mutex_lock(&c->table_lock);
	atomic_store(&c->standby, false);
	(void)pthread_mutex_unlock(&c->table_lock);
	let_others_go(c);
	atomic_store(&c->room_due, true);
	capture_wake(c);
	return 0;
}

static void first_epoch(struct capture *c)
{
	uint32_t epoch = c->config.epoch ? c->config.epoch(c->config.arg) : 0;

	atomic_store(&c->epoch, epoch ? epoch : 1);
}

int capture_open(const struct capture_config *config, struct capture **ret)
{
	struct capture *c = calloc(1, sizeof(*c));
	int rc;

	if (!c)
		return error_set(-ENOMEM, "out of memory");
	c->config = *config;
	c->budget.max = config->spool_max;
	atomic_store(&c->room_due, true);
	c->state_fd = c->state_root_fd = c->lock_fd = -1;
	init_locks(c);
	boot_id(c->boot);
	rc = open_state_dirs(c);
	if (rc == 0 && c->config.prepare)
		rc = c->config.prepare(c->config.arg);
	first_epoch(c);
	if (rc == 0 && config->standby)
		atomic_store(&c->standby, config->standby(config->arg));
	if (rc == 0)
		rc = take_clean_mark(c);
	if (rc == 0 && !atomic_load(&c->standby))
		rc = take_up_all(c);
	if (rc == 0)
		rc = start_thread(c);
	if (rc < 0) {
		free_capture(c);
		return rc;
	}
	*ret = c;
	return 0;
}

/* Kernels stamp files by a clock that ticks, every 10 ms at most. */
enum { TIMESTAMP_MS = 20 };

/* What cannot be compared so soon is compared by the next mount. */
enum { LEAVE_MS = 1000 };

/* Seal the last commits, and note how the files are left. */
static void leave(struct capture *c, struct db *db)
{
	struct position left;
	bool sound;

	int64_t until = clock_monotonic_ms() + LEAVE_MS;

	if (!has_state(db) || atomic_load(&db->held))
		return;
	while (db_settle(db, true) == 1 && clock_monotonic_ms() < until)
		;
	if (db_seal(db, NULL) < 0) {
		log_error("last commits could not be sealed; the next mount "
			  "compares the database",
			  "db=%s error=%s", log_quote(db->path),
			  log_quote(error_message()));
		return;
	}
	sound = db->position.page_size && !db->in_doubt && !db->compare &&
		!db_has_news(db) && !db_is_unsettled(db) &&
		!atomic_load(&db->journal_live);
	left = db->position;
	left.clean = c->run;
	look_at_files(db, &left);
	if (!sound || memcmp(&left, &db->position, sizeof(left)) == 0)
		return;
	if (position_store(db->state_fd, "position", &left) < 0)
		log_warn("next mount compares the database", "db=%s error=%s",
			 log_quote(db->path), log_quote(error_message()));
}

void capture_close(struct capture *c)
{
	char run[20];
	struct db **all;
	size_t n = 0;

	if (!c)
		return;
	stop_thread(c);
	while (c->run == 0)
		io_random(&c->run, sizeof(c->run));
	if (table_all(c, &all, &n) == 0) {
		/* Who changes a file after this gives it another time. */
		clock_sleep_ms(TIMESTAMP_MS);
		for (size_t i = 0; i < n; i++)
			leave(c, all[i]);
		table_release_all(c, all, n);
		(void)snprintf(run, sizeof(run), "%016" PRIx64 "\n", c->run);
		if (io_write_atomically(c->state_fd, "clean", run, 17) < 0)
			log_warn("next mount compares every database",
				 "error=%s", log_quote(error_message()));
	}
	free_capture(c);
}

/* ------------------------------------------------------- seal and status */

int capture_seal(struct capture *c, const char *path, uint64_t *ret_txid)
{
	struct db *db = capture_find(c, path);
	int rc;

	if (!db)
		return error_set(-ENOENT, "'%s' is not a database here", path);
	rc = db_seal(db, ret_txid);
	capture_release(c, db);
	return rc;
}

void capture_set_epoch(struct capture *c, uint32_t epoch)
{
	atomic_store(&c->epoch, epoch);
}

int capture_close_log(struct capture *c, const char *path,
		      struct capture_point *ret)
{
	struct db *db = capture_find(c, path);
	int rc;

	if (!db)
		return error_set(-ENOENT, "'%s' is not a database here", path);
	rc = db_close_log(db, ret);
	capture_release(c, db);
	return rc;
}

/* In a transaction with a journal: what is committed so far is captured. */
static bool is_in_transaction(struct db *db)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->lock);

	return atomic_load(&db->journal_live) && db->spool && !db->in_doubt;
}

void capture_distrust(struct capture *c, const char *path)
{
	struct db *db;

	if (capture_find_or_add(c, path, &db) < 0)
		return;
	db_probe(db);
	capture_wake(c);
	capture_release(c, db);
}

/* How long a caller is kept for a comparison before it is asked to come again. */
enum { SETTLE_MS = 2000 };

static int sync_db(struct db *db, struct capture_point *ret)
{
	int64_t until = clock_monotonic_ms() + SETTLE_MS;
	int rc;

	do {
		rc = db_settle(db, true);
	} while (rc == 1 && clock_monotonic_ms() < until);
	if (rc == 1)
		rc = error_set(-EINPROGRESS, "'%s' is being compared",
			       db->path);
	if (rc == -EBUSY && is_in_transaction(db))
		rc = 0;
	if (rc == 0)
		rc = db_seal_all(db, ret);
	if (rc >= 0 && !has_state(db))
		rc = error_set(-ENOENT, "'%s' is not a database", db->path);
	return rc;
}

int capture_sync(struct capture *c, const char *path,
		 struct capture_point *ret)
{
	struct db *db;
	int rc = capture_find_or_add(c, path, &db);

	if (rc < 0)
		return rc;
	rc = sync_db(db, ret);
	capture_release(c, db);
	return rc;
}

/* Whoever has it open still writes its WAL or journal, and the main file is gone. */
static bool is_left_alone(struct db *db)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->lock);
	struct stat st;

	return db->page_size == 0 &&
	       fstatat(db->config->dirfd, db->path, &st, AT_SYMLINK_NOFOLLOW) <
		       0 &&
	       errno == ENOENT;
}

int capture_confirm(struct db *db, struct capture_point *ret)
{
	int rc;

	atomic_fetch_add(&db->confirming, 1);
	rc = sync_db(db, ret);
	atomic_fetch_sub(&db->confirming, 1);
	/* A disk can say -ENOENT, too: of one with state that is no answer. */
	if (rc < 0 && (rc != -ENOENT || has_state(db)))
		return rc;
	if (is_left_alone(db))
		return error_set(-ESTALE, "'%s' was renamed or removed while in "
					  "use", db->path);
	return rc >= 0;
}

/* 1: there is more to do. */
static int settle_and_seal(struct db *db)
{
	int rc;

	if (atomic_load(&db->held))
		return false; /* the next mount decides about it */
	rc = db_settle(db, true);
	if (rc == 0)
		rc = db_seal(db, NULL);
	if (rc < 0)
		log_warn("not sealed; the next mount will do it",
			 "db=%s error=%s", log_quote(db->path),
			 log_quote(error_message()));
	return rc == 1;
}

int capture_settle(struct capture *c, const char *path, uint64_t *ret_txid)
{
	struct capture_point point;
	int rc = capture_sync(c, path, &point);

	if (rc >= 0 && ret_txid)
		*ret_txid = point.txid;
	return rc;
}

void capture_settle_all(struct capture *c, int64_t until_ms)
{
	struct db **all;
	size_t n, left;

	if (table_all(c, &all, &n) < 0)
		return;
	left = n;
	for (size_t i = 0; left > 0; i = i + 1 < left ? i + 1 : 0) {
		struct db *db = all[i];

		if (settle_and_seal(db) && clock_monotonic_ms() < until_ms)
			continue;
		/* Done; all keeps its reference, for table_release_all(). */
		all[i] = all[--left];
		all[left] = db;
	}
	table_release_all(c, all, n);
}

/* How far a comparison is. */
static void get_progress(struct db *db, struct capture_status *ret)
{
	uint64_t done = db->compare ? db->next_pgno - 1 : db->commit;

	ret->comparing = db->compare && !db_is_through(db);
	ret->compared = done < db->commit ? (uint32_t)done : db->commit;
}

static void get_waits(struct db *db, struct capture_status *ret)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->mark);

	if (db->in_doubt || db->rest.bare)
		(void)snprintf(ret->waits, sizeof(ret->waits), "%s",
			       db->waits);
	/* What is waited for may have committed something. */
	ret->resync |= ret->waits[0] != '\0';
	ret->pending |= ret->waits[0] != '\0';
}

/* A file that is no database yet is shown after so many quiet times. */
enum { WAITS_QUIETS = 5 };

/* What is being written may become a database or not, so not at once. */
static bool is_long_waited_for(struct db *db)
{
	int64_t since = clock_monotonic_ms() - atomic_load(&db->resting_ms);

	return db->waits[0] && since >= WAITS_QUIETS * db_quiet_ms(db);
}

/* False for a file that is no database, and for one that is not taken up yet. */
static bool get_status(struct db *db, struct capture_status *ret)
{
	/* Who adopts a state for it has the lock for as long as that takes. */
	if (atomic_load(&db->held))
		return false;
	AUTO(unlock) pthread_mutex_t *held = lock(&db->lock);

	memset(ret, 0, sizeof(*ret));
	(void)snprintf(ret->path, sizeof(ret->path), "%s", db->path);
	ret->txid = db->position.txid;
	ret->page_size = db->page_size;
	ret->commit = db->commit;
	ret->wal = db->wal_valid && db->wal.frames > 0;
	ret->pending = db_has_news(db) || atomic_load(&db->wal_touched);
	ret->resync = db->compare || db->in_doubt;
	get_progress(db, ret);
	get_waits(db, ret);
	ret->dropped = db->position.dropped && db->page_size == 0;
	(void)snprintf(ret->error, sizeof(ret->error), "%s", db->error);
	return db->spool || db->error[0] || is_long_waited_for(db);
}

static int compare_paths(const void *a, const void *b)
{
	const struct db *x = *(struct db *const *)a, *y = *(struct db *const *)b;

	return strcmp(x->path, y->path);
}

int capture_each(struct capture *c, capture_status_fn fn, void *arg)
{
	struct capture_status status;
	struct db **all;
	size_t n;
	int rc = table_all(c, &all, &n);

	if (rc < 0)
		return rc;
	qsort(all, n, sizeof(struct db *), compare_paths);
	for (size_t i = 0; rc == 0 && i < n; i++) {
		if (get_status(all[i], &status))
			rc = fn(&status, arg);
	}
	table_release_all(c, all, n);
	return rc == 0 ? unread_each(c, fn, arg) : rc;
}
