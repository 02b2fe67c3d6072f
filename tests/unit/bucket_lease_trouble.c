/* The lease, while requests and replies are lost, late, or answered wrongly. */
#include "tests/unit/bucket_lease_nodes.h"

/* What stores and networks answer, whether they did it or not. */
static const int answers[] = { -ETIMEDOUT, -ECONNRESET, -EAGAIN, -EIO,
			       -ERR_PRECOND };

enum { ANSWERS = sizeof(answers) / sizeof(answers[0]) };

static void forget_record(struct two *t)
{
	const char *key = LEASE_KEY;

	assert_int_equal(bucket_remove(t->bucket, &key, 1), 0);
}

/* So many puts of the next call get no answer, of those that happen or not. */
static void trouble(struct two *t, bool happens, unsigned n, int answer)
{
	fault_set(&t->net[0], answer, answer);
	fault_set(&t->net[0], lose, happens ? n : 0);
	fault_set(&t->net[0], drop, happens ? 0 : n);
}

static void assert_over(struct two *t)
{
	assert_int_equal(fault_read(&t->net[0], lose), 0);
	assert_int_equal(fault_read(&t->net[0], drop), 0);
}

/* Each kind of put in turn: the first record, a claim, a renewal, a release. */
static void go_through_trouble(struct two *t, bool happens, unsigned n,
			       int answer)
{
	uint64_t epoch;

	trouble(t, happens, n, answer);
	assert_int_equal(lease_take(t->a, 0), 0);
	assert_over(t);
	epoch = state_of(t->a).epoch;
	assert_held(t->a, 1);
	assert_int_equal(lease_take(t->b, 0), -EBUSY);
	trouble(t, happens, n, answer);
	assert_int_equal(lease_renew(t->a), 0);
	assert_over(t);
	assert_held(t->a, epoch);
	trouble(t, happens, n, answer);
	assert_int_equal(lease_release(t->a, true), 0);
	assert_over(t);
	assert_not_held(t->a);
	trouble(t, happens, n, answer);
	assert_int_equal(lease_take(t->a, 0), 0);
	assert_over(t);
	assert_held(t->a, epoch + 1);
	/* What the one before had said is not forgotten over it. */
	assert_true(state_of(t->a).clean);
	assert_int_equal(lease_release(t->a, true), 0);
}

static void replies_that_are_lost_are_no_loss(void **state)
{
	struct two *t = *state;

	for (int i = 0; i < ANSWERS; i++) {
		go_through_trouble(t, true, 1, answers[i]);
		forget_record(t);
	}
}

static void requests_that_are_lost_are_sent_again(void **state)
{
	struct two *t = *state;

	for (int i = 0; i < ANSWERS; i++)
		for (unsigned n = 1; n <= 3; n++) {
			go_through_trouble(t, false, n, answers[i]);
			forget_record(t);
		}
}

static void tries_come_to_an_end(void **state)
{
	struct two *t = *state;
	struct lease_state before, after;

	trouble(t, false, 1000, -EAGAIN);
	assert_int_equal(lease_take(t->a, 0), -EAGAIN);
	assert_not_held(t->a);
	trouble(t, false, 0, 0);
	assert_int_equal(lease_take(t->a, 0), 0);
	before = state_of(t->a);
	trouble(t, false, 1000, -EAGAIN);
	assert_int_equal(lease_renew(t->a), -EAGAIN);
	after = state_of(t->a);
	assert_true(after.held);
	assert_int_equal(after.safe_until_ms, before.safe_until_ms);
	assert_true(lease_release(t->a, true) < 0);
	assert_not_held(t->a);
	/* Each of these few, and not all of the thousand. */
	assert_true(fault_read(&t->net[0], puts) < 20);
}

/*
 * A put on its way: kept here, while its sender hears nothing, and sent on
 * later.
 */
static struct {
	char body[4096], etag[BUCKET_ETAG_SIZE];
	struct bucket_put put;
} late;

static void keep(struct fault_bucket *f, const struct bucket_put *put)
{
	assert_true(put->size < sizeof(late.body));
	memcpy(late.body, put->data, put->size);
	late.put = *put;
	late.put.data = late.body;
	if (put->if_match) {
		(void)snprintf(late.etag, sizeof(late.etag), "%s",
			       put->if_match);
		late.put.if_match = late.etag;
	}
}

static void delay_puts(struct two *t)
{
	t->net[0].before_put = keep;
	trouble(t, false, 1000, -ETIMEDOUT);
}

static int send_late(struct two *t)
{
	t->net[0].before_put = NULL;
	trouble(t, false, 0, 0);
	return bucket_put(t->bucket, &late.put, NULL);
}

