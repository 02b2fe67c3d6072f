/*
 * An ordinary SQLite application for the end-to-end tests.
 *
 *	client DB JOURNAL rows N	insert N rows in one transaction
 *	client DB JOURNAL blob BYTES	insert one large blob
 *	client DB JOURNAL update	change every third row
 *	client DB JOURNAL delete	remove every second row
 *	client DB JOURNAL balance N	N transactions, of which every fifth is
 *					large and rolled back, that move amounts
 *					between the rows of a table
 *	client DB JOURNAL loop		commit rows 1, 2, 3, ... and print each
 *					number once its commit has returned,
 *					until something fails
 *
 * JOURNAL is a journal mode; synchronous (FULL) and the locking mode (NORMAL)
 * may follow, with commas.  rows to delete expect a table
 * t(id INTEGER PRIMARY KEY, n INTEGER, body BLOB); balance and loop make their
 * own.
 */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static sqlite3 *db;

static void check(int rc)
{
	if (rc == SQLITE_OK || rc == SQLITE_DONE || rc == SQLITE_ROW)
		return;
	(void)fprintf(stderr, "client: %s (%d, errno %d)\n", sqlite3_errmsg(db),
		      sqlite3_extended_errcode(db), sqlite3_system_errno(db));
	exit(1);
}

static void run(const char *sql)
{
	check(sqlite3_exec(db, sql, NULL, NULL, NULL));
}

static sqlite3_stmt *prepare(const char *sql)
{
	sqlite3_stmt *statement;

	check(sqlite3_prepare_v2(db, sql, -1, &statement, NULL));
	return statement;
}

static void insert_rows(int n)
{
	sqlite3_stmt *insert;

	run("BEGIN IMMEDIATE");
	insert = prepare("INSERT INTO t(n, body) VALUES (?, randomblob(30))");
	for (int i = 0; i < n; i++) {
		check(sqlite3_bind_int(insert, 1, i));
		check(sqlite3_step(insert));
		check(sqlite3_reset(insert));
	}
	check(sqlite3_finalize(insert));
	run("COMMIT");
}

/* Written in pieces, as applications do that stream. */
static void insert_blob(int bytes)
{
	enum { PIECE = 4096 };
	static char piece[PIECE];
	sqlite3_blob *blob;
	sqlite3_stmt *insert;

	run("BEGIN IMMEDIATE");
	insert = prepare("INSERT INTO t(n, body) VALUES (0, zeroblob(?))");
	check(sqlite3_bind_int(insert, 1, bytes));
	check(sqlite3_step(insert));
	check(sqlite3_finalize(insert));
	check(sqlite3_blob_open(db, "main", "t", "body",
				sqlite3_last_insert_rowid(db), 1, &blob));
	for (int at = 0; at < bytes; at += PIECE) {
		int size = bytes - at < PIECE ? bytes - at : PIECE;

		sqlite3_randomness(size, piece);
		check(sqlite3_blob_write(blob, piece, size, at));
	}
	check(sqlite3_blob_close(blob));
	run("COMMIT");
}

static int first_number(void)
{
	sqlite3_stmt *query = prepare("SELECT max(n) FROM numbers");
	int last;

	check(sqlite3_step(query));
	last = sqlite3_column_int(query, 0);
	check(sqlite3_finalize(query));
	return last + 1;
}

static void loop(void)
{
	sqlite3_stmt *insert;

	run("CREATE TABLE IF NOT EXISTS numbers("
	    "n INTEGER PRIMARY KEY, body BLOB)");
	insert = prepare("INSERT INTO numbers VALUES (?, randomblob(500))");
	for (int n = first_number();; n++) {
		check(sqlite3_bind_int(insert, 1, n));
		check(sqlite3_step(insert));
		check(sqlite3_reset(insert));
		(void)printf("%d\n", n);
		(void)fflush(stdout);
	}
}

/*
 * Every transaction leaves the sum at 0, on its way over a few pages of many.
 * A small cache makes SQLite write pages of a transaction before its end, and
 * frequent checkpoints make the WAL start over all the time.
 */
static void balance(int transactions)
{
	sqlite3_stmt *add;

	run("PRAGMA cache_size=10");
	run("PRAGMA wal_autocheckpoint=50");
	run("BEGIN IMMEDIATE; CREATE TABLE IF NOT EXISTS accounts("
	    "id INTEGER PRIMARY KEY, n INTEGER, body BLOB);"
	    "INSERT OR IGNORE INTO accounts WITH RECURSIVE c(i) AS (SELECT 1 "
	    "UNION ALL SELECT i + 1 FROM c WHERE i < 60) "
	    "SELECT i, 0, randomblob(3000) FROM c; COMMIT");
	add = prepare("UPDATE accounts SET n = n + ?1, body = randomblob(3000) "
		      "WHERE id = ?2");
	for (int i = 1; i <= transactions; i++) {
		run("BEGIN IMMEDIATE");
		for (int side = -1; side <= 1; side += 2) {
			check(sqlite3_bind_int(add, 1, side * i));
			check(sqlite3_bind_int(add, 2, rand() % 60 + 1));
			check(sqlite3_step(add));
			check(sqlite3_reset(add));
		}
		if (i % 5 == 0)
			run("UPDATE accounts SET n = n + 1, "
			    "body = randomblob(3000)");
		run(i % 5 == 0 ? "ROLLBACK" : "COMMIT");
	}
	check(sqlite3_finalize(add));
}

static void set(const char *pragma, const char *value)
{
	char text[128];

	(void)snprintf(text, sizeof(text), "PRAGMA %s=%s", pragma, value);
	run(text);
}

/* "wal", or "wal,normal", or "wal,normal,exclusive". */
static void set_modes(char *text)
{
	char *journal = strtok(text, ","), *synchronous = strtok(NULL, ","),
	     *locking = strtok(NULL, ",");

	/* Before the first use of the database: no -shm in WAL mode. */
	set("locking_mode", locking ? locking : "NORMAL");
	set("journal_mode", journal);
	set("synchronous", synchronous ? synchronous : "FULL");
}

int main(int argc, char **argv)
{
	const char *verb = argc > 3 ? argv[3] : "";
	int n = argc > 4 ? atoi(argv[4]) : 0;

	if (argc < 4)
		return 2;
	check(sqlite3_open(argv[1], &db));
	check(sqlite3_busy_timeout(db, 10000));
	set_modes(argv[2]);
	if (strcmp(verb, "rows") == 0)
		insert_rows(n);
	else if (strcmp(verb, "blob") == 0)
		insert_blob(n);
	else if (strcmp(verb, "update") == 0)
		run("UPDATE t SET n = n + 1 WHERE id % 3 = 0");
	else if (strcmp(verb, "delete") == 0)
		run("DELETE FROM t WHERE id % 2 = 0");
	else if (strcmp(verb, "balance") == 0)
		balance(n);
	else if (strcmp(verb, "loop") == 0)
		loop();
	else
		return 2;
	check(sqlite3_close(db));
	return 0;
}
