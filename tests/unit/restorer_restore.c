/*
 * From a bucket to a file: what is restored, and which point is meant.  What is
 * refused because bytes are bad is in restorer_damage.c, what happens to the
 * output in restorer_output.c.
 */
#include "restorer_world.h"

/* States 1 to 9: growing, shrinking, growing again, a barrier. */
static void make_history(struct world *w)
{
	world_commit(w, 3, 1, 3);
	world_commit(w, 6, 2, 1);
	world_commit(w, 20, 1, 1);
	world_commit(w, 4, 3, 2);
	world_commit(w, 10, 1, 2);
	world_mark(w, LTX_BARRIER);
	world_commit(w, 10, 7, 1);
	world_commit(w, 11, 2, 3);
	world_commit(w, 11, 1, 1);
}

static void every_transaction_of_a_log_is_restored_exactly(void **state)
{
	struct world *w = *state;

	make_history(w);
	world_put_log(w, 1, w->head);
	for (uint64_t txid = 1; txid <= w->head; txid++) {
		world_check(w, txid);
		assert_true(w->result.proven);
		assert_int_equal(w->result.files, txid);
		assert_int_equal(w->result.timestamp_ms,
				 WORLD_TIME + (int64_t)txid * 1000);
	}
	world_check_latest(w, w->head);
	assert_true(w->result.bytes_fetched > 0);
}

/* A snapshot up to base, a compaction from from to middle, and the log. */
static void check_cut(struct world *w, uint64_t base, uint64_t from,
		      uint64_t middle)
{
	world_put(w, 9, 1, base);
	world_put(w, 1, from, middle);
	world_put_log(w, middle + 1, 9);
	world_check(w, base);
	world_check(w, middle);
	world_check(w, 9);
	assert_int_equal(w->result.files, 2 + 9 - middle);
	world_remove(w, 9, 1, base);
	world_remove(w, 1, from, middle);
	for (uint64_t txid = middle + 1; txid <= 9; txid++)
		world_remove(w, 0, txid, txid);
}

static void compactions_and_snapshots_give_the_same_bytes(void **state)
{
	struct world *w = *state;

	make_history(w);
	for (uint64_t base = 1; base < 9; base++)
		for (uint64_t middle = base + 1; middle <= 9; middle++) {
			check_cut(w, base, base + 1, middle);
			check_cut(w, base, 2, middle);
		}
}

static void files_without_our_checksums_are_restored_unproven(void **state)
{
	struct world *w = *state;

	w->no_sums = true;
	make_history(w);
	world_put_log(w, 1, 9);
	world_check(w, 9);
	assert_false(w->result.proven);
}

static void a_database_below_the_root_is_found_by_its_name(void **state)
{
	struct world *w = *state;
	AUTO(buf) struct buf file = BUF_INIT(1 << 20);
	struct bucket_put put = {
		.key = "shop/app.db/0000/0000000000000001-0000000000000001.ltx",
	};
	struct ltx_header h;

	make_history(w);
	h = world_header(w, 1, 1);
	world_encode(w, &h, 0, &file);
	put.data = file.data;
	put.size = file.size;
	assert_int_equal(bucket_put(w->spy.inner, &put, NULL), 0);
	world_refuse(w, 0, -ENOENT, "there is no database at file:///");
	w->options.db = "shop/app.db";
	world_check_latest(w, 1);
}

static void an_empty_bucket_has_no_database(void **state)
{
	struct world *w = *state;
	struct restorer_point point;

	w->options.db = "app.db";
	world_refuse(w, 0, -ENOENT, "/bucket/app.db (no LTX files)");
	world_refuse(w, 7, -ENOENT, "there is no database");
	assert_int_equal(restorer_head(w->options.bucket, "app.db", &point),
			 -ENOENT);
}

static void a_new_page_size_starts_from_nothing(void **state)
{
	struct world *w = *state;

	world_commit(w, 9, 1, 9);
	world_commit(w, 9, 2, 2);
	world_commit_resized(w, 4096, 2);
	world_commit(w, 3, 1, 1);
	world_commit_resized(w, 512, 5);
	world_commit(w, 5, 5, 1);
	world_put_log(w, 1, 6);
	for (uint64_t txid = 1; txid <= 6; txid++)
		world_check(w, txid);
	world_put(w, 9, 1, 3);
	world_put(w, 1, 5, 6);
	world_check(w, 4);
	world_check(w, 6);
}

