#ifndef LITEBUCKET_TESTS_UNIT_BUCKET_CONTRACT_H
#define LITEBUCKET_TESTS_UNIT_BUCKET_CONTRACT_H

/*
 * What every bucket must do
 * =========================
 *
 * The promises of bucket/bucket.h as tests.  A test program for one driver
 * includes this file once, defines contract_open() and contract_keeps(), and runs
 *
 *	const struct CMUnitTest tests[] = { BUCKET_CONTRACT };
 *
 * What a store is known not to keep is left out of contract_keeps(); its tests
 * then check that it says so instead of pretending.
 */
#include "tests/unit/bucket_contract_tools.h"

/* Promises 1 and 2. */

static void what_was_put_is_seen_by_get_head_and_list(void **state)
{
	struct bucket *b = *state;
	struct bucket_info put = { 0 }, head;

	contract_assert_ok(contract_put(b, "dir/key.txt", "hello", &put));
	contract_assert_holds(b, "dir/key.txt", "hello");
	contract_assert_ok(bucket_head(b, "dir/key.txt", &head));
	assert_int_equal(head.size, 5);
	assert_true(head.etag[0] != '\0');
	if (contract_keeps() & CONTRACT_PUT_ETAG)
		assert_string_equal(put.etag, head.etag);
	contract_assert_lists(b, "", NULL, 0, "dir/key.txt");
}

static int contract_note_object(const struct bucket_object *object, void *arg)
{
	struct bucket_object *noted = arg;

	noted->size = object->size;
	noted->modified_ms = object->modified_ms;
	return 0;
}

static void times_and_sizes_are_told(void **state)
{
	struct bucket *b = *state;
	struct bucket_object listed = { 0 };
	struct bucket_info head;
	const int64_t minute = 60000;

	contract_assert_ok(contract_put(b, "k", "12345", NULL));
	contract_assert_ok(bucket_head(b, "k", &head));
	/* The store's clock; the tests' stores run where the tests run. */
	assert_true(llabs(head.modified_ms - clock_wall_ms()) < minute);
	assert_true(head.date_ms == 0 ||
		    llabs(head.date_ms - clock_wall_ms()) < minute);
	contract_assert_ok(bucket_list(b, "k", NULL, 0, contract_note_object,
				       &listed));
	assert_int_equal(listed.size, 5);
	assert_true(llabs(listed.modified_ms - head.modified_ms) < minute);
}

static void a_put_replaces_the_whole_object(void **state)
{
	struct bucket *b = *state;

	contract_assert_ok(contract_put(b, "k", "a long first text", NULL));
	contract_assert_ok(contract_put(b, "k", "short", NULL));
	contract_assert_holds(b, "k", "short");
}

static void the_etag_changes_with_the_content(void **state)
{
	struct bucket *b = *state;
	char first[BUCKET_ETAG_SIZE], again[BUCKET_ETAG_SIZE];
	char second[BUCKET_ETAG_SIZE];

	contract_assert_ok(contract_put(b, "k", "one", NULL));
	contract_etag(b, "k", first);
	contract_etag(b, "k", again);
	assert_string_equal(first, again);
	contract_assert_ok(contract_put(b, "k", "two", NULL));
	contract_etag(b, "k", second);
	assert_string_not_equal(first, second);
}

static void an_empty_object_is_an_object(void **state)
{
	struct bucket *b = *state;
	struct bucket_info head;

	contract_assert_ok(contract_put(b, "empty", "", NULL));
	contract_assert_ok(bucket_head(b, "empty", &head));
	assert_int_equal(head.size, 0);
	contract_assert_holds(b, "empty", "");
	contract_assert_lists(b, "", NULL, 0, "empty");
}

/* Bytes that differ at every place, so that none can be out of its place. */
static void *contract_big_body(void)
{
	unsigned char *body = malloc(CONTRACT_BIG);

	assert_non_null(body);
	for (size_t i = 0; i < CONTRACT_BIG; i++)
		body[i] = (unsigned char)(i * 2654435761u >> 13);
	return body;
}

static void five_megabytes_come_back_as_they_were(void **state)
{
	struct bucket *b = *state;
	AUTO(mem) void *body = contract_big_body();
	AUTO(buf) struct buf got = BUF_INIT(CONTRACT_BIG);
	const struct bucket_put put = {
		.key = "big", .data = body, .fd = -1, .size = CONTRACT_BIG
	};

	contract_assert_ok(bucket_put(b, &put, NULL));
	contract_assert_ok(contract_get(b, "big", 0, BUCKET_TO_END, &got));
	assert_int_equal(got.size, CONTRACT_BIG);
	assert_memory_equal(got.data, body, CONTRACT_BIG);
}

