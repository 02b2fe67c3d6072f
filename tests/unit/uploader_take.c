/*
 * The uploader of who has a lease: its epoch in the catalog, and what others do
 * to that; and a catalog that may not be sent now.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/error.h"
#include "bucket/catalog.h"
#include "bucket/patience.h"
#include "ltx/header.h"
#include "tests/unit/uploader_catalogs.h"

#include "uploader/catalog.h"
#include "uploader/uploader.h"

static void race_to_take(struct fault_bucket *f)
{
	put_epoch(9);
}

static void slowly(struct fault_bucket *f)
{
	clock_sleep_ms(1500);
}

/* Long enough for the thread to write what is noted. */
static void slowly_with_commit(struct fault_bucket *f)
{
	if (races++ == 0) {
		commit(&h.dbs[0]);
		clock_sleep_ms(1500);
	}
}

/* An uploader_catalog without an uploader. */
static struct uploader_catalog *alone;

static int may_send(void *arg)
{
	bool wakes;
	int rc;

	(void)lock(&h.lock);
	rc = h.refuse;
	wakes = ++h.asks >= 3 && rc && h.wakes;
	if (wakes && h.asks == 3 + WAKES)
		h.refuse = 0;
	(void)pthread_mutex_unlock(&h.lock);
	if (wakes)
		uploader_catalog_wake(alone);
	return rc ? error_set(rc, "node7 has the lease") : 0;
}

static void taking_raises_the_epoch_of_what_is_there(void **state)
{
	put_line(OTHER_ID, "theirs", 1);
	start_as(NULL);
	assert_int_equal(uploader_take(h.u, 5), 0);
	assert_int_equal(epoch_now(), 5);
	assert_true(is_live("theirs"));
	assert_int_equal(who.told, 0);

	/* Again, as after a lost reply; and never back. */
	assert_int_equal(uploader_take(h.u, 5), 0);
	assert_int_equal(fault_read(net(), catalog_puts), 1);
	assert_int_equal(uploader_take(h.u, 4), -EINVAL);
	assert_int_equal(uploader_take(h.u, UINT64_C(1) << 32), -EINVAL);
	add_with_commit("a");
	EVENTUALLY(is_live("a"));
	assert_int_equal(epoch_now(), 5);
	assert_true(is_live("theirs"));
}

static void without_a_lease_the_epoch_stays(void **state)
{
	put_epoch(7);
	start_as(NULL);
	add_with_commit("a");
	EVENTUALLY(is_live("a"));
	assert_int_equal(epoch_now(), 7);
}

static void a_greater_epoch_is_not_taken(void **state)
{
	put_epoch(7);
	start_as(NULL);
	assert_int_equal(uploader_take(h.u, 5), -ERR_FENCED);
	assert_non_null(strstr(error_message(), "of epoch 7"));
	assert_int_equal(epoch_now(), 7);
	assert_int_equal(fault_read(net(), catalog_puts), 0);
	/* That is no verdict: with a greater one it goes on. */
	assert_int_equal(uploader_take(h.u, 8), 0);
	add_with_commit("a");
	EVENTUALLY(is_live("a"));
	assert_int_equal(epoch_now(), 8);
}

static void an_empty_bucket_gets_a_catalog_of_the_epoch_later(void **state)
{
	start_as(NULL);
	assert_int_equal(uploader_take(h.u, 3), 0);
	assert_int_equal(fault_read(net(), catalog_puts), 0);
	assert_null(catalog_now());
	add_with_commit("a");
	EVENTUALLY(is_live("a"));
	assert_int_equal(epoch_now(), 3);
}

static void an_older_put_fails_after_the_taking(void **state)
{
	AUTO(buf) struct buf text = BUF_INIT(1 << 20);
	AUTO(catalog) struct catalog *old = NULL;
	struct bucket_info info;
	struct bucket_put put = {
		.key = CATALOG_KEY,
		.fd = -1,
		.if_match = info.etag,
	};

	put_line(OTHER_ID, "theirs", 1);
	assert_int_equal(catalog_get(h.place.store, &old, &info), 0);
	assert_int_equal(catalog_print(old, &text), 0);
	put.data = text.data;
	put.size = text.size;
	start_as(NULL);
	assert_int_equal(uploader_take(h.u, 5), 0);
	assert_int_equal(bucket_put(h.place.store, &put, NULL), -ERR_PRECOND);
}

