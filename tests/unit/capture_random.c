#include <dirent.h>
#include <fcntl.h>
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

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "capture/capture.h"
#include "ltx/spool.h"
#include "tests/lib/capture_vfs.h"
#include "tests/lib/chain.h"
#include "memory_dir.h"

/*
 * Random lives of two databases that are attached to each other, under three
 * connections.  Batches are sealed at any system call; each must be a state
 * that SQLite would find if it looked at the files at that moment.
 *
 * LITEBUCKET_LIVES=N lives instead of a few, LITEBUCKET_SEED=S the first.
 */
enum { CONNECTIONS = 3, DATABASES = 2, STEPS = 200 };

static const char *const names[DATABASES] = { "one.db", "two.db" };

struct life {
	char dir[64];
	int dirfd;
	struct capture *capture;
	_Atomic(struct spool *) spools[DATABASES];
	struct chain chains[DATABASES];
	sqlite3 *connections[CONNECTIONS];
	unsigned random;
	unsigned seal_one_in; /* system calls; 0: never on the way */
	unsigned fail_one_in; /* likewise */
	bool wrong;
	bool judging;
};

static unsigned draw(struct life *l, unsigned below)
{
	return (unsigned)rand_r(&l->random) / 7 % below;
}

static void on_appeared(void *arg, const char *path, struct spool *spool,
			uint64_t confirmed)
{
	struct life *l = arg;

	for (int i = 0; i < DATABASES; i++)
		if (strcmp(path, names[i]) == 0)
			atomic_store(&l->spools[i], spool);
}

static int64_t on_now(void *arg)
{
	return clock_wall_ms();
}

/*
 * A transaction over two databases is committed when its super-journal goes;
 * what was captured is behind SQLite's truth until their journals go, too.
 */
static bool is_between_two_commits(struct life *l)
{
	DIR *dir = opendir(l->dir);
	bool super = false, journal = false;
	struct dirent *entry;

	while ((entry = readdir(dir))) {
		super |= strstr(entry->d_name, "-mj") != NULL;
		journal |= strstr(entry->d_name, "-journal") != NULL;
	}
	(void)closedir(dir);
	return journal && !super;
}

static void judge(struct life *l, int i)
{
	char path[96];

	if (!l->spools[i])
		return;
	(void)snprintf(path, sizeof(path), "%s/%s", l->dir, names[i]);
	if (!chain_follow(&l->chains[i], l->spools[i]) ||
	    (!chain_equals_meanwhile(&l->chains[i], path) &&
	     !is_between_two_commits(l)))
		l->wrong = true;
}

static void seal_and_judge(struct life *l, int i)
{
	int rc = capture_seal(l->capture, names[i], NULL);

	if (rc == 1)
		judge(l, i);
	else if (rc < 0 && rc != -ENOENT)
		l->wrong = true;
}

static int on_call(const char *what, const char *path, uint64_t offset,
		   void *arg)
{
	struct life *l = arg;

	if (l->seal_one_in && draw(l, l->seal_one_in) == 0)
		seal_and_judge(l, (int)draw(l, DATABASES));
	return l->fail_one_in && draw(l, l->fail_one_in) == 0 ? EIO : 0;
}

static void start(struct life *l)
{
	struct capture_config config = { .dirfd = l->dirfd,
					 .appeared = on_appeared,
					 .now_ms = on_now,
					 .quiet_ms = 20,
					 .arg = l };

	for (int i = 0; i < DATABASES; i++)
		l->spools[i] = NULL;
	if (capture_open(&config, &l->capture) < 0)
		fail_msg("capture_open: %s", error_message());
	capture_vfs_use(l->capture, l->dir, l->dirfd);
	capture_vfs_set_hook(on_call, l);
}

static int run(sqlite3 *db, const char *sql)
{
	return sqlite3_exec(db, sql, NULL, NULL, NULL);
}

