#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "cli/columns.h"
#include "cli/follow_status.h"
#include "cli/paths.h"
#include "cli/report.h"
#include "fuse/control.h"
#include "restorer/layout.h"

#include "cli/cli.h"

/* Some hundred bytes for each of as many databases as anybody mounts. */
enum {
	REPLY_MAX = 256 << 20
};

struct status_settings {
	bool json;
};

static const struct option status_options[] = {
	OPTION_JSON(struct status_settings),
	{0},
};

/* "-" for none; and never so little that it looks like that. */
static void format_lag(double seconds, char ret[REPORT_LAG_TEXT])
{
	if (seconds <= 0)
		(void)snprintf(ret, REPORT_LAG_TEXT, "-");
	else
		report_lag(seconds < 0.1 ? 0.1 : seconds, ret);
}

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "-";
}

static void add_row(struct columns *t, const json_t *db)
{
	json_int_t bytes =
		json_integer_value(json_object_get(db, "spool_bytes"));
	char lag[REPORT_LAG_TEXT], spool[REPORT_SIZE_TEXT] = "-";

	format_lag(json_number_value(json_object_get(db, "lag_seconds")), lag);
	if (bytes > 0)
		report_size((uint64_t)bytes, spool);
	columns_cell(t, "%s", text_of(db, "path"));
	columns_cell(t, "%s", text_of(db, "state"));
	columns_cell(t, "%s", text_of(db, "txid"));
	columns_cell(t, "%s", text_of(db, "confirmed"));
	columns_cell(t, "%s", lag);
	columns_cell(t, "%s", spool);
}

static void print_commit_waits(const char *path, const json_t *seconds)
{
	char lag[REPORT_LAG_TEXT];

	format_lag(json_number_value(seconds), lag);
	(void)printf("%s: a commit has waited for the bucket for %s\n", path,
		     lag);
}

static void print_sentences(const json_t *db)
{
	const char *path = text_of(db, "path");
	const json_t *compared = json_object_get(db, "compared");

	if (json_is_integer(compared))
		(void)printf("%s: %lld of %lld pages compared\n", path,
			     (long long)json_integer_value(compared),
			     (long long)json_integer_value(
				     json_object_get(db, "pages")));
	if (json_is_real(json_object_get(db, "commit_waits_seconds")))
		print_commit_waits(path,
				   json_object_get(db, "commit_waits_seconds"));
	if (json_is_string(json_object_get(db, "waits")))
		(void)printf("%s: waits: %s\n", path, text_of(db, "waits"));
	if (json_is_string(json_object_get(db, "error")))
		(void)printf("%s: %s\n", path, text_of(db, "error"));
}

/* Sentences do not fit in a column: each has a line of its own below. */
static void print_errors(const json_t *databases)
{
	size_t i;
	json_t *db;

	json_array_foreach(databases, i, db) print_sentences(db);
}

/* By its name (capture_replace()). */
static bool is_diverged(const json_t *kept)
{
	return strncmp(text_of(kept, "directory"), "diverged-", 9) == 0;
}

/* What stays on the disk until somebody removes it. */
static void print_aside(const json_t *status)
{
	const char *directory = text_of(status, "directory");
	bool hidden = strcmp(directory, text_of(status, "mount")) == 0;
	size_t i;
	json_t *kept;

	json_array_foreach(json_object_get(status, "aside"), i, kept)
		(void)printf("%s: %s kept in %s/.litebucket/aside/%s"
			     "%s; remove that when nobody needs it\n",
			     text_of(kept, "path"),
			     is_diverged(kept) ?
				     "commits that the bucket did not get are" :
				     "what it was is",
			     directory, text_of(kept, "directory"),
			     hidden ? ", which is hidden until it is unmounted" :
				      "");
}

/* How much waits for the bucket matters once nothing more may. */
static void print_spool(const json_t *spool)
{
	char bytes[REPORT_SIZE_TEXT], max[REPORT_SIZE_TEXT];

	if (!json_is_true(json_object_get(spool, "full")))
		return;
	report_size((uint64_t)json_integer_value(
			    json_object_get(spool, "bytes")),
		    bytes);
	report_size((uint64_t)json_integer_value(
			    json_object_get(spool, "max_bytes")),
		    max);
	(void)printf("spool   full: %s of %s wait for the bucket; what did not "
		     "fit gathers until there is room\n",
		     bytes, max);
}

/* Most mounts have one role all their life. */
static void print_role(const char *role)
{
	if (strcmp(role, "primary") != 0)
		(void)printf("role    %s\n", role);
}

