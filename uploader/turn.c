#include <stdio.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/log.h"
#include "bucket/bucket.h"
#include "ltx/spool.h"
#include "uploader/batch.h"
#include "uploader/catalog.h"
#include "uploader/pace.h"
#include "uploader/skew.h"
#include "uploader/slot.h"
#include "uploader/snapshot.h"
#include "uploader/state.h"

#include "uploader/turn.h"

/*
 * How a turn can end.  A failure may be the bucket's or capture's; only what
 * sending found can stop a database for good, because what is sealed never
 * changes again, while a seal that failed may succeed later.
 */
enum outcome {
	NOTHING,    /* there was nothing to do yet */
	SENT,	    /* one batch or snapshot; there may be more */
	NOT_SEALED, /* failed before there was a batch */
	NOT_SENT,
	REFUSED, /* by may_send; its error says nothing of the bucket */
};

static int64_t seal_due(const struct uploader *u, const struct uploader_db *db,
			int64_t now_ms)
{
	return pace_due(u->config.interval_ms, db->sealed_ms, now_ms,
			db->urged);
}

static void urge_seal(struct uploader *u, struct uploader_db *db)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&u->lock);

	db->urged = true;
}

/* Has the time come to seal?  If so this seal answers all that was asked. */
static bool begin_seal(struct uploader *u, struct uploader_db *db,
		       bool *ret_urged)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&u->lock);
	int64_t now = clock_monotonic_ms();

	if (!db->urged && (!db->dirty || seal_due(u, db, now) > now))
		return false;
	*ret_urged = db->urged;
	db->urged = db->dirty = false;
	return true;
}

static void end_seal(struct uploader *u, struct uploader_db *db, int rc,
		     bool urged)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&u->lock);

	if (rc > 0)
		db->sealed_ms = clock_monotonic_ms();
	if (rc < 0) {
		db->dirty = true;
		db->urged |= urged;
	}
}

/* 1: a batch was sealed; 0: it is not time, or there is nothing new. */
static int seal(struct uploader *u, struct uploader_db *db)
{
	bool urged;
	int rc;

	if (!begin_seal(u, db, &urged))
		return 0;
	rc = u->config.seal(u->config.arg, db->path);
	if (rc == -ENOENT) /* the database is gone, and all it had is sealed */
		rc = 0;
	end_seal(u, db, rc, urged);
	return rc;
}

/* So many batches go before a snapshot that has become due. */
enum { SNAPSHOT_PATIENCE = 64 };

/* The next batch into ret. */
static enum outcome find_batch(struct uploader *u, struct uploader_db *db,
			       struct batch *ret, int *ret_rc)
{
	uint64_t txid = db->settled + 1;
	int rc = batch_open(db->spool, txid, ret);
	int sealed;

	/* Who replaces it is waited for, or brought to the end of that. */
	if (rc == -EBUSY) {
		urge_seal(u, db);
		*ret_rc = seal(u, db);
		if (*ret_rc < 0)
			return NOT_SEALED;
		rc = batch_open(db->spool, txid, ret);
	}
	if (rc == -ENOENT) {
		sealed = seal(u, db);
		if (sealed <= 0) {
			*ret_rc = sealed;
			return sealed < 0 ? NOT_SEALED : NOTHING;
		}
		rc = batch_open(db->spool, txid, ret);
		if (rc == -ENOENT)
			rc = error_set(-ERR_GAP, "the batch that was sealed is "
					"not the next after the last one sent");
	}
	if (rc == 0 && txid <= db->found && txid > db->verified) {
		rc = batch_verify(ret);
		if (rc == 0)
			db->verified = txid;
	}
	*ret_rc = rc;
	return rc < 0 ? NOT_SENT : SENT;
}

/*
 * Is the bucket ours?  Trouble with the catalog, once the store has answered
 * the probe, is no reason to send nothing: the slots tell whose they are.
 */
static int check_bucket(struct uploader *u)
{
	int rc = uploader_catalog_check(u->catalog);

	if (rc == 0 || rc == -EOPNOTSUPP || rc == -ERR_GAP)
		return rc;
	log_warn("the bucket's catalog cannot be read", "error=%s",
		 log_quote(error_message()));
	return 0;
}

