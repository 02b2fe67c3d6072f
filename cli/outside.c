#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/cond.h"
#include "base/error.h"
#include "base/log.h"
#include "cli/gate.h"
#include "fuse/outside.h"
#include "fuse/users.h"

#include "cli/outside.h"

enum {
	/* How often those who are waited for are looked at. */
	STEP_MS = 200,
	/* Asking for a lease is cheap; reading all of /proc is not. */
	NAMES_MS = 5000,
	NAMES_ALONE_MS = 1000, /* where only that tells */
	/* A program that only just closed its files is given this time. */
	PATIENCE_MS = 1000,
	/* Until the first search for who is there, and between two of them. */
	FIRST_ROUND_MS = 2000,
	ROUND_MS = 60000,
};

static const char hidden_name[] = ".litebucket";

/*
 * A database that was found in use, or where that could not be told.  It stays
 * in the list when it is free again, so that the latter is asked once only.
 */
struct suspect {
	struct suspect *next;
	char *path;
	bool held;	 /* by the gate, for GATE_IN_USE; guarded by lock */
	bool unknown;	 /* leases do not tell; guarded by lock */
	int64_t since_ms, named_ms; /* the thread's; 0: not yet */
};

struct outside {
	struct outside_config config;
	pthread_t thread;
	pthread_mutex_t lock; /* outside the gate's */
	pthread_cond_t changed;

	/* Guarded by lock. */
	struct suspect *suspects;
	bool stopping, woken;

	/* The thread's. */
	char reported[USERS_TEXT_SIZE]; /* by the last round */
};

/*
 * Before the mount
 * ----------------
 */

int outside_check(int dirfd, bool force)
{
	AUTO(users_files) struct users_files files = {0};
	AUTO(mem) struct users *users = calloc(1, sizeof(*users));
	char who[USERS_TEXT_SIZE];
	int rc = users_files_add_tree(&files, dirfd, hidden_name);

	if (rc == 0 && !users)
		rc = error_set(-ENOMEM, "no memory for a list of processes");
	if (rc == 0)
		rc = users_find(&files, users);
	if (rc < 0)
		return error_wrap(rc, "looking for processes that use it");
	log_debug("looked for processes that use the directory",
		  "found=%zu unseen=%zu", users->n, users->unseen);
	if (users->n == 0)
		return 0;
	users_describe(users, who);
	if (!force)
		return error_set(-EBUSY,
				 "it is in use, and who uses it would go past "
				 "the mount; end these (a shell: 'cd /', and "
				 "back once it is mounted), or say --force: %s",
				 who);
	log_warn("processes go past the mount; the databases that they have "
		 "open cannot be opened through it, and nothing of what they "
		 "write is replicated before they end",
		 "processes=%s", log_quote(who));
	return 0;
}

/*
 * Databases that are held
 * -----------------------
 */

static int add_files(struct users_files *files, int dirfd, const char *path)
{
	static const char *const sides[] = {"", "-wal", "-shm", "-journal"};
	char name[4200];
	int rc = 0;

	for (int i = 0; rc == 0 && i < 4; i++) {
		(void)snprintf(name, sizeof(name), "%s%s", path, sides[i]);
		rc = users_files_add(files, dirfd, name);
	}
	return rc;
}

/* path, or every database if that is NULL. */
static int find_once(struct outside *o, const char *path, struct users *ret)
{
	AUTO(users_files) struct users_files files = {0};
	const char *each = path;
	int rc = 0;

	for (size_t i = 0; rc == 0; i++) {
		if (!path)
			each = o->config.database(o->config.arg, i);
		else if (i)
			break;
		if (!each)
			break;
		rc = add_files(&files, o->config.dirfd, each);
	}
	return rc < 0 ? rc : users_find(&files, ret);
}

/*
 * A journal that is deleted meanwhile gives its inode number to some other
 * file; what is true is found twice.
 */
static int find_users(struct outside *o, const char *path, struct users *ret)
{
	int rc = find_once(o, path, ret);

	return rc < 0 || ret->n == 0 ? rc : find_once(o, path, ret);
}

/* The loop may find it in use again the moment after; not in between. */
static void let_go(struct outside *o, struct suspect *s)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&o->lock);

	s->held = false;
	s->since_ms = s->named_ms = 0;
	gate_lift(o->config.gate, s->path, GATE_IN_USE);
}

static void hold(struct outside *o, struct suspect *s, const char *who)
{
	char why[GATE_WHY_SIZE];

	(void)snprintf(why, sizeof(why),
		       "it is in use past the mount, and two programs that do "
		       "not see each other's locks would destroy it; it can "
		       "be opened when these have closed it: %s",
		       who);
	(void)gate_close(o->config.gate, s->path, GATE_IN_USE, -EBUSY, why);
}

/* The lease says yes; or leases do not tell. */
static void look_closer(struct outside *o, struct suspect *s,
			enum lease_answer answer)
{
	int64_t pause = answer == LEASE_TAKEN ? NAMES_MS : NAMES_ALONE_MS;
	int64_t now = clock_monotonic_ms();
	AUTO(mem) struct users *users = calloc(1, sizeof(*users));
	char who[USERS_TEXT_SIZE];

