#include "base/clock.h"
#include "base/error.h"

#include "bucket/patience.h"

/* How soon a sleeper notices. */
enum { STEP_MS = 100 };

static _Thread_local const atomic_bool *cancel;
static _Thread_local int64_t until;

void bucket_cancel_by(const atomic_bool *flag)
{
	cancel = flag;
}

void bucket_wait_until(int64_t until_ms)
{
	until = until_ms;
}

static bool is_cancelled(void)
{
	return cancel && atomic_load(cancel);
}

bool bucket_patience_is_over(void)
{
	return is_cancelled() || (until && clock_monotonic_ms() >= until);
}

int bucket_patience(void)
{
	if (is_cancelled())
		return error_set(-ECANCELED, "it was stopped");
	if (bucket_patience_is_over())
		return error_set(-ETIMEDOUT,
				 "the store did not answer in time");
	return 0;
}

void bucket_patience_sleep(void (*sleep_ms)(int64_t ms), int64_t ms)
{
	bool limited = cancel || until;

	while (ms > 0 && !bucket_patience_is_over()) {
		int64_t step = limited && ms > STEP_MS ? STEP_MS : ms;

		sleep_ms(step);
		ms -= step;
	}
}
