#include <stdlib.h>

#include "tests/lib/ltx_files.h"

#include "ltx/compact.h"

enum { MAX_INPUTS = 8 };

static int compact(const struct buf *inputs, size_t n, struct buf *out,
		   struct ltx_header *ret)
{
	struct mem_source memory[MAX_INPUTS];
	struct source *sources[MAX_INPUTS];
	struct buf_sink sink;

	buf_reset(out);
	buf_sink_init(&sink, out);
	for (size_t i = 0; i < n; i++) {
		mem_source_init(&memory[i], inputs[i].data, inputs[i].size);
		sources[i] = &memory[i].source;
	}
	return ltx_compact(sources, n, &sink.sink, ret);
}

static void inputs_cleanup(struct buf (*inputs)[MAX_INPUTS])
{
	for (size_t i = 0; i < MAX_INPUTS; i++)
		buf_cleanup(&(*inputs)[i]);
}

#define AUTO_INPUTS(name)                                           \
	AUTO(inputs) struct buf name[MAX_INPUTS] = {                \
		[0 ... MAX_INPUTS - 1] = BUF_INIT(1 << 24),         \
	}

/* The pages, as a database of which the pages not in the file are zeros. */
static void content(const struct buf *file, struct buf *db, struct decoded *d)
{
	if (decode(file->data, file->size, db, d) < 0)
		fail_msg("%s", error_message());
}

/* Same pages, same header but for what we choose otherwise. */
static void compare(const struct buf *ours, const struct buf *theirs)
{
	AUTO_BUF(db);
	AUTO_BUF(expected);
	struct decoded a, b;

	content(ours, &db, &a);
	content(theirs, &expected, &b);
	assert_int_equal(a.header.flags, LTX_NO_CHECKSUM);
	assert_int_equal(a.header.page_size, b.header.page_size);
	assert_int_equal(a.header.commit, b.header.commit);
	assert_int_equal(a.header.min_txid, b.header.min_txid);
	assert_int_equal(a.header.max_txid, b.header.max_txid);
	assert_int_equal(a.header.timestamp_ms, b.header.timestamp_ms);
	assert_int_equal(a.header.wal_offset, 0);
	assert_int_equal(a.header.wal_size, 0);
	assert_int_equal(a.header.wal_salt1, 0);
	assert_int_equal(a.header.node_id, 0);
	assert_int_equal(a.n_pages, b.n_pages);
	assert_int_equal(a.first_pgno, b.first_pgno);
	assert_int_equal(a.last_pgno, b.last_pgno);
	assert_int_equal(db.size, expected.size);
	assert_memory_equal(db.data, expected.data, db.size);
}

/* A fixture's name around its page size. */
struct name {
	const char *before, *after;
};

static void read_named(struct buf *ret, struct name name, uint32_t page_size)
{
	read_fixture(ret, "%s%u%s.ltx", name.before, page_size, name.after);
}

static void check_chain(const struct name *names, size_t n,
			struct name expected, uint32_t page_size)
{
	AUTO_INPUTS(inputs);
	AUTO_BUF(ours);
	AUTO_BUF(theirs);

	for (size_t i = 0; i < n; i++)
		read_named(&inputs[i], names[i], page_size);
	read_named(&theirs, expected, page_size);
	if (compact(inputs, n, &ours, NULL) < 0)
		fail_msg("%s%u: %s", expected.before, page_size,
			 error_message());
	compare(&ours, &theirs);
}

