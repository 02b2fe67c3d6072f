#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/cond.h"
#include "base/error.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/log.h"
#include "bucket/bucket.h"
#include "bucket/catalog.h"
#include "bucket/lease_record.h"
#include "bucket/patience.h"
#include "ltx/header.h"
#include "uploader/notes.h"
#include "uploader/pace.h"

#include "uploader/catalog.h"

enum {
	GATHER_MS = 200, /* from the first note to the put */
	REST_MS = 1000,	 /* from one put to the next */
	RACES_MAX = 8,	 /* lost in a row; then there is a pause */
	LOOK_MS = 200,	 /* from one look at our patience to the next */
};

struct uploader_catalog {
	struct uploader_catalog_config config; /* constant, but not its id */
	pthread_t thread;		       /* new's and free's */
	bool running;			       /* likewise */
	atomic_bool closing; /* what is under way is of no use any more */

	/* The thread's own. */
	bool warned; /* that the store does not keep If-Match */

	/* Guards all below; held neither for a request nor in a callback. */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	char id[CATALOG_ID_SIZE]; /* the bucket's; "" unknown */
	bool told;		  /* identified() was called with it */
	int verdict;		  /* why the bucket is not ours, or 0 */
	uint64_t epoch;		  /* the last one that was taken; 0: none */
	struct notes pending;
	int64_t due_ms;	  /* monotonic; of pending */
	int64_t put_ms;	  /* of the last one */
	bool busy;     /* the thread, or who takes, has the catalog */
	bool draining; /* what is pending is due now */
	bool woken;    /* since the thread began with what it has */
	unsigned failures; /* in a row */
	unsigned refusals; /* by may_send; likewise */
	char error[512];   /* of the last one, while it lasts; or the verdict */

	/*
	 * As it was last read or written; NULL: not known.  Who is busy with it
	 * takes it out.
	 */
	struct catalog *catalog;
	char etag[BUCKET_ETAG_SIZE];
};

/* Of who is busy: its view of the catalog while it writes. */
struct edit {
	struct uploader_catalog *c;
	struct catalog *catalog; /* NULL: to be read */
	char etag[BUCKET_ETAG_SIZE];
	bool absent;	  /* the bucket has none */
	bool conditional; /* the store keeps If-Match */

	uint64_t epoch;		  /* to write; 0: what is there stays */
	struct notes notes;	  /* likewise */
	char id[CATALOG_ID_SIZE]; /* of what was written */
	bool refused;		  /* by may_send, so nothing was asked */
};

static void edit_forget(struct edit *e)
{
	catalog_free(TAKE(e->catalog));
}

static void edit_cleanup(struct edit *e)
{
	edit_forget(e);
	notes_clear(&e->notes);
}

/*
 * Whose bucket is it?
 * -------------------
 */

/* Note why the bucket is not ours, with the sentence of the failure rc. */
static int judge(struct uploader_catalog *c, int rc)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&c->lock);

	c->verdict = rc;
	(void)snprintf(c->error, sizeof(c->error), "%s", error_message());
	return rc;
}

int uploader_catalog_verdict(struct uploader_catalog *c)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&c->lock);

	return c->verdict ? error_set(c->verdict, "%s", c->error) : 0;
}

static void copy_id(struct uploader_catalog *c, char ret[CATALOG_ID_SIZE])
{
	AUTO(unlock) pthread_mutex_t *held = lock(&c->lock);

	memcpy(ret, c->id, CATALOG_ID_SIZE);
}

static int other_bucket(struct uploader_catalog *c, const char *before,
			const char *found)
{
	return judge(c, error_set(-ERR_GAP,
				  "%s is another bucket than before: this "
				  "directory belongs to the one with id %s, and "
				  "it %s%s; use the bucket of before, or remove "
				  ".litebucket from the directory, to begin anew "
				  "in an empty one",
				  c->config.bucket->url, before,
				  found ? "has id " : "is empty",
				  found ? found : ""));
}

static int check_id(struct uploader_catalog *c, const struct catalog *catalog)
{
	char known[CATALOG_ID_SIZE];

	copy_id(c, known);
	if (!known[0] || strcmp(known, catalog_id(catalog)) == 0)
		return 0;
	return other_bucket(c, known, catalog_id(catalog));
}

static int read_catalog(struct uploader_catalog *c, struct catalog **ret,
			char etag[BUCKET_ETAG_SIZE])
{
	AUTO(catalog) struct catalog *catalog = NULL;
	struct bucket_info info;
	int rc = catalog_get(c->config.bucket, &catalog, &info);

	if (rc == -EOPNOTSUPP)
		return judge(c, rc);
	if (rc == 0)
		rc = check_id(c, catalog);
	if (rc < 0)
		return rc;
	*ret = TAKE(catalog);
	memcpy(etag, info.etag, BUCKET_ETAG_SIZE);
	return 0;
}

