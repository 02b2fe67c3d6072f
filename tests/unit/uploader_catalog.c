/* The catalog's writer: races, lost replies, crashes, and whose bucket it is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <signal.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "base/cond.h"
#include "base/error.h"
#include "bucket/catalog.h"
#include "bucket/lease_record.h"
#include "ltx/header.h"
#include "tests/unit/uploader_catalogs.h"

#include "uploader/catalog.h"

static bool is_dropped_at(const char *db, uint64_t txid)
{
	struct catalog_entry entry;

	return has_line(db, &entry) && entry.dropped && entry.txid == txid;
}

static uint64_t commit_like(struct made_up_db *db, struct batch_like like)
{
	uint64_t txid;

	(void)lock(&h.lock);
	db->next = like;
	txid = db->sealed + 1;
	(void)pthread_mutex_unlock(&h.lock);
	commit(db);
	assert_int_equal(wait_for(db, txid), 0);
	return txid;
}

static void the_first_batch_makes_the_catalog(void **state)
{
	AUTO(catalog) struct catalog *c = NULL;
	struct catalog_entry entry;
	struct made_up_db *db;

	start_as(NULL);
	assert_int_equal(uploader_check(h.u), 0);
	db = add_new("dir/a b");
	assert_null(catalog_now());
	commit(db);
	EVENTUALLY(has_line("dir/a=20b", &entry));
	assert_false(entry.dropped);
	assert_int_equal(entry.page_size, 4096);
	assert_true(entry.txid == 1 && entry.floor == 1);
	assert_true(entry.time_ms == 1700000000001);
	c = catalog_now();
	assert_int_equal(catalog_epoch(c), 1);
	EVENTUALLY(LOCKED(who.told) == 1);
	assert_string_equal(who.id, catalog_id(c));
}

static void commits_that_say_nothing_new_do_not_write_it(void **state)
{
	struct made_up_db *db;

	start_as(NULL);
	db = add_with_commit("a");
	EVENTUALLY(is_live("a"));
	for (uint64_t txid = 2; txid <= 6; txid++) {
		commit(db);
		assert_int_equal(wait_for(db, txid), 0);
	}
	assert_int_equal(uploader_drain(h.u, 10000), 0);
	assert_int_equal(net()->catalog_puts, 1);
	assert_int_equal(LOCKED(who.told), 1);
}

static void drops_returns_and_page_sizes_are_written(void **state)
{
	struct batch_like drop = { .first = 2, .last = 1, .kind = LTX_DROP };
	struct batch_like large = { .page_size = 8192, .first = 1, .last = 5 };
	struct catalog_entry entry;
	struct made_up_db *db;

	start_as(NULL);
	db = add_with_commit("a");
	EVENTUALLY(is_live("a"));
	assert_int_equal(commit_like(db, drop), 2);
	EVENTUALLY(is_dropped_at("a", 2));
	assert_int_equal(commit_like(db, large), 3);
	EVENTUALLY(is_live("a"));
	assert_true(has_line("a", &entry));
	assert_true(entry.page_size == 8192 && entry.txid == 3);
	EVENTUALLY(status_of(db).state == UPLOADER_IDLE);
	assert_int_equal(fault_read(net(), catalog_puts), 3);
	/* As it was written itself, it need not be read again. */
	assert_in_range(fault_read(net(), catalog_gets), 1, 2);
}

static void what_many_databases_say_is_gathered(void **state)
{
	const struct uploader_catalog_config config = {
		.bucket = &net()->bucket,
	};
	struct ltx_header slot = { .page_size = 4096, .max_txid = 1 };
	AUTO(uploader_catalog) struct uploader_catalog *c = NULL;
	AUTO(catalog) struct catalog *found = NULL;
	int64_t begin = clock_monotonic_ms();
	char db[32];

	assert_int_equal(uploader_catalog_new(&config, &c), 0);
	for (unsigned i = 0; i < 60; i++) {
		snprintf(db, sizeof(db), "app%u.db", i);
		uploader_catalog_note(c, db, &slot);
		clock_sleep_ms(5);
	}
	uploader_catalog_drain(c, COND_NEVER);
	found = catalog_now();
	assert_int_equal(catalog_count(found), 60);
	/* One a second, and the last. */
	assert_in_range(fault_read(net(), catalog_puts), 1,
			2 + (clock_monotonic_ms() - begin) / 1000);
}