static void chains_merge_to_what_superfly_makes_of_them(void **state)
{
	static const struct name all[] = {
		{ "snap-", "-3p" },
		{ "delta-", "" },
		{ "grow-", "" },
		{ "shrink-", "" },
	};
	static const struct name nock[] = {
		{ "nock-snap-", "" },
		{ "nock-delta-", "" },
		{ "nock-grow-", "" },
		{ "nock-shrink-", "" },
	};
	static const struct name legacy[] = {
		{ "legacyframe-", "" },
		{ "delta-", "" },
		{ "grow-", "" },
		{ "shrink-", "" },
	};
	static const struct name all_merged = { "compact-all-", "" };
	static const struct name two_merged = { "compact-2-3-", "" };
	static const struct name nock_merged = { "nock-compact-all-", "" };
	static const uint32_t page_sizes[] = { 512, 4096, 65536 };

	for (size_t i = 0; i < 3; i++) {
		check_chain(all, 4, all_merged, page_sizes[i]);
		check_chain(all + 1, 2, two_merged, page_sizes[i]);
		check_chain(nock, 4, nock_merged, page_sizes[i]);
		check_chain(legacy, 4, all_merged, page_sizes[i]);
		check_chain(all, 1, all[0], page_sizes[i]);
	}
}

static void header_is_that_of_both_ends(void **state)
{
	AUTO_INPUTS(in);
	AUTO_BUF(out);
	struct ltx_header first = plain_header(512, 4, 3, 5);
	struct ltx_header last = plain_header(512, 6, 6, 9);
	struct ltx_header h, written;
	struct decoded d;

	first.pre_dbsum = 11;
	first.post_dbsum = last.pre_dbsum = 22;
	last.post_dbsum = 33;
	first.timestamp_ms = 1;
	last.timestamp_ms = 2;
	first.node_id = last.node_id = 44;
	encode_range(&in[0], &first, 1, 4, 1);
	encode_range(&in[1], &last, 4, 6, 2);
	assert_int_equal(compact(in, 2, &out, &h), 0);
	assert_int_equal(decode(out.data, out.size, NULL, &d), 0);
	written = d.header;
	assert_int_equal(written.min_txid, 3);
	assert_int_equal(written.max_txid, 9);
	assert_int_equal(written.commit, 6);
	assert_int_equal(written.timestamp_ms, 2);
	assert_int_equal(written.pre_dbsum, 11);
	assert_int_equal(written.post_dbsum, 33);
	assert_int_equal(written.node_id, 0);
	assert_int_equal(written.kind, LTX_BATCH);
	assert_int_equal(d.n_pages, 6);
	assert_int_equal(h.max_txid, 9);
	assert_int_equal(h.post_dbsum, 33);
}

/* Page 4 is in both: the later one counts. */
static void the_latest_version_of_a_page_counts(void **state)
{
	AUTO_INPUTS(in);
	AUTO_BUF(out);
	AUTO_BUF(db);
	struct ltx_header first = plain_header(512, 6, 2, 2);
	struct ltx_header second = plain_header(512, 6, 3, 3);
	struct ltx_header third = plain_header(512, 6, 4, 4);
	uint8_t page[512];
	struct decoded d;

	encode_range(&in[0], &first, 1, 6, 1);
	encode_range(&in[1], &second, 3, 5, 2);
	encode_range(&in[2], &third, 4, 4, 3);
	assert_int_equal(compact(in, 3, &out, NULL), 0);
	content(&out, &db, &d);
	assert_int_equal(d.n_pages, 6);
	for (uint32_t pgno = 1; pgno <= 6; pgno++) {
		unsigned seed = pgno == 4 ? 3 : pgno == 3 || pgno == 5 ? 2 : 1;

		fill_page(page, 512, pgno * seed);
		assert_memory_equal(db.data + (size_t)(pgno - 1) * 512, page,
				    512);
	}
}

static void pages_beyond_the_end_are_dropped(void **state)
{
	AUTO_INPUTS(in);
	AUTO_BUF(out);
	struct ltx_header large = plain_header(512, 9, 2, 2);
	struct ltx_header small = plain_header(512, 3, 3, 3);
	struct decoded d;

	encode_range(&in[0], &large, 1, 9, 1);
	encode_range(&in[1], &small, 1, 1, 2);
	assert_int_equal(compact(in, 2, &out, NULL), 0);
	assert_int_equal(decode(out.data, out.size, NULL, &d), 0);
	assert_int_equal(d.n_pages, 3);
	assert_int_equal(d.last_pgno, 3);
}