/* A bucket_list_fn: one is enough.  The lease is there before anything is. */
static int found_object(const struct bucket_object *object, void *arg)
{
	return strcmp(object->key, LEASE_KEY) != 0;
}

/*
 * There is no catalog.  If there was one, it may have been removed by
 * accident, and is made again with its id; but not in a bucket where there is
 * nothing at all, because that is not the one of before.
 */
static int check_absent(struct uploader_catalog *c)
{
	char known[CATALOG_ID_SIZE];
	int rc;

	copy_id(c, known);
	if (!known[0])
		return 0;
	rc = bucket_list(c->config.bucket, "", NULL, 2, found_object, NULL);
	if (rc < 0)
		return rc;
	return rc > 0 ? 0 : other_bucket(c, known, NULL);
}

int uploader_catalog_check(struct uploader_catalog *c)
{
	AUTO(catalog) struct catalog *catalog = NULL;
	char etag[BUCKET_ETAG_SIZE];
	int rc = read_catalog(c, &catalog, etag);

	if (rc == -ENOENT)
		return check_absent(c);
	if (rc < 0)
		return rc;
	AUTO(unlock) pthread_mutex_t *held = lock(&c->lock);
	if (!c->catalog && !c->busy) {
		c->catalog = TAKE(catalog);
		memcpy(c->etag, etag, sizeof(c->etag));
	}
	return 0;
}

/*
 * Writing
 * -------
 */

/* An empty one, with the id that the bucket had or one of its own. */
static int make_catalog(struct edit *e)
{
	char id[CATALOG_ID_SIZE];
	int rc = check_absent(e->c);

	if (rc < 0)
		return rc;
	copy_id(e->c, id);
	if (!id[0])
		catalog_id_make(id);
	rc = catalog_new(id, &e->catalog);
	e->absent = rc == 0;
	return rc;
}

static int load(struct edit *e)
{
	int rc;

	e->absent = false;
	if (e->catalog && e->conditional)
		return 0;
	/* What is put without a condition is read just before. */
	edit_forget(e);
	rc = read_catalog(e->c, &e->catalog, e->etag);
	return rc == -ENOENT ? make_catalog(e) : rc;
}

/* Make it one of our epoch, if we have one.  Returns whether it was not. */
static int apply_epoch(struct edit *e)
{
	uint64_t found = catalog_epoch(e->catalog);

	if (!e->epoch)
		return 0;
	if (found > e->epoch)
		return error_set(-ERR_FENCED,
				 CATALOG_KEY " of %s is of epoch %" PRIu64
				 ", and ours is %" PRIu64 ": another litebucket "
				 "has taken the bucket over since",
				 e->c->config.bucket->url, found, e->epoch);
	return catalog_set_epoch(e->catalog, e->epoch);
}

/* Returns whether the catalog says something else than before. */
static int apply(struct edit *e)
{
	int changed = apply_epoch(e);

	if (changed == -ERR_FENCED)
		return judge(e->c, changed);
	for (size_t i = 0; changed >= 0 && i < e->notes.n; i++) {
		int rc = catalog_note(e->catalog, e->notes.items[i].db,
				      &e->notes.items[i].entry);

		changed = rc < 0 ? rc : changed | rc;
	}
	return changed;
}

/* Can we change only what we have read? */
static int find_conditional(struct edit *e)
{
	unsigned caps;
	int rc = bucket_probe(e->c->config.bucket, &caps);

	if (rc < 0)
		return rc;
	e->conditional = (caps & BUCKET_IF_MATCH) != 0;
	if (!e->conditional && !e->c->warned) {
		e->c->warned = true;
		log_warn("the bucket does not keep If-Match, so two writers "
			 "can lose each other's lines of the catalog",
			 "bucket=%s", log_quote(e->c->config.bucket->url));
	}
	return 0;
}

/* -ERR_PRECOND, -ENOENT: somebody was faster, or it was ourselves. */
static int put(struct edit *e)
{
	AUTO(buf) struct buf text = BUF_INIT(CATALOG_SIZE_MAX);
	struct bucket_put put = { .key = CATALOG_KEY, .fd = -1 };
	struct bucket_info reply = { 0 };
	int rc = catalog_print(e->catalog, &text);

	if (rc < 0)
		return rc;
	put.data = text.data;
	put.size = text.size;
	put.if_absent = e->absent;
	put.if_match = e->conditional && !e->absent ? e->etag : NULL;
	rc = bucket_put(e->c->config.bucket, &put, &reply);
	FAILPOINT("catalog-put");
	if (rc < 0)
		return rc;
	memcpy(e->etag, reply.etag, sizeof(e->etag));
	/* Some stores tell no ETag in the reply to a put. */
	if (!e->etag[0])
		edit_forget(e);
	return 0;
}

