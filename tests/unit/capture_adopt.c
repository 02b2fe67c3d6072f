#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "capture/capture.h"
#include "ltx/header.h"
#include "ltx/spool.h"

/*
 * A directory with app.db, which plain SQLite has written; capture finds it,
 * and holds it as long as hold is set.
 */
struct world {
	char dir[64], path[96];
	int dirfd;
	bool hold;
	struct capture *capture;
	struct capture_found found;
	unsigned appeared, times_found;
	struct spool *spool;
	uint64_t confirmed;
};

static bool on_found(void *arg, const struct capture_found *found)
{
	struct world *w = arg;

	w->found = *found;
	w->times_found++;
	return w->hold;
}

static void on_appeared(void *arg, const char *path, struct spool *spool,
			uint64_t confirmed)
{
	struct world *w = arg;

	(void)path;
	w->appeared++;
	w->spool = spool;
	w->confirmed = confirmed;
}

static int64_t on_now(void *arg)
{
	(void)arg;
	return clock_wall_ms();
}

static void start(struct world *w)
{
	const struct capture_config config = {
		.dirfd = w->dirfd,
		.found = on_found,
		.appeared = on_appeared,
		.now_ms = on_now,
		.quiet_ms = 20,
		.arg = w,
	};

	w->appeared = w->times_found = 0;
	if (capture_open(&config, &w->capture) < 0)
		fail_msg("capture_open: %s", error_message());
}

static void stop(struct world *w)
{
	capture_close(w->capture);
	w->capture = NULL;
}

static void write_sql(const char *path, const char *text)
{
	sqlite3 *db;

	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, text, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static int64_t count_rows(const char *path)
{
	sqlite3_stmt *stmt;
	int64_t n;
	sqlite3 *db;

	assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE,
					 NULL),
			 SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(db, "SELECT count(*) FROM t", -1,
					    &stmt, NULL),
			 SQLITE_OK);
	assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
	n = sqlite3_column_int64(stmt, 0);
	(void)sqlite3_finalize(stmt);
	(void)sqlite3_close(db);
	return n;
}

