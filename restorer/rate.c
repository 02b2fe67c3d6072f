#include <string.h>

#include "restorer/rate.h"

enum { MINUTE_MS = 60 * 1000 };

void rate_add(struct rate *r, int64_t now_ms, uint64_t count)
{
	if (r->n > 0 && now_ms - r->samples[r->n - 1].ms < RATE_STEP_MS)
		return;
	if (r->n == RATE_SAMPLES)
		memmove(r->samples, r->samples + 1,
			--r->n * sizeof(r->samples[0]));
	r->samples[r->n++] = (struct rate_sample){ now_ms, count };
}

/* The newest sample that is a minute old, or else the oldest. */
static const struct rate_sample *base_of(const struct rate *r, int64_t now_ms)
{
	const struct rate_sample *base = &r->samples[0];

	for (size_t i = 1; i < r->n; i++)
		if (now_ms - r->samples[i].ms >= MINUTE_MS)
			base = &r->samples[i];
	return base;
}

double rate_per_minute(const struct rate *r, int64_t now_ms, uint64_t count)
{
	const struct rate_sample *base = base_of(r, now_ms);
	int64_t ms = now_ms - base->ms;

	if (r->n == 0)
		return 0;
	return (double)(count - base->count) * MINUTE_MS /
	       (double)(ms > MINUTE_MS ? ms : MINUTE_MS);
}