/* Put what was made of what was read.  1: lost a race. */
static int race(struct edit *e)
{
	int rc;

	FAILPOINT("catalog-due");
	rc = put(e);
	if (rc != -ERR_PRECOND && rc != -ENOENT)
		return rc;
	edit_forget(e);
	return 1;
}

/* What was noted. */
static int write_once(struct edit *e)
{
	int rc = load(e);

	if (rc == 0)
		rc = apply(e);
	if (rc < 0)
		return rc;
	memcpy(e->id, catalog_id(e->catalog), CATALOG_ID_SIZE);
	return rc == 0 && !e->absent ? 0 : race(e);
}

/*
 * Only the epoch, and only over what is there.  One that is damaged is left
 * alone: nobody can have made another one from it, so nobody can replace it.
 */
static int take_once(struct edit *e)
{
	int rc;

	edit_forget(e);
	rc = read_catalog(e->c, &e->catalog, e->etag);
	if (rc == -ENOENT)
		return check_absent(e->c);
	if (rc == -ERR_CORRUPT || rc == -EFBIG) {
		log_warn("the bucket's catalog cannot be read", "error=%s",
			 log_quote(error_message()));
		return 0;
	}
	if (rc == 0)
		rc = apply_epoch(e);
	return rc > 0 ? race(e) : rc;
}

/* Until no race is lost; but not for ever. */
static int write_catalog(struct edit *e, int (*once)(struct edit *e))
{
	int rc = find_conditional(e);

	if (rc == 0)
		rc = 1;
	for (int i = 0; rc > 0 && i < RACES_MAX; i++)
		rc = once(e);
	if (rc > 0)
		rc = error_set(-EAGAIN, "others change it all the time");
	/* What was or was not written is seen by reading it. */
	if (rc < 0)
		edit_forget(e);
	return rc < 0 ? error_wrap(rc, "writing " CATALOG_KEY) : 0;
}

/*
 * A new epoch
 * -----------
 *
 * Who takes is busy like the thread, so no put of ours is under way meanwhile.
 * One that had no answer may still arrive: over another version, or if there is
 * no catalog, it can do nothing, and if it makes one, what was noted is pending
 * again and brings the epoch.
 */

/* The lock is held, but not all the time. */
static int wait_idle(struct uploader_catalog *c)
{
	int rc = 0;

	while (c->busy && rc == 0) {
		(void)cond_wait_until(&c->changed, &c->lock,
				      clock_monotonic_ms() + LOOK_MS);
		rc = bucket_patience();
	}
	return rc;
}

/*
 * The epoch is ours before it is written: if that has no answer, and so has to
 * be tried again, the thread must not take its own epoch for another one's.
 */
static int begin_take(struct uploader_catalog *c, uint64_t epoch,
		      struct edit *e)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&c->lock);
	int rc = wait_idle(c);

	if (rc < 0)
		return rc;
	if (epoch < 1 || epoch > UINT32_MAX || epoch < c->epoch)
		return error_set(-EINVAL, "%" PRIu64 " is no epoch after %"
				 PRIu64, epoch, c->epoch);
	if (c->verdict && c->verdict != -ERR_FENCED)
		return error_set(c->verdict, "%s", c->error);
	c->busy = true;
	c->epoch = e->epoch = epoch;
	catalog_free(TAKE(c->catalog));
	return 0;
}

static void end_take(struct uploader_catalog *c, struct edit *e, int rc)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&c->lock);

	c->busy = false;
	c->catalog = TAKE(e->catalog);
	memcpy(c->etag, e->etag, sizeof(c->etag));
	/* That of an earlier epoch, which is over. */
	if (rc == 0 && c->verdict == -ERR_FENCED) {
		c->verdict = 0;
		c->error[0] = '\0';
	}
	(void)pthread_cond_broadcast(&c->changed);
}

int uploader_catalog_take(struct uploader_catalog *c, uint64_t epoch)
{
	AUTO(edit) struct edit e = { .c = c };
	int rc = begin_take(c, epoch, &e);

	if (rc < 0)
		return rc;
	rc = write_catalog(&e, take_once);
	end_take(c, &e, rc);
	return rc;
}

