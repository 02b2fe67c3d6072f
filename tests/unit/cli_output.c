#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "cli/database.h"
#include "cli/paths.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/columns.h"

#define MIB UINT64_C(1048576)

static void assert_size(uint64_t bytes, const char *expected)
{
	char text[REPORT_SIZE_TEXT];

	report_size(bytes, text);
	assert_string_equal(text, expected);
}

static void sizes_have_four_digits_at_most(void **state)
{
	assert_size(0, "0 B");
	assert_size(1023, "1023 B");
	assert_size(1024, "1.0 KiB");
	assert_size(1536, "1.5 KiB");
	assert_size(MIB - 1, "1.0 MiB");
	assert_size(MIB, "1.0 MiB");
	assert_size(10 * 1024 * MIB, "10.0 GiB");
	assert_size(UINT64_MAX, "16384.0 PiB");
}

static void assert_progress(uint64_t done, uint64_t total, int64_t elapsed_ms,
			    size_t width, const char *expected)
{
	char line[256];

	progress_format("restoring", done, total, elapsed_ms, width, line,
			sizeof(line));
	assert_string_equal(line, expected);
}

static void progress_shows_share_amounts_and_speed(void **state)
{
	assert_progress(5 * MIB, 20 * MIB, 2500, 79,
			"restoring  25% [########.......................] "
			"5.0 MiB of 20.0 MiB, 2.0 MiB/s");
	assert_progress(20 * MIB, 20 * MIB, 10000, 79,
			"restoring 100% [##############################] "
			"20.0 MiB of 20.0 MiB, 2.0 MiB/s");
}

static void progress_without_a_total_shows_no_bar(void **state)
{
	assert_progress(0, 0, 0, 79, "restoring 0 B, 0 B/s");
	assert_progress(MIB, 0, 1000, 79, "restoring 1.0 MiB, 1.0 MiB/s");
}

static void progress_never_exceeds_the_terminal_or_the_total(void **state)
{
	char line[256];

	for (size_t width = 0; width < 200; width++) {
		progress_format("restoring", 5 * MIB, 20 * MIB, 2500, width,
				line, sizeof(line));
		assert_true(strlen(line) <= width);
	}
	progress_format("restoring", UINT64_MAX, 1, 1, 200, line, 16);
	assert_string_equal(line, "restoring 100% ");
	assert_progress(30 * MIB, 20 * MIB, 1000, 50,
			"restoring 100% 20.0 MiB of 20.0 MiB, 20.0 MiB/s");
}

static void assert_table(const struct columns *t, const char *expected)
{
	char *text;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	assert_int_equal(columns_print(t, out), 0);
	(void)fclose(out);
	assert_string_equal(text, expected);
	free(text);
}

static void columns_are_as_wide_as_their_widest_cell(void **state)
{
	AUTO(columns) struct columns t = COLUMNS("NAME", "SIZE>", "NOTE");

	columns_cell(&t, "a-long-name.db");
	columns_cell(&t, "%d", 7);
	columns_cell(&t, "x");
	columns_cell(&t, "b");
	columns_cell(&t, "%d", 123456);
	columns_cell(&t, "yy");
	assert_table(&t, "NAME              SIZE  NOTE\n"
			 "a-long-name.db       7  x\n"
			 "b               123456  yy\n");
}

static void a_name_cannot_break_a_table(void **state)
{
	AUTO(columns) struct columns t = COLUMNS("NAME", "NOTE");

	columns_cell(&t, "line\nbreak\x1b[31m");
	columns_cell(&t, "n");
	/* Two bytes, one character. */
	columns_cell(&t, "\xc3\xa9");
	columns_cell(&t, "n");
	assert_table(&t, "NAME             NOTE\n"
			 "line?break?[31m  n\n"
			 "\xc3\xa9                n\n");
}

static void assert_json_text(const char *text, const char *expected)
{
	json_t *json = report_json_text(text);

	assert_non_null(json);
	assert_string_equal(json_string_value(json), expected);
	json_decref(json);
}

