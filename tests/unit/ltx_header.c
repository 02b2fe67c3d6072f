#include "tests/lib/ltx_files.h"

static void every_field_comes_back(void **state)
{
	struct ltx_header h = {
		.page_size = 65536,
		.commit = 0x01020304,
		.min_txid = 0x1112131415161718,
		.max_txid = 0x2122232425262728,
		.timestamp_ms = -5,
		.pre_apply = 0xb132333435363738,
		.wal_offset = 0x4142434445464748,
		.wal_size = 0x5152535455565758,
		.wal_salt1 = 0x61626364,
		.wal_salt2 = 0x71727374,
		.node_id = 0x8182838485868788,
		.pre_dbsum = 0x9192939495969798,
		.post_dbsum = 0xa1a2a3a4a5a6a7a8,
		.kind = LTX_DROP,
	};
	struct ltx_header back;
	uint8_t data[LTX_HEADER_SIZE], again[LTX_HEADER_SIZE];

	ltx_header_encode(&h, data);
	assert_int_equal(ltx_header_decode(data, &back), 0);
	assert_int_equal(back.timestamp_ms, -5);
	assert_int_equal(back.wal_salt2, 0x71727374);
	assert_int_equal(back.kind, LTX_DROP);
	ltx_header_encode(&back, again);
	assert_memory_equal(again, data, sizeof(data));
	assert_int_equal(get_be64(data + 40), h.pre_apply);
	assert_int_equal(get_be64(data + 48), h.wal_offset);
	/* Page size as the plain number, and the reserved bytes' use. */
	assert_int_equal(get_be32(data + 8), 65536);
	assert_int_equal(get_be64(data + 80), h.pre_dbsum);
	assert_int_equal(get_be64(data + 88), h.post_dbsum);
	assert_int_equal(get_be32(data + 96), LTX_DROP);
}

/* Each changes a header that is good: see good(). */
static void no_magic(uint8_t *data)
{
	data[0] = 'l';
}
static void unknown_flag(uint8_t *data)
{
	put_be32(data + 4, 4);
}
static void litefs_flag(uint8_t *data)
{
	put_be32(data + 4, 1);
}
static void small_pages(uint8_t *data)
{
	put_be32(data + 8, 256);
}
static void large_pages(uint8_t *data)
{
	put_be32(data + 8, 131072);
}
static void odd_pages(uint8_t *data)
{
	put_be32(data + 8, 4095);
}
static void no_pages(uint8_t *data)
{
	put_be32(data + 8, 0);
}
static void min_zero(uint8_t *data)
{
	put_be64(data + 16, 0);
}
static void min_above_max(uint8_t *data)
{
	put_be64(data + 16, 9);
}
static void negative_offset(uint8_t *data)
{
	put_be64(data + 48, UINT64_MAX);
}
static void negative_size(uint8_t *data)
{
	put_be64(data + 48, 32);
	put_be64(data + 56, UINT64_MAX);
}
static void size_without_offset(uint8_t *data)
{
	put_be64(data + 56, 1);
}
static void salt_without_offset(uint8_t *data)
{
	put_be32(data + 68, 1);
}
static void pre_apply_without_checksums(uint8_t *data)
{
	put_be64(data + 40, LTX_CHECKSUM_FLAG);
}
static void pre_apply_missing(uint8_t *data)
{
	put_be32(data + 4, 0);
}
static void pre_apply_without_flag(uint8_t *data)
{
	put_be32(data + 4, 0);
	put_be64(data + 40, 1);
}
static void pre_apply_in_snapshot(uint8_t *data)
{
	put_be32(data + 4, 0);
	put_be64(data + 16, 1);
	put_be64(data + 40, LTX_CHECKSUM_FLAG | 1);
}
static void unknown_kind(uint8_t *data)
{
	put_be32(data + 96, 4);
}

static const struct {
	void (*change)(uint8_t *data);
	const char *words;
} refused[] = {
	{ no_magic, "does not begin with LTX1" },
	{ unknown_flag, "flags 0x00000004" },
	{ litefs_flag, "file of LiteFS" },
	{ small_pages, "page size 256" },
	{ large_pages, "page size 131072" },
	{ odd_pages, "page size 4095" },
	{ no_pages, "page size 0" },
	{ min_zero, "min TXID is zero" },
	{ min_above_max, "min TXID 0000000000000009 is above" },
	{ negative_offset, "WAL offset or size is negative" },
	{ negative_size, "WAL offset or size is negative" },
	{ size_without_offset, "WAL size but no WAL offset" },
	{ salt_without_offset, "WAL salt but no WAL offset" },
	{ pre_apply_without_checksums, "flags say that it has none" },
	{ pre_apply_missing, "pre-apply checksum is missing" },
	{ pre_apply_without_flag, "pre-apply checksum is missing" },
	{ pre_apply_in_snapshot, "pre-apply checksum is set in a snapshot" },
	{ unknown_kind, "kind 4" },
};

static void good(uint8_t *data)
{
	struct ltx_header h = plain_header(4096, 3, 2, 5);

	ltx_header_encode(&h, data);
}

static void what_describes_no_file_is_refused_by_its_field(void **state)
{
	for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
		struct ltx_header h = { .commit = 77 };
		uint8_t data[LTX_HEADER_SIZE];

		good(data);
		assert_int_equal(ltx_header_decode(data, &h), 0);
		h.commit = 77;
		refused[i].change(data);
		assert_int_equal(ltx_header_decode(data, &h), -ERR_CORRUPT);
		assert_message(refused[i].words);
		assert_int_equal(h.commit, 77);
	}
}

static void page_sizes_are_those_of_sqlite(void **state)
{
	unsigned n = 0;

	for (uint32_t size = 0; size < 200000; size++)
		n += ltx_page_size_valid(size);
	assert_int_equal(n, 8);
	for (uint32_t size = 512; size <= 65536; size *= 2)
		assert_true(ltx_page_size_valid(size));
	assert_false(ltx_page_size_valid(0x80000000));
}

static void lock_page_holds_the_byte_at_one_gigabyte(void **state)
{
	static const uint32_t expected[][2] = {
		{ 512, 2097153 },  { 1024, 1048577 }, { 2048, 524289 },
		{ 4096, 262145 },  { 8192, 131073 },  { 16384, 65537 },
		{ 32768, 32769 },  { 65536, 16385 },
	};

	for (size_t i = 0; i < 8; i++)
		assert_int_equal(ltx_lock_pgno(expected[i][0]),
				 expected[i][1]);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_field_comes_back),
		cmocka_unit_test(
			what_describes_no_file_is_refused_by_its_field),
		cmocka_unit_test(page_sizes_are_those_of_sqlite),
		cmocka_unit_test(lock_page_holds_the_byte_at_one_gigabyte),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