/* The id, the first time that it is certain. */
static void identify(struct uploader_catalog *c, const char *id)
{
	{
		AUTO(unlock) pthread_mutex_t *held = lock(&c->lock);

		memcpy(c->id, id, sizeof(c->id));
		if (c->told)
			return;
	}
	if (c->config.identified &&
	    c->config.identified(c->config.arg, id) < 0) {
		log_warn("the bucket's id is not kept, so a start with another "
			 "bucket would not be noticed", "error=%s",
			 log_quote(error_message()));
		return;
	}
	AUTO(unlock) pthread_mutex_t *held = lock(&c->lock);
	c->told = true;
}

/*
 * The thread
 * ----------
 */

/* The lock is held.  From pending into the thread's hands. */
static void begin(struct uploader_catalog *c, struct edit *e)
{
	c->busy = true;
	c->woken = false;
	e->epoch = c->epoch;
	e->notes = c->pending;
	c->pending = (struct notes){ 0 };
	e->catalog = TAKE(c->catalog);
	memcpy(e->etag, c->etag, sizeof(e->etag));
}

/* May we write? */
static int ask(struct edit *e)
{
	const struct uploader_catalog_config *config = &e->c->config;
	int rc = config->may_send ? config->may_send(config->arg) : 0;

	if (rc == -ERR_FENCED)
		return judge(e->c, rc);
	e->refused = rc < 0;
	return rc;
}

/* Without the lock: whoever reads the log may be slow. */
static void log_outcome(struct edit *e, int rc)
{
	struct uploader_catalog *c = e->c;
	unsigned failures;
	int verdict;

	(void)lock(&c->lock);
	failures = c->failures;
	verdict = c->verdict;
	(void)pthread_mutex_unlock(&c->lock);
	if (rc == -ECANCELED || e->refused)
		return;
	if (rc == 0 && failures > 0)
		log_info("the catalog is written again", "failures=%u",
			 failures);
	else if (rc < 0 && verdict)
		log_error("nothing is uploaded to this bucket", "error=%s",
			  log_quote(error_message()));
	else if (rc < 0 && failures == 0)
		log_warn("cannot write the catalog, trying again", "error=%s",
			 log_quote(error_message()));
}

/* The lock is held.  Until it is tried again. */
static int64_t pause_after(struct uploader_catalog *c, const struct edit *e,
			   int rc)
{
	unsigned before = e->refused ? c->refusals++ : c->failures++;
	uint32_t random;

	if (c->woken)
		return 0;
	io_random(&random, sizeof(random));
	return pace_pause(before, !e->refused && !bucket_transient(rc), random);
}

/* The lock is held. */
static void end(struct uploader_catalog *c, struct edit *e, int rc)
{
	c->busy = false;
	c->put_ms = clock_monotonic_ms();
	c->catalog = TAKE(e->catalog);
	memcpy(c->etag, e->etag, sizeof(c->etag));
	if (rc == 0) {
		c->failures = c->refusals = 0;
		c->error[0] = '\0';
		/* Of what was noted meanwhile. */
		c->due_ms = c->put_ms + REST_MS;
	} else {
		notes_put_back(&c->pending, &e->notes);
		if (!c->verdict)
			(void)snprintf(c->error, sizeof(c->error), "%s",
				       error_message());
		c->due_ms = c->put_ms + pause_after(c, e, rc);
	}
	(void)pthread_cond_broadcast(&c->changed);
}

/* The lock is held, but not all the time. */
static void write_pending(struct uploader_catalog *c)
{
	AUTO(edit) struct edit e = { .c = c };
	int rc;

	begin(c, &e);
	(void)pthread_mutex_unlock(&c->lock);
	rc = ask(&e);
	if (rc == 0)
		rc = write_catalog(&e, write_once);
	log_outcome(&e, rc);
	if (rc == 0)
		identify(c, e.id);
	(void)lock(&c->lock);
	end(c, &e, rc);
}

/* The lock is held. */
static bool in_pause(const struct uploader_catalog *c)
{
	return c->failures > 0 || c->refusals > 0;
}

/* The lock is held.  When to write; COND_NEVER while there is nothing to. */
static int64_t next_write_ms(const struct uploader_catalog *c)
{
	if (!c->pending.n || c->verdict || c->busy)
		return COND_NEVER;
	return c->draining && !in_pause(c) ? INT64_MIN : c->due_ms;
}

static void *work(void *arg)
{
	struct uploader_catalog *c = arg;

	bucket_cancel_by(&c->closing);
	(void)lock(&c->lock);
	while (!atomic_load(&c->closing)) {
		int64_t due = next_write_ms(c);

		if (due <= clock_monotonic_ms())
			write_pending(c);
		else
			(void)cond_wait_until(&c->changed, &c->lock, due);
	}
	(void)pthread_mutex_unlock(&c->lock);
	return NULL;
}

