#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/error.h"
#include "tests/unit/uploader_harness.h"

#include "uploader/uploader.h"

/*
 * Stands before the C library's: where this is set, in this thread, what is
 * waited for comes about, and the time is up in the same moment.
 */
static _Thread_local bool time_is_up;

int pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
			   const struct timespec *until)
{
	static int (*real)(pthread_cond_t *, pthread_mutex_t *,
			   const struct timespec *);

	if (!real)
		real = (__typeof__(real))dlsym(RTLD_NEXT,
					       "pthread_cond_timedwait");
	if (!time_is_up)
		return real(cond, mutex, until);
	(void)pthread_mutex_unlock(mutex);
	clock_sleep_ms(500);
	(void)pthread_mutex_lock(mutex);
	return ETIMEDOUT;
}

static struct fault_bucket *net(void)
{
	return &h.place.net;
}

/* When the nth put (from 0) of a key with this in it arrived; -1: never. */
static int64_t arrival(const char *part, unsigned nth)
{
	for (unsigned i = 0; i < fault_read(net(), puts); i++)
		if (strstr(net()->keys[i], part) && nth-- == 0)
			return net()->at_ms[i];
	return -1;
}

static void a_commit_gets_into_its_slot_and_out_of_the_spool(void **state)
{
	AUTO(buf) struct buf object = BUF_INIT(1 << 20);
	struct made_up_db *db;
	size_t size;
	char *bytes;

	start(2, 1000);
	db = add_new("dir/a b.db");
	assert_int_equal(net()->requests, 0);
	spool_fill(db->spool, 2, NULL);
	bytes = spool_bytes(db->spool, 2, &size);
	spool_remove(db->spool, 2);

	commit(db);
	assert_int_equal(wait_for(db, 1), 0);
	commit(db);
	assert_int_equal(wait_for(db, 2), 0);
	assert_settled(db);
	assert_int_equal(object_read(&h.place, "dir/a=20b.db", 0, 2, 2,
				     &object), 0);
	assert_int_equal(object.size, size);
	assert_memory_equal(object.data, bytes, size);
	assert_confirmed(db, 1, 2);
	free(bytes);
}

static void what_is_in_the_spool_is_sent_in_order_and_without_pause(
	void **state)
{
	struct made_up_db *db = new_db("a.db", 1, 20);

	start(4, 60000);
	net()->delay_ms = 5;
	add(db, 0);
	assert_int_equal(wait_for(db, 20), 0);
	assert_settled(db);
	assert_confirmed(db, 1, 20);
	for (unsigned i = 1; i < 20; i++)
		assert_true(arrival("a.db/0000/", i) >
			    arrival("a.db/0000/", i - 1));

	/* One slot is open at a time (R3). */
	assert_int_equal(net()->max_in_flight, 1);
}