static int set_up(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	log_set_level(LOG_ERROR);
	(void)unsetenv("LITEBUCKET_BOOT");
	strcpy(w->dir, "/tmp/litebucket-adopt.XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	(void)snprintf(w->path, sizeof(w->path), "%s/app.db", w->dir);
	w->dirfd = open(w->dir, O_RDONLY | O_DIRECTORY);
	w->hold = true;
	write_sql(w->path, "CREATE TABLE t(x); INSERT INTO t VALUES(1)");
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;
	char command[128];

	if (w->capture)
		capture_close(w->capture);
	(void)close(w->dirfd);
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", w->dir);
	(void)!system(command);
	(void)unsetenv("LITEBUCKET_BOOT");
	free(w);
	return 0;
}

/* What the files hold, as transaction 7 of some log. */
static struct capture_state look(struct world *w)
{
	struct capture_state state;

	assert_int_equal(capture_look(w->capture, "app.db", &state), 0);
	state.txid = 7;
	state.timestamp_ms = 1700000000000;
	return state;
}

static void settle(struct world *w, uint64_t *ret_txid)
{
	int rc;

	for (int i = 0; i < 1000; i++) {
		rc = capture_settle(w->capture, "app.db", ret_txid);
		if (rc != -EBUSY)
			break;
		clock_sleep_ms(5);
	}
	if (rc < 0)
		fail_msg("settle: %s", error_message());
}

/* The header of a batch in the spool. */
static struct ltx_header header_of(struct world *w, uint64_t txid)
{
	uint8_t bytes[LTX_HEADER_SIZE];
	struct ltx_header header;
	int fd;

	assert_int_equal(spool_open_batch(w->spool, txid, &fd), 0);
	assert_int_equal(pread(fd, bytes, sizeof(bytes), 0), sizeof(bytes));
	(void)close(fd);
	assert_int_equal(ltx_header_decode(bytes, &header), 0);
	return header;
}

static void one_that_is_held_is_left_alone(void **state)
{
	struct world *w = *state;
	uint64_t txid;

	start(w);
	assert_int_equal(w->times_found, 1);
	assert_int_equal(w->found.txid, 0);
	assert_false(w->found.behind);
	assert_int_equal(w->appeared, 0);
	clock_sleep_ms(100);
	assert_int_equal(capture_settle(w->capture, "app.db", &txid), -EBUSY);
	assert_int_equal(capture_seal(w->capture, "app.db", NULL), 0);
	capture_settle_all(w->capture, clock_monotonic_ms() + 1000);
	assert_int_equal(w->appeared, 0);
	stop(w);

	/* Nothing was decided, so it is found as before. */
	start(w);
	assert_int_equal(w->found.txid, 0);
	assert_int_equal(capture_let_go(w->capture, "app.db"), 0);
	assert_int_equal(w->appeared, 1);
	assert_int_equal(capture_let_go(w->capture, "app.db"), -ENOENT);
	settle(w, &txid);
	assert_int_equal(txid, 1);
}

static void what_the_log_has_is_not_sent_again(void **state)
{
	struct world *w = *state;
	struct capture_state at;
	uint64_t txid;

	start(w);
	at = look(w);
	assert_int_equal(capture_adopt(w->capture, "app.db", &at), 0);
	assert_int_equal(capture_let_go(w->capture, "app.db"), 0);
	assert_int_equal(w->confirmed, 7);
	settle(w, &txid);
	assert_int_equal(txid, 7);
	stop(w);

	w->hold = false;
	write_sql(w->path, "INSERT INTO t VALUES(2)");
	start(w);
	assert_int_equal(w->found.txid, 7);
	settle(w, &txid);
	assert_int_equal(txid, 8);
	assert_int_equal(header_of(w, 8).pre_dbsum, at.dbsum);
}

static void a_file_that_differs_is_sent_whole_behind_the_log(void **state)
{
	struct world *w = *state;
	struct capture_state at;
	uint64_t txid, bytes;
	struct stat st;
	size_t n;

	write_sql(w->path, "INSERT INTO t VALUES(randomblob(200000))");
	start(w);
	at = look(w);
	at.dbsum ^= 5;
	assert_int_equal(capture_adopt(w->capture, "app.db", &at), 0);
	assert_int_equal(capture_let_go(w->capture, "app.db"), 0);
	settle(w, &txid);
	assert_int_equal(txid, 8);
	assert_int_equal(header_of(w, 8).pre_dbsum, at.dbsum);
	assert_int_equal(spool_size(w->spool, &bytes, &n), 0);
	assert_int_equal(stat(w->path, &st), 0);
	assert_true(bytes > 200000);
	assert_int_equal((off_t)header_of(w, 8).commit * 4096, st.st_size);
}

/* As if pages could not be opened: a directory is in its place. */
static void one_that_could_not_be_adopted_is_found_again(void **state)
{
	struct world *w = *state;
	struct capture_found found = { 0 };
	struct capture_state at;
	uint64_t txid, first, last;
	char command[256];

	start(w);
	at = look(w);
	(void)snprintf(command, sizeof(command),
		       "cd '%s'/.litebucket/db/* && rm -f pages && mkdir pages",
		       w->dir);
	assert_int_equal(system(command), 0);
	assert_true(capture_adopt(w->capture, "app.db", &at) < 0);
	assert_true(capture_find_again(w->capture, "app.db", &found) < 0);
	assert_null(found.spool);

	(void)snprintf(command, sizeof(command),
		       "rmdir '%s'/.litebucket/db/*/pages", w->dir);
	assert_int_equal(system(command), 0);
	assert_int_equal(capture_find_again(w->capture, "app.db", &found), 0);
	assert_int_equal(found.txid, 7);
	assert_int_equal(found.dbsum, at.dbsum);
	assert_int_equal(spool_range(found.spool, &first, &last), 0);
	assert_int_equal(first, 0);
	assert_int_equal(capture_let_go(w->capture, "app.db"), 0);
	assert_int_equal(w->confirmed, 7);
	settle(w, &txid);
	assert_int_equal(txid, 7);
	assert_true(capture_find_again(w->capture, "app.db", &found) < 0);
}

static void behind_a_drop_it_goes_on_with_all_pages(void **state)
{
	struct world *w = *state;
	struct capture_state at;
	uint64_t txid;

	start(w);
	at = look(w);
	at.dropped = true;
	assert_int_equal(capture_adopt(w->capture, "app.db", &at), 0);
	assert_int_equal(capture_let_go(w->capture, "app.db"), 0);
	settle(w, &txid);
	assert_int_equal(txid, 8);
}

/* A file of three rows as "new" in the directory; its state. */
static struct capture_state make_new(struct world *w)
{
	struct capture_state at;
	char path[96];

	(void)snprintf(path, sizeof(path), "%s/new", w->dir);
	write_sql(path, "CREATE TABLE t(x); INSERT INTO t VALUES(1);"
			"INSERT INTO t VALUES(2); INSERT INTO t VALUES(3)");
	assert_int_equal(capture_look(w->capture, "new", &at), 0);
	at.txid = 9;
	at.timestamp_ms = 1700000000000;
	return at;
}

/* A WAL with a second row beside app.db, which nobody has open. */
static void leave_wal(struct world *w)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		sqlite3 *db;

		if (sqlite3_open(w->path, &db) == SQLITE_OK &&
		    sqlite3_exec(db, "PRAGMA journal_mode=wal;"
				     "INSERT INTO t VALUES(2)",
				 NULL, NULL, NULL) == SQLITE_OK)
			_exit(0);
		_exit(1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(faccessat(w->dirfd, "app.db-wal", F_OK, 0), 0);
}

struct kept {
	struct world *w;
	unsigned n;
	bool old; /* one of them has the two rows that were there */
};

static int look_at_kept(const char *name, const char *path, void *arg)
{
	struct kept *kept = arg;
	char database[256];

	assert_string_equal(path, "app.db");
	(void)snprintf(database, sizeof(database),
		       "%s/.litebucket/aside/%s/database", kept->w->dir, name);
	kept->n++;
	kept->old |= count_rows(database) == 2;
	return 0;
}

static void what_is_replaced_is_kept_with_its_wal(void **state)
{
	struct world *w = *state;
	struct kept kept = { .w = w };
	struct capture_state at;
	struct stat before, after;
	uint64_t txid;

	leave_wal(w);
	assert_int_equal(chmod(w->path, 0640), 0);
	assert_int_equal(stat(w->path, &before), 0);
	start(w);
	at = make_new(w);
	assert_int_equal(capture_replace(w->capture, "app.db", w->dirfd, "new",
					 &at, CAPTURE_KEEP),
			 0);
	assert_int_equal(capture_let_go(w->capture, "app.db"), 0);
	assert_int_equal(faccessat(w->dirfd, "app.db-wal", F_OK, 0), -1);
	assert_int_equal(stat(w->path, &after), 0);
	assert_int_equal(after.st_mode, before.st_mode);
	assert_int_not_equal(after.st_ino, before.st_ino);
	settle(w, &txid);
	assert_int_equal(txid, 9);
	assert_int_equal(capture_each_aside(w->capture, look_at_kept, &kept), 0);
	assert_int_equal(kept.n, 1);
	assert_true(kept.old);
	assert_int_equal(count_rows(w->path), 3);
}

/* As if its name were taken: a directory is in the new file's place. */
static void what_could_not_be_replaced_leaves_nothing_behind(void **state)
{
	struct world *w = *state;
	struct kept kept = { .w = w };
	struct capture_state at;
	char command[256];

	start(w);
	at = make_new(w);
	(void)snprintf(command, sizeof(command),
		       "cd '%s'/.litebucket/db/* && mkdir incoming.db", w->dir);
	assert_int_equal(system(command), 0);
	for (int i = 0; i < 3; i++)
		assert_true(capture_replace(w->capture, "app.db", w->dirfd,
					    "new", &at, CAPTURE_KEEP) < 0);
	assert_int_equal(capture_each_aside(w->capture, look_at_kept, &kept), 0);
	assert_int_equal(kept.n, 0);
	(void)snprintf(command, sizeof(command),
		       "test -z \"$(ls -A '%s'/.litebucket/aside)\" && "
		       "rmdir '%s'/.litebucket/db/*/incoming.db", w->dir,
		       w->dir);
	assert_int_equal(system(command), 0);
	assert_int_equal(capture_replace(w->capture, "app.db", w->dirfd, "new",
					 &at, CAPTURE_KEEP),
			 0);
	assert_int_equal(capture_let_go(w->capture, "app.db"), 0);
	assert_int_equal(count_rows(w->path), 3);
}

/* In a child that is killed at this point. */
static void replace_until(struct world *w, const char *point)
{
	char armed[64];
	pid_t pid;
	int status;

	(void)snprintf(armed, sizeof(armed), "%s:kill", point);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct capture_state at;

		(void)setenv("LITEBUCKET_FAILPOINT", armed, 1);
		start(w);
		at = make_new(w);
		(void)capture_replace(w->capture, "app.db", w->dirfd, "new",
				      &at, CAPTURE_KEEP);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		fail_msg("%s was not reached", point);
}

static void a_kill_leaves_the_old_or_leads_to_the_new(void **state)
{
	static const struct {
		const char *point;
		bool decided;
	} points[] = {
		{ "adopt-aside", false },   { "adopt-incoming", false },
		{ "adopt-decided", true },  { "adopt-sides", true },
		{ "adopt-renamed", true },  { "adopt-pages", true },
		{ "adopt-position", true },
	};
#ifndef LITEBUCKET_FAILPOINTS
	skip();
#endif
	for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
		struct kept kept;
		struct world *w;

		assert_int_equal(tear_down(state), 0);
		assert_int_equal(set_up(state), 0);
		w = *state;
		kept = (struct kept){ .w = w };
		leave_wal(w);
		replace_until(w, points[i].point);
		start(w);
		assert_int_equal(w->found.txid, points[i].decided ? 9 : 0);
		assert_int_equal(capture_let_go(w->capture, "app.db"), 0);
		assert_int_equal(capture_each_aside(w->capture, look_at_kept,
						    &kept),
				 0);
		/* What is not decided is nothing that was kept. */
		assert_int_equal(kept.n, points[i].decided);
		assert_int_equal(kept.old, points[i].decided);
		stop(w);
		assert_int_equal(count_rows(w->path),
				 points[i].decided ? 3 : 2);
	}
}

