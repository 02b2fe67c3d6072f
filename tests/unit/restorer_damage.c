/*
 * Bad bytes in the bucket: whatever is wrong with an object, the restore says
 * which one it is and leaves nothing.
 */
#include "restorer_world.h"

#define KEY_2 "0000/0000000000000002-0000000000000002.ltx"

/* Three small batches; the second one's bytes in ret. */
static void make_three(struct world *w, struct buf *ret)
{
	struct ltx_header h;

	world_commit(w, 3, 1, 3);
	world_commit(w, 4, 2, 1);
	world_commit(w, 4, 3, 1);
	world_put_log(w, 1, 3);
	h = world_header(w, 2, 2);
	world_encode(w, &h, 0, ret);
}

static void a_truncated_object_is_named_wherever_it_ends(void **state)
{
	AUTO(buf) struct buf file = BUF_INIT(1 << 20);
	struct world *w = *state;

	make_three(w, &file);
	for (size_t size = 0; size < file.size; size += 7) {
		world_put_bytes(w, 0, 2, 2, file.data, size);
		world_refuse(w, 0, -ERR_CORRUPT, KEY_2 ": ");
	}
	world_put_bytes(w, 0, 2, 2, file.data, file.size - 1);
	world_refuse(w, 0, -ERR_CORRUPT, KEY_2 ": ");
	world_put_bytes(w, 0, 2, 2, file.data, file.size);
	world_check_latest(w, 3);
}

static void bytes_after_the_end_are_refused(void **state)
{
	AUTO(buf) struct buf file = BUF_INIT(1 << 20);
	struct world *w = *state;

	make_three(w, &file);
	assert_int_equal(buf_append(&file, "", 1), 0);
	world_put_bytes(w, 0, 2, 2, file.data, file.size);
	world_refuse(w, 0, -ERR_CORRUPT, KEY_2 ": ");
}

/* One bit of every third byte, another one each time. */
static void a_flipped_bit_is_found_wherever_it_is(void **state)
{
	AUTO(buf) struct buf file = BUF_INIT(1 << 20);
	struct world *w = *state;

	make_three(w, &file);
	for (size_t at = 0; at < file.size; at += at < LTX_HEADER_SIZE ? 1 : 3) {
		char bit = (char)(1 << (at % 8));

		file.data[at] ^= bit;
		world_put_bytes(w, 0, 2, 2, file.data, file.size);
		world_refuse(w, 0, -ERR_CORRUPT, KEY_2 ": ");
		file.data[at] ^= bit;
	}
}

static void an_object_of_other_transactions_is_refused(void **state)
{
	AUTO(buf) struct buf file = BUF_INIT(1 << 20);
	struct world *w = *state;

	make_three(w, &file);
	world_put_bytes(w, 0, 3, 3, file.data, file.size);
	world_refuse(w, 0, -ERR_CORRUPT,
		     "0000/0000000000000003-0000000000000003.ltx: its header "
		     "says transactions 0000000000000002 to 0000000000000002");
}

static void what_is_no_ltx_is_refused(void **state)
{
	static const char html[] = "<html>You have been logged out</html>";
	AUTO(buf) struct buf file = BUF_INIT(1 << 20);
	struct world *w = *state;

	make_three(w, &file);
	world_put_bytes(w, 0, 2, 2, html, sizeof(html));
	world_refuse(w, 0, -ERR_CORRUPT, KEY_2 ": ");
}

/* Sound by itself, but made for another database. */
static void a_file_of_another_database_is_refused(void **state)
{
	AUTO(buf) struct buf file = BUF_INIT(1 << 20);
	struct world *w = *state;
	struct ltx_header h;

	make_three(w, &file);
	h = world_header(w, 2, 2);
	h.pre_dbsum ^= 1;
	world_put_header(w, 0, &h, 0);
	world_refuse(w, 0, -ERR_CORRUPT,
		     KEY_2 ": it does not follow from the files before it");

	/* Found by the file after it, if it does not know itself. */
	h.pre_dbsum = h.post_dbsum = 0;
	world_put_header(w, 0, &h, 2);
	world_refuse(w, 0, -ERR_CORRUPT,
		     "0000/0000000000000003-0000000000000003.ltx: it does not "
		     "follow");
	world_remove(w, 0, 3, 3);
	assert_int_equal(world_restore(w, 0), 0);
	assert_false(w->result.proven);
}

