/* The lease: one holder at a time, by the store's clock, whatever gets lost. */
#include "tests/unit/bucket_lease_nodes.h"
#include "tests/unit/bucket_store.h"

/* ------------------------------------------------------------- taking */

static void the_first_has_it_and_the_second_is_told_who(void **state)
{
	struct two *t = *state;
	struct lease_state s;

	assert_int_equal(lease_take(t->a, 0), 0);
	assert_held(t->a, 1);
	assert_int_equal(lease_take(t->b, 0), -EBUSY);
	assert_says("'a'");
	assert_says("epoch 1");
	assert_not_held(t->b);
	s = state_of(t->b);
	assert_false(s.free);
	assert_int_equal(s.epoch, 1);
	assert_string_equal(s.owner, "a");
	assert_string_equal(s.url, "http://here:8080");
	assert_int_equal(s.expires_ms, state_of(t->a).expires_ms);
}

static void taking_what_one_has_renews_it(void **state)
{
	struct two *t = *state;
	int64_t before;

	assert_int_equal(lease_take(t->a, 0), 0);
	before = state_of(t->a).expires_ms;
	clock_sleep_ms(5);
	assert_int_equal(lease_take(t->a, 77), 0);
	assert_held(t->a, 1);
	assert_true(state_of(t->a).expires_ms >= before);
}

static void each_taking_is_an_epoch_of_its_own(void **state)
{
	struct two *t = *state;

	for (uint64_t epoch = 1; epoch <= 4; epoch += 2) {
		assert_int_equal(lease_take(t->a, 0), 0);
		assert_held(t->a, epoch);
		assert_int_equal(lease_release(t->a, true), 0);
		assert_int_equal(lease_take(t->b, 0), 0);
		assert_held(t->b, epoch + 1);
		assert_int_equal(lease_release(t->b, true), 0);
	}
}

static void no_epoch_of_the_logs_comes_again(void **state)
{
	struct two *t = *state;
	const char *key = LEASE_KEY;

	assert_int_equal(lease_take(t->a, 41), 0);
	assert_held(t->a, 42);
	assert_int_equal(lease_release(t->a, false), 0);
	assert_int_equal(bucket_remove(t->bucket, &key, 1), 0);
	assert_int_equal(lease_take(t->b, 42), 0);
	assert_held(t->b, 43);
}

static void the_last_epoch_is_the_end(void **state)
{
	struct two *t = *state;

	assert_int_equal(lease_take(t->a, UINT32_MAX), -EOVERFLOW);
	assert_not_held(t->a);
	assert_int_equal(lease_take(t->a, UINT32_MAX - 1), 0);
}

static void the_owners_name_says_nothing(void **state)
{
	struct two *t = *state;
	struct lease *again = lease_of(t->bucket, "a");

	assert_int_equal(lease_take(t->a, 0), 0);
	assert_int_equal(lease_take(again, 0), -EBUSY);
	lease_free(again);
}

/* As a process that was killed and started again in its directory. */
static void a_life_that_is_over_is_not_waited_for(void **state)
{
	struct two *t = *state;
	struct lease_config config = { .bucket = t->bucket, .owner = "a" };
	char killed[LEASE_HOLDER_SIZE];
	struct lease *again;

	strcpy(killed, lease_holder(t->a));
	assert_int_equal(lease_take(t->a, 0), 0);
	assert_string_equal(lease_holder(t->a), killed);
	strcpy(config.formers[1], killed);
	assert_int_equal(lease_new(&config, &again), 0);
	assert_int_equal(lease_take(t->b, 0), -EBUSY);
	assert_int_equal(lease_take(again, 0), 0);
	assert_held(again, 2);
	assert_string_equal(state_of(again).before, killed);
	assert_false(state_of(again).clean);
	/* Should it live nevertheless, it has lost. */
	assert_int_equal(lease_renew(t->a), -ERR_FENCED);
	assert_string_not_equal(lease_holder(t->a), killed);
	lease_free(again);
}

/* Somebody removes the record, and puts an older one in its place. */
static void behind_another_life_a_former_one_is_a_stranger(void **state)
{
	AUTO(buf) struct buf text = BUF_INIT(LEASE_RECORD_MAX + 1);
	struct two *t = *state;
	struct lease_config config = { .bucket = t->bucket, .owner = "a" };
	const char *key = LEASE_KEY;
	struct lease *again;

	strcpy(config.formers[0], lease_holder(t->a));
	assert_int_equal(lease_take(t->a, 0), 0);
	record_now(t, &text);
	assert_int_equal(buf_append(&text, "", 1), 0);
	assert_int_equal(lease_new(&config, &again), 0);
	assert_int_equal(lease_take(again, 0), 0);
	assert_int_equal(bucket_remove(t->bucket, &key, 1), 0);
	assert_int_equal(lease_renew(again), -ERR_FENCED);
	put_record(t, text.data);
	assert_int_equal(lease_take(again, 0), -EBUSY);
	lease_free(again);
}

