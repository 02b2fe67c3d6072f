/*
 * Trying again.  The bucket underneath is a script: each request takes the next
 * line, which says how it fails and how many bytes or keys it gives before.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/stream.h"
#include "bucket/bucket.h"
#include "bucket/patience.h"
#include "bucket/retry.h"

static const char content[] = "0123456789";

/* ETags: of the object that is read, and of one that replaces it. */
#define OURS   "\"e\""
#define THEIRS "\"f\""

/* One request's fate. */
struct line {
	int rc;
	size_t gives;	  /* bytes of a get, keys of a list, before rc */
	const char *etag; /* of the object as this request finds it */
};

struct script {
	struct bucket bucket;
	const struct line *lines;
	size_t n_lines;
	size_t requests;
	char seen[32][64]; /* each request, as text */
	bool freed;
};

static const struct line *next_line(struct script *s)
{
	if (s->requests > s->n_lines)
		fail_msg("request %zu was not expected", s->requests);
	return &s->lines[s->requests - 1];
}

static const struct line *begin(struct bucket *b, const char *fmt, ...)
	PRINTF_LIKE(2, 3);

static const struct line *begin(struct bucket *b, const char *fmt, ...)
{
	struct script *s = (struct script *)b;
	va_list args;

	assert_true(s->requests < 32);
	va_start(args, fmt);
	(void)vsnprintf(s->seen[s->requests++], sizeof(s->seen[0]), fmt, args);
	va_end(args);
	return next_line(s);
}

static int end(const struct line *line)
{
	return line->rc < 0 ? error_set(line->rc, "scripted failure")
			    : line->rc;
}

static int script_get(struct bucket *b, const char *key, uint64_t offset,
		      uint64_t length, const char *if_match, struct sink *sink,
		      struct bucket_info *ret)
{
	const struct line *line =
		begin(b, "%llu+%lld %s", (unsigned long long)offset,
		      (long long)length, if_match ? if_match : "any");
	size_t left = strlen(content) - (size_t)offset;

	if (line->rc != 0 && line->gives == 0 && !line->etag)
		return end(line);
	ret->size = strlen(content);
	(void)snprintf(ret->etag, sizeof(ret->etag), "%s",
		       line->etag ? line->etag : "");
	if (length < left)
		left = (size_t)length;
	if (line->rc != 0)
		left = line->gives;
	for (size_t i = 0; i < left; i++) {
		int rc = sink_write(sink, content + offset + i, 1);

		if (rc < 0)
			return rc;
	}
	return end(line);
}

static int script_head(struct bucket *b, const char *key,
		       struct bucket_info *ret)
{
	return end(begin(b, "head"));
}

static int script_put(struct bucket *b, const struct bucket_put *put,
		      struct bucket_info *ret)
{
	return end(
		begin(b, "put %.*s", (int)put->size, (const char *)put->data));
}

static int script_list(struct bucket *b, const char *prefix, const char *after,
		       size_t limit, bucket_list_fn fn, void *arg)
{
	const struct line *line =
		begin(b, "after '%s' limit %zu", after, limit);
	char key[] = "a";

	key[0] = after[0] ? (char)(after[0] + 1) : 'a';
	for (size_t i = 0; i < line->gives; i++, key[0]++) {
		const struct bucket_object one = { .key = key };
		int rc = fn(&one, arg);

		if (rc != 0)
			return rc;
	}
	return end(line);
}

static int script_remove(struct bucket *b, const char *const keys[], size_t n)
{
	return end(begin(b, "remove %zu", n));
}

static int script_probe(struct bucket *b, unsigned *ret_caps)
{
	const struct line *line = begin(b, "probe");

	*ret_caps = BUCKET_IF_ABSENT;
	return end(line);
}

static void script_free(struct bucket *b)
{
	((struct script *)b)->freed = true;
}

static const struct bucket_ops script_ops = {
	.name = "script",
	.get = script_get,
	.head = script_head,
	.put = script_put,
	.list = script_list,
	.remove = script_remove,
	.probe = script_probe,
	.free = script_free,
};

/* The pauses that were asked for. */
static int64_t pauses[64];
static size_t n_pauses;

static void note_pause(int64_t ms)
{
	assert_true(n_pauses < 64);
	pauses[n_pauses++] = ms;
}

static const struct bucket_retry_config config = {
	.tries = 4,
	.first_ms = 100,
	.cap_ms = 300,
	.sleep_ms = note_pause,
};

