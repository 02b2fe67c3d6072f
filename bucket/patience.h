#ifndef LITEBUCKET_BUCKET_PATIENCE_H
#define LITEBUCKET_BUCKET_PATIENCE_H

/*
 * How long this thread waits for a bucket
 * =======================================
 *
 * A store that takes connections and says nothing costs minutes: each try waits
 * for its own timeout, and there are several.  A thread that has something
 * better to do then says so here, for all calls that it makes from now on:
 *
 *	bucket_cancel_by	once *flag is true: -ECANCELED, not transient
 *	bucket_wait_until	from that time on: -ETIMEDOUT, not tried again
 *
 * A call that is under way ends within about a second, and what it put may have
 * arrived or not; a further one ends at once.  Who said nothing waits as long as
 * the driver does.  file:// waits for nobody, and libs3 looks between its tries
 * only.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* NULL: by nothing, as at first.  *flag outlives this thread's calls. */
void bucket_cancel_by(const atomic_bool *flag);

/* Monotonic ms; 0: without end, as at first. */
void bucket_wait_until(int64_t until_ms);

/* For drivers and wrappers: 0, or the error that says why to end. */
int bucket_patience(void);

/* The same as a question, which leaves the last error as it is. */
bool bucket_patience_is_over(void);

/* Sleep, but no longer than bucket_patience() is 0. */
void bucket_patience_sleep(void (*sleep_ms)(int64_t ms), int64_t ms);

#endif
