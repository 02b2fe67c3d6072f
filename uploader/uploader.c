#include <assert.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/cond.h"
#include "base/error.h"
#include "base/log.h"
#include "bucket/archive.h"
#include "bucket/bucket.h"
#include "bucket/patience.h"
#include "ltx/name.h"
#include "ltx/spool.h"
#include "uploader/catalog.h"
#include "uploader/pace.h"
#include "uploader/state.h"
#include "uploader/turn.h"

#include "uploader/uploader.h"

static void *work(void *arg)
{
	struct uploader *u = arg;
	struct queue_entry *e;

	bucket_cancel_by(&u->closing);
	(void)lock(&u->lock);
	while ((e = queue_take(&u->queue))) {
		struct uploader_db *db = (struct uploader_db *)e;

		db->running = true;
		db->woken = false;
		(void)pthread_mutex_unlock(&u->lock);
		turn_run(u, db);
		(void)lock(&u->lock);
	}
	(void)pthread_mutex_unlock(&u->lock);
	return NULL;
}

/* Signals are for the threads that expect them. */
static int start_threads(struct uploader *u, unsigned n)
{
	sigset_t all, before;
	int err = 0;

	u->threads = calloc(n, sizeof(*u->threads));
	if (!u->threads)
		return error_set(-ENOMEM, "no memory for %u threads", n);
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	while (u->n_threads < n && !err) {
		err = pthread_create(&u->threads[u->n_threads], NULL, work, u);
		if (!err)
			u->n_threads++;
	}
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	errno = err;
	return err ? error_errno("starting upload threads") : 0;
}

static int open_catalog(struct uploader *u)
{
	const struct uploader_catalog_config config = {
		.bucket = u->config.bucket,
		.bucket_id = u->config.bucket_id,
		.identified = u->config.identified,
		.may_send = u->config.may_send,
		.arg = u->config.arg,
	};

	return uploader_catalog_new(&config, &u->catalog);
}

int uploader_new(const struct uploader_config *config, struct uploader **ret)
{
	struct uploader *u = calloc(1, sizeof(*u));
	int rc;

	assert(config->bucket && config->seal && config->connections > 0);
	if (!u)
		return error_set(-ENOMEM, "no memory for the uploader");
	u->config = *config;
	(void)pthread_mutex_init(&u->lock, NULL);
	rc = queue_init(&u->queue, &u->lock);
	if (rc < 0) {
		(void)pthread_mutex_destroy(&u->lock);
		free(u);
		return rc;
	}
	if (config->temp_dir) {
		u->temp_dir = strdup(config->temp_dir);
		if (!u->temp_dir)
			rc = error_set(-ENOMEM, "no memory for a path");
	}
	if (rc == 0)
		rc = open_catalog(u);
	if (rc == 0)
		rc = start_threads(u, config->connections);
	if (rc < 0)
		uploader_free(u);
	else
		*ret = u;
	return rc;
}

/* A start does not wait longer for a store that says nothing. */
enum { CHECK_MS = 10000 };

int uploader_check(struct uploader *u)
{
	int rc;

	bucket_wait_until(clock_monotonic_ms() + CHECK_MS);
	rc = turn_check_store(u);
	bucket_wait_until(0);
	if (rc < 0 && bucket_transient(rc)) {
		log_warn("bucket does not answer", "error=%s",
			 log_quote(error_message()));
		return 1;
	}
	return rc;
}

int uploader_take(struct uploader *u, uint64_t epoch)
{
	int rc = turn_check_store(u);

	return rc < 0 ? rc : uploader_catalog_take(u->catalog, epoch);
}

