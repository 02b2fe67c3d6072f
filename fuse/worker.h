#ifndef LITEBUCKET_FUSE_WORKER_H
#define LITEBUCKET_FUSE_WORKER_H

/*
 * Parked requests
 * ===============
 *
 * What could keep the loop thread waiting is done by a small pool of threads:
 * the operation copies its arguments into a struct that begins with a struct
 * task, and run() does the work, replies to the kernel, and frees the struct.
 * The kernel sends nothing more for the same caller until the reply, so tasks
 * of one caller stay in order although the pool has none.
 *
 * Threads come when tasks wait, and go when they have been idle for a while, but
 * for those that are kept.
 * The number of tasks is bounded by the kernel: one for each thread that is
 * inside a system call, and the read-ahead it allows.
 */
#include <pthread.h>
#include <stdbool.h>

struct task {
	void (*run)(struct task *task);
	struct task *next;
};

enum {
	WORKER_IDLE_MS = 10000
};

struct workers {
	pthread_mutex_t lock;
	pthread_cond_t changed; /* a task came, a thread went, or stopping */

	/* Guarded by lock. */
	struct task *first, **last;
	unsigned threads, idle, queued;
	bool stopping;

	unsigned limit, kept; /* of threads; constant */
};

/* keep: so many are there from now on.  -EAGAIN: they cannot be started. */
int workers_init(struct workers *w, unsigned limit, unsigned keep);

/* Wait until every task is done; no more may come. */
void workers_finish(struct workers *w);
void workers_cleanup(struct workers *w);

/* Runs it at once, here, if there is no thread and none can be started. */
void workers_park(struct workers *w, struct task *task);

/* A detached thread that leaves signals to the others; -EAGAIN. */
int worker_thread(void *(*run)(void *arg), void *arg);

#endif