static void who_is_deposed_stops_until_it_takes_again(void **state)
{
	struct made_up_db *a;

	start_as(NULL);
	assert_int_equal(uploader_take(h.u, 2), 0);
	a = add_with_commit("a");
	EVENTUALLY(is_live("a"));
	put_epoch(5);
	add_with_commit("b");
	EVENTUALLY((commit(a), status_of(a).state == UPLOADER_CONFLICT));
	assert_non_null(strstr(status_of(a).error, "of epoch 5"));
	assert_int_equal(epoch_now(), 5);
	assert_false(is_live("b"));

	assert_int_equal(uploader_take(h.u, 6), 0);
	uploader_wake(h.u);
	EVENTUALLY(is_live("b"));
	assert_int_equal(epoch_now(), 6);
	add_with_commit("c");
}

static void who_takes_loses_races_like_anybody(void **state)
{
	races = 0;
	put_line(OTHER_ID, NULL, 0);
	start_as(NULL);
	net()->before_catalog = race_to_change;
	assert_int_equal(uploader_take(h.u, 5), 0);
	assert_int_equal(epoch_now(), 5);
	assert_true(is_live("theirs1") && is_live("theirs3"));
	assert_int_equal(fault_read(net(), catalog_puts), 4);
}

static void who_is_taken_over_while_it_takes_is_told(void **state)
{
	put_line(OTHER_ID, NULL, 0);
	start_as(NULL);
	net()->before_catalog = race_to_take;
	assert_int_equal(uploader_take(h.u, 5), -ERR_FENCED);
	assert_int_equal(epoch_now(), 9);
}

static void taking_without_if_match_is_done_all_the_same(void **state)
{
	net()->without = BUCKET_IF_MATCH;
	put_line(OTHER_ID, "theirs", 1);
	start_as(NULL);
	assert_int_equal(uploader_take(h.u, 5), 0);
	assert_int_equal(epoch_now(), 5);
	assert_true(is_live("theirs"));
}

static void what_is_under_way_is_waited_for(void **state)
{
	start_as(NULL);
	net()->before_catalog = slowly;
	add_with_commit("a");
	EVENTUALLY(fault_read(net(), catalog_puts) == 1);
	assert_null(catalog_now());
	bucket_wait_until(clock_monotonic_ms() + 100);
	assert_int_equal(uploader_take(h.u, 4), -ETIMEDOUT);
	bucket_wait_until(0);
	assert_null(catalog_now());
	assert_int_equal(uploader_take(h.u, 5), 0);
	assert_true(is_live("a"));
	assert_int_equal(epoch_now(), 5);
	fault_set(net(), before_catalog, NULL);
	add_with_commit("b");
	EVENTUALLY(is_live("b"));
	assert_int_equal(epoch_now(), 5);
	/* What the taking left is right, and need not be read again. */
	assert_int_equal(fault_read(net(), catalog_puts), 3);
}

static void nothing_is_written_while_it_is_taken(void **state)
{
	struct made_up_db *db;

	put_line(OTHER_ID, NULL, 0);
	start_as(NULL);
	db = add_new("a");
	races = 0;
	net()->before_catalog = slowly_with_commit;
	assert_int_equal(uploader_take(h.u, 5), 0);
	assert_int_equal(wait_for(db, 1), 0);
	EVENTUALLY(is_live("a"));
	assert_int_equal(epoch_now(), 5);
	/* The taking, and then the line: no race between the two. */
	assert_int_equal(fault_read(net(), catalog_puts), 2);
}

static void an_epoch_whose_put_had_no_answer_is_no_others(void **state)
{
	put_line(OTHER_ID, NULL, 0);
	start_as(NULL);
	assert_int_equal(uploader_take(h.u, 2), 0);
	fault_set(net(), lose, 1);
	assert_int_equal(uploader_take(h.u, 5), -ETIMEDOUT);
	assert_int_equal(epoch_now(), 5);
	add_with_commit("a");
	EVENTUALLY(is_live("a"));
	assert_int_equal(uploader_take(h.u, 5), 0);
}

static void a_damaged_catalog_does_not_keep_from_taking(void **state)
{
	put_text("{ broken");
	start_as(NULL);
	assert_int_equal(uploader_take(h.u, 5), 0);
	assert_int_equal(fault_read(net(), catalog_puts), 0);
	assert_int_equal(wait_for(add_with_commit("a"), 1), 0);
}