/* clang-format off */
#define WORKS			{ 0, 0, NULL }
#define FAILS(rc)		{ rc, 0, NULL }
#define GIVES(rc, some, etag)	{ rc, some, etag }
/* clang-format on */

#define SCRIPT(...)                                                     \
	{                                                               \
		.bucket = { .ops = &script_ops, .url = "script://" },   \
		.lines = (const struct line[]){ __VA_ARGS__ },          \
		.n_lines = sizeof((const struct line[]){ __VA_ARGS__ }) / \
			   sizeof(struct line),                         \
	}

static struct bucket *wrap(struct script *s)
{
	struct bucket *b;

	n_pauses = 0;
	assert_int_equal(bucket_retry_new(&s->bucket, &config, &b), 0);
	return b;
}

/* The whole script has been played, and no more. */
static void finish(struct bucket *b, const struct script *s)
{
	assert_int_equal(s->requests, s->n_lines);
	bucket_free(b);
	assert_true(s->freed);
}

static int get(struct bucket *b, uint64_t offset, uint64_t length,
	       const char *if_match, struct buf *got)
{
	struct buf_sink sink;

	buf_sink_init(&sink, got);
	return bucket_get(b, "key", offset, length, if_match, &sink.sink, NULL);
}

static void the_bound_doubles_up_to_the_cap(void **state)
{
	static const int64_t expected[] = { 100, 200, 300, 300, 300 };

	for (unsigned n = 0; n < 5; n++)
		assert_int_equal(bucket_retry_bound_ms(&config, n),
				 expected[n]);
	assert_int_equal(bucket_retry_bound_ms(&config, 4000000000u), 300);
	assert_int_equal(bucket_retry_bound_ms(&bucket_retry_default, 0), 100);
	assert_int_equal(bucket_retry_bound_ms(&bucket_retry_default, 9), 5000);
}

static void transient_failures_are_tried_again_with_pauses(void **state)
{
	struct script s = SCRIPT(FAILS(-ETIMEDOUT), FAILS(-ECONNRESET), WORKS);
	struct bucket *b = wrap(&s);
	struct bucket_info info;

	assert_int_equal(bucket_head(b, "key", &info), 0);
	assert_int_equal(n_pauses, 2);
	assert_in_range(pauses[0], 1, 100);
	assert_in_range(pauses[1], 1, 200);
	finish(b, &s);
}

/* Whatever chance gives: there is a pause. */
static void no_try_follows_at_once(void **state)
{
	static const struct bucket_retry_config shortest = {
		.tries = 2,
		.first_ms = 1,
		.cap_ms = 1,
		.sleep_ms = note_pause,
	};

	for (int i = 0; i < 50; i++) {
		struct script s = SCRIPT(FAILS(-ETIMEDOUT), WORKS);
		struct bucket_info info;
		struct bucket *b;

		n_pauses = 0;
		assert_int_equal(bucket_retry_new(&s.bucket, &shortest, &b), 0);
		assert_int_equal(bucket_head(b, "key", &info), 0);
		assert_int_equal(n_pauses, 1);
		assert_int_equal(pauses[0], 1);
		finish(b, &s);
	}
}

static void pauses_are_random(void **state)
{
	bool differ = false;
	int64_t first = -1;

	for (int i = 0; i < 20; i++) {
		struct script s = SCRIPT(FAILS(-EAGAIN), WORKS);
		struct bucket *b = wrap(&s);
		struct bucket_info info;

		assert_int_equal(bucket_head(b, "key", &info), 0);
		differ |= first >= 0 && pauses[0] != first;
		first = pauses[0];
		finish(b, &s);
	}
	assert_true(differ);
}

static void it_gives_up_after_its_tries_and_says_so(void **state)
{
	struct script s = SCRIPT(FAILS(-EIO), FAILS(-EIO), FAILS(-EIO),
				 FAILS(-ETIMEDOUT));
	struct bucket *b = wrap(&s);
	struct bucket_info info;

	assert_int_equal(bucket_head(b, "key", &info), -ETIMEDOUT);
	assert_non_null(strstr(error_message(), "4 tries"));
	assert_non_null(strstr(error_message(), "scripted failure"));
	assert_int_equal(n_pauses, 3);
	finish(b, &s);
}