static void connect(struct life *l, int i)
{
	char text[160];

	(void)snprintf(text, sizeof(text), "%s/%s", l->dir, names[0]);
	assert_int_equal(sqlite3_open_v2(text, &l->connections[i],
					 SQLITE_OPEN_READWRITE |
						 SQLITE_OPEN_CREATE,
					 "capture"),
			 SQLITE_OK);
	(void)snprintf(text, sizeof(text), "ATTACH '%s/%s' AS two", l->dir,
		       names[1]);
	(void)run(l->connections[i], text);
}

static void begin(struct life *l, unsigned seed)
{
	static const unsigned policies[] = { 0, 1, 7, 31 };

	*l = (struct life){ .random = seed * 7919 };
	l->seal_one_in = policies[draw(l, 4)];
	strcpy(l->dir, memory_is_roomy() ?
			       "/dev/shm/litebucket-random.XXXXXX" :
			       "/tmp/litebucket-random.XXXXXX");
	assert_non_null(mkdtemp(l->dir));
	l->dirfd = open(l->dir, O_RDONLY | O_DIRECTORY);
	start(l);
	for (int i = 0; i < CONNECTIONS; i++)
		connect(l, i);
}

static void end(struct life *l)
{
	char command[128];

	for (int i = 0; i < DATABASES; i++)
		chain_clear(&l->chains[i]);
	(void)close(l->dirfd);
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", l->dir);
	(void)!system(command);
}

static const char *const statements[] = {
	"CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, a, b)",
	"CREATE TABLE IF NOT EXISTS two.u (id INTEGER PRIMARY KEY, a, b)",
	"CREATE INDEX IF NOT EXISTS i ON t (b)",
	"DROP INDEX IF EXISTS i",
	"INSERT INTO t (a, b) VALUES (1, randomblob(3000))",
	"INSERT INTO t (a, b) VALUES (1, randomblob(70000))",
	"INSERT INTO u (a, b) VALUES (1, randomblob(9000))",
	"INSERT INTO t (a, b) SELECT a, randomblob(100) FROM t LIMIT 90",
	"INSERT INTO u (a, b) SELECT a, b FROM t LIMIT 20",
	"UPDATE t SET a = a + 1 WHERE id % 3 = 1",
	"UPDATE t SET b = randomblob(length(b)) WHERE id % 4 = 1",
	"UPDATE u SET b = randomblob(length(b) + 50)",
	"DELETE FROM t WHERE id % 2",
	"DELETE FROM u WHERE id % 3",
	"DELETE FROM t",
	"BEGIN",
	"BEGIN IMMEDIATE",
	"BEGIN EXCLUSIVE",
	"COMMIT",
	"COMMIT",
	"COMMIT",
	"ROLLBACK",
	"SAVEPOINT s",
	"ROLLBACK TO s",
	"RELEASE s",
	"VACUUM",
	"VACUUM two",
	"PRAGMA page_size=512; VACUUM",
	"PRAGMA page_size=8192; VACUUM",
	"PRAGMA auto_vacuum=FULL; VACUUM",
	"PRAGMA auto_vacuum=INCREMENTAL; VACUUM",
	"PRAGMA auto_vacuum=NONE; VACUUM",
	"PRAGMA incremental_vacuum(7)",
	"PRAGMA incremental_vacuum",
	"PRAGMA cache_size=5; PRAGMA two.cache_size=5",
	"PRAGMA cache_size=500",
	"PRAGMA cache_spill=3",
	"PRAGMA journal_size_limit=20000; PRAGMA two.journal_size_limit=0",
	"PRAGMA journal_size_limit=-1",
	"PRAGMA locking_mode=EXCLUSIVE",
	"PRAGMA locking_mode=NORMAL; PRAGMA two.locking_mode=NORMAL",
	"PRAGMA wal_checkpoint",
	"PRAGMA wal_checkpoint(RESTART)",
	"PRAGMA wal_checkpoint(TRUNCATE)",
	"PRAGMA wal_autocheckpoint=3",
	"PRAGMA synchronous=FULL",
	"PRAGMA synchronous=OFF; PRAGMA two.synchronous=NORMAL",
	"PRAGMA journal_mode=WAL",
	"PRAGMA journal_mode=WAL",
	"PRAGMA main.journal_mode=WAL; PRAGMA two.journal_mode=DELETE",
	"PRAGMA journal_mode=DELETE",
	"PRAGMA journal_mode=TRUNCATE",
	"PRAGMA journal_mode=PERSIST",
};

