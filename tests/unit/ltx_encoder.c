#include <stdlib.h>

#include "tests/lib/ltx_files.h"

static uint8_t page[LTX_MAX_PAGE_SIZE];

static const uint32_t page_sizes[] = { 512, 4096, 65536 };

/* One page in three is noise, which compresses to more than it was. */
static void fill_mixed(uint8_t *p, uint32_t page_size, uint32_t pgno)
{
	if (pgno % 3 == 0)
		fill_noise(p, page_size, pgno);
	else
		fill_page(p, page_size, pgno - 1);
}

static void check_header(const struct ltx_header *a, const struct ltx_header *b)
{
	uint8_t x[LTX_HEADER_SIZE], y[LTX_HEADER_SIZE];

	ltx_header_encode(a, x);
	ltx_header_encode(b, y);
	assert_memory_equal(x, y, sizeof(x));
}

static void what_was_written_is_read(void **state)
{
	for (size_t i = 0; i < 3; i++) {
		AUTO_BUF(file);
		AUTO_BUF(expected);
		AUTO_BUF(db);
		AUTO(ltx_encoder) struct ltx_encoder *enc = NULL;
		struct ltx_header h = plain_header(page_sizes[i], 40, 1, 1);
		struct decoded d;
		struct buf_sink out;

		h.node_id = UINT64_C(5) << 32 | 99;
		h.pre_dbsum = 1;
		h.post_dbsum = 2;
		buf_sink_init(&out, &file);
		assert_int_equal(ltx_encoder_new(&out.sink, &h, &enc), 0);
		for (uint32_t pgno = 1; pgno <= 40; pgno++) {
			fill_mixed(page, h.page_size, pgno);
			assert_int_equal(ltx_encoder_page(enc, pgno, page), 0);
			assert_int_equal(buf_append(&expected, page,
						    h.page_size),
					 0);
		}
		assert_int_equal(ltx_encoder_finish(enc, 0), 0);
		assert_int_equal(ltx_encoder_size(enc), file.size);
		assert_int_equal(decode(file.data, file.size, &db, &d), 0);
		check_header(&d.header, &h);
		assert_int_equal(d.trailer.post_apply, 0);
		assert_int_equal(db.size, expected.size);
		assert_memory_equal(db.data, expected.data, db.size);
	}
}

static void a_delta_may_have_any_pages_or_none(void **state)
{
	AUTO_BUF(file);
	struct ltx_header h = plain_header(4096, UINT32_MAX, 2, 9);
	static const uint32_t pages[] = { 2, 127, 128, 262144, 262146,
					  UINT32_MAX };

	for (size_t n = 0; n <= 6; n++) {
		AUTO(ltx_encoder) struct ltx_encoder *enc = NULL;
		struct buf_sink out;
		struct decoded d;

		buf_reset(&file);
		buf_sink_init(&out, &file);
		assert_int_equal(ltx_encoder_new(&out.sink, &h, &enc), 0);
		for (size_t i = 0; i < n; i++)
			assert_int_equal(ltx_encoder_page(enc, pages[i], page),
					 0);
		assert_int_equal(ltx_encoder_finish(enc, 0), 0);
		assert_int_equal(decode(file.data, file.size, NULL, &d), 0);
		assert_int_equal(d.n_pages, n);
		assert_int_equal(d.last_pgno, n ? pages[n - 1] : 0);
	}
}

/* 131 bytes are the shortest file there is. */
static void an_empty_file_is_as_short_as_it_can_be(void **state)
{
	AUTO_BUF(file);
	struct ltx_header h = plain_header(4096, 3, 2, 2);

	h.kind = LTX_BARRIER;
	encode_range(&file, &h, 0, 0, 0);
	assert_int_equal(file.size, 131);
	assert_int_equal(decode_buf(&file), 0);
}

