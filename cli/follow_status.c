#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "cli/report.h"
#include "restorer/follower.h"
#include "restorer/layout.h"
#include "restorer/mark.h"

#include "cli/follow_status.h"

enum {
	PATIENCE_S = 5,	      /* with a client that does not read */
	REPLY_MAX = 256 << 20 /* some hundred bytes for each database */
};

/*
 * The document
 */

static json_t *document(const char *directory, const char *bucket,
			bool running, json_t *databases)
{
	json_t *d = report_document();

	report_field(&d, "follower", report_json_text(directory));
	report_field(&d, "bucket", report_json_text(bucket));
	report_field(&d, "running", json_boolean(running));
	report_field(&d, "databases", databases);
	return d;
}

/* One word; what is most worth knowing. */
static const char *state_of(const struct follower_database *d)
{
	if (d->error)
		return "failed";
	if (d->state.dropped)
		return "dropped";
	if (d->blocked)
		return "blocked";
	if (d->state.txid == 0)
		return "new";
	return d->state.seen > d->state.txid ? "behind" : "following";
}

static void add_place(json_t **o, const struct follower_database *d)
{
	const struct follow_state *s = &d->state;

	report_field(o, "path", report_json_text(d->path));
	report_field(o, "state", json_string(state_of(d)));
	report_field(o, "error", report_json_text(d->error));
	report_field(o, "txid", report_json_txid(s->txid));
	report_field(o, "time", report_json_time(s->timestamp_ms));
	report_field(o, "seen", report_json_txid(s->seen));
	report_field(o, "lag_seconds",
		     d->lag_ms < 0 ? json_null() :
				     json_real((double)d->lag_ms / 1000));
}

/* A follower_fn; arg is an array. */
static int add_database(const struct follower_database *d, void *arg)
{
	const struct replica_state *r = &d->state.replica;
	json_t *o = json_object();

	add_place(&o, d);
	report_field(&o, "page_size", json_integer(r->page_size));
	report_field(&o, "pages", json_integer(r->pages));
	report_field(&o, "wal_bytes", json_integer((json_int_t)r->log_bytes));
	report_field(&o, "readers", json_integer(d->readers));
	report_field(&o, "held_back", json_boolean(r->held_back));
	report_field(&o, "requests_per_minute",
		     json_real(d->requests_per_minute));
	report_field(&o, "bytes_per_minute", json_real(d->bytes_per_minute));
	return json_array_append_new(arg, o) < 0 ? -ENOMEM : 0;
}

static json_t *describe(struct follower *f, const char *directory,
			const char *bucket)
{
	json_t *databases = json_array(), *d;
	struct follower_totals t;

	if (databases && follower_each(f, add_database, databases) < 0) {
		json_decref(databases);
		return NULL;
	}
	follower_totals(f, &t);
	d = document(directory, bucket, true, databases);
	report_field(&d, "catalog_error",
		     report_json_text(t.error[0] ? t.error : NULL));
	report_field(&d, "requests_per_minute",
		     json_real(t.requests_per_minute));
	report_field(&d, "bytes_per_minute", json_real(t.bytes_per_minute));
	return d;
}

/* A layout_fn; arg is an array. */
static int add_left(const char *db, const char *state, void *arg)
{
	AUTO(mem) char *path = NULL;
	AUTO(fd) int fd = -1;
	struct mark m = { 0 };
	json_t *o = json_object();

	if (asprintf(&path, "%s/position", state) < 0)
		path = NULL;
	fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (fd < 0 || mark_load(fd, &m) < 0)
		memset(&m, 0, sizeof(m));
	report_field(&o, "path", report_json_text(db));
	report_field(&o, "state",
		     json_string(m.done.dropped ? "dropped" : "stopped"));
	report_field(&o, "txid", report_json_txid(m.done.txid));
	report_field(&o, "time", report_json_time(m.done.timestamp_ms));
	return json_array_append_new(arg, o) < 0 ? -ENOMEM : 0;
}

static int describe_left(const char *directory, json_t **ret)
{
	json_t *databases = json_array();
	int rc = databases ? layout_each(directory, add_left, databases) :
			     -ENOMEM;

	if (rc < 0) {
		json_decref(databases);
		return rc;
	}
	*ret = document(directory, NULL, layout_is_locked(directory),
			databases);
	return *ret ? 0 : error_set(-ENOMEM, "out of memory for the status");
}

/*
 * The socket
 */

/* By a descriptor, since a socket's path has a hundred bytes at most. */
static int find_socket(const char *directory, struct sockaddr_un *ret)
{
	AUTO(mem) char *ours = NULL;
	int rc = layout_path(directory, "follow", &ours);
	int fd;

	if (rc < 0)
		return rc;
	fd = open(ours, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return error_errno("opening %s", ours);
	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	(void)snprintf(ret->sun_path, sizeof(ret->sun_path),
		       "/proc/self/fd/%d/socket", fd);
	return fd;
}

struct follow_status {
	struct follower *follower;
	const char *directory, *bucket;
	int dirfd, fd;
	struct sockaddr_un address;
	pthread_t thread;
	bool running;
};

static void tell(const struct follow_status *s, int fd)
{
	const struct timeval patience = { .tv_sec = PATIENCE_S };
	json_t *d = describe(s->follower, s->directory, s->bucket);
	AUTO(mem) char *text =
		d ? json_dumps(d, JSON_COMPACT | REPORT_JSON_REALS) : NULL;
	const char *p = text;
	size_t left = text ? strlen(text) : 0;

	json_decref(d);
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience,
			 sizeof(patience));
	while (left > 0) {
		ssize_t n = send(fd, p, left, MSG_NOSIGNAL);

		if (n <= 0)
			return;
		p += n;
		left -= (size_t)n;
	}
}

