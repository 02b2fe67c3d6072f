#ifndef LITEBUCKET_TESTS_UPLOADER_CATALOGS_H
#define LITEBUCKET_TESTS_UPLOADER_CATALOGS_H

/*
 * The catalog of the harness's bucket, as its uploader and others leave it.
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "bucket/catalog.h"
#include "tests/unit/uploader_harness.h"

#define OTHER_ID "ffffffffffffffffffffffffffffffff"

static struct {
	char id[CATALOG_ID_SIZE]; /* as identified() was told */
	unsigned told;
	int fail; /* what identified() returns */
} who;

static inline struct fault_bucket *net(void)
{
	return &h.place.net;
}

static inline int identified(void *arg, const char *id)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&h.lock);

	snprintf(who.id, sizeof(who.id), "%s", id);
	who.told++;
	return who.fail ? error_set(who.fail, "told to fail") : 0;
}

/* As start(), for a directory that knows the bucket by id. */
static inline void start_as(const char *id)
{
	struct uploader_config config = {
		.bucket = &net()->bucket,
		.connections = 4,
		.seal = harness_seal,
		.confirmed = harness_confirmed,
		.identified = identified,
		.may_send = harness_may_send,
		.bucket_id = id,
		.temp_dir = h.place.dir,
	};

	memset(&who, 0, sizeof(who));
	assert_int_equal(uploader_new(&config, &h.u), 0);
}

/* What the bucket has now, whatever the network does; NULL: no catalog. */
static inline struct catalog *catalog_now(void)
{
	struct catalog *c = NULL;
	int rc = catalog_get(h.place.store, &c, NULL);

	if (rc < 0 && rc != -ENOENT)
		fail_msg("%s", error_message());
	return c;
}

static inline void put_object(const char *key, const char *text)
{
	struct bucket_put put = {
		.key = key,
		.data = text,
		.fd = -1,
		.size = strlen(text),
	};

	assert_int_equal(bucket_put(h.place.store, &put, NULL), 0);
}

static inline void put_text(const char *text)
{
	put_object(CATALOG_KEY, text);
}

/* Another program writes a catalog, or adds a line to the one that is there. */
static inline void put_line(const char *id, const char *db, uint64_t txid)
{
	struct catalog_entry entry = { .page_size = 512, .txid = txid };
	AUTO(buf) struct buf text = BUF_INIT(1 << 20);
	AUTO(catalog) struct catalog *c = catalog_now();

	if (!c)
		assert_int_equal(catalog_new(id, &c), 0);
	if (db)
		assert_int_equal(catalog_note(c, db, &entry), 1);
	assert_int_equal(catalog_print(c, &text), 0);
	put_text(text.data);
}

/* Another one takes the bucket over, or its catalog has been made so. */
static inline void put_epoch(uint64_t epoch)
{
	AUTO(buf) struct buf text = BUF_INIT(1 << 20);
	AUTO(catalog) struct catalog *c = catalog_now();

	if (!c)
		assert_int_equal(catalog_new(OTHER_ID, &c), 0);
	assert_in_range(catalog_set_epoch(c, epoch), 0, 1);
	assert_int_equal(catalog_print(c, &text), 0);
	put_text(text.data);
}

/* 0: no catalog. */
static inline uint64_t epoch_now(void)
{
	AUTO(catalog) struct catalog *c = catalog_now();

	return c ? catalog_epoch(c) : 0;
}

static inline bool has_line(const char *db, struct catalog_entry *ret)
{
	AUTO(catalog) struct catalog *c = catalog_now();

	return c && catalog_find(c, db, ret);
}

static inline bool is_live(const char *db)
{
	struct catalog_entry entry;

	return has_line(db, &entry) && !entry.dropped;
}

static inline uint64_t sealed_by_now(struct made_up_db *db)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&h.lock);

	(void)held;
	return db->sealed ? db->sealed : 1;
}

static inline struct made_up_db *add_with_commit(const char *path)
{
	struct made_up_db *db = add_new(path);

	commit(db);
	assert_int_equal(wait_for(db, sealed_by_now(db)), 0);
	return db;
}

static unsigned races;

static inline void race_to_change(struct fault_bucket *f)
{
	char db[32];

	if (races++ < 3) {
		snprintf(db, sizeof(db), "theirs%u", races);
		put_line(OTHER_ID, db, 1);
	}
}

#endif
