#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "capture/capture.h"
#include "ltx/spool.h"
#include "tests/lib/capture_vfs.h"
#include "tests/lib/chain.h"
#include "memory_dir.h"

/* A directory under capture, with one database in it that is looked at. */
struct world {
	char dir[64];
	char path[96];
	int dirfd;
	struct capture *capture;
	_Atomic(struct spool *) spool; /* from any thread of capture */
	_Atomic(struct spool *) copy_spool; /* of copy.db */
	struct chain chain;
	sqlite3 *db;
	unsigned seed;
};

static void on_appeared(void *arg, const char *path, struct spool *spool,
			uint64_t confirmed)
{
	struct world *w = arg;

	if (strcmp(path, "app.db") == 0)
		w->spool = spool;
	else if (strcmp(path, "copy.db") == 0)
		w->copy_spool = spool;
}

static int64_t on_now(void *arg)
{
	return clock_wall_ms();
}

static void start(struct world *w)
{
	struct capture_config config = { .dirfd = w->dirfd,
					 .appeared = on_appeared,
					 .now_ms = on_now,
					 .quiet_ms = 20,
					 .arg = w };

	w->spool = NULL;
	if (capture_open(&config, &w->capture) < 0)
		fail_msg("capture_open: %s", error_message());
	capture_vfs_use(w->capture, w->dir, w->dirfd);
}

static void stop(struct world *w)
{
	(void)sqlite3_close(w->db);
	w->db = NULL;
	capture_close(w->capture);
	w->capture = NULL;
}