static void a_new_page_size_without_all_pages_is_refused(void **state)
{
	struct world *w = *state;
	struct ltx_header h;

	world_commit(w, 9, 1, 9);
	world_commit_resized(w, 4096, 3);
	world_put_log(w, 1, 1);
	h = world_header(w, 2, 2);
	for (uint32_t skip = 1; skip <= 3; skip++) {
		world_put_header(w, 0, &h, skip);
		world_refuse(w, 2, -ERR_CORRUPT,
			     "0000/0000000000000002-0000000000000002.ltx: page");
		world_says("is missing");
	}
}

static void a_page_that_is_new_must_be_in_the_file(void **state)
{
	struct world *w = *state;
	struct ltx_header h;

	world_commit(w, 4, 1, 4);
	world_commit(w, 8, 2, 1);
	world_put_log(w, 1, 1);
	h = world_header(w, 2, 2);
	h.pre_dbsum = h.post_dbsum = 0;
	for (uint32_t skip = 5; skip <= 8; skip++) {
		char says[64];

		snprintf(says, sizeof(says), "page %u is missing", skip);
		world_put_header(w, 0, &h, skip);
		world_refuse(w, 2, -ERR_CORRUPT, says);
	}
}

static void an_unknown_transaction_is_refused_with_the_range(void **state)
{
	struct world *w = *state;

	make_history(w);
	world_put(w, 9, 1, 4);
	world_put(w, 1, 5, 8);
	world_put(w, 0, 7, 7);
	world_put_log(w, 9, 9);
	world_refuse(w, 10, -ENOENT, "transaction 000000000000000a cannot be "
		     "restored; there are 3 from 0000000000000004 to "
		     "0000000000000009, nearest: 0000000000000009");
	/* Inside compactions, with and without a file that ends there. */
	world_refuse(w, 6, -ENOENT,
		     "nearest: 0000000000000004 and 0000000000000008");
	world_refuse(w, 7, -ENOENT,
		     "nearest: 0000000000000004 and 0000000000000008");
	world_refuse(w, 1, -ENOENT, "nearest: 0000000000000004");
	world_refuse(w, UINT64_MAX, -ENOENT, "ffffffffffffffff");
	world_check(w, 8);
}

static void a_missing_transaction_is_named(void **state)
{
	struct world *w = *state;
	struct restorer_point point;

	make_history(w);
	world_put(w, 9, 1, 3);
	world_put_log(w, 4, 9);
	world_remove(w, 0, 6, 6);
	world_refuse(w, 9, -ERR_GAP, "transaction 0000000000000006 is missing");
	world_refuse(w, 6, -ERR_GAP, "transaction 0000000000000006 is missing");
	/* Not the state before the hole for the latest. */
	world_refuse(w, 0, -ERR_GAP, "transaction 0000000000000006 is missing");
	assert_int_equal(restorer_head(w->options.bucket, "", &point),
			 -ERR_GAP);
	world_check(w, 5);
	/* A file of another level may begin earlier than it must. */
	world_put(w, 2, 5, 7);
	world_check_latest(w, 9);
	world_check(w, 8);
}

static void a_stray_file_beyond_the_log_is_a_gap(void **state)
{
	struct world *w = *state;

	make_history(w);
	world_put_log(w, 1, 2);
	world_put(w, 1, 4, 4);
	world_refuse(w, 0, -ERR_GAP, "transaction 0000000000000003 is missing");
	world_check(w, 2);
}

static void without_a_base_nothing_is_restored(void **state)
{
	struct world *w = *state;

	make_history(w);
	world_put_log(w, 2, 9);
	world_refuse(w, 0, -ENOENT, "no file begins at transaction 1");
	world_refuse(w, 5, -ENOENT, "no file begins at transaction 1");
}

/* Level 0 may hold ranges that begin below the snapshot's end. */
static void a_range_in_level_0_across_the_base_is_used(void **state)
{
	struct world *w = *state;

	make_history(w);
	world_put(w, 9, 1, 4);
	world_put(w, 0, 3, 6);
	world_put_log(w, 7, 8);
	world_check_latest(w, 8);
	world_check(w, 6);
	world_check(w, 4);
}

