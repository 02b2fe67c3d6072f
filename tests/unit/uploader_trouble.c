#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "base/error.h"
#include "tests/unit/uploader_harness.h"

#include "uploader/uploader.h"

static struct fault_bucket *net(void)
{
	return &h.place.net;
}

/* From here until log_end() what is logged goes into a file. */
static int log_begin(void)
{
	int before = dup(2);
	int fd = openat(h.place.fd, "log", O_CREAT | O_RDWR | O_TRUNC, 0600);

	fflush(stderr);
	dup2(fd, 2);
	close(fd);
	return before;
}

static void log_end(int before, struct buf *ret)
{
	fflush(stderr);
	dup2(before, 2);
	close(before);
	assert_int_equal(io_read_file(h.place.fd, "log", ret), 0);
}

static unsigned count(const struct buf *text, const char *part)
{
	unsigned n = 0;

	for (const char *p = text->data; p && (p = strstr(p, part)); p++)
		n++;
	return n;
}

static void a_lost_reply_ends_in_one_confirmation(void **state)
{
	struct made_up_db *db;

	start(2, 0);
	db = add_new("a.db");
	net()->lose = 1;
	commit(db);
	assert_int_equal(wait_for(db, 1), 0);
	commit(db);
	assert_int_equal(wait_for(db, 2), 0);
	assert_settled(db);
	assert_confirmed(db, 1, 2);
	assert_int_equal(net()->gets, 1);
	assert_true(object_exists(&h.place, "a.db", 0, 1, 1));
	assert_true(object_exists(&h.place, "a.db", 9, 1, 1));
	assert_false(object_exists(&h.place, "a.db", 0, 3, 3));
}

static void lost_replies_of_every_put_lose_and_repeat_nothing(void **state)
{
	struct made_up_db *db = new_db("a.db", 1, 3);

	start(2, 0);
	net()->lose = 100;
	add(db, 0);
	assert_int_equal(wait_for(db, 3), 0);
	assert_settled(db);
	assert_confirmed(db, 1, 3);
}

static void a_bucket_that_comes_back_gets_everything(void **state)
{
	AUTO(buf) struct buf text = BUF_INIT(1 << 20);
	struct uploader_status status;
	struct made_up_db *db;
	int before = log_begin();

	net()->fail = -ECONNREFUSED;
	start(2, 0);
	assert_int_equal(uploader_check(h.u), 1);
	db = add_new("a.db");
	commit(db);
	EVENTUALLY(status_of(db).state == UPLOADER_RETRYING);
	assert_int_equal(uploader_wait(h.u, "a.db", 1, batch_time(1), 100, NULL), -ETIMEDOUT);
	assert_non_null(strstr(error_message(), "told to fail"));
	clock_sleep_ms(2500);
	status = status_of(db);
	assert_int_equal(status.state, UPLOADER_RETRYING);
	assert_non_null(strstr(status.error, "told to fail"));
	assert_int_equal(status.spool_batches, 1);
	assert_true(status.spool_bytes > 0);
	assert_int_equal(status.confirmed, 0);

	/* Commits go on, and gather. */
	commit(db);
	commit(db);
	assert_in_range(fault_read(net(), requests), 3, 8);
	fault_set(net(), fail, 0);
	assert_int_equal(wait_for(db, 2), 0);
	assert_settled(db);
	assert_confirmed(db, 1, 2);
	assert_string_equal(status_of(db).error, "");
	log_end(before, &text);

	/* Once when it began (and at the start), once when it ended. */
	assert_int_equal(count(&text, "bucket does not answer"), 2);
	assert_int_equal(count(&text, "db=a.db error="), 1);
	assert_int_equal(count(&text, "uploading again"), 1);
}