static void a_result_other_than_promised_is_refused(void **state)
{
	AUTO(buf) struct buf file = BUF_INIT(1 << 20);
	struct world *w = *state;
	struct ltx_header h;

	make_three(w, &file);
	h = world_header(w, 2, 2);
	world_put_header(w, 0, &h, 2);
	world_refuse(w, 0, -ERR_CORRUPT, KEY_2 ": with it the database has "
		     "checksum");
	/* In a file that overlaps, what was before it is not known. */
	h = world_header(w, 2, 3);
	h.pre_dbsum ^= 1;
	world_put_header(w, 1, &h, 0);
	world_put(w, 9, 1, 2);
	world_remove(w, 0, 3, 3);
	world_check_latest(w, 3);
}

static void two_pages_exchanged_are_found(void **state)
{
	struct world *w = *state;
	struct world_state *s = &w->states[1];
	char page[WORLD_PAGE_SIZE];
	struct ltx_header h;

	world_commit(w, 4, 1, 4);
	h = world_header(w, 1, 1);
	memcpy(page, s->pages, sizeof(page));
	memcpy(s->pages, s->pages + sizeof(page), sizeof(page));
	memcpy(s->pages + sizeof(page), page, sizeof(page));
	world_put_header(w, 0, &h, 0);
	world_refuse(w, 0, -ERR_CORRUPT, "with it the database has checksum");
}

/* A file of a few hundred bytes that claims a database of terabytes. */
static void a_monstrous_size_costs_nothing(void **state)
{
	struct world *w = *state;
	struct ltx_header h;

	world_commit(w, 4, 1, 4);
	world_commit(w, 4, 2, 1);
	world_put_log(w, 1, 1);
	h = world_header(w, 2, 2);
	h.commit = 0xfffffffe;
	h.pre_dbsum = h.post_dbsum = 0;
	w->states[2].commit = 4;

	AUTO(buf) struct buf file = BUF_INIT(1 << 20);
	AUTO(ltx_encoder) struct ltx_encoder *enc = NULL;
	struct buf_sink sink;

	buf_sink_init(&sink, &file);
	assert_int_equal(ltx_encoder_new(&sink.sink, &h, &enc), 0);
	assert_int_equal(ltx_encoder_page(enc, 0xfffffff0, w->states[2].pages),
			 0);
	assert_int_equal(ltx_encoder_finish(enc, 0), 0);
	world_put_bytes(w, 0, 2, 2, file.data, file.size);
	world_refuse(w, 0, -ERR_CORRUPT, KEY_2 ": page 5 is missing: the "
		     "database grows to 4294967294 pages");
}

/* The store gives more than its list said. */
static void grow_before_get(const char *key, void *arg)
{
	static const char zeros[4 << 20];

	if (strstr(key, "0000/0000000000000002"))
		world_put_bytes(arg, 0, 2, 2, zeros, sizeof(zeros));
}

static void an_object_larger_than_listed_is_refused(void **state)
{
	AUTO(buf) struct buf file = BUF_INIT(1 << 20);
	struct world *w = *state;

	make_three(w, &file);
	w->spy.arg = w;
	w->spy.before_get = grow_before_get;
	world_refuse(w, 0, -ERR_CORRUPT, KEY_2 " is larger than was listed");
}

/* The first failure stops the others, however many there are. */
static void one_bad_object_among_many_is_named(void **state)
{
	AUTO(buf) struct buf file = BUF_INIT(1 << 20);
	struct world *w = *state;
	struct ltx_header h;

	for (int i = 0; i < 60; i++)
		world_commit(w, 4 + (uint32_t)i % 3, 2, 2);
	world_put_log(w, 1, 60);
	h = world_header(w, 37, 37);
	world_encode(w, &h, 0, &file);
	world_put_bytes(w, 0, 37, 37, file.data, file.size / 2);
	for (unsigned parallel = 1; parallel <= 64; parallel *= 4) {
		w->options.parallel = parallel;
		world_refuse(w, 0, -ERR_CORRUPT,
			     "0000/0000000000000025-0000000000000025.ltx: ");
		world_check(w, 36);
	}
}

#define WORLD_TEST(f) cmocka_unit_test_setup_teardown(f, world_setup, world_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD_TEST(a_truncated_object_is_named_wherever_it_ends),
		WORLD_TEST(bytes_after_the_end_are_refused),
		WORLD_TEST(a_flipped_bit_is_found_wherever_it_is),
		WORLD_TEST(an_object_of_other_transactions_is_refused),
		WORLD_TEST(what_is_no_ltx_is_refused),
		WORLD_TEST(a_file_of_another_database_is_refused),
		WORLD_TEST(a_result_other_than_promised_is_refused),
		WORLD_TEST(two_pages_exchanged_are_found),
		WORLD_TEST(a_monstrous_size_costs_nothing),
		WORLD_TEST(an_object_larger_than_listed_is_refused),
		WORLD_TEST(one_bad_object_among_many_is_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