/* ------------------------------------------------- renewing and losing */

static void what_is_renewed_is_not_taken(void **state)
{
	struct two *t = *state;

	assert_int_equal(lease_take(t->a, 0), 0);
	for (int64_t later = 0; later < 10 * LEASE_TTL_MS;
	     later += LEASE_TTL_MS / 3) {
		fault_set(&t->net[0], ahead_ms, later);
		fault_set(&t->net[1], ahead_ms, later);
		assert_int_equal(lease_renew(t->a), 0);
		assert_int_equal(lease_take(t->b, 0), -EBUSY);
	}
	assert_true(state_of(t->a).held);
	assert_int_equal(state_of(t->a).epoch, 1);
}

static void it_expires_by_the_stores_clock(void **state)
{
	struct two *t = *state;

	assert_int_equal(lease_take(t->a, 0), 0);
	/* A Date has whole seconds: one that says so may be a second late. */
	fault_set(&t->net[1], ahead_ms, LEASE_TTL_MS - 1500);
	assert_int_equal(lease_take(t->b, 0), -EBUSY);
	fault_set(&t->net[1], ahead_ms, LEASE_TTL_MS + 1500);
	assert_int_equal(lease_take(t->b, 0), 0);
	assert_held(t->b, 2);
	assert_false(state_of(t->b).clean);
	assert_int_equal(lease_renew(t->a), -ERR_FENCED);
	assert_says("lost to 'b'");
	assert_says("epoch 2");
	assert_not_held(t->a);
	assert_int_equal(lease_renew(t->a), -ERR_FENCED);
	assert_int_equal(lease_renew(t->b), 0);
}

/* Who wakes up late and finds nobody has taken it goes on in the same epoch. */
static void what_expired_and_nobody_took_is_renewed(void **state)
{
	struct two *t = *state;

	assert_int_equal(lease_take(t->a, 0), 0);
	fault_set(&t->net[0], ahead_ms, HOUR_MS);
	assert_int_equal(lease_renew(t->a), 0);
	assert_held(t->a, 1);
	fault_set(&t->net[1], ahead_ms, HOUR_MS);
	assert_int_equal(lease_take(t->b, 0), -EBUSY);
}

/* The record is released again when the loser looks. */
static void what_was_taken_and_given_back_meanwhile_is_lost(void **state)
{
	struct two *t = *state;

	assert_int_equal(lease_take(t->a, 0), 0);
	fault_set(&t->net[1], ahead_ms, HOUR_MS);
	assert_int_equal(lease_take(t->b, 0), 0);
	assert_int_equal(lease_release(t->b, true), 0);
	assert_int_equal(lease_renew(t->a), -ERR_FENCED);
	assert_not_held(t->a);
	assert_int_equal(lease_take(t->a, 0), 0);
	assert_held(t->a, 3);
}

static void clocks_that_are_an_hour_off_do_not_matter(void **state)
{
	struct two *t = *state;

	for (int64_t off = -HOUR_MS; off <= HOUR_MS; off += 2 * HOUR_MS) {
		fault_set(&t->net[0], ahead_ms, off);
		fault_set(&t->net[1], ahead_ms, off);
		assert_int_equal(lease_take(t->a, 0), 0);
		assert_true(state_of(t->a).safe_until_ms >
			    clock_monotonic_ms());
		assert_int_equal(lease_renew(t->a), 0);
		assert_int_equal(lease_take(t->b, 0), -EBUSY);
		assert_int_equal(lease_release(t->a, true), 0);
	}
}

static void while_the_store_is_silent_it_is_as_it_was(void **state)
{
	struct two *t = *state;
	struct lease_state before, after;

	assert_int_equal(lease_take(t->a, 0), 0);
	before = state_of(t->a);
	fault_set(&t->net[0], fail, -ETIMEDOUT);
	assert_int_equal(lease_renew(t->a), -ETIMEDOUT);
	after = state_of(t->a);
	assert_memory_equal(&before, &after, sizeof(before));
	fault_set(&t->net[0], fail, 0);
	assert_int_equal(lease_renew(t->a), 0);
	assert_held(t->a, 1);
}