static void a_file_is_put_from_its_beginning_whatever_its_offset(void **state)
{
	struct bucket *b = *state;
	AUTO(mem) void *body = contract_big_body();
	AUTO(buf) struct buf got = BUF_INIT(CONTRACT_BIG);
	AUTO(fd) int fd = memfd_create("body", MFD_CLOEXEC);
	const struct bucket_put put = {
		.key = "file", .fd = fd, .size = CONTRACT_BIG
	};

	assert_true(fd >= 0);
	assert_int_equal(io_pwrite(fd, body, CONTRACT_BIG, 0), 0);
	assert_int_equal(lseek(fd, 77, SEEK_SET), 77);
	contract_assert_ok(bucket_put(b, &put, NULL));
	assert_int_equal(lseek(fd, 0, SEEK_CUR), 77);
	contract_assert_ok(contract_get(b, "file", 0, BUCKET_TO_END, &got));
	assert_int_equal(got.size, CONTRACT_BIG);
	assert_memory_equal(got.data, body, CONTRACT_BIG);
}

/* One reader and one writer of the same key, for a while. */
struct contract_swap {
	struct bucket *b;
	int failures;
};

static void *contract_swap_writer(void *arg)
{
	struct contract_swap *swap = arg;
	AUTO(mem) char *text = malloc(70001);

	for (int i = 0; text && i < 40; i++) {
		memset(text, 'a' + i % 26, 70000);
		text[70000] = '\0';
		if (contract_put(swap->b, "swap", text, NULL) != 0)
			swap->failures++;
	}
	return NULL;
}

static void a_reader_never_sees_half_of_a_put(void **state)
{
	struct contract_swap swap = { .b = *state };
	pthread_t writer;
	bool missing = false;

	assert_int_equal(contract_put(swap.b, "swap", "", NULL), 0);
	assert_int_equal(pthread_create(&writer, NULL, contract_swap_writer,
					&swap), 0);
	for (int i = 0; i < 40; i++) {
		AUTO(buf) struct buf got = BUF_INIT(1 << 20);
		int rc = contract_get(swap.b, "swap", 0, BUCKET_TO_END, &got);

		missing |= rc != 0 && rc != -ERR_PRECOND;
		for (size_t j = 0; rc == 0 && j < got.size; j++)
			missing |= got.data[j] != got.data[0];
		missing |= rc == 0 && got.size != 0 && got.size != 70000;
	}
	assert_int_equal(pthread_join(writer, NULL), 0);
	assert_int_equal(swap.failures, 0);
	assert_false(missing);
}

/* Ranges, and what is not there. */

static void ranges_are_read_and_cut_at_the_end(void **state)
{
	static const struct {
		uint64_t offset, length;
		const char *expected;
	} cases[] = {
		{ 0, 1, "0" },		   { 0, 10, "0123456789" },
		{ 3, 4, "3456" },	   { 9, 1, "9" },
		{ 7, 100, "789" },	   { 0, 100, "0123456789" },
		{ 4, BUCKET_TO_END, "456789" },
		{ 1, UINT64_MAX - 1, "123456789" },
	};
	struct bucket *b = *state;

	contract_assert_ok(contract_put(b, "k", "0123456789", NULL));
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		AUTO(buf) struct buf got = BUF_INIT(1 << 10);

		contract_assert_ok(contract_get(b, "k", cases[i].offset,
						cases[i].length, &got));
		assert_string_equal(got.data, cases[i].expected);
	}
}

static void a_range_tells_the_size_of_the_whole(void **state)
{
	struct bucket *b = *state;
	AUTO(buf) struct buf got = BUF_INIT(1 << 10);
	struct bucket_info info;
	struct buf_sink sink;

	contract_assert_ok(contract_put(b, "k", "0123456789", NULL));
	buf_sink_init(&sink, &got);
	contract_assert_ok(bucket_get(b, "k", 2, 3, NULL, &sink.sink, &info));
	assert_int_equal(info.size, 10);
	assert_true(info.etag[0] != '\0');
}