int turn_check_store(struct uploader *u)
{
	unsigned caps;
	bool trusted;
	int rc;

	(void)lock(&u->lock);
	trusted = u->trusted;
	(void)pthread_mutex_unlock(&u->lock);
	if (trusted)
		return 0;

	rc = bucket_probe(u->config.bucket, &caps);
	if (rc < 0)
		return rc;
	if (!(caps & BUCKET_IF_ABSENT))
		return error_set(-EOPNOTSUPP,
				 "%s does not keep If-None-Match, without "
				 "which two writers cannot be kept apart, so "
				 "nothing is uploaded; use another store, or "
				 "another driver than libs3",
				 u->config.bucket->url);
	rc = check_bucket(u);
	if (rc < 0)
		return rc;
	(void)lock(&u->lock);
	u->trusted = true;
	(void)pthread_mutex_unlock(&u->lock);
	return 0;
}

static void note_date(struct uploader *u, int64_t requested_ms,
		      const struct bucket_info *reply)
{
	int64_t before, after;

	if (reply->date_ms == 0)
		return;
	(void)lock(&u->lock);
	before = u->offset_ms;
	after = skew_adjust(before, requested_ms, clock_wall_ms(),
			    reply->date_ms);
	u->offset_ms = after;
	(void)pthread_mutex_unlock(&u->lock);
	if (after != before && u->config.clock_offset)
		u->config.clock_offset(u->config.arg, after);
}

static void note_sent(struct uploader *u, struct uploader_db *db, uint64_t size)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&u->lock);

	if (size == 0)
		return;
	db->sent_bytes += size;
	db->sent_objects++;
}

static void note_confirmed(struct uploader *u, struct uploader_db *db,
			   const struct ltx_header *header)
{
	uint64_t txid = header->max_txid;

	(void)lock(&u->lock);
	db->confirmed = txid;
	db->confirmed_time_ms = header->timestamp_ms;
	db->confirmed_at_ms = clock_wall_ms();
	(void)pthread_cond_broadcast(&db->changed);
	(void)pthread_mutex_unlock(&u->lock);

	if (u->config.confirmed)
		u->config.confirmed(u->config.arg, db->path, txid);
}

static bool is_draining(struct uploader *u)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&u->lock);

	return u->draining;
}

/* The catalog learns what is new; most batches say nothing of that kind. */
static void tell_catalog(struct uploader *u, struct uploader_db *db,
			 const struct ltx_header *slot)
{
	bool dropped = slot->kind == LTX_DROP;

	if (db->told_page_size == slot->page_size &&
	    db->told_dropped == dropped)
		return;
	db->told_page_size = slot->page_size;
	db->told_dropped = dropped;
	uploader_catalog_note(u->catalog, db->key, slot);
}

/* Once, after a start: is the bucket the one that was sent to before? */
static int join(struct uploader *u, struct uploader_db *db)
{
	int rc = slot_last(u->config.bucket, db->key, db->settled, &db->before);

	if (rc < 0)
		return rc;
	tell_catalog(u, db, &db->before);
	AUTO(unlock) pthread_mutex_t *held = lock(&u->lock);
	db->joined = true;
	db->confirmed_time_ms = db->before.timestamp_ms;
	(void)pthread_cond_broadcast(&db->changed);
	return 0;
}

static int fill_slot(struct uploader *u, struct uploader_db *db,
		     const struct batch *batch)
{
	int64_t requested_ms = clock_wall_ms();
	struct bucket *b = u->config.bucket;
	struct bucket_info reply;
	int rc = slot_follows(b, db->key, &db->before, &batch->header);

	if (rc < 0)
		return rc;
	rc = slot_put(b, db->key, batch, &reply);
	note_date(u, requested_ms, &reply);
	if (rc < 0)
		return rc;
	note_sent(u, db, batch->size);
	note_confirmed(u, db, &batch->header);
	tell_catalog(u, db, &batch->header);
	return 0;
}

/* Has it left the spool?  If only the sync of that failed, it has. */
static bool has_left(struct uploader_db *db, uint64_t txid)
{
	uint64_t first, last;

	return spool_range(db->spool, &first, &last) == 0 &&
	       (first == 0 || first > txid);
}

