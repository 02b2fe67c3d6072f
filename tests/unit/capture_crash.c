#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
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

/*
 * A child works and is killed at a named point; the parent takes the directory
 * up as a restarted daemon does.  The spool is never emptied, so the whole
 * chain is there to be judged.
 */
struct world {
	char dir[64];
	char path[96];
	int dirfd;
	struct capture *capture;
	struct spool *spool;
	struct chain chain;
};

static void on_appeared(void *arg, const char *path, struct spool *spool,
			uint64_t confirmed)
{
	((struct world *)arg)->spool = spool;
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

	if (capture_open(&config, &w->capture) < 0)
		fail_msg("capture_open: %s", error_message());
	capture_vfs_use(w->capture, w->dir, w->dirfd);
}

static int set_up(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	log_set_level(LOG_ERROR);
	strcpy(w->dir, memory_is_roomy() ?
			       "/dev/shm/litebucket-crash.XXXXXX" :
			       "/tmp/litebucket-crash.XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	(void)snprintf(w->path, sizeof(w->path), "%s/app.db", w->dir);
	w->dirfd = open(w->dir, O_RDONLY | O_DIRECTORY);
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;
	char command[128];

	chain_clear(&w->chain);
	(void)close(w->dirfd);
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", w->dir);
	(void)!system(command);
	free(w);
	return 0;
}

static bool run(sqlite3 *db, const char *text)
{
	return sqlite3_exec(db, text, NULL, NULL, NULL) == SQLITE_OK;
}

/* Ten commits, each sealed; exits 1 if that goes wrong, 0 at the end. */
static void work(struct world *w, const char *mode)
{
	char text[128];
	sqlite3 *db;

	start(w);
	if (sqlite3_open_v2(w->path, &db,
			    SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
			    "capture") != SQLITE_OK)
		_exit(1);
	(void)snprintf(text, sizeof(text),
		       "PRAGMA journal_mode=%s; PRAGMA wal_autocheckpoint=5;"
		       "CREATE TABLE IF NOT EXISTS t (a, b)",
		       mode);
	if (!run(db, text))
		_exit(1);
	for (int i = 0; i < 10; i++)
		if (!run(db, "INSERT INTO t VALUES (1, randomblob(6000));"
			     "UPDATE t SET a = a + 1") ||
		    capture_seal(w->capture, "app.db", NULL) < 0)
			_exit(1);
	_exit(0);
}

/* The child's end: true if it was killed. */
static bool work_until(struct world *w, const char *point, int pass,
		       const char *mode)
{
	char armed[64];
	int status;
	pid_t pid;

	(void)snprintf(armed, sizeof(armed), "%s:kill:%d", point, pass);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		(void)setenv("LITEBUCKET_FAILPOINT", armed, 1);
		work(w, mode);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status))
		assert_int_equal(WEXITSTATUS(status), 0);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

static void take_up_and_check(struct world *w)
{
	uint64_t txid;

	start(w);
	if (capture_vfs_settle(w->capture, "app.db", &txid) < 0)
		fail_msg("settle: %s", error_message());
	/* From the beginning: a batch that changed would break the chain. */
	chain_clear(&w->chain);
	assert_true(chain_follow(&w->chain, w->spool));
	assert_int_equal(w->chain.txid, txid);
	assert_true(chain_equals(&w->chain, w->path));
	capture_close(w->capture);
}

static void a_kill_at_any_point_of_sealing_loses_and_repeats_nothing(void **state)
{
#ifndef LITEBUCKET_FAILPOINTS
	skip();
#endif
	static const char *const points[] = { "seal-written", "seal-pages",
					      "seal-position", "spool-written",
					      "spool-renamed" };
	static const char *const modes[] = { "DELETE", "WAL" };
	struct world *w = *state;

	for (size_t m = 0; m < 2; m++)
		for (size_t p = 0; p < 5; p++)
			for (int pass = 1; pass <= 9; pass += 4) {
				assert_true(work_until(w, points[p], pass,
						       modes[m]));
				take_up_and_check(w);
			}
}

static void a_hot_journal_is_played_before_anything_is_captured(void **state)
{
	struct world *w = *state;
	char journal[160], command[400];
	sqlite3 *db;

	/* A transaction that was cut off in its middle: files copied then. */
	assert_int_equal(sqlite3_open(w->path, &db), SQLITE_OK);
	assert_true(run(db, "PRAGMA cache_size=5; CREATE TABLE t (a, b);"
			    "INSERT INTO t VALUES (1, zeroblob(200000));"
			    "BEGIN; UPDATE t SET b = randomblob(200000);"
			    "INSERT INTO t VALUES (2, randomblob(300000))"));
	(void)snprintf(journal, sizeof(journal), "%s-journal", w->path);
	assert_int_equal(access(journal, F_OK), 0);
	(void)snprintf(command, sizeof(command),
		       "cp '%s' '%s.x' && cp '%s' '%s.y'", w->path, w->path,
		       journal, w->path);
	assert_int_equal(system(command), 0);
	(void)sqlite3_close(db);
	(void)snprintf(command, sizeof(command),
		       "mv '%s.x' '%s' && mv '%s.y' '%s'", w->path, w->path,
		       w->path, journal);
	assert_int_equal(system(command), 0);
	take_up_and_check(w);
	assert_int_equal(access(journal, F_OK), -1);
}

static void damaged_page_hashes_lead_to_a_batch_of_all_pages(void **state)
{
	struct world *w = *state;
	char command[256];
	uint32_t commit;

	assert_false(work_until(w, "none", 1, "DELETE"));
	take_up_and_check(w);
	commit = w->chain.commit;
	(void)snprintf(command, sizeof(command),
		       "for f in '%s'/.litebucket/db/*/pages; do "
		       "printf 'xxxxxxxx' | dd of=$f bs=8 seek=2 conv=notrunc "
		       "status=none; done; rm '%s/.litebucket/clean'",
		       w->dir, w->dir);
	assert_int_equal(system(command), 0);
	take_up_and_check(w);
	assert_int_equal(w->chain.commit, commit);
}

static void a_position_that_cannot_be_read_stops_only_that_database(void **state)
{
	struct world *w = *state;
	char command[256];

	assert_false(work_until(w, "none", 1, "DELETE"));
	(void)snprintf(command, sizeof(command),
		       "for f in '%s'/.litebucket/db/*/position; do "
		       "echo nonsense > $f; done",
		       w->dir);
	assert_int_equal(system(command), 0);
	log_set_level(LOG_ERROR + 1);
	start(w);
	assert_int_equal(capture_vfs_settle(w->capture, "app.db", NULL),
			 -ERR_CORRUPT);
	capture_close(w->capture);
	log_set_level(LOG_ERROR);
}

static void two_processes_cannot_use_one_directory(void **state)
{
	struct world *w = *state;
	struct capture_config config = { .dirfd = w->dirfd,
					 .now_ms = on_now };
	struct capture *second;

	start(w);
	assert_int_equal(capture_open(&config, &second), -EBUSY);
	capture_close(w->capture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			a_kill_at_any_point_of_sealing_loses_and_repeats_nothing,
			set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_hot_journal_is_played_before_anything_is_captured,
			set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			damaged_page_hashes_lead_to_a_batch_of_all_pages,
			set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_position_that_cannot_be_read_stops_only_that_database,
			set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			two_processes_cannot_use_one_directory, set_up,
			tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