/* 9 pages, then 3, then 6: pages 4 to 6 must come from the last. */
static void a_page_cut_off_does_not_come_back(void **state)
{
	AUTO_INPUTS(in);
	AUTO_BUF(out);
	struct ltx_header large = plain_header(512, 9, 2, 2);
	struct ltx_header small = plain_header(512, 3, 3, 3);
	struct ltx_header grown = plain_header(512, 6, 4, 4);

	encode_range(&in[0], &large, 1, 9, 1);
	encode_range(&in[1], &small, 1, 1, 2);
	encode_range(&in[2], &grown, 4, 6, 3);
	assert_int_equal(compact(in, 3, &out, NULL), 0);
	encode_range(&in[2], &grown, 5, 6, 3);
	assert_int_equal(compact(in, 3, &out, NULL), -ERR_CORRUPT);
	assert_message("page 4 was cut off by a later file");
	assert_message("0000000000000002-0000000000000002");
}

/* min and max of two inputs, and what comes of it. */
static const struct {
	uint64_t min1, max1, min2, max2;
	int rc;
	const char *words;
} neighbours[] = {
	{ 2, 3, 4, 4, 0, NULL },
	{ 2, 3, 3, 4, 0, NULL },
	{ 2, 3, 2, 4, 0, NULL },
	{ 2, 3, 5, 6, -ERR_GAP, "0000000000000004 to 0000000000000004 are" },
	{ 2, 3, 9, 9, -ERR_GAP, "0000000000000004 to 0000000000000008 are" },
	{ 2, 3, 3, 3, -ERR_GAP, "does not reach further" },
	{ 2, 3, 2, 3, -ERR_GAP, "does not reach further" },
	{ 4, 4, 2, 3, -ERR_GAP, "does not reach further" },
	{ 4, 4, 2, 5, -ERR_GAP, "does not reach further" },
	{ 2, UINT64_MAX, 3, UINT64_MAX, -ERR_GAP, "does not reach further" },
};

static void inputs_overlap_or_touch_but_leave_no_gap(void **state)
{
	for (size_t i = 0; i < sizeof(neighbours) / sizeof(*neighbours); i++) {
		AUTO_INPUTS(in);
		AUTO_BUF(out);
		struct ltx_header a = plain_header(512, 3, neighbours[i].min1,
						   neighbours[i].max1);
		struct ltx_header b = plain_header(512, 3, neighbours[i].min2,
						   neighbours[i].max2);

		encode_range(&in[0], &a, 1, 3, 1);
		encode_range(&in[1], &b, 2, 2, 1);
		assert_int_equal(compact(in, 2, &out, NULL), neighbours[i].rc);
		if (neighbours[i].words)
			assert_message(neighbours[i].words);
	}
}

static void page_sizes_must_be_equal(void **state)
{
	AUTO_INPUTS(in);
	AUTO_BUF(out);
	struct ltx_header a = plain_header(512, 3, 2, 2);
	struct ltx_header b = plain_header(1024, 3, 3, 3);

	encode_range(&in[0], &a, 1, 3, 1);
	encode_range(&in[1], &b, 1, 3, 1);
	assert_int_equal(compact(in, 2, &out, NULL), -EINVAL);
	assert_message("pages of 1024 bytes");
	assert_int_equal(compact(in, 0, &out, NULL), -EINVAL);
}

