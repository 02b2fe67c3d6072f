#include "tests/lib/ltx_files.h"

#include "ltx/name.h"

static void txid_is_sixteen_lower_case_digits(void **state)
{
	char text[LTX_TXID_TEXT_SIZE];
	uint64_t txid = 0;

	ltx_txid_format(42, text);
	assert_string_equal(text, "000000000000002a");
	assert_int_equal(ltx_txid_parse(text, &txid), 0);
	assert_int_equal(txid, 42);
	assert_int_equal(ltx_txid_parse("ffffffffffffffff", &txid), 0);
	assert_int_equal(txid, UINT64_MAX);
}

static void what_is_no_txid_is_refused_and_quoted(void **state)
{
	static const char *const bad[] = {
		"",
		"1",
		"0000000000000000",
		"000000000000002A",
		"000000000000002g",
		"000000000000002",
		"000000000000002aa",
		"+00000000000002a",
		" 00000000000002a",
		"0x0000000000002a",
		"000000000000002a ",
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		uint64_t txid = 7;

		assert_int_equal(ltx_txid_parse(bad[i], &txid), -EINVAL);
		assert_int_equal(txid, 7);
		assert_message("transaction id");
		assert_message(bad[i]);
	}
}

static void name_has_the_first_and_the_last_txid(void **state)
{
	char name[LTX_NAME_SIZE];
	uint64_t min = 0, max = 0;

	ltx_name_format(1, UINT64_MAX, name);
	assert_string_equal(name, "0000000000000001-ffffffffffffffff.ltx");
	assert_int_equal(ltx_name_parse(name, &min, &max), 0);
	assert_int_equal(min, 1);
	assert_int_equal(max, UINT64_MAX);
}

static void what_is_no_file_name_is_refused(void **state)
{
	static const char *const bad[] = {
		"",
		"0000000000000001-0000000000000002",
		"0000000000000001-0000000000000002.ltx.tmp",
		"0000000000000001-0000000000000002.LTX",
		"0000000000000001_0000000000000002.ltx",
		"000000000000000A-000000000000000B.ltx",
		"0000000000000000-0000000000000002.ltx",
		"0000000000000003-0000000000000002.ltx",
		"./00000000000001-0000000000000002.ltx",
		"00000000000000001-000000000000002.ltx",
		"0000000000000001-0000000000000002xltx",
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		uint64_t min = 7, max = 7;

		assert_int_equal(ltx_name_parse(bad[i], &min, &max), -EINVAL);
		assert_int_equal(min, 7);
		assert_int_equal(max, 7);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(txid_is_sixteen_lower_case_digits),
		cmocka_unit_test(what_is_no_txid_is_refused_and_quoted),
		cmocka_unit_test(name_has_the_first_and_the_last_txid),
		cmocka_unit_test(what_is_no_file_name_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
