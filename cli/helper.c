#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/cond.h"
#include "base/error.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/log.h"
#include "cli/child.h"
#include "cli/helper_wire.h"

#include "cli/helper.h"

enum {
	/* The query of a lock is a few round trips to the mount. */
	WRITER_MS = 2000,
	/* Between the end of one process and the start of the next. */
	PAUSE_MS = 1000,
	/* How long a process may take to notice that it is to end. */
	END_MS = 1000,
};

/*
 * One thread, the keeper, starts the process, waits for its end, and starts
 * the next.  It lives as long as the helper, because a process that asked to be
 * killed with its parent is killed with the thread that started it.
 *
 * Locks, outermost first: calls, state.
 */
struct helper {
	struct helper_config config;
	uint8_t nonce[CONTROL_NONCE_SIZE];
	pthread_t keeper;

	pthread_mutex_t calls; /* one at a time; the socket stays meanwhile */
	uint64_t number;       /* of the last request; guarded by calls */

	pthread_mutex_t state;
	pthread_cond_t changed; /* stopping, or a process came or went */

	/* Guarded by state. */
	int fd;	   /* our end; -1: no process is there (yet) */
	pid_t pid; /* not reaped yet; 0: none */
	bool stopping;
};

/*
 * The process
 * -----------
 */

/*
 * No environment goes with it: it needs none, and there are credentials in
 * ours.  The mount point is for people who look at ps(1).
 */
static int start(struct helper *h)
{
	char *argv[] = {(char *)"litebucket", (char *)HELPER_VERB,
			(char *)h->config.mountpoint, NULL};
	char *environment[] = {NULL};
	pid_t pid = 0;
	int fd, rc = child_start(argv, environment, &pid, &fd);

	if (rc < 0)
		return rc;
	AUTO(unlock) pthread_mutex_t *held = lock(&h->state);
	h->fd = fd;
	h->pid = pid;
	if (h->stopping)
		(void)shutdown(h->fd, SHUT_RDWR);
	(void)pthread_cond_broadcast(&h->changed);
	return 0;
}

/* Wait for the end of the process, and leave its pid its own until reaped. */
static int wait_for_end(struct helper *h)
{
	int status = 0, fd;

	child_wait(h->pid);
	AUTO(unlock) pthread_mutex_t *calls = lock(&h->calls);
	AUTO(unlock) pthread_mutex_t *state = lock(&h->state);
	(void)waitpid(h->pid, &status, 0);
	fd = TAKE_FD(h->fd);
	(void)close(fd);
	h->pid = 0;
	(void)pthread_cond_broadcast(&h->changed);
	return status;
}

/* False: it is over. */
static bool pause_before_next(struct helper *h)
{
	int64_t until_ms = clock_monotonic_ms() + PAUSE_MS;
	AUTO(unlock) pthread_mutex_t *held = lock(&h->state);

	while (!h->stopping && clock_monotonic_ms() < until_ms)
		(void)cond_wait_until(&h->changed, &h->state, until_ms);
	return !h->stopping;
}

static bool is_stopping(struct helper *h)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&h->state);

	return h->stopping;
}

static void *keep(void *arg)
{
	struct helper *h = arg;

	do {
		SLOWPOINT("helper-due");
		if (start(h) < 0) {
			log_warn("no helper; what needs one has to do without",
				 "error=%s", log_quote(error_message()));
			continue;
		}
		int status = wait_for_end(h);

		if (!is_stopping(h))
			log_warn("the helper ended; starting another",
				 "status=%d signal=%d",
				 WIFEXITED(status) ? WEXITSTATUS(status) : -1,
				 WIFSIGNALED(status) ? WTERMSIG(status) : 0);
	} while (pause_before_next(h));
	return NULL;
}

/*
 * Calls
 * -----
 */

static int no_answer(void)
{
	return error_set(-EAGAIN, "the helper process gives no answer");
}

/* The calls lock, unless that takes too long. */
static int begin(struct helper *h, int64_t until_ms)
{
	const struct timespec until = {
		.tv_sec = until_ms / 1000,
		.tv_nsec = until_ms % 1000 * 1000000,
	};

	if (pthread_mutex_clocklock(&h->calls, CLOCK_MONOTONIC, &until))
		return no_answer();
	return 0;
}

static int receive(int fd, uint64_t number, int64_t until_ms,
		   struct helper_reply *ret)
{
	for (;;) {
		int64_t left = until_ms - clock_monotonic_ms();
		struct pollfd pfd = {.fd = fd, .events = POLLIN};
		int ready = poll(&pfd, 1, left > 0 ? (int)left : 0);

		if (ready == 0)
			return no_answer();
		if (ready < 0 && errno == EINTR)
			continue;
		if (recv(fd, ret, sizeof(*ret), MSG_DONTWAIT) !=
		    (ssize_t)sizeof(*ret))
			return no_answer();
		/* What came too late for its caller is still there. */
		if (ret->number == number)
			return 0;
	}
}

