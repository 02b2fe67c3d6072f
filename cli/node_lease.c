#include <stdio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "bucket/bucket.h"
#include "capture/capture.h"
#include "cli/gate.h"
#include "cli/node.h"
#include "cli/node_standby.h"
#include "cli/tenure.h"
#include "ltx/spool.h"
#include "uploader/uploader.h"

#include "cli/node_lease.h"

/* How often who waits for a barrier looks whether the mount is being stopped. */
enum {
	WAIT_STEP_MS = 500,
	SHORT_STEP_MS = 10,
};

int node_lease_may_send(void *arg)
{
	struct node *n = arg;

	return n->tenure ? tenure_may_send(n->tenure) : 0;
}

/* A tenure_config callback. */
static int took(void *arg, uint32_t epoch)
{
	struct node *n = arg;

	{
		AUTO(unlock) pthread_mutex_t *held = lock(&n->lock);

		if (n->served)
			capture_set_epoch(n->capture, epoch);
		n->epoch = epoch;
	}
	return uploader_take(n->uploader, epoch);
}

/* Of what is sealed now, or was before. */
static uint32_t epoch_of(struct node *n)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&n->lock);

	return n->epoch;
}

uint32_t node_lease_epoch(void *arg)
{
	struct node *n = arg;

	return n->tenure ? tenure_epoch(n->tenure) : 0;
}

/* ---------------------------------------------------------------- barriers */

/* Does anything of it wait for the bucket?  A drop may, or what was left over. */
static bool is_sent(struct node *n, const struct node_db *db)
{
	struct uploader_status status;

	return uploader_status(n->uploader, db->path, &status) == 0 &&
	       status.spool_batches == 0;
}

/*
 * Have it sealed, once in an epoch.  1: it is on its way; 0: the log is closed,
 * or there is none.
 */
static int seal_barrier(struct node *n, struct node_db *db, uint32_t epoch,
			struct capture_point *ret)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->closing);
	int rc;

	if (db->closed_epoch == epoch)
		return 0;
	if (db->sealed_epoch != epoch) {
		rc = capture_close_log(n->capture, db->path, &db->barrier);
		if (rc < 0 && rc != -ENOENT)
			return rc;
		if (rc <= 0 && !is_sent(n, db))
			return -ETIMEDOUT;
		if (rc <= 0) {
			db->closed_epoch = epoch;
			return 0;
		}
		db->sealed_epoch = epoch;
	}
	*ret = db->barrier;
	return 1;
}

static void note_closed(struct node_db *db, uint32_t epoch)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->closing);

	db->closed_epoch = epoch;
}

/* 0: closed.  -ETIMEDOUT: not within timeout_ms; or why it never will be. */
static int close_log(struct node *n, struct node_db *db, int64_t timeout_ms)
{
	uint32_t epoch = epoch_of(n);
	struct capture_point barrier;
	int rc;

	/* It has no log that we could close. */
	if (atomic_load(&db->refused))
		return -ENOENT;
	rc = seal_barrier(n, db, epoch, &barrier);
	if (rc <= 0)
		return rc;
	uploader_urge(n->uploader, db->path);
	rc = uploader_wait(n->uploader, db->path, barrier.txid,
			   barrier.time_ms, timeout_ms, NULL);
	if (rc == 0)
		note_closed(db, epoch);
	return rc;
}

/* A capture_status_fn: one that could not be taken up has a log, too. */
static int has_failed(const struct capture_status *status, void *arg)
{
	(void)arg;
	return status->error[0] != '\0';
}

/* A tenure_config callback: what the deciders did not see to. */
static int close_logs(void *arg, int64_t until_ms)
{
	struct node *n = arg;
	struct node_db *db;
	int left;

	{
		AUTO(unlock) pthread_mutex_t *held = lock(&n->lock);

		if (!n->served)
			return 1;
	}
	left = n->incomplete || atomic_load(&n->gate.held) > 0;
	for (size_t i = 0; (db = node_nth(n, i)); i++) {
		left |= close_log(n, db, 0) != 0;
		if (clock_monotonic_ms() >= until_ms ||
		    (atomic_load(&n->stopping) && until_ms != INT64_MAX))
			return 1;
	}
	return left || capture_each(n->capture, has_failed, NULL) != 0;
}

/* It is not uploaded, and nothing that waits can be: it is as without a lease. */
static bool is_stopped(int rc)
{
	return rc == -ENOENT || rc == -ERR_GAP || rc == -ERR_CORRUPT ||
	       rc == -EOPNOTSUPP;
}

