#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "sqlite/wal.h"

enum { PAGE = 512, FRAME = PAGE + WAL_FRAME_HEADER_SIZE };

/* A log under construction, by the format's text and not by wal.c. */
struct log {
	uint8_t bytes[WAL_HEADER_SIZE + 8 * FRAME];
	size_t size;
	bool big;
	uint32_t sum[2];
};

static void add_up(struct log *l, const uint8_t *data, size_t size)
{
	for (size_t i = 0; i < size; i += 8) {
		uint32_t x = l->big ? get_be32(data + i) : get_le32(data + i);
		uint32_t y = l->big ? get_be32(data + i + 4)
				    : get_le32(data + i + 4);

		l->sum[0] += x + l->sum[1];
		l->sum[1] += y + l->sum[0];
	}
}

static void begin(struct log *l, bool big)
{
	memset(l, 0, sizeof(*l));
	l->big = big;
	put_be32(l->bytes, 0x377f0682 | big);
	put_be32(l->bytes + 4, 3007000);
	put_be32(l->bytes + 8, PAGE);
	put_be32(l->bytes + 16, 0x11112222);
	put_be32(l->bytes + 20, 0x33334444);
	add_up(l, l->bytes, 24);
	put_be32(l->bytes + 24, l->sum[0]);
	put_be32(l->bytes + 28, l->sum[1]);
	l->size = WAL_HEADER_SIZE;
}

static void add(struct log *l, uint32_t pgno, uint32_t commit)
{
	uint8_t *frame = l->bytes + l->size;

	put_be32(frame, pgno);
	put_be32(frame + 4, commit);
	memcpy(frame + 8, l->bytes + 16, 8);
	memset(frame + WAL_FRAME_HEADER_SIZE, (int)pgno, PAGE);
	add_up(l, frame, 8);
	add_up(l, frame + WAL_FRAME_HEADER_SIZE, PAGE);
	put_be32(frame + 16, l->sum[0]);
	put_be32(frame + 20, l->sum[1]);
	l->size += FRAME;
}

static int file_of(const struct log *l, size_t size)
{
	int fd = memfd_create("wal", MFD_CLOEXEC);

	assert_int_equal(pwrite(fd, l->bytes, size, 0), size);
	return fd;
}

/* Frames 1, 2, 3 (commit of 3 pages), 2 (commit), 1 (none). */
static void make(struct log *l, bool big)
{
	begin(l, big);
	add(l, 1, 0);
	add(l, 2, 0);
	add(l, 3, 3);
	add(l, 2, 3);
	add(l, 1, 0);
}

static void commits_are_passed_in_both_byte_orders(void **state)
{
	static const uint32_t expected[] = { 1, 2, 3, 2 };

	for (int big = 0; big < 2; big++) {
		struct log l;
		struct wal_cursor c;
		AUTO(mem) uint32_t *pgnos = NULL;

		make(&l, big);
		AUTO(fd) int fd = file_of(&l, l.size);
		assert_int_equal(wal_begin(fd, &c), 1);
		assert_int_equal(c.page_size, PAGE);
		assert_int_equal(c.big_endian, big);
		assert_int_equal(wal_check(fd, &c), 1);
		assert_int_equal(wal_advance(fd, &c, &pgnos), 4);
		assert_memory_equal(pgnos, expected, sizeof(expected));
		assert_int_equal(c.frames, 4);
		assert_int_equal(c.commit, 3);
		assert_int_equal(wal_cursor_offset(&c),
				 WAL_HEADER_SIZE + 4 * FRAME);
		assert_int_equal(wal_check(fd, &c), 1);
	}
}

static void a_later_commit_goes_on_where_the_first_ended(void **state)
{
	AUTO(mem) uint32_t *pgnos = NULL, *more = NULL;
	struct wal_cursor c;
	struct log l;

	make(&l, false);
	AUTO(fd) int fd = file_of(&l, l.size);
	assert_int_equal(wal_begin(fd, &c), 1);
	assert_int_equal(wal_advance(fd, &c, &pgnos), 4);
	assert_int_equal(wal_advance(fd, &c, &more), 0);
	assert_null(more);
	add(&l, 4, 4);
	assert_int_equal(pwrite(fd, l.bytes, l.size, 0), l.size);
	assert_int_equal(wal_advance(fd, &c, &more), 2);
	assert_int_equal(more[1], 4);
	assert_int_equal(c.commit, 4);
}