/* ------------------------------------------------------------ giving up */

static void what_is_given_up_is_free_at_once(void **state)
{
	struct two *t = *state;

	for (int clean = 0; clean < 2; clean++) {
		assert_int_equal(lease_take(t->a, 0), 0);
		assert_int_equal(lease_release(t->a, clean), 0);
		assert_not_held(t->a);
		assert_int_equal(lease_look(t->b), 0);
		assert_true(state_of(t->b).free);
		assert_int_equal(lease_take(t->b, 0), 0);
		assert_int_equal(state_of(t->b).clean, clean);
		/* To be clean is not inherited twice without being said. */
		assert_int_equal(lease_release(t->b, false), 0);
	}
	assert_int_equal(lease_release(t->a, true), 0);
}

static void the_first_ever_has_no_clean_log_before_it(void **state)
{
	struct two *t = *state;

	assert_int_equal(lease_take(t->a, 0), 0);
	assert_false(state_of(t->a).clean);
}

static void who_lost_it_gives_nothing_up(void **state)
{
	struct two *t = *state;
	AUTO(buf) struct buf before = BUF_INIT(4096);
	AUTO(buf) struct buf after = BUF_INIT(4096);

	assert_int_equal(lease_take(t->a, 0), 0);
	fault_set(&t->net[1], ahead_ms, HOUR_MS);
	assert_int_equal(lease_take(t->b, 0), 0);
	record_now(t, &before);
	assert_int_equal(lease_release(t->a, true), 0);
	record_now(t, &after);
	assert_string_equal(before.data, after.data);
	assert_not_held(t->a);
}

static void once_a_release_was_sent_the_life_is_over(void **state)
{
	struct two *t = *state;

	assert_int_equal(lease_take(t->a, 0), 0);
	fault_set(&t->net[0], fail, -ETIMEDOUT);
	assert_int_equal(lease_release(t->a, true), -ETIMEDOUT);
	assert_not_held(t->a);
	fault_set(&t->net[0], fail, 0);
	/* What it had is somebody else's to it now, until that expires. */
	assert_int_equal(lease_take(t->a, 0), -EBUSY);
	fault_set(&t->net[0], ahead_ms, HOUR_MS);
	assert_int_equal(lease_take(t->a, 0), 0);
	assert_held(t->a, 2);
	assert_false(state_of(t->a).clean);
}

/* -------------------------------------------------------- what is strange */

static void a_store_without_a_clock_gives_none(void **state)
{
	struct two *t = *state;

	fault_set(&t->net[0], no_clock, true);
	assert_int_equal(lease_take(t->a, 0), -ENODATA);
	assert_says("no Date");
	assert_not_held(t->a);
}

static void what_is_not_understood_is_left_alone(void **state)
{
	static const struct {
		const char *text;
		int rc;
	} records[] = {
		{ "{\"format\": 2}", -EOPNOTSUPP },
		{ "", -ERR_CORRUPT },
		{ "{\"format\": 1}", -ERR_CORRUPT },
	};
	struct two *t = *state;

	assert_int_equal(lease_take(t->b, 0), 0);
	for (int i = 0; i < 3; i++) {
		AUTO(buf) struct buf after = BUF_INIT(4096);

		put_record(t, records[i].text);
		assert_int_equal(lease_take(t->a, 0), records[i].rc);
		assert_int_equal(lease_renew(t->b), records[i].rc);
		assert_not_held(t->a);
		record_now(t, &after);
		assert_int_equal(after.size, strlen(records[i].text));
	}
}

static void an_empty_bucket_is_looked_at_without_a_trace(void **state)
{
	struct two *t = *state;

	assert_int_equal(lease_look(t->a), 0);
	assert_true(state_of(t->a).free);
	assert_int_equal(state_of(t->a).epoch, 0);
	assert_int_equal(fault_read(&t->net[0], puts), 0);
}

static void long_names_are_cut(void **state)
{
	struct two *t = *state;
	char name[1000];
	struct lease *l;

	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	l = lease_of(t->bucket, name);
	assert_int_equal(lease_take(l, 0), 0);
	assert_int_equal(lease_take(t->b, 0), -EBUSY);
	assert_int_equal(strlen(state_of(t->b).owner), LEASE_OWNER_SIZE - 1);
	assert_int_equal(lease_release(l, false), 0);
	lease_free(l);
	/* Not within a character, here one of three bytes. */
	memcpy(name + LEASE_OWNER_SIZE - 2, "\xe2\x82\xac", 3);
	l = lease_of(t->bucket, name);
	assert_int_equal(lease_take(l, 0), 0);
	assert_int_equal(lease_take(t->b, 0), -EBUSY);
	assert_int_equal(strlen(state_of(t->b).owner), LEASE_OWNER_SIZE - 2);
	lease_free(l);
}