static void lost_replies_are_seen_to_have_happened(void **state)
{
	AUTO(catalog) struct catalog *c = NULL;

	start_as(NULL);
	net()->only = CATALOG_KEY;
	add_with_commit("a");
	EVENTUALLY(is_live("a"));
	EVENTUALLY(LOCKED(who.told) == 1);
	/* Of a change; the slot and snapshot of b lose theirs as well. */
	fault_set(net(), lose, 3);
	add_with_commit("b");
	EVENTUALLY(is_live("b"));
	EVENTUALLY(fault_read(net(), lose) == 0);
	assert_int_equal(uploader_drain(h.u, 10000), 0);
	c = catalog_now();
	assert_int_equal(catalog_count(c), 2);
	assert_string_equal(catalog_id(c), who.id);
}

static void the_lost_reply_of_the_first_put_does_not_make_another_id(
	void **state)
{
	AUTO(catalog) struct catalog *c = NULL;

	start_as(NULL);
	net()->lose = 3; /* slot, snapshot, catalog */
	add_with_commit("a");
	EVENTUALLY(LOCKED(who.told) == 1);
	c = catalog_now();
	assert_string_equal(catalog_id(c), who.id);
	assert_true(is_live("a"));
	assert_int_equal(fault_read(net(), catalog_puts), 1);
}

static void race_to_create(struct fault_bucket *f)
{
	f->before_catalog = NULL;
	put_line(OTHER_ID, "theirs", 1);
}

static void who_loses_the_race_to_create_joins_the_winner(void **state)
{
	AUTO(catalog) struct catalog *c = NULL;

	start_as(NULL);
	net()->before_catalog = race_to_create;
	add_with_commit("ours");
	EVENTUALLY(is_live("ours"));
	EVENTUALLY(LOCKED(who.told) == 1);
	assert_string_equal(who.id, OTHER_ID);
	assert_true(is_live("theirs"));
}

static void who_loses_races_adds_its_line_to_theirs(void **state)
{
	AUTO(catalog) struct catalog *c = NULL;

	races = 0;
	start_as(NULL);
	add_with_commit("a");
	EVENTUALLY(is_live("a"));
	fault_set(net(), before_catalog, race_to_change);
	add_with_commit("b");
	EVENTUALLY(is_live("b"));
	c = catalog_now();
	assert_int_equal(catalog_count(c), 5);
	assert_true(is_live("a") && is_live("theirs1") && is_live("theirs3"));
	/* The first, three that were lost, and the one that was not. */
	assert_int_equal(fault_read(net(), catalog_puts), 5);
}

static void an_older_word_does_not_undo_a_newer(void **state)
{
	struct catalog_entry entry;

	start_as(NULL);
	put_line(OTHER_ID, "a", 7);
	add_with_commit("a");
	assert_int_equal(uploader_drain(h.u, 10000), 0);
	assert_true(has_line("a", &entry));
	assert_true(entry.txid == 7 && entry.page_size == 512);
}

static void without_if_match_it_is_written_all_the_same(void **state)
{
	net()->without = BUCKET_IF_MATCH;
	start_as(NULL);
	assert_int_equal(uploader_check(h.u), 0);
	add_with_commit("a");
	EVENTUALLY(is_live("a"));
	put_line(NULL, "theirs", 1);
	add_with_commit("b");
	EVENTUALLY(is_live("b"));
	/* Read just before: the other's line is there still. */
	assert_true(is_live("a") && is_live("theirs"));
}

static void trouble_with_it_keeps_no_batch(void **state)
{
	struct made_up_db *db;
	char error[256];

	net()->fail = -EACCES;
	net()->only = CATALOG_KEY;
	start_as(NULL);
	assert_int_equal(uploader_check(h.u), 0);
	db = add_with_commit("a");
	commit(db);
	assert_int_equal(wait_for(db, 2), 0);
	EVENTUALLY((uploader_catalog_status(h.u, error, sizeof(error)),
		    error[0]));
	assert_non_null(strstr(error, "told to fail"));
	assert_settled(db);
	/* Nor an end: the last try is now, and the batches are sent. */
	assert_int_equal(uploader_drain(h.u, 10000), 0);
	assert_null(catalog_now());
	/* What was noted is written when it can be. */
	fault_set(net(), fail, 0);
	assert_int_equal(uploader_drain(h.u, 10000), 0);
	assert_true(is_live("a"));
	uploader_catalog_status(h.u, error, sizeof(error));
	assert_string_equal(error, "");
}