static int set_up(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	log_set_level(LOG_ERROR);
	/* Memory, where there is some: the test is about order, not disks. */
	strcpy(w->dir, memory_is_roomy() ?
			       "/dev/shm/litebucket-capture.XXXXXX" :
			       "/tmp/litebucket-capture.XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	(void)snprintf(w->path, sizeof(w->path), "%s/app.db", w->dir);
	w->dirfd = open(w->dir, O_RDONLY | O_DIRECTORY);
	w->seed = 1;
	start(w);
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;
	char command[128];

	capture_vfs_set_hook(NULL, NULL);
	stop(w);
	chain_clear(&w->chain);
	(void)close(w->dirfd);
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", w->dir);
	(void)!system(command);
	free(w);
	return 0;
}

static void open_db(struct world *w)
{
	assert_int_equal(sqlite3_open_v2(w->path, &w->db,
					 SQLITE_OPEN_READWRITE |
						 SQLITE_OPEN_CREATE,
					 "capture"),
			 SQLITE_OK);
}

static int try_sql(struct world *w, const char *sql)
{
	return sqlite3_exec(w->db, sql, NULL, NULL, NULL);
}

static void sql(struct world *w, const char *text)
{
	char *message = NULL;

	if (sqlite3_exec(w->db, text, NULL, NULL, &message) != SQLITE_OK)
		fail_msg("%s: %s", text, message);
}

/* Everything committed so far is in the spool, and is what SQLite has. */
static void check(struct world *w)
{
	if (capture_vfs_settle(w->capture, "app.db", NULL) < 0)
		fail_msg("settle: %s", error_message());
	assert_true(chain_follow(&w->chain, w->spool));
	assert_true(chain_equals(&w->chain, w->path));
}

static const char *const journal_modes[] = { "DELETE", "TRUNCATE", "PERSIST",
					     "WAL", "MEMORY", "OFF" };

static void begin_mode(struct world *w, int page_size, const char *mode)
{
	char text[128];

	open_db(w);
	(void)snprintf(text, sizeof(text),
		       "PRAGMA page_size=%d; PRAGMA journal_mode=%s;",
		       page_size, mode);
	sql(w, text);
	sql(w, "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b BLOB);"
	       "CREATE INDEX i ON t (a);");
	check(w);
}

static const char *random_statement(struct world *w, char text[256])
{
	unsigned x = (unsigned)rand_r(&w->seed);

	switch (x % 9) {
	case 0:
		return "DELETE FROM t WHERE id % 3 = 0";
	case 1:
		return "UPDATE t SET a = a || 'x' WHERE id % 5 = 1";
	case 2:
		return "BEGIN; INSERT INTO t (a, b) VALUES ('gone', "
		       "randomblob(20000)); ROLLBACK";
	case 3:
		return "INSERT INTO t (a, b) SELECT 'many', randomblob(50) FROM "
		       "(WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 "
		       "FROM c LIMIT 200) SELECT x FROM c)";
	case 4:
		return x % 27 == 4 ? "VACUUM" : "SELECT count(*) FROM t";
	case 5:
		return "PRAGMA wal_checkpoint";
	case 6:
		return "PRAGMA cache_size=5; BEGIN; UPDATE t SET b = "
		       "randomblob(900); SAVEPOINT s; DELETE FROM t WHERE id % 2; "
		       "ROLLBACK TO s; COMMIT";
	case 7:
		return "PRAGMA cache_size=5; BEGIN; UPDATE t SET b = "
		       "randomblob(1900); INSERT INTO t (a) VALUES ('z'); "
		       "ROLLBACK";
	default:
		(void)snprintf(text, 256,
			       "INSERT INTO t (a, b) VALUES ('row%u', "
			       "randomblob(%u))",
			       x, x % 9000);
		return text;
	}
}

static void random_life(struct world *w, int steps)
{
	char text[256];

	for (int i = 0; i < steps; i++) {
		sql(w, random_statement(w, text));
		if (rand_r(&w->seed) % 3 == 0)
			check(w);
		if (rand_r(&w->seed) % 20 == 0) {
			(void)sqlite3_close(w->db);
			open_db(w);
		}
	}
	check(w);
}

static void every_commit_is_captured_in_every_journal_mode(void **state)
{
	static const int page_sizes[] = { 512, 4096, 65536 };

	for (size_t m = 0; m < 4; m++)
		for (size_t p = 0; p < 3; p++) {
			struct world *w;
			void *other = NULL;

			(void)set_up(&other);
			w = other;
			w->seed = (unsigned)(m * 3 + p + 1);
			begin_mode(w, page_sizes[p], journal_modes[m]);
			random_life(w, 60);
			(void)tear_down(&other);
		}
}

static void modes_without_a_journal_are_captured_at_rest(void **state)
{
	for (size_t m = 4; m < 6; m++) {
		struct world *w;
		void *other = NULL;

		(void)set_up(&other);
		w = other;
		open_db(w);
		sql(w, m == 4 ? "PRAGMA journal_mode=MEMORY" :
				"PRAGMA journal_mode=OFF");
		for (int i = 0; i < 3; i++) {
			sql(w, i ? "INSERT INTO t VALUES (randomblob(9000))" :
				   "CREATE TABLE t (a)");
			clock_sleep_ms(50);
			check(w);
		}
		(void)tear_down(&other);
	}
}

static void a_change_of_journal_mode_is_captured(void **state)
{
	struct world *w = *state;

	begin_mode(w, 1024, "DELETE");
	for (unsigned i = 0; i < 12; i++) {
		char text[64];

		(void)snprintf(text, sizeof(text), "PRAGMA journal_mode=%s",
			       journal_modes[(i * 7 + 3) % 4]);
		sql(w, text);
		sql(w, "INSERT INTO t (a, b) VALUES ('m', randomblob(5000))");
		check(w);
	}
}

static void exclusive_locking_is_captured_in_wal_and_delete(void **state)
{
	struct world *w = *state;

	open_db(w);
	sql(w, "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL;"
	       "CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 2)");
	check(w);
	sql(w, "PRAGMA journal_mode=DELETE; INSERT INTO t VALUES (3, 4)");
	check(w);
}

static void vacuum_to_another_page_size_is_one_batch_of_all_pages(void **state)
{
	struct world *w = *state;

	begin_mode(w, 4096, "DELETE");
	sql(w, "INSERT INTO t (a, b) VALUES ('a', randomblob(30000))");
	check(w);
	sql(w, "PRAGMA page_size=512; VACUUM");
	check(w);
	assert_int_equal(w->chain.page_size, 512);
	sql(w, "INSERT INTO t (a, b) VALUES ('b', randomblob(30000))");
	check(w);
}

static void a_wal_that_shrinks_by_many_pages_is_captured(void **state)
{
	struct world *w = *state;

	begin_mode(w, 512, "WAL");
	sql(w, "INSERT INTO t (a, b) VALUES ('a', zeroblob(900000))");
	check(w);
	sql(w, "DELETE FROM t; VACUUM");
	check(w);
	sql(w, "INSERT INTO t (a, b) VALUES ('a', randomblob(400000))");
	check(w);
}

static void commits_gather_until_they_are_sealed(void **state)
{
	struct world *w = *state;
	uint64_t before, after;

	begin_mode(w, 4096, "DELETE");
	assert_int_equal(capture_seal(w->capture, "app.db", &before), 0);
	for (int i = 0; i < 5; i++)
		sql(w, "INSERT INTO t (a) VALUES ('x')");
	assert_int_equal(capture_seal(w->capture, "app.db", &after), 1);
	assert_int_equal(after, before + 1);
	assert_int_equal(capture_seal(w->capture, "app.db", &after), 0);
	check(w);
}

static void after_a_clean_stop_nothing_is_sealed_again(void **state)
{
	struct world *w = *state;
	uint64_t before, after;

	for (int wal = 0; wal < 2; wal++) {
		begin_mode(w, 4096, wal ? "WAL" : "DELETE");
		sql(w, "INSERT INTO t (a) VALUES ('x')");
		check(w);
		before = w->chain.txid;
		stop(w);
		start(w);
		assert_int_equal(capture_vfs_settle(w->capture, "app.db", &after),
				 0);
		assert_int_equal(after, before);
		open_db(w);
		sql(w, "INSERT INTO t (a) VALUES ('y')");
		check(w);
		assert_int_equal(w->chain.txid, before + 1);
		sql(w, "DROP TABLE t");
		(void)sqlite3_close(w->db);
	}
	w->db = NULL;
}

static void changes_made_while_nobody_looked_are_found(void **state)
{
	struct world *w = *state;
	sqlite3 *db;

	begin_mode(w, 4096, "DELETE");
	stop(w);
	assert_int_equal(sqlite3_open_v2(w->path, &db, SQLITE_OPEN_READWRITE,
					 "unix"),
			 SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "INSERT INTO t (a) VALUES ('w')",
				      NULL, NULL, NULL),
			 SQLITE_OK);
	(void)sqlite3_close(db);
	start(w);
	check(w);
}

