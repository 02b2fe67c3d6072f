#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/io.h"
#include "capture/position.h"

struct place {
	char dir[40];
	int dirfd;
};

static const struct position sample = {
	.txid = UINT64_C(0xfedcba9876543210),
	.dbsum = UINT64_MAX,
	.page_size = 65536,
	.commit = UINT32_MAX,
	.timestamp_ms = INT64_C(1700000000123),
	.dropped = true,
	.clean = 5,
	.main_size = UINT64_MAX,
	.wal_size = 7,
	.main_mtime_ns = -3, /* before 1970 */
	.main_ctime_ns = 9,
	.wal_mtime_ns = INT64_MAX,
	.boot = "6a7b3c1e-0d4f-4b4e-9a53-0a1b2c3d4e5f",
	.change_counter = UINT32_MAX,
	.wal_salt = { UINT32_MAX, 1 },
	.wal_end = UINT64_MAX,
};

static int set_up(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	(void)snprintf(p->dir, sizeof(p->dir), "/tmp/position.XXXXXX");
	assert_non_null(mkdtemp(p->dir));
	p->dirfd = open(p->dir, O_RDONLY | O_DIRECTORY);
	*state = p;
	return 0;
}

static int tear_down(void **state)
{
	struct place *p = *state;

	(void)unlinkat(p->dirfd, "position", 0);
	(void)close(p->dirfd);
	(void)rmdir(p->dir);
	free(p);
	return 0;
}

static void what_is_stored_is_loaded(void **state)
{
	struct place *p = *state;
	struct position back;

	assert_int_equal(position_load(p->dirfd, "position", &back), -ENOENT);
	assert_int_equal(position_store(p->dirfd, "position", &sample), 0);
	memset(&back, 0xee, sizeof(back));
	assert_int_equal(position_load(p->dirfd, "position", &back), 0);
	assert_int_equal(back.txid, sample.txid);
	assert_int_equal(back.dbsum, sample.dbsum);
	assert_int_equal(back.page_size, sample.page_size);
	assert_int_equal(back.commit, sample.commit);
	assert_int_equal(back.timestamp_ms, sample.timestamp_ms);
	assert_int_equal(back.dropped, sample.dropped);
	assert_int_equal(back.clean, sample.clean);
	assert_int_equal(back.main_size, sample.main_size);
	assert_int_equal(back.wal_size, sample.wal_size);
	assert_int_equal(back.main_mtime_ns, sample.main_mtime_ns);
	assert_int_equal(back.main_ctime_ns, sample.main_ctime_ns);
	assert_int_equal(back.wal_mtime_ns, sample.wal_mtime_ns);
	assert_string_equal(back.boot, sample.boot);
	assert_int_equal(back.change_counter, sample.change_counter);
	assert_int_equal(back.wal_salt[0], sample.wal_salt[0]);
	assert_int_equal(back.wal_salt[1], sample.wal_salt[1]);
	assert_int_equal(back.wal_end, sample.wal_end);
}

static void one_of_an_earlier_version_does_not_know_where_it_was(void **state)
{
	static const char text[] = "format=1\ntxid=000000000000002a\n"
				   "checksum=00000000000000ff\n"
				   "page-size=4096\ncommit=3\n"
				   "timestamp-ms=1700000000123\ndropped=0\n"
				   "clean=0000000000000005\nmain-size=12288\n"
				   "main-mtime-ns=1\nmain-ctime-ns=2\n"
				   "wal-size=0\nwal-mtime-ns=0\n";
	struct place *p = *state;
	struct position back;

	assert_int_equal(io_write_atomically(p->dirfd, "position", text,
					     sizeof(text) - 1),
			 0);
	memset(&back, 0xee, sizeof(back));
	assert_int_equal(position_load(p->dirfd, "position", &back), 0);
	assert_int_equal(back.txid, 42);
	assert_int_equal(back.clean, 5);
	assert_string_equal(back.boot, "");
	assert_int_equal(back.change_counter, 0);
	assert_int_equal(back.wal_end, 0);
}

/* The sample's text with the first from replaced by to; its load's sentence. */
static const char *load_changed(struct place *p, const char *from,
				const char *to)
{
	AUTO(buf) struct buf text = BUF_INIT(4096);
	AUTO(buf) struct buf changed = BUF_INIT(8192);
	struct position back;
	char *at;

	assert_int_equal(position_store(p->dirfd, "position", &sample), 0);
	assert_int_equal(io_read_file(p->dirfd, "position", &text), 0);
	at = strstr(text.data, from);
	assert_non_null(at);
	*at = '\0';
	assert_int_equal(buf_printf(&changed, "%s%s%s", text.data, to,
				    at + strlen(from)),
			 0);
	assert_int_equal(io_write_atomically(p->dirfd, "position", changed.data,
					     changed.size),
			 0);
	assert_int_equal(position_load(p->dirfd, "position", &back),
			 -ERR_CORRUPT);
	return error_message();
}

static void what_is_not_a_position_is_refused_with_a_sentence(void **state)
{
	static const struct {
		const char *from, *to, *says;
	} cases[] = {
		{ "format=1", "format=2", "newer litebucket" },
		{ "format=1\ntxid", "format=2\nother", "newer litebucket" },
		{ "format=1", "", "'format'" },
		{ "txid=f", "txid=g", "'txid'" },
		{ "txid=", "no=", "'txid'" },
		{ "page-size=65536", "page-size=", "'page-size'" },
		{ "page-size=65536", "page-size=5000000000", "'page-size'" },
		{ "page-size=65536", "page-size=1000", "'page-size'" },
		{ "commit=4294967295", "commit=4294967296", "'commit'" },
		{ "wal-size=7", "wal-size=7x", "'wal-size'" },
		{ "wal-size=7", "wal-size=99999999999999999999", "'wal-size'" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *message =
			load_changed(*state, cases[i].from, cases[i].to);

		if (!strstr(message, cases[i].says))
			fail_msg("'%s' for '%s'", message, cases[i].to);
	}
}

static void an_empty_or_endless_file_is_refused(void **state)
{
	struct place *p = *state;
	static char much[5000];
	struct position back;

	memset(much, 'x', sizeof(much));
	assert_int_equal(io_write_atomically(p->dirfd, "position", "", 0), 0);
	assert_int_equal(position_load(p->dirfd, "position", &back),
			 -ERR_CORRUPT);
	assert_int_equal(io_write_atomically(p->dirfd, "position", much,
					     sizeof(much)),
			 0);
	assert_true(position_load(p->dirfd, "position", &back) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_is_stored_is_loaded,
						set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			one_of_an_earlier_version_does_not_know_where_it_was,
			set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			what_is_not_a_position_is_refused_with_a_sentence,
			set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			an_empty_or_endless_file_is_refused, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
