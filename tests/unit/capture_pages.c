#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "capture/pages.h"

struct place {
	char dir[32];
	int dirfd;
};

static int set_up(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	(void)snprintf(p->dir, sizeof(p->dir), "/tmp/pages.XXXXXX");
	assert_non_null(mkdtemp(p->dir));
	p->dirfd = open(p->dir, O_RDONLY | O_DIRECTORY);
	*state = p;
	return 0;
}

static int tear_down(void **state)
{
	struct place *p = *state;

	(void)unlinkat(p->dirfd, "pages", 0);
	(void)close(p->dirfd);
	(void)rmdir(p->dir);
	free(p);
	return 0;
}

static struct pages *open_pages(struct place *p)
{
	struct pages *pages;

	assert_int_equal(pages_open(p->dirfd, "pages", &pages), 0);
	return pages;
}

static void entries_are_unknown_until_extended_and_stay(void **state)
{
	static uint64_t hashes[2000];
	struct pages *pages = open_pages(*state);

	for (uint64_t i = 0; i < 2000; i++)
		hashes[i] = i * i + 1;
	assert_int_equal(pages_count(pages), 0);
	assert_int_equal(pages_get(pages, 1), 0);
	assert_int_equal(pages_write(pages, 1, hashes, 2000), 0);
	assert_int_equal(pages_get(pages, 1), 0);
	assert_int_equal(pages_extend(pages), 0);
	assert_int_equal(pages_count(pages), 2000);
	pages_free(pages);
	pages = open_pages(*state);
	for (uint32_t i = 0; i < 2000; i++)
		assert_int_equal(pages_get(pages, i + 1), hashes[i]);
	assert_int_equal(pages_get(pages, 2001), 0);
	assert_int_equal(pages_sum(pages, 3), 1 + 2 + 5);
	pages_free(pages);
}

static void what_is_cut_off_comes_back_unknown(void **state)
{
	static const uint64_t hashes[] = { 11, 12, 13, 14 };
	struct pages *pages = open_pages(*state);

	assert_int_equal(pages_write(pages, 1, hashes, 4), 0);
	assert_int_equal(pages_extend(pages), 0);
	assert_int_equal(pages_truncate(pages, 9), 0);
	assert_int_equal(pages_count(pages), 4);
	assert_int_equal(pages_truncate(pages, 2), 0);
	assert_int_equal(pages_get(pages, 3), 0);
	/* Page 3 is left out, as the lock page is. */
	assert_int_equal(pages_write(pages, 4, hashes + 3, 1), 0);
	assert_int_equal(pages_extend(pages), 0);
	assert_int_equal(pages_get(pages, 2), 12);
	assert_int_equal(pages_get(pages, 3), 0);
	assert_int_equal(pages_get(pages, 4), 14);
	pages_free(pages);
}

static void a_mapping_grows_with_its_file(void **state)
{
	struct pages *pages = open_pages(*state);
	uint64_t hash = 77;

	/* Some megabytes of entries, most of them a hole. */
	for (uint32_t pgno = 1; pgno < 600000; pgno += 90000) {
		assert_int_equal(pages_write(pages, pgno, &hash, 1), 0);
		assert_int_equal(pages_extend(pages), 0);
		assert_int_equal(pages_get(pages, pgno), 77);
	}
	assert_int_equal(pages_sum(pages, 600000), 7 * 77);
	pages_free(pages);
}

static void a_torn_entry_is_unknown(void **state)
{
	struct place *p = *state;
	static const uint64_t hashes[] = { 21, 22 };
	struct pages *pages = open_pages(p);

	assert_int_equal(pages_write(pages, 1, hashes, 2), 0);
	pages_free(pages);
	AUTO(fd) int fd = openat(p->dirfd, "pages", O_RDWR);
	assert_int_equal(ftruncate(fd, 13), 0);
	pages = open_pages(p);
	assert_int_equal(pages_count(pages), 1);
	assert_int_equal(pages_get(pages, 1), 21);
	assert_int_equal(pages_get(pages, 2), 0);
	pages_free(pages);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			entries_are_unknown_until_extended_and_stay, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(
			what_is_cut_off_comes_back_unknown, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_mapping_grows_with_its_file,
						set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_torn_entry_is_unknown, set_up,
						tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