static void other_failures_are_final_at_once(void **state)
{
	static const int finals[] = {-ENOENT, -ERR_PRECOND, -EACCES,
				     -ENODEV, -EOPNOTSUPP,  -ERANGE,
				     -EINVAL, -ENOSPC};

	for (size_t i = 0; i < sizeof(finals) / sizeof(finals[0]); i++) {
		struct script s = SCRIPT(FAILS(finals[i]));
		struct bucket *b = wrap(&s);
		struct bucket_info info;

		assert_int_equal(bucket_head(b, "key", &info), finals[i]);
		assert_string_equal(error_message(), "scripted failure");
		assert_int_equal(n_pauses, 0);
		finish(b, &s);
	}
}

static void puts_removals_and_probes_are_tried_again_whole(void **state)
{
	struct script s = SCRIPT(FAILS(-EIO), WORKS, FAILS(-EIO), WORKS,
				 FAILS(-EIO), WORKS);
	const struct bucket_put put = {.key = "key",
				       .data = "body",
				       .fd = -1,
				       .size = 4};
	const char *keys[] = { "a", "b" };
	struct bucket *b = wrap(&s);
	unsigned caps = 0;

	assert_int_equal(bucket_put(b, &put, NULL), 0);
	assert_int_equal(bucket_remove(b, keys, 2), 0);
	assert_int_equal(bucket_probe(b, &caps), 0);
	assert_string_equal(s.seen[1], "put body");
	assert_string_equal(s.seen[3], "remove 2");
	assert_int_equal(caps, BUCKET_IF_ABSENT);
	finish(b, &s);
}

static void a_get_goes_on_where_it_broke_off(void **state)
{
	struct script s = SCRIPT(FAILS(-EIO), GIVES(-ECONNRESET, 3, OURS),
				 FAILS(-ETIMEDOUT), GIVES(-ECONNRESET, 2, OURS),
				 GIVES(0, 0, OURS));
	AUTO(buf) struct buf got = BUF_INIT(100);
	struct bucket *b = wrap(&s);

	assert_int_equal(get(b, 1, 8, NULL, &got), 0);
	assert_string_equal(got.data, "12345678");
	assert_string_equal(s.seen[0], "1+8 any");
	assert_string_equal(s.seen[1], "1+8 any");
	assert_string_equal(s.seen[2], "4+5 \"e\"");
	assert_string_equal(s.seen[3], "4+5 \"e\"");
	assert_string_equal(s.seen[4], "6+3 \"e\"");
	finish(b, &s);
}

static void to_the_end_stays_to_the_end(void **state)
{
	struct script s =
		SCRIPT(GIVES(-ECONNRESET, 3, OURS), GIVES(0, 0, OURS));
	AUTO(buf) struct buf got = BUF_INIT(100);
	struct bucket *b = wrap(&s);

	assert_int_equal(get(b, 0, BUCKET_TO_END, OURS, &got), 0);
	assert_string_equal(got.data, content);
	assert_string_equal(s.seen[0], "0+-1 \"e\"");
	assert_string_equal(s.seen[1], "3+-1 \"e\"");
	finish(b, &s);
}

static void progress_counts_tries_anew(void **state)
{
	/* Ten breaks, with four tries; each gives a byte. */
	struct script s = SCRIPT(GIVES(-EIO, 1, OURS), GIVES(-EIO, 1, OURS),
				 GIVES(-EIO, 1, OURS), GIVES(-EIO, 1, OURS),
				 GIVES(-EIO, 1, OURS), GIVES(-EIO, 1, OURS),
				 GIVES(-EIO, 1, OURS), GIVES(-EIO, 1, OURS),
				 GIVES(-EIO, 1, OURS), GIVES(0, 0, OURS));
	AUTO(buf) struct buf got = BUF_INIT(100);
	struct bucket *b = wrap(&s);

	assert_int_equal(get(b, 0, BUCKET_TO_END, NULL, &got), 0);
	assert_string_equal(got.data, content);
	finish(b, &s);
}

static void a_break_after_the_last_byte_is_no_failure(void **state)
{
	struct script whole = SCRIPT(GIVES(-ECONNRESET, 10, OURS));
	struct script range = SCRIPT(GIVES(-ECONNRESET, 3, OURS));
	AUTO(buf) struct buf got = BUF_INIT(100);
	struct bucket *b = wrap(&whole);

	assert_int_equal(get(b, 0, BUCKET_TO_END, NULL, &got), 0);
	assert_string_equal(got.data, content);
	finish(b, &whole);
	b = wrap(&range);
	buf_reset(&got);
	assert_int_equal(get(b, 2, 3, NULL, &got), 0);
	assert_string_equal(got.data, "234");
	finish(b, &range);
}

