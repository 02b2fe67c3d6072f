#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/cond.h"
#include "base/error.h"
#include "base/fail.h"
#include "base/log.h"
#include "bucket/bucket.h"
#include "bucket/epoch.h"
#include "bucket/patience.h"
#include "cli/lives.h"

#include "cli/tenure.h"

enum {
	ASK_MS = 10000,	     /* a start waits no longer for who says nothing */
	AGAIN_MS = 1000,     /* after a failure, and while another has it */
	LOOK_MS = 300,	     /* while it is not known whether another is alive */
	STEP_MS = 100,	     /* between two looks whether to stop */
	CLOSE_MS = 500,	     /* while logs are to be closed; more and more */
	CLOSE_MAX_MS = 60000,
	RELEASE_MS = 2000,
};

struct tenure {
	struct tenure_config config;
	pthread_t thread;
	bool running; /* the owner's */
	atomic_bool stopping;

	/*
	 * One thread's at a time: tenure_begin()'s, then the thread's, and after
	 * tenure_stop() the owner's.
	 */
	struct lease *lease;
	struct life formers[LEASE_FORMERS], self;
	bool distrust;	/* lock.json: the bucket knew a greater epoch */
	bool standing;	/* another's lease is waited for */
	bool failing;	/* and that is logged */
	struct lease_state rival; /* as first seen while seeking */
	int64_t close_ms, close_pause_ms; /* when to close logs again */

	pthread_mutex_t lock; /* guards all below */
	pthread_cond_t changed;
	enum tenure_state state;
	struct lease_state seen;
	uint32_t epoch;
	bool owes; /* barriers */
	bool poked;
	char error[512];
};

const char *tenure_state_name(enum tenure_state state)
{
	static const char *const names[] = { "seeking", "held", "lost" };

	return names[state];
}

/* ------------------------------------------------------ what others see */

static void publish(struct tenure *t, enum tenure_state state, int rc)
{
	bool news;

	{
		AUTO(unlock) pthread_mutex_t *held = lock(&t->lock);

		news = state != t->state;
		t->state = state;
		lease_state(t->lease, &t->seen);
		if (rc == 0)
			t->error[0] = '\0';
		else
			(void)snprintf(t->error, sizeof(t->error), "%s",
				       error_message());
	}
	if (news && state != TENURE_SEEKING)
		t->config.changed(t->config.arg, state);
}

static enum tenure_state state_of(struct tenure *t)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&t->lock);

	return t->state;
}

uint32_t tenure_epoch(struct tenure *t)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&t->lock);

	return t->epoch;
}

bool tenure_owes_barriers(struct tenure *t)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&t->lock);

	return t->owes;
}

int tenure_may_send(struct tenure *t)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&t->lock);

	switch (t->state) {
	case TENURE_HELD:
		return 0;
	case TENURE_LOST:
		return error_set(-ERR_FENCED, "%s", t->error);
	default:
		return error_set(-EBUSY, "the bucket's lease is not held%s%s",
				 t->error[0] ? ": " : " yet", t->error);
	}
}

void tenure_status(struct tenure *t, struct tenure_status *ret)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&t->lock);

	*ret = (struct tenure_status){
		.state = t->state,
		.lease = t->seen,
	};
	memcpy(ret->error, t->error, sizeof(ret->error));
}

/* ---------------------------------------------------------------- taking */

static const struct life *former(const struct tenure *t, const char *holder)
{
	for (int i = 0; i < LEASE_FORMERS; i++)
		if (holder[0] && strcmp(t->formers[i].holder, holder) == 0)
			return &t->formers[i];
	return NULL;
}

/*
 * What is not noted only costs the next start time: it is a stranger to it.  So
 * a full disk, which may need the bucket to become empty, keeps nobody.
 */
static void note_lives(struct tenure *t, const struct life *other)
{
	struct life lives[LEASE_FORMERS] = { t->self };

	if (other)
		lives[1] = *other;
	if (lives_write(t->config.dirfd, lives) < 0)
		log_warn("the next start will not know that the lease was its "
			 "own", "error=%s", log_quote(error_message()));
}

/* Before it is taken: who takes it, and from whom it may be taken. */
static void note_attempt(struct tenure *t)
{
	t->self = (struct life){ .epoch = tenure_epoch(t) };
	memcpy(t->self.holder, lease_holder(t->lease), LEASE_HOLDER_SIZE);
	note_lives(t, t->formers[0].holder[0] ? &t->formers[0] : NULL);
}

