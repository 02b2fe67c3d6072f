/* catalog.json: what is written is read, what is strange is kept or refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "bucket/catalog.h"

#define ID   "00112233445566778899aabbccddeeff"
#define LINE "{\"state\": \"live\", \"page_size\": 4096, "              \
	     "\"txid\": \"0000000000000001\", "                         \
	     "\"time\": \"2026-01-02T03:04:05.678Z\", "                 \
	     "\"floor\": \"0000000000000001\"}"
#define WHOLE(databases)                                                \
	"{\"format\": 1, \"bucket_id\": \"" ID "\", \"epoch\": 1, "     \
	"\"databases\": {" databases "}}"

static const struct catalog_entry live = {
	.page_size = 4096,
	.txid = 1,
	.time_ms = 1767323045678,
	.floor = 1,
};

static struct catalog *parsed(const char *text)
{
	struct catalog *c = NULL;

	if (catalog_parse(text, strlen(text), &c) < 0)
		fail_msg("%s: %s", text, error_message());
	return c;
}

static void assert_printed(const struct catalog *c, const char *text)
{
	AUTO(buf) struct buf printed = BUF_INIT(1 << 20);

	assert_int_equal(catalog_print(c, &printed), 0);
	assert_string_equal(printed.data, text);
}

static void assert_refused(const char *text, int rc, const char *why)
{
	struct catalog *c = NULL;

	assert_int_equal(catalog_parse(text, strlen(text), &c), rc);
	assert_null(c);
	if (!strstr(error_message(), why))
		fail_msg("'%s' does not say '%s'", error_message(), why);
}

static void an_id_is_random_and_known_by_its_form(void **state)
{
	char a[CATALOG_ID_SIZE], b[CATALOG_ID_SIZE];

	catalog_id_make(a);
	catalog_id_make(b);
	assert_true(catalog_id_valid(a));
	assert_true(catalog_id_valid(ID));
	assert_string_not_equal(a, b);
	assert_false(catalog_id_valid(""));
	assert_false(catalog_id_valid(ID "0"));
	assert_false(catalog_id_valid("00112233445566778899aabbccddeef"));
	assert_false(catalog_id_valid("00112233445566778899AABBCCDDEEFF"));
	assert_false(catalog_id_valid("00112233445566778899aabbccddeefg"));
}

static void the_bytes_are_these(void **state)
{
	static const char text[] =
		"{\n"
		" \"bucket_id\": \"" ID "\",\n"
		" \"databases\": {\n"
		"  \"a=20b\": {\n"
		"   \"floor\": \"0000000000000001\",\n"
		"   \"page_size\": 4096,\n"
		"   \"state\": \"dropped\",\n"
		"   \"time\": \"2026-01-02T03:04:06.000Z\",\n"
		"   \"txid\": \"00000000000000ff\"\n"
		"  },\n"
		"  \"z\": {\n"
		"   \"floor\": \"0000000000000001\",\n"
		"   \"page_size\": 65536,\n"
		"   \"state\": \"live\",\n"
		"   \"time\": \"2026-01-02T03:04:05.678Z\",\n"
		"   \"txid\": \"0000000000000001\"\n"
		"  }\n"
		" },\n"
		" \"epoch\": 1,\n"
		" \"format\": 1\n"
		"}\n";
	struct catalog_entry z = live, a = live;
	AUTO(catalog) struct catalog *c = NULL;

	z.page_size = 65536;
	z.floor = 0;
	a.dropped = true;
	a.txid = 255;
	a.time_ms = 1767323046000;
	assert_int_equal(catalog_new(ID, &c), 0);
	assert_int_equal(catalog_epoch(c), 1);
	assert_int_equal(catalog_note(c, "z", &z), 1);
	assert_int_equal(catalog_note(c, "a=20b", &a), 1);
	assert_printed(c, text);
}

static void what_is_printed_is_read_again(void **state)
{
	AUTO(buf) struct buf text = BUF_INIT(1 << 20);
	AUTO(catalog) struct catalog *c = NULL, *again = NULL;
	struct catalog_entry entry = live;

	assert_int_equal(catalog_new(ID, &c), 0);
	entry.page_size = 512;
	assert_int_equal(catalog_note(c, "dir/a=C3=A9", &entry), 1);
	assert_int_equal(catalog_print(c, &text), 0);
	assert_int_equal(catalog_parse(text.data, text.size, &again), 0);
	assert_string_equal(catalog_id(again), ID);
	assert_int_equal(catalog_count(again), 1);
	memset(&entry, 0xff, sizeof(entry));
	assert_true(catalog_find(again, "dir/a=C3=A9", &entry));
	assert_int_equal(entry.page_size, 512);
	assert_false(entry.dropped);
	assert_true(entry.txid == 1 && entry.floor == 1);
	assert_true(entry.time_ms == live.time_ms);
	assert_false(catalog_find(again, "dir", &entry));
	assert_printed(again, text.data);
}

static void only_what_is_new_is_a_change(void **state)
{
	AUTO(catalog) struct catalog *c = parsed(WHOLE(""));
	struct catalog_entry entry = live, found;

	entry.txid = 5;
	assert_int_equal(catalog_note(c, "a", &entry), 1);
	assert_int_equal(catalog_note(c, "a", &entry), 0);
	entry.txid = 6;
	assert_int_equal(catalog_note(c, "a", &entry), 0);
	entry.page_size = 8192;
	assert_int_equal(catalog_note(c, "a", &entry), 1);
	entry.dropped = true;
	entry.txid = 9;
	assert_int_equal(catalog_note(c, "a", &entry), 1);
	assert_true(catalog_find(c, "a", &found));
	assert_true(found.dropped && found.txid == 9);
	entry.dropped = false;
	entry.txid = 10;
	assert_int_equal(catalog_note(c, "a", &entry), 1);
	assert_true(catalog_find(c, "a", &found));
	assert_true(!found.dropped && found.txid == 10);
}

static void what_is_older_than_the_line_does_not_change_it(void **state)
{
	AUTO(catalog) struct catalog *c = parsed(WHOLE(""));
	struct catalog_entry entry = live, found;

	entry.txid = 9;
	entry.dropped = true;
	assert_int_equal(catalog_note(c, "a", &entry), 1);
	entry.txid = 8;
	entry.dropped = false;
	assert_int_equal(catalog_note(c, "a", &entry), 0);
	assert_true(catalog_find(c, "a", &found));
	assert_true(found.dropped);
}

static void what_would_not_be_read_is_not_noted(void **state)
{
	AUTO(catalog) struct catalog *c = parsed(WHOLE(""));

	/* Four hex digits are a level's name; a blank is escaped. */
	assert_int_equal(catalog_note(c, "db10", &live), -EINVAL);
	assert_int_equal(catalog_note(c, "a b", &live), -EINVAL);
	assert_int_equal(catalog_note(c, "=64b10", &live), 1);
	assert_int_equal(catalog_count(c), 1);
}