/* Who writes the bucket, as this mount has seen it last. */
static void print_lease(const json_t *lease)
{
	if (!json_is_object(lease))
		return;
	(void)printf("lease   %s", text_of(lease, "state"));
	if (json_integer_value(json_object_get(lease, "epoch")))
		(void)printf(": '%s', epoch %lld, since %s, until %s",
			     text_of(lease, "owner"),
			     (long long)json_integer_value(
				     json_object_get(lease, "epoch")),
			     text_of(lease, "since"), text_of(lease, "until"));
	if (json_is_string(json_object_get(lease, "url")))
		(void)printf(", %s", text_of(lease, "url"));
	(void)putchar('\n');
	if (json_is_string(json_object_get(lease, "error")))
		(void)printf("        %s\n", text_of(lease, "error"));
}

static int print_table(const json_t *status)
{
	AUTO(columns)
	struct columns table =
		COLUMNS("PATH", "STATE", "TXID", "CONFIRMED", "LAG>", "SPOOL>");
	const json_t *databases = json_object_get(status, "databases");
	size_t i;
	json_t *db;
	int rc = 0;

	(void)printf("mount   %s\nbucket  %s\n", text_of(status, "mount"),
		     text_of(status, "bucket"));
	print_role(text_of(status, "role"));
	print_lease(json_object_get(status, "lease"));
	if (json_is_string(json_object_get(status, "catalog_error")))
		(void)printf("catalog %s\n", text_of(status, "catalog_error"));
	print_spool(json_object_get(status, "spool"));
	json_array_foreach(databases, i, db) add_row(&table, db);
	(void)putchar('\n');
	if (json_array_size(databases) == 0)
		(void)puts("no databases here");
	else
		rc = columns_print(&table, stdout);
	if (rc == 0)
		print_errors(databases);
	if (rc == 0)
		print_aside(status);
	return rc;
}

static int print_mount(const struct status_settings *s, const struct buf *reply)
{
	json_error_t error;
	json_t *status = json_loadb(reply->data, reply->size, 0, &error);
	int rc;

	if (!status)
		return error_set(-EPROTO, "the mount's answer is not JSON: %s",
				 error.text);
	if (s->json)
		return report_json(status);
	rc = print_table(status);
	json_decref(status);
	return rc;
}

/* -ENOENT: it does not lie in a follower's directory either. */
static int follower_status(const struct status_settings *s, const char *path)
{
	AUTO(mem) char *resolved = NULL, *directory = NULL, *db = NULL;
	json_t *status;
	int rc = paths_resolve(path, &resolved);

	if (rc == 0)
		rc = layout_find(resolved, &directory, &db);
	if (rc == 0)
		rc = follow_status_ask(directory, db, &status);
	if (rc < 0)
		return rc;
	if (s->json)
		return report_json(status);
	rc = follow_status_print(status);
	json_decref(status);
	return rc;
}

static int status(const struct status_settings *s, const char *path)
{
	AUTO(buf) struct buf reply = BUF_INIT(REPLY_MAX);
	int rc = control_call(path, CONTROL_STATUS, &reply);

	if (rc == 0)
		return print_mount(s, &reply);
	if (rc != -ENOTTY)
		return rc;
	rc = follower_status(s, path);
	if (rc == -ENOENT)
		rc = error_set(-ENOTTY, "it is neither inside a litebucket "
					"mount nor a follower's directory");
	return rc;
}

static int run(const void *settings, char **operands)
{
	const char *path = operands[0] ? operands[0] : ".";
	int rc = status(settings, path);

	if (rc == -ENOTTY && !operands[0])
		rc = error_set(rc, "the current directory is neither inside a "
				   "litebucket mount nor a follower's; name "
				   "one, like 'litebucket status DIR'");
	if (rc < 0)
		return cli_fail(error_wrap(rc, "status of '%s'", path));
	return CLI_OK;
}

const struct verb cmd_status = {
	.name = "status",
	.operands = {"[DIR]"},
	.summary = "how far the databases of a mount or follower are",
	.description =
		"Ask the running mount that DIR (the current directory, or a "
		"file) lies in, and\n"
		"print each database below it: its state, the last TXID on "
		"this machine, the last\n"
		"one confirmed by the bucket, the age of the oldest batch that "
		"is not, how much\n"
		"waits in the spool, and what is wrong, if anything is.\n"
		"For a follower's directory: the TXID that each replica has, "
		"the newest one known\n"
		"in the bucket, how old the replica's state may be, the size "
		"of its -wal, and how\n"
		"many of SQLite's five read marks are in use.",
	.options = status_options,
	.settings_size = sizeof(struct status_settings),
	.run = run,
};
