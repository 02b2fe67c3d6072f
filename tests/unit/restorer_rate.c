/* The rate of a count that grows, by a clock that the test moves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "restorer/rate.h"

enum { START = 5000, SECOND = 1000, MINUTE = 60 * 1000 };

static void nothing_known_is_no_rate(void **state)
{
	const struct rate r = { .n = 0 };

	(void)state;
	assert_true(rate_per_minute(&r, START, 0) == 0);
}

/* A burst at the start is not told as if it went on. */
static void the_first_minute_is_what_there_was(void **state)
{
	struct rate r = { .n = 0 };

	(void)state;
	rate_add(&r, START, 0);
	assert_true(rate_per_minute(&r, START, 12) == 12);
	assert_true(rate_per_minute(&r, START + SECOND, 12) == 12);
}

static void what_is_long_ago_is_forgotten(void **state)
{
	struct rate r = { .n = 0 };
	uint64_t count = 0;

	(void)state;
	for (int64_t ms = 0; ms < 10 * MINUTE; ms += SECOND / 2)
		rate_add(&r, START + ms, count += 5);
	assert_int_equal(r.n, RATE_SAMPLES);
	/* Ten a second. */
	double rate = rate_per_minute(&r, START + 10 * MINUTE, count);
	assert_true(rate > 590 && rate < 610);
	/* And then nothing for half a minute, and for long. */
	rate = rate_per_minute(&r, START + 10 * MINUTE + MINUTE / 2, count);
	assert_true(rate > 200 && rate < 400);
	for (int64_t ms = 10 * MINUTE; ms < 12 * MINUTE; ms += SECOND)
		rate_add(&r, START + ms, count);
	assert_true(rate_per_minute(&r, START + 12 * MINUTE, count) == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_known_is_no_rate),
		cmocka_unit_test(the_first_minute_is_what_there_was),
		cmocka_unit_test(what_is_long_ago_is_forgotten),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