/* Sealed with the change counter that the file has, in boot "a". */
static void seal_in_boot_a(struct world *w)
{
	uint64_t txid;

	(void)setenv("LITEBUCKET_BOOT", "a", 1);
	w->hold = false;
	start(w);
	settle(w, &txid);
	stop(w);
	w->hold = true;
}

/* As after kill -9. */
static void forget_clean_stop(struct world *w)
{
	assert_int_equal(unlinkat(w->dirfd, ".litebucket/clean", 0), 0);
}

/* Beside the directory, where capture does not find it. */
static void keep_copy(struct world *w)
{
	char command[300];

	(void)snprintf(command, sizeof(command), "cp %s %s.older", w->path,
		       w->dir);
	assert_int_equal(system(command), 0);
}

static void put_copy_back(struct world *w)
{
	char command[300];

	(void)snprintf(command, sizeof(command), "mv %s.older %s", w->dir,
		       w->path);
	assert_int_equal(system(command), 0);
}

static bool is_behind(struct world *w, const char *boot)
{
	(void)setenv("LITEBUCKET_BOOT", boot, 1);
	start(w);
	assert_int_equal(w->times_found, 1);
	stop(w);
	forget_clean_stop(w);
	return w->found.behind;
}

static void only_another_boot_and_an_older_file_are_a_loss_of_power(void **state)
{
	struct world *w = *state;

#ifndef LITEBUCKET_FAILPOINTS
	skip();
#endif
	keep_copy(w);
	write_sql(w->path, "INSERT INTO t VALUES(2)");
	seal_in_boot_a(w);
	forget_clean_stop(w);
	assert_false(is_behind(w, "b")); /* it is as it was */
	put_copy_back(w);
	assert_false(is_behind(w, "a"));
	assert_true(is_behind(w, "b"));
	/* What came after it is somebody's. */
	write_sql(w->path, "INSERT INTO t VALUES(4)");
	write_sql(w->path, "INSERT INTO t VALUES(5)");
	assert_false(is_behind(w, "b"));
}

