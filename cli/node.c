#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fail.h"
#include "base/log.h"
#include "bucket/bucket.h"
#include "bucket/patience.h"
#include "bucket/url.h"
#include "capture/capture.h"
#include "cli/bucket_id.h"
#include "cli/helper.h"
#include "cli/missing.h"
#include "cli/node_confirm.h"
#include "cli/node_lease.h"
#include "cli/node_standby.h"
#include "cli/node_start.h"
#include "cli/outside.h"
#include "cli/player.h"
#include "cli/signals.h"
#include "cli/standby.h"
#include "cli/tenure.h"
#include "fuse/mount.h"
#include "fuse/outside.h"
#include "uploader/uploader.h"

#include "cli/node.h"

int64_t node_now_ms(struct node *n)
{
	return clock_wall_ms() + atomic_load(&n->clock_offset_ms);
}

/*
 * The arrows
 * ----------
 * Callbacks of capture and uploader; arg is the node.
 */

static int64_t now_ms(void *arg)
{
	return node_now_ms(arg);
}

static void committed(void *arg, const char *path)
{
	struct node *n = arg;

	uploader_notify(n->uploader, path);
}

static void interrupted(void *arg, const char *path)
{
	struct node *n = arg;

	player_add(n->player, path);
}

static int writer(void *arg, const char *path)
{
	struct node *n = arg;

	return helper_ask_writer(n->helper, path);
}

static int seal(void *arg, const char *path)
{
	struct node *n = arg;

	return capture_seal(n->capture, path, NULL);
}

static void confirmed(void *arg, const char *path, uint64_t txid)
{
	(void)arg;
	log_debug("batch confirmed", "db=%s txid=%016" PRIx64, log_quote(path),
		  txid);
}

static void clock_offset(void *arg, int64_t offset_ms)
{
	struct node *n = arg;

	atomic_store(&n->clock_offset_ms, offset_ms);
	log_info("using the bucket's clock", "offset_ms=%" PRId64, offset_ms);
}

static int identified(void *arg, const char *id)
{
	const struct node *n = arg;

	return bucket_id_write(n->config.dirfd, id);
}

/*
 * Databases
 * ---------
 */

struct node_db *node_find(struct node *n, const char *path)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&n->lock);

	for (size_t i = 0; i < n->n_dbs; i++)
		if (strcmp(n->dbs[i]->path, path) == 0)
			return n->dbs[i];
	return NULL;
}

/* One database that is not uploaded does not keep the others; it is told. */
static void hand_over(struct node *n, struct node_db *db)
{
	if (uploader_add(n->uploader, db->path, db->spool, db->confirmed) < 0) {
		log_error("database is not uploaded", "db=%s error=%s",
			  log_quote(db->path), log_quote(error_message()));
		atomic_store(&db->refused, strdup(error_message()));
		return;
	}
	/* What was committed before the uploader knew of it. */
	uploader_notify(n->uploader, db->path);
	log_debug("database found", "db=%s confirmed=%016" PRIx64,
		  log_quote(db->path), db->confirmed);
}

/* Returns whether the uploader is to be told now. */
static int remember(struct node *n, struct node_db *db, bool *ret_joined)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&n->lock);
	struct node_db **dbs = reallocarray(n->dbs, n->n_dbs + 1, sizeof(*dbs));

	if (!dbs)
		return -ENOMEM;
	n->dbs = dbs;
	n->dbs[n->n_dbs++] = db;
	*ret_joined = n->joined;
	return 0;
}

static void appeared(void *arg, const char *path, struct spool *spool,
		     uint64_t last_confirmed)
{
	struct node *n = arg;
	struct node_db *db = calloc(1, sizeof(*db));
	bool joined;

	if (db)
		*db = (struct node_db){
			.path = strdup(path),
			.spool = spool,
			.confirmed = last_confirmed,
			.closing = PTHREAD_MUTEX_INITIALIZER,
		};
	if (!db || !db->path || remember(n, db, &joined) < 0) {
		log_error("database is not uploaded", "db=%s error=%s",
			  log_quote(path), "\"out of memory\"");
		if (db)
			free(db->path);
		free(db);
		return;
	}
	if (joined)
		hand_over(n, db);
}

struct node_db *node_nth(struct node *n, size_t i)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&n->lock);

	return i < n->n_dbs ? n->dbs[i] : NULL;
}

/*
 * Give what appeared during capture_open() to the uploader; only now can that
 * call back, because only now is there a capture.
 */
static void join_databases(struct node *n)
{
	size_t found;

	{
		AUTO(unlock) pthread_mutex_t *held = lock(&n->lock);

		n->joined = true;
		found = n->n_dbs;
	}
	for (size_t i = 0; i < found; i++)
		hand_over(n, node_nth(n, i));
}

