#ifndef LITEBUCKET_UPLOADER_QUEUE_H
#define LITEBUCKET_UPLOADER_QUEUE_H

/*
 * What is due when, and the threads that wait for it
 * ==================================================
 *
 * Entries are taken in the order of their times, those of one time in the
 * order in which they were put: so whoever puts itself back for now goes
 * behind all that are due already.
 *
 * Of the threads that wait, one keeps watch: it alone sleeps until the first
 * entry's time.  The others sleep until they are called, the next watch by
 * whoever took an entry and left more.  So nobody wakes while the queue is
 * empty, and one thread for each entry that comes due.
 *
 * All calls are made with the lock held that queue_init() was given; entries
 * are members of what they stand for.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct queue_entry {
	TAILQ_ENTRY(queue_entry) link;
	int64_t due_ms; /* monotonic */
	bool queued;
};

struct queue {
	pthread_mutex_t *lock;
	pthread_cond_t watch; /* the one that keeps watch */
	pthread_cond_t call;  /* the others */
	bool watched, closed;
	TAILQ_HEAD(queue_entries, queue_entry) entries;
};

int queue_init(struct queue *q, pthread_mutex_t *lock);

/* Put an entry for this time, or move it there if it is queued. */
void queue_put(struct queue *q, struct queue_entry *e, int64_t due_ms);

/* Wait for the first entry to come due and take it.  NULL: closed. */
struct queue_entry *queue_take(struct queue *q);

/* From here queue_take() gives NULL, whatever is queued. */
void queue_close(struct queue *q);

/* Nobody may be waiting; the entries stay their owners'. */
void queue_destroy(struct queue *q);

#endif