/* A backup of nothing: one page, and the file ends inside of it. */
static void back_up_nothing(struct world *w)
{
	sqlite3 *from, *to;
	sqlite3_backup *backup;

	assert_int_equal(sqlite3_open_v2(w->path, &to, SQLITE_OPEN_READWRITE,
					 "unix"),
			 SQLITE_OK);
	assert_int_equal(sqlite3_open("", &from), SQLITE_OK);
	assert_int_equal(sqlite3_exec(from, "PRAGMA page_size=1024", NULL, NULL,
				      NULL),
			 SQLITE_OK);
	backup = sqlite3_backup_init(to, "main", from, "main");
	assert_non_null(backup);
	assert_int_equal(sqlite3_backup_step(backup, -1), SQLITE_DONE);
	assert_int_equal(sqlite3_backup_finish(backup), SQLITE_OK);
	(void)sqlite3_close(from);
	(void)sqlite3_close(to);
}

static void a_page_that_the_file_ends_in_is_one(void **state)
{
	struct world *w = *state;
	uint8_t page[4096];
	int fd;

	begin_mode(w, 4096, "DELETE");
	check(w);
	stop(w);
	back_up_nothing(w);
	fd = open(w->path, O_RDONLY);
	assert_int_equal(read(fd, page, sizeof(page)), 1024);
	(void)close(fd);
	start(w);
	assert_true(capture_vfs_settle(w->capture, "app.db", NULL) >= 0);
	assert_true(chain_follow(&w->chain, w->spool));
	assert_int_equal(w->chain.page_size, 4096);
	assert_int_equal(w->chain.commit, 1);
	assert_memory_equal(w->chain.image, page, 1024);
}