static void of_a_newer_format_nothing_is_taken(void **state)
{
	start_as(NULL);
	assert_int_equal(uploader_check(h.u), 0);
	put_text("{\"format\": 2}");
	assert_int_equal(uploader_take(h.u, 5), -EOPNOTSUPP);
	assert_int_equal(fault_read(net(), catalog_puts), 0);
}

static void start_catalog(struct uploader_catalog **ret)
{
	const struct uploader_catalog_config config = {
		.bucket = &net()->bucket,
		.may_send = may_send,
	};
	struct ltx_header slot = { .page_size = 4096, .max_txid = 1 };

	h.refuse = -EBUSY;
	assert_int_equal(uploader_catalog_new(&config, ret), 0);
	alone = *ret;
	uploader_catalog_note(*ret, "a", &slot);
}

static void while_it_may_not_be_sent_it_waits_for_a_wake(void **state)
{
	AUTO(uploader_catalog) struct uploader_catalog *c = NULL;
	int64_t begin;
	char error[256];

	start_catalog(&c);
	EVENTUALLY(LOCKED(h.asks) >= 3);
	assert_int_equal(fault_read(net(), requests), 0);
	uploader_catalog_error(c, error, sizeof(error));
	assert_string_equal(error, "node7 has the lease");
	assert_int_equal(uploader_catalog_verdict(c), 0);

	/* By now the pause is longer than this. */
	begin = clock_monotonic_ms();
	refuse(0);
	uploader_catalog_wake(c);
	EVENTUALLY(is_live("a"));
	assert_in_range(clock_monotonic_ms() - begin, 0, 1200);
	EVENTUALLY((uploader_catalog_error(c, error, sizeof(error)),
		    !error[0]));
}

static void a_wake_during_its_refusal_is_not_lost(void **state)
{
	AUTO(uploader_catalog) struct uploader_catalog *c = NULL;
	int64_t begin;

	h.wakes = true;
	start_catalog(&c);
	EVENTUALLY(LOCKED(h.asks) >= 3);
	begin = clock_monotonic_ms();
	EVENTUALLY(is_live("a"));
	/* Even the shortest pauses would be longer together. */
	assert_in_range(clock_monotonic_ms() - begin, 0, WAKES * 400);
}

static void an_end_asks_once_whether_it_may_be_sent(void **state)
{
	AUTO(uploader_catalog) struct uploader_catalog *c = NULL;
	int64_t begin = clock_monotonic_ms();
	unsigned asks;

	start_catalog(&c);
	EVENTUALLY((asks = LOCKED(h.asks)) > 0);
	uploader_catalog_drain(c, begin + 8000);
	assert_in_range(clock_monotonic_ms() - begin, 0, 7000);
	assert_in_range(LOCKED(h.asks), asks + 1, asks + 2);
	assert_int_equal(fault_read(net(), requests), 0);
}

static void told_that_it_is_fenced_it_is_a_verdict(void **state)
{
	AUTO(uploader_catalog) struct uploader_catalog *c = NULL;

	start_catalog(&c);
	refuse(-ERR_FENCED);
	EVENTUALLY(uploader_catalog_verdict(c) == -ERR_FENCED);
	assert_non_null(strstr(error_message(), "node7"));
	assert_int_equal(fault_read(net(), requests), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(taking_raises_the_epoch_of_what_is_there),
		TEST(without_a_lease_the_epoch_stays),
		TEST(a_greater_epoch_is_not_taken),
		TEST(an_empty_bucket_gets_a_catalog_of_the_epoch_later),
		TEST(an_older_put_fails_after_the_taking),
		TEST(who_is_deposed_stops_until_it_takes_again),
		TEST(who_takes_loses_races_like_anybody),
		TEST(who_is_taken_over_while_it_takes_is_told),
		TEST(taking_without_if_match_is_done_all_the_same),
		TEST(what_is_under_way_is_waited_for),
		TEST(nothing_is_written_while_it_is_taken),
		TEST(an_epoch_whose_put_had_no_answer_is_no_others),
		TEST(a_damaged_catalog_does_not_keep_from_taking),
		TEST(of_a_newer_format_nothing_is_taken),
		TEST(while_it_may_not_be_sent_it_waits_for_a_wake),
		TEST(a_wake_during_its_refusal_is_not_lost),
		TEST(an_end_asks_once_whether_it_may_be_sent),
		TEST(told_that_it_is_fenced_it_is_a_verdict),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
