#ifndef LITEBUCKET_BASE_COND_H
#define LITEBUCKET_BASE_COND_H

/*
 * Condition variables that count time on the monotonic clock, so that setting
 * the wall clock makes no waiter late or early.
 */
#include <pthread.h>
#include <stdint.h>

/* A time that does not come. */
#define COND_NEVER INT64_MAX

/* pthread_cond_init() as a negative errno. */
int cond_init(pthread_cond_t *cond);

/*
 * Wait until signalled (or for no reason, as always), or until
 * clock_monotonic_ms() reaches until_ms: then -ETIMEDOUT, without a sentence.
 */
int cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *held,
		    int64_t until_ms);

#endif
