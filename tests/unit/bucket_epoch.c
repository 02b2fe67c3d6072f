/* The greatest epoch of a bucket, and the end of a log that it is read from. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "bucket/archive.h"
#include "bucket/bucket.h"
#include "bucket/catalog.h"
#include "bucket/epoch.h"
#include "bucket/url.h"
#include "ltx/header.h"
#include "tests/lib/fault_bucket.h"
#include "tests/unit/bucket_store.h"

struct place {
	char dir[64];
	struct bucket *bucket;
	struct fault_bucket net; /* counts */
};

static int set_up(void **state)
{
	struct place *p = calloc(1, sizeof(*p));
	char url[96];

	assert_non_null(p);
	strcpy(p->dir, "/tmp/litebucket-epoch-XXXXXX");
	assert_non_null(mkdtemp(p->dir));
	(void)snprintf(url, sizeof(url), "file://%s", p->dir);
	assert_int_equal(bucket_open(url, true, &p->bucket), 0);
	fault_init(&p->net, p->bucket);
	*state = p;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type,
		      struct FTW *walk)
{
	return remove(path);
}

static int tear_down(void **state)
{
	struct place *p = *state;

	bucket_free(&p->net.bucket);
	bucket_free(p->bucket);
	nftw(p->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	free(p);
	return 0;
}

static void put(struct bucket *b, const char *key, const void *data,
		size_t size)
{
	const struct bucket_put put = {
		.key = key,
		.data = data,
		.fd = -1,
		.size = size,
	};

	assert_int_equal(bucket_put(b, &put, NULL), 0);
}

static void put_text(struct bucket *b, const char *key, const char *text)
{
	put(b, key, text, strlen(text));
}

/* As the kind of header that h says; only that is read. */
static void put_header(struct bucket *b, const char *db, unsigned level,
		       struct ltx_header h)
{
	uint8_t bytes[LTX_HEADER_SIZE];
	char key[BUCKET_KEY_MAX];

	h.flags = LTX_NO_CHECKSUM;
	h.page_size = 4096;
	ltx_header_encode(&h, bytes);
	assert_int_equal(archive_key(db, level, h.min_txid, h.max_txid, key), 0);
	put(b, key, bytes, sizeof(bytes));
}

static void put_slot(struct bucket *b, const char *db, uint64_t txid,
		     uint64_t epoch)
{
	put_header(b, db, 0, (struct ltx_header){
		.commit = 1,
		.min_txid = txid,
		.max_txid = txid,
		.node_id = epoch << 32 | 0xfedcba98,
		.post_dbsum = 1,
	});
}

static uint64_t greatest(struct bucket *b)
{
	uint64_t epoch = 12345;

	if (epoch_greatest(b, &epoch) < 0)
		fail_msg("%s", error_message());
	return epoch;
}

static void assert_refused(struct bucket *b, int rc, const char *why)
{
	uint64_t epoch = 12345;

	assert_int_equal(epoch_greatest(b, &epoch), rc);
	assert_int_equal(epoch, 12345);
	if (!strstr(error_message(), why))
		fail_msg("'%s' does not say '%s'", error_message(), why);
}

static void an_empty_bucket_has_had_none(void **state)
{
	struct place *p = *state;

	assert_int_equal(greatest(p->bucket), 0);
}

static void the_last_slot_of_each_log_counts(void **state)
{
	struct place *p = *state;

	put_slot(p->bucket, "a.db", 1, 1);
	put_slot(p->bucket, "a.db", 2, 5);
	assert_int_equal(greatest(p->bucket), 5);
	put_slot(p->bucket, "dir/b.db", 1, 4);
	assert_int_equal(greatest(p->bucket), 5);
	put_slot(p->bucket, "dir/b.db", 2, 7);
	put_slot(p->bucket, "z.db", 1, 6);
	assert_int_equal(greatest(p->bucket), 7);
	put_slot(p->bucket, "dir/b.db", 10, UINT32_MAX);
	assert_int_equal(greatest(p->bucket), UINT32_MAX);
}

static void a_bucket_that_is_one_database_has_a_log(void **state)
{
	struct place *p = *state;

	put_slot(p->bucket, "", 3, 9);
	assert_int_equal(greatest(p->bucket), 9);
}

/* They have no pages, and so a checksum of nothing. */
static void drops_and_barriers_count(void **state)
{
	struct place *p = *state;

	put_header(p->bucket, "a.db", 0, (struct ltx_header){
		.min_txid = 2, .max_txid = 2, .node_id = UINT64_C(8) << 32,
		.pre_dbsum = 1, .kind = LTX_DROP,
	});
	assert_int_equal(greatest(p->bucket), 8);
	put_header(p->bucket, "a.db", 0, (struct ltx_header){
		.min_txid = 3, .max_txid = 3, .node_id = UINT64_C(9) << 32,
		.kind = LTX_BARRIER,
	});
	assert_int_equal(greatest(p->bucket), 9);
}

static void other_programs_node_ids_are_no_epochs(void **state)
{
	struct place *p = *state;

	put_header(p->bucket, "theirs.db", 0, (struct ltx_header){
		.commit = 1, .min_txid = 2, .max_txid = 2,
		.node_id = UINT64_MAX,
	});
	assert_int_equal(greatest(p->bucket), 0);
	put_slot(p->bucket, "ours.db", 1, 2);
	assert_int_equal(greatest(p->bucket), 2);
}

/* Anybody makes snapshots and compactions of what is in the log. */
static void only_the_log_counts(void **state)
{
	struct place *p = *state;

	put_header(p->bucket, "a.db", 9, (struct ltx_header){
		.commit = 1, .min_txid = 1, .max_txid = 7,
		.node_id = UINT64_C(9) << 32, .post_dbsum = 1,
	});
	assert_int_equal(greatest(p->bucket), 0);
}

static void the_catalogs_counts_as_well(void **state)
{
	static const char format[] =
		"{\"format\": %d, \"bucket_id\": "
		"\"00112233445566778899aabbccddeeff\", \"epoch\": %d, "
		"\"databases\": {}}";
	struct place *p = *state;
	char text[200];

	put_slot(p->bucket, "a.db", 1, 5);
	(void)snprintf(text, sizeof(text), format, 1, 6);
	put_text(p->bucket, CATALOG_KEY, text);
	assert_int_equal(greatest(p->bucket), 6);
	(void)snprintf(text, sizeof(text), format, 1, 4);
	put_text(p->bucket, CATALOG_KEY, text);
	assert_int_equal(greatest(p->bucket), 5);
	put_text(p->bucket, CATALOG_KEY, "damaged");
	assert_int_equal(greatest(p->bucket), 5);
	(void)snprintf(text, sizeof(text), format, 2, 4);
	put_text(p->bucket, CATALOG_KEY, text);
	assert_refused(p->bucket, -EOPNOTSUPP, "newer litebucket");
}

static void a_damaged_end_hides_no_other(void **state)
{
	struct place *p = *state;

	put_slot(p->bucket, "a.db", 1, 5);
	put_text(p->bucket, "a.db/0000/0000000000000002-0000000000000002.ltx",
		 "damaged");
	put_slot(p->bucket, "b.db", 1, 4);
	log_set_level(LOG_ERROR);
	assert_int_equal(greatest(p->bucket), 4);
}

static void a_store_that_fails_is_no_empty_one(void **state)
{
	struct place *p = *state;

	put_slot(p->bucket, "a.db", 1, 5);
	fault_set(&p->net, fail, -ETIMEDOUT);
	assert_refused(&p->net.bucket, -ETIMEDOUT, "last epoch");
	fault_set(&p->net, only, "0000/0");
	assert_refused(&p->net.bucket, -ETIMEDOUT, "last epoch");
}

/*
 * Logs
 * ----
 */

/* Empty files, past the driver, which would sync each. */
static void make_slots(struct place *p, uint64_t first, uint64_t n)
{
	char path[200];

	(void)snprintf(path, sizeof(path), "%s/a.db", p->dir);
	(void)mkdir(path, 0700);
	(void)snprintf(path, sizeof(path), "%s/a.db/ltx", p->dir);
	(void)mkdir(path, 0700);
	(void)snprintf(path, sizeof(path), "%s/a.db/ltx/0", p->dir);
	(void)mkdir(path, 0700);
	for (uint64_t txid = first; txid < first + n; txid++) {
		(void)snprintf(path, sizeof(path),
			       "%s/a.db/ltx/0/%016" PRIx64 "-%016" PRIx64
			       ".ltx", p->dir, txid, txid);
		AUTO(fd) int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC,
				       0600);
		assert_true(fd >= 0);
	}
}

