#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/error.h"
#include "ltx/decoder.h"
#include "tests/unit/uploader_fixture.h"
#include "uploader/batch.h"

#include "uploader/snapshot.h"

static struct place p;
static struct spool *spool;

static int set_up(void **state)
{
	place_open(&p);
	return spool_open(p.fd, "spool", &spool);
}

static int tear_down(void **state)
{
	spool_free(spool);
	place_close(&p);
	return 0;
}

static void a_snapshot_belongs_to_every_slot_that_begins_a_chain(void **state)
{
	static const struct {
		struct ltx_header before, slot;
		bool due;
	} table[] = {
		{ { 0 }, { .max_txid = 1, .page_size = 512 }, true },
		{ { .page_size = 512 },
		  { .max_txid = 2, .page_size = 512 },
		  false },
		{ { .page_size = 512 },
		  { .max_txid = 2, .page_size = 1024 },
		  true },
		/* Not known: it may be one. */
		{ { 0 }, { .max_txid = 2, .page_size = 512 }, true },
		/* The name was dropped, and is used again. */
		{ { .page_size = 512, .kind = LTX_DROP },
		  { .max_txid = 3, .page_size = 512 },
		  true },
		/* These have no pages. */
		{ { .page_size = 512 },
		  { .max_txid = 3, .page_size = 512, .kind = LTX_BARRIER },
		  false },
		{ { 0 },
		  { .max_txid = 3, .page_size = 512, .kind = LTX_DROP },
		  false },
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		assert_int_equal(snapshot_due(&table[i].before, &table[i].slot),
				 table[i].due);
}

static int put(uint64_t txid, const char *temp_dir, uint64_t *ret_size)
{
	AUTO(batch) struct batch batch = BATCH_NONE;

	assert_int_equal(batch_open(spool, txid, &batch), 0);
	return snapshot_put(&p.net.bucket, "a.db", &batch, temp_dir, ret_size);
}

static void the_snapshot_of_slot_1_has_its_bytes(void **state)
{
	AUTO(buf) struct buf object = BUF_INIT(1 << 20);
	uint64_t sent;
	size_t size;
	char *bytes;

	spool_fill(spool, 1, NULL);
	bytes = spool_bytes(spool, 1, &size);
	assert_int_equal(put(1, NULL, &sent), 0);
	assert_int_equal(sent, size);
	assert_int_equal(object_read(&p, "a.db", 9, 1, 1, &object), 0);
	assert_int_equal(object.size, size);
	assert_memory_equal(object.data, bytes, size);
	free(bytes);
}

static void the_snapshot_of_a_later_slot_has_its_pages_and_no_base(
	void **state)
{
	AUTO(buf) struct buf object = BUF_INIT(1 << 20);
	AUTO(ltx_decoder) struct ltx_decoder *decoder = NULL;
	struct batch_like all = { .page_size = 1024, .commit = 3,
				  .first = 1, .last = 3, .node_id = 5 };
	const struct ltx_header *header;
	unsigned char page[1024], expected[1024];
	struct mem_source in;
	uint32_t pgno;
	uint64_t sent;

	spool_fill(spool, 9, &all);
	assert_int_equal(put(9, p.dir, &sent), 0);
	assert_int_equal(object_read(&p, "a.db", 9, 1, 9, &object), 0);
	assert_int_equal(object.size, sent);

	mem_source_init(&in, object.data, object.size);
	assert_int_equal(ltx_decoder_new(&in.source, &decoder), 0);
	header = ltx_decoder_header(decoder);
	assert_int_equal(header->min_txid, 1);
	assert_int_equal(header->max_txid, 9);
	assert_int_equal(header->commit, 3);
	assert_int_equal(header->timestamp_ms, 1700000000009);
	assert_int_equal(header->node_id, 5);
	assert_int_equal(header->pre_dbsum, 0);
	assert_int_equal(header->post_dbsum, 9);
	for (uint32_t n = 1; n <= 3; n++) {
		assert_int_equal(ltx_decoder_page(decoder, &pgno, page), 1);
		assert_int_equal(pgno, n);
		page_fill(expected, sizeof(expected), 9, n);
		assert_memory_equal(page, expected, sizeof(page));
	}
	assert_int_equal(ltx_decoder_page(decoder, &pgno, page), 0);
	assert_int_equal(ltx_decoder_finish(decoder, NULL), 0);
}

static void a_batch_without_all_pages_gives_none(void **state)
{
	struct batch_like front = { .first = 1, .last = 4 };
	struct batch_like back = { .first = 2, .last = 5 };
	uint64_t sent;

	spool_fill(spool, 2, &front);
	spool_fill(spool, 3, &back);
	assert_int_equal(put(2, NULL, &sent), -EINVAL);
	assert_int_equal(put(3, NULL, &sent), -EINVAL);
	assert_int_equal(p.net.requests, 0);
}

static void one_that_is_there_is_as_good(void **state)
{
	uint64_t sent;

	spool_fill(spool, 1, NULL);
	assert_int_equal(put(1, NULL, &sent), 0);
	assert_int_equal(put(1, NULL, &sent), 0);
	assert_int_equal(sent, 0);
}

static void no_room_for_temporary_files_is_said_with_the_place(void **state)
{
	struct batch_like all = { .first = 1, .last = 5 };
	uint64_t sent;

	spool_fill(spool, 2, &all);
	assert_int_equal(put(2, "/nowhere/at/all", &sent), -ENOENT);
	assert_non_null(strstr(error_message(), "/nowhere/at/all"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_snapshot_belongs_to_every_slot_that_begins_a_chain),
		TEST(the_snapshot_of_slot_1_has_its_bytes),
		TEST(the_snapshot_of_a_later_slot_has_its_pages_and_no_base),
		TEST(a_batch_without_all_pages_gives_none),
		TEST(one_that_is_there_is_as_good),
		TEST(no_room_for_temporary_files_is_said_with_the_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