static void it_is_tried_again_by_itself(void **state)
{
	start_as(NULL);
	net()->fail = -ETIMEDOUT;
	net()->only = CATALOG_KEY;
	add_with_commit("a");
	EVENTUALLY(fault_read(net(), catalog_gets) >= 2);
	fault_set(net(), fail, 0);
	EVENTUALLY(is_live("a"));
}

static void a_damaged_catalog_is_left_alone_and_keeps_no_batch(void **state)
{
	AUTO(buf) struct buf text = BUF_INIT(1 << 10);
	struct buf_sink sink;

	put_text("{ broken");
	start_as(OTHER_ID);
	assert_int_equal(uploader_check(h.u), 0);
	add_with_commit("a");
	assert_int_equal(uploader_drain(h.u, 10000), 0);
	buf_sink_init(&sink, &text);
	assert_int_equal(bucket_get(h.place.store, CATALOG_KEY, 0,
				    BUCKET_TO_END, NULL, &sink.sink, NULL), 0);
	assert_string_equal(text.data, "{ broken");
}

static void a_start_mends_what_a_crash_left_behind(void **state)
{
	struct made_up_db *db = new_db("a", 1, 1);
	AUTO(catalog) struct catalog *c = NULL;
	char id[CATALOG_ID_SIZE];

	/* As after a crash: the log has it, the catalog does not. */
	start_as(NULL);
	add(db, 0);
	assert_int_equal(wait_for(db, 1), 0);
	assert_settled(db);
	assert_int_equal(uploader_drain(h.u, 10000), 0);
	strcpy(id, who.id);
	stop();
	assert_int_equal(bucket_remove(h.place.store,
				       (const char *[]){ CATALOG_KEY }, 1), 0);
	start_as(id);
	assert_int_equal(uploader_check(h.u), 0);
	add(db, 1);
	EVENTUALLY(is_live("a"));
	c = catalog_now();
	assert_string_equal(catalog_id(c), id);
}

static void a_start_that_finds_it_right_asks_once(void **state)
{
	struct made_up_db *db = new_db("a", 1, 1);
	char id[CATALOG_ID_SIZE];

	start_as(NULL);
	add(db, 0);
	assert_int_equal(wait_for(db, 1), 0);
	assert_settled(db);
	assert_int_equal(uploader_drain(h.u, 10000), 0);
	strcpy(id, who.id);
	stop();
	net()->catalog_puts = net()->catalog_gets = 0;
	start_as(id);
	assert_int_equal(uploader_check(h.u), 0);
	add(db, 1);
	assert_int_equal(wait_for(db, 1), 0);
	assert_int_equal(uploader_drain(h.u, 10000), 0);
	assert_int_equal(net()->catalog_gets, 1);
	assert_int_equal(net()->catalog_puts, 0);
	assert_int_equal(who.told, 0);
}

/* In a child that is killed at a failpoint; its spool is on disk. */
static void die_at(const char *point)
{
	int status;
	pid_t child = fork();

	assert_true(child >= 0);
	if (child == 0) {
		struct made_up_db *db = new_db("a", 1, 1);

		(void)setenv("LITEBUCKET_FAILPOINT", point, 1);
		start_as(NULL);
		add(db, 0);
		(void)wait_for(db, 1);
		(void)uploader_drain(h.u, 10000);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGKILL);
}

static void after_a_kill_the_next_start_completes_it(void **state)
{
	static const char *const points[] = {
		"catalog-due:kill",
		"catalog-put:kill",
		"slot-confirmed:kill",
	};

#ifndef LITEBUCKET_FAILPOINTS
	skip();
#endif
	for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
		uint64_t first, last;
		struct made_up_db *db;

		if (i > 0) {
			harness_tear_down(NULL);
			harness_set_up(NULL);
		}
		die_at(points[i]);
		db = new_db("a", 0, 0);
		assert_int_equal(spool_range(db->spool, &first, &last), 0);
		start_as(NULL);
		add(db, first ? 0 : 1);
		EVENTUALLY(is_live("a"));
		EVENTUALLY(LOCKED(who.told) == 1);
		assert_settled(db);
	}
}