static void bytes_that_are_no_utf8_are_replaced(void **state)
{
	assert_json_text("", "");
	assert_json_text("a b/\xc3\xa9.db", "a b/\xc3\xa9.db");
	assert_json_text("\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80");
	assert_json_text("x\xffy", "x\xef\xbf\xbdy");
	assert_json_text("cut\xc3", "cut\xef\xbf\xbd");
	/* Overlong, a surrogate, beyond Unicode: no byte of them is text. */
	assert_json_text("\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd");
	assert_json_text("\xed\xa0\x80",
			 "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
	assert_json_text("\xf4\x90\x80\x80",
			 "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
}

static void assert_resolved(const char *path, const char *expected)
{
	AUTO(mem) char *real = NULL;

	assert_int_equal(paths_resolve(path, &real), 0);
	assert_string_equal(real, expected);
}

static void a_path_is_resolved_as_far_as_it_exists(void **state)
{
	char name[] = "/tmp/litebucket-cli-XXXXXX";
	char real[PATH_MAX], expected[PATH_MAX + 32];

	assert_non_null(mkdtemp(name));
	assert_non_null(realpath(name, real));
	assert_int_equal(chdir(name), 0);
	assert_int_equal(mkdir("dir", 0700), 0);
	assert_int_equal(symlink("dir", "link"), 0);
	(void)snprintf(expected, sizeof(expected), "%s/dir", real);
	assert_resolved("link", expected);
	assert_resolved("./link//", expected);
	(void)snprintf(expected, sizeof(expected), "%s/dir/new/x", real);
	assert_resolved("link/new/x", expected);
	assert_resolved("link//new///x//", expected);
	assert_resolved("/", "/");
	assert_resolved("/does-not-exist-here", "/does-not-exist-here");
	assert_int_equal(unlink("link"), 0);
	assert_int_equal(rmdir("dir"), 0);
	assert_int_equal(chdir("/"), 0);
	assert_int_equal(rmdir(name), 0);
}

static void assert_escaped(const char *url, unsigned n, const char *expected)
{
	AUTO(mem) char *escaped = database_escaped(url, n);

	if (!expected)
		assert_null(escaped);
	else
		assert_string_equal(escaped, expected);
}

static void a_database_is_escaped_from_the_end_of_its_url(void **state)
{
	const char *url = "file:///my%20b/sub%20dir/2024/a%c3%a9.db";

	assert_escaped(url, 0, url);
	assert_escaped(url, 1, "file:///my%20b/sub%20dir/2024/a=C3=A9.db");
	assert_escaped(url, 2, "file:///my%20b/sub%20dir/=32024/a=C3=A9.db");
	assert_escaped(url, 3, "file:///my%20b/sub=20dir/=32024/a=C3=A9.db");
	assert_escaped(url, 4, "file:///my=20b/sub=20dir/=32024/a=C3=A9.db");
	assert_escaped(url, 5, NULL);
}

static void what_is_no_path_of_a_url_is_never_escaped(void **state)
{
	assert_escaped("s3://my.b/p%20q/d.db?region=a%20/b", 1,
		       "s3://my.b/p%20q/d.db?region=a%20/b");
	assert_escaped("s3://my.b/p%20q/d.db?region=a%20/b", 2,
		       "s3://my.b/p=20q/d.db?region=a%20/b");
	assert_escaped("s3://my.b/p%20q/d.db?region=a%20/b", 3, NULL);
	assert_escaped("s3://b?endpoint=http://x/y", 1, NULL);
	assert_escaped("file:///a//b%20c//", 1, "file:///a//b=20c//");
	assert_escaped("file:///a%2", 1, NULL);
	assert_escaped("file:///a%00b", 1, NULL);
	assert_escaped("a/b", 1, NULL);
	assert_escaped("", 1, NULL);
}

static void within_compares_whole_components(void **state)
{
	assert_true(paths_within("/data", "/data"));
	assert_true(paths_within("/data/x", "/data"));
	assert_true(paths_within("/data", "/"));
	assert_false(paths_within("/data2", "/data"));
	assert_false(paths_within("/", "/data"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_have_four_digits_at_most),
		cmocka_unit_test(progress_shows_share_amounts_and_speed),
		cmocka_unit_test(progress_without_a_total_shows_no_bar),
		cmocka_unit_test(
			progress_never_exceeds_the_terminal_or_the_total),
		cmocka_unit_test(columns_are_as_wide_as_their_widest_cell),
		cmocka_unit_test(a_name_cannot_break_a_table),
		cmocka_unit_test(bytes_that_are_no_utf8_are_replaced),
		cmocka_unit_test(a_path_is_resolved_as_far_as_it_exists),
		cmocka_unit_test(a_database_is_escaped_from_the_end_of_its_url),
		cmocka_unit_test(what_is_no_path_of_a_url_is_never_escaped),
		cmocka_unit_test(within_compares_whole_components),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