static void *serve(void *arg)
{
	const struct follow_status *s = arg;

	for (;;) {
		AUTO(fd) int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC);

		if (fd >= 0)
			tell(s, fd);
		else if (errno != EINTR && errno != ECONNABORTED)
			return NULL;
	}
}

static int listen_there(struct follow_status *s)
{
	s->dirfd = find_socket(s->directory, &s->address);
	if (s->dirfd < 0)
		return s->dirfd;
	s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (s->fd < 0)
		return error_errno("making a socket");
	/* One that was killed left it; the lock says that it is ours. */
	(void)unlink(s->address.sun_path);
	/* Before it has a name, so that nobody else is ever let in. */
	if (fchmod(s->fd, 0600) < 0 ||
	    bind(s->fd, (struct sockaddr *)&s->address, sizeof(s->address)) <
		    0 ||
	    listen(s->fd, 16) < 0)
		return error_errno("making a socket in %s", s->directory);
	return 0;
}

int follow_status_start(struct follower *f, const char *directory,
			const char *bucket, struct follow_status **ret)
{
	AUTO(mem) struct follow_status *raw = calloc(1, sizeof(*raw));
	int rc;

	if (!raw)
		return error_set(-ENOMEM, "out of memory for a socket");
	raw->dirfd = raw->fd = -1;
	AUTO(follow_status) struct follow_status *s = TAKE(raw);
	s->follower = f;
	s->directory = directory;
	s->bucket = bucket;
	rc = listen_there(s);
	if (rc < 0)
		return rc;
	rc = pthread_create(&s->thread, NULL, serve, s);
	if (rc != 0)
		return error_set(-rc, "starting a thread: %s", strerror(rc));
	s->running = true;
	*ret = TAKE(s);
	return 0;
}

void follow_status_free(struct follow_status *s)
{
	if (!s)
		return;
	if (s->running) {
		(void)shutdown(s->fd, SHUT_RDWR);
		(void)pthread_join(s->thread, NULL);
		(void)unlink(s->address.sun_path);
	}
	fd_cleanup(&s->fd);
	fd_cleanup(&s->dirfd);
	free(s);
}

/*
 * The client
 */

static int read_all(int fd, struct buf *ret)
{
	char block[4096];
	ssize_t n;

	while ((n = recv(fd, block, sizeof(block), 0)) > 0) {
		int rc = buf_append(ret, block, (size_t)n);

		if (rc < 0)
			return rc;
	}
	return n < 0 ? error_errno("reading from the follower") : 0;
}

/* 0: nobody listens. */
static int call(const char *directory, struct buf *ret)
{
	struct sockaddr_un address;
	AUTO(fd) int dirfd = find_socket(directory, &address);
	AUTO(fd) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int rc;

	if (dirfd < 0)
		return dirfd;
	if (fd < 0)
		return error_errno("making a socket");
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0) {
		rc = read_all(fd, ret);
		return rc < 0 ? rc : ret->size > 0;
	}
	if (errno == ENOENT || errno == ECONNREFUSED)
		return 0;
	if (errno == EACCES)
		return error_set(-EACCES, "its follower is another user's; ask "
					  "as that user or as root");
	return error_errno("connecting to the follower");
}

static bool is_asked(const char *asked, const char *path)
{
	size_t n = strlen(asked);

	return n == 0 || (path && strncmp(asked, path, n) == 0 &&
			  (path[n] == '\0' || path[n] == '/'));
}

static void keep_asked(const json_t *status, const char *db)
{
	json_t *databases = json_object_get(status, "databases");

	for (size_t i = json_array_size(databases); i-- > 0;) {
		const json_t *path = json_object_get(
			json_array_get(databases, i), "path");

		if (!is_asked(db, json_string_value(path)))
			(void)json_array_remove(databases, i);
	}
}

int follow_status_ask(const char *directory, const char *db, json_t **ret)
{
	AUTO(buf) struct buf reply = BUF_INIT(REPLY_MAX);
	json_error_t error;
	int rc = call(directory, &reply);

	if (rc < 0)
		return rc;
	if (rc > 0) {
		*ret = json_loadb(reply.data, reply.size, 0, &error);
		if (!*ret)
			return error_set(-EPROTO, "the follower's answer is "
					 "not JSON: %s", error.text);
	} else {
		rc = describe_left(directory, ret);
	}
	if (rc < 0)
		return rc;
	keep_asked(*ret, db);
	return 0;
}