/* Are all logs closed for what others sent before? */
static bool found_closed(const struct tenure *t, const struct lease_state *s)
{
	const struct life *last = former(t, s->before);

	return last ? last->closed : s->clean;
}

static void note_epoch(struct tenure *t)
{
	struct lease_state s;

	lease_state(t->lease, &s);
	t->self.epoch = (uint32_t)s.epoch;
	t->self.closed = found_closed(t, &s);
	t->close_ms = 0;
	t->close_pause_ms = CLOSE_MS;
	{
		AUTO(unlock) pthread_mutex_t *held = lock(&t->lock);

		t->epoch = t->self.epoch;
		t->owes = !t->self.closed;
	}
	note_lives(t, NULL);
}

/*
 * An epoch below which none may begin; -EBUSY if another has the lease.  What
 * lock.json says is above all, as long as nobody has removed it: who makes it
 * again looks at the logs, however many there are.
 */
static int find_known(struct tenure *t, uint64_t *ret)
{
	struct lease_state s;
	uint64_t found = 0;
	int rc = lease_look(t->lease);

	if (rc == 0)
		rc = lease_may_take(t->lease);
	if (rc < 0)
		return rc;
	lease_state(t->lease, &s);
	if (s.epoch == 0 || t->distrust) {
		bucket_wait_until(0);
		rc = epoch_greatest(t->config.bucket, &found);
		bucket_wait_until(clock_monotonic_ms() + ASK_MS);
	}
	*ret = found > tenure_epoch(t) ? found : tenure_epoch(t);
	return rc;
}

static int take_lease(struct tenure *t)
{
	uint64_t known;
	int rc = find_known(t, &known);

	if (rc < 0)
		return rc;
	note_attempt(t);
	rc = lease_take(t->lease, known);
	if (rc < 0)
		return rc;
	FAILPOINT("lease-taken");
	note_epoch(t);
	return 0;
}

static bool is_held(const struct tenure *t)
{
	struct lease_state s;

	lease_state(t->lease, &s);
	return s.held;
}

/* Take it, unless that has been done, and what comes with it. */
static int take(struct tenure *t)
{
	int rc = is_held(t) ? lease_renew(t->lease) : take_lease(t);

	if (rc == 0)
		rc = t->config.took(t->config.arg, tenure_epoch(t));
	if (rc < 0)
		return rc;
	log_info("holding the lease", "epoch=%" PRIu32, tenure_epoch(t));
	t->failing = t->distrust = t->standing = false;
	publish(t, TENURE_HELD, 0);
	return 0;
}

/* From here on nobody's word counts, but what is in the bucket. */
static void distrust(struct tenure *t)
{
	memset(t->formers, 0, sizeof(t->formers));
	t->distrust = true;
}

/* If the bucket knows a greater epoch than lock.json did, one above that. */
static int take_above(struct tenure *t)
{
	int rc = take(t);

	if (rc != -ERR_FENCED)
		return rc;
	(void)lease_release(t->lease, false);
	distrust(t);
	return take(t);
}

static void fail(struct tenure *t, int rc)
{
	enum tenure_state state = state_of(t);

	if (!t->failing)
		log_warn(state == TENURE_HELD ?
				 "the lease cannot be renewed, trying again" :
				 "the lease is not held, trying again",
			 "error=%s", log_quote(error_message()));
	t->failing = true;
	publish(t, state, rc);
}

/* --------------------------------------------------------------- the start */

static int take_in_time(struct tenure *t)
{
	int rc;

	bucket_wait_until(clock_monotonic_ms() + ASK_MS);
	rc = take_above(t);
	bucket_wait_until(0);
	return rc;
}

static void sleep_unless(const atomic_bool *stop, int64_t ms)
{
	int64_t until = clock_monotonic_ms() + ms;

	while (!atomic_load(stop) && clock_monotonic_ms() < until)
		clock_sleep_ms(STEP_MS);
}

/* One line for each holder. */
static void tell_holder(struct tenure *t, uint64_t *told)
{
	struct lease_state s;

	lease_state(t->lease, &s);
	if (s.epoch == *told)
		return;
	*told = s.epoch;
	log_info("waiting for the lease; nothing is served meanwhile",
		 "reason=%s", log_quote(error_message()));
}

