/* Commits that are confirmed before they are answered: which call completes one? */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "capture/capture.h"
#include "ltx/spool.h"
#include "tests/lib/capture_vfs.h"
#include "memory_dir.h"

struct world {
	char dir[64], path[96];
	int dirfd;
	struct capture *capture;
	sqlite3 *db;
	unsigned calls; /* of confirm() */
	int result;	/* its last; only with may_fail may it be negative */
	bool may_fail;
	bool refuse; /* what was sealed */
};

static int64_t on_now(void *arg)
{
	return clock_wall_ms();
}

static bool on_durable(void *arg, const char *path)
{
	return strcmp(path, "app.db") == 0;
}

/* In these tests there is always one: who waits. */
static int on_writer(void *arg, const char *path)
{
	return 1;
}

static uint64_t last_txid(struct world *w)
{
	uint64_t txid = 0;

	if (capture_seal(w->capture, "app.db", &txid) != 0)
		fail_msg("something was committed, and not confirmed");
	return txid;
}

/* A capture_vfs_confirm. */
static int confirm(struct db *db, void *arg)
{
	struct capture_point point = { 0 };
	struct world *w = arg;

	w->calls++;
	assert_string_equal(capture_db_path(db), "app.db");
	for (int tries = 0; tries < 500; tries++) {
		w->result = capture_confirm(db, &point);
		if (w->result != -EBUSY && w->result != -EINPROGRESS)
			break;
		clock_sleep_ms(10);
	}
	if (w->result < 0 && !w->may_fail)
		fail_msg("confirm: %s", error_message());
	return w->result < 0 || w->refuse ? -EIO : 0;
}

static void start(struct world *w)
{
	struct capture_config config = {
		.dirfd = w->dirfd,
		.now_ms = on_now,
		.durable = on_durable,
		.writer = on_writer,
		.quiet_ms = 20,
		.arg = w,
	};

	if (capture_open(&config, &w->capture) < 0)
		fail_msg("capture_open: %s", error_message());
	capture_vfs_use(w->capture, w->dir, w->dirfd);
	capture_vfs_set_confirm(confirm, w);
	assert_int_equal(sqlite3_open_v2(w->path, &w->db,
					 SQLITE_OPEN_READWRITE |
						 SQLITE_OPEN_CREATE,
					 "capture"),
			 SQLITE_OK);
}

static void stop(struct world *w)
{
	if (!w->capture)
		return;
	capture_vfs_set_confirm(NULL, NULL);
	assert_int_equal(sqlite3_close(w->db), SQLITE_OK);
	capture_close(TAKE(w->capture));
}

