#include <errno.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "capture/capture.h"
#include "cli/durability.h"
#include "cli/node.h"
#include "uploader/uploader.h"

#include "cli/node_confirm.h"

enum {
	/* How often it is asked whether anybody waits. */
	STEP_MS = 100,
	/* Pauses before another try to seal: somebody writes, or the spool is full. */
	BUSY_MIN_MS = 5,
	BUSY_MAX_MS = 100,
	FULL_MS = 500,
	/* What is worth a line in the log. */
	LONG_MS = 5000,
	/* A database is made known within moments of its first commit. */
	UNKNOWN_MS = 10000,
};

bool node_durable(void *arg, const char *path)
{
	const struct node *n = arg;

	return n->config.durability &&
	       durability_waits(n->config.durability, path);
}

/* One commit that waits. */
struct wait {
	struct node *node;
	struct db *db;
	const char *path; /* of db */
	bool (*gone)(void *waiter);
	void *waiter;
	struct node_db *counted; /* where status counts it; NULL: nowhere yet */
	int64_t since_ms;	 /* monotonic */
	int64_t pause_ms;	 /* the last one before another try to seal */
	bool told;
};

/* The node may come to know of the database only now. */
static void count_waiter(struct wait *w)
{
	struct node_db *db = w->counted ? NULL : node_find(w->node, w->path);

	if (!db)
		return;
	AUTO(unlock) pthread_mutex_t *held = lock(&w->node->lock);
	if (db->commits_waiting++ == 0)
		db->waiting_since_ms = w->since_ms;
	w->counted = db;
}

/* Whoever waits beside it for the same database has not waited for long. */
static void uncount_waiter(struct wait *w)
{
	if (!w->counted)
		return;
	AUTO(unlock) pthread_mutex_t *held = lock(&w->node->lock);
	w->counted->commits_waiting--;
}

static int64_t waited_ms(const struct wait *w)
{
	return clock_monotonic_ms() - w->since_ms;
}

/* Called several times a second.  why: what keeps it, for the log. */
static bool nobody_waits(struct wait *w, const char *why)
{
	count_waiter(w);
	if (!w->told && waited_ms(w) >= LONG_MS) {
		w->told = true;
		log_warn("a commit waits for the bucket, and so does who writes "
			 "the database", "db=%s reason=%s", log_quote(w->path),
			 log_quote(why));
	}
	return w->gone(w->waiter);
}

/* What failed to be sealed may succeed later; otherwise rc. */
static int pause_sealing(struct wait *w, int rc)
{
	switch (rc) {
	case -EINPROGRESS:
		w->pause_ms = 1; /* that call took its time */
		break;
	case -EBUSY:
		w->pause_ms = w->pause_ms < BUSY_MIN_MS ? BUSY_MIN_MS :
							  2 * w->pause_ms;
		if (w->pause_ms > BUSY_MAX_MS)
			w->pause_ms = BUSY_MAX_MS;
		break;
	case -ESTALE:
		return rc;
	default:
		/* There is no room until something was sent, or the disk has. */
		uploader_urge(w->node->uploader, w->path);
		w->pause_ms = FULL_MS;
	}
	if (nobody_waits(w, error_message()))
		return -ECANCELED;
	clock_sleep_ms(w->pause_ms);
	return 0;
}

/*
 * What is committed as a batch in the spool: 1; 0: there is nothing.  Trouble
 * with the disk is tried again, because as long as nobody knows better the commit
 * is none that failed.
 */
static int seal(struct wait *w, struct capture_point *ret)
{
	int rc = 0, sealed;

	do {
		sealed = capture_confirm(w->db, ret);
		if (sealed < 0)
			rc = pause_sealing(w, sealed);
	} while (sealed < 0 && rc == 0);
	return rc < 0 ? rc : sealed;
}

/* The uploader does not know it: was it refused, or is it being added? */
static int wait_added(struct wait *w)
{
	const char *refused;

	count_waiter(w);
	refused = w->counted ? atomic_load(&w->counted->refused) : NULL;
	if (refused)
		return error_set(-EIO, "it is not uploaded: %s", refused);
	if (waited_ms(w) >= UNKNOWN_MS)
		return error_set(-EIO, "it is not uploaded");
	clock_sleep_ms(STEP_MS);
	return -ETIMEDOUT;
}

static int wait_sent(struct wait *w, const struct capture_point *point)
{
	struct uploader *u = w->node->uploader;
	int rc;

	do {
		/* Each time: what failed meanwhile is tried again soon. */
		uploader_urge(u, w->path);
		rc = uploader_wait(u, w->path, point->txid, point->time_ms,
				   STEP_MS, NULL);
		if (rc == -ENOENT)
			rc = wait_added(w);
		if (rc == -ETIMEDOUT && nobody_waits(w, error_message()))
			return -ECANCELED;
	} while (rc == -ETIMEDOUT);
	return rc;
}

int node_confirm(void *arg, struct db *db, bool (*gone)(void *waiter),
		 void *waiter)
{
	struct wait w = {
		.node = arg,
		.db = db,
		.path = capture_db_path(db),
		.gone = gone,
		.waiter = waiter,
		.since_ms = clock_monotonic_ms(),
	};
	struct capture_point point;
	int rc = seal(&w, &point);

	if (rc > 0)
		rc = wait_sent(&w, &point);
	uncount_waiter(&w);
	if (w.told)
		log_info("the commit waits no more", "db=%s seconds=%.1f",
			 log_quote(w.path), (double)waited_ms(&w) / 1000);
	if (rc == -ECANCELED)
		return 1;
	if (rc < 0)
		log_error("a commit failed: it cannot get into the bucket",
			  "db=%s error=%s", log_quote(w.path),
			  log_quote(error_message()));
	return rc;
}

int64_t node_commit_waits_ms(struct node *n, const struct node_db *db)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&n->lock);

	return db->commits_waiting ?
		       clock_monotonic_ms() - db->waiting_since_ms :
		       0;
}
