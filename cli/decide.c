#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "base/clock.h"
#include "base/cond.h"
#include "base/error.h"
#include "base/fail.h"
#include "base/log.h"
#include "bucket/bucket.h"
#include "bucket/patience.h"
#include "capture/capture.h"
#include "cli/gate.h"
#include "cli/origin.h"
#include "ltx/spool.h"

#include "cli/decide.h"

enum {
	THREADS = 4,
	FIRST_PAUSE_MS = 2000,
	LONGEST_PAUSE_MS = 60000,
};

struct item {
	TAILQ_ENTRY(item) link;
	int64_t due_ms; /* monotonic */
	int64_t pause_ms;
	struct origin origin;
};

struct decider {
	struct decider_config config;
	struct capture *capture;
	int incoming_fd; /* .litebucket/incoming, for what is fetched */
	pthread_t threads[THREADS];
	unsigned n_threads;
	bool failed; /* one could not be held */
	atomic_bool insist;
	volatile sig_atomic_t cancel;
	atomic_bool stopping; /* the same, for the bucket */
	_Atomic int64_t silent_until_ms;

	pthread_mutex_t lock;
	pthread_cond_t changed;
	TAILQ_HEAD(items, item) items; /* guarded by lock; in order of due_ms */
};

static void free_item(struct item *item)
{
	origin_cleanup(&item->origin);
	free(item);
}

/* The lock is held. */
static void put(struct decider *d, struct item *item)
{
	struct item *other;

	TAILQ_FOREACH(other, &d->items, link)
	if (other->due_ms > item->due_ms) {
		TAILQ_INSERT_BEFORE(other, item, link);
		return;
	}
	TAILQ_INSERT_TAIL(&d->items, item, link);
}

static struct item *take(struct decider *d)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&d->lock);

	while (!atomic_load(&d->stopping)) {
		struct item *first = TAILQ_FIRST(&d->items);

		if (first && first->due_ms <= clock_monotonic_ms()) {
			TAILQ_REMOVE(&d->items, first, link);
			return first;
		}
		(void)cond_wait_until(&d->changed, &d->lock,
				      first ? first->due_ms : COND_NEVER);
	}
	return NULL;
}

/* It could not be brought about, and that may be different later. */
static void try_later(struct decider *d, struct item *item)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&d->lock);

	item->due_ms = clock_monotonic_ms() + item->pause_ms;
	item->pause_ms *= 2;
	if (item->pause_ms > LONGEST_PAUSE_MS)
		item->pause_ms = LONGEST_PAUSE_MS;
	put(d, item);
	(void)pthread_cond_signal(&d->changed);
}

/* The database is served from here on. */
static void let_go(struct decider *d, struct item *item)
{
	const char *path = item->origin.path;
	int rc;

	if (item->origin.replaced)
		d->config.replaced(d->config.arg, path);
	/* A failure is capture's to log and to mend. */
	(void)capture_let_go(d->capture, path);
	rc = d->config.close_log(d->config.arg, path);
	if (rc == 0)
		gate_lift(d->config.gate, path, GATE_HISTORY);
	else if (rc != -ECANCELED)
		(void)gate_close(d->config.gate, path, GATE_HISTORY, -EBUSY,
				 error_message());
	if (item->origin.replaced)
		d->config.forget(d->config.arg, path);
	free_item(item);
}

/* 0: it is not ours any more; 1: it is; or why that cannot be said yet. */
static int keep(struct decider *d, struct item *item)
{
	const char *path = item->origin.path;
	int rc = d->config.keep ? d->config.keep(d->config.arg, path) : 1;

	if (rc == 0) {
		gate_lift(d->config.gate, path, GATE_HISTORY);
		free_item(item);
	}
	return rc;
}