static int set_up(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	log_set_level(LOG_ERROR);
	strcpy(w->dir, memory_is_roomy() ?
			       "/dev/shm/litebucket-durable.XXXXXX" :
			       "/tmp/litebucket-durable.XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	(void)snprintf(w->path, sizeof(w->path), "%s/app.db", w->dir);
	w->dirfd = open(w->dir, O_RDONLY | O_DIRECTORY);
	start(w);
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;
	char command[128];

	stop(w);
	(void)close(w->dirfd);
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", w->dir);
	(void)!system(command);
	free(w);
	return 0;
}

static void run(struct world *w, const char *text)
{
	if (sqlite3_exec(w->db, text, NULL, NULL, NULL) != SQLITE_OK)
		fail_msg("%s: %s", text, sqlite3_errmsg(w->db));
}

/* One commit, after whose return nothing is left to be sealed. */
static void commit(struct world *w, const char *text)
{
	uint64_t before = last_txid(w);

	w->calls = 0;
	run(w, text);
	assert_int_equal(last_txid(w), before + 1);
	assert_int_equal(w->calls, 1);
}

static const char *const modes[] = {
	"PRAGMA journal_mode = wal",
	"PRAGMA journal_mode = wal; PRAGMA synchronous = normal",
	"PRAGMA locking_mode = exclusive; PRAGMA journal_mode = wal",
	"PRAGMA journal_mode = delete",
	"PRAGMA journal_mode = truncate",
	"PRAGMA journal_mode = persist",
	"PRAGMA locking_mode = exclusive; PRAGMA journal_mode = delete",
};

static const unsigned page_sizes[] = { 512, 1024, 4096, 65536 };

static void commits_of_every_kind(struct world *w)
{
	run(w, "CREATE TABLE t(n INTEGER PRIMARY KEY, body)");
	for (int i = 0; i < 5; i++) {
		commit(w, "INSERT INTO t(body) VALUES (1)");
		commit(w, "INSERT INTO t(body) VALUES (randomblob(30000))");
		commit(w, "UPDATE t SET body = randomblob(10000)");
		commit(w, "BEGIN; DELETE FROM t; INSERT INTO t(body) VALUES "
			  "(randomblob(5000)); COMMIT");
		run(w, "PRAGMA wal_checkpoint(truncate)");
	}
}

static void each_commit_is_confirmed_by_its_last_call(void **state)
{
	struct world *w = *state;

	for (size_t i = 0; i < 4; i++)
		for (size_t j = 0; j < sizeof(modes) / sizeof(*modes); j++) {
			char text[64];

			(void)snprintf(text, sizeof(text),
				       "PRAGMA page_size = %u", page_sizes[i]);
			run(w, text);
			run(w, modes[j]);
			commits_of_every_kind(w);
			tear_down(state);
			set_up(state);
			w = *state;
		}
}

/* Headers are written over once all frames are there: the last one completes it. */
static void a_spilled_transaction_is_confirmed(void **state)
{
	struct world *w = *state;

	run(w, "PRAGMA journal_mode = wal; PRAGMA cache_size = 5;"
	       "CREATE TABLE t(n INTEGER PRIMARY KEY, body)");
	for (int i = 0; i < 5; i++) {
		uint64_t before = last_txid(w);

		run(w, "BEGIN;"
		       "WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL "
		       "SELECT i + 1 FROM s WHERE i < 200)"
		       "INSERT INTO t(body) SELECT randomblob(900) FROM s;"
		       "UPDATE t SET body = randomblob(900);"
		       "UPDATE t SET body = randomblob(900);");
		w->calls = 0;
		run(w, "COMMIT");
		assert_in_range(w->calls, 1, 3);
		assert_int_equal(last_txid(w), before + 1);
	}
}

/* What the WAL has from an earlier life is not the start of it. */
static void the_first_commit_after_a_start_is_confirmed(void **state)
{
	struct world *w = *state;
	int keep = 1;

	run(w, "PRAGMA journal_mode = wal; CREATE TABLE t(body);"
	       "INSERT INTO t VALUES (1)");
	(void)sqlite3_file_control(w->db, "main", SQLITE_FCNTL_PERSIST_WAL,
				   &keep);
	(void)sqlite3_db_config(w->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1,
				NULL);
	stop(w);
	start(w);
	run(w, "INSERT INTO t VALUES (2)");
	assert_true(last_txid(w) > 1);
}

static void what_cannot_be_confirmed_is_an_error(void **state)
{
	struct world *w = *state;
	uint64_t txid;

	run(w, "PRAGMA journal_mode = wal; CREATE TABLE t(body)");
	w->refuse = true;
	assert_int_equal(sqlite3_exec(w->db, "INSERT INTO t VALUES (1)", NULL,
				      NULL, NULL),
			 SQLITE_IOERR);
	w->refuse = false;
	/* SQLite gave it up, and writes over it: the next batch undoes it. */
	run(w, "INSERT INTO t VALUES (2)");
	(void)last_txid(w);
	if (capture_vfs_settle(w->capture, "app.db", &txid) < 0)
		fail_msg("settle: %s", error_message());
	run(w, "CREATE TEMP TABLE one(n CHECK (n = 1));"
	       "INSERT INTO one SELECT count(*) FROM t");
}

/* What the disk has lost is no reason to take a commit for confirmed. */
static void what_cannot_be_sealed_is_not_confirmed(void **state)
{
	struct world *w = *state;
	char command[128];

	run(w, "PRAGMA journal_mode = wal; CREATE TABLE t(body)");
	(void)snprintf(command, sizeof(command), "rm -rf '%s/.litebucket/db'",
		       w->dir);
	assert_int_equal(system(command), 0);
	w->may_fail = true;
	assert_int_equal(sqlite3_exec(w->db, "INSERT INTO t VALUES (1)", NULL,
				      NULL, NULL),
			 SQLITE_IOERR);
	assert_true(w->result < 0);
}

/* SQLite goes on writing the WAL or journal of the old name, which is nobody's. */
static void commits_fail_after_a_rename(struct world *w, const char *mode)
{
	run(w, mode);
	run(w, "CREATE TABLE t(body); INSERT INTO t VALUES (1)");
	assert_int_equal(capture_rename(w->capture, w->dirfd, "app.db",
					"app.db", w->dirfd, "moved.db",
					"moved.db", 0),
			 0);
	w->may_fail = true;
	assert_int_equal(sqlite3_exec(w->db, "INSERT INTO t VALUES (2)", NULL,
				      NULL, NULL),
			 SQLITE_IOERR);
	assert_int_equal(w->result, -ESTALE);
}

static void a_renamed_database_confirms_nothing_more(void **state)
{
	commits_fail_after_a_rename(*state, "PRAGMA journal_mode = wal");
	tear_down(state);
	set_up(state);
	commits_fail_after_a_rename(*state, "PRAGMA locking_mode = exclusive;"
					    "PRAGMA journal_mode = truncate");
}

/*
 * On a disk that does not promise whole sectors, SQLite fills a commit up to one
 * (psow=0), and writes a piece that spans two in two.
 */
static void a_commit_in_pieces_is_confirmed(void **state)
{
	struct world *w = *state;
	char name[128];

	assert_int_equal(sqlite3_close(w->db), SQLITE_OK);
	(void)snprintf(name, sizeof(name), "file:%s?psow=0", w->path);
	assert_int_equal(sqlite3_open_v2(name, &w->db,
					 SQLITE_OPEN_READWRITE |
						 SQLITE_OPEN_CREATE |
						 SQLITE_OPEN_URI,
					 "capture"),
			 SQLITE_OK);
	run(w, "PRAGMA page_size = 512; PRAGMA journal_mode = wal;"
	       "PRAGMA synchronous = full;"
	       "CREATE TABLE t(n INTEGER PRIMARY KEY, body)");
	for (int i = 0; i < 20; i++) {
		uint64_t before = last_txid(w);

		w->calls = 0;
		run(w, "INSERT INTO t(body) VALUES (randomblob(700))");
		assert_true(w->calls >= 1);
		assert_int_equal(last_txid(w), before + 1);
	}
}

/* By its lock one would think that a transaction without a journal goes on. */
static void the_lock_of_who_waits_is_no_writer(void **state)
{
	struct world *w = *state;

	run(w, "CREATE TABLE t(body); PRAGMA locking_mode = exclusive");
	for (int i = 0; i < 5; i++)
		run(w, "PRAGMA journal_mode = memory;"
		       "INSERT INTO t VALUES (randomblob(9000));"
		       "PRAGMA journal_mode = wal;"
		       "INSERT INTO t VALUES (randomblob(9000));"
		       "PRAGMA journal_mode = delete");
	(void)last_txid(w);
}

static void other_calls_and_other_databases_are_not_asked_for(void **state)
{
	struct world *w = *state;
	sqlite3 *other;
	char path[128];

	run(w, "PRAGMA journal_mode = wal; CREATE TABLE t(body);"
	       "INSERT INTO t VALUES (randomblob(90000))");
	w->calls = 0;
	run(w, "SELECT count(*) FROM t; PRAGMA wal_checkpoint(truncate);"
	       "BEGIN; INSERT INTO t VALUES (1); ROLLBACK");
	assert_int_equal(w->calls, 0);
	(void)snprintf(path, sizeof(path), "%s/other.db", w->dir);
	assert_int_equal(sqlite3_open_v2(path, &other,
					 SQLITE_OPEN_READWRITE |
						 SQLITE_OPEN_CREATE,
					 "capture"),
			 SQLITE_OK);
	assert_int_equal(sqlite3_exec(other,
				      "CREATE TABLE t(body); PRAGMA "
				      "journal_mode = wal; INSERT INTO t "
				      "VALUES (1)",
				      NULL, NULL, NULL),
			 SQLITE_OK);
	assert_int_equal(sqlite3_close(other), SQLITE_OK);
	assert_int_equal(w->calls, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
		TEST(each_commit_is_confirmed_by_its_last_call),
		TEST(a_spilled_transaction_is_confirmed),
		TEST(the_first_commit_after_a_start_is_confirmed),
		TEST(what_cannot_be_confirmed_is_an_error),
		TEST(what_cannot_be_sealed_is_not_confirmed),
		TEST(a_renamed_database_confirms_nothing_more),
		TEST(a_commit_in_pieces_is_confirmed),
		TEST(the_lock_of_who_waits_is_no_writer),
		TEST(other_calls_and_other_databases_are_not_asked_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
