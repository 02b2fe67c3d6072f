#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "uploader/pace.h"

static void a_seal_is_due_by_interval_pause_and_who_waits(void **state)
{
	static const struct {
		int64_t interval, sealed, now;
		bool urged;
		int64_t due;
	} table[] = {
		/* The first of all, whatever the interval. */
		{ 1000, PACE_NEVER, 5000, false, 5000 },
		{ 1000, PACE_NEVER, 0, false, 0 },
		{ 1000, PACE_NEVER, 5000, true, 5000 },
		/* The first after a pause. */
		{ 1000, 4000, 5000, false, 5000 },
		{ 1000, 1000, 90000, false, 90000 },
		/* Within the interval. */
		{ 1000, 4001, 5000, false, 5001 },
		{ 1000, 5000, 5000, false, 6000 },
		/* Somebody waits. */
		{ 1000, 5000, 5000, true, 5000 },
		{ 86400000, 5000, 5001, true, 5001 },
		/* No interval. */
		{ 0, 5000, 5000, false, 5000 },
		{ 0, 4000, 5000, false, 5000 },
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		assert_int_equal(pace_due(table[i].interval, table[i].sealed,
					  table[i].now, table[i].urged),
				 table[i].due);
}

static void pauses_double_up_to_a_cap_and_jitter_takes_at_most_half(
	void **state)
{
	static const int64_t bounds[] = { 1000, 2000, 4000, 8000, 16000,
					  30000, 30000 };

	for (unsigned i = 0; i < sizeof(bounds) / sizeof(bounds[0]); i++) {
		assert_int_equal(pace_pause(i, false, 0), bounds[i]);
		assert_int_equal(pace_pause(i, false, UINT32_MAX),
				 bounds[i] / 2);
		assert_in_range(pace_pause(i, false, UINT32_MAX / 3),
				bounds[i] / 2, bounds[i]);
	}
	assert_int_equal(pace_pause(UINT32_MAX, false, 0), 30000);
}

static void what_a_person_must_mend_is_tried_slowly_from_the_start(
	void **state)
{
	assert_int_equal(pace_pause(0, true, 0), 30000);
	assert_int_equal(pace_pause(0, true, UINT32_MAX), 15000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_seal_is_due_by_interval_pause_and_who_waits),
		cmocka_unit_test(
			pauses_double_up_to_a_cap_and_jitter_takes_at_most_half),
		cmocka_unit_test(
			what_a_person_must_mend_is_tried_slowly_from_the_start),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
