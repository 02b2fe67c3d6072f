/*
 * The page that is never stored.  SQLite locks bytes from 1 GiB on and leaves
 * their page alone; no file holds it, and a restore leaves it zero.  Databases
 * that reach so far are here put together without their first gigabyte: a
 * sparse file, and the state that applying it would have left.
 */
#include <fcntl.h>
#include <sys/mman.h>

#include "ltx/crc64.h"
#include "restorer/apply.h"
#include "restorer_world.h"

enum {
	SIZE = LTX_MAX_PAGE_SIZE,
	LOCK_PAGE = 16385, /* of pages of 64 KiB */
};

/* A database of commit pages, all of them zero, as of transaction 15. */
static struct apply *apply_at(int fd, uint32_t commit)
{
	struct apply *a;

	assert_int_equal(apply_new(fd, &a), 0);
	a->page_size = SIZE;
	a->commit = commit;
	a->last.max_txid = 15;
	a->sums_capacity = commit;
	a->sums = calloc(commit, sizeof(*a->sums));
	assert_non_null(a->sums);
	return a;
}

/* Delta 16 of these pages (0 ends), which ends with commit. */
static int apply_pages(struct apply *a, uint32_t commit, uint64_t post_dbsum,
		       const uint32_t *pages)
{
	static char page[SIZE];
	AUTO(ltx_encoder) struct ltx_encoder *enc = NULL;
	AUTO(buf) struct buf file = BUF_INIT(4 << 20);
	struct buf_sink sink;
	struct mem_source source;
	const struct ltx_header h = {
		.flags = LTX_NO_CHECKSUM,
		.page_size = SIZE,
		.commit = commit,
		.min_txid = a->last.max_txid + 1,
		.max_txid = a->last.max_txid + 1,
		.post_dbsum = post_dbsum,
	};

	buf_sink_init(&sink, &file);
	assert_int_equal(ltx_encoder_new(&sink.sink, &h, &enc), 0);
	memset(page, 0x41, sizeof(page));
	for (; *pages; pages++)
		assert_int_equal(ltx_encoder_page(enc, *pages, page), 0);
	assert_int_equal(ltx_encoder_finish(enc, 0), 0);
	mem_source_init(&source, file.data, file.size);
	return apply_file(a, &source.source);
}

static uint64_t sum_of(uint32_t pgno)
{
	static char page[SIZE];

	memset(page, 0x41, sizeof(page));
	return ltx_dbsum_page(pgno, page, SIZE);
}

static void expect_page(int fd, uint32_t pgno, char byte)
{
	static char page[SIZE], expected[SIZE];

	memset(expected, byte, sizeof(expected));
	assert_int_equal(io_pread(fd, page, SIZE, (uint64_t)(pgno - 1) * SIZE),
			 SIZE);
	assert_memory_equal(page, expected, SIZE);
}

static int new_file(void)
{
	int fd = memfd_create("restored", MFD_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

/* What superfly/ltx makes of such a database. */
static void a_delta_across_the_lock_page_leaves_it_zero(void **state)
{
	AUTO(fd) int fd = new_file();
	AUTO(apply) struct apply *a = apply_at(fd, 16383);
	AUTO(buf) struct buf file = BUF_INIT(1 << 20);
	struct mem_source source;

	(void)state;
	world_read(FIXTURES "/ltx/nock-lockpage-65536.ltx", &file);
	mem_source_init(&source, file.data, file.size);
	assert_int_equal(apply_file(a, &source.source), 0);
	assert_int_equal(apply_finish(a), 0);
	assert_int_equal(a->commit, 16386);
	assert_true(a->dbsum == sum_of(16384) + sum_of(16386));
	assert_int_equal(io_size(fd), INT64_C(16386) * SIZE);
	expect_page(fd, 16383, 0);
	expect_page(fd, 16384, 0x41);
	expect_page(fd, LOCK_PAGE, 0);
	expect_page(fd, 16386, 0x41);
}

static void a_database_may_end_with_the_lock_page(void **state)
{
	static const uint32_t first[] = { 16384, 0 };
	static const uint32_t second[] = { 16386, 16387, 0 };
	AUTO(fd) int fd = new_file();
	AUTO(apply) struct apply *a = apply_at(fd, 16383);

	(void)state;
	assert_int_equal(apply_pages(a, LOCK_PAGE, sum_of(16384), first), 0);
	assert_true(a->proven);
	assert_int_equal(a->commit, LOCK_PAGE);
	assert_int_equal(apply_pages(a, 16387, sum_of(16384) + sum_of(16386) +
						       sum_of(16387),
				     second), 0);
	assert_int_equal(apply_finish(a), 0);
	assert_int_equal(io_size(fd), INT64_C(16387) * SIZE);
	expect_page(fd, LOCK_PAGE, 0);
	expect_page(fd, 16387, 0x41);
}

static void the_pages_beside_the_lock_page_must_be_there(void **state)
{
	static const uint32_t before[] = { 16386, 0 };
	static const uint32_t after[] = { 16384, 16387, 0 };
	static const uint32_t neither[] = { 0 };
	static const uint32_t *const pages[] = { before, after, neither };
	static const char *const says[] = { "page 16384 is missing",
					    "page 16386 is missing",
					    "page 16384 is missing" };

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		AUTO(fd) int fd = new_file();
		AUTO(apply) struct apply *a = apply_at(fd, 16383);

		assert_int_equal(apply_pages(a, 16387, 0, pages[i]),
				 -ERR_CORRUPT);
		world_says(says[i]);
	}
}

static void shrinking_below_the_lock_page_forgets_what_was_above(void **state)
{
	static const uint32_t grow[] = { 16384, 16386, 0 };
	static const uint32_t shrink[] = { 1, 0 };
	AUTO(fd) int fd = new_file();
	AUTO(apply) struct apply *a = apply_at(fd, 16383);

	(void)state;
	assert_int_equal(apply_pages(a, 16386, 0, grow), 0);
	assert_int_equal(apply_pages(a, 16384, sum_of(1) + sum_of(16384),
				     shrink), 0);
	assert_true(a->proven);
	assert_int_equal(apply_pages(a, 16386, sum_of(1) + sum_of(16384) +
						       sum_of(16386), grow),
			 0);
	assert_int_equal(apply_finish(a), 0);
	expect_page(fd, LOCK_PAGE, 0);
}

static void a_file_that_begins_too_late_is_a_gap(void **state)
{
	static const uint32_t pages[] = { 1, 0 };
	AUTO(fd) int fd = new_file();
	AUTO(apply) struct apply *a = apply_at(fd, 4);
	AUTO(apply) struct apply *empty = NULL;
	AUTO(buf) struct buf file = BUF_INIT(1 << 20);
	struct mem_source source;

	(void)state;
	world_read(FIXTURES "/ltx/nock-lockpage-65536.ltx", &file);
	mem_source_init(&source, file.data, file.size);
	assert_int_equal(apply_new(fd, &empty), 0);
	assert_int_equal(apply_file(empty, &source.source), -ERR_GAP);
	world_says("it begins at transaction 0000000000000010");
	assert_int_equal(apply_pages(a, 4, 0, pages), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_delta_across_the_lock_page_leaves_it_zero),
		cmocka_unit_test(a_database_may_end_with_the_lock_page),
		cmocka_unit_test(the_pages_beside_the_lock_page_must_be_there),
		cmocka_unit_test(
			shrinking_below_the_lock_page_forgets_what_was_above),
		cmocka_unit_test(a_file_that_begins_too_late_is_a_gap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
