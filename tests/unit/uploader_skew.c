#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "uploader/skew.h"

static void two_good_clocks_stay_at_no_offset(void **state)
{
	int64_t offset = 0;

	/* The Date is cut to the second: up to 999 ms behind the truth. */
	for (int64_t now = 100000; now < 103000; now += 7)
		offset = skew_adjust(offset, now, now + 5,
				     (now + 2) / 1000 * 1000);
	assert_int_equal(offset, 0);
}

static void a_clock_that_is_off_is_found_to_within_a_second(void **state)
{
	int64_t offset = skew_adjust(0, 10000, 10010, 3610000);

	assert_in_range(offset, 3599990, 3600999);
	offset = skew_adjust(0, 3610000, 3610010, 10000);
	assert_in_range(-offset, 3599001, 3600010);
}

static void further_replies_only_narrow_it_down(void **state)
{
	int64_t truth = -123456, offset = 0, before;

	for (int64_t now = 1000000; now < 1020000; now += 137) {
		before = offset;
		offset = skew_adjust(offset, now, now + 3,
				     (now + 1 + truth) / 1000 * 1000);
		assert_true(offset <= before);
	}
	assert_in_range(offset - truth + 10, 0, 20);
}

static void a_reply_during_which_our_clock_was_set_back_says_nothing(
	void **state)
{
	assert_int_equal(skew_adjust(77, 500000, 10000, 500000), 77);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(two_good_clocks_stay_at_no_offset),
		cmocka_unit_test(
			a_clock_that_is_off_is_found_to_within_a_second),
		cmocka_unit_test(further_replies_only_narrow_it_down),
		cmocka_unit_test(
			a_reply_during_which_our_clock_was_set_back_says_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
