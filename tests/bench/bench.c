/*
 * What SQLite does in a second, in one process and with one connection.
 *
 *	bench DB JOURNAL SYNCHRONOUS commits SECONDS [RATE]
 *		single-row commits, no more than RATE per second
 *	bench DB JOURNAL SYNCHRONOUS reads SECONDS
 *		point reads, each a transaction
 *	bench DB latency PAUSE
 *		point reads and reads of RANGE rows in turns, with a pause of so
 *		many microseconds before each; of a database that it does not
 *		write, so it may be a replica
 *
 * SIGTERM ends each of them, and the third ends by nothing else.
 * The first two make the database (ROWS rows, one index) if it is not there, and
 * print operations per second.  The third writes how long each read took, as
 * 32-bit numbers of nanoseconds: the percentiles are those of several processes
 * together, so they are not computed here.
 */
#include <signal.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROWS = 10000, RANGE = 50 };

static sqlite3 *db;
static volatile sig_atomic_t ended;

static void end(int signal)
{
	(void)signal;
	ended = 1;
}

static void check(int rc)
{
	if (rc == SQLITE_OK || rc == SQLITE_DONE || rc == SQLITE_ROW)
		return;
	(void)fprintf(stderr, "bench: %s\n", sqlite3_errmsg(db));
	exit(1);
}

static void run(const char *sql)
{
	check(sqlite3_exec(db, sql, NULL, NULL, NULL));
}

static double now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void pragma(const char *name, const char *value)
{
	char text[64];

	(void)snprintf(text, sizeof(text), "PRAGMA %s=%s", name, value);
	run(text);
}

static void make_database(void)
{
	char text[256];

	(void)snprintf(text, sizeof(text),
		       "INSERT INTO t WITH RECURSIVE c(i) AS (SELECT 1 UNION "
		       "ALL SELECT i + 1 FROM c WHERE i < %d) "
		       "SELECT i, i * 7919 %% 10007, hex(randomblob(50)) FROM c "
		       "WHERE NOT EXISTS (SELECT 1 FROM t)",
		       ROWS);
	run("CREATE TABLE IF NOT EXISTS t("
	    "id INTEGER PRIMARY KEY, k INTEGER, body TEXT)");
	run("CREATE INDEX IF NOT EXISTS t_k ON t(k)");
	run(text);
}

static sqlite3_stmt *prepare(const char *sql)
{
	sqlite3_stmt *statement;

	check(sqlite3_prepare_v2(db, sql, -1, &statement, NULL));
	return statement;
}

static void step(sqlite3_stmt *statement, int number)
{
	check(sqlite3_bind_int(statement, 1, number));
	check(sqlite3_step(statement));
	check(sqlite3_reset(statement));
}

static void sleep_until(double when)
{
	struct timespec t = { .tv_sec = (time_t)when };

	t.tv_nsec = (long)((when - (double)t.tv_sec) * 1e9);
	(void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

/*
 * Operations per second of a statement with one number to bind; rate 0: as many
 * as it can.
 */
static double measure(const char *sql, double seconds, int modulus, double rate)
{
	sqlite3_stmt *statement = prepare(sql);
	double begin = now(), last = begin;
	long n = 0;

	while (!ended && last - begin < seconds) {
		step(statement, (int)(n * 7919 % modulus) + 1);
		n++;
		if (rate > 0)
			sleep_until(begin + (double)n / rate);
		last = now();
	}
	check(sqlite3_finalize(statement));
	return (double)n / (last - begin);
}

/* Reads that do not begin at once: nothing here takes a processor for itself. */
static void print_latencies(double pause)
{
	sqlite3_stmt *statements[] = {
		prepare("SELECT body FROM t WHERE id = ?"),
		prepare("SELECT sum(length(body)) FROM t "
			"WHERE id BETWEEN ?1 AND ?1 + ?2 - 1"),
	};

	check(sqlite3_bind_int(statements[1], 2, RANGE));
	for (long n = 0; !ended; n++) {
		int number = (int)(n * 7919 % (ROWS - RANGE)) + 1;
		double begin;
		uint32_t took;

		sleep_until(now() + pause);
		begin = now();
		step(statements[n % 2], number);
		took = (uint32_t)((now() - begin) * 1e9);
		(void)fwrite(&took, sizeof(took), 1, stdout);
		/* Who waits for it knows that we are at work. */
		if (n == 1)
			(void)fflush(stdout);
	}
	check(sqlite3_finalize(statements[0]));
	check(sqlite3_finalize(statements[1]));
}

static double rate_of(char **argv, double most)
{
	pragma("journal_mode", argv[2]);
	pragma("synchronous", argv[3]);
	make_database();
	if (strcmp(argv[4], "reads") == 0)
		return measure("SELECT body FROM t WHERE id = ?", atof(argv[5]),
			       ROWS, 0);
	return measure("INSERT INTO t(k, body) VALUES (?, hex(randomblob(50)))",
		       atof(argv[5]), 10007, most);
}

int main(int argc, char **argv)
{
	bool latency = argc == 4 && strcmp(argv[2], "latency") == 0;

	if (!latency && argc != 6 && argc != 7)
		return 2;
	(void)signal(SIGTERM, end);
	check(sqlite3_open(argv[1], &db));
	check(sqlite3_busy_timeout(db, 10000));
	if (latency)
		print_latencies(atof(argv[3]) / 1e6);
	else
		(void)printf("%.0f\n",
			     rate_of(argv, argc == 7 ? atof(argv[6]) : 0));
	check(sqlite3_close(db));
	return 0;
}
