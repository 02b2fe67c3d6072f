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
	/* What is worth a line in the log. */
	LONG_MS = 5000,
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
	char path[4096];
	bool (*gone)(const void *waiter);
	const void *waiter;
	struct node_db *db; /* NULL: it is not known yet */
	int64_t since_ms;   /* monotonic */
	bool told;
};

/* From now on status counts it. */
static void find_database(struct wait *w)
{
	int64_t none = 0;

	if (w->db)
		return;
	w->db = node_find(w->node, w->path);
	if (!w->db)
		return;
	atomic_fetch_add(&w->db->commits_waiting, 1);
	(void)atomic_compare_exchange_strong(&w->db->waiting_since_ms, &none,
					     w->since_ms);
}

/* Whoever waits beside it for the same database has not waited for long. */
static void leave(struct wait *w)
{
	int64_t ms = clock_monotonic_ms() - w->since_ms;

	if (w->told)
		log_info("the commit waits no more", "db=%s seconds=%.1f",
			 log_quote(w->path), (double)ms / 1000);
	if (w->db && atomic_fetch_sub(&w->db->commits_waiting, 1) == 1)
		atomic_store(&w->db->waiting_since_ms, 0);
}

static bool is_over(struct wait *w)
{
	int64_t ms = clock_monotonic_ms() - w->since_ms;

	find_database(w);
	if (!w->told && ms >= LONG_MS) {
		w->told = true;
		log_warn("a commit waits for the bucket, and so does who writes "
			 "the database", "db=%s", log_quote(w->path));
	}
	return w->gone(w->waiter);
}

/*
 * What is committed as a batch in the spool: 1; 0: there is nothing.  Trouble
 * with the disk is for capture to tell; it is tried again, because as long as
 * nobody knows better the commit is none that failed.
 */
static int seal(struct wait *w, const char *path, struct capture_point *ret)
{
	struct capture *c = w->node->capture;
	int rc;

	while ((rc = capture_confirm(c, path, w->path, ret)) < 0) {
		if (is_over(w))
			return -ECANCELED;
		clock_sleep_ms(rc == -EINPROGRESS ? 1 : STEP_MS);
	}
	return rc;
}

/* A database that has just appeared is added soon, or was refused. */
static int wait_added(struct wait *w)
{
	const char *refused;

	find_database(w);
	refused = w->db ? atomic_load(&w->db->refused) : NULL;
	if (refused)
		return error_set(-EIO, "it is not uploaded: %s", refused);
	clock_sleep_ms(STEP_MS);
	return -ETIMEDOUT;
}

static int wait_for(struct wait *w, const struct capture_point *point)
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
		if (rc == -ETIMEDOUT && is_over(w))
			return -ECANCELED;
	} while (rc == -ETIMEDOUT);
	return rc;
}

static int confirm(struct wait *w, const char *path)
{
	struct capture_point point;
	int rc = seal(w, path, &point);

	return rc > 0 ? wait_for(w, &point) : rc;
}

int node_confirm(void *arg, const char *path,
		 bool (*gone)(const void *waiter), const void *waiter)
{
	struct wait w = {
		.node = arg,
		.gone = gone,
		.waiter = waiter,
		.since_ms = clock_monotonic_ms(),
	};
	int rc = confirm(&w, path);

	leave(&w);
	if (rc == -ECANCELED)
		return 1;
	if (rc < 0)
		log_error("a commit failed: it cannot get into the bucket",
			  "db=%s error=%s", log_quote(w.path),
			  log_quote(error_message()));
	return rc;
}

int64_t node_commit_waits_ms(struct node_db *db)
{
	int64_t since = atomic_load(&db->waiting_since_ms);

	return since ? clock_monotonic_ms() - since : 0;
}