/* What no time mends, and who goes on would not be seen by others. */
static bool is_fatal(int rc)
{
	return rc == -ERR_CORRUPT || rc == -EOPNOTSUPP || rc == -EOVERFLOW ||
	       rc == -ENODATA || rc == -EINVAL || rc == -ECANCELED;
}

/*
 * Is somebody else at work?  What is left of one that is gone is never renewed,
 * and expires.
 */
static bool is_alive(struct tenure *t)
{
	struct lease_state s;

	lease_state(t->lease, &s);
	if (!t->rival.holder[0])
		t->rival = s;
	return strcmp(s.holder, t->rival.holder) != 0 ||
	       s.expires_ms != t->rival.expires_ms;
}

void tenure_stand_by(struct tenure *t)
{
	t->standing = true;
}

int tenure_begin(struct tenure *t, const atomic_bool *stop, bool warm)
{
	uint64_t told = 0;
	int rc;

	for (;;) {
		rc = take_in_time(t);
		if (rc == 0 || (is_fatal(rc) && !atomic_load(stop)))
			return rc;
		if (atomic_load(stop))
			return error_set(-ECANCELED, "stopped while waiting "
						     "for the lease");
		/* What one that is gone left behind is soon over. */
		if (rc == -EBUSY && warm && !is_held(t) && is_alive(t)) {
			publish(t, TENURE_SEEKING, rc);
			return 2;
		}
		if (rc == -EBUSY)
			tell_holder(t, &told);
		else
			fail(t, rc);
		/* Who has seen another, or has begun, needs to know (R4). */
		if (rc != -EBUSY && !told && !is_held(t))
			return 1;
		sleep_unless(stop, warm ? LOOK_MS : AGAIN_MS);
	}
}

/* -------------------------------------------------------------- the thread */

static void lose(struct tenure *t, int rc)
{
	log_error("the lease is lost: what is committed here is not uploaded "
		  "any more; stop this mount, its next start compares what it "
		  "has with the bucket", "error=%s",
		  log_quote(error_message()));
	publish(t, TENURE_LOST, rc);
}

/* Somebody removed lock.json, and nobody has made another so far. */
static bool is_gone(const struct tenure *t)
{
	struct lease_state s;

	lease_state(t->lease, &s);
	return s.epoch == 0;
}

static void seek(struct tenure *t)
{
	int rc = take_above(t);

	if (rc == -EBUSY && t->standing)
		publish(t, TENURE_SEEKING, rc);
	else if (rc == -EBUSY && is_alive(t))
		lose(t, rc);
	else if (rc < 0 && rc != -ECANCELED)
		fail(t, rc);
}

static void renew(struct tenure *t)
{
	int rc = lease_renew(t->lease);

	if (rc == 0) {
		if (t->failing)
			log_info("the lease is renewed again",
				 "epoch=%" PRIu32, tenure_epoch(t));
		t->failing = false;
		publish(t, TENURE_HELD, 0);
	} else if (rc == -ERR_FENCED && is_gone(t)) {
		/* Who took it meanwhile, and was removed as well, is unknown. */
		distrust(t);
		publish(t, TENURE_SEEKING, rc);
		seek(t);
	} else if (rc == -ERR_FENCED) {
		lose(t, rc);
	} else if (rc != -ECANCELED) {
		fail(t, rc);
	}
}

static void note_closed(struct tenure *t)
{
	t->self.closed = true;
	note_lives(t, NULL);
	log_info("all logs are closed for older epochs", "epoch=%" PRIu32,
		 tenure_epoch(t));
	AUTO(unlock) pthread_mutex_t *held = lock(&t->lock);
	t->owes = false;
}

static int64_t renewal_ms(const struct tenure *t)
{
	int64_t ttl = t->config.ttl_ms ? t->config.ttl_ms : LEASE_TTL_MS;

	return ttl / 3;
}

/* One that a person has to see to can keep all from being closed for days. */
static void close_logs(struct tenure *t)
{
	int64_t until = clock_monotonic_ms() + renewal_ms(t) / 2;

	if (t->config.close_logs(t->config.arg, until) == 0) {
		note_closed(t);
		return;
	}
	t->close_ms = clock_monotonic_ms() + t->close_pause_ms;
	t->close_pause_ms *= 2;
	if (t->close_pause_ms > CLOSE_MAX_MS)
		t->close_pause_ms = CLOSE_MAX_MS;
}