static int restore_at(struct world *w, int64_t timestamp_ms)
{
	w->options.txid = 0;
	w->options.timestamp_ms = timestamp_ms;
	return restorer_restore(&w->options, &w->result);
}

static void check_at(struct world *w, int64_t timestamp_ms, uint64_t txid)
{
	if (restore_at(w, timestamp_ms) < 0)
		fail_msg("%s", error_message());
	world_expect(w, txid);
	assert_int_equal(unlink(w->output), 0);
}

static void refuse_at(struct world *w, int64_t timestamp_ms, int rc,
		      const char *says)
{
	assert_int_equal(restore_at(w, timestamp_ms), rc);
	world_says(says);
	world_expect_names(w, "");
}

static void a_time_means_the_last_batch_until_then(void **state)
{
	struct world *w = *state;

	make_history(w);
	world_put_log(w, 1, 9);
	for (uint64_t txid = 1; txid <= 9; txid++) {
		int64_t at = WORLD_TIME + (int64_t)txid * 1000;

		check_at(w, at, txid);
		if (txid < 9) {
			check_at(w, at + 1, txid);
			check_at(w, at + 999, txid);
		}
	}
}

static void a_time_outside_of_the_history_is_refused_with_the_range(void **state)
{
	struct world *w = *state;
	const char *range = "outside of what can be restored, "
			    "2026-01-01T00:00:01.000Z (transaction "
			    "0000000000000001) to 2026-01-01T00:00:09.000Z "
			    "(transaction 0000000000000009)";

	make_history(w);
	world_put_log(w, 1, 9);
	refuse_at(w, WORLD_TIME + 999, -ENOENT, range);
	refuse_at(w, WORLD_TIME + 9001, -ENOENT, range);
	refuse_at(w, 1, -ENOENT, range);
	refuse_at(w, INT64_MAX, -ENOENT, range);
}

static void a_time_within_a_compaction_means_the_point_before(void **state)
{
	struct world *w = *state;

	make_history(w);
	world_put(w, 9, 1, 3);
	world_put(w, 1, 4, 8);
	world_put_log(w, 7, 9);
	check_at(w, WORLD_TIME + 7500, 3);
	check_at(w, WORLD_TIME + 8000, 8);
	refuse_at(w, WORLD_TIME + 2999, -ENOENT, "outside");
}

/* The missing one may have been there at that time. */
static void a_time_at_a_hole_is_a_gap(void **state)
{
	struct world *w = *state;

	make_history(w);
	world_put_log(w, 1, 9);
	world_remove(w, 0, 6, 6);
	refuse_at(w, WORLD_TIME + 5500, -ERR_GAP,
		  "transaction 0000000000000006 is missing");
	refuse_at(w, WORLD_TIME + 6500, -ERR_GAP, "0000000000000006");
	refuse_at(w, WORLD_TIME + 8500, -ERR_GAP, "0000000000000006");
	refuse_at(w, WORLD_TIME + 99000, -ERR_GAP, "0000000000000006");
	check_at(w, WORLD_TIME + 4500, 4);
}

static void a_dropped_database_is_restored_only_from_before(void **state)
{
	struct world *w = *state;
	const char *says = "the database was dropped at "
			   "2026-01-01T00:00:04.000Z, in transaction "
			   "0000000000000004; --txid 0000000000000003 restores "
			   "the last state before that";
	struct ltx_header h;

	world_commit(w, 3, 1, 3);
	world_commit(w, 5, 1, 1);
	world_commit(w, 5, 4, 1);
	world_mark(w, LTX_DROP);
	world_put_log(w, 1, 4);
	world_refuse(w, 0, -ENOENT, says);
	world_refuse(w, 4, -ENOENT, says);
	refuse_at(w, WORLD_TIME + 4000, -ENOENT, says);
	refuse_at(w, WORLD_TIME + 9000, -ENOENT, says);
	check_at(w, WORLD_TIME + 3999, 3);
	w->options.timestamp_ms = 0;
	world_check(w, 3);

	/* With the slot known only from where the compactions end, too. */
	world_put(w, 1, 1, 3);
	world_refuse(w, 0, -ENOENT, says);
	world_put(w, 2, 1, 4);
	world_refuse(w, 0, -ENOENT, says);
	/* Under a compaction of Litestream, which knows no kinds, too. */
	h = world_header(w, 1, 4);
	h.kind = LTX_BATCH;
	world_put_header(w, 2, &h, 0);
	world_refuse(w, 0, -ENOENT, says);
	world_put(w, 2, 1, 4);
	/* And when only a compaction is left that ends with the drop. */
	world_remove(w, 0, 4, 4);
	world_refuse(w, 0, -ENOENT, says);
	world_check(w, 3);
}

