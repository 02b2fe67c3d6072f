#ifndef LITEBUCKET_TESTS_UNIT_BUCKET_CONTRACT_TOOLS_H
#define LITEBUCKET_TESTS_UNIT_BUCKET_CONTRACT_TOOLS_H

/*
 * What the tests of a bucket's contract are written with.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/io.h"
#include "base/stream.h"
#include "bucket/bucket.h"

enum contract {
	CONTRACT_IF_ABSENT = 1 << 0,
	CONTRACT_IF_MATCH = 1 << 1,
	CONTRACT_META = 1 << 2,	    /* keeps metadata */
	CONTRACT_PUT_ETAG = 1 << 3, /* the reply to a put has the ETag */
	CONTRACT_ALL = CONTRACT_IF_ABSENT | CONTRACT_IF_MATCH | CONTRACT_META |
		       CONTRACT_PUT_ETAG,
};

/* A bucket that is empty: a new directory, or a prefix not used before. */
static struct bucket *contract_open(void);

/* enum contract: what the store under test keeps. */
static unsigned contract_keeps(void);

enum {
	CONTRACT_THREADS = 20,
	CONTRACT_ROUNDS = 10,
	CONTRACT_BIG = 5 << 20,
	CONTRACT_MANY = 1100, /* more than a page of S3 */
};

static int contract_setup(void **state)
{
	*state = contract_open();
	return *state ? 0 : -1;
}

/* Whatever is left goes, so that a real store does not fill up. */
struct contract_keys {
	char **items;
	size_t n;
};

static int contract_note_key(const struct bucket_object *object, void *arg)
{
	struct contract_keys *keys = arg;

	keys->items = realloc(keys->items, (keys->n + 1) * sizeof(char *));
	assert_non_null(keys->items);
	keys->items[keys->n++] = strdup(object->key);
	return 0;
}

static void contract_remove_all(struct bucket *b)
{
	struct contract_keys keys = { 0 };

	assert_int_equal(bucket_list(b, "", NULL, 0, contract_note_key, &keys),
			 0);
	assert_int_equal(bucket_remove(b, (const char *const *)keys.items,
				       keys.n), 0);
	for (size_t i = 0; i < keys.n; i++)
		free(keys.items[i]);
	free(keys.items);
}

static int contract_teardown(void **state)
{
	contract_remove_all(*state);
	bucket_free(*state);
	return 0;
}

#define contract_assert_ok(call)                                     \
	do {                                                         \
		int rc_ = (call);                                    \
		if (rc_ != 0)                                        \
			fail_msg("%s: %d: %s", #call, rc_,           \
				 error_message());                   \
	} while (0)

static void contract_assert_refused(int rc, int expected)
{
	if (rc != expected)
		fail_msg("got %d (%s), expected %d", rc, error_message(),
			 expected);
	assert_true(strlen(error_message()) > 0);
}

static int contract_put(struct bucket *b, const char *key, const char *text,
			struct bucket_info *ret)
{
	const struct bucket_put put = {
		.key = key,
		.data = text,
		.fd = -1,
		.size = strlen(text),
	};

	return bucket_put(b, &put, ret);
}

static int contract_put_if(struct bucket *b, const char *key, const char *text,
			   bool if_absent, const char *if_match,
			   struct bucket_info *ret)
{
	const struct bucket_put put = {
		.key = key,
		.data = text,
		.fd = -1,
		.size = strlen(text),
		.if_absent = if_absent,
		.if_match = if_match,
	};

	return bucket_put(b, &put, ret);
}

/* The ETag that a get tells; some stores tell none in the reply to a put. */
static void contract_etag(struct bucket *b, const char *key,
			  char ret[BUCKET_ETAG_SIZE])
{
	struct bucket_info info;

	contract_assert_ok(bucket_head(b, key, &info));
	assert_true(info.etag[0] != '\0');
	memcpy(ret, info.etag, BUCKET_ETAG_SIZE);
}

static int contract_get(struct bucket *b, const char *key, uint64_t offset,
			uint64_t length, struct buf *ret)
{
	struct buf_sink sink;

	buf_sink_init(&sink, ret);
	return bucket_get(b, key, offset, length, NULL, &sink.sink, NULL);
}

static void contract_assert_holds(struct bucket *b, const char *key,
				  const char *text)
{
	AUTO(buf) struct buf got = BUF_INIT(1 << 20);

	contract_assert_ok(contract_get(b, key, 0, BUCKET_TO_END, &got));
	assert_int_equal(got.size, strlen(text));
	if (got.size)
		assert_string_equal(got.data, text);
}

/* Keys joined by spaces, as a list gave them. */
static int contract_join(const struct bucket_object *object, void *arg)
{
	return buf_printf(arg, "%s%s", ((struct buf *)arg)->size ? " " : "",
			  object->key);
}

static void contract_assert_lists(struct bucket *b, const char *prefix,
				  const char *after, size_t limit,
				  const char *expected)
{
	AUTO(buf) struct buf keys = BUF_INIT(1 << 20);

	contract_assert_ok(bucket_list(b, prefix, after, limit, contract_join,
				       &keys));
	assert_string_equal(keys.size ? keys.data : "", expected);
}

static void contract_put_all(struct bucket *b, const char *const keys[])
{
	for (; *keys; keys++)
		contract_assert_ok(contract_put(b, *keys, "x", NULL));
}

#endif
