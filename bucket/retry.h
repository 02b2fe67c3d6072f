#ifndef LITEBUCKET_BUCKET_RETRY_H
#define LITEBUCKET_BUCKET_RETRY_H

/*
 * A wrapper that tries again
 * ==========================
 *
 * Errors for which bucket_transient() holds are tried again up to tries times
 * in all, with exponential backoff (from first_ms, doubled, at most cap_ms)
 * and full jitter: each pause is a random part, from 1 ms, of the current
 * bound, so that many nodes do not come back in step.
 *
 * A get that broke off goes on where it stopped, bound to the ETag it began
 * with, so that the sink never gets a mixture of two objects; when the object
 * was replaced meanwhile, that is -ERR_PRECOND.  A list goes on after the last
 * key it gave.  Both count their tries anew when they got further.
 *
 * A failure of the caller's own sink or callback is never tried again.
 */
#include <stdint.h>

struct bucket;

struct bucket_retry_config {
	unsigned tries;
	int64_t first_ms;
	int64_t cap_ms;
	void (*sleep_ms)(int64_t ms); /* NULL: clock_sleep_ms; tests */
};

/* 5 tries, from 100 ms to 5 s. */
extern const struct bucket_retry_config bucket_retry_default;

/* Owns inner from here, also on failure. */
int bucket_retry_new(struct bucket *inner,
		     const struct bucket_retry_config *config,
		     struct bucket **ret);

/* Pure: the upper bound of the pause after try number n (from 0). */
int64_t bucket_retry_bound_ms(const struct bucket_retry_config *config,
			      unsigned n);

#endif