static void who_waits_makes_the_pause_short(void **state)
{
	struct made_up_db *db;
	int64_t begin;

	start(1, 0);
	assert_int_equal(uploader_check(h.u), 0);
	db = add_new("a.db");
	fault_set(net(), fail, -EACCES);
	commit(db);
	EVENTUALLY(status_of(db).state == UPLOADER_RETRYING);
	fault_set(net(), fail, 0);

	/* A refusal is tried again after 15 seconds or more. */
	assert_int_equal(uploader_wait(h.u, "a.db", 1, batch_time(1), 1500, NULL),
			 -ETIMEDOUT);
	begin = clock_monotonic_ms();
	uploader_urge(h.u, "a.db");
	assert_int_equal(wait_for(db, 1), 0);
	assert_in_range(clock_monotonic_ms() - begin, 500, 5000);
}

static void while_it_may_not_send_nothing_is_asked_and_nothing_logged(
	void **state)
{
	AUTO(buf) struct buf text = BUF_INIT(1 << 20);
	struct made_up_db *waits = new_db("waits", 1, 3);
	struct made_up_db *sent = new_db("sent", 0, 0);
	struct made_up_db *new;
	int before = log_begin();
	int64_t begin;

	h.refuse = -EBUSY;
	start(2, 0);
	add(waits, 0);
	sent->sealed = 4;
	add(sent, 4); /* looks whether the bucket has it; but not now */
	new = add_new("new");
	commit(new);
	EVENTUALLY(LOCKED(h.asks) >= 9);
	assert_int_equal(fault_read(net(), requests), 0);
	assert_int_equal(status_of(waits).state, UPLOADER_RETRYING);
	assert_string_equal(status_of(waits).error, "node7 has the lease");
	assert_int_equal(status_of(waits).spool_batches, 3);
	assert_int_equal(status_of(sent).state, UPLOADER_RETRYING);
	assert_int_equal(status_of(new).spool_batches, 1);
	assert_int_equal(uploader_wait(h.u, "new", 1, batch_time(1), 0, NULL),
			 -ETIMEDOUT);
	assert_non_null(strstr(error_message(), "node7 has the lease"));

	/* By now the pauses are longer than this. */
	begin = clock_monotonic_ms();
	refuse(0);
	uploader_wake(h.u);
	assert_int_equal(wait_for(waits, 3), 0);
	assert_int_equal(wait_for(new, 1), 0);
	assert_in_range(clock_monotonic_ms() - begin, 0, 1200);
	assert_settled(waits);
	assert_string_equal(status_of(waits).error, "");
	EVENTUALLY(status_of(sent).state == UPLOADER_STOPPED);
	stop();
	log_end(before, &text);
	assert_int_equal(count(&text, "db=waits"), 0);
	assert_int_equal(count(&text, "db=new"), 0);
	assert_int_equal(count(&text, "lease"), 0);
}

static void a_wake_during_a_refusal_is_not_lost(void **state)
{
	struct made_up_db *db = new_db("a.db", 1, 2);
	int64_t begin;

	h.refuse = -EBUSY;
	h.wakes = true;
	start(1, 0);
	add(db, 0);
	EVENTUALLY(LOCKED(h.asks) >= 3);
	begin = clock_monotonic_ms();
	assert_int_equal(wait_for(db, 2), 0);
	/* Even the shortest pauses would be longer together. */
	assert_in_range(clock_monotonic_ms() - begin, 0, WAKES * 400);
}

static void it_is_asked_again_without_being_woken(void **state)
{
	struct made_up_db *db = new_db("a.db", 1, 1);

	h.refuse = -EACCES; /* any error; and this one is not slow here */
	start(1, 0);
	add(db, 0);
	EVENTUALLY(LOCKED(h.asks) >= 2);
	refuse(0);
	assert_int_equal(wait_for(db, 1), 0);
}