static void after_a_clean_stop_an_older_file_is_no_loss_of_power(void **state)
{
	struct world *w = *state;

#ifndef LITEBUCKET_FAILPOINTS
	skip();
#endif
	keep_copy(w);
	write_sql(w->path, "INSERT INTO t VALUES(2)");
	seal_in_boot_a(w);
	put_copy_back(w);
	assert_false(is_behind(w, "b"));
	assert_true(is_behind(w, "b")); /* is_behind() takes the mark away */
}

static void a_wal_that_is_cut_short_is_a_loss_of_power(void **state)
{
	struct world *w = *state;
	struct stat st;
	char wal[120];

#ifndef LITEBUCKET_FAILPOINTS
	skip();
#endif
	leave_wal(w);
	seal_in_boot_a(w);
	forget_clean_stop(w);
	assert_false(is_behind(w, "b"));
	assert_int_equal(fstatat(w->dirfd, "app.db-wal", &st, 0), 0);
	(void)snprintf(wal, sizeof(wal), "%s-wal", w->path);
	assert_int_equal(truncate(wal, st.st_size - 10), 0);
	assert_false(is_behind(w, "a"));
	assert_true(is_behind(w, "b"));
}

/* Where the files are is what the last batch said that had any pages. */
static void a_barrier_hides_no_loss_of_power(void **state)
{
	struct world *w = *state;
	struct capture_point point;
	struct stat st;
	char wal[120];

#ifndef LITEBUCKET_FAILPOINTS
	skip();
#endif
	leave_wal(w);
	(void)setenv("LITEBUCKET_BOOT", "a", 1);
	w->hold = false;
	start(w);
	settle(w, &point.txid);
	assert_int_equal(capture_close_log(w->capture, "app.db", &point), 1);
	stop(w);
	w->hold = true;
	forget_clean_stop(w);
	assert_false(is_behind(w, "b"));
	assert_int_equal(fstatat(w->dirfd, "app.db-wal", &st, 0), 0);
	(void)snprintf(wal, sizeof(wal), "%s-wal", w->path);
	assert_int_equal(truncate(wal, st.st_size - 10), 0);
	assert_true(is_behind(w, "b"));
}

int main(void)
{
#define ADOPT_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		ADOPT_TEST(one_that_is_held_is_left_alone),
		ADOPT_TEST(what_the_log_has_is_not_sent_again),
		ADOPT_TEST(a_file_that_differs_is_sent_whole_behind_the_log),
		ADOPT_TEST(one_that_could_not_be_adopted_is_found_again),
		ADOPT_TEST(behind_a_drop_it_goes_on_with_all_pages),
		ADOPT_TEST(what_is_replaced_is_kept_with_its_wal),
		ADOPT_TEST(what_could_not_be_replaced_leaves_nothing_behind),
		ADOPT_TEST(a_kill_leaves_the_old_or_leads_to_the_new),
		ADOPT_TEST(only_another_boot_and_an_older_file_are_a_loss_of_power),
		ADOPT_TEST(after_a_clean_stop_an_older_file_is_no_loss_of_power),
		ADOPT_TEST(a_wal_that_is_cut_short_is_a_loss_of_power),
		ADOPT_TEST(a_barrier_hides_no_loss_of_power),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
