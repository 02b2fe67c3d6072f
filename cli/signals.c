#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "cli/cli.h"

#include "cli/signals.h"

/* Written before the thread starts. */
static struct {
	void (*stop)(void);
	void (*hurry)(void);
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

static void end(const char *why)
{
	log_error(why, NULL);
	_exit(CLI_FAILED);
}

static void *take_signals(void *unused)
{
	unsigned taken = 0;
	sigset_t set;
	int number;

	(void)unused;
	fill(&set);
	while (sigwait(&set, &number) == 0) {
		if (number == SIGALRM)
			end("out of time; ending as it is");
		if (taken == 2)
			end("a third signal; ending as it is");
		log_info(taken ? "stopping at once" : "stopping", "signal=%s",
			 sigabbrev_np(number));
		if (taken++)
			handler.hurry();
		else
			handler.stop();
	}
	return NULL;
}

int signals_start(void (*stop)(void), void (*hurry)(void))
{
	pthread_t thread;
	int rc;

	(void)signal(SIGPIPE, SIG_IGN);
	handler.stop = stop;
	handler.hurry = hurry;
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