static void databases_are_sent_in_parallel(void **state)
{
	static const char *const names[] = { "a", "b", "c", "d" };

	start(4, 0);
	net()->delay_ms = 300;
	for (int i = 0; i < 4; i++)
		add(new_db(names[i], 1, 2), 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(wait_for(&h.dbs[i], 2), 0);
	assert_int_equal(net()->max_in_flight, 4);
}

static void a_database_with_much_to_send_does_not_keep_others_waiting(
	void **state)
{
	struct made_up_db *big = new_db("big", 1, 30);
	struct made_up_db *small = new_db("small", 1, 1);

	start(1, 0);
	net()->delay_ms = 10;
	add(big, 0);
	add(small, 0);
	assert_int_equal(wait_for(small, 1), 0);
	assert_in_range(status_of(big).confirmed, 0, 4);
	assert_int_equal(wait_for(big, 30), 0);
}

static void a_restart_goes_on_with_what_is_in_the_spool(void **state)
{
	struct made_up_db *db = new_db("a.db", 1, 2);

	start(1, 0);
	add(db, 0);
	assert_int_equal(wait_for(db, 2), 0);
	assert_settled(db);
	stop();

	spool_fill(db->spool, 3, NULL);
	spool_fill(db->spool, 4, NULL);
	start(1, 0);
	add(db, 2);
	assert_int_equal(wait_for(db, 4), 0);
	assert_settled(db);
	assert_confirmed(db, 1, 4);
	assert_int_equal(status_of(db).sent_objects, 2);
	assert_false(object_exists(&h.place, "a.db", 9, 1, 3));
}

static void a_batch_that_was_put_before_the_crash_is_confirmed_after_it(
	void **state)
{
	struct made_up_db *db = new_db("a.db", 1, 1);
	size_t size;
	char *bytes = spool_bytes(db->spool, 1, &size);

	object_write(&h.place, "a.db", 1, bytes, size);
	start(1, 0);
	add(db, 0);
	assert_int_equal(wait_for(db, 1), 0);
	assert_settled(db);
	assert_confirmed(db, 1, 1);
	assert_true(object_exists(&h.place, "a.db", 9, 1, 1));
	free(bytes);
}

static void a_confirmed_batch_that_is_still_in_the_spool_is_looked_at_again(
	void **state)
{
	struct made_up_db *db = new_db("a.db", 1, 2);

	start(1, 0);
	add(db, 1);
	assert_int_equal(wait_for(db, 2), 0);
	assert_settled(db);
	assert_true(object_exists(&h.place, "a.db", 0, 1, 1));
	assert_true(object_exists(&h.place, "a.db", 9, 1, 1));
}

static void a_hole_before_the_spool_is_refused(void **state)
{
	struct made_up_db *db = new_db("a.db", 3, 3);

	start(1, 0);
	assert_int_equal(uploader_add(h.u, "a.db", db->spool, 1), -ERR_GAP);
	assert_non_null(strstr(error_message(), "0000000000000003"));
	add(db, 2);
	assert_int_equal(uploader_add(h.u, "a.db", db->spool, 2), -EEXIST);
}

/* After another life, whose bucket had slots 1 to confirmed. */
static void start_elsewhere(struct made_up_db *db, uint64_t confirmed)
{
	start(1, 0);
	add(db, confirmed);
}

static void a_bucket_without_what_was_confirmed_gets_nothing(void **state)
{
	struct made_up_db *db = new_db("a.db", 3, 3);

	start_elsewhere(db, 2);
	assert_int_equal(wait_for(db, 3), -ERR_GAP);
	assert_non_null(strstr(error_message(), "0000000000000002"));
	assert_int_equal(status_of(db).state, UPLOADER_STOPPED);
	assert_int_equal(status_of(db).spool_batches, 1);
	assert_false(object_exists(&h.place, "a.db", 0, 3, 3));
}

static void nobody_is_told_that_another_bucket_has_it(void **state)
{
	struct made_up_db *db = new_db("a.db", 0, 0);

	start_elsewhere(db, 2);
	assert_int_equal(wait_for(db, 2), -ERR_GAP);
	EVENTUALLY(status_of(db).state == UPLOADER_STOPPED);
}

static void drain_of_nothing_does_not_wait_for_a_bucket(void **state)
{
	struct made_up_db *db = new_db("a.db", 0, 0);

	h.place.net.fail = -ETIMEDOUT;
	start_elsewhere(db, 2);
	EVENTUALLY(status_of(db).state == UPLOADER_RETRYING);
	assert_int_equal(uploader_wait(h.u, "a.db", 2, batch_time(2), 50, NULL), -ETIMEDOUT);
	assert_int_equal(uploader_drain(h.u, 10000), 0);
}

static void a_new_database_gets_its_base_snapshot(void **state)
{
	AUTO(buf) struct buf slot = BUF_INIT(1 << 20);
	AUTO(buf) struct buf snapshot = BUF_INIT(1 << 20);
	struct made_up_db *db;

	start(1, 0);
	db = add_new("a.db");
	commit(db);
	assert_int_equal(wait_for(db, 1), 0);
	assert_settled(db);
	assert_int_equal(object_read(&h.place, "a.db", 0, 1, 1, &slot), 0);
	assert_int_equal(object_read(&h.place, "a.db", 9, 1, 1, &snapshot), 0);
	assert_int_equal(slot.size, snapshot.size);
	assert_memory_equal(slot.data, snapshot.data, slot.size);
	assert_true(arrival("/0009/", 0) >= arrival("/0000/", 0));
	assert_int_equal(status_of(db).sent_objects, 2);
	assert_int_equal(status_of(db).sent_bytes, 2 * slot.size);
}

static void another_page_size_gets_a_snapshot_and_nothing_else_does(
	void **state)
{
	static const struct batch_like all = { .first = 1, .last = 5 };
	static const struct batch_like vacuumed = {
		.page_size = 1024, .commit = 9, .first = 1, .last = 9
	};
	struct made_up_db *db;

	start(1, 0);
	db = add_new("a.db");
	for (uint64_t txid = 1; txid <= 4; txid++) {
		db->next = txid < 3 ? all : vacuumed;
		commit(db);
		assert_int_equal(wait_for(db, txid), 0);
		assert_settled(db);
		assert_int_equal(object_exists(&h.place, "a.db", 9, 1, txid),
				 txid == 1 || txid == 3);
	}
}

static void a_page_size_that_changed_before_a_restart_is_noticed(void **state)
{
	struct made_up_db *db = new_db("a.db", 1, 1);
	struct batch_like all = { .first = 1, .last = 5, .page_size = 1024 };

	start(1, 0);
	add(db, 0);
	assert_int_equal(wait_for(db, 1), 0);
	assert_settled(db);
	stop();

	spool_fill(db->spool, 2, &all);
	spool_fill(db->spool, 3, &all);
	start(1, 0);
	add(db, 1);
	assert_int_equal(wait_for(db, 3), 0);
	assert_settled(db);
	assert_true(object_exists(&h.place, "a.db", 9, 1, 2));
	assert_false(object_exists(&h.place, "a.db", 9, 1, 3));
}

static void the_first_commit_after_a_pause_goes_out_at_once_and_others_gather(
	void **state)
{
	struct made_up_db *db;
	int64_t begin;

	/* Getting to know the bucket comes before the first put otherwise. */
	start(2, 1000);
	assert_int_equal(uploader_check(h.u), 0);
	begin = clock_monotonic_ms();
	db = add_new("a.db");
	commit(db);
	assert_int_equal(wait_for(db, 1), 0);
	assert_in_range(arrival("/0000/", 0) - begin, 0, 700);
	for (int i = 0; i < 10; i++) {
		commit(db);
		clock_sleep_ms(20);
	}
	assert_int_equal(status_of(db).state, UPLOADER_BUSY);
	assert_int_equal(wait_for(db, 2), 0);
	assert_in_range(arrival("/0000/", 1) - arrival("/0000/", 0), 900,
			1900);
	assert_int_equal(LOCKED(db->sealed), 2);

	clock_sleep_ms(1100);
	begin = clock_monotonic_ms();
	commit(db);
	assert_int_equal(wait_for(db, 3), 0);
	assert_in_range(clock_monotonic_ms() - begin, 0, 700);
}

static void who_waits_does_not_wait_for_the_interval(void **state)
{
	struct made_up_db *db;
	int64_t begin = clock_monotonic_ms();

	start(2, 600000);
	db = add_new("a.db");
	for (uint64_t txid = 1; txid <= 5; txid++) {
		commit(db);
		uploader_urge(h.u, "a.db");
		assert_int_equal(wait_for(db, txid), 0);
	}
	assert_in_range(clock_monotonic_ms() - begin, 0, 10000);

	/* An urge alone finds what nobody told of. */
	commit_quietly(db);
	uploader_urge(h.u, "a.db");
	assert_int_equal(wait_for(db, 6), 0);
}

static void without_an_interval_commits_gather_while_a_put_is_under_way(
	void **state)
{
	struct made_up_db *db;
	unsigned commits = 0;

	start(2, 0);
	db = add_new("a.db");
	net()->delay_ms = 100;
	for (int64_t begin = clock_monotonic_ms();
	     clock_monotonic_ms() - begin < 1500; commits++) {
		commit(db);
		clock_sleep_ms(5);
	}
	EVENTUALLY(status_of(db).state == UPLOADER_IDLE);
	assert_int_equal(LOCKED(db->commits), 0);
	assert_in_range(LOCKED(db->sealed), 6, 18);
	assert_true(commits > LOCKED(db->sealed));
	assert_confirmed(db, 1, db->sealed);
}

static void wait_knows_the_last_confirmed_and_unknown_names(void **state)
{
	uint64_t txid = 0;
	struct made_up_db *db;

	start(1, 0);
	assert_int_equal(uploader_wait(h.u, "no.db", 1, batch_time(1), 0, NULL), -ENOENT);
	db = add_new("a.db");
	assert_int_equal(uploader_wait(h.u, "a.db", 0, batch_time(0), 0, &txid), 0);
	assert_int_equal(txid, 0);
	commit(db);
	assert_int_equal(uploader_wait(h.u, "a.db", 1, batch_time(1), -1, &txid), 0);
	assert_int_equal(txid, 1);
	assert_int_equal(uploader_wait(h.u, "a.db", 1, batch_time(1), 0, &txid), 0);
	assert_int_equal(uploader_wait(h.u, "a.db", 2, batch_time(2), 50, &txid), -ETIMEDOUT);
	uploader_notify(h.u, "no.db");
	uploader_urge(h.u, "no.db");
}

static void an_idle_uploader_asks_nothing_and_seals_nothing(void **state)
{
	struct made_up_db *db;
	unsigned requests, seals;

	start(8, 10);
	db = add_new("a.db");
	add_new("b.db");
	commit(db);
	assert_int_equal(wait_for(db, 1), 0);
	assert_settled(db);
	EVENTUALLY(fault_read(net(), catalog_puts) == 1);
	clock_sleep_ms(100);
	requests = fault_read(net(), requests);
	seals = LOCKED(db->seals);
	clock_sleep_ms(500);
	assert_int_equal(fault_read(net(), requests), requests);
	assert_int_equal(LOCKED(db->seals), seals);
	assert_int_equal(LOCKED(h.dbs[1].seals), 0);
}

static void a_drain_that_ends_with_its_time_is_none_that_failed(void **state)
{
	struct made_up_db *db;

	start(2, 600000);
	db = add_new("a");
	commit_quietly(db);
	time_is_up = true;
	assert_int_equal(uploader_drain(h.u, 20000), 0);
	time_is_up = false;
	assert_int_equal(status_of(db).confirmed, 1);
}

static void drain_brings_everything_of_all_databases(void **state)
{
	struct made_up_db *a, *b, *c = new_db("c", 1, 3);

	start(2, 600000);
	a = add_new("a");
	b = add_new("b");
	commit(a);
	assert_int_equal(wait_for(a, 1), 0);
	commit(a);
	commit_quietly(b);
	add(c, 0);
	assert_int_equal(uploader_drain(h.u, 20000), 0);
	assert_int_equal(status_of(a).confirmed, 2);
	assert_int_equal(status_of(b).confirmed, 1);
	assert_int_equal(status_of(c).confirmed, 3);
	assert_int_equal(status_of(a).spool_batches +
			 status_of(b).spool_batches +
			 status_of(c).spool_batches, 0);
	assert_int_equal(uploader_drain(h.u, 20000), 0);
}

static void stopping_leaves_what_was_not_sent_in_the_spool(void **state)
{
	struct made_up_db *db = new_db("a.db", 1, 10);

	start(1, 0);
	net()->delay_ms = 100;
	add(db, 0);
	assert_int_equal(wait_for(db, 2), 0);
	stop();
	net()->delay_ms = 0;
	assert_in_range(db->n_confirmed, 2, 4);

	/* Not confirmed as far as the next start is told. */
	start(1, 0);
	add(db, db->n_confirmed);
	assert_int_equal(wait_for(db, 10), 0);
	assert_settled(db);
	for (uint64_t txid = 1; txid <= 10; txid++)
		assert_true(object_exists(&h.place, "a.db", 0, txid, txid));
}

static void a_database_that_is_gone_has_nothing_to_seal(void **state)
{
	struct made_up_db *db;

	start(1, 0);
	db = add_new("a.db");
	db->fail_seal = -ENOENT;
	commit(db);
	EVENTUALLY(LOCKED(db->seals) == 1);
	assert_settled(db);
	assert_string_equal(status_of(db).error, "");
}

static void every_state_has_a_name(void **state)
{
	assert_string_equal(uploader_state_name(UPLOADER_IDLE), "idle");
	assert_string_equal(uploader_state_name(UPLOADER_BUSY), "busy");
	assert_string_equal(uploader_state_name(UPLOADER_RETRYING), "retrying");
	assert_string_equal(uploader_state_name(UPLOADER_CONFLICT), "conflict");
	assert_string_equal(uploader_state_name(UPLOADER_STOPPED), "stopped");
}

/* The number of the put with this key, from 0. */
static unsigned put_of(unsigned level, uint64_t min, uint64_t max)
{
	char key[BUCKET_KEY_MAX];
	unsigned i;

	assert_int_equal(archive_key("a.db", level, min, max, key), 0);
	for (i = 0; i < h.place.net.puts; i++)
		if (strcmp(h.place.net.keys[i], key) == 0)
			return i;
	fail_msg("no put of %s", key);
	return 0;
}

static void batches_that_wait_go_before_the_snapshot(void **state)
{
	struct made_up_db *db = new_db("a.db", 1, 5);

	start(1, 0);
	add(db, 0);
	assert_int_equal(wait_for(db, 5), 0);
	assert_settled(db);
	assert_int_equal(put_of(0, 1, 1), 0);
	assert_int_equal(put_of(0, 5, 5), 4);
	assert_int_equal(put_of(9, 1, 1), 5);
}

static void a_snapshot_is_asked_for_like_a_slot(void **state)
{
	struct made_up_db *db = new_db("a.db", 1, 1);

	h.refuse = -EBUSY;
	h.allow = 1;
	start(1, 0);
	add(db, 0);
	assert_int_equal(wait_for(db, 1), 0);
	EVENTUALLY(status_of(db).state == UPLOADER_RETRYING);
	assert_string_equal(status_of(db).error, "node7 has the lease");
	assert_int_equal(status_of(db).spool_batches, 1);
	assert_false(object_exists(&h.place, "a.db", 9, 1, 1));
	refuse(0);
	uploader_wake(h.u);
	assert_settled(db);
	assert_true(object_exists(&h.place, "a.db", 9, 1, 1));
}

static void the_snapshot_does_not_wait_for_ever(void **state)
{
	struct made_up_db *db = new_db("a.db", 1, 100);
	unsigned snapshot;

	start(1, 0);
	add(db, 0);
	assert_int_equal(wait_for(db, 100), 0);
	assert_settled(db);
	snapshot = put_of(9, 1, 1);
	assert_in_range(snapshot, 20, 80);
	assert_true(put_of(0, 100, 100) > snapshot);
}

static void a_batch_that_is_being_merged_is_sent_once_it_is(void **state)
{
	struct made_up_db *db;

	start(1, 0);
	db = add_new("a.db");
	commit(db);
	assert_int_equal(wait_for(db, 1), 0);
	assert_settled(db);

	/* Nobody may claim what is being replaced, and nobody does. */
	spool_fill(db->spool, 2, NULL);
	(void)LOCKED(db->sealed = 2);
	assert_int_equal(spool_bar(db->spool, 2), 0);
	uploader_urge(h.u, "a.db");
	clock_sleep_ms(100);
	assert_int_equal(status_of(db).confirmed, 1);
	assert_false(spool_is_claimed(db->spool, 2));
	spool_unbar(db->spool);
	uploader_urge(h.u, "a.db");
	assert_int_equal(wait_for(db, 2), 0);
	assert_true(spool_is_claimed(db->spool, 2));
}

static void who_waits_for_a_merged_batch_gets_its_number(void **state)
{
	struct made_up_db *db = new_db("a.db", 1, 2);
	uint64_t txid;

	start(1, 0);
	add(db, 0);
	/* What was 7 when it was sealed has its time, whatever its number. */
	assert_int_equal(uploader_wait(h.u, "a.db", 7, batch_time(2), 10000,
				       &txid), 0);
	assert_int_equal(txid, 2);
	assert_int_equal(uploader_wait(h.u, "a.db", 1, batch_time(1), 0, &txid),
			 0);
	assert_int_equal(txid, 1);
	assert_int_equal(uploader_wait(h.u, "a.db", 2, batch_time(3), 50, &txid),
			 -ETIMEDOUT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_commit_gets_into_its_slot_and_out_of_the_spool),
		TEST(what_is_in_the_spool_is_sent_in_order_and_without_pause),
		TEST(databases_are_sent_in_parallel),
		TEST(a_database_with_much_to_send_does_not_keep_others_waiting),
		TEST(a_restart_goes_on_with_what_is_in_the_spool),
		TEST(a_batch_that_was_put_before_the_crash_is_confirmed_after_it),
		TEST(a_confirmed_batch_that_is_still_in_the_spool_is_looked_at_again),
		TEST(a_hole_before_the_spool_is_refused),
		TEST(a_bucket_without_what_was_confirmed_gets_nothing),
		TEST(nobody_is_told_that_another_bucket_has_it),
		TEST(drain_of_nothing_does_not_wait_for_a_bucket),
		TEST(a_new_database_gets_its_base_snapshot),
		TEST(another_page_size_gets_a_snapshot_and_nothing_else_does),
		TEST(a_page_size_that_changed_before_a_restart_is_noticed),
		TEST(the_first_commit_after_a_pause_goes_out_at_once_and_others_gather),
		TEST(who_waits_does_not_wait_for_the_interval),
		TEST(without_an_interval_commits_gather_while_a_put_is_under_way),
		TEST(wait_knows_the_last_confirmed_and_unknown_names),
		TEST(an_idle_uploader_asks_nothing_and_seals_nothing),
		TEST(drain_brings_everything_of_all_databases),
		TEST(a_drain_that_ends_with_its_time_is_none_that_failed),
		TEST(stopping_leaves_what_was_not_sent_in_the_spool),
		TEST(a_database_that_is_gone_has_nothing_to_seal),
		TEST(every_state_has_a_name),
		TEST(batches_that_wait_go_before_the_snapshot),
		TEST(a_snapshot_is_asked_for_like_a_slot),
		TEST(the_snapshot_does_not_wait_for_ever),
		TEST(a_batch_that_is_being_merged_is_sent_once_it_is),
		TEST(who_waits_for_a_merged_batch_gets_its_number),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