static void trouble_is_told_once_though_it_may_not_send_meanwhile(void **state)
{
	AUTO(buf) struct buf text = BUF_INIT(1 << 20);
	struct made_up_db *db;
	int before = log_begin();

	net()->fail = -ECONNREFUSED;
	start(1, 0);
	db = add_new("a.db");
	commit(db);
	EVENTUALLY(strstr(status_of(db).error, "told to fail"));
	refuse(-EBUSY);
	uploader_wake(h.u);
	EVENTUALLY(strstr(status_of(db).error, "node7"));
	refuse(0);
	uploader_wake(h.u);
	EVENTUALLY(strstr(status_of(db).error, "told to fail"));
	fault_set(net(), fail, 0);
	uploader_wake(h.u);
	assert_int_equal(wait_for(db, 1), 0);
	assert_settled(db);
	log_end(before, &text);
	assert_int_equal(count(&text, "bucket does not answer"), 1);
	assert_int_equal(count(&text, "uploading again"), 1);
}

static void who_is_told_that_it_is_fenced_stops(void **state)
{
	struct made_up_db *db = new_db("a.db", 1, 2);

	h.refuse = -ERR_FENCED;
	start(1, 0);
	add(db, 0);
	assert_int_equal(wait_for(db, 1), -ERR_FENCED);
	assert_non_null(strstr(error_message(), "node7 has the lease"));
	assert_int_equal(status_of(db).state, UPLOADER_CONFLICT);
	assert_int_equal(status_of(db).spool_batches, 2);
	refuse(0);
	uploader_wake(h.u);
	assert_int_equal(wait_for(db, 1), -ERR_FENCED);
	assert_int_equal(fault_read(net(), requests), 0);
}

static void another_writer_stops_one_database_and_no_other(void **state)
{
	AUTO(buf) struct buf object = BUF_INIT(1 << 20);
	struct made_up_db *ours = new_db("ours", 1, 2);
	struct made_up_db *other = new_db("other", 1, 2);
	unsigned seals;

	object_write(&h.place, "ours", 2, "theirs", 6);
	start(2, 0);
	add(ours, 0);
	add(other, 0);
	assert_int_equal(wait_for(other, 2), 0);
	assert_int_equal(uploader_wait(h.u, "ours", 2, batch_time(2), -1, NULL), -ERR_FENCED);
	assert_non_null(strstr(error_message(), "another writer"));
	assert_int_equal(wait_for(ours, 1), 0);
	assert_int_equal(status_of(ours).state, UPLOADER_CONFLICT);
	assert_non_null(strstr(status_of(ours).error, "'ours'"));
	/* The one that cannot be sent, and slot 1, whose snapshot is owed. */
	assert_int_equal(status_of(ours).spool_batches, 2);

	/* It seals no more and asks no more. */
	seals = LOCKED(ours->seals);
	commit(ours);
	uploader_urge(h.u, "ours");
	clock_sleep_ms(200);
	assert_int_equal(LOCKED(ours->seals), seals);
	assert_int_equal(uploader_wait(h.u, "ours", 3, batch_time(3), -1, NULL), -ERR_FENCED);

	commit(other);
	assert_int_equal(uploader_drain(h.u, 10000), -ERR_FENCED);
	assert_non_null(strstr(error_message(), "another writer"));
	assert_int_equal(status_of(other).confirmed, 3);
	assert_int_equal(object_read(&h.place, "ours", 0, 2, 2, &object), 0);
	assert_int_equal(object.size, 6);
	assert_memory_equal(object.data, "theirs", 6);
}

static void two_writers_of_one_log_end_with_one(void **state)
{
	struct batch_like theirs = { .node_id = UINT64_C(1) << 32 | 12345 };
	struct made_up_db *db = new_db("db", 1, 1);
	struct uploader *first;

	start(1, 0);
	add(db, 0);
	assert_int_equal(wait_for(db, 1), 0);
	assert_settled(db);
	first = h.u;

	/* The same state elsewhere: it too believes that slot 2 is next. */
	start(1, 0);
	add(db, 1);
	commit(db);
	assert_int_equal(wait_for(db, 2), 0);
	assert_settled(db);

	spool_fill(db->spool, 2, &theirs);
	uploader_urge(first, "db");
	assert_int_equal(uploader_wait(first, "db", 2, batch_time(2), 10000, NULL),
			 -ERR_FENCED);
	assert_non_null(strstr(error_message(), "(epoch 1)"));
	uploader_free(first);
}