static void a_database_that_was_made_again_is_restored(void **state)
{
	struct world *w = *state;

	world_commit(w, 9, 1, 9);
	world_mark(w, LTX_DROP);
	world_commit(w, 4, 1, 4);
	world_commit(w, 4, 2, 1);
	world_put_log(w, 1, 4);
	world_check_latest(w, 4);
	world_check(w, 3);
	world_check(w, 1);
	world_refuse(w, 2, -ENOENT, "was dropped");
}

static void a_batch_that_lies_elsewhere_is_not_supported(void **state)
{
	struct world *w = *state;

	world_commit(w, 9, 1, 9);
	world_mark(w, LTX_STAGED);
	world_put_log(w, 1, 2);
	world_refuse(w, 0, -EOPNOTSUPP,
		     "0000/0000000000000002-0000000000000002.ltx: the "
		     "transaction is stored in a way that this version cannot "
		     "read");
	/* The snapshot that was made of it is as good. */
	world_put(w, 9, 1, 1);
	world_commit(w, 9, 1, 9);
	world_put(w, 9, 1, 3);
	world_check_latest(w, 3);
}

static void a_small_replica_costs_few_requests(void **state)
{
	struct world *w = *state;

	make_history(w);
	world_put_log(w, 1, 3);
	world_check_latest(w, 3);
	assert_in_range(atomic_load(&w->spy.requests), 1, 5);

	world_remove(w, 0, 1, 1);
	world_put(w, 9, 1, 1);
	atomic_store(&w->spy.requests, 0);
	world_check_latest(w, 3);
	assert_in_range(atomic_load(&w->spy.requests), 1, 5);

	/* One that can be a drop is asked. */
	world_put_log(w, 4, 5);
	world_put(w, 1, 2, 5);
	world_put_log(w, 6, 6);
	atomic_store(&w->spy.requests, 0);
	world_check_latest(w, 6);
	assert_in_range(atomic_load(&w->spy.requests), 1, 6);
}

/* Before the first get of 4-4, a compaction takes its place. */
static void compact_before_get(const char *key, void *arg)
{
	struct world *w = arg;

	if (!strstr(key, "0000/0000000000000004"))
		return;
	w->spy.before_get = NULL;
	world_put(w, 1, 2, 4);
	world_put(w, 0, 5, 5);
	for (uint64_t txid = 2; txid <= 4; txid++)
		world_remove(w, 0, txid, txid);
}

/* What may be read is asked once all of it was read; it answers arg. */
static bool asked_of_ours;

static int answer(bool ours, void *arg)
{
	asked_of_ours = ours;
	return *(int *)arg ? error_set(*(int *)arg, "not to be read") : 0;
}

static void what_is_not_accepted_does_not_appear(void **state)
{
	struct world *w = *state;
	int refusal = -EOPNOTSUPP;

	make_history(w);
	world_put_log(w, 1, 3);
	w->options.accept = answer;
	w->options.accept_arg = &refusal;
	assert_int_equal(world_restore(w, 0), -EOPNOTSUPP);
	world_says("not to be read");
	world_expect_names(w, "");
	assert_true(asked_of_ours);
	refusal = 0;
	world_check_latest(w, 3);
}

static void who_accepts_knows_another_programs_files(void **state)
{
	struct world *w = *state;
	int fine = 0;

	w->no_sums = true;
	make_history(w);
	world_put_log(w, 1, 3);
	w->options.accept = answer;
	w->options.accept_arg = &fine;
	asked_of_ours = true;
	assert_int_equal(world_restore(w, 0), 0);
	assert_false(asked_of_ours);
}