static void a_range_beyond_the_end_is_an_error_of_its_own(void **state)
{
	struct bucket *b = *state;
	AUTO(buf) struct buf got = BUF_INIT(1 << 10);

	contract_assert_ok(contract_put(b, "k", "0123456789", NULL));
	contract_assert_ok(contract_put(b, "empty", "", NULL));
	contract_assert_refused(contract_get(b, "k", 10, 1, &got), -ERANGE);
	contract_assert_refused(contract_get(b, "k", 99, BUCKET_TO_END, &got),
				-ERANGE);
	contract_assert_refused(contract_get(b, "empty", 0, 100, &got),
				-ERANGE);
	assert_int_equal(got.size, 0);
	contract_assert_refused(contract_get(b, "k", 3, 0, &got), -EINVAL);
}

static void what_is_not_there_is_enoent(void **state)
{
	struct bucket *b = *state;
	AUTO(buf) struct buf got = BUF_INIT(1 << 10);
	struct bucket_info info;

	contract_assert_refused(contract_get(b, "no/such", 0, BUCKET_TO_END,
					     &got), -ENOENT);
	contract_assert_refused(bucket_head(b, "no/such", &info), -ENOENT);
	contract_assert_ok(contract_put(b, "dir/key", "x", NULL));
	contract_assert_refused(bucket_head(b, "dir", &info), -ENOENT);
	contract_assert_refused(bucket_head(b, "dir/key/below", &info),
				-ENOENT);
	contract_assert_lists(b, "no/such", NULL, 0, "");
}

static void a_get_can_be_bound_to_an_etag(void **state)
{
	struct bucket *b = *state;
	AUTO(buf) struct buf got = BUF_INIT(1 << 10);
	char etag[BUCKET_ETAG_SIZE];
	struct buf_sink sink;

	contract_assert_ok(contract_put(b, "k", "one", NULL));
	contract_etag(b, "k", etag);
	buf_sink_init(&sink, &got);
	contract_assert_ok(bucket_get(b, "k", 0, BUCKET_TO_END, etag,
				      &sink.sink, NULL));
	assert_string_equal(got.data, "one");
	contract_assert_ok(contract_put(b, "k", "two", NULL));
	buf_reset(&got);
	contract_assert_refused(bucket_get(b, "k", 1, 2, etag, &sink.sink,
					   NULL), -ERR_PRECOND);
	assert_int_equal(got.size, 0);
}

static void a_failing_sink_ends_the_get_with_its_error(void **state)
{
	struct bucket *b = *state;
	AUTO(buf) struct buf small = BUF_INIT(3);

	contract_assert_ok(contract_put(b, "k", "0123456789", NULL));
	contract_assert_refused(contract_get(b, "k", 0, BUCKET_TO_END, &small),
				-EFBIG);
}

/* Promises 3 and 4: conditions. */

static void if_absent_is_taken_once(void **state)
{
	struct bucket *b = *state;

	if (!(contract_keeps() & CONTRACT_IF_ABSENT)) {
		contract_assert_refused(contract_put_if(b, "slot", "mine", true,
							NULL, NULL),
					-EOPNOTSUPP);
		return;
	}
	contract_assert_ok(contract_put_if(b, "slot", "mine", true, NULL,
					   NULL));
	contract_assert_refused(contract_put_if(b, "slot", "theirs", true, NULL,
						NULL), -ERR_PRECOND);
	contract_assert_holds(b, "slot", "mine");
	contract_assert_ok(bucket_remove(b, (const char *[]){ "slot" }, 1));
	contract_assert_ok(contract_put_if(b, "slot", "later", true, NULL,
					   NULL));
	contract_assert_holds(b, "slot", "later");
}

static void if_match_replaces_only_what_it_names(void **state)
{
	struct bucket *b = *state;
	char stale[BUCKET_ETAG_SIZE], current[BUCKET_ETAG_SIZE];
	struct bucket_info info = { 0 };

	contract_assert_ok(contract_put(b, "lock", "v1", NULL));
	contract_etag(b, "lock", stale);
	if (!(contract_keeps() & CONTRACT_IF_MATCH)) {
		contract_assert_refused(contract_put_if(b, "lock", "v2", false,
							stale, NULL),
					-EOPNOTSUPP);
		return;
	}
	contract_assert_ok(contract_put_if(b, "lock", "v2", false, stale,
					   &info));
	contract_assert_holds(b, "lock", "v2");
	contract_etag(b, "lock", current);
	if (contract_keeps() & CONTRACT_PUT_ETAG)
		assert_string_equal(info.etag, current);
	contract_assert_refused(contract_put_if(b, "lock", "v3", false, stale,
						NULL), -ERR_PRECOND);
	contract_assert_holds(b, "lock", "v2");
	contract_assert_ok(contract_put_if(b, "lock", "v3", false, current,
					   NULL));
	contract_assert_holds(b, "lock", "v3");
}

