#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "bucket/archive.h"
#include "bucket/bucket.h"
#include "bucket/catalog.h"
#include "bucket/url.h"
#include "cli/report.h"
#include "cli/columns.h"
#include "ltx/header.h"
#include "ltx/name.h"
#include "restorer/restorer.h"

#include "cli/cli.h"

struct list_settings {
	bool json;
};

static const struct option list_options[] = {
	OPTION_JSON(struct list_settings),
	{0},
};

/* One database of the bucket; error is NULL or why head is not known. */
struct listed {
	char *key; /* its part of the keys, as in the bucket */
	char *error;
	struct restorer_point head;
};

struct listing {
	struct listed *items;
	size_t n;
	struct catalog *catalog; /* NULL: the bucket has none */
};

static void listing_cleanup(struct listing *l)
{
	for (size_t i = 0; i < l->n; i++) {
		free(l->items[i].key);
		free(l->items[i].error);
	}
	free(l->items);
	catalog_free(l->catalog);
}

/* An archive_db_fn; arg is the listing. */
static int add_database(const char *db, void *arg)
{
	struct listing *l = arg;
	struct listed *items = reallocarray(l->items, l->n + 1, sizeof(*items));

	if (!items)
		return error_set(-ENOMEM, "out of memory");
	l->items = items;
	items[l->n] = (struct listed){.key = strdup(db)};
	if (!items[l->n].key)
		return error_set(-ENOMEM, "out of memory");
	l->n++;
	return 0;
}

/* Most buckets that others wrote have none; a damaged one says no more. */
static int read_catalog(struct bucket *bucket, struct listing *ret)
{
	int rc = catalog_get(bucket, &ret->catalog, NULL);

	if (rc == -ENOENT)
		return 0;
	if (rc != -ERR_CORRUPT && rc != -EFBIG)
		return rc;
	report_warning("%s", error_message());
	return 0;
}

static int set_error(struct listed *db, const char *error)
{
	db->error = strdup(error);
	return db->error ? 0 : error_set(-ENOMEM, "out of memory");
}

/* The log is believed; a database that cannot be read does not keep others. */
static int read_heads(struct bucket *bucket, struct listing *l)
{
	for (size_t i = 0; i < l->n; i++) {
		struct listed *db = &l->items[i];

		if (restorer_head(bucket, db->key, &db->head) < 0 &&
		    set_error(db, error_message()) < 0)
			return -ENOMEM;
	}
	return 0;
}

static bool is_listed(const struct listing *l, size_t n, const char *key)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(l->items[i].key, key) == 0)
			return true;
	return false;
}

/* What the catalog has and the log has not; n are from the log. */
struct rest {
	struct listing *listing;
	size_t n;
};

/* A catalog_fn; arg is the rest.  History that ended leaves a dropped line. */
static int add_rest(const char *key, const struct catalog_entry *entry,
		    void *arg)
{
	struct rest *rest = arg;
	struct listing *l = rest->listing;
	int rc;

	if (is_listed(l, rest->n, key))
		return 0;
	rc = add_database(key, l);
	if (rc < 0)
		return rc;
	if (!entry->dropped)
		return set_error(&l->items[l->n - 1],
				 "the catalog has it, but none of its LTX "
				 "files is in the bucket");
	l->items[l->n - 1].head = (struct restorer_point){
		.txid = entry->txid,
		.timestamp_ms = entry->time_ms,
		.page_size = entry->page_size,
		.kind = LTX_DROP,
	};
	return 0;
}

/* A directory's databases stand together, behind one of its name. */
static int compare_listed(const void *a, const void *b)
{
	const char *x = ((const struct listed *)a)->key;
	const char *y = ((const struct listed *)b)->key;

	while (*x && *x == *y) {
		x++;
		y++;
	}
	if (!*x && *y == '/')
		return -1;
	if (!*y && *x == '/')
		return 1;
	return (*x ? (unsigned char)*x : '/') - (*y ? (unsigned char)*y : '/');
}

static int read_listing(struct bucket *bucket, struct listing *ret)
{
	struct rest rest = {.listing = ret};
	int rc = read_catalog(bucket, ret);

	if (rc == 0)
		rc = archive_databases(bucket, add_database, ret);
	if (rc == 0)
		rc = read_heads(bucket, ret);
	rest.n = ret->n;
	if (rc == 0 && ret->catalog)
		rc = catalog_each(ret->catalog, add_rest, &rest);
	if (rc == 0 && ret->n > 0)
		qsort(ret->items, ret->n, sizeof(*ret->items), compare_listed);
	return rc;
}