static void expect_growth(uint64_t done, uint64_t total, void *arg)
{
	uint64_t *shown = arg;

	assert_true(done >= *shown && done <= total);
	*shown = done;
}

static void a_file_that_goes_meanwhile_is_planned_around(void **state)
{
	struct world *w = *state;
	uint64_t shown = 0;

	make_history(w);
	world_put_log(w, 1, 4);
	w->spy.arg = w;
	w->spy.before_get = compact_before_get;
	w->options.parallel = 1;
	w->options.progress = expect_growth;
	w->options.progress_arg = &shown;
	assert_int_equal(world_restore(w, 0), 0);
	/* The state that was the latest when it began. */
	world_expect(w, 4);
	assert_int_equal(w->result.files, 2);
	assert_true(shown == w->result.bytes_fetched);
}

static void remove_before_get(const char *key, void *arg)
{
	if (strstr(key, "0000/0000000000000002"))
		world_remove(arg, 0, 2, 2);
}

static void a_file_that_goes_for_good_is_a_gap(void **state)
{
	struct world *w = *state;

	make_history(w);
	world_put_log(w, 1, 4);
	w->spy.arg = w;
	w->spy.before_get = remove_before_get;
	world_refuse(w, 0, -ERR_GAP, "transaction 0000000000000002 is missing");
}

struct found {
	uint64_t txids[16];
	struct restorer_point last;
	size_t n;
};

static int note_point(const struct restorer_point *point, void *arg)
{
	struct found *f = arg;

	f->txids[f->n++] = point->txid;
	f->last = *point;
	return f->n == 16 ? 1 : 0;
}

/* And again, so that the state that was the latest is in no file of its own. */
static void compact_beyond_before_get(const char *key, void *arg)
{
	struct world *w = arg;

	if (!strstr(key, "0000/0000000000000004"))
		return;
	w->spy.before_get = NULL;
	world_put_log(w, 5, 6);
	world_put(w, 1, 2, 5);
	for (uint64_t txid = 2; txid <= 5; txid++)
		world_remove(w, 0, txid, txid);
}

static void the_latest_that_becomes_part_of_more_is_a_newer_one(void **state)
{
	struct world *w = *state;
	struct restorer_point head;

	make_history(w);
	world_put_log(w, 1, 4);
	w->spy.arg = w;
	w->spy.before_get = compact_beyond_before_get;
	world_check_latest(w, 6);
	/* Who asked for it by name is told. */
	world_remove(w, 1, 2, 5);
	world_remove(w, 0, 6, 6);
	world_put_log(w, 2, 4);
	w->spy.before_get = compact_beyond_before_get;
	world_refuse(w, 4, -ENOENT, "nearest");
	/* To ask what is the latest is to look at one file, which may go, too. */
	world_put_log(w, 2, 4);
	world_remove(w, 1, 2, 5);
	world_remove(w, 0, 6, 6);
	w->spy.before_get = compact_beyond_before_get;
	assert_int_equal(restorer_head(w->options.bucket, "", &head), 0);
	assert_int_equal(head.txid, 6);
}

/* Level 0 is listed after those above it; meanwhile some of it moves there. */
static void compact_before_list(const char *prefix, void *arg)
{
	struct world *w = arg;

	if (strcmp(prefix, "0000/") != 0)
		return;
	w->spy.before_list = NULL;
	world_put(w, 1, 3, 5);
	for (uint64_t txid = 3; txid <= 5; txid++)
		world_remove(w, 0, txid, txid);
}

static void what_is_compacted_while_it_is_listed_is_no_gap(void **state)
{
	struct world *w = *state;
	struct found f = { .n = 0 };
	struct restorer_point head;

	make_history(w);
	w->spy.arg = w;
	for (int i = 0; i < 3; i++) {
		world_put_log(w, 1, 9);
		world_put(w, 1, 1, 2);
		if (i > 0)
			world_remove(w, 1, 3, 5);
		w->spy.before_list = compact_before_list;
		if (i == 0) {
			world_check_latest(w, 9);
		} else if (i == 1) {
			assert_int_equal(restorer_head(w->options.bucket, "",
						       &head), 0);
			assert_int_equal(head.txid, 9);
		} else {
			assert_int_equal(restorer_history(w->options.bucket, "",
							  note_point, &f), 0);
			assert_int_equal(f.last.txid, 9);
		}
	}
}

