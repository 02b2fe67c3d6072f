#ifndef LITEBUCKET_TESTS_UNIT_HTTP_SCRIPT_H
#define LITEBUCKET_TESTS_UNIT_HTTP_SCRIPT_H

/*
 * An HTTP server that answers by a script
 * =======================================
 *
 * For what a real store cannot be made to do: lose a reply, stall, cut a body
 * short, lie.  One thread serves one connection at a time; each request, of
 * whatever kind, gets the next step, and the last step for ever after.
 *
 *	const struct script_step steps[] = { { .status = 503 }, ... };
 *	struct script script;
 *	script_start(&script, steps, n);
 *	... http://127.0.0.1:PORT with script.port ...
 *	script_stop(&script);
 */
#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

struct script_step {
	int status;
	const char *headers; /* "Name: value\r\n"..., or NULL */
	const char *body;    /* NULL: empty */
	size_t claim;	     /* Content-Length, where it is to be a lie */
	bool lost;	     /* the request is read, and nothing answered */
	bool stall;	     /* nothing answered, and not closed either */
	bool keep;	     /* the connection, for the next request */
};

struct script {
	int listener;
	int port;
	pthread_t thread;
	const struct script_step *steps;
	size_t n;
	bool stopping;	   /* atomic */
	size_t requests;   /* read after script_stop() */
	char last[1 << 15]; /* the head of the last request; likewise */
};

static inline bool script_read_head(struct script *s, int fd)
{
	size_t size = 0;

	while (size < sizeof(s->last) - 1) {
		ssize_t n = read(fd, s->last + size, 1);

		if (n <= 0)
			return false;
		s->last[++size] = '\0';
		if (size >= 4 && strcmp(s->last + size - 4, "\r\n\r\n") == 0)
			return true;
	}
	return false;
}

static inline bool script_read_request(struct script *s, int fd)
{
	const char *line;
	size_t left;
	char c;

	if (!script_read_head(s, fd))
		return false;
	line = strcasestr(s->last, "\r\nContent-Length:");
	left = line ? strtoul(line + 17, NULL, 10) : 0;
	while (left > 0 && read(fd, &c, 1) == 1)
		left--;
	return left == 0;
}

static inline void script_send(int fd, const char *text)
{
	/* A client that went away is no concern of the script. */
	(void)!send(fd, text, strlen(text), MSG_NOSIGNAL);
}

static inline void script_answer(const struct script_step *step, int fd)
{
	const char *body = step->body ? step->body : "";
	char head[256];

	(void)snprintf(head, sizeof(head),
		       "HTTP/1.1 %d Scripted\r\nContent-Length: %zu\r\n"
		       "Connection: %s\r\n", step->status,
		       step->claim ? step->claim : strlen(body),
		       step->keep ? "keep-alive" : "close");
	script_send(fd, head);
	script_send(fd, step->headers ? step->headers : "");
	script_send(fd, "\r\n");
	script_send(fd, body);
}

/* A kept connection gives way to a new one. */
static inline bool script_next_is_here(const struct script *s, int fd)
{
	struct pollfd fds[] = {
		{ .fd = fd, .events = POLLIN },
		{ .fd = s->listener, .events = POLLIN },
	};

	return poll(fds, 2, -1) > 0 && !fds[1].revents;
}

static inline void script_serve(struct script *s, int fd)
{
	const struct script_step *step;

	do {
		if (!script_read_request(s, fd))
			return;
		step = &s->steps[s->requests < s->n ? s->requests : s->n - 1];
		s->requests++;
		while (step->stall &&
		       !__atomic_load_n(&s->stopping, __ATOMIC_ACQUIRE))
			(void)usleep(10000);
		if (!step->lost && !step->stall)
			script_answer(step, fd);
	} while (step->keep && script_next_is_here(s, fd));
}

static inline void *script_run(void *arg)
{
	struct script *s = arg;
	int fd;

	while ((fd = accept(s->listener, NULL, NULL)) >= 0) {
		if (!__atomic_load_n(&s->stopping, __ATOMIC_ACQUIRE))
			script_serve(s, fd);
		(void)close(fd);
	}
	return NULL;
}

static inline void script_start(struct script *s,
				const struct script_step *steps, size_t n)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	socklen_t size = sizeof(address);

	*s = (struct script){ .steps = steps, .n = n };
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(s->listener, (struct sockaddr *)&address, size) < 0 ||
	    listen(s->listener, 16) < 0 ||
	    getsockname(s->listener, (struct sockaddr *)&address, &size) < 0 ||
	    pthread_create(&s->thread, NULL, script_run, s) != 0)
		abort();
	s->port = ntohs(address.sin_port);
}

static inline void script_stop(struct script *s)
{
	__atomic_store_n(&s->stopping, true, __ATOMIC_RELEASE);
	(void)shutdown(s->listener, SHUT_RDWR);
	(void)pthread_join(s->thread, NULL);
	(void)close(s->listener);
}

#endif
