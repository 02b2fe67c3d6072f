#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <sqlite3.h>

#include "base/boot.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/log.h"
#include "bucket/patience.h"
#include "capture/capture.h"
#include "cli/decide.h"
#include "cli/gate.h"
#include "cli/node.h"
#include "cli/node_lease.h"
#include "cli/node_start.h"
#include "cli/standby.h"
#include "fuse/mount.h"
#include "ltx/spool.h"
#include "restorer/layout.h"
#include "restorer/mark.h"
#include "restorer/unlock.h"
#include "sqlite/format.h"
#include "sqlite/replica.h"

#include "cli/node_standby.h"

/* Between two looks whether every database is served. */
enum {
	SHORT_STEP_MS = 5,
	STEP_MS = 500,
	SETTLE_MS = 15000,
};

const char *node_role_name(enum node_role role)
{
	static const char *const names[] = { "primary", "standby", "changing" };

	return names[role];
}

/* A gate_each() callback; arg is the node. */
static int is_pending(const char *path, void *arg)
{
	struct node *n = arg;
	char why[GATE_WHY_SIZE];

	return gate_look(&n->gate, path, why) == GATE_PENDING;
}

/* ---------------------------------------------------------- the directory */

/* The directory by its descriptor, since its name may lie beneath the mount. */
struct place {
	char path[32];
};

static struct place place_of(const struct node *n)
{
	struct place p;

	(void)snprintf(p.path, sizeof(p.path), "/proc/self/fd/%d",
		       n->config.dirfd);
	return p;
}