static void a_removed_database_is_dropped_and_its_name_comes_back(void **state)
{
	struct world *w = *state;
	uint64_t before;

	begin_mode(w, 4096, "DELETE");
	before = w->chain.txid;
	(void)sqlite3_close(w->db);
	assert_int_equal(capture_unlink(w->capture, w->dirfd, "app.db",
					"app.db"),
			 0);
	assert_true(chain_follow(&w->chain, w->spool));
	assert_true(w->chain.dropped);
	assert_int_equal(w->chain.txid, before + 1);
	w->db = NULL;
	begin_mode(w, 512, "WAL");
	assert_false(w->chain.dropped);
	assert_int_equal(w->chain.page_size, 512);
}

/* Every call of this kind on a file ending in suffix fails. */
struct refusal {
	const char *what, *suffix;
};

static int refuse(const char *what, const char *path, uint64_t offset,
		  void *arg)
{
	struct refusal *r = arg;
	size_t n = strlen(path), m = strlen(r->suffix);

	return strcmp(what, r->what) == 0 && n >= m &&
			       strcmp(path + n - m, r->suffix) == 0 ?
		       EIO :
		       0;
}

static void a_transaction_whose_journal_stays_is_not_sealed(void **state)
{
	struct world *w = *state;
	struct refusal refusal = { "unlink", "-journal" };

	begin_mode(w, 4096, "DELETE");
	capture_vfs_set_hook(refuse, &refusal);
	assert_int_not_equal(try_sql(w, "INSERT INTO t (a) VALUES ('lost')"),
			     SQLITE_OK);
	/* The journal is hot: what the main file holds may yet be undone. */
	assert_int_equal(capture_seal(w->capture, "app.db", NULL), 0);
	capture_vfs_set_hook(NULL, NULL);
	(void)sqlite3_close(w->db);
	open_db(w);
	sql(w, "SELECT count(*) FROM t");
	check(w);
}

static void a_commit_whose_sync_failed_is_taken_back(void **state)
{
	struct world *w = *state;
	struct refusal refusal = { "sync", "-wal" };

	begin_mode(w, 4096, "WAL");
	sql(w, "PRAGMA synchronous=FULL; INSERT INTO t (a) VALUES ('kept')");
	check(w);
	capture_vfs_set_hook(refuse, &refusal);
	assert_int_not_equal(try_sql(w, "INSERT INTO t (a) VALUES ('lost')"),
			     SQLITE_OK);
	capture_vfs_set_hook(NULL, NULL);
	/* Its frames are a valid chain, so it is sealed; SQLite gave it up. */
	assert_int_equal(capture_seal(w->capture, "app.db", NULL), 1);
	sql(w, "UPDATE t SET b = randomblob(7000)");
	check(w);
}

static void pages_that_sqlite_never_wrote_are_in_the_batch(void **state)
{
	struct world *w = *state;

	begin_mode(w, 1024, "DELETE");
	/* Allocated and freed within a transaction: the size grows, no write. */
	sql(w, "BEGIN; CREATE TABLE x (b); INSERT INTO x VALUES "
	       "(randomblob(60000)); DROP TABLE x; COMMIT");
	check(w);
	sql(w, "PRAGMA journal_mode=WAL; BEGIN; CREATE TABLE x (b); "
	       "INSERT INTO x VALUES (randomblob(90000)); DROP TABLE x; COMMIT");
	check(w);
}

