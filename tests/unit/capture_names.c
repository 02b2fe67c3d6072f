#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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

/* What people do to databases by their names, while they are in use or not. */
struct world {
	char dir[64];
	int dirfd;
	struct capture *capture;
	char name[64]; /* of the database that is looked at */
	_Atomic(struct spool *) spool;
	struct chain chain;
	sqlite3 *db;
};

static void on_appeared(void *arg, const char *path, struct spool *spool,
			uint64_t confirmed)
{
	struct world *w = arg;

	if (strcmp(path, w->name) == 0)
		w->spool = spool;
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
					 .quiet_ms = 50,
					 .arg = w };

	w->spool = NULL;
	if (capture_open(&config, &w->capture) < 0)
		fail_msg("capture_open: %s", error_message());
	capture_vfs_use(w->capture, w->dir, w->dirfd);
}

static void path_of(struct world *w, const char *name, char ret[128])
{
	(void)snprintf(ret, 128, "%s/%s", w->dir, name);
}

static void open_db(struct world *w, const char *vfs)
{
	char path[128];

	path_of(w, w->name, path);
	assert_int_equal(sqlite3_open_v2(path, &w->db,
					 SQLITE_OPEN_READWRITE |
						 SQLITE_OPEN_CREATE,
					 vfs),
			 SQLITE_OK);
}

static void sql(struct world *w, const char *text)
{
	char *message = NULL;

	if (sqlite3_exec(w->db, text, NULL, NULL, &message) != SQLITE_OK)
		fail_msg("%s: %s", text, message);
}