static size_t uploader_spooled(struct made_up_db *db)
{
	uint64_t bytes;
	size_t n;

	assert_int_equal(spool_size(db->spool, &bytes, &n), 0);
	return n;
}

static void a_snapshot_that_fails_keeps_its_batch_but_not_who_waits(
	void **state)
{
	struct made_up_db *db = new_db("a.db", 1, 2);

	net()->fail = -EHOSTUNREACH;
	net()->only = "/0009/";
	start(1, 0);
	add(db, 0);
	assert_int_equal(wait_for(db, 2), 0);
	EVENTUALLY(status_of(db).state == UPLOADER_RETRYING);
	assert_non_null(strstr(status_of(db).error, "snapshot"));
	assert_int_equal(status_of(db).spool_batches, 1);

	/* Nor those that come while it goes on failing. */
	commit(db);
	uploader_urge(h.u, "a.db");
	assert_int_equal(wait_for(db, 3), 0);
	stop();
	assert_int_equal(uploader_spooled(db), 1);

	/* A restart has forgotten all but what is in the spool. */
	net()->fail = 0;
	start(1, 0);
	add(db, 3);
	assert_settled(db);
	assert_confirmed(db, 1, 3);
	assert_true(object_exists(&h.place, "a.db", 9, 1, 1));
}

/* The directory was given another history while its snapshot was owed. */
static void no_snapshot_is_made_of_what_is_not_in_the_slot(void **state)
{
	static const struct batch_like theirs = { .node_id = 77 };
	struct made_up_db *db = new_db("a.db", 1, 1);
	struct made_up_db *other = new_db("other", 0, 0);
	char *data;
	size_t size;

	assert_int_equal(spool_keep(db->spool, 1), 0);
	spool_fill(other->spool, 1, &theirs);
	data = spool_bytes(other->spool, 1, &size);
	object_write(&h.place, "a.db", 1, data, size);
	free(data);
	db->sealed = 1;

	start(1, 0);
	add(db, 1);
	assert_settled(db);
	assert_false(object_exists(&h.place, "a.db", 9, 1, 1));
	commit(db);
	assert_int_equal(wait_for(db, 2), 0);
}

static void a_failed_snapshot_is_tried_again_without_its_slot(void **state)
{
	struct made_up_db *db = new_db("a.db", 1, 1);

	net()->fail = -EHOSTUNREACH;
	net()->only = "/0009/";
	start(1, 0);
	add(db, 0);
	EVENTUALLY(status_of(db).state == UPLOADER_RETRYING);
	fault_set(net(), fail, 0);
	assert_settled(db);
	assert_true(object_exists(&h.place, "a.db", 9, 1, 1));
	assert_confirmed(db, 1, 1);
	assert_int_equal(net()->gets, 0);
	assert_int_equal(status_of(db).sent_objects, 2);
}

static void a_store_that_ignores_conditions_gets_nothing(void **state)
{
	struct made_up_db *db = new_db("a.db", 1, 1);

	net()->without = BUCKET_IF_ABSENT;
	start(1, 0);
	assert_int_equal(uploader_check(h.u), -EOPNOTSUPP);
	assert_non_null(strstr(error_message(), "two writers"));
	add(db, 0);
	assert_int_equal(uploader_wait(h.u, "a.db", 1, batch_time(1), 10000, NULL),
			 -EOPNOTSUPP);
	assert_int_equal(status_of(db).state, UPLOADER_STOPPED);
	assert_int_equal(status_of(db).spool_batches, 1);
	assert_int_equal(net()->puts, 0);
}