static void two_objects_are_never_mixed(void **state)
{
	/* One store refuses the second request, one ignores If-Match. */
	struct script refuses =
		SCRIPT(GIVES(-EIO, 3, OURS), FAILS(-ERR_PRECOND));
	struct script ignores =
		SCRIPT(GIVES(-EIO, 3, OURS), GIVES(0, 0, THEIRS));
	struct script *both[] = { &refuses, &ignores };

	for (int i = 0; i < 2; i++) {
		AUTO(buf) struct buf got = BUF_INIT(100);
		struct bucket *b = wrap(both[i]);

		assert_int_equal(get(b, 0, BUCKET_TO_END, NULL, &got),
				 -ERR_PRECOND);
		assert_non_null(strstr(error_message(), "replaced"));
		assert_string_equal(got.data, "012");
		finish(b, both[i]);
	}
}

static void without_an_etag_a_broken_get_is_final(void **state)
{
	struct script s = SCRIPT(GIVES(-EIO, 3, NULL));
	AUTO(buf) struct buf got = BUF_INIT(100);
	struct bucket *b = wrap(&s);

	assert_int_equal(get(b, 0, BUCKET_TO_END, NULL, &got), -EIO);
	finish(b, &s);
}

static int failing_write(struct sink *sink, const void *data, size_t size)
{
	return error_set(-EIO, "my disk");
}

static void a_failing_sink_is_not_tried_again(void **state)
{
	struct script s = SCRIPT(GIVES(0, 0, OURS));
	struct sink sink = { failing_write };
	struct bucket *b = wrap(&s);

	assert_int_equal(bucket_get(b, "key", 0, BUCKET_TO_END, NULL, &sink,
				    NULL),
			 -EIO);
	assert_string_equal(error_message(), "my disk");
	assert_int_equal(n_pauses, 0);
	finish(b, &s);
}

static int append_key(const struct bucket_object *object, void *arg)
{
	return buf_printf(arg, "%s", object->key);
}

static void a_list_goes_on_after_the_last_key_it_gave(void **state)
{
	struct script s = SCRIPT(GIVES(-EIO, 2, NULL), GIVES(-EIO, 0, NULL),
				 GIVES(-EIO, 1, NULL), GIVES(0, 1, NULL));
	AUTO(buf) struct buf keys = BUF_INIT(100);
	struct bucket *b = wrap(&s);

	assert_int_equal(bucket_list(b, "", NULL, 5, append_key, &keys), 0);
	assert_string_equal(keys.data, "abcd");
	assert_string_equal(s.seen[0], "after '' limit 5");
	assert_string_equal(s.seen[1], "after 'b' limit 3");
	assert_string_equal(s.seen[2], "after 'b' limit 3");
	assert_string_equal(s.seen[3], "after 'c' limit 2");
	finish(b, &s);
}

static void a_list_that_reached_its_limit_is_complete(void **state)
{
	struct script s = SCRIPT(GIVES(-EIO, 2, NULL));
	AUTO(buf) struct buf keys = BUF_INIT(100);
	struct bucket *b = wrap(&s);

	assert_int_equal(bucket_list(b, "", NULL, 2, append_key, &keys), 0);
	assert_string_equal(keys.data, "ab");
	finish(b, &s);
}

static void a_list_that_gets_further_counts_tries_anew(void **state)
{
	/* Five breaks, with four tries; each gives a key. */
	struct script s = SCRIPT(GIVES(-EIO, 1, NULL), GIVES(-EIO, 1, NULL),
				 GIVES(-EIO, 1, NULL), GIVES(-EIO, 1, NULL),
				 GIVES(-EIO, 1, NULL), GIVES(0, 1, NULL));
	AUTO(buf) struct buf keys = BUF_INIT(100);
	struct bucket *b = wrap(&s);

	assert_int_equal(bucket_list(b, "", NULL, 0, append_key, &keys), 0);
	assert_string_equal(keys.data, "abcdef");
	finish(b, &s);
}

static int stop(const struct bucket_object *object, void *arg)
{
	return error_set(*(int *)arg, "my own trouble");
}

static void a_callback_that_stops_is_not_tried_again(void **state)
{
	struct script s = SCRIPT(GIVES(0, 2, NULL));
	struct bucket *b = wrap(&s);
	int rc = -EIO;

	assert_int_equal(bucket_list(b, "", NULL, 0, stop, &rc), -EIO);
	assert_string_equal(error_message(), "my own trouble");
	finish(b, &s);
}