static void a_file_made_for_another_state_is_refused(void **state)
{
	AUTO_INPUTS(in);
	AUTO_BUF(out);
	struct ltx_header a = plain_header(512, 3, 2, 2);
	struct ltx_header b = plain_header(512, 3, 3, 3);

	a.post_dbsum = 0x77;
	b.pre_dbsum = 0x78;
	encode_range(&in[0], &a, 1, 3, 1);
	encode_range(&in[1], &b, 1, 3, 1);
	assert_int_equal(compact(in, 2, &out, NULL), -ERR_CORRUPT);
	assert_message("0000000000000078");
	/* One of them unknown: Litestream wrote it. */
	b.pre_dbsum = 0;
	encode_range(&in[1], &b, 1, 3, 1);
	assert_int_equal(compact(in, 2, &out, NULL), 0);
}

static void a_drop_at_the_end_stays_one(void **state)
{
	AUTO_INPUTS(in);
	AUTO_BUF(out);
	struct ltx_header a = plain_header(512, 3, 2, 2);
	struct ltx_header b = plain_header(512, 3, 3, 3);
	struct ltx_header c = plain_header(512, 3, 4, 4);
	struct ltx_header h;

	b.kind = LTX_DROP;
	encode_range(&in[0], &a, 1, 3, 1);
	encode_range(&in[1], &b, 0, 0, 0);
	encode_range(&in[2], &c, 1, 3, 2);
	assert_int_equal(compact(in, 2, &out, &h), 0);
	assert_int_equal(h.kind, LTX_DROP);
	assert_int_equal(compact(in, 3, &out, &h), 0);
	assert_int_equal(h.kind, LTX_BATCH);
	c.kind = LTX_STAGED;
	encode_range(&in[2], &c, 0, 0, 0);
	assert_int_equal(compact(in, 3, &out, &h), -EINVAL);
	assert_message("only names where its pages are");
}

/* A bad input is named, and what was written is no file. */
static void a_damaged_input_is_refused_by_its_txids(void **state)
{
	AUTO_INPUTS(in);
	AUTO_BUF(out);
	struct ltx_header a = plain_header(512, 30, 2, 2);
	struct ltx_header b = plain_header(512, 30, 3, 3);

	encode_range(&in[0], &a, 1, 30, 1);
	encode_range(&in[1], &b, 7, 25, 2);
	for (size_t at = LTX_HEADER_SIZE; at < in[1].size; at++) {
		in[1].data[at] ^= 0x10;
		assert_int_equal(compact(in, 2, &out, NULL), -ERR_CORRUPT);
		assert_message("0000000000000003-0000000000000003");
		assert_int_equal(decode_buf(&out), -ERR_CORRUPT);
		in[1].data[at] ^= 0x10;
	}
	in[1].size = 50;
	assert_int_equal(compact(in, 2, &out, NULL), -ERR_CORRUPT);
	assert_message("file 2");
}

static void a_merged_snapshot_must_have_all_pages(void **state)
{
	AUTO_INPUTS(in);
	AUTO_BUF(out);
	struct ltx_header a = plain_header(512, 3, 1, 1);
	struct ltx_header b = plain_header(512, 5, 2, 2);

	encode_range(&in[0], &a, 1, 3, 1);
	encode_range(&in[1], &b, 5, 5, 1);
	assert_int_equal(compact(in, 2, &out, NULL), -ERR_CORRUPT);
	assert_message("page 4 is missing");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(chains_merge_to_what_superfly_makes_of_them),
		cmocka_unit_test(header_is_that_of_both_ends),
		cmocka_unit_test(the_latest_version_of_a_page_counts),
		cmocka_unit_test(pages_beyond_the_end_are_dropped),
		cmocka_unit_test(a_page_cut_off_does_not_come_back),
		cmocka_unit_test(inputs_overlap_or_touch_but_leave_no_gap),
		cmocka_unit_test(page_sizes_must_be_equal),
		cmocka_unit_test(a_file_made_for_another_state_is_refused),
		cmocka_unit_test(a_drop_at_the_end_stays_one),
		cmocka_unit_test(a_damaged_input_is_refused_by_its_txids),
		cmocka_unit_test(a_merged_snapshot_must_have_all_pages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
