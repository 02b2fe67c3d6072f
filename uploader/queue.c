#include "base/clock.h"
#include "base/cond.h"

#include "uploader/queue.h"

int queue_init(struct queue *q, pthread_mutex_t *held)
{
	int rc;

	*q = (struct queue){ .lock = held };
	TAILQ_INIT(&q->entries);
	rc = cond_init(&q->watch);
	if (rc < 0)
		return rc;
	rc = cond_init(&q->call);
	if (rc < 0)
		(void)pthread_cond_destroy(&q->watch);
	return rc;
}

/* The last entry that comes before one for this time; NULL: none does. */
static struct queue_entry *entry_before(struct queue *q, int64_t due_ms)
{
	struct queue_entry *e = TAILQ_LAST(&q->entries, queue_entries);

	while (e && e->due_ms > due_ms)
		e = TAILQ_PREV(e, queue_entries, link);
	return e;
}

void queue_put(struct queue *q, struct queue_entry *e, int64_t due_ms)
{
	struct queue_entry *before;

	if (e->queued)
		TAILQ_REMOVE(&q->entries, e, link);
	before = entry_before(q, due_ms);
	if (before)
		TAILQ_INSERT_AFTER(&q->entries, before, e, link);
	else
		TAILQ_INSERT_HEAD(&q->entries, e, link);
	e->due_ms = due_ms;
	e->queued = true;

	/* The watch sleeps until the old first entry; the new one is earlier. */
	if (!q->watched)
		(void)pthread_cond_signal(&q->call);
	else if (!before)
		(void)pthread_cond_signal(&q->watch);
}

static void keep_watch(struct queue *q, int64_t until_ms)
{
	q->watched = true;
	(void)cond_wait_until(&q->watch, q->lock, until_ms);
	q->watched = false;
}

struct queue_entry *queue_take(struct queue *q)
{
	while (!q->closed) {
		struct queue_entry *first = TAILQ_FIRST(&q->entries);

		if (first && first->due_ms <= clock_monotonic_ms()) {
			TAILQ_REMOVE(&q->entries, first, link);
			first->queued = false;
			if (!q->watched && !TAILQ_EMPTY(&q->entries))
				(void)pthread_cond_signal(&q->call);
			return first;
		}
		if (first && !q->watched)
			keep_watch(q, first->due_ms);
		else
			(void)cond_wait_until(&q->call, q->lock, COND_NEVER);
	}
	return NULL;
}

void queue_close(struct queue *q)
{
	q->closed = true;
	(void)pthread_cond_broadcast(&q->watch);
	(void)pthread_cond_broadcast(&q->call);
}

void queue_destroy(struct queue *q)
{
	(void)pthread_cond_destroy(&q->watch);
	(void)pthread_cond_destroy(&q->call);
}