/* The path it had below the mount; "." where the URL names the database. */
static const char *path_of(const struct listed *db, char room[BUCKET_KEY_MAX])
{
	if (!*db->key)
		return ".";
	/* A key that another program chose is shown as it is. */
	return archive_unescape(db->key, room) < 0 ? db->key : room;
}

static const char *state_of(const struct listed *db)
{
	if (db->error)
		return "unreadable";
	return db->head.kind == LTX_DROP ? "dropped" : "live";
}

static json_t *json_of(const struct listed *db)
{
	const struct restorer_point *head = &db->head;
	json_int_t size = (json_int_t)head->page_size * head->commit;
	char path[BUCKET_KEY_MAX];
	json_t *o = json_object();

	report_field(&o, "path", report_json_text(path_of(db, path)));
	report_field(&o, "key", report_json_text(db->key));
	report_field(&o, "state", json_string(state_of(db)));
	report_field(&o, "txid", report_json_txid(head->txid));
	report_field(&o, "time", report_json_time(head->timestamp_ms));
	report_field(&o, "page_size", json_integer(head->page_size));
	report_field(&o, "pages", json_integer(head->commit));
	report_field(&o, "size", json_integer(size));
	report_field(&o, "error", report_json_text(db->error));
	return o;
}

static int print_json(const struct listing *l, const char *url)
{
	json_t *databases = json_array();
	json_t *d = report_document();
	int rc = 0;

	for (size_t i = 0; i < l->n && rc == 0; i++)
		rc = json_array_append_new(databases, json_of(&l->items[i]));
	report_field(&d, "bucket", report_json_text(url));
	report_field(&d, "bucket_id",
		     report_json_text(l->catalog ? catalog_id(l->catalog)
						 : NULL));
	report_field(&d, "databases", databases);
	if (rc == 0)
		return report_json(d);
	json_decref(d);
	return error_set(-ENOMEM, "out of memory for the JSON document");
}

static void add_row(struct columns *t, const struct listed *db)
{
	char path[BUCKET_KEY_MAX];
	char txid[LTX_TXID_TEXT_SIZE] = "-";
	char time[CLOCK_TEXT_SIZE] = "-";
	char size[REPORT_SIZE_TEXT] = "-";

	if (!db->error) {
		ltx_txid_format(db->head.txid, txid);
		clock_format(db->head.timestamp_ms, time);
		report_size((uint64_t)db->head.page_size * db->head.commit,
			    size);
	}
	columns_cell(t, "%s", path_of(db, path));
	columns_cell(t, "%s", state_of(db));
	columns_cell(t, "%s", size);
	columns_cell(t, "%s", txid);
	columns_cell(t, "%s", time);
}

static int print_table(const struct listing *l, const char *url)
{
	AUTO(columns)
	struct columns table =
		COLUMNS("PATH", "STATE", "SIZE>", "TXID", "TIME");

	if (l->n == 0) {
		(void)fprintf(stderr, "no databases in '%s'\n", url);
		return 0;
	}
	for (size_t i = 0; i < l->n; i++)
		add_row(&table, &l->items[i]);
	return columns_print(&table, stdout);
}

/* Each unreadable one has its line on stderr, and makes the list a failure. */
static int report_unreadable(const struct listing *l)
{
	int code = CLI_OK;

	for (size_t i = 0; i < l->n; i++) {
		char path[BUCKET_KEY_MAX];

		if (!l->items[i].error)
			continue;
		report_error("reading '%s': %s", path_of(&l->items[i], path),
			     l->items[i].error);
		code = CLI_FAILED;
	}
	return code;
}

static int run(const void *settings, char **operands)
{
	const struct list_settings *s = settings;
	const char *url = operands[0];
	AUTO(bucket) struct bucket *bucket = NULL;
	AUTO(listing) struct listing listing = {0};
	int rc = bucket_open(url, false, &bucket);

	if (rc == 0)
		rc = read_listing(bucket, &listing);
	if (rc == 0)
		rc = s->json ? print_json(&listing, url)
			     : print_table(&listing, url);
	if (rc < 0)
		return cli_fail(error_wrap(rc, "listing '%s'", url));
	return report_unreadable(&listing);
}

const struct verb cmd_list = {
	.name = "list",
	.operands = {"BUCKET"},
	.summary = "the databases in a bucket",
	.description =
		"Print each database of the bucket: its path, whether it is "
		"live or was dropped,\n"
		"its size, and the TXID and time of the newest state in the "
		"bucket.",
	.options = list_options,
	.settings_size = sizeof(struct list_settings),
	.run = run,
};
