/*
 * An application that only reads, for the end-to-end tests.
 *
 *	reader DB QUERY		until stdin ends, ask again and again
 *
 * QUERY gives a sum that is zero in every committed state and a number that
 * never goes back.  Prints how often it asked; or says what was wrong, at once.
 */
#include <poll.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static sqlite3 *db;

static void fail(const char *what)
{
	(void)fprintf(stderr, "reader: %s: %s\n", what, sqlite3_errmsg(db));
	exit(1);
}

static bool asked_to_stop(void)
{
	struct pollfd p = { .fd = 0, .events = POLLIN };

	return poll(&p, 1, 0) != 0;
}

int main(int argc, char **argv)
{
	sqlite3_int64 last = 0, now;
	sqlite3_stmt *query;
	unsigned long asked = 0;

	if (argc != 3)
		return 2;
	if (sqlite3_open_v2(argv[1], &db, SQLITE_OPEN_READWRITE, NULL) !=
	    SQLITE_OK)
		fail("opening");
	(void)sqlite3_busy_timeout(db, 5000);
	if (sqlite3_prepare_v2(db, argv[2], -1, &query, NULL) != SQLITE_OK)
		fail("preparing");
	for (; !asked_to_stop(); asked++) {
		if (sqlite3_step(query) != SQLITE_ROW)
			fail("asking");
		if (sqlite3_column_int64(query, 0) != 0)
			fail("the sum is wrong");
		now = sqlite3_column_int64(query, 1);
		if (now < last)
			fail("the number went back");
		last = now;
		if (sqlite3_reset(query) != SQLITE_OK)
			fail("ending");
	}
	(void)printf("%lu\n", asked);
	return 0;
}
