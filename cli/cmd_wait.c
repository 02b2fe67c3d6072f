#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/boot.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "cli/paths.h"
#include "cli/report.h"
#include "ltx/name.h"
#include "restorer/layout.h"
#include "restorer/mark.h"

#include "cli/cli.h"

enum {
	STEP_MS = 100,	     /* where nothing tells of a change */
	PATIENCE_MS = 2000, /* then people want to know what it waits for */
};

struct wait_settings {
	int64_t timeout_ms;
	bool json;
};

static const struct option wait_options[] = {
	OPTION(struct wait_settings, timeout_ms, .name = "timeout",
	       .kind = OPTION_DURATION, .value = "DURATION",
	       .help = "give up after this long (never)"),
	OPTION_JSON(struct wait_settings),
	{0},
};

struct wanted {
	const char *path; /* as it was given */
	char *directory, *db, *position;
	uint64_t txid;
	int watch; /* tells of writes to the position */
	int64_t since_ms, until_ms;
	bool warned;
};

/* After a power loss it may be ahead of the file, until a follower has looked. */
static bool is_trusted(const struct mark *m)
{
	char boot[BOOT_ID_SIZE];

	boot_id(boot);
	return m->inode || strcmp(boot, m->boot) == 0;
}

/* 1: it is there; 0: not yet. */
static int look(const struct wanted *w, uint64_t *ret_txid)
{
	AUTO(fd) int fd = open(w->position, O_RDONLY | O_CLOEXEC);
	struct mark m;

	*ret_txid = 0;
	if (fd < 0)
		return errno == ENOENT ? 0 :
					 error_errno("opening %s", w->position);
	/* One that is being written just now is read again. */
	if (mark_load(fd, &m) < 0 || !is_trusted(&m))
		return 0;
	*ret_txid = m.done.txid;
	if (m.done.txid < w->txid)
		return 0;
	if (m.done.dropped)
		return error_set(-ENOENT, "the database was dropped");
	/* The position of one that is just being made comes first. */
	return access(w->path, F_OK) == 0;
}

static void sleep_until_written(const struct wanted *w, int64_t ms)
{
	struct pollfd p = { .fd = w->watch, .events = POLLIN };
	char events[4096];

	if (poll(&p, 1, (int)(ms < STEP_MS ? ms : STEP_MS)) > 0)
		while (read(w->watch, events, sizeof(events)) > 0)
			;
}

/* "it has 000000000000002a, and no follower is running there" */
static int describe(const struct wanted *w, uint64_t txid, int rc)
{
	char text[LTX_TXID_TEXT_SIZE] = "nothing";

	if (txid)
		ltx_txid_format(txid, text);
	return error_set(rc, "it has %s%s", text,
			 layout_is_locked(w->directory) ?
				 "" :
				 ", and no follower is running there");
}

static void tell(struct wanted *w, uint64_t txid)
{
	if (w->warned || clock_monotonic_ms() - w->since_ms < PATIENCE_MS)
		return;
	w->warned = true;
	(void)describe(w, txid, -ETIMEDOUT);
	report_warning("still waiting for '%s': %s", w->path, error_message());
}

static int wait_for(struct wanted *w, uint64_t *ret_txid)
{
	for (;;) {
		int64_t left = w->until_ms - clock_monotonic_ms();
		int rc;

		/* Again each time: the file may be another by now. */
		(void)inotify_add_watch(w->watch, w->position, IN_MODIFY);
		rc = look(w, ret_txid);
		if (rc != 0)
			return rc < 0 ? rc : 0;
		if (left <= 0)
			return error_wrap(describe(w, *ret_txid, -ETIMEDOUT),
					  "out of time");
		tell(w, *ret_txid);
		sleep_until_written(w, left);
	}
}

static void wanted_cleanup(struct wanted *w)
{
	free(w->directory);
	free(w->db);
	free(w->position);
	fd_cleanup(&w->watch);
}

static int find(const char *path, struct wanted *w)
{
	AUTO(mem) char *resolved = NULL, *state = NULL;
	int rc = paths_resolve(path, &resolved);

	if (rc == 0)
		rc = layout_find(resolved, &w->directory, &w->db);
	if (rc == 0 && !w->db[0])
		rc = error_set(-ERR_USAGE, "it is a follower's directory; name "
					   "a database in it");
	if (rc == 0)
		rc = layout_state(w->directory, w->db, &state);
	if (rc < 0)
		return rc;
	if (asprintf(&w->position, "%s/position", state) < 0) {
		w->position = NULL;
		return error_set(-ENOMEM, "out of memory for a path");
	}
	w->watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	return 0;
}

static int print(const struct wait_settings *s, const char *path, uint64_t txid)
{
	char text[LTX_TXID_TEXT_SIZE];
	json_t *d;

	if (!s->json) {
		ltx_txid_format(txid, text);
		(void)puts(text);
		return 0;
	}
	d = report_document();
	report_field(&d, "path", report_json_text(path));
	report_field(&d, "txid", report_json_txid(txid));
	return report_json(d);
}

static int run(const void *settings, char **operands)
{
	const struct wait_settings *s = settings;
	AUTO(wanted) struct wanted w = {
		.path = operands[0],
		.watch = -1,
		.since_ms = clock_monotonic_ms(),
	};
	uint64_t txid;
	int rc = options_parse_txid(operands[1], &w.txid);

	if (rc < 0)
		return cli_fail_usage(&cmd_wait);
	w.until_ms = s->timeout_ms ? w.since_ms + s->timeout_ms : INT64_MAX;
	rc = find(operands[0], &w);
	if (rc == 0)
		rc = wait_for(&w, &txid);
	if (rc == 0)
		rc = print(s, operands[0], txid);
	if (rc < 0)
		return cli_fail(error_wrap(rc, "waiting for '%s'", operands[0]));
	return CLI_OK;
}

const struct verb cmd_wait = {
	.name = "wait",
	.operands = {"PATH", "TXID"},
	.summary = "wait until a replica has a transaction",
	.description =
		"Return when the replica PATH (in a follower's directory) has "
		"the transaction\n"
		"TXID, as 'sync' printed it at the primary, and print the one "
		"that it has by\n"
		"then. For who must read what was just written elsewhere.",
	.options = wait_options,
	.settings_size = sizeof(struct wait_settings),
	.run = run,
};
