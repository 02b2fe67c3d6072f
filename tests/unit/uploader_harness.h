#ifndef LITEBUCKET_TESTS_UPLOADER_HARNESS_H
#define LITEBUCKET_TESTS_UPLOADER_HARNESS_H

/*
 * An uploader with a bucket, and databases whose commits are made up: a seal
 * writes one batch into a real spool, however many commits there were.
 */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "tests/unit/uploader_fixture.h"
#include "uploader/uploader.h"

enum { DBS = 8, CONFIRMED = 256, WAKES = 6 };

struct made_up_db {
	char path[32];
	struct spool *spool;
	struct batch_like next;	  /* what the next batch is like */
	uint64_t sealed;	  /* the last TXID */
	unsigned commits;	  /* since the last seal */
	int fail_seal;
	bool sealing;
	unsigned seals, overlaps; /* calls; calls during a call */
	uint64_t confirmed[CONFIRMED];
	unsigned n_confirmed;
};

static struct {
	struct place place;
	struct uploader *u;
	pthread_mutex_t lock; /* for all below */
	struct made_up_db dbs[DBS];
	unsigned n_dbs;
	int64_t offset_ms;
	int refuse;	/* what may_send() answers, */
	unsigned allow; /* after it has answered 0 so many times */
	unsigned asks;
	bool wakes; /* from the third one on each refusal comes with a wake */
} h;

static inline struct made_up_db *db_of(const char *path)
{
	for (unsigned i = 0; i < h.n_dbs; i++)
		if (strcmp(h.dbs[i].path, path) == 0)
			return &h.dbs[i];
	return NULL;
}

static inline int harness_seal(void *arg, const char *path)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&h.lock);
	struct made_up_db *db = db_of(path);
	struct batch_like like = db->next;

	(void)held;
	db->seals++;
	db->overlaps += db->sealing;
	if (db->fail_seal)
		return error_set(db->fail_seal, "told to fail");
	if (db->commits == 0)
		return 0;
	db->sealing = true;
	db->commits = 0;
	db->sealed++;
	(void)pthread_mutex_unlock(&h.lock);
	spool_fill(db->spool, db->sealed, &like);
	(void)lock(&h.lock);
	db->sealing = false;
	return 1;
}

static inline void harness_confirmed(void *arg, const char *path, uint64_t txid)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&h.lock);
	struct made_up_db *db = db_of(path);

	(void)held;
	if (db->n_confirmed < CONFIRMED)
		db->confirmed[db->n_confirmed++] = txid;
}

static inline void harness_offset(void *arg, int64_t offset_ms)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&h.lock);

	(void)held;
	h.offset_ms = offset_ms;
}

static inline int harness_may_send(void *arg)
{
	bool wakes = false;
	int refuse = 0;

	(void)lock(&h.lock);
	if (++h.asks > h.allow)
		refuse = h.refuse;
	wakes = refuse && h.wakes && h.asks >= 3;
	if (wakes && h.asks == 3 + WAKES)
		h.refuse = 0;
	(void)pthread_mutex_unlock(&h.lock);
	if (wakes)
		uploader_wake(h.u);
	return refuse ? error_set(refuse, "node7 has the lease") : 0;
}

static inline int harness_set_up(void **state)
{
	memset(&h, 0, sizeof(h));
	pthread_mutex_init(&h.lock, NULL);
	place_open(&h.place);
	return 0;
}

static inline void start(unsigned connections, int64_t interval_ms)
{
	struct uploader_config config = {
		.bucket = &h.place.net.bucket,
		.connections = connections,
		.interval_ms = interval_ms,
		.seal = harness_seal,
		.confirmed = harness_confirmed,
		.clock_offset = harness_offset,
		.may_send = harness_may_send,
		.temp_dir = h.place.dir,
	};

	assert_int_equal(uploader_new(&config, &h.u), 0);
}

static inline void stop(void)
{
	uploader_free(TAKE(h.u));
}

static inline int harness_tear_down(void **state)
{
	stop();
	for (unsigned i = 0; i < h.n_dbs; i++) {
		assert_int_equal(h.dbs[i].overlaps, 0);
		spool_free(h.dbs[i].spool);
	}
	place_close(&h.place);
	return 0;
}

/* A database with batches first..last in its spool. */
static inline struct made_up_db *new_db(const char *path, uint64_t first,
					uint64_t last)
{
	struct made_up_db *db = &h.dbs[h.n_dbs++];

	assert_true(h.n_dbs <= DBS);
	strcpy(db->path, path);
	assert_int_equal(spool_open(h.place.fd, path, &db->spool), 0);
	for (uint64_t txid = first; txid && txid <= last; txid++)
		spool_fill(db->spool, txid, NULL);
	db->sealed = last;
	return db;
}

static inline void add(struct made_up_db *db, uint64_t confirmed)
{
	assert_int_equal(uploader_add(h.u, db->path, db->spool, confirmed), 0);
}

/* A database that is new, and known to the uploader. */
static inline struct made_up_db *add_new(const char *path)
{
	struct made_up_db *db = new_db(path, 0, 0);

	add(db, 0);
	return db;
}

static inline void commit_quietly(struct made_up_db *db)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&h.lock);

	(void)held;
	db->commits++;
}

static inline void commit(struct made_up_db *db)
{
	commit_quietly(db);
	uploader_notify(h.u, db->path);
}

#define LOCKED(value)                                \
	__extension__({                              \
		(void)lock(&h.lock);                 \
		__auto_type value_ = (value);        \
		pthread_mutex_unlock(&h.lock);       \
		value_;                              \
	})

static inline void refuse(int rc)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&h.lock);

	(void)held;
	h.refuse = rc;
}

static inline int wait_for(struct made_up_db *db, uint64_t txid)
{
	return uploader_wait(h.u, db->path, txid, batch_time(txid), 20000,
			     NULL);
}

static inline struct uploader_status status_of(struct made_up_db *db)
{
	struct uploader_status status;

	assert_int_equal(uploader_status(h.u, db->path, &status), 0);
	return status;
}

/* Poll for what no call waits for. */
#define EVENTUALLY(condition)                                   \
	do {                                                    \
		for (int i_ = 0; i_ < 1000 && !(condition); i_++) \
			clock_sleep_ms(10);                     \
		assert_true(condition);                         \
	} while (0)

static inline void assert_settled(struct made_up_db *db)
{
	EVENTUALLY(status_of(db).state == UPLOADER_IDLE);
	assert_int_equal(status_of(db).spool_batches, 0);
}

/* 1, 2, 3, ...: in order, none twice. */
static inline void assert_confirmed(struct made_up_db *db, uint64_t first,
				    uint64_t last)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&h.lock);

	(void)held;
	assert_int_equal(db->n_confirmed, last - first + 1);
	for (unsigned i = 0; i < db->n_confirmed; i++)
		assert_int_equal(db->confirmed[i], first + i);
}

#define TEST(name) \
	cmocka_unit_test_setup_teardown(name, harness_set_up, harness_tear_down)

#endif