static void a_wrong_bucket_or_key_is_told_at_the_start(void **state)
{
	start(1, 0);
	net()->fail = -ENODEV;
	assert_int_equal(uploader_check(h.u), -ENODEV);
	net()->fail = -EACCES;
	assert_int_equal(uploader_check(h.u), -EACCES);
	net()->fail = -EHOSTUNREACH;
	assert_int_equal(uploader_check(h.u), 1);
	net()->fail = 0;
	assert_int_equal(uploader_check(h.u), 0);
}

static void a_damaged_batch_takes_no_slot(void **state)
{
	struct made_up_db *db = new_db("a.db", 1, 2);
	char byte;
	int fd = openat(h.place.fd,
			"a.db/0000000000000002-0000000000000002.ltx", O_RDWR);

	assert_int_equal(io_pread(fd, &byte, 1, 3000), 1);
	byte ^= 4;
	assert_int_equal(io_pwrite(fd, &byte, 1, 3000), 0);
	close(fd);

	start(1, 0);
	add(db, 0);
	assert_int_equal(uploader_wait(h.u, "a.db", 2, batch_time(2), 10000, NULL),
			 -ERR_CORRUPT);
	assert_non_null(strstr(error_message(), "0000000000000002"));
	assert_int_equal(status_of(db).confirmed, 1);
	assert_int_equal(status_of(db).state, UPLOADER_STOPPED);
	assert_false(object_exists(&h.place, "a.db", 0, 2, 2));
}

static void a_batch_under_another_ones_name_takes_no_slot(void **state)
{
	struct made_up_db *db = new_db("a.db", 1, 1);
	int fd;

	assert_int_equal(spool_begin(db->spool, 2, &fd), 0);
	batch_write(fd, 7, NULL);
	assert_int_equal(spool_publish(db->spool, 2, fd), 0);
	start(1, 0);
	add(db, 0);
	assert_int_equal(uploader_wait(h.u, "a.db", 2, batch_time(2), 10000, NULL),
			 -ERR_CORRUPT);
	assert_false(object_exists(&h.place, "a.db", 0, 2, 2));
}

static void a_seal_that_leaves_a_hole_stops_the_database(void **state)
{
	struct made_up_db *db;

	start(1, 0);
	db = add_new("a.db");
	(void)LOCKED(db->sealed = 1);
	commit(db);
	assert_int_equal(uploader_wait(h.u, "a.db", 2, batch_time(2), 10000, NULL), -ERR_GAP);
	assert_int_equal(status_of(db).state, UPLOADER_STOPPED);
	assert_false(object_exists(&h.place, "a.db", 0, 2, 2));
}

static void a_seal_that_fails_is_tried_again(void **state)
{
	struct made_up_db *db;

	start(1, 600000);
	db = add_new("a.db");
	commit(db);
	assert_int_equal(wait_for(db, 1), 0);
	assert_settled(db);

	(void)LOCKED(db->fail_seal = -EIO);
	commit_quietly(db);
	uploader_urge(h.u, "a.db");
	EVENTUALLY(status_of(db).state == UPLOADER_RETRYING);
	(void)LOCKED(db->fail_seal = 0);

	/* Who waited still does: the interval does not count. */
	assert_int_equal(wait_for(db, 2), 0);
}

static void drain_ends_in_time_and_counts_what_stays(void **state)
{
	struct made_up_db *a = new_db("a", 1, 3);
	int64_t begin = clock_monotonic_ms();

	net()->fail = -ECONNREFUSED;
	start(2, 0);
	add(a, 0);
	commit_quietly(add_new("b"));
	assert_int_equal(uploader_drain(h.u, 700), -ETIMEDOUT);
	assert_in_range(clock_monotonic_ms() - begin, 600, 3000);
	assert_non_null(strstr(error_message(), "4 batches of 2 databases"));
}

