#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fail.h"
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
#include "restorer/layout.h"
#include "restorer/unlock.h"

#include "cli/node_standby.h"

/* Between two looks whether every database is served. */
enum { SHORT_STEP_MS = 5, STEP_MS = 500 };

const char *node_role_name(enum node_role role)
{
	static const char *const names[] = { "primary", "standby", "changing" };

	return names[role];
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

bool node_standby_may(struct node *n)
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
	return dir && empty;
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

/* ---------------------------------------------------------------- a standby */

bool node_standby_is(void *arg)
{
	struct node *n = arg;

	return atomic_load(&n->role) == NODE_STANDBY;
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

static int is_pending(const char *path, void *arg)
{
	struct node *n = arg;
	char why[GATE_WHY_SIZE];

	return gate_look(&n->gate, path, why) == GATE_PENDING;
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
	if (rc == 0)
		rc = node_start_databases(n);
	return rc;
}

/* A standby_config callback. */
static void take_over(void *arg)
{
	struct node *n = arg;
	int64_t begun = clock_monotonic_ms();

	FAILPOINT("follow-handed-over");
	bucket_cancel_by(&n->stopping);
	if (begin_again(n) < 0) {
		log_error("the databases cannot be taken over; this mount ends",
			  "error=%s", log_quote(error_message()));
		mount_stop(n->mount);
		return;
	}
	(void)gate_each(&n->gate, forget_one, n);
	atomic_store(&n->role, NODE_PRIMARY);
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
	return 0;
}

void node_standby_promote(struct node *n)
{
	enum node_role standby = NODE_STANDBY;
	AUTO(unlock) pthread_mutex_t *held = lock(&n->lock);

	if (!atomic_compare_exchange_strong(&n->role, &standby, NODE_CHANGING))
		return;
	log_info("taking over: the lease is ours", NULL);
	standby_promote(n->standby);
}
