#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/cond.h"
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "bucket/archive.h"
#include "bucket/catalog.h"
#include "restorer/inherit.h"
#include "restorer/layout.h"
#include "restorer/rate.h"

#include "restorer/follower.h"

enum {
	INTERVAL_MS = 1000,
	CATALOG_MS = 10 * 1000,
	LISTS = 6, /* a list instead of a catalog comes so much less often */
	CONNECTIONS = 8,
	BLOCKED_MS = 50,	  /* until a lock or a reader is looked at again */
	BLOCKED_PART = 9,	  /* and so many times what the look took */
	PATIENCE_MS = 10 * 1000,  /* for that, with once */
	PAUSE_MAX_MS = 30 * 1000, /* between failures */
};

/* One database; guarded by the follower's lock but while it is busy. */
struct entry {
	char *db, *path;
	struct follow *follow; /* of the thread that has it */
	bool busy;
	bool done;    /* with once */
	bool settled; /* it has been as new as the bucket, or failed */
	int64_t due_ms;
	unsigned failures;	/* in a row */
	int64_t blocked_ms;	/* since when something is in the way; 0: no */
	int rc;			/* of the last step, if it failed */
	char message[ERROR_MESSAGE_SIZE];
	struct follow_state state;
	unsigned readers;
	struct rate requests, bytes;
};

struct follower {
	struct follower_options o;
	int lock_fd;
	volatile sig_atomic_t cancelled; /* restores look at it */
	atomic_bool foreign; /* no catalog: the bucket's writer is not ours */

	pthread_mutex_t mutex; /* guards what follows */
	pthread_cond_t changed; /* for who runs it: the end, settled, done */
	pthread_cond_t due;	/* for the threads: there may be work */
	int64_t watched_ms;	/* one of them looks then; COND_NEVER: none */
	bool stopping;
	bool told_ready;
	struct entry **entries;
	size_t n;
	uint64_t looks; /* requests for databases */
	struct rate looked;
	char unknown[ERROR_MESSAGE_SIZE]; /* why the last of them failed */
};

static char *below(const struct follower *f, const char *name)
{
	char *path;

	return asprintf(&path, "%s/%s", f->o.directory, name) < 0 ? NULL : path;
}

/* A mount's directory has its databases' state there. */
static int refuse_mount(const struct follower *f)
{
	AUTO(mem) char *path = below(f, ".litebucket/db");
	struct stat st;

	if (!path)
		return error_set(-ENOMEM, "out of memory for a path");
	if (stat(path, &st) < 0)
		return 0;
	return error_set(-EEXIST,
			 "%s holds databases of a mount, which would be "
			 "overwritten; follow into another directory",
			 f->o.directory);
}

int follower_new(const struct follower_options *o, struct follower **ret)
{
	AUTO(mem) struct follower *raw = calloc(1, sizeof(*raw));
	int rc;

	if (!raw)
		return error_set(-ENOMEM, "out of memory for a follower");
	rc = cond_init(&raw->changed);
	if (rc < 0)
		return rc;
	rc = cond_init(&raw->due);
	if (rc < 0) {
		(void)pthread_cond_destroy(&raw->changed);
		return rc;
	}
	(void)pthread_mutex_init(&raw->mutex, NULL);
	AUTO(follower) struct follower *f = TAKE(raw);
	f->lock_fd = -1;
	f->watched_ms = COND_NEVER;
	f->o = *o;
	if (f->o.interval_ms == 0)
		f->o.interval_ms = INTERVAL_MS;
	if (f->o.catalog_ms == 0)
		f->o.catalog_ms = CATALOG_MS;
	if (f->o.connections == 0)
		f->o.connections = CONNECTIONS;
	rc = f->o.in_mount ? 0 : refuse_mount(f);
	if (rc == 0)
		rc = layout_lock(f->o.directory, &f->lock_fd);
	if (rc < 0)
		return rc;
	*ret = TAKE(f);
	return 0;
}

static void entry_free(struct entry *e)
{
	if (!e)
		return;
	if (e->follow && follow_close(e->follow) < 0)
		log_warn("replica could not be ended cleanly",
			 "db=%s error=%s", log_quote(e->path),
			 log_quote(error_message()));
	free(e->db);
	free(e->path);
	free(e);
}