static void a_wal_taken_away_takes_its_commits_back(void **state)
{
	struct world *w = *state;

	begin_mode(w, 4096, "WAL");
	sql(w, "PRAGMA wal_checkpoint; INSERT INTO t (a) VALUES ('in the WAL')");
	check(w);
	(void)sqlite3_db_config(w->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1,
				NULL);
	(void)sqlite3_close(w->db);
	w->db = NULL;
	assert_int_equal(capture_unlink(w->capture, w->dirfd, "app.db-wal",
					"app.db-wal"),
			 0);
	check(w);
}

/* One file of the directory, written without SQLite. */
struct raw {
	struct capture_file *file;
	int fd;
};

static struct raw raw_open(struct world *w, const char *name)
{
	struct raw r = { .fd = openat(w->dirfd, name, O_RDWR | O_CREAT, 0600) };

	assert_true(r.fd >= 0);
	assert_int_equal(capture_file_get(w->capture, name, &r.file), 0);
	capture_opened(r.file, true);
	return r;
}

static void raw_close(struct raw *r)
{
	capture_closed(r->file, true);
	capture_file_put(r->file);
	(void)close(r->fd);
}

static void pages_that_only_the_header_counts_are_in_the_batch(void **state)
{
	static const uint8_t live[12] = { 0xd9, 0xd5, 0x05, 0xf9,
					  0x20, 0xa1, 0x63, 0xd7 };
	struct world *w = *state;
	struct raw main_file, journal;
	uint8_t page[4096];

	begin_mode(w, 4096, "DELETE");
	(void)sqlite3_close(w->db);
	w->db = NULL;
	main_file = raw_open(w, "app.db");
	journal = raw_open(w, "app.db-journal");
	assert_int_equal(pread(main_file.fd, page, sizeof(page), 0), 4096);
	page[31] = (uint8_t)(page[31] + 3); /* the size in pages */
	assert_int_equal(capture_write(journal.file, journal.fd, live, 12, 0),
			 12);
	assert_int_equal(capture_write(main_file.file, main_file.fd, page, 4096,
				       0),
			 4096);
	assert_int_equal(capture_truncate(main_file.file, main_file.fd,
					  page[31] * 4096u),
			 0);
	assert_int_equal(capture_unlink(w->capture, w->dirfd, "app.db-journal",
					"app.db-journal"),
			 0);
	raw_close(&journal);
	raw_close(&main_file);
	assert_int_equal(capture_seal(w->capture, "app.db", NULL), 1);
	check(w);
	assert_int_equal(w->chain.commit, page[31]);
}

/* A whole database, written as cp does it. */
static void copy_in(struct world *w, const char *name)
{
	char original[160];
	uint8_t block[1 << 16];
	struct raw copy = raw_open(w, name);
	uint64_t offset = 0;
	ssize_t n;
	sqlite3 *db;
	int fd;

	(void)snprintf(original, sizeof(original), "%s.original", w->path);
	assert_int_equal(sqlite3_open(original, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db,
				      "CREATE TABLE t (a); INSERT INTO t "
				      "VALUES (randomblob(300000))",
				      NULL, NULL, NULL),
			 SQLITE_OK);
	(void)sqlite3_close(db);
	fd = open(original, O_RDONLY);
	while ((n = read(fd, block, sizeof(block))) > 0) {
		assert_int_equal(capture_write(copy.file, copy.fd, block,
					       (size_t)n, offset),
				 n);
		offset += (uint64_t)n;
	}
	(void)close(fd);
	(void)unlink(original);
	raw_close(&copy);
}

