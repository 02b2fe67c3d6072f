#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/cond.h"
#include "base/error.h"
#include "cli/report.h"
#include "fuse/control.h"

#include "cli/cli.h"

enum {
	REPLY_MAX = 4096,
	STATUS_MAX = 1 << 20,
	PATIENCE_MS = 2000, /* then people want to know what it waits for */
	REASON_SIZE = 600,
};

struct sync_settings {
	bool json;
};

static const struct option sync_options[] = {
	OPTION_JSON(struct sync_settings),
	{0},
};

static int print(const struct sync_settings *s, const char *path,
		 const char *txid)
{
	json_t *d;

	if (!s->json) {
		(void)puts(txid);
		return 0;
	}
	d = report_document();
	report_field(&d, "path", report_json_text(path));
	report_field(&d, "txid", json_string(txid));
	return report_json(d);
}

/*
 * Why it takes long
 * -----------------
 * The mount answers when it is done, so another thread asks it meanwhile.
 */
struct watch {
	const char *path;
	pthread_t thread;
	bool running;
	char told[REASON_SIZE]; /* the thread's own */

	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool done; /* guarded by lock */
};

static const char *text_of(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

/* "": nothing that is worth a line. */
static void find_reason(const json_t *status, char ret[REASON_SIZE])
{
	const json_t *db = json_array_get(
		json_object_get(status, "databases"), 0);
	const json_t *spool = json_object_get(status, "spool");
	const char *why = text_of(db, "waits");

	if (!why)
		why = text_of(db, "error");
	if (!why && json_is_true(json_object_get(spool, "full")))
		why = "the spool is full (--spool-max-size)";
	if (!why)
		why = text_of(status, "catalog_error");
	if (!why && json_is_integer(json_object_get(db, "compared")))
		why = "its pages are compared with what the bucket has";
	(void)snprintf(ret, REASON_SIZE, "%s", why ? why : "");
}

static void tell(struct watch *w)
{
	AUTO(buf) struct buf reply = BUF_INIT(STATUS_MAX);
	char reason[REASON_SIZE];
	json_t *status;

	if (control_call(w->path, CONTROL_STATUS, &reply) < 0)
		return;
	status = json_loadb(reply.data, reply.size, 0, NULL);
	find_reason(status, reason);
	json_decref(status);
	if (!reason[0] || strcmp(reason, w->told) == 0)
		return;
	(void)snprintf(w->told, sizeof(w->told), "%s", reason);
	report_warning("still waiting for '%s': %s", w->path, reason);
}

/* False: it is over. */
static bool wait_more(struct watch *w)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&w->lock);
	int64_t until = clock_monotonic_ms() + PATIENCE_MS;

	while (!w->done)
		if (cond_wait_until(&w->changed, &w->lock, until) ==
		    -ETIMEDOUT)
			return true;
	return false;
}

static void *watch(void *arg)
{
	while (wait_more(arg))
		tell(arg);
	return NULL;
}

/* Without it nothing is told, and all else is the same. */
static void start_watch(struct watch *w, const char *path)
{
	*w = (struct watch){ .path = path };
	(void)pthread_mutex_init(&w->lock, NULL);
	w->running = cond_init(&w->changed) == 0 &&
		     pthread_create(&w->thread, NULL, watch, w) == 0;
}

static void end_watch(struct watch *w)
{
	if (!w->running)
		return;
	(void)pthread_mutex_lock(&w->lock);
	w->done = true;
	(void)pthread_cond_signal(&w->changed);
	(void)pthread_mutex_unlock(&w->lock);
	(void)pthread_join(w->thread, NULL);
}

static int run(const void *settings, char **operands)
{
	const char *path = operands[0];
	AUTO(buf) struct buf reply = BUF_INIT(REPLY_MAX);
	struct watch w;
	int rc;

	start_watch(&w, path);
	rc = control_call(path, CONTROL_SYNC, &reply);
	end_watch(&w);
	if (rc == 0)
		rc = print(settings, path, reply.data);
	if (rc < 0)
		return cli_fail(error_wrap(rc, "syncing '%s'", path));
	return CLI_OK;
}

const struct verb cmd_sync = {
	.name = "sync",
	.operands = {"PATH"},
	.summary = "wait until a database is in the bucket",
	.description =
		"Return when all that was committed to the database PATH (in a "
		"mounted directory)\n"
		"before is in the bucket, and print the TXID it has there: 16 "
		"hex digits.\n"
		"What it waits for longer than two seconds is told on stderr.",
	.options = sync_options,
	.settings_size = sizeof(struct sync_settings),
	.run = run,
};