/* Other programs' objects, between this slot and the next one. */
static void make_others(struct place *p, uint64_t txid, unsigned n)
{
	char path[200];

	(void)snprintf(path, sizeof(path), "%s/a.db/0000", p->dir);
	(void)mkdir(path, 0700);
	for (unsigned i = 0; i < n; i++) {
		(void)snprintf(path, sizeof(path),
			       "%s/a.db/0000/%016" PRIx64 ".other-%05u",
			       p->dir, txid, i);
		AUTO(fd) int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC,
				       0600);
		assert_true(fd >= 0);
	}
}

/* In so many requests at most. */
static void assert_last(struct place *p, uint64_t txid, unsigned requests)
{
	struct archive_file slot = { 0 };
	unsigned before = fault_read(&p->net, requests);

	if (archive_last_slot(&p->net.bucket, "a.db", &slot) < 0)
		fail_msg("%s", error_message());
	assert_int_equal(slot.level, 0);
	assert_int_equal(slot.min_txid, txid);
	assert_int_equal(slot.max_txid, txid);
	before = fault_read(&p->net, requests) - before;
	if (before > requests)
		fail_msg("%u requests for %" PRIu64, before, txid);
}

static void the_end_of_a_log_is_found_however_long_it_is(void **state)
{
	struct place *p = *state;

	make_slots(p, 1, 999);
	assert_last(p, 999, 1);
	make_slots(p, 1000, 1);
	assert_last(p, 1000, 3);
	make_slots(p, 1001, 1);
	assert_last(p, 1001, 3);
	make_slots(p, 1002, 39000);
	assert_last(p, 40001, 13);
}

