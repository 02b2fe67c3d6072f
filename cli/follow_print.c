#include <string.h>

#include "base/cleanup.h"
#include "cli/columns.h"
#include "cli/report.h"

#include "cli/follow_status.h"

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "-";
}

static void format_bytes(const json_t *object, const char *key,
			 char ret[REPORT_SIZE_TEXT])
{
	double bytes = json_number_value(json_object_get(object, key));

	report_size(bytes > 0 ? (uint64_t)bytes : 0, ret);
}

static void add_row(struct columns *t, const json_t *db)
{
	const json_t *lag_seconds = json_object_get(db, "lag_seconds");
	char lag[REPORT_LAG_TEXT] = "-", wal[REPORT_SIZE_TEXT] = "-";
	json_int_t readers = json_integer_value(json_object_get(db, "readers"));

	if (json_is_real(lag_seconds))
		report_lag(json_real_value(lag_seconds), lag);
	if (json_is_integer(json_object_get(db, "wal_bytes")))
		format_bytes(db, "wal_bytes", wal);
	columns_cell(t, "%s", text_of(db, "path"));
	columns_cell(t, "%s", text_of(db, "state"));
	columns_cell(t, "%s", text_of(db, "txid"));
	columns_cell(t, "%s", text_of(db, "seen"));
	columns_cell(t, "%s", lag);
	columns_cell(t, "%s", wal);
	columns_cell(t, "%lld", (long long)readers);
}

/* Sentences do not fit in a column: each has a line of its own below. */
static void print_sentences(const json_t *db)
{
	const char *path = text_of(db, "path");

	if (json_is_true(json_object_get(db, "held_back")))
		(void)printf("%s: readers that do not end hold its -wal back\n",
			     path);
	if (json_is_string(json_object_get(db, "error")))
		(void)printf("%s: %s\n", path, text_of(db, "error"));
}

static void print_heading(const json_t *status)
{
	char bytes[REPORT_SIZE_TEXT];

	(void)printf("follower  %s%s\n", text_of(status, "follower"),
		     json_is_true(json_object_get(status, "running")) ?
			     "" : "  (not running)");
	if (!json_is_string(json_object_get(status, "bucket")))
		return;
	format_bytes(status, "bytes_per_minute", bytes);
	(void)printf("bucket    %s\nrequests  %.0f a minute, %s\n",
		     text_of(status, "bucket"),
		     json_number_value(json_object_get(
			     status, "requests_per_minute")), bytes);
	if (json_is_string(json_object_get(status, "catalog_error")))
		(void)printf("catalog   %s\n", text_of(status, "catalog_error"));
}

int follow_status_print(const json_t *status)
{
	AUTO(columns)
	struct columns table = COLUMNS("PATH", "STATE", "TXID", "BUCKET",
				       "LAG>", "WAL>", "READERS>");
	const json_t *databases = json_object_get(status, "databases");
	size_t i;
	json_t *db;
	int rc;

	print_heading(status);
	(void)putchar('\n');
	if (json_array_size(databases) == 0) {
		(void)puts("no databases here");
		return 0;
	}
	json_array_foreach(databases, i, db) add_row(&table, db);
	rc = columns_print(&table, stdout);
	if (rc < 0)
		return rc;
	json_array_foreach(databases, i, db) print_sentences(db);
	return 0;
}