static void if_match_never_creates(void **state)
{
	struct bucket *b = *state;
	char etag[BUCKET_ETAG_SIZE];
	struct bucket_info info;

	if (!(contract_keeps() & CONTRACT_IF_MATCH))
		return;
	contract_assert_ok(contract_put(b, "lock", "v1", NULL));
	contract_etag(b, "lock", etag);
	contract_assert_ok(bucket_remove(b, (const char *[]){ "lock" }, 1));
	contract_assert_refused(contract_put_if(b, "lock", "v2", false, etag,
						NULL), -ERR_PRECOND);
	contract_assert_refused(bucket_head(b, "lock", &info), -ENOENT);
}

/* All threads put the same key at once; the winners are counted. */
struct contract_race {
	struct bucket *b;
	pthread_barrier_t *start;
	const char *key;
	const char *if_match; /* or NULL: if_absent */
	int round;
	int number;
	int rc;
};

/*
 * No two texts are alike: with S3 the same bytes have the same ETag, so that
 * a racer who won with what is already there would leave it matching.
 */
static void contract_race_text(int round, int number, char ret[32])
{
	(void)snprintf(ret, 32, "round %d racer %d", round, number);
}

static void *contract_racer(void *arg)
{
	struct contract_race *race = arg;
	char text[32];

	contract_race_text(race->round, race->number, text);
	(void)pthread_barrier_wait(race->start);
	race->rc = contract_put_if(race->b, race->key, text, !race->if_match,
				   race->if_match, NULL);
	return NULL;
}

/*
 * One race.  Exactly one must have won, and its text must be there.  A loser
 * may also see an error that leaves it open, but then not have written.
 */
static void contract_run_race(struct bucket *b, const char *key,
			      const char *if_match)
{
	struct contract_race races[CONTRACT_THREADS];
	pthread_t threads[CONTRACT_THREADS];
	pthread_barrier_t start;
	static int round;
	char text[32] = "";
	int winners = 0;

	round++;
	assert_int_equal(pthread_barrier_init(&start, NULL, CONTRACT_THREADS),
			 0);
	for (int i = 0; i < CONTRACT_THREADS; i++) {
		races[i] = (struct contract_race){
			.b = b,
			.start = &start,
			.key = key,
			.if_match = if_match,
			.round = round,
			.number = i,
		};
		assert_int_equal(pthread_create(&threads[i], NULL,
						contract_racer, &races[i]), 0);
	}
	for (int i = 0; i < CONTRACT_THREADS; i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		if (races[i].rc == 0) {
			winners++;
			contract_race_text(round, i, text);
		} else {
			assert_true(races[i].rc == -ERR_PRECOND ||
				    bucket_transient(races[i].rc));
		}
	}
	(void)pthread_barrier_destroy(&start);
	assert_int_equal(winners, 1);
	contract_assert_holds(b, key, text);
}

static void of_twenty_racing_if_absent_puts_one_wins(void **state)
{
	if (!(contract_keeps() & CONTRACT_IF_ABSENT))
		return;
	for (int round = 0; round < CONTRACT_ROUNDS; round++) {
		char key[32];

		(void)snprintf(key, sizeof(key), "slots/%04d", round);
		contract_run_race(*state, key, NULL);
	}
}

static void of_twenty_racing_if_match_puts_one_wins(void **state)
{
	struct bucket *b = *state;

	if (!(contract_keeps() & CONTRACT_IF_MATCH))
		return;
	contract_assert_ok(contract_put(b, "lock", "start", NULL));
	for (int round = 0; round < CONTRACT_ROUNDS; round++) {
		char etag[BUCKET_ETAG_SIZE];

		contract_etag(b, "lock", etag);
		contract_run_race(b, "lock", etag);
	}
}