static void another_id_than_last_time_is_refused(void **state)
{
	put_line(OTHER_ID, NULL, 0);
	start_as("00112233445566778899aabbccddeeff");
	assert_int_equal(uploader_check(h.u), -ERR_GAP);
	assert_non_null(strstr(error_message(), "another bucket than before"));
	assert_non_null(strstr(error_message(), "id " OTHER_ID));
	assert_non_null(strstr(error_message(), "remove .litebucket"));
}

static void an_empty_bucket_is_not_the_one_of_before(void **state)
{
	struct made_up_db *db;

	start_as("00112233445566778899aabbccddeeff");
	assert_int_equal(uploader_check(h.u), -ERR_GAP);
	assert_non_null(strstr(error_message(), "it is empty"));
	/* Nor is it by the lease of somebody who began anew in it. */
	put_object(LEASE_KEY, "{}");
	assert_int_equal(uploader_check(h.u), -ERR_GAP);
	assert_int_equal(uploader_take(h.u, 5), -ERR_GAP);
	/* Nor later, should somebody go on. */
	db = add_new("a");
	commit(db);
	assert_int_equal(wait_for(db, 1), -ERR_GAP);
	assert_false(object_exists(&h.place, "a", 0, 1, 1));
}

static void whose_it_is_can_turn_out_later(void **state)
{
	struct made_up_db *db;

	put_line(OTHER_ID, NULL, 0);
	net()->fail = -ECONNREFUSED;
	start_as("00112233445566778899aabbccddeeff");
	assert_int_equal(uploader_check(h.u), 1);
	db = add_new("a");
	commit(db);
	EVENTUALLY(status_of(db).state == UPLOADER_RETRYING);
	fault_set(net(), fail, 0);
	uploader_urge(h.u, "a");
	assert_int_equal(wait_for(db, 1), -ERR_GAP);
	assert_non_null(strstr(error_message(), "another bucket"));
	assert_false(object_exists(&h.place, "a", 0, 1, 1));
}

static void a_newer_format_stops_who_is_running(void **state)
{
	struct made_up_db *a;

	start_as(NULL);
	a = add_with_commit("a");
	EVENTUALLY(is_live("a"));
	put_text("{\"format\": 2}");
	add_with_commit("b");
	EVENTUALLY((commit(a), status_of(a).state == UPLOADER_STOPPED));
	assert_non_null(strstr(status_of(a).error, "newer litebucket"));
}

static void a_newer_format_is_told_at_the_start(void **state)
{
	put_text("{\"format\": 2}");
	start_as(NULL);
	assert_int_equal(uploader_check(h.u), -EOPNOTSUPP);
	assert_non_null(strstr(error_message(), "newer litebucket"));
}

static void an_id_that_could_not_be_kept_is_told_again(void **state)
{
	start_as(NULL);
	who.fail = -ENOSPC;
	add_with_commit("a");
	EVENTUALLY(LOCKED(who.told) == 1);
	(void)lock(&h.lock);
	who.fail = 0;
	(void)pthread_mutex_unlock(&h.lock);
	add_with_commit("b");
	EVENTUALLY(LOCKED(who.told) == 2);
	add_with_commit("c");
	EVENTUALLY(is_live("c"));
	assert_int_equal(LOCKED(who.told), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_first_batch_makes_the_catalog),
		TEST(commits_that_say_nothing_new_do_not_write_it),
		TEST(drops_returns_and_page_sizes_are_written),
		TEST(what_many_databases_say_is_gathered),
		TEST(lost_replies_are_seen_to_have_happened),
		TEST(the_lost_reply_of_the_first_put_does_not_make_another_id),
		TEST(who_loses_the_race_to_create_joins_the_winner),
		TEST(who_loses_races_adds_its_line_to_theirs),
		TEST(an_older_word_does_not_undo_a_newer),
		TEST(without_if_match_it_is_written_all_the_same),
		TEST(trouble_with_it_keeps_no_batch),
		TEST(it_is_tried_again_by_itself),
		TEST(a_damaged_catalog_is_left_alone_and_keeps_no_batch),
		TEST(a_start_mends_what_a_crash_left_behind),
		TEST(a_start_that_finds_it_right_asks_once),
		TEST(after_a_kill_the_next_start_completes_it),
		TEST(another_id_than_last_time_is_refused),
		TEST(an_empty_bucket_is_not_the_one_of_before),
		TEST(whose_it_is_can_turn_out_later),
		TEST(a_newer_format_stops_who_is_running),
		TEST(a_newer_format_is_told_at_the_start),
		TEST(an_id_that_could_not_be_kept_is_told_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
