#include <fcntl.h>
#include <fnmatch.h>
#include <pthread.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "bucket/bucket.h"
#include "bucket/url.h"
#include "cli/follow_status.h"
#include "cli/paths.h"
#include "cli/ready.h"
#include "cli/signals.h"
#include "ltx/name.h"
#include "restorer/follower.h"

#include "cli/cli.h"

enum {
	STOP_MS = 30000, /* what a thread in the middle of a request gets */
	WAIT_MS = 50,	 /* for a gap between readers, for the log's sake */
};

struct follow_settings {
	struct option_list databases;
	int64_t interval_ms;
	bool once;
	unsigned connections;
	const char *on_divergence;
	unsigned file_mode;
	bool pos_files;
	uint64_t wal_limit, wal_hard_limit;
	enum log_level log_level;
	int ready_fd;
};

static const struct option follow_options[] = {
	OPTION(struct follow_settings, databases, .name = "database",
	       .kind = OPTION_LIST, .value = "GLOB",
	       .help = "only those that match; may be repeated"),
	OPTION(struct follow_settings, interval_ms, .name = "interval",
	       .kind = OPTION_DURATION, .value = "DURATION", .fallback = "1s",
	       .help = "time between looks when nothing is new"),
	OPTION(struct follow_settings, once, .name = "once",
	       .kind = OPTION_FLAG, .help = "bring all up to date and end"),
	OPTION(struct follow_settings, connections, .name = "connections",
	       .kind = OPTION_COUNT, .value = "N", .fallback = "8",
	       .help = "databases looked at at a time"),
	OPTION(struct follow_settings, on_divergence, .name = "on-divergence",
	       .kind = OPTION_TEXT, .value = "WHAT", .fallback = "resync",
	       .help = "of a changed replica: resync or stop"),
	OPTION(struct follow_settings, file_mode, .name = "file-mode",
	       .kind = OPTION_MODE, .value = "MODE", .fallback = "0600",
	       .help = "permissions of new replicas, in octal"),
	OPTION(struct follow_settings, pos_files, .name = "pos-files",
	       .kind = OPTION_FLAG,
	       .help = "keep a file NAME-pos like LiteFS's"),
	OPTION(struct follow_settings, wal_limit, .name = "wal-limit",
	       .kind = OPTION_SIZE, .value = "SIZE", .fallback = "8MiB",
	       .help = "size of a -wal to begin again at"),
	OPTION(struct follow_settings, wal_hard_limit, .name = "wal-hard-limit",
	       .kind = OPTION_SIZE, .value = "SIZE", .fallback = "1GiB",
	       .help = "stand still at; 0: never"),
	OPTION(struct follow_settings, log_level, .name = "log-level",
	       .kind = OPTION_LEVEL, .value = "LEVEL", .fallback = "info",
	       .help = "debug, info, warn or error"),
	OPTION(struct follow_settings, ready_fd, .name = "ready-fd",
	       .kind = OPTION_FD, .value = "N",
	       .help = "write a line to this descriptor once up to date"),
	{0},
};

/* The signal thread may look at it until the very end. */
static pthread_mutex_t running_lock = PTHREAD_MUTEX_INITIALIZER;
static struct follower *running;

static void set_running(struct follower *f)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&running_lock);

	running = f;
}

static void stop(void)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&running_lock);

	signals_deadline(STOP_MS);
	ready_withdraw();
	if (running)
		follower_stop(running);
}

static void hurry(void)
{
	signals_deadline(0);
}

static bool is_wanted(const char *path, void *arg)
{
	const struct option_list *databases = arg;

	for (size_t i = 0; i < databases->n; i++)
		if (fnmatch(databases->items[i], path, 0) == 0)
			return true;
	return databases->n == 0;
}

static void ready(size_t databases, void *arg)
{
	const struct follow_settings *s = arg;

	log_info("following", "databases=%zu", databases);
	ready_announce(s->ready_fd);
}

/* A follower_fn, for --once: all that is told of one that is well. */
static int print_database(const struct follower_database *d, void *unused)
{
	char txid[LTX_TXID_TEXT_SIZE];

	(void)unused;
	if (d->error || d->state.txid == 0)
		return 0;
	ltx_txid_format(d->state.txid, txid);
	(void)printf("txid=%s%s path=%s\n", txid,
		     d->state.dropped ? " dropped" : "", log_quote(d->path));
	return 0;
}

/* What a database is called whose own URL the bucket's is. */
static int name_of(const char *text, char **ret)
{
	AUTO(bucket_url) struct bucket_url url = { 0 };
	int rc = bucket_url_parse(text, &url);
	const char *path, *slash;

	if (rc < 0)
		return rc;
	path = url.scheme == BUCKET_FILE ? url.path : url.prefix;
	slash = strrchr(path, '/');
	*ret = strdup(slash ? slash + 1 : path);
	if (*ret && !**ret) {
		free(*ret);
		*ret = strdup("database");
	}
	return *ret ? 0 : error_set(-ENOMEM, "out of memory");
}