static void a_claim_that_comes_late_is_ours(void **state)
{
	struct two *t = *state;

	assert_int_equal(lease_take(t->b, 0), 0);
	assert_int_equal(lease_release(t->b, true), 0);
	delay_puts(t);
	assert_true(lease_take(t->a, 0) < 0);
	assert_int_equal(send_late(t), 0);
	assert_int_equal(lease_take(t->b, 0), -EBUSY);
	assert_int_equal(lease_take(t->a, 0), 0);
	assert_held(t->a, 2);
}

/* The log was read meanwhile, and is further than the claim's epoch. */
static void a_claim_that_comes_late_is_of_no_old_epoch(void **state)
{
	struct two *t = *state;

	assert_int_equal(lease_take(t->b, 0), 0);
	assert_int_equal(lease_release(t->b, true), 0);
	delay_puts(t);
	assert_true(lease_take(t->a, 0) < 0);
	assert_int_equal(send_late(t), 0);
	assert_int_equal(lease_take(t->a, 7), 0);
	assert_held(t->a, 8);
	assert_false(state_of(t->a).clean);
	assert_int_equal(lease_take(t->b, 0), -EBUSY);
	assert_int_equal(state_of(t->b).epoch, 8);
}

static void a_renewal_that_comes_late_is_gone_on_from(void **state)
{
	struct two *t = *state;

	assert_int_equal(lease_take(t->a, 0), 0);
	delay_puts(t);
	assert_true(lease_renew(t->a) < 0);
	assert_int_equal(send_late(t), 0);
	assert_int_equal(lease_renew(t->a), 0);
	assert_held(t->a, 1);
}

static void what_comes_after_another_took_it_does_not_count(void **state)
{
	struct two *t = *state;

	for (int release = 0; release < 2; release++) {
		AUTO(buf) struct buf before = BUF_INIT(4096);
		AUTO(buf) struct buf after = BUF_INIT(4096);

		fault_set(&t->net[1], ahead_ms, 0);
		assert_int_equal(lease_take(t->a, 0), 0);
		delay_puts(t);
		if (release)
			assert_true(lease_release(t->a, true) < 0);
		else
			assert_true(lease_renew(t->a) < 0);
		fault_set(&t->net[1], ahead_ms, HOUR_MS);
		assert_int_equal(lease_take(t->b, 0), 0);
		record_now(t, &before);
		assert_int_equal(send_late(t), -ERR_PRECOND);
		record_now(t, &after);
		assert_string_equal(before.data, after.data);
		assert_int_equal(lease_renew(t->a), -ERR_FENCED);
		assert_int_equal(lease_release(t->b, false), 0);
	}
}

/* Nothing was written after it, so that its claim still holds. */
static void a_release_that_comes_late_is_one(void **state)
{
	struct two *t = *state;

	assert_int_equal(lease_take(t->a, 0), 0);
	delay_puts(t);
	assert_true(lease_release(t->a, true) < 0);
	assert_int_equal(lease_take(t->b, 0), -EBUSY);
	assert_int_equal(send_late(t), 0);
	assert_int_equal(lease_take(t->b, 0), 0);
	assert_held(t->b, 2);
	assert_true(state_of(t->b).clean);
}

/* Who it was taken by can have put another, at any time. */
static void a_record_that_is_gone_is_a_loss(void **state)
{
	struct two *t = *state;

	assert_int_equal(lease_take(t->a, 0), 0);
	forget_record(t);
	assert_int_equal(lease_renew(t->a), -ERR_FENCED);
	assert_says("gone");
	assert_not_held(t->a);
	assert_true(state_of(t->a).free);
	assert_int_equal(lease_take(t->a, 1), 0);
	assert_held(t->a, 2);
	forget_record(t);
	/* Nobody has to wait for that one. */
	assert_int_equal(lease_release(t->a, true), 0);
	assert_not_held(t->a);
}

/*
 * The reply may have been on its way for as long as the lease is safe: that is
 * reckoned from before it was asked for, and with what its Date leaves out.
 */
static void a_slow_reply_makes_nothing_safer(void **state)
{
	struct two *t = *state;
	int64_t before;
	struct lease_state s;

	assert_int_equal(lease_take(t->a, 0), 0);
	fault_set(&t->net[0], delay_ms, 1600);
	before = clock_monotonic_ms();
	assert_int_equal(lease_renew(t->a), 0);
	s = state_of(t->a);
	assert_true(s.safe_until_ms >=
		    before + s.expires_ms - s.date_ms - 1000);
	assert_true(s.safe_until_ms <
		    before + s.expires_ms - s.date_ms - 1000 + 800);
}

static struct two *racing;

static void other_takes_it(struct fault_bucket *f, const struct bucket_put *put)
{
	f->before_put = NULL;
	assert_true(put->if_absent);
	assert_int_equal(lease_take(racing->b, 0), 0);
}

