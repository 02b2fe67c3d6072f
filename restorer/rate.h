#ifndef LITEBUCKET_RESTORER_RATE_H
#define LITEBUCKET_RESTORER_RATE_H

/*
 * How much of something there was in the last minute, from a count that only
 * grows: a handful of samples of it, ten seconds apart.  All zero is a rate of
 * which nothing is known yet.
 */
#include <stddef.h>
#include <stdint.h>

enum { RATE_SAMPLES = 7, RATE_STEP_MS = 10 * 1000 };

struct rate {
	struct rate_sample {
		int64_t ms; /* monotonic */
		uint64_t count;
	} samples[RATE_SAMPLES]; /* the oldest first */
	size_t n;
};

/* Now the count is this; asked as often as one likes. */
void rate_add(struct rate *r, int64_t now_ms, uint64_t count);

/* Per minute, up to now; what has just begun is as much as it was so far. */
double rate_per_minute(const struct rate *r, int64_t now_ms, uint64_t count);

#endif