/*
 * Out of the spool, or kept there for the snapshot that is due.  A failed sync
 * is told, and the next turn goes on behind the batch: should it come back
 * after a power loss, its slot has the same bytes (R13).
 */
static int settle(struct uploader *u, struct uploader_db *db,
		  const struct batch *batch)
{
	uint64_t txid = batch->header.max_txid;
	bool owes = snapshot_due(&db->before, &batch->header);
	int rc = owes ? spool_keep(db->spool, txid) :
			spool_remove(db->spool, txid);

	if (rc < 0 && !has_left(db, txid))
		return rc;
	db->owes |= owes;
	db->passed++;
	db->settled = txid;
	db->before = batch->header;
	return rc;
}

/* Can this bucket be sent to, and is it ours? */
static int check_ours(struct uploader *u)
{
	int rc = turn_check_store(u);

	return rc < 0 ? rc : uploader_catalog_verdict(u->catalog);
}

/* Slot, and only then out of the spool. */
static int send_batch(struct uploader *u, struct uploader_db *db,
		      const struct batch *batch)
{
	int rc = check_ours(u);

	/* Only this turn changes confirmed, so it may read it without lock. */
	if (rc == 0 && db->confirmed < batch->header.max_txid)
		rc = fill_slot(u, db, batch);
	if (rc < 0)
		return rc;
	FAILPOINT("slot-confirmed");
	return settle(u, db, batch);
}

/*
 * Is this batch in its slot, 1 or 0?  The directory may have been given another
 * history, or bucket, since an earlier life was told so.
 */
static int is_in_slot(struct uploader *u, const struct uploader_db *db,
		      const struct batch *batch)
{
	struct ltx_header slot;
	int rc;

	if (!db->found_kept)
		return 1;
	rc = slot_last(u->config.bucket, db->key, batch->header.max_txid,
		       &slot);
	if (rc == -ERR_GAP)
		return 0;
	return rc < 0 ? rc : slot.node_id == batch->header.node_id &&
				     slot.post_dbsum == batch->header.post_dbsum;
}

/* The snapshot of this batch, which is in the bucket; and then its end. */
static int send_snapshot(struct uploader *u, struct uploader_db *db,
			 const struct batch *batch)
{
	uint64_t size = 0;
	int rc = check_ours(u);

	/* It may have lain here since an earlier life. */
	if (rc == 0)
		rc = batch_verify(batch);
	if (rc == 0)
		rc = is_in_slot(u, db, batch);
	if (rc > 0)
		rc = snapshot_put(u->config.bucket, db->key, batch, u->temp_dir,
				  &size);
	/* It was no base after all. */
	if (rc == -EINVAL)
		rc = 0;
	if (rc < 0)
		return error_wrap(rc, "the snapshot of '%s'", db->path);
	note_sent(u, db, size);
	return spool_remove_kept(db->spool, batch->header.max_txid);
}

/* What is owed, the oldest first. */
static int pay(struct uploader *u, struct uploader_db *db)
{
	AUTO(batch) struct batch batch = BATCH_NONE;
	uint64_t txid;
	int rc = spool_kept(db->spool, &txid);

	if (rc == 0 && txid)
		rc = batch_open_kept(db->spool, txid, &batch);
	if (rc == 0 && txid)
		rc = send_snapshot(u, db, &batch);
	/* Those that wait do not wait for one that fails, either. */
	db->passed = 0;
	if (rc < 0)
		return rc;
	rc = spool_kept(db->spool, &txid);
	if (rc == 0)
		db->owes = txid != 0;
	db->found_kept &= db->owes;
	return rc;
}

/* May the bucket be asked for anything?  NOTHING: yes. */
static enum outcome ask(struct uploader *u, int *ret_rc)
{
	int rc = u->config.may_send ? u->config.may_send(u->config.arg) : 0;

	if (rc >= 0)
		return NOTHING;
	*ret_rc = rc;
	return rc == -ERR_FENCED ? NOT_SENT : REFUSED;
}