static void the_probe_finds_what_the_store_keeps(void **state)
{
	struct bucket *b = *state;
	unsigned caps = 0, again = 0;

	contract_assert_ok(bucket_probe(b, &caps));
	assert_int_equal(!!(caps & BUCKET_IF_ABSENT),
			 !!(contract_keeps() & CONTRACT_IF_ABSENT));
	assert_int_equal(!!(caps & BUCKET_IF_MATCH),
			 !!(contract_keeps() & CONTRACT_IF_MATCH));
	contract_assert_ok(bucket_probe(b, &again));
	assert_int_equal(caps, again);
	contract_assert_lists(b, "", NULL, 0, "");
}

/* Metadata. */

static void metadata_comes_back(void **state)
{
	static const struct bucket_meta meta[] = {
		{ "litestream-timestamp", "2026-11-23T02:50:01.123Z" },
		{ "litebucket-pre", "00000000deadbeef" },
		{ "litebucket-checksum", "0123456789abcdef" },
	};
	struct bucket *b = *state;
	const struct bucket_put put = {
		.key = "k", .data = "x", .fd = -1, .size = 1,
		.meta = meta, .n_meta = 3,
	};
	struct bucket_info info;

	contract_assert_ok(bucket_put(b, &put, NULL));
	contract_assert_ok(bucket_head(b, "k", &info));
	if (!(contract_keeps() & CONTRACT_META))
		return;
	for (int i = 0; i < 3; i++) {
		const char *value = bucket_info_meta(&info, meta[i].name);

		assert_non_null(value);
		assert_string_equal(value, meta[i].value);
	}
	assert_null(bucket_info_meta(&info, "no-such-name"));
}

/* Promise 5: list. */

static void a_list_is_in_byte_order_of_keys(void **state)
{
	/* '-' and '.' sort before '/', '0' and '=' after it. */
	static const char *const keys[] = { "a.b", "a/b", "a-b", "a0", "A",
					    "a=b", "a/b0", "b", "_", "a/c/d",
					    NULL };
	struct bucket *b = *state;

	contract_put_all(b, keys);
	contract_assert_lists(b, "", NULL, 0,
			      "A _ a-b a.b a/b a/b0 a/c/d a0 a=b b");
	contract_assert_lists(b, "", "", 0,
			      "A _ a-b a.b a/b a/b0 a/c/d a0 a=b b");
}

static void a_list_keeps_to_prefix_after_and_limit(void **state)
{
	static const char *const keys[] = { "a.b", "a/b", "a/c", "a/d/e", "ab",
					    "b/a", NULL };
	struct bucket *b = *state;

	contract_put_all(b, keys);
	contract_assert_lists(b, "a/", NULL, 0, "a/b a/c a/d/e");
	contract_assert_lists(b, "a", NULL, 0, "a.b a/b a/c a/d/e ab");
	contract_assert_lists(b, "a/d/", NULL, 0, "a/d/e");
	contract_assert_lists(b, "a/", "a/b", 0, "a/c a/d/e");
	contract_assert_lists(b, "", "a/b", 2, "a/c a/d/e");
	contract_assert_lists(b, "", "a/bb", 1, "a/c");
	contract_assert_lists(b, "", "a/d", 1, "a/d/e");
	contract_assert_lists(b, "", "a0", 0, "ab b/a");
	contract_assert_lists(b, "a/", "zzz", 0, "");
	contract_assert_lists(b, "b", "a", 0, "b/a");
	contract_assert_lists(b, "", NULL, 3, "a.b a/b a/c");
	contract_assert_lists(b, "", NULL, 1, "a.b");
}

static void a_list_gives_levels_of_ltx_files_like_other_keys(void **state)
{
	static const char *const keys[] = {
		"db/0000/0000000000000001-0000000000000001.ltx",
		"db/0000/0000000000000002-0000000000000002.ltx",
		"db/0001/0000000000000001-0000000000000002.ltx",
		"db/0009/0000000000000001-0000000000000002.ltx",
		"db/000a", "db/00001.db/x", "db.lock", NULL
	};
	struct bucket *b = *state;

	contract_put_all(b, keys);
	contract_assert_lists(
		b, "", NULL, 0,
		"db.lock db/0000/0000000000000001-0000000000000001.ltx "
		"db/0000/0000000000000002-0000000000000002.ltx db/00001.db/x "
		"db/0001/0000000000000001-0000000000000002.ltx "
		"db/0009/0000000000000001-0000000000000002.ltx db/000a");
	contract_assert_lists(
		b, "db/000", "db/00000", 0,
		"db/00001.db/x db/0001/0000000000000001-0000000000000002.ltx "
		"db/0009/0000000000000001-0000000000000002.ltx db/000a");
	contract_assert_lists(b, "db/0000/", "db/0000/0000000000000001.", 0,
			      "db/0000/0000000000000002-0000000000000002.ltx");
	contract_assert_holds(b, keys[3], "x");
}