static void a_floor_stays_through_a_change(void **state)
{
	AUTO(catalog) struct catalog *c = parsed(WHOLE(
		"\"a\": {\"state\": \"live\", \"page_size\": 4096, "
		"\"txid\": \"0000000000000001\", \"floor\": "
		"\"0000000000000007\", \"time\": \"2026-01-02T03:04:05Z\"}"));
	struct catalog_entry entry = live;

	entry.txid = 9;
	entry.dropped = true;
	assert_int_equal(catalog_note(c, "a", &entry), 1);
	assert_true(catalog_find(c, "a", &entry));
	assert_true(entry.floor == 7 && entry.dropped);
}

static void an_epoch_rises_and_never_falls(void **state)
{
	AUTO(catalog) struct catalog *c = parsed(WHOLE("\"a\": " LINE));
	AUTO(catalog) struct catalog *again = NULL;
	AUTO(buf) struct buf text = BUF_INIT(1 << 20);
	struct catalog_entry entry;

	assert_int_equal(catalog_set_epoch(c, 1), 0);
	assert_int_equal(catalog_set_epoch(c, 7), 1);
	assert_int_equal(catalog_set_epoch(c, 7), 0);
	assert_int_equal(catalog_set_epoch(c, 6), -EINVAL);
	assert_non_null(strstr(error_message(), "epoch 7"));
	assert_int_equal(catalog_set_epoch(c, 0), -EINVAL);
	assert_int_equal(catalog_set_epoch(c, UINT64_C(1) << 32), -EINVAL);
	assert_int_equal(catalog_epoch(c), 7);
	assert_int_equal(catalog_set_epoch(c, UINT32_MAX), 1);

	assert_int_equal(catalog_print(c, &text), 0);
	again = parsed(text.data);
	assert_int_equal(catalog_epoch(again), UINT32_MAX);
	assert_true(catalog_find(again, "a", &entry));
}