/* Retention took the beginning; somebody removed some of the middle. */
static void holes_are_passed_over(void **state)
{
	struct place *p = *state;

	make_slots(p, 1000000, 1500);
	assert_last(p, 1001499, 3);
	make_slots(p, 1003000, 1);
	assert_last(p, 1003000, 5);
	make_slots(p, UINT64_C(1) << 40, 2);
	assert_last(p, (UINT64_C(1) << 40) + 1, 7);
	make_slots(p, UINT64_MAX - 1, 1);
	assert_last(p, UINT64_MAX - 1, 6);
}

static void what_is_no_slot_does_not_count(void **state)
{
	struct place *p = *state;
	struct archive_file slot;

	put_text(p->bucket, "a.db/0009/0000000000000001-0000000000000009.ltx",
		 "");
	put_text(p->bucket, "a.db/0000/x.db/0000/"
			    "0000000000000008-0000000000000008.ltx", "");
	put_text(p->bucket, "a.db/0000/ffffffffffffffff", "");
	assert_int_equal(archive_last_slot(p->bucket, "a.db", &slot), -ENOENT);
	make_slots(p, 1, 1200);
	assert_last(p, 1200, 3);
	assert_int_equal(archive_last_slot(p->bucket, "b.db", &slot), -ENOENT);
	/* More of them than a list gives at a time, before the last slot. */
	make_others(p, 1200, 2500);
	make_slots(p, 1201, 1);
	assert_last(p, 1201, 5);
}

/* A place of its own in it, as the program opens it. */
static struct bucket *real_store(void)
{
	const char *given = getenv(STORE_VARIABLE);
	int name = (int)strcspn(given, "?");
	struct bucket *bucket;
	char url[1024];

	(void)snprintf(url, sizeof(url), "%.*s/%s%s", name, given,
		       store_new_prefix(), given + name);
	assert_int_equal(bucket_open(url, true, &bucket), 0);
	return bucket;
}

static void on_a_real_store_too(void **state)
{
	struct bucket *b;
	struct archive_file slot;

	if (!getenv(STORE_VARIABLE))
		skip();
	b = real_store();
	assert_int_equal(greatest(b), 0);
	put_slot(b, "a.db", 1, 1);
	put_slot(b, "a.db", 2, 3);
	put_slot(b, "dir/b.db", 1, 2);
	assert_int_equal(greatest(b), 3);
	assert_int_equal(archive_last_slot(b, "a.db", &slot), 0);
	assert_int_equal(slot.max_txid, 2);
	for (uint64_t txid = 3; txid <= 1100; txid++)
		put_slot(b, "a.db", txid, 4);
	assert_int_equal(greatest(b), 4);
	assert_int_equal(archive_last_slot(b, "a.db", &slot), 0);
	assert_int_equal(slot.max_txid, 1100);
	bucket_free(b);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(an_empty_bucket_has_had_none),
		TEST(the_last_slot_of_each_log_counts),
		TEST(a_bucket_that_is_one_database_has_a_log),
		TEST(drops_and_barriers_count),
		TEST(other_programs_node_ids_are_no_epochs),
		TEST(only_the_log_counts),
		TEST(the_catalogs_counts_as_well),
		TEST(a_damaged_end_hides_no_other),
		TEST(a_store_that_fails_is_no_empty_one),
		TEST(the_end_of_a_log_is_found_however_long_it_is),
		TEST(holes_are_passed_over),
		TEST(what_is_no_slot_does_not_count),
		cmocka_unit_test(on_a_real_store_too),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