static void history_tells_every_point(void **state)
{
	static const uint64_t expected[] = { 2, 3, 4, 7, 8, 9 };
	struct world *w = *state;
	struct restorer_point head;
	struct found f = { 0 };

	make_history(w);
	world_put(w, 9, 1, 2);
	world_put_log(w, 3, 4);
	world_put(w, 1, 5, 7);
	world_put_log(w, 8, 9);
	assert_int_equal(restorer_history(w->options.bucket, "", note_point,
					  &f), 0);
	assert_int_equal(f.n, 6);
	assert_memory_equal(f.txids, expected, sizeof(expected));
	assert_int_equal(f.last.level, 0);
	assert_int_equal(f.last.commit, 11);
	assert_int_equal(f.last.page_size, WORLD_PAGE_SIZE);
	assert_int_equal(f.last.timestamp_ms, WORLD_TIME + 9000);
	assert_int_equal(restorer_head(w->options.bucket, "", &head), 0);
	assert_int_equal(head.txid, 9);
	assert_int_equal(head.timestamp_ms, f.last.timestamp_ms);
	assert_int_equal(head.size, f.last.size);
}

static void the_head_of_a_dropped_database_is_its_drop(void **state)
{
	struct world *w = *state;
	struct restorer_point head;

	world_commit(w, 3, 1, 3);
	world_mark(w, LTX_DROP);
	world_put_log(w, 1, 2);
	assert_int_equal(restorer_head(w->options.bucket, "", &head), 0);
	assert_int_equal(head.txid, 2);
	assert_int_equal(head.kind, LTX_DROP);
}

#define WORLD_TEST(f) cmocka_unit_test_setup_teardown(f, world_setup, world_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD_TEST(every_transaction_of_a_log_is_restored_exactly),
		WORLD_TEST(compactions_and_snapshots_give_the_same_bytes),
		WORLD_TEST(files_without_our_checksums_are_restored_unproven),
		WORLD_TEST(a_database_below_the_root_is_found_by_its_name),
		WORLD_TEST(an_empty_bucket_has_no_database),
		WORLD_TEST(a_new_page_size_starts_from_nothing),
		WORLD_TEST(a_new_page_size_without_all_pages_is_refused),
		WORLD_TEST(a_page_that_is_new_must_be_in_the_file),
		WORLD_TEST(an_unknown_transaction_is_refused_with_the_range),
		WORLD_TEST(a_missing_transaction_is_named),
		WORLD_TEST(a_stray_file_beyond_the_log_is_a_gap),
		WORLD_TEST(without_a_base_nothing_is_restored),
		WORLD_TEST(a_range_in_level_0_across_the_base_is_used),
		WORLD_TEST(a_time_means_the_last_batch_until_then),
		WORLD_TEST(
			a_time_outside_of_the_history_is_refused_with_the_range),
		WORLD_TEST(a_time_within_a_compaction_means_the_point_before),
		WORLD_TEST(a_time_at_a_hole_is_a_gap),
		WORLD_TEST(a_dropped_database_is_restored_only_from_before),
		WORLD_TEST(a_database_that_was_made_again_is_restored),
		WORLD_TEST(a_batch_that_lies_elsewhere_is_not_supported),
		WORLD_TEST(a_small_replica_costs_few_requests),
		WORLD_TEST(what_is_not_accepted_does_not_appear),
		WORLD_TEST(who_accepts_knows_another_programs_files),
		WORLD_TEST(a_file_that_goes_meanwhile_is_planned_around),
		WORLD_TEST(a_file_that_goes_for_good_is_a_gap),
		WORLD_TEST(the_latest_that_becomes_part_of_more_is_a_newer_one),
		WORLD_TEST(what_is_compacted_while_it_is_listed_is_no_gap),
		WORLD_TEST(history_tells_every_point),
		WORLD_TEST(the_head_of_a_dropped_database_is_its_drop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