static void forget_databases(struct node *n)
{
	for (size_t i = 0; i < n->n_dbs; i++) {
		free(n->dbs[i]->path);
		free(n->dbs[i]->refused);
		free(n->dbs[i]);
	}
	free(n->dbs);
	n->dbs = NULL;
	n->n_dbs = 0;
}

/*
 * The way up
 * ----------
 */

/* Callbacks of gate and mount; arg is the node. */
static void gate_changed(void *arg)
{
	struct node *n = arg;
	AUTO(unlock) pthread_mutex_t *held = lock(&n->lock);

	if (n->mount)
		mount_ask_again(n->mount);
}

static int admit(void *arg, const char *path, bool below)
{
	struct node *n = arg;

	/* The follower is making databases of the replicas. */
	if (atomic_load(&n->role) == NODE_CHANGING &&
	    (below || node_standby_is_database(n, path)))
		return -EAGAIN;
	return gate_admit(&n->gate, path, below);
}

static bool in_use_outside(void *arg, const char *path, bool unknown)
{
	struct node *n = arg;

	return outside_in_use(n->outside, path, unknown);
}

/* The mount stays until the thread that calls this has ended. */
static void changed_outside(void *arg, const char *path)
{
	struct node *n = arg;
	struct mount *m;

	(void)pthread_mutex_lock(&n->lock);
	m = n->mount;
	(void)pthread_mutex_unlock(&n->lock);
	/* Telling the kernel may take as long as a commit waits in the directory. */
	capture_distrust(n->capture, path);
	if (m)
		mount_forget(m, path);
}

static const char *nth_database(void *arg, size_t i)
{
	struct node_db *db = node_nth(arg, i);

	return db ? db->path : NULL;
}

void node_init(struct node *n, const struct node_config *config)
{
	*n = (struct node){
		.config = *config,
		.lock = PTHREAD_MUTEX_INITIALIZER,
	};
	gate_init(&n->gate, gate_changed, n);
}

/*
 * The state directory by its descriptor, since its name lies beneath the mount.
 * Files there are unlinked as soon as they are made.
 */
static void name_temp_dir(struct node *n)
{
	(void)snprintf(n->temp_dir, sizeof(n->temp_dir),
		       "/proc/self/fd/%d/.litebucket", n->config.dirfd);
}

static int open_uploader(struct node *n)
{
	char id[CATALOG_ID_SIZE];
	const struct uploader_config config = {
		.bucket = n->bucket,
		.connections = n->config.connections,
		.interval_ms = n->config.interval_ms,
		.seal = seal,
		.confirmed = confirmed,
		.clock_offset = clock_offset,
		.bucket_id = id,
		.identified = identified,
		.may_send = node_lease_may_send,
		.arg = n,
		.temp_dir = n->temp_dir,
	};
	int rc;

	name_temp_dir(n);
	rc = bucket_id_read(n->config.dirfd, id);
	n->is_new = rc == 0 && !id[0];
	if (rc == 0)
		rc = uploader_new(&config, &n->uploader);
	if (rc == 0)
		rc = uploader_check(n->uploader);
	n->silent = rc > 0;
	return rc < 0 ? rc : 0;
}

static bool found(void *arg, const struct capture_found *database)
{
	struct node *n = arg;

	/* Nothing is to be decided about a replica. */
	if (n->settling && node_standby_is_replica(n, database->path))
		return true;
	return decider_hold(n->decider, database);
}

/* The decider ends before the mount is freed. */
static struct mount *mount_of(struct node *n)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&n->lock);

	return n->mount;
}

static void replaced(void *arg, const char *path)
{
	struct mount *m = mount_of(arg);

	if (m)
		mount_replaced(m, path);
}

static void forget(void *arg, const char *path)
{
	struct mount *m = mount_of(arg);

	if (m)
		mount_forget(m, path);
}

/*
 * A decider_config callback.  Also through the mount a database can be open, that a
 * standby served before: its connections would go on in the old file, with the new
 * one's log.
 */
static bool in_use(void *arg, const char *path)
{
	const struct node *n = arg;

	return outside_ask(n->config.dirfd, path) == LEASE_TAKEN;
}

static int open_decider(struct node *n)
{
	const struct decider_config config = {
		.bucket = n->bucket,
		.gate = &n->gate,
		.dirfd = n->config.dirfd,
		.adopt = n->config.adopt,
		.replaced = replaced,
		.forget = forget,
		.keep = node_standby_keep,
		.in_use = in_use,
		.close_log = node_lease_close_log,
		.arg = n,
	};

	return decider_new(&config, &n->decider);
}

