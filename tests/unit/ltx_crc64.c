#include "tests/lib/ltx_files.h"

/* crc64_vectors.tsv: computed by Go's hash/crc64 and superfly/ltx. */
static uint64_t vector(const char *what)
{
	AUTO_BUF(text);
	char key[128];
	const char *line;
	uint64_t value = 0;

	read_fixture(&text, "crc64_vectors.tsv");
	(void)snprintf(key, sizeof(key), "\n%s\t", what);
	line = strstr(text.data, key);
	if (!line || sscanf(line + strlen(key), "%16lx", &value) != 1)
		fail_msg("no vector for %s", what);
	return value;
}

/* The definition, a bit at a time. */
static uint64_t slow_crc64(uint64_t crc, const uint8_t *p, size_t size)
{
	crc = ~crc;
	for (size_t i = 0; i < size; i++) {
		crc ^= p[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^
			      (crc & 1 ? UINT64_C(0xd800000000000000) : 0);
	}
	return ~crc;
}

static void crc_is_the_one_that_go_computes(void **state)
{
	static uint8_t bytes[65536];

	assert_int_equal(ltx_crc64(0, "123456789", 9), 0xb90956c775a41001);
	assert_int_equal(ltx_crc64(0, "123456789", 9),
			 vector("crc64iso(\"123456789\")"));
	assert_int_equal(ltx_crc64(0, "", 0), vector("crc64iso(\"\")"));
	assert_int_equal(ltx_crc64(0, "a", 1), vector("crc64iso(\"a\")"));
	assert_int_equal(ltx_crc64(0, bytes, 32),
			 vector("crc64iso(32 zero bytes)"));
	assert_int_equal(ltx_crc64(0, bytes, 4096),
			 vector("crc64iso(4096 zero bytes)"));
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)i;
	assert_int_equal(ltx_crc64(0, bytes, sizeof(bytes)),
			 vector("crc64iso(bytes i&255, i=0..65535)"));
}

static void page_checksum_is_the_one_that_go_computes(void **state)
{
	static uint8_t page[65536];

	assert_int_equal(ltx_crc64_page(1, page, 512),
			 vector("ChecksumPage(1, 512 zero bytes)"));
	assert_int_equal(ltx_crc64_page(1, page, 4096),
			 vector("ChecksumPage(1, 4096 zero bytes)"));
	assert_int_equal(ltx_crc64_page(2, page, 4096),
			 vector("ChecksumPage(2, 4096 zero bytes)"));
	assert_int_equal(ltx_crc64_page(1, page, 65536),
			 vector("ChecksumPage(1, 65536 zero bytes)"));
	for (size_t i = 0; i < 4096; i++)
		page[i] = (uint8_t)i;
	assert_int_equal(ltx_crc64_page(1, page, 4096),
			 vector("ChecksumPage(1, 4096 bytes i&255)"));
}

static void page_checksums_of_a_database_are_those_of_go(void **state)
{
	static const uint32_t page_sizes[] = { 512, 4096, 65536 };

	for (size_t i = 0; i < 3; i++) {
		AUTO_BUF(db);
		uint32_t page_size = page_sizes[i];
		uint64_t rolling = LTX_CHECKSUM_FLAG;
		char key[64];

		read_fixture(&db, "snap-%u-3p.db", page_size);
		for (uint32_t pgno = 1; pgno <= 3; pgno++)
			rolling = LTX_CHECKSUM_FLAG |
				  (rolling ^
				   ltx_crc64_page(pgno,
						  db.data +
							  (size_t)(pgno - 1) *
								  page_size,
						  page_size));
		(void)snprintf(key, sizeof(key), "rolling(snap-%u-3p.db)",
			       page_size);
		assert_int_equal(rolling, vector(key));
	}
}

/* Below 128 bytes the tables work, above it the folding where there is one. */
static void every_length_and_alignment_agrees_with_the_definition(void **state)
{
	static uint8_t noise[2064];

	fill_noise(noise, sizeof(noise), 7);
	for (size_t size = 0; size < 2048; size += size < 300 ? 1 : 13)
		for (size_t shift = 0; shift < 16; shift += 5)
			assert_int_equal(
				ltx_crc64(size * 77, noise + shift, size),
				slow_crc64(size * 77, noise + shift, size));
}

static void pieces_give_the_checksum_of_the_whole(void **state)
{
	static uint8_t noise[5000];

	fill_noise(noise, sizeof(noise), 8);
	for (size_t piece = 1; piece < 1000; piece = piece * 2 + 1) {
		uint64_t crc = 0;

		for (size_t at = 0; at < sizeof(noise); at += piece) {
			size_t left = sizeof(noise) - at;

			crc = ltx_crc64(crc, noise + at,
					left < piece ? left : piece);
		}
		assert_int_equal(crc, ltx_crc64(0, noise, sizeof(noise)));
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(crc_is_the_one_that_go_computes),
		cmocka_unit_test(page_checksum_is_the_one_that_go_computes),
		cmocka_unit_test(page_checksums_of_a_database_are_those_of_go),
		cmocka_unit_test(
			every_length_and_alignment_agrees_with_the_definition),
		cmocka_unit_test(pieces_give_the_checksum_of_the_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