/* The first process may not be there yet, nor the next; negative: nor in time. */
static int wait_for_process(struct helper *h, int64_t until_ms)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&h->state);

	while (!h->stopping && h->fd < 0 && clock_monotonic_ms() < until_ms)
		(void)cond_wait_until(&h->changed, &h->state, until_ms);
	return h->stopping ? -1 : h->fd;
}

/* Calls held.  The socket is closed by nobody meanwhile. */
static int exchange(struct helper *h, struct helper_request *request,
		    int64_t until_ms, struct helper_reply *ret)
{
	int fd = wait_for_process(h, until_ms);

	request->number = ++h->number;
	if (fd < 0 || send(fd, request, sizeof(*request),
			   MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		return no_answer();
	return receive(fd, request->number, until_ms, ret);
}

static int fill(const struct helper *h, enum helper_kind kind, const char *path,
		struct helper_request *ret)
{
	*ret = (struct helper_request){
		.kind = kind,
		.as_owner = h->config.as_owner,
		.pending_byte = h->config.pending_byte,
	};
	memcpy(ret->nonce, h->nonce, sizeof(ret->nonce));
	(void)snprintf(ret->mountpoint, sizeof(ret->mountpoint), "%s",
		       h->config.mountpoint);
	if (snprintf(ret->path, sizeof(ret->path), "%s/%s",
		     h->config.mountpoint, path) >= (int)sizeof(ret->path))
		return error_set(-ENAMETOOLONG, "'%s' is too long a path",
				 path);
	return 0;
}

static int call(struct helper *h, enum helper_kind kind, const char *path,
		int64_t timeout_ms)
{
	int64_t until_ms = clock_monotonic_ms() + timeout_ms;
	struct helper_request request;
	struct helper_reply reply;
	int rc = fill(h, kind, path, &request);

	if (rc == 0)
		rc = begin(h, until_ms);
	if (rc < 0)
		return rc;
	rc = exchange(h, &request, until_ms, &reply);
	(void)pthread_mutex_unlock(&h->calls);
	if (rc < 0)
		return rc;
	if (reply.result < 0)
		return error_set(reply.result, "%.*s",
				 (int)sizeof(reply.text) - 1, reply.text);
	return reply.result;
}

int helper_ask_writer(struct helper *h, const char *path)
{
	return call(h, HELPER_WRITER, path, WRITER_MS);
}

int helper_play(struct helper *h, const char *path, int64_t timeout_ms)
{
	return call(h, HELPER_PLAY, path, timeout_ms);
}

/*
 * Beginning and end
 * -----------------
 */

const uint8_t *helper_nonce(const struct helper *h)
{
	return h->nonce;
}

int helper_new(const struct helper_config *config, struct helper **ret)
{
	AUTO(mem) struct helper *h = calloc(1, sizeof(*h));
	int rc;

	if (!h)
		return error_set(-ENOMEM, "no memory for a helper");
	h->config = *config;
	h->fd = -1;
	io_random(h->nonce, sizeof(h->nonce));
	rc = cond_init(&h->changed);
	if (rc < 0)
		return rc;
	(void)pthread_mutex_init(&h->calls, NULL);
	(void)pthread_mutex_init(&h->state, NULL);
	rc = pthread_create(&h->keeper, NULL, keep, h);
	if (rc) {
		(void)pthread_cond_destroy(&h->changed);
		return error_set(-rc, "starting a thread: %s", strerror(rc));
	}
	*ret = TAKE(h);
	return 0;
}

/* Say that it is over, and do not leave it at that. */
static void end_process(struct helper *h)
{
	int64_t until_ms = clock_monotonic_ms() + END_MS;
	AUTO(unlock) pthread_mutex_t *held = lock(&h->state);

	h->stopping = true;
	(void)pthread_cond_broadcast(&h->changed);
	if (h->fd >= 0)
		(void)shutdown(h->fd, SHUT_RDWR);
	while (h->pid && clock_monotonic_ms() < until_ms)
		(void)cond_wait_until(&h->changed, &h->state, until_ms);
	if (h->pid)
		(void)kill(h->pid, SIGKILL);
}

void helper_stop(struct helper *h)
{
	if (h)
		end_process(h);
}

void helper_free(struct helper *h)
{
	if (!h)
		return;
	end_process(h);
	(void)pthread_join(h->keeper, NULL);
	(void)pthread_cond_destroy(&h->changed);
	(void)pthread_mutex_destroy(&h->state);
	(void)pthread_mutex_destroy(&h->calls);
	free(h);
}