	if (s->named_ms && now - s->named_ms < pause)
		return;
	if (!users || find_users(o, s->path, users) < 0)
		return;
	if (users->n == 0 && answer == LEASE_UNKNOWN) {
		/* It was asked because it could not be told, or was held. */
		if (s->named_ms)
			o->config.changed(o->config.arg, s->path);
		let_go(o, s);
		return;
	}
	if (users->n == 0 && now - s->since_ms < PATIENCE_MS)
		return;
	if (users->n == 0)
		(void)snprintf(who, sizeof(who),
			       "a process that cannot be seen from here "
			       "(another container's, or another user's)");
	else
		users_describe(users, who);
	s->named_ms = now;
	hold(o, s, who);
}

static void look_at(struct outside *o, struct suspect *s)
{
	enum lease_answer answer = outside_ask(o->config.dirfd, s->path);

	if (!s->since_ms)
		s->since_ms = clock_monotonic_ms();
	if (answer == LEASE_FREE) {
		o->config.changed(o->config.arg, s->path);
		let_go(o, s);
		return;
	}
	look_closer(o, s, answer);
}

static struct suspect *find(struct suspect *s, const char *path)
{
	while (s && strcmp(s->path, path) != 0)
		s = s->next;
	return s;
}

/* With the lock held.  NULL: no memory. */
static struct suspect *find_or_add(struct outside *o, const char *path)
{
	struct suspect *s = find(o->suspects, path);

	if (s)
		return s;
	s = calloc(1, sizeof(*s));
	if (s)
		s->path = strdup(path);
	if (!s || !s->path) {
		free(s);
		return NULL;
	}
	s->next = o->suspects;
	o->suspects = s;
	return s;
}

bool outside_in_use(struct outside *o, const char *path, bool unknown)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&o->lock);
	struct suspect *s = find_or_add(o, path);

	/* Where leases do not tell, one look at the first opening must do. */
	if (!s || (unknown && s->unknown && !s->held))
		return false;
	s->unknown = unknown;
	if (gate_pend(o->config.gate, path, GATE_IN_USE) < 0)
		return false;
	s->held = true;
	o->woken = true;
	(void)pthread_cond_signal(&o->changed);
	return true;
}

/* The next one that is held, behind s; it stays where it is. */
static struct suspect *next_held(struct outside *o, struct suspect *s)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&o->lock);

	s = s ? s->next : o->suspects;
	while (s && !s->held)
		s = s->next;
	return s;
}

/* Returns whether there are any. */
static bool look_at_held(struct outside *o)
{
	struct suspect *s = NULL;

	while ((s = next_held(o, s)))
		look_at(o, s);
	return next_held(o, NULL) != NULL;
}

/*
 * Who came later
 * --------------
 */

static void report(struct outside *o, const struct users *users)
{
	char who[USERS_TEXT_SIZE] = "";

	if (users->n)
		users_describe(users, who);
	if (users->n && strcmp(who, o->reported) != 0)
		log_error("databases are in use past the mount; what these "
			  "write is not replicated, and can destroy what is "
			  "written through the mount",
			  "processes=%s", log_quote(who));
	memcpy(o->reported, who, sizeof(who));
}

static void go_round(struct outside *o)
{
	AUTO(mem) struct users *users = calloc(1, sizeof(*users));

	if (users && find_users(o, NULL, users) == 0)
		report(o, users);
}

/* False: it is over. */
static bool pause_until(struct outside *o, int64_t until_ms)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&o->lock);

	while (!o->stopping && !o->woken && clock_monotonic_ms() < until_ms)
		(void)cond_wait_until(&o->changed, &o->lock, until_ms);
	o->woken = false;
	return !o->stopping;
}

static void *watch(void *arg)
{
	struct outside *o = arg;
	int64_t round_ms = clock_monotonic_ms() + FIRST_ROUND_MS, until_ms;

	do {
		bool held = look_at_held(o);

		if (clock_monotonic_ms() >= round_ms) {
			go_round(o);
			round_ms = clock_monotonic_ms() + ROUND_MS;
		}
		until_ms = clock_monotonic_ms() + STEP_MS;
		if (!held || until_ms > round_ms)
			until_ms = round_ms;
	} while (pause_until(o, until_ms));
	return NULL;
}

int outside_new(const struct outside_config *config, struct outside **ret)
{
	AUTO(mem) struct outside *o = calloc(1, sizeof(*o));
	int rc;

	if (!o)
		return error_set(-ENOMEM, "no memory for a mount");
	o->config = *config;
	rc = cond_init(&o->changed);
	if (rc < 0)
		return rc;
	(void)pthread_mutex_init(&o->lock, NULL);
	rc = pthread_create(&o->thread, NULL, watch, o);
	if (rc) {
		(void)pthread_cond_destroy(&o->changed);
		return error_set(-rc, "starting a thread: %s", strerror(rc));
	}
	*ret = TAKE(o);
	return 0;
}

void outside_free(struct outside *o)
{
	if (!o)
		return;
	(void)pthread_mutex_lock(&o->lock);
	o->stopping = true;
	(void)pthread_cond_signal(&o->changed);
	(void)pthread_mutex_unlock(&o->lock);
	(void)pthread_join(o->thread, NULL);
	while (o->suspects) {
		struct suspect *s = o->suspects;

		o->suspects = s->next;
		free(s->path);
		free(s);
	}
	(void)pthread_cond_destroy(&o->changed);
	(void)pthread_mutex_destroy(&o->lock);
	free(o);
}