/* 1 GiB of zeros, and the one page that is not there. */
static void a_snapshot_passes_over_the_lock_page(void **state)
{
	AUTO_BUF(file);
	AUTO(ltx_encoder) struct ltx_encoder *enc = NULL;
	struct ltx_header h = plain_header(65536, 16386, 1, 1);
	struct buf_sink out;
	struct decoded d;

	memset(page, 0, sizeof(page));
	buf_sink_init(&out, &file);
	assert_int_equal(ltx_encoder_new(&out.sink, &h, &enc), 0);
	for (uint32_t pgno = 1; pgno <= 16384; pgno++)
		assert_int_equal(ltx_encoder_page(enc, pgno, page), 0);
	assert_int_equal(ltx_encoder_page(enc, 16386, page), 0);
	assert_int_equal(ltx_encoder_finish(enc, 0), 0);
	assert_int_equal(decode(file.data, file.size, NULL, &d), 0);
	assert_int_equal(d.n_pages, 16385);
	assert_int_equal(d.last_pgno, 16386);
}

/* Pages in the order given, up to a zero; then the end. */
static const struct {
	const char *name;
	uint64_t min_txid;
	uint32_t commit;
	uint32_t pages[4];
	const char *words;
} refused[] = {
	{ "page zero", 2, 9, { 0 }, "numbered from 1" },
	{ "twice", 2, 9, { 4, 4 }, "page 4 comes after page 4" },
	{ "descending", 2, 9, { 4, 3 }, "page 3 comes after page 4" },
	{ "beyond the end", 2, 9, { 10 }, "beyond the end" },
	{ "no page fits", 2, 0, { 1 }, "beyond the end" },
	{ "lock page", 2, 300000, { 262145 }, "lock page" },
	{ "snapshot from 2", 1, 9, { 2 }, "page 1 is missing" },
	{ "snapshot with a hole", 1, 9, { 1, 2, 4 }, "page 3 is missing" },
	{ "snapshot cut short", 1, 3, { 1, 2 }, "page 3 is missing" },
	{ "snapshot of nothing", 1, 3, { 0 }, "page 1 is missing" },
};

static int encode_pages(struct ltx_encoder *enc, const uint32_t pages[4],
			bool page_zero)
{
	int rc = page_zero ? ltx_encoder_page(enc, 0, page) : 0;

	for (size_t i = 0; rc == 0 && i < 4 && pages[i]; i++)
		rc = ltx_encoder_page(enc, pages[i], page);
	return rc == 0 ? ltx_encoder_finish(enc, 0) : rc;
}

static void pages_out_of_order_are_refused(void **state)
{
	for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
		AUTO_BUF(file);
		AUTO(ltx_encoder) struct ltx_encoder *enc = NULL;
		struct ltx_header h = plain_header(
			4096, refused[i].commit, refused[i].min_txid, 7);
		struct buf_sink out;

		buf_sink_init(&out, &file);
		assert_int_equal(ltx_encoder_new(&out.sink, &h, &enc), 0);
		assert_int_equal(encode_pages(enc, refused[i].pages, i == 0),
				 -EINVAL);
		assert_message(refused[i].words);
		/* And nothing after that makes it a file. */
		assert_int_equal(ltx_encoder_page(enc, 9, page), -EINVAL);
		assert_message("failed before");
		assert_int_equal(ltx_encoder_finish(enc, 0), -EINVAL);
		assert_int_equal(decode_buf(&file), -ERR_CORRUPT);
	}
}

static void a_bad_header_is_refused_before_anything_is_written(void **state)
{
	AUTO_BUF(file);
	struct ltx_header h = plain_header(4095, 1, 1, 1);
	struct ltx_encoder *enc = NULL;
	struct buf_sink out;

	buf_sink_init(&out, &file);
	assert_int_equal(ltx_encoder_new(&out.sink, &h, &enc), -ERR_CORRUPT);
	assert_message("page size 4095");
	assert_null(enc);
	assert_int_equal(file.size, 0);
}

static int finish_with(uint32_t flags, uint32_t commit, uint64_t post_apply)
{
	AUTO_BUF(file);
	AUTO(ltx_encoder) struct ltx_encoder *enc = NULL;
	struct ltx_header h = plain_header(4096, commit, 2, 2);
	struct buf_sink out;

	h.flags = flags;
	h.pre_apply = flags & LTX_NO_CHECKSUM ? 0 : LTX_CHECKSUM_FLAG;
	buf_sink_init(&out, &file);
	assert_int_equal(ltx_encoder_new(&out.sink, &h, &enc), 0);
	return ltx_encoder_finish(enc, post_apply);
}

