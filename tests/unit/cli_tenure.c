/* A node's tenure: sought, held, kept while the bucket is away, and lost. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "bucket/bucket.h"
#include "bucket/lease.h"
#include "bucket/url.h"
#include "cli/lives.h"
#include "tests/lib/fault_bucket.h"

#include "cli/tenure.h"

enum {
	TTL_MS = 1500, /* a Date has whole seconds */
	PATIENCE_MS = 20000,
};

/* A node with a directory and a network of its own. */
struct node {
	char dir[96];
	int dirfd;
	struct fault_bucket net;
	struct tenure *tenure;
	atomic_uint epoch; /* that was taken */
	atomic_int took_rc; /* what took() returns, once */
	atomic_int open_logs;
	atomic_int last_state;
	atomic_bool stop;
};

struct world {
	char dir[64];
	struct bucket *bucket;
	struct node a, b;
};

static int took(void *arg, uint32_t epoch)
{
	struct node *n = arg;
	int rc = atomic_exchange(&n->took_rc, 0);

	if (rc < 0)
		return error_set(rc, "told to fail");
	atomic_store(&n->epoch, epoch);
	return 0;
}

static int close_logs(void *arg, int64_t until_ms)
{
	struct node *n = arg;

	if (atomic_load(&n->open_logs) > 0)
		atomic_fetch_sub(&n->open_logs, 1);
	return atomic_load(&n->open_logs);
}

static void changed(void *arg, enum tenure_state state)
{
	atomic_store(&((struct node *)arg)->last_state, (int)state);
}

static void renew(struct node *n)
{
	const struct tenure_config config = {
		.bucket = &n->net.bucket,
		.dirfd = n->dirfd,
		.owner = "node",
		.ttl_ms = TTL_MS,
		.took = took,
		.close_logs = close_logs,
		.changed = changed,
		.arg = n,
	};

	atomic_store(&n->last_state, -1);
	assert_int_equal(tenure_new(&config, &n->tenure), 0);
}

/* As a process that was killed: the record stays as it is. */
static void kill_node(struct node *n)
{
	tenure_stop(n->tenure);
	tenure_free(n->tenure);
	n->tenure = NULL;
}

static void end_node(struct node *n, bool sent_all)
{
	tenure_stop(n->tenure);
	tenure_release(n->tenure, sent_all);
	tenure_free(n->tenure);
	n->tenure = NULL;
}

static void open_node(struct world *w, struct node *n, const char *name)
{
	(void)snprintf(n->dir, sizeof(n->dir), "%s/%s", w->dir, name);
	assert_int_equal(mkdir(n->dir, 0700), 0);
	n->dirfd = open(n->dir, O_RDONLY | O_DIRECTORY);
	fault_init(&n->net, w->bucket);
	fault_set(&n->net, has_clock, true);
	renew(n);
}