static void the_chain_ends_before_what_is_damaged(void **state)
{
	static const struct {
		size_t at; /* this byte is another */
		int64_t passed;
	} cases[] = {
		{ WAL_HEADER_SIZE + 3, 0 },		  /* page number */
		{ WAL_HEADER_SIZE + 3 * FRAME + 8, 3 },	  /* salt-1 */
		{ WAL_HEADER_SIZE + 3 * FRAME + 15, 3 },  /* salt-2 */
		{ WAL_HEADER_SIZE + 3 * FRAME + 100, 3 }, /* page */
		{ WAL_HEADER_SIZE + 3 * FRAME + 23, 3 },  /* checksum */
		{ WAL_HEADER_SIZE + 2 * FRAME + 7, 0 },	  /* the commit size */
		{ WAL_HEADER_SIZE + 4 * FRAME + 30, 4 },  /* not committed */
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		AUTO(mem) uint32_t *pgnos = NULL;
		struct wal_cursor c;
		struct log l;

		make(&l, i % 2);
		l.bytes[cases[i].at] ^= 4;
		AUTO(fd) int fd = file_of(&l, l.size);
		assert_int_equal(wal_begin(fd, &c), 1);
		assert_int_equal(wal_advance(fd, &c, &pgnos), cases[i].passed);
	}
}

static void a_torn_file_holds_the_commits_before_the_tear(void **state)
{
	static const struct {
		size_t size;
		int begun;
		int64_t passed;
	} cases[] = {
		{ 0, 0, 0 },
		{ 31, 0, 0 },
		{ 32, 1, 0 },
		{ 32 + 3 * FRAME - 1, 1, 0 },
		{ 32 + 3 * FRAME, 1, 3 },
		{ 32 + 4 * FRAME - PAGE, 1, 3 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		AUTO(mem) uint32_t *pgnos = NULL;
		struct wal_cursor c;
		struct log l;

		make(&l, false);
		AUTO(fd) int fd = file_of(&l, cases[i].size);
		assert_int_equal(wal_begin(fd, &c), cases[i].begun);
		if (cases[i].begun)
			assert_int_equal(wal_advance(fd, &c, &pgnos),
					 cases[i].passed);
	}
}

static void a_header_with_any_other_byte_is_none(void **state)
{
	for (size_t at = 0; at < WAL_HEADER_SIZE; at++) {
		struct wal_cursor c;
		struct log l;

		make(&l, false);
		l.bytes[at] ^= 0x40;
		AUTO(fd) int fd = file_of(&l, l.size);
		assert_int_equal(wal_begin(fd, &c), 0);
	}
}

static void frames_that_were_written_over_are_noticed(void **state)
{
	AUTO(mem) uint32_t *pgnos = NULL;
	struct wal_cursor c;
	struct log l;

	make(&l, false);
	AUTO(fd) int fd = file_of(&l, l.size);
	assert_int_equal(wal_begin(fd, &c), 1);
	assert_int_equal(wal_advance(fd, &c, &pgnos), 4);
	begin(&l, false);
	for (int i = 0; i < 4; i++)
		add(&l, 5, 5);
	assert_int_equal(pwrite(fd, l.bytes, l.size, 0), l.size);
	assert_int_equal(wal_check(fd, &c), 0);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(wal_check(fd, &c), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(commits_are_passed_in_both_byte_orders),
		cmocka_unit_test(a_later_commit_goes_on_where_the_first_ended),
		cmocka_unit_test(the_chain_ends_before_what_is_damaged),
		cmocka_unit_test(a_torn_file_holds_the_commits_before_the_tear),
		cmocka_unit_test(a_header_with_any_other_byte_is_none),
		cmocka_unit_test(frames_that_were_written_over_are_noticed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