static int contract_stop_at_second(const struct bucket_object *object,
				   void *arg)
{
	return ++*(int *)arg == 2 ? 42 : 0;
}

static int contract_fail_with_eio(const struct bucket_object *object, void *arg)
{
	++*(int *)arg;
	return error_set(-EIO, "the caller's own trouble");
}

static void a_callback_stops_the_list_with_its_result(void **state)
{
	static const char *const keys[] = { "a", "b", "c", NULL };
	struct bucket *b = *state;
	int calls = 0;

	contract_put_all(b, keys);
	assert_int_equal(bucket_list(b, "", NULL, 0, contract_stop_at_second,
				     &calls), 42);
	assert_int_equal(calls, 2);
	calls = 0;
	assert_int_equal(bucket_list(b, "", NULL, 0, contract_fail_with_eio,
				     &calls), -EIO);
	assert_int_equal(calls, 1);
}

/* Expects "many/00000", "many/00001", ... */
static int contract_count_up(const struct bucket_object *object, void *arg)
{
	int *next = arg;
	char expected[32];

	(void)snprintf(expected, sizeof(expected), "many/%05d", *next);
	assert_string_equal(object->key, expected);
	(*next)++;
	return 0;
}

static void more_keys_than_a_page_are_listed_and_removed(void **state)
{
	struct bucket *b = *state;
	static char keys[CONTRACT_MANY][16];
	const char *pointers[CONTRACT_MANY];
	int next = 0;

	for (int i = 0; i < CONTRACT_MANY; i++) {
		(void)snprintf(keys[i], sizeof(keys[i]), "many/%05d", i);
		pointers[i] = keys[i];
		contract_assert_ok(contract_put(b, keys[i], "", NULL));
	}
	contract_assert_ok(bucket_list(b, "many/", NULL, 0, contract_count_up,
				       &next));
	assert_int_equal(next, CONTRACT_MANY);
	next = 5;
	contract_assert_ok(bucket_list(b, "", "many/00004", 1010,
				       contract_count_up, &next));
	assert_int_equal(next, 1015);
	contract_assert_ok(bucket_remove(b, pointers + 1, CONTRACT_MANY - 1));
	contract_assert_lists(b, "", NULL, 0, "many/00000");
}

/* Keys, and removal. */

static void odd_but_legal_keys_are_kept_apart(void **state)
{
	static const char *const keys[] = {
		"=", "=20", "=2F", "...", "..a/.b", "-", "A", "_a.-=", "a=3Db",
		"a/..../b", ".hidden/x", NULL
	};
	struct bucket *b = *state;

	for (int i = 0; keys[i]; i++)
		contract_assert_ok(contract_put(b, keys[i], keys[i], NULL));
	for (int i = 0; keys[i]; i++)
		contract_assert_holds(b, keys[i], keys[i]);
	contract_assert_lists(b, "", NULL, 0,
			      "- ... ..a/.b .hidden/x = =20 =2F A _a.-= "
			      "a/..../b a=3Db");
	contract_assert_lists(b, "=2", NULL, 0, "=20 =2F");
}

static void a_long_key_is_taken_and_a_longer_one_refused(void **state)
{
	struct bucket *b = *state;
	char key[2 * BUCKET_KEY_MAX];

	/* As long as a database's may get, in parts a file system takes. */
	memset(key, 'k', sizeof(key));
	for (int i = 200; i < 800; i += 200)
		key[i] = '/';
	key[800] = '\0';
	contract_assert_ok(contract_put(b, key, "x", NULL));
	contract_assert_holds(b, key, "x");
	contract_assert_lists(b, "", NULL, 0, key);
	memset(key, 'k', sizeof(key));
	key[BUCKET_KEY_MAX] = '\0';
	contract_assert_refused(contract_put(b, key, "x", NULL), -EINVAL);
}