/* Signals are for the threads that expect them. */
static int start_thread(struct uploader_catalog *c)
{
	sigset_t all, before;
	int err;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	err = pthread_create(&c->thread, NULL, work, c);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	c->running = err == 0;
	errno = err;
	return err ? error_errno("starting the catalog's thread") : 0;
}

int uploader_catalog_new(const struct uploader_catalog_config *config,
			 struct uploader_catalog **ret)
{
	struct uploader_catalog *c = calloc(1, sizeof(*c));
	int rc;

	if (!c)
		return error_set(-ENOMEM, "no memory for the catalog");
	c->config = *config;
	c->put_ms = -REST_MS;
	if (config->bucket_id)
		(void)snprintf(c->id, sizeof(c->id), "%s", config->bucket_id);
	c->told = c->id[0] != '\0';
	(void)pthread_mutex_init(&c->lock, NULL);
	rc = cond_init(&c->changed);
	if (rc < 0) {
		(void)pthread_mutex_destroy(&c->lock);
		free(c);
		return rc;
	}
	rc = start_thread(c);
	if (rc < 0)
		uploader_catalog_free(c);
	else
		*ret = c;
	return rc;
}

/* The lock is held. */
static int64_t first_due_ms(const struct uploader_catalog *c)
{
	int64_t gathered = clock_monotonic_ms() + GATHER_MS;
	int64_t rested = c->put_ms + REST_MS;

	return gathered > rested ? gathered : rested;
}

static int add_note(struct uploader_catalog *c, const struct note *note)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&c->lock);
	int rc = notes_add(&c->pending, note);

	if (rc < 0)
		return rc;
	/* After a failure the pause goes on. */
	if (c->pending.n == 1 && !in_pause(c))
		c->due_ms = first_due_ms(c);
	(void)pthread_cond_broadcast(&c->changed);
	return 0;
}

void uploader_catalog_note(struct uploader_catalog *c, const char *db,
			   const struct ltx_header *slot)
{
	struct note note = {
		.db = strdup(db),
		.entry = {
			.page_size = slot->page_size,
			.dropped = slot->kind == LTX_DROP,
			.txid = slot->max_txid,
			.time_ms = slot->timestamp_ms,
		},
	};

	if (note.db && add_note(c, &note) == 0)
		return;
	free(note.db);
	log_warn("the catalog is not up to date until the next start",
		 "db=%s error=\"out of memory\"", log_quote(db));
}

/* The lock is held.  Returns whether all is written. */
static bool wait_written(struct uploader_catalog *c, int64_t until_ms)
{
	unsigned failures = c->failures, refusals = c->refusals;
	int rc = 0;

	c->draining = true;
	c->due_ms = INT64_MIN;
	(void)pthread_cond_broadcast(&c->changed);
	while ((c->pending.n || c->busy) && !c->verdict && rc != -ETIMEDOUT &&
	       c->failures <= failures && c->refusals <= refusals)
		rc = cond_wait_until(&c->changed, &c->lock, until_ms);
	c->draining = false;
	return !c->pending.n && !c->busy;
}

void uploader_catalog_drain(struct uploader_catalog *c, int64_t until_ms)
{
	char error[sizeof(c->error)];
	bool written;

	(void)lock(&c->lock);
	written = wait_written(c, until_ms);
	memcpy(error, c->error, sizeof(error));
	(void)pthread_mutex_unlock(&c->lock);
	if (!written)
		log_warn("the catalog is not up to date; the next mount "
			 "writes it", "error=%s", log_quote(error));
}

void uploader_catalog_wake(struct uploader_catalog *c)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&c->lock);

	c->woken = true;
	c->refusals = 0;
	if (c->pending.n)
		c->due_ms = INT64_MIN;
	(void)pthread_cond_broadcast(&c->changed);
}

void uploader_catalog_error(struct uploader_catalog *c, char *ret, size_t size)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&c->lock);

	(void)snprintf(ret, size, "%s", c->error);
}

void uploader_catalog_free(struct uploader_catalog *c)
{
	if (!c)
		return;
	(void)lock(&c->lock);
	atomic_store(&c->closing, true);
	(void)pthread_cond_broadcast(&c->changed);
	(void)pthread_mutex_unlock(&c->lock);
	if (c->running)
		(void)pthread_join(c->thread, NULL);
	notes_clear(&c->pending);
	catalog_free(c->catalog);
	(void)pthread_cond_destroy(&c->changed);
	(void)pthread_mutex_destroy(&c->lock);
	free(c);
}
