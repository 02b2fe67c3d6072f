#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "cli/cli.h"

#include "cli/signals.h"

/* Written before the thread starts. */
static struct {
	void (*stop)(void *arg);
	void *arg;
} handler;

static void fill(sigset_t *ret)
{
	(void)sigemptyset(ret);
	(void)sigaddset(ret, SIGTERM);
	(void)sigaddset(ret, SIGINT);
	(void)sigaddset(ret, SIGHUP);
	(void)sigaddset(ret, SIGALRM);
}

void signals_block(void)
{
	sigset_t set;

	fill(&set);
	(void)pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static void *take_signals(void *unused)
{
	bool stopping = false;
	sigset_t set;
	int number;

	(void)unused;
	fill(&set);
	while (sigwait(&set, &number) == 0) {
		if (number == SIGALRM) {
			log_error("not done in time; ending as it is", NULL);
			_exit(CLI_FAILED);
		}
		if (stopping) {
			log_warn("a second signal; ending as it is",
				 "signal=%s", sigabbrev_np(number));
			_exit(CLI_FAILED);
		}
		stopping = true;
		log_info("stopping", "signal=%s", sigabbrev_np(number));
		handler.stop(handler.arg);
	}
	return NULL;
}

int signals_start(void (*stop)(void *arg), void *arg)
{
	pthread_t thread;
	int rc;

	(void)signal(SIGPIPE, SIG_IGN);
	handler.stop = stop;
	handler.arg = arg;
	rc = pthread_create(&thread, NULL, take_signals, NULL);
	if (rc != 0)
		return error_set(-rc, "starting a thread: %s", strerror(rc));
	(void)pthread_detach(thread);
	return 0;
}

void signals_deadline(int64_t ms)
{
	/* A timer of zero would never ring. */
	const struct itimerval timer = {
		.it_value =
			{
				.tv_sec = ms / 1000,
				.tv_usec = ms % 1000 * 1000 + 1,
			},
	};

	(void)setitimer(ITIMER_REAL, &timer, NULL);
}
