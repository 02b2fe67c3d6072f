#ifndef LITEBUCKET_TESTS_UNIT_BUCKET_STORE_H
#define LITEBUCKET_TESTS_UNIT_BUCKET_STORE_H

/*
 * The real store that tests of S3 drivers use: the bucket that
 * LITEBUCKET_TEST_S3_URL names.  It is shared, so each test has a prefix of
 * its own in it.  Included after cmocka.h and what that needs.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/io.h"
#include "bucket/bucket.h"
#include "bucket/url.h"

#define STORE_VARIABLE "LITEBUCKET_TEST_S3_URL"

typedef int (*store_new_fn)(const struct bucket_url *url, struct bucket **ret);

static inline void needs_a_real_s3_store(void **state)
{
	skip();
}

/*
 * -1: there is one.  Else what main() should return, after saying so: a
 * skipped test, or under CI a failure.
 */
static inline int store_missing(void)
{
	const struct CMUnitTest skipped[] = {
		cmocka_unit_test(needs_a_real_s3_store),
	};
	const char *ci = getenv("CI");

	if (getenv(STORE_VARIABLE))
		return -1;
	fprintf(stderr, "skipped: " STORE_VARIABLE " does not name a bucket of "
			"a real S3 store (tests/lib/rgw.sh starts one)\n");
	return ci && *ci ? 1
			 : cmocka_run_group_tests(skipped, NULL, NULL);
}

/* Lives until the next call. */
static inline const char *store_new_prefix(void)
{
	static _Thread_local char prefix[2][32];
	static _Thread_local int which;
	uint64_t nonce;

	io_random(&nonce, sizeof(nonce));
	which = !which;
	(void)snprintf(prefix[which], sizeof(prefix[which]),
		       "unit-%016" PRIx64, nonce);
	return prefix[which];
}

static inline struct bucket *store_open_text(store_new_fn new_bucket,
					     const char *text)
{
	AUTO(bucket_url) struct bucket_url url = { 0 };
	struct bucket *b = NULL;

	if (bucket_url_parse(text, &url) < 0 || new_bucket(&url, &b) < 0) {
		fprintf(stderr, "%s\n", error_message());
		abort();
	}
	return b;
}

/* s3://NAME + prefix + parameters; the variable's, where name is NULL. */
static inline struct bucket *store_open_as(store_new_fn new_bucket,
					   const char *name, const char *prefix,
					   const char *parameter)
{
	const char *given = getenv(STORE_VARIABLE) + strlen("s3://");
	const char *parameters = strchr(given, '?');
	int name_size = (int)strcspn(given, "/?");
	char text[1024];

	(void)snprintf(text, sizeof(text), "s3://%.*s/%s%s%s",
		       name ? (int)strlen(name) : name_size,
		       name ? name : given, prefix,
		       parameters ? parameters : "?", parameter);
	return store_open_text(new_bucket, text);
}

static inline struct bucket *store_open(store_new_fn new_bucket,
					const char *prefix,
					const char *parameter)
{
	return store_open_as(new_bucket, NULL, prefix, parameter);
}

static inline struct bucket *store_open_named(store_new_fn new_bucket,
					      const char *name)
{
	return store_open_as(new_bucket, name, "", "");
}

#endif