void follower_free(struct follower *f)
{
	if (!f)
		return;
	for (size_t i = 0; i < f->n; i++)
		entry_free(f->entries[i]);
	free(f->entries);
	fd_cleanup(&f->lock_fd);
	(void)pthread_cond_destroy(&f->changed);
	(void)pthread_cond_destroy(&f->due);
	(void)pthread_mutex_destroy(&f->mutex);
	free(f);
}

void follower_stop(struct follower *f)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&f->mutex);

	f->stopping = true;
	f->cancelled = 1;
	(void)pthread_cond_broadcast(&f->changed);
	(void)pthread_cond_broadcast(&f->due);
}

/*
 * What is told
 */

/* All of the bucket that there was so long ago is in the replica. */
static int64_t lag_of(const struct follow_state *s)
{
	int64_t looked = COND_NEVER, written = COND_NEVER, lag;

	if (s->current_ms)
		looked = clock_monotonic_ms() - s->current_ms;
	if (s->txid)
		written = clock_wall_ms() - s->timestamp_ms;
	lag = looked < written ? looked : written;
	if (lag == COND_NEVER)
		return -1;
	return lag > 0 ? lag : 0;
}

static void describe(const struct entry *e, struct follower_database *ret)
{
	int64_t now = clock_monotonic_ms();

	*ret = (struct follower_database){
		.path = e->path,
		.state = e->state,
		.error = e->rc < 0 ? e->message : NULL,
		.blocked = e->blocked_ms != 0,
		.readers = e->readers,
		.lag_ms = lag_of(&e->state),
		.requests_per_minute = rate_per_minute(&e->requests, now,
						       e->state.requests),
		.bytes_per_minute = rate_per_minute(&e->bytes, now,
						    e->state.bytes),
	};
}

int follower_each(struct follower *f, follower_fn fn, void *arg)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&f->mutex);
	int rc = 0;

	for (size_t i = 0; i < f->n && rc == 0; i++) {
		struct entry *e = f->entries[i];
		struct follower_database d;

		if (!e->busy && e->follow)
			e->readers = follow_readers(e->follow);
		describe(e, &d);
		rc = fn(&d, arg);
	}
	return rc;
}

void follower_totals(struct follower *f, struct follower_totals *ret)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&f->mutex);
	int64_t now = clock_monotonic_ms();

	*ret = (struct follower_totals){
		.requests_per_minute =
			rate_per_minute(&f->looked, now, f->looks),
	};
	(void)snprintf(ret->error, sizeof(ret->error), "%s", f->unknown);
	for (size_t i = 0; i < f->n; i++) {
		struct follower_database d;

		describe(f->entries[i], &d);
		ret->requests_per_minute += d.requests_per_minute;
		ret->bytes_per_minute += d.bytes_per_minute;
	}
}

/*
 * Which databases there are
 */

static struct entry *find_entry(struct follower *f, const char *db)
{
	for (size_t i = 0; i < f->n; i++)
		if (strcmp(f->entries[i]->db, db) == 0)
			return f->entries[i];
	return NULL;
}

/* The path below the directory; false: it is none that we make. */
static bool path_of(const struct follower *f, const char *db,
		    char ret[BUCKET_KEY_MAX])
{
	if (!db[0])
		(void)snprintf(ret, BUCKET_KEY_MAX, "%s",
			       f->o.name ? f->o.name : "database");
	else if (archive_unescape(db, ret) < 0)
		return false;
	return !layout_is_ours(ret);
}

static int add_entry(struct follower *f, const char *db, const char *path)
{
	struct entry *e = calloc(1, sizeof(*e));
	struct entry **entries =
		reallocarray(f->entries, f->n + 1, sizeof(*entries));

	if (entries)
		f->entries = entries;
	if (e) {
		e->db = strdup(db);
		e->path = strdup(path);
	}
	if (!entries || !e || !e->db || !e->path) {
		entry_free(e);
		return error_set(-ENOMEM, "out of memory for a database");
	}
	e->due_ms = clock_monotonic_ms();
	rate_add(&e->requests, e->due_ms, 0);
	rate_add(&e->bytes, e->due_ms, 0);
	f->entries[f->n++] = e;
	(void)pthread_cond_signal(&f->due);
	return 0;
}

/*
 * A layout_fn: a replica of an earlier life is served, to those who may only read
 * its files, from the start on, whether or not the bucket answers.
 */
static int found_here(const char *path, const char *state, void *arg)
{
	struct follower *f = arg;
	char db[BUCKET_KEY_MAX];
	AUTO(unlock) pthread_mutex_t *held = lock(&f->mutex);

	(void)state;
	/* The one whose own URL the bucket's is may be another's name. */
	if (archive_escape(path, db) < 0 ||
	    (f->o.name && strcmp(path, f->o.name) == 0) || find_entry(f, db) ||
	    (f->o.wanted && !f->o.wanted(path, f->o.wanted_arg)))
		return 0;
	return add_entry(f, db, path);
}

/* An archive_db_fn; arg is the follower. */
static int found(const char *db, void *arg)
{
	struct follower *f = arg;
	char path[BUCKET_KEY_MAX];
	AUTO(unlock) pthread_mutex_t *held = lock(&f->mutex);

	if (find_entry(f, db) || !path_of(f, db, path))
		return 0;
	if (f->o.wanted && !f->o.wanted(path, f->o.wanted_arg))
		return 0;
	return add_entry(f, db, path);
}

/* What was dropped and is there again is not waited for. */
static void call_back(struct follower *f, const char *db)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&f->mutex);
	struct entry *e = find_entry(f, db);

	if (e && e->state.dropped && !e->done) {
		e->due_ms = clock_monotonic_ms();
		(void)pthread_cond_signal(&f->due);
	}
}

/* A catalog_fn; arg is the follower. */
static int found_line(const char *db, const struct catalog_entry *line,
		      void *arg)
{
	if (line->dropped)
		return 0;
	call_back(arg, db);
	return found(db, arg);
}

/* 1: there is a catalog; 0: there is none, and the bucket was listed. */
static int find_databases(struct follower *f)
{
	AUTO(catalog) struct catalog *catalog = NULL;
	int rc = catalog_get(f->o.bucket, &catalog, NULL);

	if (rc >= 0 || rc == -ENOENT)
		atomic_store(&f->foreign, rc == -ENOENT);
	if (rc == -ENOENT) {
		rc = archive_databases(f->o.bucket, found, f);
		return rc < 0 ? rc : 0;
	}
	if (rc == 0)
		rc = catalog_each(catalog, found_line, f);
	return rc < 0 ? rc : 1;
}

/* It cost so many requests; and is it to be told? */
static bool note_look(struct follower *f, int rc, unsigned requests)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&f->mutex);
	bool failed_before = f->unknown[0];

	rate_add(&f->looked, clock_monotonic_ms(), f->looks);
	f->looks += requests;
	(void)snprintf(f->unknown, sizeof(f->unknown), "%s",
		       rc < 0 ? error_message() : "");
	return rc < 0 && !failed_before;
}

/* At the start also what the catalog, which is written later, does not know. */
static int find_all_databases(struct follower *f)
{
	int rc = find_databases(f);

	if (rc > 0)
		rc = archive_databases(f->o.bucket, found, f);
	return rc;
}

/*
 * One database's turn
 */

/* name below the directory; path is the same, absolute. */
static int make_parents(const struct follower *f, const char *name, char *path)
{
	char *slash = strrchr(path, '/');
	AUTO(fd) int top = -1, fd = -1;
	int rc;

	if (!f->o.in_mount) {
		*slash = '\0';
		rc = io_make_dirs(AT_FDCWD, path, 0755);
		*slash = '/';
		return rc;
	}
	top = open(f->o.directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (top < 0)
		return error_errno("opening %s", f->o.directory);
	return inherit_parents(top, name, &fd, &name);
}

static int open_follow(struct follower *f, struct entry *e)
{
	AUTO(mem) char *state = NULL, *path = below(f, e->path);
	AUTO(mem) char *aside = NULL, *name = NULL;
	struct follow_options o = {
		.bucket = f->o.bucket,
		.db = e->db,
		.mode = f->o.mode,
		.inherit = f->o.in_mount,
		.pos_file = f->o.pos_files,
		.stop_on_divergence = f->o.stop_on_divergence,
		.replica = f->o.replica,
		.cancel = &f->cancelled,
	};
	int rc = layout_state(f->o.directory, e->path, &state);

	if (rc == 0)
		rc = layout_path(f->o.directory, "aside", &aside);
	if (rc < 0)
		return rc;
	if (!path || asprintf(&name, "%s/name", state) < 0)
		return error_set(-ENOMEM, "out of memory for a path");
	rc = io_make_dirs(AT_FDCWD, state, 0755);
	if (rc == 0 && access(name, F_OK) < 0)
		rc = io_write_atomically(AT_FDCWD, name, e->path,
					 strlen(e->path));
	if (rc == 0)
		rc = make_parents(f, e->path, path);
	if (rc < 0)
		return rc;
	o.path = path;
	o.state = state;
	o.aside = aside;
	return follow_new(&o, &e->follow);
}

static int step(struct follower *f, struct entry *e)
{
	int rc = e->follow ? 0 : open_follow(f, e);

	if (rc < 0)
		return rc;
	follow_expect_holes(e->follow, atomic_load(&f->foreign));
	return follow_step(e->follow);
}

/* Whose turn is next; NULL: nobody's, until a thread gives one back. */
static struct entry *earliest(const struct follower *f)
{
	struct entry *next = NULL;

	for (size_t i = 0; i < f->n; i++) {
		struct entry *e = f->entries[i];

		if (!e->busy && !e->done &&
		    (!next || e->due_ms < next->due_ms))
			next = e;
	}
	return next;
}

/*
 * Of the threads without work one watches for the next turn, and the others
 * sleep on; a step that woke them all would cost less than they do.  Who watches
 * and then takes a turn has another watch, if there is something to watch for;
 * who gives one back looks for the next itself.
 */
static void watch(struct follower *f, pthread_mutex_t *held,
		  const struct entry *next)
{
	int64_t until = next ? next->due_ms : COND_NEVER;

	if (until >= f->watched_ms)
		until = COND_NEVER;
	else
		f->watched_ms = until;
	(void)cond_wait_until(&f->due, held, until);
	if (until == f->watched_ms)
		f->watched_ms = COND_NEVER;
}

/* NULL: there is no more to do. */
static struct entry *take(struct follower *f)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&f->mutex);

	while (!f->stopping) {
		struct entry *next = earliest(f);

		if (!next || next->due_ms > clock_monotonic_ms()) {
			watch(f, held, next);
			continue;
		}
		next->busy = true;
		if (earliest(f))
			(void)pthread_cond_signal(&f->due);
		return next;
	}
	return NULL;
}

/* Readers in the way are nobody's fault, and go by themselves. */
static void tell_failure(const struct entry *e)
{
	if (e->rc == -EAGAIN)
		log_warn("replica stands still until its readers make room",
			 "db=%s because=%s", log_quote(e->path),
			 log_quote(e->message));
	else
		log_error("database is not followed for now", "db=%s error=%s",
			  log_quote(e->path), log_quote(e->message));
}

/* When it fails again and again it is said once, and tried less often. */
static void note_failure(struct follower *f, struct entry *e, int rc)
{
	int64_t pause = f->o.interval_ms << (e->failures < 5 ? e->failures : 5);
	bool same = e->rc == rc && strcmp(e->message, error_message()) == 0;

	e->rc = rc;
	e->failures++;
	(void)snprintf(e->message, sizeof(e->message), "%s", error_message());
	if (!same && !f->stopping)
		tell_failure(e);
	e->due_ms = clock_monotonic_ms() +
		    (pause < PAUSE_MAX_MS ? pause : PAUSE_MAX_MS);
	e->done = f->o.once;
	e->settled = true;
}

/*
 * Readers or a lock: no failure, unless it lasts; then it is told.  A gap may be
 * short, so it is looked for often, but not for more than a part of the time.
 */
static void note_blocked(struct follower *f, struct entry *e, int rc,
			 int64_t took_ms)
{
	int64_t now = clock_monotonic_ms();

	if (!e->blocked_ms)
		e->blocked_ms = now;
	if (now - e->blocked_ms >= PATIENCE_MS)
		note_failure(f, e, rc);
	e->due_ms = now + BLOCKED_MS + BLOCKED_PART * took_ms;
}

static void note_success(struct follower *f, struct entry *e, int rc)
{
	if (e->rc < 0)
		log_info("database is followed again", "db=%s",
			 log_quote(e->path));
	e->rc = 0;
	e->failures = 0;
	e->blocked_ms = 0;
	e->due_ms = clock_monotonic_ms();
	if (rc == 0)
		e->due_ms += e->state.dropped ? f->o.catalog_ms :
						f->o.interval_ms;
	e->done = rc == 0 && f->o.once;
	e->settled |= rc == 0;
}

static void give_back(struct follower *f, struct entry *e, int rc,
		      int64_t took_ms)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&f->mutex);
	bool settled = e->settled;

	e->busy = false;
	if (e->follow)
		follow_state(e->follow, &e->state);
	rate_add(&e->requests, clock_monotonic_ms(), e->state.requests);
	rate_add(&e->bytes, clock_monotonic_ms(), e->state.bytes);
	if (rc == -EAGAIN)
		note_blocked(f, e, rc, took_ms);
	else if (rc < 0)
		note_failure(f, e, rc);
	else
		note_success(f, e, rc);
	if (e->done || e->settled != settled)
		(void)pthread_cond_signal(&f->changed);
}

static void *work(void *arg)
{
	struct follower *f = arg;
	struct entry *e;

	while ((e = take(f))) {
		int64_t begun_ms = clock_monotonic_ms();
		int rc = step(f, e);

		give_back(f, e, rc, clock_monotonic_ms() - begun_ms);
	}
	return NULL;
}

/*
 * The run: threads take turns, and this one looks for databases
 */

static bool all_done(const struct follower *f)
{
	for (size_t i = 0; i < f->n; i++)
		if (!f->entries[i]->done)
			return false;
	return true;
}

static void tell_ready(struct follower *f)
{
	for (size_t i = 0; i < f->n; i++)
		if (!f->entries[i]->settled)
			return;
	if (!f->told_ready && f->o.ready)
		f->o.ready(f->n, f->o.ready_arg);
	f->told_ready = true;
}

/* False: it is over. */
static bool wait_until(struct follower *f, int64_t until_ms)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&f->mutex);

	tell_ready(f);
	while (!f->stopping && !(f->o.once && all_done(f)) &&
	       clock_monotonic_ms() < until_ms) {
		(void)cond_wait_until(&f->changed, held, until_ms);
		tell_ready(f);
	}
	return !f->stopping && !(f->o.once && all_done(f));
}

static void tell_unknown(void)
{
	log_warn("the bucket does not tell its databases for now", "error=%s",
		 log_quote(error_message()));
}

static void look_again(struct follower *f)
{
	int64_t pause = f->o.once ? COND_NEVER / 2 : f->o.catalog_ms;
	bool often = true;

	while (wait_until(f, clock_monotonic_ms() +
				     (often ? pause : pause * LISTS))) {
		int rc = find_databases(f);

		if (note_look(f, rc, rc == 0 ? 2 : 1))
			tell_unknown();
		often = rc != 0 || f->n == 0;
	}
}

/* Signals are for the thread that waits for them. */
static int start_threads(struct follower *f, pthread_t *threads, unsigned *n)
{
	sigset_t all, old;
	int err = 0;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	for (*n = 0; !err && *n < f->o.connections; *n += !err)
		err = pthread_create(&threads[*n], NULL, work, f);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	errno = err;
	return err ? error_errno("starting a thread") : 0;
}

/* With once: what is to be told of all databases together. */
static int result(struct follower *f)
{
	const struct entry *first = NULL;
	size_t failed = 0;

	for (size_t i = 0; i < f->n; i++) {
		if (f->entries[i]->rc >= 0)
			continue;
		if (!first)
			first = f->entries[i];
		failed++;
	}
	if (!first)
		return 0;
	return error_set(first->rc, "%zu of %zu databases: %s: %s", failed,
			 f->n, first->path, first->message);
}

/* Only with once it is a failure if that cannot be told. */
static int find_at_first(struct follower *f)
{
	int rc = find_all_databases(f);

	if (rc < 0 && f->o.once)
		return rc;
	if (note_look(f, rc, 2))
		tell_unknown();
	if (f->o.once && f->n == 0)
		return error_set(-ENOENT, "there is no database to follow");
	return 0;
}

int follower_run(struct follower *f)
{
	AUTO(mem) pthread_t *threads =
		calloc(f->o.connections, sizeof(*threads));
	unsigned n = 0;
	int rc = threads ? 0 : error_set(-ENOMEM, "out of memory for threads");

	if (rc == 0 && !f->o.once)
		rc = layout_each(f->o.directory, found_here, f);
	if (rc == 0 && f->n > 0)
		rc = start_threads(f, threads, &n);
	if (rc == 0)
		rc = find_at_first(f);
	if (rc == 0 && n == 0)
		rc = start_threads(f, threads, &n);
	if (rc == 0)
		look_again(f);
	follower_stop(f);
	for (unsigned i = 0; i < n; i++)
		(void)pthread_join(threads[i], NULL);
	if (rc == 0 && f->o.once)
		rc = result(f);
	return rc;
}