static void step(struct life *l)
{
	unsigned n = sizeof(statements) / sizeof(statements[0]);
	int i = (int)draw(l, 6) % CONNECTIONS;
	const char *text = statements[draw(l, n)];

	/* Connections with a row of statements, and now and then a new one. */
	if (draw(l, 40) == 0) {
		(void)sqlite3_close(l->connections[i]);
		connect(l, i);
	}
	if (getenv("LITEBUCKET_TRACE"))
		printf("%d: %s\n", i, text);
	(void)run(l->connections[i], text);
	if (draw(l, 3) == 0)
		(void)run(l->connections[i], "COMMIT");
}

static void close_all(struct life *l)
{
	for (int i = 0; i < CONNECTIONS; i++) {
		(void)sqlite3_close(l->connections[i]);
		l->connections[i] = NULL;
	}
}

/* Nobody is in a transaction: all is captured, to the byte. */
static void check_all(struct life *l)
{
	for (int i = 0; i < DATABASES; i++) {
		int64_t until = clock_monotonic_ms() + 10000;
		char path[96];
		int rc;

		do {
			rc = capture_settle(l->capture, names[i], NULL);
			if (rc == -EBUSY)
				clock_sleep_ms(5);
		} while (rc == -EBUSY && clock_monotonic_ms() < until);
		if (rc == -ENOENT)
			continue; /* nothing was written */
		if (rc < 0) {
			printf("settle of %s: %s\n", names[i], error_message());
			l->wrong = true;
			continue;
		}
		(void)snprintf(path, sizeof(path), "%s/%s", l->dir, names[i]);
		if (!chain_follow(&l->chains[i], l->spools[i]) ||
		    !chain_equals(&l->chains[i], path))
			l->wrong = true;
	}
}

/* Let go of everything, and let a reader play what is hot. */
static void rest(struct life *l)
{
	unsigned fail_one_in = l->fail_one_in;

	l->fail_one_in = 0;
	close_all(l);
	connect(l, 0);
	(void)run(l->connections[0], "SELECT 1 FROM main.sqlite_schema");
	(void)run(l->connections[0], "SELECT 1 FROM two.sqlite_schema");
	check_all(l);
	close_all(l);
	check_all(l);
	if (draw(l, 2) == 0) {
		capture_close(l->capture);
		start(l);
		check_all(l);
	}
	for (int i = 0; i < CONNECTIONS; i++)
		connect(l, i);
	l->fail_one_in = fail_one_in;
}

static void live(unsigned seed, bool failing)
{
	struct life l;

	begin(&l, seed);
	for (int i = 0; i < STEPS && !l.wrong; i++) {
		l.fail_one_in = failing && draw(&l, 3) == 0 ? 40 : 0;
		step(&l);
		l.fail_one_in = 0;
		if (draw(&l, 25) == 0)
			rest(&l);
	}
	if (!l.wrong)
		rest(&l);
	close_all(&l);
	capture_vfs_set_hook(NULL, NULL);
	capture_close(l.capture);
	if (!l.wrong)
		end(&l);
	if (l.wrong)
		fail_msg("seed %u%s, see %s", seed, failing ? ", failing" : "",
			 l.dir);
}

static unsigned from_environment(const char *name, unsigned otherwise)
{
	const char *text = getenv(name);

	return text ? (unsigned)strtoul(text, NULL, 10) : otherwise;
}

static void live_all(bool failing)
{
	unsigned seed = from_environment("LITEBUCKET_SEED", 1);
	unsigned n = from_environment("LITEBUCKET_LIVES", 12);

	log_set_level(LOG_ERROR + 1);
	for (unsigned i = 0; i < n; i++)
		live(seed + i, failing);
}

static void whatever_is_sealed_at_any_call_is_committed(void **state)
{
	live_all(false);
}

static void failing_calls_do_not_make_it_anything_else(void **state)
{
	live_all(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whatever_is_sealed_at_any_call_is_committed),
		cmocka_unit_test(failing_calls_do_not_make_it_anything_else),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