static void who_finds_no_record_replaces_none(void **state)
{
	struct two *t = *state;

	racing = t;
	t->net[0].before_put = other_takes_it;
	assert_int_equal(lease_take(t->a, 0), -EBUSY);
	assert_int_equal(lease_renew(t->b), 0);
	assert_held(t->b, 1);
}

static struct {
	char holders[32][LEASE_HOLDER_SIZE];
	uint64_t serials[32];
	unsigned n;
} written;

static void note_written(struct fault_bucket *f, const struct bucket_put *put)
{
	struct lease_record r;

	assert_int_equal(lease_record_parse(put->data, put->size, &r), 0);
	assert_true(written.n < 32);
	memcpy(written.holders[written.n], r.holder, sizeof(r.holder));
	written.serials[written.n++] = r.serial;
}

/* An ETag is the MD5 of the bytes: a condition may be met by one record only. */
static void no_two_writes_have_the_same_bytes(void **state)
{
	struct two *t = *state;

	written.n = 0;
	for (int i = 0; i < 2; i++)
		t->net[i].before_put = note_written;
	for (int i = 0; i < 2; i++) {
		trouble(t, false, 2, -EAGAIN);
		assert_int_equal(lease_take(t->a, 0), 0);
		assert_int_equal(lease_renew(t->a), 0);
		assert_int_equal(lease_release(t->a, true), 0);
		assert_int_equal(lease_take(t->b, 0), 0);
		assert_int_equal(lease_release(t->b, true), 0);
		forget_record(t);
	}
	assert_true(written.n >= 14);
	for (unsigned i = 0; i < written.n; i++)
		for (unsigned j = 0; j < i; j++)
			assert_false(written.serials[i] == written.serials[j] &&
				     strcmp(written.holders[i],
					    written.holders[j]) == 0);
}

/* A record with it in could be read by nobody, and would be left alone. */
static void a_name_that_cannot_be_read_is_not_written(void **state)
{
	static const char *const names[] = { "a\nb", "a\x7f", "Z\xfcrich" };
	struct two *t = *state;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct lease *l = lease_of(t->bucket, names[i]);

		assert_int_equal(lease_take(l, 0), -EINVAL);
		assert_says("owner");
		assert_not_held(l);
		lease_free(l);
	}
	assert_int_equal(lease_take(t->b, 0), 0);
}

static void a_lost_reply_is_no_loss(void **state)
{
	struct two *t = *state;

	/* The first record, and then the claim. */
	fault_set(&t->net[0], lose, 2);
	assert_int_equal(lease_take(t->a, 0), 0);
	assert_int_equal(fault_read(&t->net[0], lose), 0);
	assert_held(t->a, 1);
	fault_set(&t->net[0], lose, 1);
	assert_int_equal(lease_renew(t->a), 0);
	assert_held(t->a, 1);
	fault_set(&t->net[0], lose, 1);
	assert_int_equal(lease_release(t->a, true), 0);
	assert_int_equal(lease_take(t->b, 0), 0);
	assert_true(state_of(t->b).clean);
	assert_held(t->b, 2);
}

/* A claim that happened, and of which nothing more could be learned. */
static void a_claim_that_was_not_seen_is_found(void **state)
{
	struct two *t = *state;

	assert_int_equal(lease_take(t->b, 0), 0);
	assert_int_equal(lease_release(t->b, true), 0);
	fault_set(&t->net[0], lose, 1);
	fault_set(&t->net[0], dies, true);
	assert_int_equal(lease_take(t->a, 0), -ETIMEDOUT);
	assert_not_held(t->a);
	fault_set(&t->net[0], fail, 0);
	assert_int_equal(lease_take(t->a, 0), 0);
	assert_held(t->a, 2);
	/* Who had it before it is not known for certain any more. */
	assert_false(state_of(t->a).clean);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(replies_that_are_lost_are_no_loss),
		TEST(requests_that_are_lost_are_sent_again),
		TEST(tries_come_to_an_end),
		TEST(a_claim_that_comes_late_is_ours),
		TEST(a_claim_that_comes_late_is_of_no_old_epoch),
		TEST(a_renewal_that_comes_late_is_gone_on_from),
		TEST(what_comes_after_another_took_it_does_not_count),
		TEST(a_release_that_comes_late_is_one),
		TEST(a_record_that_is_gone_is_a_loss),
		TEST(a_slow_reply_makes_nothing_safer),
		TEST(who_finds_no_record_replaces_none),
		TEST(no_two_writes_have_the_same_bytes),
		TEST(a_name_that_cannot_be_read_is_not_written),
		TEST(a_lost_reply_is_no_loss),
		TEST(a_claim_that_was_not_seen_is_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