static void ask(struct tenure *t)
{
	bucket_wait_until(clock_monotonic_ms() + ASK_MS);
	if (state_of(t) == TENURE_SEEKING)
		seek(t);
	else
		renew(t);
	bucket_wait_until(0);
}

static void wait_until(struct tenure *t, int64_t until_ms)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&t->lock);
	int rc = 0;

	while (!atomic_load(&t->stopping) && !t->poked && rc != -ETIMEDOUT)
		rc = cond_wait_until(&t->changed, &t->lock, until_ms);
	if (t->poked)
		t->close_ms = 0;
	t->poked = false;
}

static void *work(void *arg)
{
	struct tenure *t = arg;
	int64_t pause = state_of(t) == TENURE_HELD ? renewal_ms(t) : 0;
	int64_t ask_ms = clock_monotonic_ms() + pause;

	bucket_cancel_by(&t->stopping);
	while (!atomic_load(&t->stopping) && state_of(t) != TENURE_LOST) {
		bool closing = state_of(t) == TENURE_HELD &&
			       tenure_owes_barriers(t);
		int64_t now = clock_monotonic_ms();

		if (now >= ask_ms) {
			ask(t);
			ask_ms = clock_monotonic_ms() +
				 (t->failing || t->standing ? AGAIN_MS :
							      renewal_ms(t));
		} else if (closing && now >= t->close_ms) {
			close_logs(t);
		} else {
			wait_until(t, closing && t->close_ms < ask_ms ?
					      t->close_ms : ask_ms);
		}
	}
	return NULL;
}

int tenure_start(struct tenure *t)
{
	sigset_t all, before;
	int err;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	err = pthread_create(&t->thread, NULL, work, t);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	t->running = err == 0;
	errno = err;
	return err ? error_errno("starting the lease's thread") : 0;
}

/* ------------------------------------------------------- beginning, ending */

int tenure_new(const struct tenure_config *config, struct tenure **ret)
{
	struct tenure *t = calloc(1, sizeof(*t));
	struct lease_config lease = {
		.bucket = config->bucket,
		.owner = config->owner,
		.url = config->url,
		.ttl_ms = config->ttl_ms,
	};
	int rc;

	if (!t)
		return error_set(-ENOMEM, "no memory for the lease");
	t->config = *config;
	rc = cond_init(&t->changed);
	if (rc < 0) {
		free(t);
		return rc;
	}
	(void)pthread_mutex_init(&t->lock, NULL);
	rc = lives_read(config->dirfd, t->formers, &t->epoch);
	for (int i = 0; rc == 0 && i < LEASE_FORMERS; i++)
		memcpy(lease.formers[i], t->formers[i].holder,
		       LEASE_HOLDER_SIZE);
	if (rc == 0)
		rc = lease_new(&lease, &t->lease);
	if (rc < 0)
		tenure_free(t);
	else
		*ret = t;
	return rc;
}

void tenure_stop(struct tenure *t)
{
	if (!t)
		return;
	(void)lock(&t->lock);
	atomic_store(&t->stopping, true);
	(void)pthread_cond_broadcast(&t->changed);
	(void)pthread_mutex_unlock(&t->lock);
	if (t->running)
		(void)pthread_join(t->thread, NULL);
	t->running = false;
}

void tenure_poke(struct tenure *t)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&t->lock);

	t->poked = true;
	(void)pthread_cond_broadcast(&t->changed);
}

void tenure_close(struct tenure *t)
{
	if (t && state_of(t) == TENURE_HELD && tenure_owes_barriers(t) &&
	    t->config.close_logs(t->config.arg, INT64_MAX) == 0)
		note_closed(t);
}

void tenure_release(struct tenure *t, bool sent_all)
{
	if (!t)
		return;
	bucket_wait_until(clock_monotonic_ms() + RELEASE_MS);
	if (lease_release(t->lease, sent_all && t->self.closed) < 0)
		log_warn("the lease is not given back, so others have to wait "
			 "until it expires", "error=%s",
			 log_quote(error_message()));
	bucket_wait_until(0);
}

void tenure_free(struct tenure *t)
{
	if (!t)
		return;
	lease_free(t->lease);
	(void)pthread_cond_destroy(&t->changed);
	(void)pthread_mutex_destroy(&t->lock);
	free(t);
}