bool node_standby_has_own(struct node *n)
{
	int fd = openat(n->config.dirfd, ".litebucket/db",
			O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	bool empty = true;

	while (dir && empty && (entry = readdir(dir)))
		empty = entry->d_name[0] == '.';
	if (dir)
		(void)closedir(dir);
	return !empty;
}

/* A layout_fn. */
static int there_is_one(const char *db, const char *state, void *arg)
{
	(void)db;
	(void)state;
	*(bool *)arg = true;
	return 1;
}

bool node_standby_was(struct node *n)
{
	struct place p = place_of(n);
	bool is = false;

	return layout_each(p.path, there_is_one, &is) >= 0 && is;
}

int node_standby_unlock(struct node *n)
{
	struct place p = place_of(n);
	int rc = unlock_all(p.path);

	return rc < 0 ? error_wrap(rc, "making ordinary databases of the "
				       "replicas in '%s'",
				   n->config.directory) :
			0;
}

/* -------------------------------------------------- databases to replicas */

static int open_database(const struct node *n, const char *path, int flags)
{
	int fd = openat(n->config.dirfd, path,
			flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	return fd < 0 ? error_errno("opening '%s'", path) : fd;
}

bool node_standby_is_database(struct node *n, const char *path)
{
	AUTO(fd) int fd = -1;

	if (capture_is_side(n->capture, path))
		return true;
	fd = open_database(n, path, O_RDONLY);
	return fd >= 0 && capture_is_magic_in(fd);
}

bool node_standby_is_replica(struct node *n, const char *path)
{
	AUTO(fd) int fd = open_database(n, path, O_RDONLY);
	uint8_t format[2];

	return fd >= 0 && replica_format(fd, format) == 0 &&
	       replica_is_protected(format);
}

/* 1: all that it holds is in the bucket, which ret is of; 0: there is none. */
static int has_nothing_own(struct node *n, const char *path,
			   struct mark_state *ret)
{
	struct capture_found known = { 0 };
	struct capture_state local;
	uint64_t first = 0, last;
	int rc = capture_find_again(n->capture, path, &known);

	if (rc == 0)
		rc = capture_look(n->capture, path, &local);
	if (rc == -ENOENT || rc == -ERR_NO_DATABASE)
		return 0;
	if (rc == 0)
		rc = spool_range(known.spool, &first, &last);
	if (rc < 0)
		return rc;
	if (first || local.dbsum != known.dbsum)
		return error_set(-EAGAIN, "'%s' has commits that the bucket has "
					  "not, and another node writes there; "
					  "it is opened once it is known what "
					  "becomes of them", path);
	*ret = (struct mark_state){
		.txid = known.txid,
		.dbsum = known.dbsum,
		.dropped = known.dropped,
	};
	return 1;
}

/* It is as it was when another node dropped it; the log has that state. */
static int remove_dropped(struct node *n, const char *path)
{
	char name[4200];

	for (int i = 0; i <= FORMAT_SIDES; i++) {
		(void)snprintf(name, sizeof(name), "%s%s", path,
			       i < FORMAT_SIDES ? format_sides[i] : "");
		if (unlinkat(n->config.dirfd, name, 0) < 0 && errno != ENOENT)
			return error_errno("removing '%s'", name);
	}
	return io_sync_parent(n->config.dirfd, path);
}

/* All into the main file: nobody else has it open. */
static int empty_log(const char *file)
{
	sqlite3 *db = NULL;
	int rc = sqlite3_open_v2(file, &db, SQLITE_OPEN_READWRITE, NULL);

	if (rc == SQLITE_OK)
		rc = sqlite3_exec(db, "PRAGMA wal_checkpoint(truncate)", NULL,
				  NULL, NULL);
	if (rc != SQLITE_OK)
		rc = error_set(-EIO, "checkpointing '%s': %s", file,
			       sqlite3_errmsg(db));
	(void)sqlite3_close(db);
	return rc;
}

/* The position comes first: a replica without one is nobody's. */
static int store_position(const char *state, const char *path,
			  const struct mark_state *done)
{
	AUTO(mem) char *name = NULL, *position = NULL;
	struct mark mark = { .done = *done, .begun = *done };
	AUTO(fd) int fd = -1;
	int rc = io_make_dirs(AT_FDCWD, state, 0755);

	if (asprintf(&name, "%s/name", state) < 0)
		name = NULL;
	if (asprintf(&position, "%s/position", state) < 0)
		position = NULL;
	if (!name || !position)
		return error_set(-ENOMEM, "out of memory for a path");
	if (rc == 0)
		rc = io_write_atomically(AT_FDCWD, name, path, strlen(path));
	if (rc < 0)
		return rc;
	fd = open(position, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0)
		return error_errno("opening '%s'", position);
	boot_id(mark.boot);
	rc = mark_store(fd, &mark);
	if (rc == 0 && fsync(fd) < 0)
		rc = error_errno("syncing '%s'", position);
	return rc < 0 ? rc : io_sync_parent(AT_FDCWD, position);
}

static int become_replica(struct node *n, const char *path,
			  struct mark_state *done)
{
	struct place p = place_of(n);
	AUTO(mem) char *file = NULL, *state = NULL;
	AUTO(fd) int fd = -1;
	int rc = layout_state(p.path, path, &state);

	if (rc == 0 && asprintf(&file, "%s/%s", p.path, path) < 0) {
		file = NULL;
		rc = error_set(-ENOMEM, "out of memory for a path");
	}
	if (rc == 0)
		rc = empty_log(file);
	if (rc == 0)
		rc = fd = open_database(n, path, O_RDWR);
	if (rc >= 0)
		rc = replica_format(fd, done->format);
	if (rc == 0)
		rc = store_position(state, path, done);
	FAILPOINT("follow-position");
	return rc < 0 ? rc : replica_protect(fd, done->format);
}

int node_standby_keep(void *arg, const char *path)
{
	struct node *n = arg;
	struct mark_state done;
	int rc;

	if (!n->settling)
		return 1;
	rc = has_nothing_own(n, path, &done);
	if (rc <= 0)
		return rc;
	rc = done.dropped ? remove_dropped(n, path) :
			    become_replica(n, path, &done);
	if (rc < 0)
		return rc;
	log_info(done.dropped ? "removed: another node dropped it" :
				"it is a replica from here on",
		 "db=%s txid=%016" PRIx64, log_quote(path), done.txid);
	return 0;
}

/*
 * Who has the lease closes every log, so that what becomes of what is here is known
 * soon.
 */
static void wait_all_kept(struct node *n)
{
	int64_t until = clock_monotonic_ms() + SETTLE_MS;

	while (!atomic_load(&n->stopping) && atomic_load(&n->gate.held) > 0 &&
	       (clock_monotonic_ms() < until ||
		gate_each(&n->gate, is_pending, n) != 0))
		clock_sleep_ms(SHORT_STEP_MS);
}

int node_standby_settle(struct node *n)
{
	int rc = decider_start(n->decider, n->capture);

	if (rc < 0)
		return rc;
	wait_all_kept(n);
	/* It ends before anything can look like a primary's start to it. */
	decider_free(TAKE(n->decider));
	n->settling = false;
	if (atomic_load(&n->stopping))
		return error_set(-ECANCELED, "stopped while starting");
	return node_start_again(n);
}

/* ---------------------------------------------------------------- a standby */

bool node_standby_is(const struct node *n)
{
	return atomic_load(&n->role) == NODE_STANDBY;
}

bool node_standby_settles(void *arg)
{
	const struct node *n = arg;

	return n->settling;
}

bool node_standby_holds(void *arg)
{
	struct node *n = arg;

	return atomic_load(&n->role) != NODE_PRIMARY && !n->settling;
}

bool node_standby_unlocked(void *arg, const char *path)
{
	struct node *n = arg;

	return atomic_load(&n->role) == NODE_PRIMARY &&
	       gate_admit(&n->gate, path, false) == 0;
}

static void process(void *arg, int pid)
{
	struct node *n = arg;

	mount_set_follower(n->mount, pid);
}

static void ready(void *arg, size_t databases)
{
	struct node *n = arg;

	log_info("standing by: the databases can be read, and another node "
		 "writes them", "databases=%zu", databases);
	if (!atomic_exchange(&n->told_ready, true))
		n->config.ready(databases, n->config.arg);
}

/* ---------------------------------------------------------------- promotion */

/* The kernel may know from before that there is none, or what was there. */
static int forget_one(const char *path, void *arg)
{
	struct node *n = arg;

	mount_forget(n->mount, path);
	return 0;
}

static void wait_all_decided(struct node *n)
{
	while (!atomic_load(&n->stopping) &&
	       gate_each(&n->gate, is_pending, n) != 0)
		clock_sleep_ms(SHORT_STEP_MS);
}

/* One that is closed stays guarded: somebody may have it open still. */
static void wait_all_served(struct node *n)
{
	while (!atomic_load(&n->stopping) && atomic_load(&n->gate.held) > 0)
		clock_sleep_ms(STEP_MS);
	if (atomic_load(&n->gate.held) == 0)
		mount_guard(n->mount, false);
}

static int begin_again(struct node *n)
{
	int rc = node_start_restore(n);

	if (rc == 0)
		rc = capture_take_up(n->capture);
	if (rc < 0)
		return rc;
	/* Every database is held by the gate now. */
	(void)gate_each(&n->gate, forget_one, n);
	decider_insist(n->decider);
	atomic_store(&n->role, NODE_PRIMARY);
	mount_ask_again(n->mount);
	return node_start_databases(n);
}

/* A standby_config callback. */
static void take_over(void *arg)
{
	struct node *n = arg;
	int64_t begun = clock_monotonic_ms();
	int rc;

	FAILPOINT("follow-handed-over");
	bucket_cancel_by(&n->stopping);
	SLOWPOINT("handed-over");
	rc = begin_again(n);
	/* It was asked to end, so that it does not come to be the primary. */
	if (rc < 0 && atomic_load(&n->stopping))
		return;
	if (rc < 0) {
		log_error("the databases cannot be taken over; this mount ends",
			  "error=%s", log_quote(error_message()));
		atomic_store(&n->failed, true);
		mount_stop(n->mount);
		return;
	}
	if (!atomic_exchange(&n->told_ready, true))
		n->config.ready(n->n_found, n->config.arg);
	wait_all_decided(n);
	log_info("promoted: this node writes now", "databases=%zu milliseconds=%lld",
		 n->n_found, (long long)(clock_monotonic_ms() - begun));
	wait_all_served(n);
}

int node_standby_start(struct node *n)
{
	const struct standby_config config = {
		.mountpoint = n->config.mountpoint,
		.bucket = n->config.bucket,
		.log_level = n->config.log_level,
		.process = process,
		.ready = ready,
		.take_over = take_over,
		.arg = n,
	};
	struct standby *s;
	int rc = standby_new(&config, &s);

	if (rc < 0)
		return rc;
	AUTO(unlock) pthread_mutex_t *held = lock(&n->lock);
	n->standby = s;
	if (atomic_load(&n->role) == NODE_CHANGING)
		standby_promote(s);
	if (atomic_load(&n->stopping))
		standby_stop(s);
	return 0;
}

void node_standby_promote(struct node *n)
{
	enum node_role standby = NODE_STANDBY;
	AUTO(unlock) pthread_mutex_t *held = lock(&n->lock);

	if (atomic_load(&n->stopping) ||
	    !atomic_compare_exchange_strong(&n->role, &standby, NODE_CHANGING))
		return;
	log_info("taking over: the lease is ours", NULL);
	standby_promote(n->standby);
}
