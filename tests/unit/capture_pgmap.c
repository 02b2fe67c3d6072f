#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "capture/pgmap.h"

static void it_says_what_an_array_says(void **state)
{
	enum { PAGES = 3000, STEPS = 100000 };
	static uint32_t expected[PAGES + 1];
	struct pgmap m = PGMAP_INIT;
	unsigned seed = 5;
	uint32_t *sorted;
	size_t n, counted = 0;

	for (int i = 0; i < STEPS; i++) {
		uint32_t pgno = 1 + (uint32_t)rand_r(&seed) % PAGES;
		uint32_t value = (uint32_t)rand_r(&seed) % 4;

		expected[pgno] = value;
		assert_int_equal(pgmap_set(&m, pgno, value), 0);
	}
	assert_int_equal(pgmap_sorted(&m, &sorted, &n), 0);
	for (uint32_t pgno = 1; pgno <= PAGES; pgno++) {
		assert_int_equal(pgmap_get(&m, pgno), expected[pgno]);
		if (expected[pgno])
			assert_int_equal(sorted[counted++], pgno);
	}
	assert_int_equal(n, counted);
	free(sorted);
	pgmap_clear(&m);
	assert_int_equal(pgmap_get(&m, 1), 0);
}

static void the_highest_page_number_is_one_too(void **state)
{
	struct pgmap m = PGMAP_INIT;

	assert_int_equal(pgmap_set(&m, UINT32_MAX, UINT32_MAX), 0);
	assert_int_equal(pgmap_set(&m, 1, 2), 0);
	assert_int_equal(pgmap_get(&m, UINT32_MAX), UINT32_MAX);
	assert_int_equal(pgmap_get(&m, UINT32_MAX - 1), 0);
	pgmap_clear(&m);
}

static void an_empty_one_has_no_pages(void **state)
{
	struct pgmap m = PGMAP_INIT;
	uint32_t *sorted;
	size_t n;

	assert_int_equal(pgmap_get(&m, 7), 0);
	assert_int_equal(pgmap_sorted(&m, &sorted, &n), 0);
	assert_int_equal(n, 0);
	free(sorted);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_says_what_an_array_says),
		cmocka_unit_test(the_highest_page_number_is_one_too),
		cmocka_unit_test(an_empty_one_has_no_pages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
