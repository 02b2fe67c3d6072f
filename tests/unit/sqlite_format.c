#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "sqlite/format.h"

static void what_a_name_says_is_its_role(void **state)
{
	static const struct {
		const char *name;
		enum format_role role;
		unsigned base;
	} cases[] = {
		{ "app.db", FORMAT_MAIN, 6 },
		{ "app.db-journal", FORMAT_JOURNAL, 6 },
		{ "app.db-wal", FORMAT_WAL, 6 },
		{ "app.db-shm", FORMAT_SHM, 6 },
		{ "d/app.db-wal", FORMAT_WAL, 8 },
		{ "d/-wal", FORMAT_MAIN, 6 },
		{ "-journal", FORMAT_MAIN, 8 },
		{ "a-walx", FORMAT_MAIN, 6 },
		{ "app.db-mj0123ABCDE", FORMAT_SUPER, 18 },
		{ "app.db-mj0123ABCDX", FORMAT_MAIN, 18 },
		{ "app.db-mj0123ABCD", FORMAT_MAIN, 17 },
		{ "-mj0123ABCDE", FORMAT_MAIN, 12 },
		{ "", FORMAT_MAIN, 0 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		unsigned base;

		assert_int_equal(format_role(cases[i].name, &base),
				 cases[i].role);
		assert_int_equal(base, cases[i].base);
	}
}

static void make_header(uint8_t header[FORMAT_HEADER_SIZE])
{
	memset(header, 0, FORMAT_HEADER_SIZE);
	memcpy(header, "SQLite format 3", 16);
	header[16] = 0x10; /* 4096 */
	header[18] = header[19] = 1;
	header[21] = 64;
	header[22] = header[23] = 32;
	header[27] = header[95] = 9; /* change counter */
	header[31] = 7;		     /* pages */
}

static void one_byte_makes_a_header_another(void **state)
{
	static const struct {
		int at;
		uint8_t value;
		bool valid;
		uint32_t page_size, pages;
	} cases[] = {
		{ 80, 0, true, 4096, 7 },     { 0, 's', false, 0, 0 },
		{ 15, 1, false, 0, 0 },	      { 16, 0x02, true, 512, 7 },
		{ 16, 0x01, false, 0, 0 },    { 17, 1, false, 0, 0 },
		{ 16, 0x80, true, 32768, 7 }, { 21, 63, false, 0, 0 },
		{ 23, 0, false, 0, 0 },	      { 95, 8, true, 4096, 0 },
		{ 20, 32, true, 4096, 7 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint8_t data[FORMAT_HEADER_SIZE];
		struct format_header h;

		make_header(data);
		data[cases[i].at] = cases[i].value;
		assert_int_equal(format_parse_header(data, &h), cases[i].valid);
		if (!cases[i].valid)
			continue;
		assert_int_equal(h.page_size, cases[i].page_size);
		assert_int_equal(h.pages, cases[i].pages);
	}
}

static void page_size_one_means_65536(void **state)
{
	uint8_t data[FORMAT_HEADER_SIZE];
	struct format_header h;

	make_header(data);
	data[16] = 0;
	data[17] = 1;
	data[18] = data[19] = 2;
	assert_true(format_parse_header(data, &h));
	assert_int_equal(h.page_size, 65536);
	assert_true(h.wal);
}

static void a_journal_is_live_by_its_whole_magic(void **state)
{
	uint8_t magic[8] = { 0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7 };

	assert_true(format_journal_live(magic));
	for (int i = 0; i < 8; i++) {
		magic[i] ^= 1;
		assert_false(format_journal_live(magic));
		magic[i] ^= 1;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_a_name_says_is_its_role),
		cmocka_unit_test(one_byte_makes_a_header_another),
		cmocka_unit_test(page_size_one_means_65536),
		cmocka_unit_test(a_journal_is_live_by_its_whole_magic),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
