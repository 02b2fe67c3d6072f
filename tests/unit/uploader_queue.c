#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"

#include "uploader/queue.h"

enum { THREADS = 4 };

struct fixture {
	pthread_mutex_t lock;
	struct queue queue;
	pthread_t threads[THREADS];
	atomic_int ids[THREADS]; /* the kernel's */
	atomic_int taken;
	bool running;
	int64_t work_ms; /* what a thread does with each entry */
};

static struct fixture f;
static atomic_int started;

static void *take_all(void *arg)
{
	f.ids[atomic_fetch_add(&started, 1)] = gettid();
	(void)lock(&f.lock);
	while (queue_take(&f.queue)) {
		atomic_fetch_add(&f.taken, 1);
		(void)pthread_mutex_unlock(&f.lock);
		clock_sleep_ms(f.work_ms);
		(void)lock(&f.lock);
	}
	(void)pthread_mutex_unlock(&f.lock);
	return NULL;
}

static int set_up(void **state)
{
	memset(&f, 0, sizeof(f));
	pthread_mutex_init(&f.lock, NULL);
	return queue_init(&f.queue, &f.lock);
}

static void start_threads(void)
{
	started = 0;
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(
			pthread_create(&f.threads[i], NULL, take_all, NULL), 0);
	clock_sleep_ms(200);
	assert_int_equal(started, THREADS);
	f.running = true;
}

static void stop_threads(void)
{
	(void)lock(&f.lock);
	queue_close(&f.queue);
	(void)pthread_mutex_unlock(&f.lock);
	for (int i = 0; f.running && i < THREADS; i++)
		pthread_join(f.threads[i], NULL);
	f.running = false;
}

static int tear_down(void **state)
{
	stop_threads();
	queue_destroy(&f.queue);
	return 0;
}

static void put(struct queue_entry *e, int64_t due_ms)
{
	(void)lock(&f.lock);
	queue_put(&f.queue, e, due_ms);
	(void)pthread_mutex_unlock(&f.lock);
}

/* How often the threads went to sleep so far. */
static unsigned long count_sleeps(void)
{
	unsigned long all = 0, one;
	char path[64], line[256];

	for (int i = 0; i < THREADS; i++) {
		FILE *status;

		snprintf(path, sizeof(path), "/proc/self/task/%d/status",
			 f.ids[i]);
		status = fopen(path, "re");
		assert_non_null(status);
		while (fgets(line, sizeof(line), status))
			if (sscanf(line, "voluntary_ctxt_switches: %lu",
				   &one) == 1)
				all += one;
		fclose(status);
	}
	return all;
}

/* Asserts nothing while the lock is held. */
static struct queue_entry *take(void)
{
	struct queue_entry *e;

	(void)lock(&f.lock);
	e = queue_take(&f.queue);
	(void)pthread_mutex_unlock(&f.lock);
	return e;
}

static void entries_come_by_time_and_then_by_arrival(void **state)
{
	struct queue_entry e[5] = { 0 };
	int64_t now = clock_monotonic_ms();
	static const int order[] = { 3, 0, 2, 4, 1 };

	put(&e[0], now - 5);
	put(&e[1], now);
	put(&e[2], now - 5);
	put(&e[3], now - 9);
	put(&e[4], now - 5);
	for (int i = 0; i < 5; i++)
		assert_ptr_equal(take(), &e[order[i]]);
}

static void an_entry_can_be_moved(void **state)
{
	struct queue_entry e[2] = { 0 };
	int64_t now = clock_monotonic_ms();

	put(&e[0], now - 1);
	put(&e[1], now + 60000);
	put(&e[1], now - 2);
	assert_ptr_equal(take(), &e[1]);
	assert_false(e[1].queued);
	assert_ptr_equal(take(), &e[0]);
}

static void an_earlier_entry_wakes_the_watch(void **state)
{
	struct queue_entry late = { 0 }, early = { 0 };

	start_threads();
	put(&late, clock_monotonic_ms() + 600000);
	clock_sleep_ms(50);
	put(&early, clock_monotonic_ms() + 20);
	for (int i = 0; i < 100 && !f.taken; i++)
		clock_sleep_ms(20);
	assert_int_equal(f.taken, 1);
	stop_threads();
	assert_true(late.queued);
}

static void all_that_is_due_is_taken_however_it_comes(void **state)
{
	struct queue_entry e[200] = { 0 };
	int64_t now = clock_monotonic_ms();

	start_threads();
	for (int i = 0; i < 200; i++)
		put(&e[i], now + i * 7919 % 300);
	for (int i = 0; i < 300 && f.taken < 200; i++)
		clock_sleep_ms(20);
	assert_int_equal(f.taken, 200);
	stop_threads();
}

static void while_one_works_another_keeps_watch(void **state)
{
	struct queue_entry e[THREADS] = { 0 };
	int64_t now;

	f.work_ms = 3000;
	start_threads();
	now = clock_monotonic_ms();
	for (int i = 0; i < THREADS; i++)
		put(&e[i], now + 50 + 50 * i);
	for (int i = 0; i < 100 && f.taken < THREADS; i++)
		clock_sleep_ms(20);
	assert_int_equal(f.taken, THREADS);
	assert_in_range(clock_monotonic_ms() - now, 200, 2500);
}

static void an_empty_queue_wakes_nobody(void **state)
{
	unsigned long before;

	start_threads();
	before = count_sleeps();
	clock_sleep_ms(500);
	assert_int_equal(count_sleeps(), before);
	stop_threads();
}

static void one_entry_wakes_one_thread_or_two(void **state)
{
	struct queue_entry e = { 0 };
	unsigned long before;

	start_threads();
	before = count_sleeps();
	put(&e, clock_monotonic_ms() + 100);
	clock_sleep_ms(500);
	assert_int_equal(f.taken, 1);
	/* Called to watch; woken at the time.  Locks may cost one more. */
	assert_in_range(count_sleeps() - before, 1, 3);
	stop_threads();
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(entries_come_by_time_and_then_by_arrival),
		TEST(an_entry_can_be_moved),
		TEST(an_earlier_entry_wakes_the_watch),
		TEST(all_that_is_due_is_taken_however_it_comes),
		TEST(while_one_works_another_keeps_watch),
		TEST(an_empty_queue_wakes_nobody),
		TEST(one_entry_wakes_one_thread_or_two),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