static void only_the_named_errors_are_transient(void **state)
{
	static const int transient[] = {-ETIMEDOUT,  -ECONNREFUSED,
					-ECONNRESET, -EHOSTUNREACH,
					-EIO,	     -EAGAIN};
	int n = 0;

	for (size_t i = 0; i < sizeof(transient) / sizeof(transient[0]); i++)
		assert_true(bucket_transient(transient[i]));
	for (int rc = 0; rc > -200; rc--)
		n += bucket_transient(rc);
	assert_int_equal(n, 6);
}

/*
 * Patience
 */

static atomic_bool cancelled;

static void cancel_in_pause(int64_t ms)
{
	note_pause(ms);
	atomic_store(&cancelled, true);
}

/* A pause of a thread that can be cancelled consists of short ones. */
static void a_cancelled_pause_ends_at_once(void **state)
{
	atomic_store(&cancelled, false);
	n_pauses = 0;
	bucket_cancel_by(&cancelled);
	bucket_patience_sleep(cancel_in_pause, 60000);
	bucket_patience_sleep(cancel_in_pause, 60000);
	bucket_cancel_by(NULL);
	assert_int_equal(n_pauses, 1);
	assert_in_range(pauses[0], 1, 1000);
}

static void who_waits_for_nothing_else_sleeps_whole(void **state)
{
	n_pauses = 0;
	bucket_patience_sleep(note_pause, 60000);
	assert_int_equal(n_pauses, 1);
	assert_int_equal(pauses[0], 60000);
}

static void what_is_cancelled_is_not_tried_again(void **state)
{
	struct script s = SCRIPT(FAILS(-ETIMEDOUT));
	struct bucket *b = wrap(&s);
	struct bucket_info info;

	atomic_store(&cancelled, true);
	bucket_cancel_by(&cancelled);
	assert_int_equal(bucket_head(b, "k", &info), -ETIMEDOUT);
	assert_string_equal(error_message(), "scripted failure");
	assert_int_equal(bucket_patience(), -ECANCELED);
	bucket_cancel_by(NULL);
	assert_int_equal(bucket_patience(), 0);
	finish(b, &s);
}

static void what_is_late_is_not_tried_again(void **state)
{
	struct script s = SCRIPT(FAILS(-ECONNRESET));
	struct bucket *b = wrap(&s);
	struct bucket_info info;

	bucket_wait_until(clock_monotonic_ms());
	assert_int_equal(bucket_head(b, "k", &info), -ECONNRESET);
	assert_int_equal(bucket_patience(), -ETIMEDOUT);
	bucket_wait_until(0);
	assert_int_equal(bucket_patience(), 0);
	finish(b, &s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_bound_doubles_up_to_the_cap),
		cmocka_unit_test(only_the_named_errors_are_transient),
		cmocka_unit_test(
			transient_failures_are_tried_again_with_pauses),
		cmocka_unit_test(no_try_follows_at_once),
		cmocka_unit_test(pauses_are_random),
		cmocka_unit_test(it_gives_up_after_its_tries_and_says_so),
		cmocka_unit_test(other_failures_are_final_at_once),
		cmocka_unit_test(
			puts_removals_and_probes_are_tried_again_whole),
		cmocka_unit_test(a_get_goes_on_where_it_broke_off),
		cmocka_unit_test(to_the_end_stays_to_the_end),
		cmocka_unit_test(progress_counts_tries_anew),
		cmocka_unit_test(a_break_after_the_last_byte_is_no_failure),
		cmocka_unit_test(two_objects_are_never_mixed),
		cmocka_unit_test(without_an_etag_a_broken_get_is_final),
		cmocka_unit_test(a_failing_sink_is_not_tried_again),
		cmocka_unit_test(a_list_goes_on_after_the_last_key_it_gave),
		cmocka_unit_test(a_list_that_gets_further_counts_tries_anew),
		cmocka_unit_test(a_list_that_reached_its_limit_is_complete),
		cmocka_unit_test(a_callback_that_stops_is_not_tried_again),
		cmocka_unit_test(a_cancelled_pause_ends_at_once),
		cmocka_unit_test(who_waits_for_nothing_else_sleeps_whole),
		cmocka_unit_test(what_is_cancelled_is_not_tried_again),
		cmocka_unit_test(what_is_late_is_not_tried_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