/* A follower that cannot be asked how it is, follows. */
static struct follow_status *start_status(struct follower *f,
					  const struct follower_options *o)
{
	struct follow_status *status;

	if (follow_status_start(f, o->directory, o->bucket->url, &status) == 0)
		return status;
	log_warn("'litebucket status' will not reach this follower", "error=%s",
		 log_quote(error_message()));
	return NULL;
}

static int run_follower(const struct follow_settings *s,
			const struct follower_options *o, struct follower *f)
{
	AUTO(follow_status) struct follow_status *status = start_status(f, o);
	int rc;

	set_running(f);
	rc = signals_start(stop, hurry);
	if (rc == 0)
		rc = follower_run(f);
	set_running(NULL);
	if (s->once)
		(void)follower_each(f, print_database, NULL);
	return rc;
}

/* Replicas end cleanly in any case; the error is that of the run. */
static int follow_into(const struct follow_settings *s,
		       const struct follower_options *o)
{
	AUTO(follower) struct follower *f = NULL;
	char why[ERROR_MESSAGE_SIZE];
	int rc = follower_new(o, &f);

	if (rc == 0)
		rc = run_follower(s, o, f);
	(void)snprintf(why, sizeof(why), "%s", rc < 0 ? error_message() : "");
	follower_free(TAKE(f));
	return rc < 0 ? error_set(rc, "%s", why) : 0;
}

static int follow(const struct follow_settings *s, const char *text,
		  const char *directory)
{
	AUTO(bucket) struct bucket *bucket = NULL;
	AUTO(mem) char *path = NULL, *name = NULL;
	struct follower_options o = {
		.wanted = is_wanted,
		.wanted_arg = (void *)&s->databases,
		.interval_ms = s->interval_ms ? s->interval_ms : 1,
		.connections = s->connections,
		.once = s->once,
		.ready = ready,
		.ready_arg = (void *)s,
		.stop_on_divergence = strcmp(s->on_divergence, "stop") == 0,
		.mode = s->file_mode,
		.pos_files = s->pos_files,
		.replica = {
			.max_bytes = s->wal_limit,
			.hard_bytes = s->wal_hard_limit,
			.wait_ms = WAIT_MS,
		},
	};
	int rc = name_of(text, &name);

	if (rc == 0)
		rc = bucket_open(text, false, &bucket);
	if (rc == 0)
		rc = paths_resolve(directory, &path);
	if (rc == 0)
		rc = io_make_dirs(AT_FDCWD, path, 0755);
	if (rc < 0)
		return rc;
	o.bucket = bucket;
	o.directory = path;
	o.name = name;
	signals_block();
	return follow_into(s, &o);
}

static int check_settings(const struct follow_settings *s)
{
	if (s->wal_hard_limit && s->wal_hard_limit < s->wal_limit)
		return error_set(-ERR_USAGE, "--wal-hard-limit is smaller than "
					     "--wal-limit");
	if (strcmp(s->on_divergence, "resync") == 0 ||
	    strcmp(s->on_divergence, "stop") == 0)
		return 0;
	return error_set(-ERR_USAGE,
			 "--on-divergence: '%s' is neither resync nor stop",
			 s->on_divergence);
}

static int run(const void *settings, char **operands)
{
	const struct follow_settings *s = settings;
	int rc;

	if (check_settings(s) < 0)
		return cli_fail_usage(&cmd_follow);
	log_set_level(s->log_level);
	if (s->ready_fd >= 0)
		(void)fcntl(s->ready_fd, F_SETFD, FD_CLOEXEC);
	rc = follow(s, operands[0], operands[1]);
	if (rc < 0)
		return cli_fail(error_wrap(rc, "following '%s'", operands[0]));
	if (!s->once)
		log_info("stopped", NULL);
	return CLI_OK;
}

const struct verb cmd_follow = {
	.name = "follow",
	.operands = {"BUCKET", "DIR"},
	.summary = "keep read-only replicas of a bucket's databases up to date",
	.description =
		"Keep every database of BUCKET as a file below DIR, which any "
		"SQLite may read\n"
		"meanwhile and none can write. Needs no mount and no "
		"privilege. Runs until\n"
		"SIGTERM or SIGINT; the log goes to standard error. With "
		"--once one line is\n"
		"printed for each database: txid=HEX path=PATH.",
	.options = follow_options,
	.settings_size = sizeof(struct follow_settings),
	.run = run,
};
