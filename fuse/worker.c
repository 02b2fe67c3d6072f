#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/cond.h"
#include "base/error.h"

#include "fuse/worker.h"

/* With the lock held: the oldest task, or NULL. */
static struct task *take(struct workers *w)
{
	struct task *task = w->first;

	if (!task)
		return NULL;
	w->first = task->next;
	if (!w->first)
		w->last = &w->first;
	w->queued--;
	return task;
}

/* With the lock held: wait for a task; NULL when this thread should go. */
static struct task *next_task(struct workers *w)
{
	int64_t until_ms = clock_monotonic_ms() + WORKER_IDLE_MS;
	struct task *task;
	bool idle = false;

	w->idle++;
	while (!(task = take(w)) && !w->stopping &&
	       !(idle && w->threads > w->kept))
		idle = cond_wait_until(&w->changed, &w->lock,
				       idle ? COND_NEVER : until_ms) ==
		       -ETIMEDOUT;
	w->idle--;
	return task;
}

static void *work(void *arg)
{
	struct workers *w = arg;
	struct task *task;

	(void)pthread_mutex_lock(&w->lock);
	while ((task = next_task(w))) {
		(void)pthread_mutex_unlock(&w->lock);
		task->run(task);
		(void)pthread_mutex_lock(&w->lock);
	}
	w->threads--;
	(void)pthread_cond_broadcast(&w->changed);
	(void)pthread_mutex_unlock(&w->lock);
	return NULL;
}

int worker_thread(void *(*run)(void *arg), void *arg)
{
	pthread_attr_t attributes;
	sigset_t all, before;
	pthread_t thread;
	int rc;

	(void)sigfillset(&all);
	(void)pthread_attr_init(&attributes);
	(void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	(void)pthread_sigmask(SIG_BLOCK, &all, &before);
	rc = pthread_create(&thread, &attributes, run, arg);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	(void)pthread_attr_destroy(&attributes);
	if (rc)
		return error_set(-rc, "no thread for a request");
	return 0;
}

static int start_kept(struct workers *w)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&w->lock);

	while (w->threads < w->kept) {
		int rc = worker_thread(work, w);

		if (rc < 0)
			return rc;
		w->threads++;
	}
	return 0;
}

int workers_init(struct workers *w, unsigned limit, unsigned keep)
{
	int rc = cond_init(&w->changed);

	if (rc < 0)
		return rc;
	(void)pthread_mutex_init(&w->lock, NULL);
	w->first = NULL;
	w->last = &w->first;
	w->threads = w->idle = w->queued = 0;
	w->stopping = false;
	w->limit = limit;
	w->kept = keep;
	rc = start_kept(w);
	if (rc < 0)
		workers_cleanup(w);
	return rc;
}

/* With the lock held: is somebody there, or coming, for every task? */
static bool staffed(struct workers *w)
{
	if (w->queued > w->idle && w->threads < w->limit &&
	    worker_thread(work, w) == 0)
		w->threads++;
	return w->threads > 0;
}

void workers_park(struct workers *w, struct task *task)
{
	bool later;

	(void)pthread_mutex_lock(&w->lock);
	task->next = NULL;
	*w->last = task;
	w->last = &task->next;
	w->queued++;
	later = staffed(w);
	if (!later)
		task = take(w);
	else
		(void)pthread_cond_signal(&w->changed);
	(void)pthread_mutex_unlock(&w->lock);
	if (!later)
		task->run(task);
}

void workers_finish(struct workers *w)
{
	(void)pthread_mutex_lock(&w->lock);
	w->stopping = true;
	(void)pthread_cond_broadcast(&w->changed);
	while (w->threads)
		(void)cond_wait_until(&w->changed, &w->lock, COND_NEVER);
	(void)pthread_mutex_unlock(&w->lock);
}

void workers_cleanup(struct workers *w)
{
	workers_finish(w);
	(void)pthread_cond_destroy(&w->changed);
	(void)pthread_mutex_destroy(&w->lock);
}