int node_start_restore(struct node *n)
{
	const struct missing_config config = {
		.bucket = n->bucket,
		.gate = &n->gate,
		.dirfd = n->config.dirfd,
		.is_new = n->is_new,
		.cancel = &n->cancel,
	};
	int rc = missing_restore(&config);

	n->incomplete = rc > 0;
	return rc < 0 ? rc : 0;
}

static int prepare(void *arg)
{
	struct node *n = arg;
	int rc = n->tenure ? 0 : node_lease_seek(n);

	/* Also one that has become ours meanwhile: that is for when it is mounted. */
	if (rc < 0 || atomic_load(&n->role) != NODE_PRIMARY)
		return rc;
	/* One that stays a replica is found to be none of the log's states. */
	rc = node_standby_unlock(n);
	if (rc == -EBUSY)
		return rc;
	/* It has taken its time already. */
	if (n->silent) {
		log_warn("which databases the bucket has is not known; what is "
			 "not in the directory is not restored", NULL);
		n->incomplete = true;
		return 0;
	}
	return node_start_restore(n);
}

static int open_capture(struct node *n)
{
	const struct capture_config config = {
		.dirfd = n->config.dirfd,
		.prepare = prepare,
		.epoch = node_lease_epoch,
		.standby = node_standby_holds,
		.leave_missing = node_standby_settles,
		.found = found,
		.appeared = appeared,
		.durable = node_durable,
		.committed = committed,
		.now_ms = now_ms,
		.spool_max = n->config.spool_max,
		.writer = writer,
		.interrupted = interrupted,
		.player = PLAYER_VERB,
		.arg = n,
	};

	return capture_open(&config, &n->capture);
}

static int open_helper(struct node *n)
{
	const struct helper_config config = {
		.mountpoint = n->config.mountpoint,
		.as_owner = n->config.allow_other,
		.pending_byte = n->config.pending_byte,
	};

	int rc = helper_new(&config, &n->helper);

	return rc < 0 ? rc : player_new(n->helper, &n->player);
}

static int open_outside(struct node *n)
{
	const struct outside_config config = {
		.dirfd = n->config.dirfd,
		.gate = &n->gate,
		.changed = changed_outside,
		.database = nth_database,
		.arg = n,
	};

	return outside_new(&config, &n->outside);
}

static int open_parts(struct node *n)
{
	int rc = bucket_open(n->config.bucket, true, &n->bucket);

	if (rc == 0)
		rc = open_uploader(n);
	if (rc == 0 && !atomic_load(&n->stopping))
		rc = open_helper(n);
	if (rc == 0)
		rc = open_decider(n);
	if (rc == 0 && !atomic_load(&n->stopping))
		rc = open_capture(n);
	if (rc == 0 && !atomic_load(&n->stopping))
		rc = open_outside(n);
	return rc;
}

int node_open(struct node *n)
{
	int rc;

	bucket_cancel_by(&n->stopping);
	rc = open_parts(n);
	bucket_cancel_by(NULL);
	if (rc < 0)
		return rc;
	if (atomic_load(&n->stopping))
		return error_set(-ECANCELED, "stopped while starting");
	if (n->settling)
		return node_standby_settle(n);
	/* It may have become ours meanwhile, but that is for when it is mounted. */
	if (atomic_load(&n->role) != NODE_PRIMARY)
		return 0;
	return node_start_databases(n);
}

int node_start_again(struct node *n)
{
	int rc;

	decider_free(TAKE(n->decider));
	capture_close(TAKE(n->capture));
	rc = open_decider(n);
	return rc < 0 ? rc : open_capture(n);
}

int node_start_databases(struct node *n)
{
	node_lease_serve(n);
	join_databases(n);
	n->n_found = n->n_dbs + atomic_load(&n->gate.held);
	return decider_start(n->decider, n->capture);
}

/* -ECANCELED: node_stop() was there first. */
static int publish_mount(struct node *n, struct mount *m, size_t *ret_databases)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&n->lock);

	n->mount = m;
	*ret_databases = n->n_found;
	if (atomic_load(&n->stopping))
		return error_set(-ECANCELED, "stopped while starting");
	n->mounted = true;
	return 0;
}

