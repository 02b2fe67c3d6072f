/* lock.json: what is written is read, and what is strange is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "bucket/lease_record.h"

static const char whole[] = "{\n"
			    " \"acquired_at\": \"2026-01-02T03:04:05.678Z\",\n"
			    " \"clean\": false,\n"
			    " \"expires_at\": \"2026-01-02T03:04:15.678Z\",\n"
			    " \"format\": 1,\n"
			    " \"generation\": 7,\n"
			    " \"holder\": \"9f8e7d6c5b4a3921\",\n"
			    " \"owner\": \"host-a\",\n"
			    " \"released\": true,\n"
			    " \"serial\": 42,\n"
			    " \"url\": \"http://host-a:8080\"\n"
			    "}\n";

static void what_is_printed_is_read(void **state)
{
	AUTO(buf) struct buf printed = BUF_INIT(LEASE_RECORD_MAX);
	struct lease_record r;

	assert_int_equal(lease_record_parse(whole, strlen(whole), &r), 0);
	assert_int_equal(r.generation, 7);
	assert_int_equal(r.serial, 42);
	assert_string_equal(r.holder, "9f8e7d6c5b4a3921");
	assert_string_equal(r.owner, "host-a");
	assert_string_equal(r.url, "http://host-a:8080");
	assert_int_equal(r.acquired_ms, 1767323045678);
	assert_int_equal(r.expires_ms, 1767323055678);
	assert_true(r.released);
	assert_false(r.clean);
	assert_int_equal(lease_record_print(&r, &printed), 0);
	assert_int_equal(printed.size, strlen(whole));
	assert_memory_equal(printed.data, whole, printed.size);
}

/* The text with this part replaced. */
static void replaced(const char *part, const char *by, char ret[1024])
{
	const char *at = strstr(whole, part);

	assert_non_null(at);
	snprintf(ret, 1024, "%.*s%s%s", (int)(at - whole), whole, by,
		 at + strlen(part));
}

static void assert_refused(const char *text, int rc, const char *why)
{
	struct lease_record r = { .serial = 99 };

	assert_int_equal(lease_record_parse(text, strlen(text), &r), rc);
	assert_int_equal(r.serial, 99);
	if (!strstr(error_message(), why) ||
	    !strstr(error_message(), LEASE_KEY))
		fail_msg("'%s' does not say '%s'", error_message(), why);
}

static void what_makes_no_sense_is_refused(void **state)
{
	static const struct {
		const char *part, *by, *why;
	} changes[] = {
		{ "\"generation\": 7", "\"generation\": -1", "generation" },
		{ "\"generation\": 7", "\"generation\": 4294967296",
		  "generation" },
		{ "\"generation\": 7", "\"generation\": \"7\"", "generation" },
		{ "\"serial\": 42", "\"serial\": 1.5", "serial" },
		{ "9f8e7d6c5b4a3921", "9f8e7d6c5b4a392", "holder" },
		{ "9f8e7d6c5b4a3921", "9f8e7d6c5b4a392X", "holder" },
		{ "9f8e7d6c5b4a3921", "9f8e7d6c5b4a39211", "holder" },
		{ "\"host-a\"", "null", "owner" },
		{ "\"host-a\"", "\"a\\u001b[2Jb\"", "owner" },
		{ "\"http://host-a:8080\"", "8080", "url" },
		{ "2026-01-02T03:04:05.678Z", "yesterday", "acquired_at" },
		{ "2026-01-02T03:04:15.678Z", "", "expires_at" },
		{ "\"released\": true", "\"released\": 1", "released" },
		{ "\"clean\": false", "\"dirty\": false", "clean" },
		{ "\"format\": 1", "\"format\": 0", "format" },
		{ "\"format\": 1", "\"form\": 1", "format" },
		{ "\"clean\": false", "\"serial\": 1", "duplicate" },
		{ "{", "[", "damaged" },
	};
	char text[1024];

	for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
		replaced(changes[i].part, changes[i].by, text);
		assert_refused(text, -ERR_CORRUPT, changes[i].why);
	}
	assert_refused("", -ERR_CORRUPT, "damaged");
	assert_refused("[]", -ERR_CORRUPT, "format");
}

static void a_newer_format_is_left_to_newer_programs(void **state)
{
	assert_refused("{\"format\": 2}", -EOPNOTSUPP, "newer litebucket");
}

static void what_is_not_known_is_no_harm(void **state)
{
	struct lease_record r;
	char text[1024];

	replaced("\"clean\": false", "\"clean\": false, \"more\": [1]", text);
	assert_int_equal(lease_record_parse(text, strlen(text), &r), 0);
}

static void a_longer_one_is_not_read(void **state)
{
	static char text[LEASE_RECORD_MAX + 2];

	memset(text, ' ', sizeof(text) - 1);
	memcpy(text, whole, strlen(whole));
	assert_refused(text, -ERR_CORRUPT, "so many bytes");
}

static void holders_differ(void **state)
{
	char a[LEASE_HOLDER_SIZE], b[LEASE_HOLDER_SIZE];

	lease_holder_make(a);
	lease_holder_make(b);
	assert_int_equal(strlen(a), LEASE_HOLDER_SIZE - 1);
	assert_string_not_equal(a, b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_printed_is_read),
		cmocka_unit_test(what_makes_no_sense_is_refused),
		cmocka_unit_test(a_newer_format_is_left_to_newer_programs),
		cmocka_unit_test(what_is_not_known_is_no_harm),
		cmocka_unit_test(a_longer_one_is_not_read),
		cmocka_unit_test(holders_differ),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
