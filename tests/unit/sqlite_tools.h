#ifndef LITEBUCKET_TESTS_UNIT_SQLITE_TOOLS_H
#define LITEBUCKET_TESTS_UNIT_SQLITE_TOOLS_H

/* A connection that must do what it is told; include after cmocka.h. */
#include <sqlite3.h>
#include <stdint.h>

static inline void run(sqlite3 *db, const char *sql)
{
	char *message = NULL;

	if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK)
		fail_msg("%s: %s", sql, message);
}

/* The one number that a query gives. */
static inline int64_t ask(sqlite3 *db, const char *sql)
{
	sqlite3_stmt *s;
	int64_t answer;

	if (sqlite3_prepare_v2(db, sql, -1, &s, NULL) != SQLITE_OK ||
	    sqlite3_step(s) != SQLITE_ROW)
		fail_msg("%s: %s", sql, sqlite3_errmsg(db));
	answer = sqlite3_column_int64(s, 0);
	sqlite3_finalize(s);
	return answer;
}

#endif