static enum outcome have_turn(struct uploader *u, struct uploader_db *db,
			      int *ret_rc)
{
	AUTO(batch) struct batch batch = BATCH_NONE;
	bool overdue = db->owes && db->passed > SNAPSHOT_PATIENCE;
	enum outcome found = NOTHING, answer;

	*ret_rc = 0;
	if (!overdue)
		found = find_batch(u, db, &batch, ret_rc);
	if (*ret_rc < 0)
		return found;
	/* At the end, only what is to be sent matters. */
	if (found == NOTHING && !db->owes && (db->joined || is_draining(u)))
		return found;
	answer = ask(u, ret_rc);
	if (answer != NOTHING)
		return answer;
	if (!db->joined && (*ret_rc = join(u, db)) < 0)
		return NOT_SENT;
	if (found == SENT)
		*ret_rc = send_batch(u, db, &batch);
	else if (db->owes)
		*ret_rc = pay(u, db);
	else
		return found;
	return *ret_rc < 0 ? NOT_SENT : SENT;
}

static bool beyond_repair(int rc)
{
	return rc == -ERR_FENCED || rc == -EOPNOTSUPP || rc == -ERR_CORRUPT ||
	       rc == -ERR_GAP;
}

/* For a person to mend, and not by waiting. */
static bool is_slow(int rc)
{
	return !bucket_transient(rc) && rc != -EDQUOT;
}

/* What to say of a failure; NULL: nothing new. */
static const char *news(const struct uploader_db *db, enum outcome outcome,
			bool slow)
{
	if (db->failures > 0 && (db->slow || !slow))
		return NULL;
	if (outcome == NOT_SEALED)
		return "cannot seal, trying again";
	return slow ? "cannot upload, trying again slowly" :
		      "bucket does not answer";
}

/*
 * Trouble is logged when it begins, when it turns from waiting to something
 * that a person must mend, and when it ends; what an end cuts short is none,
 * nor is a refusal, which is for whoever refuses to log.  Without the lock:
 * whoever reads the log may be slow.
 */
static void log_end(const struct uploader_db *db, enum outcome outcome, int rc)
{
	const char *path = log_quote(db->path);
	const char *error = log_quote(error_message());
	const char *message = news(db, outcome, is_slow(rc));

	if (rc == -ECANCELED || outcome == REFUSED)
		return;
	if (rc == 0 && db->failures > 0)
		log_info("uploading again", "db=%s failures=%u", path,
			 db->failures);
	else if (outcome == NOT_SENT && beyond_repair(rc))
		log_error("upload stopped", "db=%s error=%s", path, error);
	else if (rc < 0 && message)
		log_warn(message, "db=%s error=%s", path, error);
}

/* Until it is tried again. */
static int64_t pause_after(struct uploader_db *db, enum outcome outcome, int rc)
{
	bool refused = outcome == REFUSED;
	unsigned before = refused ? db->refusals++ : db->failures++;
	uint32_t random;

	if (!refused)
		db->slow = is_slow(rc);
	if (db->woken)
		return 0;
	io_random(&random, sizeof(random));
	return pace_pause(before, !refused && db->slow, random);
}

static void fail(struct uploader *u, struct uploader_db *db,
		 enum outcome outcome, int rc)
{
	int64_t now = clock_monotonic_ms();

	(void)snprintf(db->error, sizeof(db->error), "%s", error_message());
	if (outcome == NOT_SENT && beyond_repair(rc)) {
		db->stopped = rc;
		return;
	}
	queue_put(&u->queue, &db->entry, now + pause_after(db, outcome, rc));
}

static void succeed(struct uploader_db *db)
{
	db->failures = db->refusals = 0;
	db->slow = false;
	db->error[0] = '\0';
}

void turn_schedule(struct uploader *u, struct uploader_db *db)
{
	int64_t now = clock_monotonic_ms();

	if (db->urged || db->dirty)
		queue_put(&u->queue, &db->entry, seal_due(u, db, now));
}

void turn_run(struct uploader *u, struct uploader_db *db)
{
	int rc;
	enum outcome outcome = have_turn(u, db, &rc);

	log_end(db, outcome, rc);
	AUTO(unlock) pthread_mutex_t *held = lock(&u->lock);
	db->running = false;
	if (rc < 0)
		fail(u, db, outcome, rc);
	else
		succeed(db);
	if (outcome == SENT)
		queue_put(&u->queue, &db->entry, clock_monotonic_ms());
	else if (outcome == NOTHING)
		turn_schedule(u, db);
	if (!uploader_db_active(db))
		(void)pthread_cond_broadcast(&db->changed);
}
