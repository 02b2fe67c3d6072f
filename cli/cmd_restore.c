#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "bucket/bucket.h"
#include "cli/database.h"
#include "cli/report.h"
#include "cli/progress.h"
#include "cli/root.h"
#include "ltx/name.h"
#include "restorer/restorer.h"

#include "cli/cli.h"

struct restore_settings {
	const char *output;
	uint64_t txid;
	int64_t timestamp_ms;
	unsigned parallel;
	bool force, json, quiet;
};

static const struct option restore_options[] = {
	OPTION(struct restore_settings, output, .name = "output", .letter = 'o',
	       .kind = OPTION_TEXT, .value = "FILE",
	       .help = "the database file to make; required"),
	OPTION(struct restore_settings, txid, .name = "txid",
	       .kind = OPTION_TXID, .value = "HEX",
	       .help = "the state after this transaction"),
	OPTION(struct restore_settings, timestamp_ms, .name = "timestamp",
	       .kind = OPTION_TIME, .value = "TIME",
	       .help = "the last state at or before this time"),
	OPTION(struct restore_settings, force, .name = "force",
	       .kind = OPTION_FLAG, .typed = true, .help = "replace FILE if it exists"),
	OPTION(struct restore_settings, parallel, .name = "parallel",
	       .kind = OPTION_COUNT, .value = "N", .fallback = "8",
	       .help = "objects fetched at a time"),
	OPTION_JSON(struct restore_settings),
	OPTION(struct restore_settings, quiet, .name = "quiet",
	       .kind = OPTION_FLAG,
	       .help = "no progress bar, and nothing about a success"),
	{0},
};

static int check_settings(const struct restore_settings *s)
{
	if (!s->output)
		return error_set(-ERR_USAGE,
				 "say where to: --output FILE is missing");
	if (!strcmp(s->output, "-"))
		return error_set(-ERR_USAGE, "a database cannot be written to "
					     "standard output; name a file");
	if (strstr(s->output, "://"))
		return error_set(-ERR_USAGE,
				 "--output: '%s' looks like a URL; the URL is "
				 "the argument, and --output names a file",
				 s->output);
	if (s->txid && s->timestamp_ms)
		return error_set(-ERR_USAGE, "--txid and --timestamp both "
					     "choose the state; give one");
	return 0;
}

static int print_json(const struct restore_settings *s,
		      const struct restorer_result *r)
{
	json_int_t size = (json_int_t)r->page_size * r->commit;
	json_t *d = report_document();

	report_field(&d, "txid", report_json_txid(r->txid));
	report_field(&d, "time", report_json_time(r->timestamp_ms));
	report_field(&d, "page_size", json_integer(r->page_size));
	report_field(&d, "pages", json_integer(r->commit));
	report_field(&d, "size", json_integer(size));
	report_field(&d, "path", report_json_text(s->output));
	report_field(&d, "bytes_fetched",
		     json_integer((json_int_t)r->bytes_fetched));
	report_field(&d, "files", json_integer(r->files));
	report_field(&d, "proven", json_boolean(r->proven));
	return report_json(d);
}

static void print_line(const struct restore_settings *s,
		       const struct restorer_result *r)
{
	char txid[LTX_TXID_TEXT_SIZE];
	char time[CLOCK_TEXT_SIZE];

	ltx_txid_format(r->txid, txid);
	clock_format(r->timestamp_ms, time);
	(void)printf("txid=%s time=%s size=%llu path=%s\n", txid, time,
		     (unsigned long long)r->page_size * r->commit,
		     log_quote(s->output));
}

/* The signal that asked us to stop, or 0. */
static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
	interrupted = number;
}

/* The second one ends us at once. */
static void handle_signals(void)
{
	const struct sigaction action = {
		.sa_handler = on_signal,
		.sa_flags = (int)SA_RESETHAND,
	};

	(void)sigaction(SIGINT, &action, NULL);
	(void)sigaction(SIGTERM, &action, NULL);
	(void)sigaction(SIGHUP, &action, NULL);
}

/* Whoever started us is told by the signal itself why we ended. */
static void end_by_signal(void)
{
	(void)signal(interrupted, SIG_DFL);
	(void)raise(interrupted);
}

/* The arg is the URL.  Other programs' buckets have no format of ours. */
static int accept_format(bool ours, void *arg)
{
	return ours ? root_check(arg) : 0;
}

static int restore(const struct restore_settings *s, const char *url,
		   struct bucket *bucket, const char *db,
		   struct restorer_result *ret)
{
	AUTO(progress) struct progress progress = PROGRESS("restoring");
	const struct restorer_options options = {
		.bucket = bucket,
		.db = db,
		.output = s->output,
		.txid = s->txid,
		.timestamp_ms = s->timestamp_ms,
		.parallel = s->parallel,
		.force = s->force,
		.progress = progress_update,
		.progress_arg = &progress,
		.accept = accept_format,
		.accept_arg = (void *)url,
		.cancel = &interrupted,
	};

	handle_signals();
	progress_start(&progress, s->quiet);
	return restorer_restore(&options, ret);
}

static int run(const void *settings, char **operands)
{
	const struct restore_settings *s = settings;
	const char *url = operands[0];
	AUTO(bucket) struct bucket *bucket = NULL;
	struct restorer_result result;
	char db[BUCKET_KEY_MAX];
	int rc;

	if (check_settings(s) < 0)
		return cli_fail_usage(&cmd_restore);
	rc = database_open(url, &bucket, db);
	if (rc == 0)
		rc = restore(s, url, bucket, db, &result);
	if (rc < 0 && bucket)
		rc = database_explain(bucket, db, rc);
	if (rc < 0) {
		rc = cli_fail(error_wrap(rc, "restoring '%s'", url));
		if (interrupted)
			end_by_signal();
		return rc;
	}
	if (s->json)
		rc = print_json(s, &result);
	else if (!s->quiet)
		print_line(s, &result);
	return rc < 0 ? cli_fail(rc) : CLI_OK;
}

const struct verb cmd_restore = {
	.name = "restore",
	.operands = {"BUCKET/DB"},
	.summary = "bring a database back from its bucket, at any point",
	.description =
		"Make FILE the database as it was: now, after a transaction, "
		"or "
		"at a time.\n"
		"BUCKET/DB is the URL of the bucket with the database's path "
		"(percent-encoded)\n"
		"after it. FILE appears at once and whole, or not at all. On "
		"success one line is\n"
		"printed: txid=HEX time=TIME size=BYTES path=FILE.",
	.options = restore_options,
	.settings_size = sizeof(struct restore_settings),
	.run = run,
};
