/* Closing a log for older epochs: what does it, and what a crash leaves. */
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

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "capture/capture.h"
#include "ltx/header.h"
#include "ltx/spool.h"
#include "tests/lib/capture_vfs.h"
#include "tests/lib/chain.h"
#include "memory_dir.h"

/* A directory with app.db, whose spool is never emptied. */
struct world {
	char dir[64], path[96];
	int dirfd;
	struct capture *capture;
	struct spool *spool;
	struct chain chain;
	sqlite3 *db;
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
	assert_int_equal(sqlite3_close(w->db), SQLITE_OK);
	capture_close(TAKE(w->capture));
}

static int set_up(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	log_set_level(LOG_ERROR);
	strcpy(w->dir, memory_is_roomy() ?
			       "/dev/shm/litebucket-epoch.XXXXXX" :
			       "/tmp/litebucket-epoch.XXXXXX");
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

	stop(w);
	chain_clear(&w->chain);
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

static uint64_t sealed(struct world *w)
{
	uint64_t txid;

	if (capture_vfs_settle(w->capture, "app.db", &txid) < 0)
		fail_msg("settle: %s", error_message());
	return txid;
}

static struct ltx_header batch_of(struct world *w, uint64_t txid)
{
	uint8_t bytes[LTX_HEADER_SIZE];
	struct ltx_header header;
	AUTO(fd) int fd = -1;

	assert_int_equal(spool_open_batch(w->spool, txid, &fd), 0);
	assert_int_equal(pread(fd, bytes, sizeof(bytes), 0), sizeof(bytes));
	assert_int_equal(ltx_header_decode(bytes, &header), 0);
	return header;
}

static uint32_t epoch_of(struct world *w, uint64_t txid)
{
	return (uint32_t)(batch_of(w, txid).node_id >> 32);
}

/* The log, from its beginning, ends in txid and is what SQLite reads. */
static void check_log(struct world *w, uint64_t txid)
{
	chain_clear(&w->chain);
	assert_true(chain_follow(&w->chain, w->spool));
	assert_int_equal(w->chain.txid, txid);
	assert_true(chain_equals(&w->chain, w->path));
}

static void closed(struct world *w, uint64_t txid, enum ltx_kind kind,
		   uint32_t epoch)
{
	struct capture_point point;

	if (capture_close_log(w->capture, "app.db", &point) != 1)
		fail_msg("close_log: %s", error_message());
	assert_int_equal(point.txid, txid);
	assert_int_equal(point.time_ms, batch_of(w, txid).timestamp_ms);
	assert_int_equal(batch_of(w, txid).kind, kind);
	assert_int_equal(epoch_of(w, txid), epoch);
}

static void without_news_a_barrier_closes_the_log(void **state)
{
	static const char *const modes[] = { "PRAGMA journal_mode=DELETE",
					     "PRAGMA journal_mode=WAL" };
	struct world *w = *state;
	uint64_t txid;

	start(w);
	run(w, "CREATE TABLE t (a)");
	for (uint32_t i = 0; i < 2; i++) {
		run(w, modes[i]);
		run(w, "INSERT INTO t VALUES (randomblob(9000))");
		txid = sealed(w);
		capture_set_epoch(w->capture, 7 + i);
		closed(w, txid + 1, LTX_BARRIER, 7 + i);
		check_log(w, txid + 1);
		run(w, "INSERT INTO t VALUES (2)");
		assert_int_equal(sealed(w), txid + 2);
		assert_int_equal(epoch_of(w, txid + 2), 7 + i);
		check_log(w, txid + 2);
	}
}

static void what_is_committed_closes_the_log_itself(void **state)
{
	struct world *w = *state;
	uint64_t txid;

	start(w);
	run(w, "CREATE TABLE t (a)");
	txid = sealed(w);
	assert_int_equal(epoch_of(w, txid), 1);
	run(w, "INSERT INTO t VALUES (1)");
	capture_set_epoch(w->capture, 2);
	closed(w, txid + 1, LTX_BATCH, 2);
	assert_int_equal(sealed(w), txid + 1);
	check_log(w, txid + 1);
}

static void a_batch_of_the_epoch_has_closed_it_already(void **state)
{
	struct world *w = *state;
	uint64_t txid;

	start(w);
	capture_set_epoch(w->capture, 5);
	run(w, "CREATE TABLE t (a)");
	txid = sealed(w);
	closed(w, txid, LTX_BATCH, 5);
	closed(w, txid, LTX_BATCH, 5);
	/* That was another life, so nobody knows. */
	stop(w);
	start(w);
	capture_set_epoch(w->capture, 5);
	closed(w, txid + 1, LTX_BARRIER, 5);
	closed(w, txid + 1, LTX_BARRIER, 5);
}

static void without_a_log_there_is_nothing_to_close(void **state)
{
	struct world *w = *state;
	struct capture_point point;
	uint64_t txid;

	start(w);
	assert_int_equal(capture_close_log(w->capture, "no.db", &point),
			 -ENOENT);
	run(w, "CREATE TABLE t (a)");
	(void)sealed(w);
	assert_int_equal(sqlite3_close(w->db), SQLITE_OK);
	assert_int_equal(capture_unlink(w->capture, w->dirfd, "app.db",
					"app.db"), 0);
	assert_int_equal(spool_range(w->spool, &txid, &txid), 0);
	assert_int_equal(batch_of(w, txid).kind, LTX_DROP);
	assert_int_equal(capture_close_log(w->capture, "app.db", &point), 0);
	w->db = NULL;
}

/* A child closes the log in epoch 9 behind some commits, and is killed there. */
static void close_until(struct world *w, const char *point, int pass)
{
	char armed[64];
	struct capture_point ignored;
	int status;
	pid_t pid;

	(void)snprintf(armed, sizeof(armed), "%s:kill:%d", point, pass);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		start(w);
		run(w, "PRAGMA journal_mode=WAL;"
		       "CREATE TABLE IF NOT EXISTS t (a);"
		       "INSERT INTO t VALUES (randomblob(5000))");
		(void)sealed(w);
		capture_set_epoch(w->capture, 9);
		(void)setenv("LITEBUCKET_FAILPOINT", armed, 1);
		(void)capture_close_log(w->capture, "app.db", &ignored);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void a_kill_leaves_a_barrier_or_none(void **state)
{
#ifndef LITEBUCKET_FAILPOINTS
	skip();
#endif
	static const char *const points[] = { "seal-written", "seal-pages",
					      "seal-position", "spool-written",
					      "spool-renamed" };
	struct world *w = *state;

	for (size_t i = 0; i < 5; i++) {
		uint64_t last;

		close_until(w, points[i], 1);
		start(w);
		last = sealed(w);
		assert_int_equal(batch_of(w, last).kind, LTX_BARRIER);
		assert_int_equal(epoch_of(w, last), 9);
		check_log(w, last);
		stop(w);
	}
}

int main(void)
{
#define EPOCH_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		EPOCH_TEST(without_news_a_barrier_closes_the_log),
		EPOCH_TEST(what_is_committed_closes_the_log_itself),
		EPOCH_TEST(a_batch_of_the_epoch_has_closed_it_already),
		EPOCH_TEST(without_a_log_there_is_nothing_to_close),
		EPOCH_TEST(a_kill_leaves_a_barrier_or_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