/* Where path is in the list, or belongs.  The lock is held. */
static size_t find_place(const struct uploader *u, const char *path)
{
	size_t low = 0, high = u->n_dbs;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (strcmp(u->dbs[middle]->path, path) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* The lock is held. */
static struct uploader_db *find_db(const struct uploader *u, const char *path)
{
	size_t i = find_place(u, path);

	if (i < u->n_dbs && strcmp(u->dbs[i]->path, path) == 0)
		return u->dbs[i];
	return NULL;
}

static void uploader_db_free(struct uploader_db *db)
{
	if (!db)
		return;
	(void)pthread_cond_destroy(&db->changed);
	free(db->path);
	free(db->key);
	free(db);
}
AUTO_FREE(uploader_db);

static int new_db(const char *path, struct spool *spool,
		  struct uploader_db **ret)
{
	struct uploader_db *db;
	char key[BUCKET_KEY_MAX];
	int rc = archive_escape(path, key);

	if (rc < 0)
		return rc;
	db = calloc(1, sizeof(*db));
	if (!db)
		return error_set(-ENOMEM, "no memory for '%s'", path);
	rc = cond_init(&db->changed);
	if (rc < 0) {
		free(db);
		return rc;
	}
	db->path = strdup(path);
	db->key = strdup(key);
	db->spool = spool;
	db->sealed_ms = PACE_NEVER;
	if (!db->path || !db->key) {
		uploader_db_free(db);
		return error_set(-ENOMEM, "no memory for '%s'", path);
	}
	*ret = db;
	return 0;
}

/* Where the log stands, by what was confirmed and what is in the spool. */
static int find_position(struct uploader_db *db, uint64_t confirmed)
{
	uint64_t first, kept;
	int rc = spool_range(db->spool, &first, &db->found);

	if (rc == 0)
		rc = spool_kept(db->spool, &kept);
	if (rc < 0)
		return rc;
	db->owes = db->found_kept = kept != 0;
	if (first > confirmed + 1)
		return error_set(-ERR_GAP,
				 "'%s': the last batch in the bucket is "
				 "%016" PRIx64 ", but the spool begins with "
				 "%016" PRIx64 ": batches are missing",
				 db->path, confirmed, first);

	/* In the spool still, so nobody is sure of it.  Sent once more. */
	if (first && first <= confirmed)
		confirmed = first - 1;
	db->settled = db->confirmed = confirmed;
	db->joined = confirmed == 0;
	return 0;
}

/* The lock is held. */
static int insert_db(struct uploader *u, struct uploader_db *db)
{
	size_t place = find_place(u, db->path);

	if (find_db(u, db->path))
		return error_set(-EEXIST, "'%s' is being uploaded already",
				 db->path);
	if (u->n_dbs == u->capacity) {
		size_t capacity = u->capacity ? 2 * u->capacity : 16;
		void *dbs = realloc(u->dbs, capacity * sizeof(*u->dbs));

		if (!dbs)
			return error_set(-ENOMEM, "no memory for '%s'",
					 db->path);
		u->dbs = dbs;
		u->capacity = capacity;
	}
	memmove(u->dbs + place + 1, u->dbs + place,
		(u->n_dbs - place) * sizeof(*u->dbs));
	u->dbs[place] = db;
	u->n_dbs++;
	return 0;
}

int uploader_add(struct uploader *u, const char *path, struct spool *spool,
		 uint64_t confirmed)
{
	AUTO(uploader_db) struct uploader_db *db = NULL;
	struct uploader_db *added;
	int rc = new_db(path, spool, &db);

	if (rc == 0)
		rc = find_position(db, confirmed);
	if (rc < 0)
		return rc;
	AUTO(unlock) pthread_mutex_t *held = lock(&u->lock);
	rc = insert_db(u, db);
	if (rc < 0)
		return rc;
	added = TAKE(db);
	if (added->found || added->owes || !added->joined)
		queue_put(&u->queue, &added->entry, clock_monotonic_ms());
	return 0;
}

void uploader_notify(struct uploader *u, const char *path)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&u->lock);
	struct uploader_db *db = find_db(u, path);

	if (!db || db->stopped)
		return;
	db->dirty = true;
	if (!uploader_db_active(db))
		turn_schedule(u, db);
}