static void a_copied_database_is_captured_once_it_rested(void **state)
{
	struct world *w = *state;

	copy_in(w, "app.db");
	assert_null(w->spool);
	for (int i = 0; i < 100 && !w->spool; i++)
		clock_sleep_ms(20);
	assert_non_null(w->spool);
	for (int i = 0; i < 100 && w->chain.txid == 0; i++) {
		clock_sleep_ms(20);
		assert_true(capture_seal(w->capture, "app.db", NULL) >= 0);
		assert_true(chain_follow(&w->chain, w->spool));
	}
	assert_int_equal(w->chain.txid, 1);
	assert_true(chain_equals(&w->chain, w->path));
}

static void a_copied_database_is_captured_by_a_stop(void **state)
{
	struct world *w = *state;

	copy_in(w, "app.db");
	capture_settle_all(w->capture, clock_monotonic_ms() + 10000);
	assert_non_null(w->spool);
	assert_true(chain_follow(&w->chain, w->spool));
	assert_true(chain_equals(&w->chain, w->path));
}

static void copy_raw(struct world *w, const char *from, const char *to)
{
	uint8_t block[1 << 16];
	struct raw copy = raw_open(w, to);
	int fd = openat(w->dirfd, from, O_RDONLY);
	ssize_t n = read(fd, block, sizeof(block));

	assert_true(n > 0);
	assert_int_equal(capture_write(copy.file, copy.fd, block, (size_t)n, 0),
			 n);
	(void)close(fd);
	raw_close(&copy);
}

static void a_database_copied_with_its_wal_is_captured_in_any_order(void **state)
{
	for (int wal_first = 0; wal_first < 2; wal_first++) {
		struct world *w;
		void *other = NULL;
		sqlite3 *db;

		(void)set_up(&other);
		w = other;
		begin_mode(w, 4096, "WAL");
		sql(w, "PRAGMA wal_checkpoint; INSERT INTO t (a) VALUES ('w')");
		copy_raw(w, wal_first ? "app.db-wal" : "app.db",
			 wal_first ? "copy.db-wal" : "copy.db");
		copy_raw(w, wal_first ? "app.db" : "app.db-wal",
			 wal_first ? "copy.db" : "copy.db-wal");
		assert_true(capture_vfs_settle(w->capture, "copy.db", NULL) >= 0);
		db = w->db;
		w->db = NULL;
		chain_clear(&w->chain);
		(void)snprintf(w->path, sizeof(w->path), "%s/copy.db", w->dir);
		assert_true(chain_follow(&w->chain, w->copy_spool));
		assert_true(chain_equals(&w->chain, w->path));
		w->db = db;
		(void)tear_down(&other);
	}
}

/* The n-th change of a file ending in suffix fails. */
struct fault {
	const char *suffix;
	int countdown;
};

static int strike(const char *what, const char *path, uint64_t offset,
		  void *arg)
{
	struct fault *f = arg;
	size_t n = strlen(path), m = strlen(f->suffix);

	if (n < m || strcmp(path + n - m, f->suffix) != 0)
		return 0;
	return --f->countdown == 0 ? EIO : 0;
}

static void failing_calls_leave_only_committed_states(void **state)
{
	static const char *const suffixes[] = { "app.db", "-journal", "-wal" };
	char text[256];

	for (size_t m = 0; m < 4; m++)
		for (size_t s = 0; s < 3; s++) {
			struct world *w;
			void *other = NULL;

			(void)set_up(&other);
			w = other;
			w->seed = (unsigned)(m * 17 + s);
			begin_mode(w, 1024, journal_modes[m]);
			for (int i = 1; i < 60; i++) {
				struct fault fault = { suffixes[s], i % 23 };

				capture_vfs_set_hook(strike, &fault);
				(void)try_sql(w, random_statement(w, text));
				capture_vfs_set_hook(NULL, NULL);
				(void)try_sql(w, "ROLLBACK");
				/* A reader rolls back what is left hot. */
				sql(w, "SELECT count(*) FROM t");
				clock_sleep_ms(1);
				check(w);
			}
			(void)tear_down(&other);
		}
}

