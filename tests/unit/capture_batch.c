#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "capture/batch.h"

static struct batch *new_batch(int dirfd, uint32_t page_size, uint32_t commit)
{
	struct batch *b;

	assert_int_equal(batch_new(dirfd, page_size, commit, &b), 0);
	return b;
}

static int open_tmp(void)
{
	return open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* What page pgno says in its version-th version. */
static void fill(uint8_t *page, uint32_t size, uint32_t pgno, int version)
{
	memset(page, (int)(pgno * 31 + (unsigned)version), size);
	memcpy(page, &pgno, sizeof(pgno));
}

static void what_exceeds_memory_reads_back_from_the_file(void **state)
{
	static const uint32_t sizes[] = { 512, 4096, 65536 };
	static uint8_t page[65536], back[65536];

	for (int s = 0; s < 3; s++) {
		AUTO(fd) int dirfd = open_tmp();
		uint32_t n = 3 * BATCH_MEMORY / sizes[s];
		struct batch *b = new_batch(dirfd, sizes[s], n);
		uint64_t hash;

		for (int version = 1; version <= 2; version++)
			for (uint32_t pgno = n; pgno > 0; pgno -= 1) {
				if (version == 2 && pgno % 3)
					continue;
				fill(page, sizes[s], pgno, version);
				assert_int_equal(
					batch_put(b, pgno, page,
						  pgno * 10 +
							  (unsigned)version),
					0);
			}
		assert_true(b->fd >= 0);
		for (uint32_t pgno = 1; pgno <= n; pgno++) {
			int version = pgno % 3 ? 1 : 2;

			fill(page, sizes[s], pgno, version);
			assert_int_equal(batch_read(b, pgno, back), 0);
			assert_memory_equal(page, back, sizes[s]);
			assert_true(batch_find(b, pgno, &hash));
			assert_int_equal(hash, pgno * 10 + (unsigned)version);
		}
		batch_free(b);
	}
}

static void a_small_batch_needs_no_file(void **state)
{
	uint8_t page[512] = { 1 };
	struct batch *b = new_batch(-1, 512, 0);

	for (uint32_t pgno = 1; pgno <= BATCH_MEMORY / 512; pgno++)
		assert_int_equal(batch_put(b, pgno, page, pgno), 0);
	assert_int_equal(b->fd, -1);
	/* There is no directory for the next. */
	assert_true(batch_put(b, BATCH_MEMORY, page, 1) < 0);
	assert_int_equal(batch_read(b, BATCH_MEMORY, page), -ENOENT);
	batch_free(b);
}

static void shrinking_drops_pages_and_remembers_how_far(void **state)
{
	uint8_t page[512] = { 0 };
	struct batch *b = new_batch(-1, 512, 10);
	uint64_t hash;

	assert_false(b->changed);
	for (uint32_t pgno = 1; pgno <= 10; pgno++)
		assert_int_equal(batch_put(b, pgno, page, pgno), 0);
	batch_resize(b, 4);
	batch_resize(b, 8);
	assert_int_equal(b->low_commit, 4);
	assert_int_equal(b->commit, 8);
	assert_true(batch_find(b, 4, &hash));
	assert_false(batch_find(b, 5, &hash));
	assert_int_equal(batch_put(b, 5, page, 55), 0);
	assert_true(batch_find(b, 5, &hash));
	assert_int_equal(hash, 55);
	batch_free(b);
}

static void a_page_half_written_over_is_out_of_the_batch(void **state)
{
	AUTO(fd) int dirfd = open_tmp();
	struct batch *b = new_batch(dirfd, 65536, 40);
	static uint8_t page[65536];
	uint64_t hash;
	int writable;

	for (uint32_t pgno = 1; pgno <= 20; pgno++)
		assert_int_equal(batch_put(b, pgno, page, pgno), 0);
	writable = b->fd;
	b->fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
	assert_int_equal(batch_put(b, 20, page, 99), -ENOSPC);
	assert_false(batch_find(b, 20, &hash));
	(void)close(b->fd);
	b->fd = writable;
	assert_int_equal(batch_put(b, 20, page, 99), 0);
	assert_true(batch_find(b, 20, &hash));
	assert_int_equal(hash, 99);
	batch_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_exceeds_memory_reads_back_from_the_file),
		cmocka_unit_test(a_small_batch_needs_no_file),
		cmocka_unit_test(shrinking_drops_pages_and_remembers_how_far),
		cmocka_unit_test(a_page_half_written_over_is_out_of_the_batch),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