/* The lock is held.  Did its last turn fail? */
static bool in_pause(const struct uploader_db *db)
{
	return db->failures > 0 || db->refusals > 0;
}

/* The lock is held. */
static void urge(struct uploader *u, struct uploader_db *db)
{
	int64_t due = clock_monotonic_ms();

	if (db->stopped)
		return;
	db->urged = true;
	if (in_pause(db))
		due += PACE_FIRST_PAUSE_MS;
	if (!db->running && (!db->entry.queued || db->entry.due_ms > due))
		queue_put(&u->queue, &db->entry, due);
}

void uploader_urge(struct uploader *u, const char *path)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&u->lock);
	struct uploader_db *db = find_db(u, path);

	if (db)
		urge(u, db);
}

/* The lock is held.  A turn that has been refused already begins anew. */
static void wake(struct uploader *u, struct uploader_db *db)
{
	db->woken = true;
	if (db->entry.queued && in_pause(db))
		queue_put(&u->queue, &db->entry, clock_monotonic_ms());
	db->refusals = 0;
}

void uploader_wake(struct uploader *u)
{
	{
		AUTO(unlock) pthread_mutex_t *held = lock(&u->lock);

		for (size_t i = 0; i < u->n_dbs; i++)
			wake(u, u->dbs[i]);
	}
	uploader_catalog_wake(u->catalog);
}

static int64_t deadline(int64_t timeout_ms)
{
	return timeout_ms < 0 ? COND_NEVER : clock_monotonic_ms() + timeout_ms;
}

static int timed_out(const struct uploader_db *db, uint64_t txid)
{
	char text[LTX_TXID_TEXT_SIZE];

	ltx_txid_format(txid, text);
	return error_set(-ETIMEDOUT,
			 "transaction %s of '%s' is not in the bucket yet%s%s",
			 text, db->path, *db->error ? ": " : "", db->error);
}

/* The lock is held. */
static bool is_confirmed(const struct uploader_db *db, int64_t time_ms)
{
	return db->joined && db->confirmed_time_ms >= time_ms;
}

int uploader_wait(struct uploader *u, const char *path, uint64_t txid,
		  int64_t time_ms, int64_t timeout_ms, uint64_t *ret_txid)
{
	int64_t until = deadline(timeout_ms);
	AUTO(unlock) pthread_mutex_t *held = lock(&u->lock);
	struct uploader_db *db = find_db(u, path);
	int rc = 0;

	if (!db)
		return error_set(-ENOENT, "'%s' is not being uploaded", path);
	while (!is_confirmed(db, time_ms) && !db->stopped && rc != -ETIMEDOUT)
		rc = cond_wait_until(&db->changed, held, until);
	if (!is_confirmed(db, time_ms))
		return db->stopped ? error_set(db->stopped, "%s", db->error) :
				     timed_out(db, txid);
	/* Merging only lowers a TXID, so what is not above is in the bucket. */
	if (ret_txid)
		*ret_txid = txid < db->confirmed ? txid : db->confirmed;
	return 0;
}

/* How much of all databases is in their spools still? */
static int count_unsent(struct uploader *u, size_t n_dbs)
{
	uint64_t bytes = 0, of_one;
	size_t n = 0, dbs = 0, n_of_one;

	for (size_t i = 0; i < n_dbs; i++) {
		struct uploader_db *db;

		(void)lock(&u->lock);
		db = u->dbs[i];
		(void)pthread_mutex_unlock(&u->lock);
		if (spool_size(db->spool, &of_one, &n_of_one) < 0 || !n_of_one)
			continue;
		bytes += of_one;
		n += n_of_one;
		dbs++;
	}
	return error_set(-ETIMEDOUT,
			 "not all is in the bucket: %zu batches of %zu "
			 "databases (%" PRIu64 " bytes) stay in the spool and "
			 "are sent after the next start",
			 n, dbs, bytes);
}