static int set_up(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	char url[96];

	log_set_level(LOG_ERROR + 1);
	strcpy(w->dir, "/tmp/litebucket-tenure.XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	(void)snprintf(url, sizeof(url), "file://%s/bucket", w->dir);
	assert_int_equal(bucket_open(url, true, &w->bucket), 0);
	open_node(w, &w->a, "a");
	open_node(w, &w->b, "b");
	*state = w;
	return 0;
}

static void close_node(struct node *n)
{
	if (n->tenure)
		kill_node(n);
	bucket_free(&n->net.bucket);
	(void)close(n->dirfd);
}

static int tear_down(void **state)
{
	struct world *w = *state;
	char command[128];

	close_node(&w->a);
	close_node(&w->b);
	bucket_free(w->bucket);
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", w->dir);
	(void)!system(command);
	free(w);
	return 0;
}

static enum tenure_state state_of(struct node *n)
{
	struct tenure_status s;

	tenure_status(n->tenure, &s);
	return s.state;
}

static void wait_for(struct node *n, enum tenure_state state)
{
	int64_t until = clock_monotonic_ms() + PATIENCE_MS;

	while (state_of(n) != state) {
		if (clock_monotonic_ms() > until)
			fail_msg("is %s, not %s",
				 tenure_state_name(state_of(n)),
				 tenure_state_name(state));
		clock_sleep_ms(10);
	}
}

static void wait_until_closed(struct node *n)
{
	int64_t until = clock_monotonic_ms() + PATIENCE_MS;

	while (tenure_owes_barriers(n->tenure)) {
		assert_true(clock_monotonic_ms() < until);
		clock_sleep_ms(10);
	}
}

static void begin(struct node *n, uint32_t epoch)
{
	if (tenure_begin(n->tenure, &n->stop, false) != 0)
		fail_msg("begin: %s", error_message());
	assert_int_equal(atomic_load(&n->epoch), epoch);
	assert_int_equal(tenure_epoch(n->tenure), epoch);
	assert_int_equal(tenure_may_send(n->tenure), 0);
	assert_int_equal(atomic_load(&n->last_state), TENURE_HELD);
}

static void *stop_soon(void *arg)
{
	clock_sleep_ms(300);
	atomic_store((atomic_bool *)arg, true);
	return NULL;
}

static void who_comes_second_waits_until_it_is_stopped(void **state)
{
	struct world *w = *state;
	pthread_t thread;

	begin(&w->a, 1);
	assert_int_equal(tenure_start(w->a.tenure), 0);
	assert_int_equal(tenure_may_send(w->b.tenure), -EBUSY);
	assert_int_equal(pthread_create(&thread, NULL, stop_soon, &w->b.stop),
			 0);
	assert_int_equal(tenure_begin(w->b.tenure, &w->b.stop, false), -ECANCELED);
	(void)pthread_join(thread, NULL);
	assert_int_equal(atomic_load(&w->b.epoch), 0);
	assert_int_equal(state_of(&w->a), TENURE_HELD);
}

static void a_clean_end_leaves_nothing_to_close(void **state)
{
	struct world *w = *state;

	begin(&w->a, 1);
	assert_true(tenure_owes_barriers(w->a.tenure)); /* who was before? */
	assert_int_equal(tenure_start(w->a.tenure), 0);
	wait_until_closed(&w->a);
	end_node(&w->a, true);
	begin(&w->b, 2);
	assert_false(tenure_owes_barriers(w->b.tenure));
	/* Something stays in the spool. */
	end_node(&w->b, false);
	renew(&w->a);
	begin(&w->a, 3);
	assert_true(tenure_owes_barriers(w->a.tenure));
}

/* Until they are, neither another node nor this one may think so. */
static void logs_that_were_never_closed_stay_to_be(void **state)
{
	struct world *w = *state;

	atomic_store(&w->a.open_logs, 1000000);
	begin(&w->a, 1);
	assert_int_equal(tenure_start(w->a.tenure), 0);
	clock_sleep_ms(700);
	assert_true(tenure_owes_barriers(w->a.tenure));
	end_node(&w->a, true);
	renew(&w->a);
	begin(&w->a, 2);
	assert_true(tenure_owes_barriers(w->a.tenure));
	end_node(&w->a, true);
	begin(&w->b, 3);
	assert_true(tenure_owes_barriers(w->b.tenure));
}

static void who_was_killed_is_back_at_once(void **state)
{
	struct world *w = *state;
	int64_t before;

	begin(&w->a, 1);
	assert_int_equal(tenure_start(w->a.tenure), 0);
	wait_until_closed(&w->a);
	kill_node(&w->a);
	before = clock_monotonic_ms();
	renew(&w->a);
	begin(&w->a, 2);
	assert_true(clock_monotonic_ms() - before < TTL_MS);
	assert_false(tenure_owes_barriers(w->a.tenure));
	kill_node(&w->a);
	/* Another has to wait, and closes the logs. */
	begin(&w->b, 3);
	assert_true(clock_monotonic_ms() - before >= TTL_MS - 1000);
	assert_true(tenure_owes_barriers(w->b.tenure));
}

static void who_lost_it_never_sends_again(void **state)
{
	struct world *w = *state;
	struct tenure_status s;

	begin(&w->a, 1);
	/* It stands still: nothing is renewed. */
	begin(&w->b, 2);
	assert_int_equal(tenure_start(w->a.tenure), 0);
	wait_for(&w->a, TENURE_LOST);
	assert_int_equal(tenure_may_send(w->a.tenure), -ERR_FENCED);
	assert_int_equal(atomic_load(&w->a.last_state), TENURE_LOST);
	tenure_status(w->a.tenure, &s);
	assert_int_equal(s.lease.epoch, 2);
	assert_non_null(strstr(s.error, "epoch 2"));
	end_node(&w->b, true);
	clock_sleep_ms(2 * TTL_MS);
	assert_int_equal(state_of(&w->a), TENURE_LOST);
}

static void a_silent_bucket_is_waited_for_meanwhile(void **state)
{
	struct world *w = *state;

	fault_set(&w->a.net, fail, -ETIMEDOUT);
	assert_int_equal(tenure_begin(w->a.tenure, &w->a.stop, false), 1);
	assert_int_equal(tenure_may_send(w->a.tenure), -EBUSY);
	assert_int_equal(tenure_start(w->a.tenure), 0);
	fault_set(&w->a.net, fail, 0);
	wait_for(&w->a, TENURE_HELD);
	assert_int_equal(atomic_load(&w->a.epoch), 1);
	/* And later: it is the same epoch afterwards, for nobody came. */
	fault_set(&w->a.net, fail, -ETIMEDOUT);
	clock_sleep_ms(2 * TTL_MS);
	assert_int_equal(tenure_may_send(w->a.tenure), 0);
	fault_set(&w->a.net, fail, 0);
	clock_sleep_ms(2 * TTL_MS);
	assert_int_equal(tenure_epoch(w->a.tenure), 1);
	assert_int_equal(state_of(&w->a), TENURE_HELD);
}

static void who_was_away_when_it_was_taken_has_lost_it(void **state)
{
	struct world *w = *state;

	fault_set(&w->a.net, fail, -ETIMEDOUT);
	assert_int_equal(tenure_begin(w->a.tenure, &w->a.stop, false), 1);
	begin(&w->b, 1);
	assert_int_equal(tenure_start(w->b.tenure), 0);
	fault_set(&w->a.net, fail, 0);
	assert_int_equal(tenure_start(w->a.tenure), 0);
	wait_for(&w->a, TENURE_LOST);
	assert_int_equal(state_of(&w->b), TENURE_HELD);
}

static void a_record_that_was_removed_is_made_again_in_a_new_epoch(void **state)
{
	struct world *w = *state;
	const char *key = LEASE_KEY;
	int64_t until = clock_monotonic_ms() + PATIENCE_MS;

	begin(&w->a, 1);
	assert_int_equal(tenure_start(w->a.tenure), 0);
	wait_until_closed(&w->a);
	atomic_store(&w->a.open_logs, 1000000);
	assert_int_equal(bucket_remove(w->bucket, &key, 1), 0);
	while (tenure_epoch(w->a.tenure) == 1 &&
	       clock_monotonic_ms() < until)
		clock_sleep_ms(10);
	wait_for(&w->a, TENURE_HELD);
	assert_int_equal(atomic_load(&w->a.epoch), 2);
	assert_true(tenure_owes_barriers(w->a.tenure));
}

static void an_epoch_that_the_bucket_has_had_is_not_begun(void **state)
{
	struct world *w = *state;

	atomic_store(&w->a.took_rc, -ERR_FENCED);
	begin(&w->a, 2);
}

static void without_the_catalog_nothing_is_served(void **state)
{
	struct world *w = *state;

	atomic_store(&w->a.took_rc, -EIO);
	begin(&w->a, 1);
	assert_int_equal(atomic_load(&w->a.took_rc), 0);
}

static void *cut_off_and_stop_soon(void *arg)
{
	struct node *n = arg;

	clock_sleep_ms(500);
	fault_set(&n->net, fail, -ETIMEDOUT);
	clock_sleep_ms(2500);
	atomic_store(&n->stop, true);
	return NULL;
}

/* It knows that somebody else is at work. */
static void who_has_waited_does_not_go_on_without(void **state)
{
	struct world *w = *state;
	pthread_t thread;

	begin(&w->a, 1);
	assert_int_equal(tenure_start(w->a.tenure), 0);
	assert_int_equal(pthread_create(&thread, NULL, cut_off_and_stop_soon,
					&w->b), 0);
	assert_int_equal(tenure_begin(w->b.tenure, &w->b.stop, false), -ECANCELED);
	(void)pthread_join(thread, NULL);
}

static void what_one_that_is_gone_has_left_runs_out(void **state)
{
	struct world *w = *state;

	begin(&w->a, 1);
	kill_node(&w->a);
	fault_set(&w->b.net, fail, -ETIMEDOUT);
	assert_int_equal(tenure_begin(w->b.tenure, &w->b.stop, false), 1);
	fault_set(&w->b.net, fail, 0);
	assert_int_equal(tenure_start(w->b.tenure), 0);
	wait_for(&w->b, TENURE_HELD);
	assert_int_equal(atomic_load(&w->b.epoch), 2);
}

static void a_damaged_record_is_left_alone(void **state)
{
	const struct bucket_put put = {
		.key = LEASE_KEY, .data = "nonsense", .size = 8, .fd = -1,
	};
	struct world *w = *state;

	assert_int_equal(bucket_put(w->bucket, &put, NULL), 0);
	assert_int_equal(tenure_begin(w->a.tenure, &w->a.stop, false), -ERR_CORRUPT);
	assert_int_equal(tenure_may_send(w->a.tenure), -EBUSY);
}

int main(void)
{
#define TENURE_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TENURE_TEST(who_comes_second_waits_until_it_is_stopped),
		TENURE_TEST(a_clean_end_leaves_nothing_to_close),
		TENURE_TEST(logs_that_were_never_closed_stay_to_be),
		TENURE_TEST(who_was_killed_is_back_at_once),
		TENURE_TEST(who_lost_it_never_sends_again),
		TENURE_TEST(a_silent_bucket_is_waited_for_meanwhile),
		TENURE_TEST(who_was_away_when_it_was_taken_has_lost_it),
		TENURE_TEST(a_record_that_was_removed_is_made_again_in_a_new_epoch),
		TENURE_TEST(an_epoch_that_the_bucket_has_had_is_not_begun),
		TENURE_TEST(without_the_catalog_nothing_is_served),
		TENURE_TEST(who_has_waited_does_not_go_on_without),
		TENURE_TEST(what_one_that_is_gone_has_left_runs_out),
		TENURE_TEST(a_damaged_record_is_left_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