static void members_that_we_do_not_know_are_kept(void **state)
{
	AUTO(catalog) struct catalog *c = parsed(
		"{\"format\": 1, \"bucket_id\": \"" ID "\", \"epoch\": 4, "
		"\"later\": [1, {\"x\": null}], \"databases\": {\"a\": "
		"{\"state\": \"live\", \"page_size\": 4096, \"kept\": 1.5, "
		"\"txid\": \"0000000000000001\", \"floor\": "
		"\"0000000000000001\", \"time\": \"2026-01-02T03:04:05Z\"}}}");
	struct catalog_entry entry = live;
	AUTO(buf) struct buf text = BUF_INIT(1 << 20);

	entry.txid = 2;
	entry.dropped = true;
	assert_int_equal(catalog_note(c, "a", &entry), 1);
	assert_int_equal(catalog_print(c, &text), 0);
	assert_non_null(strstr(text.data, "\"later\""));
	assert_non_null(strstr(text.data, "\"kept\": 1.5"));
	assert_non_null(strstr(text.data, "\"epoch\": 4"));
	assert_int_equal(catalog_epoch(c), 4);
}

static void a_newer_format_is_refused_whatever_else_is_there(void **state)
{
	assert_refused("{\"format\": 2}", -EOPNOTSUPP,
		       "use a newer litebucket");
	assert_refused("{\"format\": 99, \"databases\": 7}", -EOPNOTSUPP,
		       "format 99");
}

static void what_is_no_catalog_is_refused(void **state)
{
	assert_refused("", -ERR_CORRUPT, "damaged");
	assert_refused("[]", -ERR_CORRUPT, "format");
	assert_refused("{", -ERR_CORRUPT, "damaged");
	assert_refused(WHOLE("") "x", -ERR_CORRUPT, "damaged");
	assert_refused("{\"format\": \"1\"}", -ERR_CORRUPT, "format");
	assert_refused("{\"format\": 0}", -ERR_CORRUPT, "format");
	assert_refused("{\"format\": 1}", -ERR_CORRUPT, "bucket_id");
	assert_refused("{\"format\": 1, \"bucket_id\": \"x\"}", -ERR_CORRUPT,
		       "bucket_id");
	assert_refused("{\"format\": 1, \"bucket_id\": \"" ID "\"}",
		       -ERR_CORRUPT, "epoch");
	assert_refused("{\"format\": 1, \"bucket_id\": \"" ID "\", "
		       "\"epoch\": 4294967296, \"databases\": {}}",
		       -ERR_CORRUPT, "epoch");
	assert_refused("{\"format\": 1, \"bucket_id\": \"" ID "\", "
		       "\"epoch\": 1, \"databases\": []}",
		       -ERR_CORRUPT, "databases");
}