static void post_apply_is_there_if_and_only_if_the_flags_say_so(void **state)
{
	assert_int_equal(finish_with(LTX_NO_CHECKSUM, 1, 0), 0);
	assert_int_equal(finish_with(LTX_NO_CHECKSUM, 1, LTX_CHECKSUM_FLAG),
			 -EINVAL);
	assert_message("post-apply");
	assert_int_equal(finish_with(0, 1, LTX_CHECKSUM_FLAG | 5), 0);
	assert_int_equal(finish_with(0, 1, 5), -EINVAL);
	assert_message("post-apply checksum is missing");
	assert_int_equal(finish_with(0, 0, LTX_CHECKSUM_FLAG), 0);
	assert_int_equal(finish_with(0, 0, LTX_CHECKSUM_FLAG | 5), -EINVAL);
	assert_message("empty database");
}

static void a_finished_file_takes_no_more(void **state)
{
	AUTO_BUF(file);
	AUTO(ltx_encoder) struct ltx_encoder *enc = NULL;
	struct ltx_header h = plain_header(4096, 3, 2, 2);
	struct buf_sink out;
	size_t size;

	buf_sink_init(&out, &file);
	assert_int_equal(ltx_encoder_new(&out.sink, &h, &enc), 0);
	assert_int_equal(ltx_encoder_finish(enc, 0), 0);
	size = file.size;
	assert_int_equal(ltx_encoder_page(enc, 1, page), -EINVAL);
	assert_int_equal(ltx_encoder_finish(enc, 0), -EINVAL);
	assert_int_equal(file.size, size);
}

/* Takes so many bytes, then there is no space. */
struct small_sink {
	struct sink sink;
	size_t left;
};

static int small_write(struct sink *sink, const void *data, size_t size)
{
	struct small_sink *s = (struct small_sink *)sink;

	if (size > s->left)
		return error_set(-ENOSPC, "the disk is full");
	s->left -= size;
	return 0;
}

static int encode_into(struct small_sink *out, struct ltx_encoder **enc)
{
	struct ltx_header h = plain_header(512, 3, 1, 1);
	int rc = ltx_encoder_new(&out->sink, &h, enc);

	for (uint32_t pgno = 1; rc == 0 && pgno <= 3; pgno++) {
		fill_page(page, 512, pgno);
		rc = ltx_encoder_page(*enc, pgno, page);
	}
	return rc == 0 ? ltx_encoder_finish(*enc, 0) : rc;
}

/* Every write of a file fails once. */
static void a_full_disk_is_reported_and_stays_reported(void **state)
{
	struct small_sink large = { { small_write }, 1 << 20 };
	struct ltx_encoder *whole = NULL;
	size_t size;

	assert_int_equal(encode_into(&large, &whole), 0);
	size = ltx_encoder_size(whole);
	ltx_encoder_free(whole);
	for (size_t room = 0; room < size; room++) {
		AUTO(ltx_encoder) struct ltx_encoder *enc = NULL;
		struct small_sink out = { { small_write }, room };

		assert_int_equal(encode_into(&out, &enc), -ENOSPC);
		assert_message("the disk is full");
		if (!enc)
			continue;
		out.left = 1 << 20;
		assert_int_equal(ltx_encoder_page(enc, 3, page), -ENOSPC);
		assert_int_equal(ltx_encoder_finish(enc, 0), -ENOSPC);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_written_is_read),
		cmocka_unit_test(a_delta_may_have_any_pages_or_none),
		cmocka_unit_test(an_empty_file_is_as_short_as_it_can_be),
		cmocka_unit_test(a_snapshot_passes_over_the_lock_page),
		cmocka_unit_test(pages_out_of_order_are_refused),
		cmocka_unit_test(
			a_bad_header_is_refused_before_anything_is_written),
		cmocka_unit_test(
			post_apply_is_there_if_and_only_if_the_flags_say_so),
		cmocka_unit_test(a_finished_file_takes_no_more),
		cmocka_unit_test(a_full_disk_is_reported_and_stays_reported),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
