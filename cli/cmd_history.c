#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "bucket/bucket.h"
#include "cli/database.h"
#include "cli/report.h"
#include "cli/columns.h"
#include "cli/root.h"
#include "ltx/header.h"
#include "ltx/name.h"
#include "restorer/restorer.h"

#include "cli/cli.h"

struct history_settings {
	bool json;
};

static const struct option history_options[] = {
	OPTION_JSON(struct history_settings),
	{0},
};

static const char *kind_name(uint32_t kind)
{
	static const char *const names[] = {
		[LTX_BATCH] = "batch",
		[LTX_BARRIER] = "barrier",
		[LTX_DROP] = "drop",
		[LTX_STAGED] = "staged",
	};

	return kind < sizeof(names) / sizeof(names[0]) ? names[kind]
						       : "unknown";
}

/* Whose points, where they go, and whether any is of a bucket of ours. */
struct points {
	const char *url;
	struct bucket *bucket;
	char db[BUCKET_KEY_MAX];
	json_t *array;
	struct columns *table;
	bool ours;
};

/* A restorer_point_fn; arg is the points. */
static int add_point(const struct restorer_point *p, void *arg)
{
	struct points *points = arg;
	json_t *o = json_object();

	report_field(&o, "txid", report_json_txid(p->txid));
	report_field(&o, "time", report_json_time(p->timestamp_ms));
	report_field(&o, "kind", json_string(kind_name(p->kind)));
	report_field(&o, "epoch", p->epoch ? json_integer(p->epoch) :
					     json_null());
	report_field(&o, "level", json_integer(p->level));
	report_field(&o, "object_size", json_integer((json_int_t)p->size));
	report_field(&o, "page_size", json_integer(p->page_size));
	report_field(&o, "pages", json_integer(p->commit));
	points->ours |= p->ours;
	if (json_array_append_new(points->array, o) < 0)
		return error_set(-ENOMEM, "out of memory");
	return 0;
}

/* Read all of it, and then whether we may. */
static int read_points(struct points *points, restorer_point_fn fn)
{
	const char *url = points->url;
	int rc = restorer_history(points->bucket, points->db, fn, points);

	return rc == 0 && points->ours ? root_check(url) : rc;
}

static int print_json(struct points *points)
{
	json_t *d = report_document();
	int rc;

	points->array = json_array();
	rc = read_points(points, add_point);
	report_field(&d, "url", report_json_text(points->url));
	report_field(&d, "points", points->array);
	if (rc == 0)
		return report_json(d);
	json_decref(d);
	return rc;
}

/* A restorer_point_fn; arg is the points. */
static int add_row(const struct restorer_point *p, void *arg)
{
	struct points *points = arg;
	struct columns *t = points->table;
	char txid[LTX_TXID_TEXT_SIZE];
	char time[CLOCK_TEXT_SIZE];
	char object[REPORT_SIZE_TEXT], size[REPORT_SIZE_TEXT] = "-";

	ltx_txid_format(p->txid, txid);
	clock_format(p->timestamp_ms, time);
	if (p->kind != LTX_DROP)
		report_size((uint64_t)p->page_size * p->commit, size);
	report_size(p->size, object);
	columns_cell(t, "%s", txid);
	columns_cell(t, "%s", time);
	columns_cell(t, "%s", size);
	columns_cell(t, "%u", p->level);
	columns_cell(t, "%s", object);
	columns_cell(t, "%s", kind_name(p->kind));
	points->ours |= p->ours;
	return 0;
}

static int print_table(struct points *points)
{
	AUTO(columns)
	struct columns table =
		COLUMNS("TXID", "TIME", "SIZE>", "LEVEL>", "OBJECT>", "KIND");
	int rc;

	points->table = &table;
	rc = read_points(points, add_row);
	return rc < 0 ? rc : columns_print(&table, stdout);
}

static int run(const void *settings, char **operands)
{
	const struct history_settings *s = settings;
	const char *url = operands[0];
	AUTO(bucket) struct bucket *bucket = NULL;
	struct points points = {.url = url};
	int rc = database_open(url, &bucket, points.db);

	points.bucket = bucket;
	if (rc == 0)
		rc = s->json ? print_json(&points) : print_table(&points);
	if (rc < 0 && bucket)
		rc = database_explain(bucket, points.db, rc);
	if (rc < 0)
		return cli_fail(
			error_wrap(rc, "reading the history of '%s'", url));
	return CLI_OK;
}

const struct verb cmd_history = {
	.name = "history",
	.operands = {"BUCKET/DB"},
	.summary = "the points to which a database can be restored",
	.description =
		"Print every point that 'litebucket restore' can bring back, "
		"oldest first: its\n"
		"TXID and time, the size of the database then, and the object "
		"that holds the\n"
		"change; and when the database was dropped, which is a line of "
		"kind drop.\n"
		"Reads the header of each object.",
	.options = history_options,
	.settings_size = sizeof(struct history_settings),
	.run = run,
};