/* A writer with a connection of its own. */
static void *write_beside_others(void *arg)
{
	struct world *w = arg;
	sqlite3 *db;

	if (sqlite3_open_v2(w->path, &db, SQLITE_OPEN_READWRITE, "capture") !=
	    SQLITE_OK)
		return w->path;
	(void)sqlite3_busy_timeout(db, 20000);
	for (int i = 0; i < 60; i++)
		if (sqlite3_exec(db,
				 "BEGIN IMMEDIATE; INSERT INTO t (a, b) VALUES "
				 "('p', randomblob(3000)); UPDATE t SET a = "
				 "a || 'q' WHERE id % 7 = 0; COMMIT",
				 NULL, NULL, NULL) != SQLITE_OK)
			return w->path;
	(void)sqlite3_close(db);
	return NULL;
}

struct sealer {
	struct world *world;
	atomic_bool stop;
	uint64_t seals;
};

static void *seal_beside_others(void *arg)
{
	struct sealer *s = arg;

	while (!atomic_load(&s->stop)) {
		int rc = capture_seal(s->world->capture, "app.db", NULL);

		if (rc < 0)
			return s;
		s->seals += (uint64_t)rc;
	}
	return NULL;
}

static void write_and_seal(struct world *w)
{
	struct sealer sealer = { .world = w };
	pthread_t writers[3], sealing;
	void *failed;

	assert_int_equal(pthread_create(&sealing, NULL, seal_beside_others,
					&sealer),
			 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&writers[i], NULL,
						write_beside_others, w),
				 0);
	for (int i = 0; i < 3; i++) {
		(void)pthread_join(writers[i], &failed);
		assert_null(failed);
	}
	atomic_store(&sealer.stop, true);
	(void)pthread_join(sealing, &failed);
	assert_null(failed);
	assert_true(sealer.seals > 1);
	check(w);
}

static void batches_sealed_beside_writers_form_one_chain(void **state)
{
	for (size_t m = 0; m < 4; m++) {
		struct world *w;
		void *other = NULL;

		(void)set_up(&other);
		w = other;
		begin_mode(w, 1024, journal_modes[m]);
		sql(w, "PRAGMA wal_autocheckpoint=20");
		write_and_seal(w);
		(void)tear_down(&other);
	}
}

/* A test that gets a world of its own. */
#define IN_WORLD(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_commit_is_captured_in_every_journal_mode),
		cmocka_unit_test(modes_without_a_journal_are_captured_at_rest),
		IN_WORLD(a_change_of_journal_mode_is_captured),
		IN_WORLD(exclusive_locking_is_captured_in_wal_and_delete),
		IN_WORLD(vacuum_to_another_page_size_is_one_batch_of_all_pages),
		IN_WORLD(a_wal_that_shrinks_by_many_pages_is_captured),
		IN_WORLD(commits_gather_until_they_are_sealed),
		IN_WORLD(after_a_clean_stop_nothing_is_sealed_again),
		IN_WORLD(changes_made_while_nobody_looked_are_found),
		IN_WORLD(a_page_that_the_file_ends_in_is_one),
		IN_WORLD(a_removed_database_is_dropped_and_its_name_comes_back),
		IN_WORLD(a_transaction_whose_journal_stays_is_not_sealed),
		IN_WORLD(a_commit_whose_sync_failed_is_taken_back),
		IN_WORLD(pages_that_sqlite_never_wrote_are_in_the_batch),
		IN_WORLD(pages_that_only_the_header_counts_are_in_the_batch),
		IN_WORLD(a_copied_database_is_captured_once_it_rested),
		IN_WORLD(a_copied_database_is_captured_by_a_stop),
		cmocka_unit_test(
			a_database_copied_with_its_wal_is_captured_in_any_order),
		IN_WORLD(a_wal_taken_away_takes_its_commits_back),
		cmocka_unit_test(batches_sealed_beside_writers_form_one_chain),
		cmocka_unit_test(failing_calls_leave_only_committed_states),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
