#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/error.h"

static void times_are_read_in_the_forms_of_rfc_3339(void **state)
{
	static const struct {
		const char *text;
		int64_t ms;
	} good[] = {
		{ "1970-01-01T00:00:00Z", 0 },
		{ "2006-01-02T15:04:05Z", 1136214245000 },
		{ "2006-01-02T15:04:05.123Z", 1136214245123 },
		{ "2006-01-02t15:04:05.1239999z", 1136214245123 },
		{ "2006-01-02 15:04:05.5Z", 1136214245500 },
		{ "2006-01-02T15:04:05+01:00", 1136210645000 },
		{ "2006-01-02T15:04:05-07:30", 1136241245000 },
		{ "2024-02-29T00:00:00Z", 1709164800000 },
		{ "0001-01-01T00:00:00+23:59", -62135683140000 },
		{ "9999-12-31T23:59:59.999Z", 253402300799999 },
	};
	static const char *const bad[] = {
		"",
		"yesterday",
		"2006-01-02",
		"2006-01-02T15:04:05",
		"2006-13-02T15:04:05Z",
		"2006-02-31T15:04:05Z",
		"2023-02-29T00:00:00Z",
		"2006-01-02T25:04:05Z",
		"2006-01-02T15:04:05.Z",
		"2006-01-02T15:04:05Zjunk",
		"2006-01-02T15:04:05+25:00",
		"1136214245",
		" 006-01-02T15:04:05Z",
		"2006-1-02T15:04:05Z",
		"2006-01-02T15:+4:05Z",
		"0000-01-01T00:00:00+00:01",
		"9999-12-31T23:59:59-00:01",
		"9999-12-31T23:59:60Z",
		"2006-01-02T15:04:05+1:00",
		"2006-01-02T15:04:05+ 1:00",
		"2006-01-02T15:04:05+-1:00",
		"2006-01-02T15:04:05+01:0",
		"2006-01-02T15:04:05+01:+5",
		"2006-01-02T15:04:05+01:000",
		"2006-01-02T15:04:05 01:00",
		"2006-01-02T15:04:05+24:00",
		"2006-01-02T15:04:05+01:60",
	};

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		int64_t ms = -1;

		if (clock_parse(good[i].text, &ms) < 0)
			fail_msg("%s", error_message());
		assert_int_equal(ms, good[i].ms);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		int64_t ms = -1;

		if (clock_parse(bad[i], &ms) == 0)
			fail_msg("'%s' was taken for a time", bad[i]);
		assert_int_equal(ms, -1);
	}
}

static void what_is_formatted_reads_back(void **state)
{
	static const int64_t times[] = { 0, 1, 999, 1000, 1136214245123,
					 253402300799999, -62135683140000,
					 -62167219200000, -1 };

	for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
		char text[CLOCK_TEXT_SIZE];
		int64_t ms;

		clock_format(times[i], text);
		assert_int_equal(clock_parse(text, &ms), 0);
		assert_int_equal(ms, times[i]);
	}
}

static void a_year_is_written_with_four_digits(void **state)
{
	static const struct {
		int64_t ms;
		const char *text;
	} cases[] = {
		{ 1136214245123, "2006-01-02T15:04:05.123Z" },
		{ -1, "1969-12-31T23:59:59.999Z" },
		{ -30610224000001, "0999-12-31T23:59:59.999Z" },
		{ -62167219200000, "0000-01-01T00:00:00.000Z" },
		{ 253402300799999, "9999-12-31T23:59:59.999Z" },
		{ -62167219200001, "invalid-time" },
		{ 253402300800000, "invalid-time" },
		{ INT64_MIN, "invalid-time" },
		{ INT64_MAX, "invalid-time" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char text[CLOCK_TEXT_SIZE];

		clock_format(cases[i].ms, text);
		assert_string_equal(text, cases[i].text);
	}
}

static void durations_have_units(void **state)
{
	static const struct {
		const char *text;
		int64_t ms; /* -1: refused */
	} cases[] = {
		{ "0", 0 },	 { "20ms", 20 },      { "1s", 1000 },
		{ "5m", 300000 }, { "24h", 86400000 }, { "1h30m", 5400000 },
		{ "1.5s", 1500 }, { "2d", 172800000 }, { "", -1 },
		{ "5", -1 },	 { "s", -1 },	      { "5 s", -1 },
		{ "-1s", -1 },	 { "1y", -1 },	      { "1s junk", -1 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int64_t ms = -1;
		int rc = clock_parse_duration(cases[i].text, &ms);

		if ((rc < 0) != (cases[i].ms < 0) || ms != cases[i].ms)
			fail_msg("'%s' gave %d, %lld", cases[i].text, rc,
				 (long long)ms);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(times_are_read_in_the_forms_of_rfc_3339),
		cmocka_unit_test(what_is_formatted_reads_back),
		cmocka_unit_test(a_year_is_written_with_four_digits),
		cmocka_unit_test(durations_have_units),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