static void decide(struct decider *d, struct item *item)
{
	const struct origin_config config = {
		.bucket = d->config.bucket,
		.capture = d->capture,
		.adopt = d->config.adopt,
		.incoming_fd = d->incoming_fd,
		.in_use = d->config.in_use,
		.arg = d->config.arg,
		.insist = &d->insist,
		.cancel = &d->cancel,
		.silent_until_ms = &d->silent_until_ms,
	};
	int rc;

	SLOWPOINT("deciding");
	rc = origin_decide(&config, &item->origin);

	if (d->cancel) {
		free_item(item); /* the next start decides */
		return;
	}
	if (rc == 0)
		rc = keep(d, item);
	if (rc > 0)
		let_go(d, item);
	if (rc >= 0)
		return;
	(void)gate_close(d->config.gate, item->origin.path, GATE_HISTORY,
			 -EBUSY, error_message());
	/* For the next start: --adopt, or files that may be written. */
	if (rc == -ENOTUNIQ || rc == -EPERM || rc == -EXDEV)
		free_item(item);
	else
		try_later(d, item);
}

static void *work(void *arg)
{
	struct decider *d = arg;
	struct item *item;

	bucket_cancel_by(&d->stopping);
	while ((item = take(d)))
		decide(d, item);
	return NULL;
}

/* What an earlier life had fetched, and could not use any more. */
static int open_incoming(struct decider *d)
{
	int fd;
	int rc = origin_clear_incoming(d->config.dirfd, &fd);

	if (rc == 0)
		d->incoming_fd = fd;
	return rc;
}

int decider_new(const struct decider_config *config, struct decider **ret)
{
	struct decider *d = calloc(1, sizeof(*d));
	int rc;

	if (!d)
		return error_set(-ENOMEM, "out of memory");
	d->config = *config;
	d->incoming_fd = -1;
	TAILQ_INIT(&d->items);
	(void)pthread_mutex_init(&d->lock, NULL);
	rc = cond_init(&d->changed);
	if (rc < 0) {
		free(d);
		return rc;
	}
	*ret = d;
	return 0;
}

bool decider_hold(struct decider *d, const struct capture_found *found)
{
	struct item *item = calloc(1, sizeof(*item));

	if (!item || origin_init(&item->origin, found) < 0 ||
	    gate_pend(d->config.gate, found->path, GATE_HISTORY) < 0) {
		if (item)
			free_item(item);
		/* Held, and not served by anybody: decider_start() fails. */
		d->failed = true;
		return true;
	}
	item->pause_ms = FIRST_PAUSE_MS;
	AUTO(unlock) pthread_mutex_t *held = lock(&d->lock);
	put(d, item);
	return true;
}

int decider_start(struct decider *d, struct capture *c)
{
	sigset_t all, before;
	int rc = d->failed ? error_set(-ENOMEM, "out of memory for databases") :
			     open_incoming(d);

	if (rc < 0)
		return rc;
	d->capture = c;
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	while (d->n_threads < THREADS && rc == 0) {
		rc = pthread_create(&d->threads[d->n_threads], NULL, work, d);
		d->n_threads += rc == 0;
	}
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (d->n_threads > 0)
		return 0;
	return error_set(-rc, "starting a thread: %s", strerror(rc));
}

static void stop(struct decider *d)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&d->lock);

	atomic_store(&d->stopping, true);
	d->cancel = 1;
	(void)pthread_cond_broadcast(&d->changed);
}

void decider_insist(struct decider *d)
{
	atomic_store(&d->insist, true);
}

void decider_free(struct decider *d)
{
	struct item *item;

	if (!d)
		return;
	stop(d);
	if (d->capture)
		capture_hurry(d->capture);
	for (unsigned i = 0; i < d->n_threads; i++)
		(void)pthread_join(d->threads[i], NULL);
	while ((item = TAILQ_FIRST(&d->items))) {
		TAILQ_REMOVE(&d->items, item, link);
		free_item(item);
	}
	fd_cleanup(&d->incoming_fd);
	(void)pthread_cond_destroy(&d->changed);
	(void)pthread_mutex_destroy(&d->lock);
	free(d);
}