static void what_is_no_key_is_refused_by_every_operation(void **state)
{
	static const char *const bad[] = {
		"", "/", "/a", "a/", "a//b", ".", "..", "./a", "../a", "a/./b",
		"a/../b", "a/..", "a/.", "a b", "a\nb", "a%20", "a~b", "a+b",
		"\xc3\xa9", "a?b", "a#b", "a\\b", "a:b", NULL
	};
	struct bucket *b = *state;
	AUTO(buf) struct buf got = BUF_INIT(10);
	struct bucket_info info;

	contract_assert_ok(contract_put(b, "good", "x", NULL));
	for (int i = 0; bad[i]; i++) {
		const char *both[] = { "good", bad[i] };

		contract_assert_refused(contract_put(b, bad[i], "x", NULL),
					-EINVAL);
		contract_assert_refused(contract_get(b, bad[i], 0, 1, &got),
					-EINVAL);
		contract_assert_refused(bucket_head(b, bad[i], &info), -EINVAL);
		contract_assert_refused(bucket_remove(b, both, 2), -EINVAL);
	}
	contract_assert_refused(bucket_list(b, "../", NULL, 0, contract_join,
					    &got), -EINVAL);
	contract_assert_lists(b, "", NULL, 0, "good");
}

static void removing_what_is_not_there_is_no_error(void **state)
{
	static const char *const keys[] = { "a/b", "a/c", "b", NULL };
	static const char *const gone[] = { "a/b", "no", "a/no", "no/no", "a",
					    "b" };
	struct bucket *b = *state;

	contract_put_all(b, keys);
	contract_assert_ok(bucket_remove(b, gone, 6));
	contract_assert_ok(bucket_remove(b, gone, 6));
	contract_assert_ok(bucket_remove(b, NULL, 0));
	contract_assert_lists(b, "", NULL, 0, "a/c");
}

#define CONTRACT_TEST(name) \
	cmocka_unit_test_setup_teardown(name, contract_setup, contract_teardown)

#define BUCKET_CONTRACT                                                        \
	CONTRACT_TEST(what_was_put_is_seen_by_get_head_and_list),              \
	CONTRACT_TEST(times_and_sizes_are_told),                               \
	CONTRACT_TEST(a_put_replaces_the_whole_object),                        \
	CONTRACT_TEST(the_etag_changes_with_the_content),                      \
	CONTRACT_TEST(an_empty_object_is_an_object),                           \
	CONTRACT_TEST(five_megabytes_come_back_as_they_were),                  \
	CONTRACT_TEST(a_file_is_put_from_its_beginning_whatever_its_offset),   \
	CONTRACT_TEST(a_reader_never_sees_half_of_a_put),                      \
	CONTRACT_TEST(ranges_are_read_and_cut_at_the_end),                     \
	CONTRACT_TEST(a_range_tells_the_size_of_the_whole),                    \
	CONTRACT_TEST(a_range_beyond_the_end_is_an_error_of_its_own),          \
	CONTRACT_TEST(what_is_not_there_is_enoent),                            \
	CONTRACT_TEST(a_get_can_be_bound_to_an_etag),                          \
	CONTRACT_TEST(a_failing_sink_ends_the_get_with_its_error),             \
	CONTRACT_TEST(if_absent_is_taken_once),                                \
	CONTRACT_TEST(if_match_replaces_only_what_it_names),                   \
	CONTRACT_TEST(if_match_never_creates),                                 \
	CONTRACT_TEST(of_twenty_racing_if_absent_puts_one_wins),               \
	CONTRACT_TEST(of_twenty_racing_if_match_puts_one_wins),                \
	CONTRACT_TEST(the_probe_finds_what_the_store_keeps),                   \
	CONTRACT_TEST(metadata_comes_back),                                    \
	CONTRACT_TEST(a_list_is_in_byte_order_of_keys),                        \
	CONTRACT_TEST(a_list_keeps_to_prefix_after_and_limit),                 \
	CONTRACT_TEST(a_list_gives_levels_of_ltx_files_like_other_keys),       \
	CONTRACT_TEST(a_callback_stops_the_list_with_its_result),              \
	CONTRACT_TEST(more_keys_than_a_page_are_listed_and_removed),           \
	CONTRACT_TEST(odd_but_legal_keys_are_kept_apart),                      \
	CONTRACT_TEST(a_long_key_is_taken_and_a_longer_one_refused),           \
	CONTRACT_TEST(what_is_no_key_is_refused_by_every_operation),           \
	CONTRACT_TEST(removing_what_is_not_there_is_no_error)

#endif
