/*
 * What Litestream wrote is restored to what Litestream restores of it
 * (tests/fixtures/litestream).
 */
#include "base/clock.h"
#include "restorer_world.h"

#define FIXTURE FIXTURES "/litestream"

enum { LAST = 0xe };

static int open_replica(void **state)
{
	*state = world_open("file://" FIXTURE "/replica");
	return 0;
}

static void expect_file(const struct world *w, uint64_t txid)
{
	AUTO(buf) struct buf expected = BUF_INIT(1 << 20);
	AUTO(buf) struct buf file = BUF_INIT(1 << 20);
	char path[256];

	snprintf(path, sizeof(path), FIXTURE "/expected/txid-%016" PRIx64 ".db",
		 txid);
	world_read(path, &expected);
	world_read(w->output, &file);
	assert_int_equal(file.size, expected.size);
	assert_memory_equal(file.data, expected.data, file.size);
	world_expect_names(w, "app.db");
	assert_int_equal(unlink(w->output), 0);
}

static void every_transaction_is_as_litestream_restores_it(void **state)
{
	struct world *w = *state;

	for (uint64_t txid = 1; txid <= LAST; txid++) {
		if (world_restore(w, txid) < 0)
			fail_msg("%s", error_message());
		assert_int_equal(w->result.txid, txid);
		assert_int_equal(w->result.page_size, 4096);
		expect_file(w, txid);
	}
}

static void the_latest_costs_one_snapshot(void **state)
{
	struct world *w = *state;

	assert_int_equal(world_restore(w, 0), 0);
	assert_int_equal(w->result.txid, LAST);
	assert_int_equal(w->result.files, 1);
	assert_int_equal(w->result.bytes_fetched, 18161);
	assert_false(w->result.proven);
	assert_in_range(atomic_load(&w->spy.requests), 3, 3);
	expect_file(w, LAST);
}

static void restore_at(struct world *w, const char *time, uint64_t txid)
{
	assert_int_equal(clock_parse(time, &w->options.timestamp_ms), 0);
	if (restorer_restore(&w->options, &w->result) < 0)
		fail_msg("%s", error_message());
	assert_int_equal(w->result.txid, txid);
	expect_file(w, txid);
}

/* Litestream means "before", we mean "until": they differ on the point. */
static void times_mean_the_last_transaction_until_then(void **state)
{
	struct world *w = *state;

	restore_at(w, "2026-11-23T02:50:08.845Z", 1);
	restore_at(w, "2026-11-23T02:50:15Z", 3);
	restore_at(w, "2026-11-23T02:50:20.834Z", 4);
	restore_at(w, "2026-11-23T02:50:20.835Z", 5);
	restore_at(w, "2026-11-23T02:51:22Z", 0xc);
	restore_at(w, "2026-11-23T03:51:25.824+01:00", 0xe);
}

static void times_outside_are_refused(void **state)
{
	static const char *const times[] = {
		"2026-11-23T02:50:08Z",
		"2026-11-23T02:59:00Z",
	};
	struct world *w = *state;

	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(clock_parse(times[i], &w->options.timestamp_ms),
				 0);
		assert_int_equal(restorer_restore(&w->options, &w->result),
				 -ENOENT);
		world_says("2026-11-23T02:50:08.845Z (transaction "
			   "0000000000000001) to 2026-11-23T02:51:25.824Z "
			   "(transaction 000000000000000e)");
		world_expect_names(w, "");
	}
}

static int count_point(const struct restorer_point *point, void *arg)
{
	uint64_t *last = arg;

	assert_int_equal(point->txid, *last + 1);
	assert_int_equal(point->level, 0);
	*last = point->txid;
	return 0;
}

static void its_history_is_all_of_its_transactions(void **state)
{
	struct world *w = *state;
	uint64_t last = 0;

	assert_int_equal(restorer_history(w->options.bucket, "", count_point,
					  &last), 0);
	assert_int_equal(last, LAST);
}

#define REPLICA_TEST(f) cmocka_unit_test_setup_teardown(f, open_replica, world_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		REPLICA_TEST(every_transaction_is_as_litestream_restores_it),
		REPLICA_TEST(the_latest_costs_one_snapshot),
		REPLICA_TEST(times_mean_the_last_transaction_until_then),
		REPLICA_TEST(times_outside_are_refused),
		REPLICA_TEST(its_history_is_all_of_its_transactions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