int node_serve(struct node *n)
{
	const struct mount_config config = {
		.capture = n->capture,
		.dirfd = n->config.dirfd,
		.mountpoint = n->config.mountpoint,
		.source = n->config.directory,
		.allow_other = n->config.allow_other,
		.helper_nonce = helper_nonce(n->helper),
		/* The rest of the time is for the bucket. */
		.stop_timeout_ms = n->config.stop_timeout_ms / 3 * 2,
		.unmount_in_use = n->config.unmount_in_use,
		.admit = admit,
		.in_use = in_use_outside,
		.confirm = n->config.durability ? node_confirm : NULL,
		.unlocked = node_standby_unlocked,
		.guarded = atomic_load(&n->role) != NODE_PRIMARY,
		.control = node_control,
		.arg = n,
	};
	struct mount *m;
	size_t databases;
	int rc = mount_new(&config, &m);

	if (rc < 0)
		return rc;
	SLOWPOINT("mounted");
	rc = publish_mount(n, m, &databases);
	if (rc < 0)
		return rc;
	player_start(n->player);
	if (atomic_load(&n->role) != NODE_PRIMARY)
		rc = node_standby_start(n);
	else
		n->config.ready(databases, n->config.arg);
	if (rc == 0)
		rc = mount_serve(m);
	if (rc == 0 && atomic_load(&n->failed))
		return error_set(-EIO, "the databases could not be taken over");
	return rc;
}

void node_stop(struct node *n)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&n->lock);

	if (!atomic_exchange(&n->stopping, true))
		atomic_store(&n->stop_at_ms,
			     clock_monotonic_ms() + n->config.stop_timeout_ms);
	n->cancel = 1;
	standby_stop(n->standby);
	if (n->mount)
		mount_stop(n->mount);
}

bool node_hurry(struct node *n)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&n->lock);

	atomic_store(&n->stop_at_ms, clock_monotonic_ms());
	if (n->mount)
		mount_stop(n->mount);
	return n->mount != NULL;
}

/*
 * The way down
 * ------------
 */

static void unmount(struct node *n)
{
	struct mount *m;

	{
		AUTO(unlock) pthread_mutex_t *held = lock(&n->lock);

		m = TAKE(n->mount);
	}
	mount_free(m);
}

/* What becomes of a batch that stays in the spool. */
static const char *fate_of(enum uploader_state state)
{
	switch (state) {
	case UPLOADER_CONFLICT:
		return "not in the bucket; the next start compares it with "
		       "what the bucket has";
	case UPLOADER_STOPPED:
		return "not in the bucket, and not sent before somebody mends "
		       "what stopped it";
	default:
		return "not in the bucket; the next mount will send it";
	}
}

static void report_spools(struct node *n)
{
	struct node_db *db;

	for (size_t i = 0; (db = node_nth(n, i)); i++) {
		const char *path = db->path;
		struct uploader_status status;

		if (uploader_status(n->uploader, path, &status) < 0 ||
		    status.spool_batches == 0)
			continue;
		log_error(fate_of(status.state),
			  "db=%s confirmed=%016" PRIx64 " batches=%" PRIu64
			  " bytes=%" PRIu64 " error=%s",
			  log_quote(path), status.confirmed,
			  status.spool_batches, status.spool_bytes,
			  log_quote(status.error));
	}
}

static int seal_and_send(struct node *n)
{
	int64_t left;
	int rc;

	/* Nobody writes any more, so nothing needs its quiet time. */
	capture_settle_all(n->capture, atomic_load(&n->stop_at_ms));
	node_lease_seal(n);
	left = atomic_load(&n->stop_at_ms) - clock_monotonic_ms();
	rc = uploader_drain(n->uploader, left > 0 ? left : 0);
	if (rc < 0)
		report_spools(n);
	return rc;
}

/* Before the mount goes, which it works in. */
static void end_standby(struct node *n)
{
	struct standby *s;

	{
		AUTO(unlock) pthread_mutex_t *held = lock(&n->lock);

		s = TAKE(n->standby);
	}
	standby_free(s);
}

/* For files to be synced on a busy disk: at the end, and more per database. */
enum {
	CLOSE_MS = 10000,
	CLOSE_ONE_MS = 50,
};

int node_close(struct node *n)
{
	int rc = 0;

	node_stop(n);
	end_standby(n);
	decider_free(TAKE(n->decider));
	outside_free(TAKE(n->outside));
	helper_stop(n->helper);
	unmount(n);
	if (n->mounted)
		rc = seal_and_send(n);
	/* The bucket's time is over; what is left is this machine's work. */
	signals_deadline(CLOSE_MS + (int64_t)n->n_dbs * CLOSE_ONE_MS);
	tenure_stop(n->tenure);
	if (n->mounted && rc == 0)
		tenure_close(n->tenure);
	uploader_free(TAKE(n->uploader));
	tenure_release(n->tenure, rc == 0 && node_lease_is_clean(n));
	tenure_free(TAKE(n->tenure));
	capture_close(TAKE(n->capture));
	player_free(TAKE(n->player));
	helper_free(TAKE(n->helper));
	bucket_free(TAKE(n->bucket));
	forget_databases(n);
	gate_cleanup(&n->gate);
	return rc;
}