static int set_up(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	log_set_level(LOG_ERROR);
	strcpy(w->dir, memory_is_roomy()
			       ? "/dev/shm/litebucket-names.XXXXXX"
			       : "/tmp/litebucket-names.XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	w->dirfd = open(w->dir, O_RDONLY | O_DIRECTORY);
	assert_int_equal(mkdirat(w->dirfd, "a", 0700), 0);
	strcpy(w->name, "app.db");
	start(w);
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;
	char command[128];

	capture_vfs_set_hook(NULL, NULL);
	(void)sqlite3_close(w->db);
	capture_close(w->capture);
	chain_clear(&w->chain);
	(void)close(w->dirfd);
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", w->dir);
	(void)!system(command);
	free(w);
	return 0;
}

static void check(struct world *w)
{
	int64_t until = clock_monotonic_ms() + 5000;
	char path[128];
	int rc;

	while ((rc = capture_vfs_settle(w->capture, w->name, NULL)) == -EBUSY &&
	       clock_monotonic_ms() < until)
		clock_sleep_ms(5);
	if (rc < 0)
		fail_msg("settle: %s", error_message());
	path_of(w, w->name, path);
	assert_true(chain_follow(&w->chain, w->spool));
	assert_true(chain_equals(&w->chain, path));
}

static void rename_to(struct world *w, const char *from, const char *to)
{
	assert_int_equal(capture_rename(w->capture, w->dirfd, from, from,
					w->dirfd, to, to, 0),
			 0);
}

static void remove_name(struct world *w, const char *name)
{
	assert_int_equal(capture_unlink(w->capture, w->dirfd, name, name), 0);
}

/* A file written as cp does it, with the content of another. */
static void copy_in(struct world *w, const char *from, const char *to)
{
	struct capture_file *file;
	uint8_t block[1 << 16];
	int source = openat(w->dirfd, from, O_RDONLY);
	int fd = openat(w->dirfd, to, O_RDWR | O_CREAT, 0600);
	uint64_t offset = 0;
	ssize_t n;

	assert_int_equal(capture_file_get(w->capture, to, &file), 0);
	capture_opened(file, true);
	assert_int_equal(capture_truncate(file, fd, 0), 0);
	while ((n = read(source, block, sizeof(block))) > 0) {
		assert_int_equal(capture_write(file, fd, block, (size_t)n,
					       offset),
				 n);
		offset += (uint64_t)n;
	}
	capture_closed(file, true);
	capture_file_put(file);
	(void)close(fd);
	(void)close(source);
}

static void a_database_in_use_is_followed_when_its_directory_moves(void **state)
{
	static const char *const modes[] = { "PRAGMA journal_mode=WAL",
					     "PRAGMA journal_mode=WAL;"
					     "PRAGMA wal_autocheckpoint=1" };
	struct world *w = *state;

	for (int i = 0; i < 2; i++) {
		strcpy(w->name, i ? "b/app.db" : "a/app.db");
		open_db(w, "capture");
		sql(w, modes[i]);
		sql(w, "CREATE TABLE IF NOT EXISTS t (a);"
		       "INSERT INTO t VALUES (randomblob(9000))");
		strcpy(w->name, i ? "c/app.db" : "b/app.db");
		chain_clear(&w->chain);
		rename_to(w, i ? "b" : "a", i ? "c" : "b");
		sql(w, "INSERT INTO t VALUES (randomblob(9000))");
		check(w);
		sql(w, "INSERT INTO t VALUES (randomblob(9000))");
		check(w);
		(void)sqlite3_close(w->db);
		w->db = NULL;
		check(w);
	}
}

static void commits_to_a_wal_that_was_renamed_first_are_captured(void **state)
{
	struct world *w = *state;

	open_db(w, "capture");
	sql(w, "PRAGMA journal_mode=WAL; CREATE TABLE t (a);"
	       "INSERT INTO t VALUES (randomblob(9000))");
	check(w);
	/* Alone it is named like a database, until there is one it belongs to. */
	strcpy(w->name, "new.db");
	chain_clear(&w->chain);
	rename_to(w, "app.db-wal", "new.db-wal");
	rename_to(w, "app.db", "new.db");
	for (int i = 0; i < 3; i++) {
		sql(w, "INSERT INTO t VALUES (randomblob(9000))");
		check(w);
	}
}

/* SQLite does so when it is not told: it has a handle and needs no name. */
static void commits_to_a_wal_that_was_removed_change_nothing_here(void **state)
{
	struct world *w = *state;
	uint64_t before, after;

	open_db(w, "capture");
	sql(w, "PRAGMA journal_mode=WAL; CREATE TABLE t (a);"
	       "INSERT INTO t VALUES (randomblob(9000));"
	       "PRAGMA wal_checkpoint");
	check(w);
	remove_name(w, "app.db-wal");
	check(w);
	assert_true(capture_vfs_settle(w->capture, "app.db", &before) >= 0);
	sql(w, "INSERT INTO t VALUES (randomblob(9000))");
	check(w);
	assert_true(capture_vfs_settle(w->capture, "app.db", &after) >= 0);
	assert_int_equal(after, before);
	/* And then it does write them into the database. */
	sql(w, "PRAGMA wal_checkpoint");
	check(w);
	assert_true(capture_vfs_settle(w->capture, "app.db", &after) >= 0);
	assert_true(after > before);
}

static void a_backup_copied_over_a_removed_hot_database_is_captured(
	void **state)
{
	static const uint8_t live[12] = { 0xd9, 0xd5, 0x05, 0xf9,
					  0x20, 0xa1, 0x63, 0xd7 };
	struct world *w = *state;
	struct capture_file *journal;
	int fd;

	open_db(w, "capture");
	sql(w, "CREATE TABLE t (a); INSERT INTO t VALUES (randomblob(9000))");
	check(w);
	(void)sqlite3_close(w->db);
	w->db = NULL;
	copy_in(w, "app.db", "backup");
	/* An application dies in a transaction: its journal stays. */
	fd = openat(w->dirfd, "app.db-journal", O_RDWR | O_CREAT, 0600);
	assert_int_equal(capture_file_get(w->capture, "app.db-journal",
					  &journal),
			 0);
	assert_int_equal(capture_write(journal, fd, live, 12, 0), 12);
	capture_file_put(journal);
	(void)close(fd);
	/* rm app.db*, in the order in which a shell expands it. */
	remove_name(w, "app.db");
	remove_name(w, "app.db-journal");
	copy_in(w, "backup", "app.db");
	check(w);
	assert_false(w->chain.dropped);
}

static void a_commit_above_a_replaced_file_is_sealed_only_with_it(void **state)
{
	struct world *w = *state;
	uint64_t txid;

	open_db(w, "capture");
	sql(w, "CREATE TABLE t (a); INSERT INTO t VALUES (zeroblob(30000))");
	check(w);
	(void)sqlite3_close(w->db);
	strcpy(w->name, "new.db");
	open_db(w, "unix");
	sql(w, "CREATE TABLE t (a); CREATE TABLE u (a);"
	       "INSERT INTO t VALUES (randomblob(30000))");
	(void)sqlite3_close(w->db);
	strcpy(w->name, "app.db");
	copy_in(w, "new.db", "app.db");
	open_db(w, "capture");
	sql(w, "PRAGMA journal_mode=WAL; INSERT INTO u VALUES (1)");
	copy_in(w, "new.db", "app.db"); /* not what one should do */
	sql(w, "INSERT INTO u VALUES (2)");
	assert_int_equal(capture_seal(w->capture, "app.db", &txid), 0);
	check(w);
}

/* The first is that of the header, before any frame; the second the commit's. */
static int fail_second_sync_of_wal(const char *what, const char *path,
				   uint64_t offset, void *arg)
{
	int *left = arg;

	if (strcmp(what, "sync") != 0 || !strstr(path, "-wal"))
		return 0;
	return --*left == 0 ? EIO : 0;
}

static void a_first_commit_that_is_given_up_is_not_sealed_later(void **state)
{
	struct world *w = *state;
	char path[128];
	int left = 2;

	open_db(w, "capture");
	sql(w, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
	       "CREATE TABLE t (a); CREATE TABLE u (a);"
	       "INSERT INTO t VALUES (1); INSERT INTO u VALUES (1);"
	       "PRAGMA wal_checkpoint(TRUNCATE)");
	check(w);
	capture_vfs_set_hook(fail_second_sync_of_wal, &left);
	assert_int_not_equal(sqlite3_exec(w->db, "INSERT INTO t VALUES (2)",
					  NULL, NULL, NULL),
			     SQLITE_OK);
	capture_vfs_set_hook(NULL, NULL);
	/* It writes the log's header again: nothing of the first is true. */
	sql(w, "INSERT INTO u VALUES (2)");
	if (capture_seal(w->capture, "app.db", NULL) == 1) {
		path_of(w, w->name, path);
		assert_true(chain_follow(&w->chain, w->spool));
		assert_true(chain_equals(&w->chain, path));
	}
	check(w);
}

static void a_journal_with_a_super_journal_is_left_to_the_application(
	void **state)
{
	static const char name[] = "/elsewhere/app.db-mj000000000";
	struct world *w = *state;
	uint8_t tail[16] = { 0,	   0,	 0,    sizeof(name) - 1,
			     0,	   0,	 0,    0,
			     0xd9, 0xd5, 0x05, 0xf9,
			     0x20, 0xa1, 0x63, 0xd7 };
	uint8_t journal[1024] = {
		0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7
	};
	int fd;

	open_db(w, "capture");
	sql(w, "CREATE TABLE t (a)");
	check(w);
	(void)sqlite3_close(w->db);
	w->db = NULL;
	capture_close(w->capture);
	memcpy(journal + sizeof(journal) - 16 - sizeof(name) + 1, name,
	       sizeof(name) - 1);
	memcpy(journal + sizeof(journal) - 16, tail, 16);
	fd = openat(w->dirfd, "app.db-journal", O_RDWR | O_CREAT, 0600);
	assert_int_equal(write(fd, journal, sizeof(journal)), sizeof(journal));
	(void)close(fd);
	start(w);
	/* SQLite without the mount would have thrown it away. */
	assert_int_equal(faccessat(w->dirfd, "app.db-journal", F_OK, 0), 0);
	remove_name(w, "app.db-journal");
	check(w);
}

static void make_text(struct world *w, const char *name)
{
	int fd = openat(w->dirfd, name, O_WRONLY | O_CREAT, 0600);

	for (int i = 0; i < 1000; i++)
		assert_int_equal(write(fd, "no database ", 12), 12);
	(void)close(fd);
}

static void make_link(struct world *w, const char *name)
{
	assert_int_equal(symlinkat("a", w->dirfd, name), 0);
}

static void make_pipe(struct world *w, const char *name)
{
	assert_int_equal(mkfifoat(w->dirfd, name, 0600), 0);
}

static void make_socket(struct world *w, const char *name)
{
	assert_int_equal(mknodat(w->dirfd, name, S_IFSOCK | 0600, 0), 0);
}

static void wait_for_drop(struct world *w)
{
	int64_t until = clock_monotonic_ms() + 5000;

	while (!w->chain.dropped && clock_monotonic_ms() < until) {
		clock_sleep_ms(5);
		assert_true(chain_follow(&w->chain, w->spool));
	}
	assert_true(w->chain.dropped);
}

static void a_database_that_is_replaced_by_something_else_is_dropped(
	void **state)
{
	void (*const make[])(struct world *, const char *) = {
		make_text, make_link, make_pipe, make_socket,
	};
	struct world *w = *state;

	for (size_t i = 0; i < sizeof(make) / sizeof(make[0]); i++) {
		open_db(w, "capture");
		sql(w, i % 2 ? "PRAGMA journal_mode=WAL" :
			       "PRAGMA journal_mode=DELETE");
		sql(w, "CREATE TABLE t (a);"
		       "INSERT INTO t VALUES (randomblob(9000))");
		check(w);
		assert_false(w->chain.dropped);
		(void)sqlite3_close(w->db);
		w->db = NULL;
		make[i](w, "else");
		rename_to(w, "else", "app.db");
		wait_for_drop(w);
		assert_int_equal(unlinkat(w->dirfd, "app.db", 0), 0);
	}
}

static void a_database_that_went_or_changed_unseen_is_dropped(void **state)
{
	struct world *w = *state;
	int fd;

	for (int i = 0; i < 2; i++) {
		open_db(w, "capture");
		sql(w, "CREATE TABLE t (a)");
		check(w);
		(void)sqlite3_close(w->db);
		w->db = NULL;
		capture_close(w->capture);
		assert_int_equal(unlinkat(w->dirfd, "app.db", 0), 0);
		fd = i ? openat(w->dirfd, "app.db", O_RDWR | O_CREAT, 0600)
		       : -1;
		if (fd >= 0) {
			assert_int_equal(write(fd, "something else", 14), 14);
			(void)close(fd);
		}
		start(w);
		/* The one that is something else is looked at by a thread. */
		(void)capture_vfs_settle(w->capture, "app.db", NULL);
		assert_true(chain_follow(&w->chain, w->spool));
		assert_true(w->chain.dropped);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			commits_to_a_wal_that_was_renamed_first_are_captured,
			set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			commits_to_a_wal_that_was_removed_change_nothing_here,
			set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_database_that_is_replaced_by_something_else_is_dropped,
			set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_database_in_use_is_followed_when_its_directory_moves,
			set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_backup_copied_over_a_removed_hot_database_is_captured,
			set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_commit_above_a_replaced_file_is_sealed_only_with_it,
			set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_first_commit_that_is_given_up_is_not_sealed_later,
			set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_journal_with_a_super_journal_is_left_to_the_application,
			set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_database_that_went_or_changed_unseen_is_dropped,
			set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