static void a_line_that_makes_no_sense_is_refused(void **state)
{
	static const struct {
		const char *from, *to, *why;
	} cases[] = {
		{ "\"live\"", "\"dead\"", "state" },
		{ "\"live\"", "true", "state" },
		{ "4096", "4095", "page_size" },
		{ "4096", "131072", "page_size" },
		{ "4096", "-4096", "page_size" },
		{ "\"0000000000000001\"", "\"1\"", "txid" },
		{ "\"0000000000000001\"", "\"0000000000000000\"", "txid" },
		{ "\"0000000000000001\"", "1", "txid" },
		{ "2026-01-02T03:04:05.678Z", "yesterday", "time" },
		{ "\"floor\"", "\"flour\"", "floor" },
		{ "\"a\"", "\"../a\"", "damaged" },
		{ "\"a\"", "\"\"", "damaged" },
		{ "\"a\"", "\"a b\"", "damaged" },
		{ "\"a\"", "\"a=c3\"", "damaged" },
		{ "\"a\"", "\"a\": " LINE ", \"a\"", "damaged" },
	};
	const char *whole = WHOLE("\"a\": " LINE);

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *at = strstr(whole, cases[i].from);
		char text[1024];

		assert_non_null(at);
		(void)snprintf(text, sizeof(text), "%.*s%s%s",
			       (int)(at - whole), whole, cases[i].to,
			       at + strlen(cases[i].from));
		assert_refused(text, -ERR_CORRUPT, cases[i].why);
	}
}

static void what_is_absurdly_large_is_refused(void **state)
{
	size_t size = CATALOG_SIZE_MAX + 1;
	AUTO(mem) char *text = malloc(size);
	struct catalog *c = NULL;

	assert_non_null(text);
	memset(text, ' ', size);
	memcpy(text, WHOLE(""), strlen(WHOLE("")));
	assert_int_equal(catalog_parse(text, size, &c), -EFBIG);
	assert_int_equal(catalog_parse(text, size - 1, &c), 0);
	catalog_free(c);
}

/* Nesting that would overflow a stack is jansson's to refuse; see that it does. */
static void what_is_absurdly_deep_is_refused(void **state)
{
	enum { DEPTH = 1000000 };
	AUTO(mem) char *text = malloc(DEPTH);
	struct catalog *c = NULL;

	assert_non_null(text);
	memset(text, '[', DEPTH);
	assert_int_equal(catalog_parse(text, DEPTH, &c), -ERR_CORRUPT);
}

static int count_one(const char *db, const struct catalog_entry *entry,
		     void *arg)
{
	char *seen = arg;

	strcat(seen, db);
	return strcmp(db, "c") == 0 ? 7 : 0;
}

static void databases_come_in_order_and_until_it_is_enough(void **state)
{
	AUTO(catalog) struct catalog *c = parsed(WHOLE(
		"\"d\": " LINE ", \"b\": " LINE ", \"c\": " LINE
		", \"a\": " LINE));
	char seen[8] = "";

	assert_int_equal(catalog_each(c, count_one, seen), 7);
	assert_string_equal(seen, "abc");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_id_is_random_and_known_by_its_form),
		cmocka_unit_test(the_bytes_are_these),
		cmocka_unit_test(what_is_printed_is_read_again),
		cmocka_unit_test(only_what_is_new_is_a_change),
		cmocka_unit_test(what_is_older_than_the_line_does_not_change_it),
		cmocka_unit_test(what_would_not_be_read_is_not_noted),
		cmocka_unit_test(a_floor_stays_through_a_change),
		cmocka_unit_test(an_epoch_rises_and_never_falls),
		cmocka_unit_test(members_that_we_do_not_know_are_kept),
		cmocka_unit_test(a_newer_format_is_refused_whatever_else_is_there),
		cmocka_unit_test(what_is_no_catalog_is_refused),
		cmocka_unit_test(a_line_that_makes_no_sense_is_refused),
		cmocka_unit_test(what_is_absurdly_large_is_refused),
		cmocka_unit_test(what_is_absurdly_deep_is_refused),
		cmocka_unit_test(databases_come_in_order_and_until_it_is_enough),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
