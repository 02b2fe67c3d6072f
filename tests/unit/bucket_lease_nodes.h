#ifndef LITEBUCKET_TESTS_UNIT_BUCKET_LEASE_NODES_H
#define LITEBUCKET_TESTS_UNIT_BUCKET_LEASE_NODES_H

/*
 * Two nodes that want the lease of one bucket, each with a network of its own
 * to it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ftw.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/stream.h"
#include "bucket/bucket.h"
#include "bucket/lease.h"
#include "bucket/url.h"
#include "tests/lib/fault_bucket.h"

enum {
	HOUR_MS = 3600000
};

struct two {
	char dir[64];
	struct bucket *bucket;
	struct fault_bucket net[2];
	struct lease *a, *b;
};

static inline struct lease *lease_of(struct bucket *bucket, const char *owner)
{
	const struct lease_config config = {
		.bucket = bucket,
		.owner = owner,
		.url = "http://here:8080",
	};
	struct lease *l;

	assert_int_equal(lease_new(&config, &l), 0);
	return l;
}

static inline int set_up(void **state)
{
	struct two *t = calloc(1, sizeof(*t));
	char url[96];

	assert_non_null(t);
	strcpy(t->dir, "/tmp/litebucket-lease-XXXXXX");
	assert_non_null(mkdtemp(t->dir));
	snprintf(url, sizeof(url), "file://%s", t->dir);
	assert_int_equal(bucket_open(url, true, &t->bucket), 0);
	for (int i = 0; i < 2; i++) {
		fault_init(&t->net[i], t->bucket);
		fault_set(&t->net[i], has_clock, true);
	}
	t->a = lease_of(&t->net[0].bucket, "a");
	t->b = lease_of(&t->net[1].bucket, "b");
	*state = t;
	return 0;
}

static inline int remove_one(const char *path, const struct stat *st, int type,
		      struct FTW *walk)
{
	return remove(path);
}

static inline int tear_down(void **state)
{
	struct two *t = *state;

	lease_free(t->a);
	lease_free(t->b);
	bucket_free(&t->net[0].bucket);
	bucket_free(&t->net[1].bucket);
	bucket_free(t->bucket);
	nftw(t->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	free(t);
	return 0;
}

static inline struct lease_state state_of(const struct lease *l)
{
	struct lease_state s;

	lease_state(l, &s);
	return s;
}

static inline void assert_says(const char *part)
{
	if (!strstr(error_message(), part))
		fail_msg("'%s' does not say '%s'", error_message(), part);
}

static inline void assert_held(const struct lease *l, uint64_t epoch)
{
	struct lease_state s = state_of(l);

	assert_true(s.held);
	assert_false(s.free);
	assert_int_equal(s.epoch, epoch);
	assert_true(s.safe_until_ms > clock_monotonic_ms());
	assert_true(s.safe_until_ms <= clock_monotonic_ms() + LEASE_TTL_MS);
	/* The store's clock may have been 1 s further than it said. */
	assert_true(s.safe_until_ms >
		    clock_monotonic_ms() + LEASE_TTL_MS - 4000);
}

static inline void assert_not_held(const struct lease *l)
{
	assert_false(state_of(l).held);
	assert_int_equal(state_of(l).safe_until_ms, 0);
}

static inline void record_now(struct two *t, struct buf *ret)
{
	struct buf_sink sink;

	buf_sink_init(&sink, ret);
	assert_int_equal(bucket_get(t->bucket, LEASE_KEY, 0, BUCKET_TO_END,
				    NULL, &sink.sink, NULL), 0);
}

static inline void put_record(struct two *t, const char *text)
{
	const struct bucket_put put = {
		.key = LEASE_KEY,
		.data = text,
		.size = strlen(text),
	};

	assert_int_equal(bucket_put(t->bucket, &put, NULL), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif
