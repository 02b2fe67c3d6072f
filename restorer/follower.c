#include <fcntl.h>
#include <pthread.h>
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
#include "bucket/digest.h"

#include "restorer/follower.h"

enum {
	INTERVAL_MS = 1000,
	CATALOG_MS = 10 * 1000,
	LISTS = 6, /* a list instead of a catalog comes so much less often */
	CONNECTIONS = 8,
	BLOCKED_MS = 50,	  /* until a lock or a reader is looked at again */
	PATIENCE_MS = 10 * 1000,  /* for that, with once */
	PAUSE_MAX_MS = 30 * 1000, /* between failures */
	HASH_SIZE = 32,
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
};

struct follower {
	struct follower_options o;
	int lock_fd;
	volatile sig_atomic_t cancelled; /* restores look at it */

	pthread_mutex_t mutex; /* guards what follows */
	pthread_cond_t changed;
	bool stopping;
	bool told_ready;
	struct entry **entries;
	size_t n;
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

static int lock_directory(struct follower *f)
{
	AUTO(mem) char *directory = below(f, ".litebucket/follow");
	AUTO(mem) char *path = below(f, ".litebucket/follow/lock");
	int rc;

	if (!directory || !path)
		return error_set(-ENOMEM, "out of memory for a path");
	rc = io_make_dirs(AT_FDCWD, directory, 0755);
	if (rc < 0)
		return rc;
	f->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (f->lock_fd < 0)
		return error_errno("opening %s", path);
	rc = io_lock(f->lock_fd, F_WRLCK, 0, 0);
	return rc == -EAGAIN ?
		       error_set(-EBUSY, "another follower is at work in %s",
				 f->o.directory) :
		       rc;
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
	(void)pthread_mutex_init(&raw->mutex, NULL);
	AUTO(follower) struct follower *f = TAKE(raw);
	f->lock_fd = -1;
	f->o = *o;
	if (f->o.interval_ms == 0)
		f->o.interval_ms = INTERVAL_MS;
	if (f->o.catalog_ms == 0)
		f->o.catalog_ms = CATALOG_MS;
	if (f->o.connections == 0)
		f->o.connections = CONNECTIONS;
	rc = refuse_mount(f);
	if (rc == 0)
		rc = lock_directory(f);
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
	(void)pthread_mutex_destroy(&f->mutex);
	free(f);
}

void follower_stop(struct follower *f)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&f->mutex);

	f->stopping = true;
	f->cancelled = 1;
	(void)pthread_cond_broadcast(&f->changed);
}

int follower_each(struct follower *f, follower_fn fn, void *arg)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&f->mutex);
	int rc = 0;

	for (size_t i = 0; i < f->n && rc == 0; i++) {
		const struct entry *e = f->entries[i];
		const struct follower_database d = {
			.path = e->path,
			.state = e->state,
			.error = e->rc < 0 ? e->message : NULL,
		};

		rc = fn(&d, arg);
	}
	return rc;
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
	static const char ours[] = ".litebucket";
	size_t n = strlen(ours);

	if (!db[0])
		(void)snprintf(ret, BUCKET_KEY_MAX, "%s",
			       f->o.name ? f->o.name : "database");
	else if (archive_unescape(db, ret) < 0)
		return false;
	return strncmp(ret, ours, n) != 0 || (ret[n] && ret[n] != '/');
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
	f->entries[f->n++] = e;
	(void)pthread_cond_broadcast(&f->changed);
	return 0;
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
		(void)pthread_cond_broadcast(&f->changed);
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

	if (rc == -ENOENT) {
		rc = archive_databases(f->o.bucket, found, f);
		return rc < 0 ? rc : 0;
	}
	if (rc == 0)
		rc = catalog_each(catalog, found_line, f);
	return rc < 0 ? rc : 1;
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

static int open_follow(struct follower *f, struct entry *e)
{
	char sha256[DIGEST_SHA256_SIZE];
	AUTO(mem) char *state = NULL, *path = below(f, e->path);
	AUTO(mem) char *aside = below(f, ".litebucket/aside"), *name = NULL;
	struct follow_options o = {
		.bucket = f->o.bucket,
		.db = e->db,
		.mode = f->o.mode,
		.stop_on_divergence = f->o.stop_on_divergence,
		.replica = f->o.replica,
		.cancel = &f->cancelled,
	};
	int rc = digest_sha256(e->path, strlen(e->path), sha256);

	if (rc < 0)
		return rc;
	if (asprintf(&state, "%s/.litebucket/follow/%.*s", f->o.directory,
		     HASH_SIZE, sha256) < 0)
		state = NULL;
	if (!state || !path || !aside ||
	    asprintf(&name, "%s/name", state) < 0)
		return error_set(-ENOMEM, "out of memory for a path");
	rc = io_make_dirs(AT_FDCWD, state, 0755);
	if (rc == 0 && access(name, F_OK) < 0)
		rc = io_write_atomically(AT_FDCWD, name, e->path,
					 strlen(e->path));
	if (rc == 0 && strrchr(path, '/')) {
		*strrchr(path, '/') = '\0';
		rc = io_make_dirs(AT_FDCWD, path, 0755);
		path[strlen(path)] = '/';
	}
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

	return rc < 0 ? rc : follow_step(e->follow);
}

/* The thread that has it waits for its time; NULL: there is no more to do. */
static struct entry *take(struct follower *f)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&f->mutex);

	while (!f->stopping) {
		int64_t now = clock_monotonic_ms(), until = COND_NEVER;
		struct entry *next = NULL;

		for (size_t i = 0; i < f->n; i++) {
			struct entry *e = f->entries[i];

			if (!e->busy && !e->done && e->due_ms < until) {
				next = e;
				until = e->due_ms;
			}
		}
		if (next && until <= now) {
			next->busy = true;
			return next;
		}
		(void)cond_wait_until(&f->changed, held, until);
	}
	return NULL;
}

static void tell_failure(const struct entry *e)
{
	log_error("database is not followed for now",
		  "db=%s error=%s", log_quote(e->path), log_quote(e->message));
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

/* Readers or a lock: no failure, unless it lasts. */
static void note_blocked(struct follower *f, struct entry *e, int rc)
{
	int64_t now = clock_monotonic_ms();

	if (!e->blocked_ms)
		e->blocked_ms = now;
	if (now - e->blocked_ms >= PATIENCE_MS) {
		note_failure(f, e, rc);
		return;
	}
	e->due_ms = now + BLOCKED_MS;
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

static void give_back(struct follower *f, struct entry *e, int rc)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&f->mutex);

	e->busy = false;
	if (e->follow)
		follow_state(e->follow, &e->state);
	if (rc == -EAGAIN)
		note_blocked(f, e, rc);
	else if (rc < 0)
		note_failure(f, e, rc);
	else
		note_success(f, e, rc);
	(void)pthread_cond_broadcast(&f->changed);
}

static void *work(void *arg)
{
	struct follower *f = arg;
	struct entry *e;

	while ((e = take(f)))
		give_back(f, e, step(f, e));
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
	bool failing = false;
	int64_t pause = f->o.once ? COND_NEVER / 2 : f->o.catalog_ms;
	int has_catalog = 1;

	while (wait_until(f, clock_monotonic_ms() +
				     (has_catalog ? pause : pause * LISTS))) {
		int rc = find_databases(f);

		if (rc < 0 && !failing)
			tell_unknown();
		failing = rc < 0;
		has_catalog = rc != 0;
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

int follower_run(struct follower *f)
{
	AUTO(mem) pthread_t *threads =
		calloc(f->o.connections, sizeof(*threads));
	unsigned n = 0;
	int rc = threads ? find_all_databases(f) :
			   error_set(-ENOMEM, "out of memory for threads");

	if (rc < 0 && (!threads || f->o.once))
		return rc;
	if (rc < 0)
		tell_unknown();
	if (f->o.once && f->n == 0)
		return error_set(-ENOENT, "there is no database to follow");
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
