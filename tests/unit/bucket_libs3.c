/*
 * The libs3 driver against a real store (see bucket_s3.c), with the libs3 that
 * the build found.
 */
#include <libgen.h>
#include <limits.h>

#include "bucket/libs3.h"
#include "bucket/s3.h"
#include "bucket/url.h"
#include "tests/unit/bucket_contract.h"
#include "tests/unit/bucket_store.h"

static struct bucket *contract_open(void)
{
	return store_open(bucket_libs3_new, store_new_prefix(),
			  "&driver=libs3");
}

static unsigned contract_keeps(void)
{
	return CONTRACT_META | CONTRACT_PUT_ETAG;
}

/* A test program is not beside the program that it tests. */
static bool name_plugin(void)
{
	char path[PATH_MAX + 64];
	char self[PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (length < 0)
		return false;
	self[length] = '\0';
	(void)snprintf(path, sizeof(path), "%s/../litebucket_libs3.so",
		       dirname(self));
	return access(path, R_OK) == 0 &&
	       setenv("LITEBUCKET_LIBS3", path, 1) == 0;
}

/* The errno, or 0 where this libs3 can do it. */
static int open_and_free(const char *text)
{
	AUTO(bucket_url) struct bucket_url url = { 0 };
	AUTO(bucket) struct bucket *b = NULL;

	contract_assert_ok(bucket_url_parse(text, &url));
	return bucket_libs3_new(&url, &b);
}

static void a_condition_is_refused_with_what_to_do(void **state)
{
	struct bucket *b = *state;
	struct bucket_info info;

	contract_assert_refused(contract_put_if(b, "k", "x", true, NULL, NULL),
				-EOPNOTSUPP);
	assert_non_null(strstr(error_message(), "driver=libs3"));
	contract_assert_refused(contract_put_if(b, "k", "x", false, "\"e\"",
						NULL), -EOPNOTSUPP);
	contract_assert_refused(bucket_head(b, "k", &info), -ENOENT);
}

static void what_libs3_put_the_other_driver_reads(void **state)
{
	const char *prefix = store_new_prefix();
	AUTO(bucket) struct bucket *libs3 =
		store_open(bucket_libs3_new, prefix, "&driver=libs3");
	AUTO(bucket) struct bucket *s3 = store_open(bucket_s3_new, prefix, "");

	contract_assert_ok(contract_put(libs3, "a=20/b", "theirs", NULL));
	contract_assert_holds(s3, "a=20/b", "theirs");
	contract_assert_lists(s3, "", NULL, 0, "a=20/b");
	contract_remove_all(s3);
}

static void a_session_token_that_would_be_dropped_is_refused(void **state)
{
	int rc;

	assert_int_equal(setenv("AWS_SESSION_TOKEN", "token", 1), 0);
	rc = open_and_free("s3://bucket/?endpoint=http://127.0.0.1:9&"
			   "driver=libs3");
	assert_int_equal(unsetenv("AWS_SESSION_TOKEN"), 0);
	/* libs3 4 can send it. */
	if (rc == 0)
		skip();
	contract_assert_refused(rc, -EOPNOTSUPP);
	assert_non_null(strstr(error_message(), "AWS_SESSION_TOKEN"));
}

static void https_without_verification_is_refused(void **state)
{
	int rc;

	assert_int_equal(unsetenv("AWS_CA_BUNDLE"), 0);
	rc = open_and_free("s3://bucket/?endpoint=https://127.0.0.1:9&"
			   "driver=libs3");

	/* libs3 4 verifies. */
	if (rc == 0)
		skip();
	contract_assert_refused(rc, -EOPNOTSUPP);
	assert_non_null(strstr(error_message(), "certificates"));
}

static void a_store_that_is_not_there_is_a_transient_error(void **state)
{
	AUTO(bucket) struct bucket *b = NULL;
	AUTO(buf) struct buf got = BUF_INIT(100);
	int rc;

	b = store_open_text(bucket_libs3_new,
			    "s3://bucket/?endpoint=http://127.0.0.1:9&"
			    "driver=libs3");
	rc = contract_get(b, "k", 0, BUCKET_TO_END, &got);
	contract_assert_refused(rc, -ECONNREFUSED);
	assert_true(bucket_transient(rc));
}

static void a_missing_shared_object_is_named(void **state)
{
	AUTO(mem) char *saved = strdup(getenv("LITEBUCKET_LIBS3"));
	int rc;

	assert_int_equal(setenv("LITEBUCKET_LIBS3", "/no/such.so", 1), 0);
	rc = open_and_free("s3://bucket/?endpoint=http://127.0.0.1:9&"
			   "driver=libs3");
	assert_int_equal(setenv("LITEBUCKET_LIBS3", saved, 1), 0);
	contract_assert_refused(rc, -EOPNOTSUPP);
	assert_non_null(strstr(error_message(), "/no/such.so"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		/* First: once loaded, it stays. */
		cmocka_unit_test(a_missing_shared_object_is_named),
		BUCKET_CONTRACT,
		CONTRACT_TEST(a_condition_is_refused_with_what_to_do),
		cmocka_unit_test(what_libs3_put_the_other_driver_reads),
		cmocka_unit_test(
			a_session_token_that_would_be_dropped_is_refused),
		cmocka_unit_test(https_without_verification_is_refused),
		cmocka_unit_test(
			a_store_that_is_not_there_is_a_transient_error),
	};
	int rc = store_missing();

	if (rc >= 0)
		return rc;
	if (!name_plugin()) {
		fprintf(stderr, "skipped: litebucket_libs3.so was not built "
				"(no libs3 here)\n");
		return getenv("CI") && *getenv("CI");
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