int uploader_drain(struct uploader *u, int64_t timeout_ms)
{
	int64_t until = deadline(timeout_ms);
	const struct uploader_db *stopped = NULL;
	size_t n_dbs;
	int rc = 0;

	(void)lock(&u->lock);
	n_dbs = u->n_dbs;
	u->draining = true;
	for (size_t i = 0; i < n_dbs; i++)
		urge(u, u->dbs[i]);
	for (size_t i = 0; i < u->n_dbs && rc != -ETIMEDOUT; i++) {
		struct uploader_db *db = u->dbs[i];

		while (uploader_db_active(db) && rc != -ETIMEDOUT)
			rc = cond_wait_until(&db->changed, &u->lock, until);
		/* The time may be up in the very moment that it is done. */
		if (!uploader_db_active(db))
			rc = 0;
		if (db->stopped && !stopped)
			stopped = db;
	}
	u->draining = false;
	(void)pthread_mutex_unlock(&u->lock);
	uploader_catalog_drain(u->catalog, until);

	if (rc == -ETIMEDOUT)
		return count_unsent(u, n_dbs);
	return stopped ? error_set(stopped->stopped, "%s", stopped->error) : 0;
}

/* The lock is held. */
static enum uploader_state state(const struct uploader_db *db)
{
	if (db->stopped)
		return db->stopped == -ERR_FENCED ? UPLOADER_CONFLICT :
						    UPLOADER_STOPPED;
	if (in_pause(db))
		return UPLOADER_RETRYING;
	return uploader_db_active(db) ? UPLOADER_BUSY : UPLOADER_IDLE;
}

int uploader_status(struct uploader *u, const char *path,
		    struct uploader_status *ret)
{
	struct uploader_status status = { 0 };
	struct uploader_db *db;
	size_t batches;
	int rc;

	(void)lock(&u->lock);
	db = find_db(u, path);
	if (db) {
		status.state = state(db);
		status.confirmed = db->confirmed;
		status.confirmed_at_ms = db->confirmed_at_ms;
		status.sent_bytes = db->sent_bytes;
		status.sent_objects = db->sent_objects;
		memcpy(status.error, db->error, sizeof(status.error));
	}
	(void)pthread_mutex_unlock(&u->lock);
	if (!db)
		return error_set(-ENOENT, "'%s' is not being uploaded", path);

	rc = spool_size(db->spool, &status.spool_bytes, &batches);
	if (rc < 0)
		return rc;
	status.spool_batches = batches;
	*ret = status;
	return 0;
}

void uploader_catalog_status(struct uploader *u, char *ret, size_t size)
{
	uploader_catalog_error(u->catalog, ret, size);
}

const char *uploader_state_name(enum uploader_state s)
{
	static const char *const names[] = {
		[UPLOADER_IDLE] = "idle",
		[UPLOADER_BUSY] = "busy",
		[UPLOADER_RETRYING] = "retrying",
		[UPLOADER_CONFLICT] = "conflict",
		[UPLOADER_STOPPED] = "stopped",
	};

	return names[s];
}

void uploader_free(struct uploader *u)
{
	if (!u)
		return;
	atomic_store(&u->closing, true);
	(void)lock(&u->lock);
	queue_close(&u->queue);
	(void)pthread_mutex_unlock(&u->lock);
	for (unsigned i = 0; i < u->n_threads; i++)
		(void)pthread_join(u->threads[i], NULL);
	for (size_t i = 0; i < u->n_dbs; i++)
		uploader_db_free(u->dbs[i]);
	uploader_catalog_free(u->catalog);
	queue_destroy(&u->queue);
	(void)pthread_mutex_destroy(&u->lock);
	free(u->dbs);
	free(u->threads);
	free(u->temp_dir);
	free(u);
}
