#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/error.h"
#include "tests/unit/uploader_fixture.h"
#include "uploader/batch.h"

#include "uploader/slot.h"

static struct place p;
static struct spool *spool;
static struct batch batch;
static char *bytes;
static size_t size;

static int set_up(void **state)
{
	place_open(&p);
	assert_int_equal(spool_open(p.fd, "spool", &spool), 0);
	spool_fill(spool, 1, NULL);
	spool_fill(spool, 2,
		   &(struct batch_like){ .first = 1, .last = 5 });
	assert_int_equal(batch_open(spool, 2, &batch), 0);
	bytes = spool_bytes(spool, 2, &size);
	return 0;
}

static int tear_down(void **state)
{
	free(bytes);
	batch_cleanup(&batch);
	spool_free(spool);
	place_close(&p);
	return 0;
}

static int put(void)
{
	struct bucket_info reply;

	return slot_put(&p.net.bucket, "a.db", &batch, &reply);
}

static void assert_slot_holds(const void *data, size_t n)
{
	AUTO(buf) struct buf object = BUF_INIT(1 << 20);

	assert_int_equal(object_read(&p, "a.db", 0, 2, 2, &object), 0);
	assert_int_equal(object.size, n);
	assert_memory_equal(object.data, data, n);
}

static void an_empty_slot_is_filled_with_the_bytes_of_the_spool(void **state)
{
	assert_int_equal(put(), 0);
	assert_slot_holds(bytes, size);
	assert_int_equal(p.net.gets, 0);
}

static void a_slot_with_our_own_bytes_is_as_good_as_a_reply(void **state)
{
	p.net.lose = 1;
	assert_int_equal(put(), -ETIMEDOUT);
	assert_int_equal(put(), 0);
	assert_int_equal(put(), 0);
	assert_slot_holds(bytes, size);
}

static void assert_foreign(const void *data, size_t n, const char *who)
{
	object_write(&p, "a.db", 2, data, n);
	assert_int_equal(put(), -ERR_FENCED);
	assert_non_null(strstr(error_message(), "slot 0000000000000002"));
	assert_non_null(strstr(error_message(), "'a.db'"));
	assert_non_null(strstr(error_message(), p.dir));
	assert_non_null(strstr(error_message(), who));
	assert_slot_holds(data, n);
}

static void another_writers_slot_is_left_alone_and_its_epoch_named(
	void **state)
{
	struct batch_like theirs = { .first = 1, .last = 5,
				     .node_id = UINT64_C(7) << 32 | 99 };
	struct spool *other;
	char *data;
	size_t n;

	assert_int_equal(spool_open(p.fd, "other", &other), 0);
	spool_fill(other, 2, &theirs);
	data = spool_bytes(other, 2, &n);
	assert_foreign(data, n, "epoch 7");
	free(data);
	spool_free(other);
}

static void one_flipped_bit_at_the_end_makes_it_another_writers(void **state)
{
	bytes[size - 1] ^= 1;
	assert_foreign(bytes, size, "epoch 1");
}

static void the_beginning_of_ours_is_not_ours(void **state)
{
	assert_foreign(bytes, size - 1, "epoch 1");
	assert_foreign(bytes, 50, "no LTX file");
	assert_foreign("", 0, "no LTX file");
}

static void ours_and_more_is_not_ours(void **state)
{
	char *more = malloc(size + 1);

	memcpy(more, bytes, size);
	more[size] = 0;
	assert_foreign(more, size + 1, "epoch 1");
	free(more);
}

static void something_else_in_the_slot_is_not_ours(void **state)
{
	assert_foreign("hello, world", 12, "no LTX file");
}

static void as_long_as_the_slot_cannot_be_read_nothing_is_decided(
	void **state)
{
	assert_int_equal(put(), 0);
	p.net.fail = -EACCES;
	p.net.only_gets = true;
	assert_int_equal(put(), -EACCES);
	p.net.fail = -ENOENT;
	assert_int_equal(put(), -EAGAIN);
	p.net.fail = 0;
	assert_int_equal(put(), 0);
}

static void the_last_slot_is_in_the_bucket_or_it_is_another_one(void **state)
{
	struct ltx_header header;

	assert_int_equal(slot_last(p.store, "a.db", 2, &header), -ERR_GAP);
	assert_non_null(strstr(error_message(), "0000000000000002"));
	assert_non_null(strstr(error_message(), "'a.db'"));
	assert_non_null(strstr(error_message(), p.dir));
	object_write(&p, "a.db", 2, bytes, size);
	assert_int_equal(slot_last(p.store, "a.db", 2, &header), 0);
	assert_int_equal(header.max_txid, 2);
	object_write(&p, "a.db", 3, bytes, size);
	assert_int_equal(slot_last(p.store, "a.db", 3, &header), -ERR_CORRUPT);
	p.net.fail = -ETIMEDOUT;
	assert_int_equal(slot_last(&p.net.bucket, "a.db", 2, &header),
			 -ETIMEDOUT);
}

static void a_batch_follows_only_what_it_was_made_on(void **state)
{
	struct ltx_header last = { .max_txid = 1, .post_dbsum = 7 };
	struct ltx_header next = { .max_txid = 2, .pre_dbsum = 7 };

	assert_int_equal(slot_follows(p.store, "a.db", &last, &next), 0);
	last.post_dbsum = 8;
	assert_int_equal(slot_follows(p.store, "a.db", &last, &next),
			 -ERR_FENCED);
	assert_non_null(strstr(error_message(), "0000000000000001"));
	last.post_dbsum = 0;
	assert_int_equal(slot_follows(p.store, "a.db", &last, &next), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(an_empty_slot_is_filled_with_the_bytes_of_the_spool),
		TEST(a_slot_with_our_own_bytes_is_as_good_as_a_reply),
		TEST(another_writers_slot_is_left_alone_and_its_epoch_named),
		TEST(one_flipped_bit_at_the_end_makes_it_another_writers),
		TEST(the_beginning_of_ours_is_not_ours),
		TEST(ours_and_more_is_not_ours),
		TEST(something_else_in_the_slot_is_not_ours),
		TEST(as_long_as_the_slot_cannot_be_read_nothing_is_decided),
		TEST(the_last_slot_is_in_the_bucket_or_it_is_another_one),
		TEST(a_batch_follows_only_what_it_was_made_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
