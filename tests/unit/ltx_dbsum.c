#include "tests/lib/ltx_files.h"

#include "ltx/dbsum.h"

enum { PAGE_SIZE = 4096 };

static uint8_t a[PAGE_SIZE], b[PAGE_SIZE];

static uint64_t sum_of_two(const void *first, const void *second)
{
	return ltx_dbsum_page(1, first, PAGE_SIZE) +
	       ltx_dbsum_page(2, second, PAGE_SIZE);
}

static void two_swapped_pages_are_noticed(void **state)
{
	fill_page(a, PAGE_SIZE, 1);
	fill_page(b, PAGE_SIZE, 2);
	assert_int_not_equal(sum_of_two(a, b), sum_of_two(b, a));
	/* Which the XOR of LTX's page checksums does not see. */
	assert_int_equal(ltx_crc64_page(1, a, PAGE_SIZE) ^
				 ltx_crc64_page(2, b, PAGE_SIZE),
			 ltx_crc64_page(1, b, PAGE_SIZE) ^
				 ltx_crc64_page(2, a, PAGE_SIZE));
}

static void the_same_change_in_two_equal_pages_is_noticed(void **state)
{
	uint64_t before;

	fill_page(a, PAGE_SIZE, 1);
	before = sum_of_two(a, a);
	memcpy(b, a, PAGE_SIZE);
	b[100] ^= 1;
	assert_int_not_equal(sum_of_two(b, b), before);
	assert_int_equal(ltx_crc64_page(1, a, PAGE_SIZE) ^
				 ltx_crc64_page(2, a, PAGE_SIZE),
			 ltx_crc64_page(1, b, PAGE_SIZE) ^
				 ltx_crc64_page(2, b, PAGE_SIZE));
}

/* It stands in every file we wrote, so it must never become another. */
static void its_values_stay_what_they_were(void **state)
{
	static const uint8_t zeros[65536];
	uint8_t page[PAGE_SIZE];

	for (size_t i = 0; i < PAGE_SIZE; i++)
		page[i] = (uint8_t)i;
	assert_int_equal(ltx_dbsum_page(1, zeros, 512), 0x8a3b11577f6f69db);
	assert_int_equal(ltx_dbsum_page(1, zeros, 65536), 0x4095f0e6c9e09a29);
	assert_int_equal(ltx_dbsum_page(2, zeros, 65536), 0xecce381c4501db34);
	assert_int_equal(ltx_dbsum_page(4294967295, page, PAGE_SIZE), 0xde98b2b38865102c);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(two_swapped_pages_are_noticed),
		cmocka_unit_test(the_same_change_in_two_equal_pages_is_noticed),
		cmocka_unit_test(its_values_stay_what_they_were),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
