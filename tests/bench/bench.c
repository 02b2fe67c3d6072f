/*
 * What SQLite does in a second, in one process and with one connection.
 *
 *	bench DB JOURNAL SYNCHRONOUS commits SECONDS	single-row commits
 *	bench DB JOURNAL SYNCHRONOUS reads SECONDS	point reads, each a transaction
 *
 * Makes the database (ROWS rows, one index) if it is not there.  Prints
 * operations per second.
 */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROWS = 10000 };

static sqlite3 *db;

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

/* Operations per second of a statement with one number to bind. */
static double measure(const char *sql, double seconds, int modulus)
{
	sqlite3_stmt *statement;
	double begin = now(), end = begin;
	long n = 0;

	check(sqlite3_prepare_v2(db, sql, -1, &statement, NULL));
	while (end - begin < seconds) {
		check(sqlite3_bind_int(statement, 1,
				       (int)(n * 7919 % modulus) + 1));
		check(sqlite3_step(statement));
		check(sqlite3_reset(statement));
		n++;
		end = now();
	}
	check(sqlite3_finalize(statement));
	return (double)n / (end - begin);
}

int main(int argc, char **argv)
{
	double rate;

	if (argc != 6)
		return 2;
	check(sqlite3_open(argv[1], &db));
	check(sqlite3_busy_timeout(db, 10000));
	pragma("journal_mode", argv[2]);
	pragma("synchronous", argv[3]);
	make_database();
	if (strcmp(argv[4], "reads") == 0)
		rate = measure("SELECT body FROM t WHERE id = ?", atof(argv[5]),
			       ROWS);
	else
		rate = measure("INSERT INTO t(k, body) "
			       "VALUES (?, hex(randomblob(50)))",
			       atof(argv[5]), 10007);
	(void)printf("%.0f\n", rate);
	check(sqlite3_close(db));
	return 0;
}