/* However long the bucket is away, or the spool full. */
static int wait_closed(struct node *n, struct node_db *db)
{
	bool told = false;
	int rc;

	while ((rc = close_log(n, db, WAIT_STEP_MS)) < 0 && !is_stopped(rc) &&
	       rc != -ERR_FENCED) {
		if (atomic_load(&n->stopping))
			return -ECANCELED;
		if (rc == -ETIMEDOUT) {
			clock_sleep_ms(SHORT_STEP_MS);
			continue;
		}
		if (!told)
			log_warn("cannot close the log for older epochs yet, "
				 "so it is not served", "db=%s error=%s",
				 log_quote(db->path),
				 log_quote(error_message()));
		told = true;
		clock_sleep_ms(WAIT_STEP_MS);
	}
	return is_stopped(rc) ? 0 : rc;
}

int node_lease_close_log(void *arg, const char *path)
{
	struct node *n = arg;
	struct node_db *db = node_find(n, path);
	int rc = n->tenure ? tenure_may_send(n->tenure) : 0;

	/* No lease, or none yet: then the slots are all there is (D24). */
	if (!n->tenure || rc == -EBUSY)
		return 0;
	if (rc == 0 && db && tenure_owes_barriers(n->tenure))
		rc = wait_closed(n, db);
	return rc;
}

/* -------------------------------------------------------------- who has it */

/*
 * Nobody opens one any more.  Who has one open goes on reading, and in WAL mode
 * writing; with a rollback journal the next write has to open that, and fails.
 */
static void close_databases(struct node *n)
{
	struct tenure_status status;
	struct node_db *db;

	tenure_status(n->tenure, &status);
	for (size_t i = 0; (db = node_nth(n, i)); i++)
		(void)gate_close(&n->gate, db->path, GATE_LEASE, -EBUSY,
				 status.error);
}

/* A tenure_config callback. */
static void changed(void *arg, enum tenure_state state)
{
	struct node *n = arg;

	uploader_wake(n->uploader);
	if (state == TENURE_LOST)
		close_databases(n);
	else if (state == TENURE_HELD)
		node_standby_promote(n);
}

static int open_tenure(struct node *n)
{
	char owner[LEASE_OWNER_SIZE] = "";
	const struct tenure_config config = {
		.bucket = n->bucket,
		.dirfd = n->config.dirfd,
		.owner = owner,
		.url = n->config.advertise,
		.ttl_ms = n->config.lease_ttl_ms,
		.took = took,
		.close_logs = close_logs,
		.changed = changed,
		.arg = n,
	};

	(void)gethostname(owner, sizeof(owner) - 1);
	return tenure_new(&config, &n->tenure);
}

/* Does the store change a record only as it was read? */
static int can_keep_lease(struct node *n)
{
	unsigned caps = 0;
	int rc = bucket_probe(n->bucket, &caps);

	return rc < 0 ? rc : (caps & BUCKET_IF_MATCH) != 0;
}

/* The store tells no time: then there is none, as without conditions. */
static int go_without(struct node *n, const char *why)
{
	tenure_free(TAKE(n->tenure));
	log_warn("there is no lease: see to it that nobody else writes there",
		 "bucket=%s reason=%s", log_quote(n->bucket->url),
		 log_quote(why));
	return 0;
}

int node_lease_seek(struct node *n)
{
	int rc = n->silent ? 1 : can_keep_lease(n);

	if (rc < 0)
		return rc;
	if (rc == 0)
		return go_without(n, "the store does not keep If-Match");
	rc = open_tenure(n);
	if (rc == 0 && !n->silent)
		rc = tenure_begin(n->tenure, &n->stopping, true);
	if (rc == -ENODATA)
		return go_without(n, error_message());
	if (rc < 0)
		return rc;
	/* Whoever held replicas does not become their writer unasked. */
	if (rc == 2 || ((rc == 1 || n->silent) && node_standby_was(n))) {
		atomic_store(&n->role, NODE_STANDBY);
		n->settling = rc == 2 && node_standby_has_own(n);
		tenure_stand_by(n->tenure);
	}
	return tenure_start(n->tenure);
}

void node_lease_serve(struct node *n)
{
	{
		AUTO(unlock) pthread_mutex_t *held = lock(&n->lock);

		n->served = true;
		if (n->epoch)
			capture_set_epoch(n->capture, n->epoch);
	}
	if (n->tenure)
		tenure_poke(n->tenure);
}

void node_lease_seal(struct node *n)
{
	if (n->tenure && tenure_may_send(n->tenure) == 0 &&
	    tenure_owes_barriers(n->tenure))
		(void)close_logs(n, INT64_MAX);
}

static bool is_empty(const struct node_db *db)
{
	uint64_t first, last, kept;

	return spool_range(db->spool, &first, &last) == 0 && first == 0 &&
	       spool_kept(db->spool, &kept) == 0 && kept == 0;
}

bool node_lease_is_clean(struct node *n)
{
	struct node_db *db;

	if (!n->mounted || n->incomplete || atomic_load(&n->gate.held) > 0)
		return false;
	for (size_t i = 0; (db = node_nth(n, i)); i++)
		if (!is_empty(db))
			return false;
	return true;
}