/* --------------------------------------------------------------- races */

struct racer {
	pthread_t thread;
	pthread_barrier_t *start;
	struct lease *lease;
	int rc;
};

static void *race(void *arg)
{
	struct racer *r = arg;

	(void)pthread_barrier_wait(r->start);
	r->rc = lease_take(r->lease, 0);
	return NULL;
}

/* One of them has it, and the others are told. */
static void race_once(struct bucket *bucket)
{
	enum { RACERS = 4 };
	struct racer racers[RACERS];
	pthread_barrier_t start;
	int holders = 0;

	pthread_barrier_init(&start, NULL, RACERS);
	for (int i = 0; i < RACERS; i++) {
		racers[i] = (struct racer){
			.start = &start,
			.lease = lease_of(bucket, "racer"),
		};
		pthread_create(&racers[i].thread, NULL, race, &racers[i]);
	}
	for (int i = 0; i < RACERS; i++) {
		pthread_join(racers[i].thread, NULL);
		holders += racers[i].rc == 0;
		assert_true(racers[i].rc == 0 || racers[i].rc == -EBUSY);
		assert_int_equal(state_of(racers[i].lease).held,
				 racers[i].rc == 0);
	}
	assert_int_equal(holders, 1);
	for (int i = 0; i < RACERS; i++) {
		assert_int_equal(lease_release(racers[i].lease, true), 0);
		lease_free(racers[i].lease);
	}
	pthread_barrier_destroy(&start);
}

static void of_those_who_race_one_has_it(void **state)
{
	struct two *t = *state;

	for (int i = 0; i < 100; i++)
		race_once(t->bucket);
}

/* A place of its own in it, as the program opens it. */
static struct bucket *real_store(void)
{
	const char *given = getenv(STORE_VARIABLE);
	int name = (int)strcspn(given, "?");
	struct bucket *bucket;
	char url[1024];

	snprintf(url, sizeof(url), "%.*s/%s%s", name, given,
		 store_new_prefix(), given + name);
	assert_int_equal(bucket_open(url, true, &bucket), 0);
	return bucket;
}

static void on_a_real_store_too(void **state)
{
	struct bucket *bucket;
	struct lease *a, *b;

	if (!getenv(STORE_VARIABLE))
		skip();
	bucket = real_store();
	for (int i = 0; i < 10; i++)
		race_once(bucket);
	a = lease_of(bucket, "a");
	b = lease_of(bucket, "b");
	assert_int_equal(lease_take(a, 100), 0);
	assert_held(a, 101);
	assert_int_equal(lease_take(b, 0), -EBUSY);
	assert_int_equal(lease_renew(a), 0);
	assert_int_equal(lease_release(a, true), 0);
	assert_int_equal(lease_take(b, 0), 0);
	assert_true(state_of(b).clean);
	lease_free(a);
	lease_free(b);
	bucket_free(bucket);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_first_has_it_and_the_second_is_told_who),
		TEST(taking_what_one_has_renews_it),
		TEST(each_taking_is_an_epoch_of_its_own),
		TEST(no_epoch_of_the_logs_comes_again),
		TEST(the_last_epoch_is_the_end),
		TEST(the_owners_name_says_nothing),
		TEST(a_life_that_is_over_is_not_waited_for),
		TEST(behind_another_life_a_former_one_is_a_stranger),
		TEST(what_is_renewed_is_not_taken),
		TEST(it_expires_by_the_stores_clock),
		TEST(what_expired_and_nobody_took_is_renewed),
		TEST(what_was_taken_and_given_back_meanwhile_is_lost),
		TEST(clocks_that_are_an_hour_off_do_not_matter),
		TEST(while_the_store_is_silent_it_is_as_it_was),
		TEST(what_is_given_up_is_free_at_once),
		TEST(the_first_ever_has_no_clean_log_before_it),
		TEST(who_lost_it_gives_nothing_up),
		TEST(once_a_release_was_sent_the_life_is_over),
		TEST(a_store_without_a_clock_gives_none),
		TEST(what_is_not_understood_is_left_alone),
		TEST(an_empty_bucket_is_looked_at_without_a_trace),
		TEST(long_names_are_cut),
		TEST(of_those_who_race_one_has_it),
		cmocka_unit_test(on_a_real_store_too),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
