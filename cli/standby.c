#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "cli/child.h"
#include "cli/standby_wire.h"

#include "cli/standby.h"

extern char **environ;

enum {
	/* Between the end of one process and the start of the next. */
	PAUSE_MS = 1000,
	/* How long a process may take to end its replicas cleanly. */
	END_MS = 10000,
};

struct standby {
	struct standby_config config;
	pthread_t thread;
	int wake_fd; /* an eventfd: look at these: */
	atomic_bool promoting, stopping;

	/* The thread's. */
	int fd;	   /* our end of the socket */
	pid_t pid; /* not reaped yet */
	bool ready, asked;
};

/* ------------------------------------------------------------- the process */

/* Its signals are the daemon's to send. */
static int start(struct standby *s)
{
	char *argv[] = {(char *)"litebucket", (char *)STANDBY_VERB,
			(char *)s->config.mountpoint, (char *)s->config.bucket,
			(char *)s->config.log_level, NULL};
	int rc = child_start(argv, environ, &s->pid, &s->fd);

	if (rc < 0)
		return rc;
	s->asked = false;
	s->config.process(s->config.arg, s->pid);
	return 0;
}

/* Its status, once it has ended. */
static int reap(struct standby *s)
{
	int status = 0;

	child_wait(s->pid);
	s->config.process(s->config.arg, 0);
	(void)waitpid(s->pid, &status, 0);
	(void)close(s->fd);
	s->fd = -1;
	s->pid = 0;
	return status;
}

/* Has it said something?  False: it has ended, or is about to. */
static bool listen_to(struct standby *s)
{
	struct standby_packet packet;
	ssize_t n = recv(s->fd, &packet, sizeof(packet), MSG_DONTWAIT);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	if (n != (ssize_t)sizeof(packet))
		return false;
	if (packet.word == STANDBY_READY && !s->ready) {
		s->ready = true;
		s->config.ready(s->config.arg, packet.number);
	}
	return true;
}

static void ask_to_hand_over(struct standby *s)
{
	const struct standby_packet packet = {.word = STANDBY_HAND_OVER};

	if (s->asked)
		return;
	s->asked = true;
	(void)send(s->fd, &packet, sizeof(packet), MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* From its start to its end: its status. */
static int attend(struct standby *s)
{
	int64_t until_ms = INT64_MAX;
	uint64_t times;

	for (;;) {
		struct pollfd fds[] = {
			{.fd = s->fd, .events = POLLIN},
			{.fd = s->wake_fd, .events = POLLIN},
		};
		int64_t left = until_ms - clock_monotonic_ms();

		if (atomic_load(&s->stopping) && until_ms == INT64_MAX) {
			until_ms = clock_monotonic_ms() + END_MS;
			(void)shutdown(s->fd, SHUT_WR);
			continue;
		}
		if (left <= 0)
			(void)kill(s->pid, SIGKILL);
		else if (atomic_load(&s->promoting))
			ask_to_hand_over(s);
		if (poll(fds, 2, until_ms == INT64_MAX ? -1 :
				 left > 0 ? (int)left : END_MS) < 0)
			continue;
		if (fds[1].revents && read(s->wake_fd, &times, sizeof(times)) < 0)
			continue;
		if (fds[0].revents && !listen_to(s))
			return reap(s);
	}
}

static void pause_before_next(struct standby *s)
{
	struct pollfd pfd = {.fd = s->wake_fd, .events = POLLIN};
	uint64_t times;

	if (poll(&pfd, 1, PAUSE_MS) > 0 &&
	    read(s->wake_fd, &times, sizeof(times)) < 0)
		return;
}

/* One process's life.  True: it has handed over. */
static bool follow_once(struct standby *s)
{
	int status;

	if (start(s) < 0) {
		log_error("no follower; the replicas stay as they are",
			  "error=%s", log_quote(error_message()));
		return false;
	}
	status = attend(s);
	if (s->asked && WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return true;
	if (!atomic_load(&s->stopping))
		log_warn("the follower ended; starting another",
			 "status=%d signal=%d",
			 WIFEXITED(status) ? WEXITSTATUS(status) : -1,
			 WIFSIGNALED(status) ? WTERMSIG(status) : 0);
	return false;
}

static void *work(void *arg)
{
	struct standby *s = arg;

	while (!atomic_load(&s->stopping)) {
		if (follow_once(s)) {
			s->config.take_over(s->config.arg);
			break;
		}
		if (!atomic_load(&s->stopping))
			pause_before_next(s);
	}
	return NULL;
}

/* ------------------------------------------------------ beginning, ending */

static void wake(struct standby *s)
{
	const uint64_t one = 1;

	/* It can only fail because there are many reasons to wake already. */
	if (write(s->wake_fd, &one, sizeof(one)) < 0)
		return;
}

int standby_new(const struct standby_config *config, struct standby **ret)
{
	struct standby *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return error_set(-ENOMEM, "no memory for a standby");
	s->config = *config;
	s->fd = -1;
	s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->wake_fd < 0) {
		free(s);
		return error_errno("making an eventfd");
	}
	rc = pthread_create(&s->thread, NULL, work, s);
	if (rc) {
		(void)close(s->wake_fd);
		free(s);
		return error_set(-rc, "starting a thread: %s", strerror(rc));
	}
	*ret = s;
	return 0;
}

void standby_promote(struct standby *s)
{
	if (!s)
		return;
	atomic_store(&s->promoting, true);
	wake(s);
}

void standby_stop(struct standby *s)
{
	if (!s)
		return;
	atomic_store(&s->stopping, true);
	wake(s);
}

void standby_free(struct standby *s)
{
	if (!s)
		return;
	standby_stop(s);
	(void)pthread_join(s->thread, NULL);
	(void)close(s->wake_fd);
	free(s);
}