static void the_stores_clock_is_told_when_it_differs(void **state)
{
	struct made_up_db *db;

	start(1, 0);
	db = add_new("a.db");
	net()->has_clock = true;
	commit(db);
	assert_int_equal(wait_for(db, 1), 0);
	assert_settled(db);
	assert_int_equal(LOCKED(h.offset_ms), 0);

	fault_set(net(), ahead_ms, 3600000);
	commit(db);
	assert_int_equal(wait_for(db, 2), 0);
	assert_in_range(LOCKED(h.offset_ms), 3590000, 3600000);
}

/* A process that is killed at this point while it uploads three batches. */
static void kill_at(const char *point, struct made_up_db *db)
{
	int status;
	pid_t child = fork();

	if (child == 0) {
		setenv("LITEBUCKET_FAILPOINT", point, 1);
		start(1, 0);
		add(db, 0);
		(void)uploader_drain(h.u, 20000);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
}

static void a_kill_at_any_step_loses_and_repeats_nothing(void **state)
{
	static const char *const points[] = {
		"put-sent:kill",      "put-sent:kill:2",
		"put-sent:kill:3",    "snapshot-put:kill",
		"slot-confirmed:kill", "slot-confirmed:kill:2",
	};
	char name[32];

#ifndef LITEBUCKET_FAILPOINTS
	skip();
#endif
	for (unsigned i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
		struct made_up_db *db;
		uint64_t first, last;

		snprintf(name, sizeof(name), "db%u", i);
		db = new_db(name, 1, 3);
		kill_at(points[i], db);
		assert_int_equal(spool_range(db->spool, &first, &last), 0);
		/* The snapshot is made when nothing else is left. */
		assert_int_equal(last, strstr(points[i], "snapshot") ? 0 : 3);

		start(1, 0);
		add(db, first ? first - 1 : 3);
		assert_int_equal(wait_for(db, 3), 0);
		assert_settled(db);
		stop();
		if (first)
			assert_confirmed(db, first, 3);
		for (uint64_t txid = 1; txid <= 3; txid++)
			assert_true(object_exists(&h.place, name, 0, txid,
						  txid));
		assert_true(object_exists(&h.place, name, 9, 1, 1));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		/* Before there are threads: it forks. */
		TEST(a_kill_at_any_step_loses_and_repeats_nothing),
		TEST(a_lost_reply_ends_in_one_confirmation),
		TEST(lost_replies_of_every_put_lose_and_repeat_nothing),
		TEST(a_bucket_that_comes_back_gets_everything),
		TEST(who_waits_makes_the_pause_short),
		TEST(while_it_may_not_send_nothing_is_asked_and_nothing_logged),
		TEST(a_wake_during_a_refusal_is_not_lost),
		TEST(it_is_asked_again_without_being_woken),
		TEST(trouble_is_told_once_though_it_may_not_send_meanwhile),
		TEST(who_is_told_that_it_is_fenced_stops),
		TEST(another_writer_stops_one_database_and_no_other),
		TEST(two_writers_of_one_log_end_with_one),
		TEST(a_snapshot_that_fails_keeps_its_batch_but_not_who_waits),
		TEST(no_snapshot_is_made_of_what_is_not_in_the_slot),
		TEST(a_failed_snapshot_is_tried_again_without_its_slot),
		TEST(a_store_that_ignores_conditions_gets_nothing),
		TEST(a_wrong_bucket_or_key_is_told_at_the_start),
		TEST(a_damaged_batch_takes_no_slot),
		TEST(a_batch_under_another_ones_name_takes_no_slot),
		TEST(a_seal_that_leaves_a_hole_stops_the_database),
		TEST(a_seal_that_fails_is_tried_again),
		TEST(drain_ends_in_time_and_counts_what_stays),
		TEST(the_stores_clock_is_told_when_it_differs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
