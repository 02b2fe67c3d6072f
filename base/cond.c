#include <errno.h>
#include <time.h>

#include "base/error.h"

#include "base/cond.h"

int cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t monotonic;
	int err = pthread_condattr_init(&monotonic);

	if (!err) {
		err = pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
		if (!err)
			err = pthread_cond_init(cond, &monotonic);
		(void)pthread_condattr_destroy(&monotonic);
	}
	errno = err;
	return err ? error_errno("making a condition variable") : 0;
}

int cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *held,
		    int64_t until_ms)
{
	struct timespec until = {
		.tv_sec = until_ms / 1000,
		.tv_nsec = (long)(until_ms % 1000) * 1000000,
	};

	if (until_ms == COND_NEVER)
		return -pthread_cond_wait(cond, held);
	return -pthread_cond_timedwait(cond, held, &until);
}
