/*
 * The S3 driver against a real store.
 *
 * LITEBUCKET_TEST_S3_URL names it, a bucket that exists, and AWS_ACCESS_KEY_ID
 * and AWS_SECRET_ACCESS_KEY who we are; tests/lib/rgw.sh starts one.  Without
 * it the program says so and is skipped, except under CI, where it must run.
 */
#include "bucket/s3.h"
#include "bucket/s3_request.h"
#include "bucket/url.h"
#include "tests/unit/bucket_contract.h"
#include "tests/unit/bucket_store.h"

static struct bucket *open_at(const char *prefix, const char *parameter)
{
	return store_open(bucket_s3_new, prefix, parameter);
}

static struct bucket *contract_open(void)
{
	return open_at(store_new_prefix(), "");
}

static unsigned contract_keeps(void)
{
	return CONTRACT_ALL;
}

static int head_fails(struct bucket *b)
{
	struct bucket_info info;

	return bucket_head(b, "k", &info);
}

static int get_fails(struct bucket *b)
{
	AUTO(buf) struct buf got = BUF_INIT(100);

	return contract_get(b, "k", 0, BUCKET_TO_END, &got);
}

static void a_wrong_secret_is_eacces_and_says_what_to_check(void **state)
{
	const char *secret = getenv("AWS_SECRET_ACCESS_KEY");
	AUTO(mem) char *saved = strdup(secret);
	AUTO(bucket) struct bucket *b = NULL;

	assert_int_equal(setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret", 1),
			 0);
	b = open_at("x", "");
	assert_int_equal(setenv("AWS_SECRET_ACCESS_KEY", saved, 1), 0);
	contract_assert_refused(get_fails(b), -EACCES);
	assert_non_null(strstr(error_message(), "AWS_SECRET_ACCESS_KEY"));
	assert_null(strstr(error_message(), "not-the-secret"));
	contract_assert_refused(head_fails(b), -EACCES);
}

static void an_unknown_access_key_is_eacces_and_says_what_to_check(void **state)
{
	AUTO(mem) char *saved = strdup(getenv("AWS_ACCESS_KEY_ID"));
	AUTO(bucket) struct bucket *b = NULL;

	assert_int_equal(setenv("AWS_ACCESS_KEY_ID", "NOBODYSKEY", 1), 0);
	b = open_at("x", "");
	assert_int_equal(setenv("AWS_ACCESS_KEY_ID", saved, 1), 0);
	contract_assert_refused(get_fails(b), -EACCES);
	assert_non_null(strstr(error_message(), "AWS_ACCESS_KEY_ID"));
}

static void without_credentials_nothing_is_opened(void **state)
{
	AUTO(mem) char *saved = strdup(getenv("AWS_ACCESS_KEY_ID"));
	AUTO(bucket_url) struct bucket_url url = { 0 };
	struct bucket *b;
	int rc;

	contract_assert_ok(bucket_url_parse(getenv(STORE_VARIABLE), &url));
	assert_int_equal(unsetenv("AWS_ACCESS_KEY_ID"), 0);
	rc = bucket_s3_new(&url, &b);
	assert_int_equal(setenv("AWS_ACCESS_KEY_ID", saved, 1), 0);
	contract_assert_refused(rc, -EACCES);
	assert_non_null(strstr(error_message(), "AWS_ACCESS_KEY_ID"));
}

static void a_bucket_that_does_not_exist_is_enodev(void **state)
{
	AUTO(bucket) struct bucket *b =
		store_open_named(bucket_s3_new, "no-such-bucket-here");
	AUTO(buf) struct buf keys = BUF_INIT(100);

	contract_assert_refused(get_fails(b), -ENODEV);
	assert_non_null(strstr(error_message(), "no-such-bucket-here"));
	contract_assert_refused(bucket_list(b, "", NULL, 0, contract_join,
					    &keys), -ENODEV);
	contract_assert_refused(contract_put(b, "k", "x", NULL), -ENODEV);
	contract_assert_refused(contract_put_if(b, "k", "x", true, NULL, NULL),
				-ENODEV);
	contract_assert_refused(bucket_remove(b, (const char *[]){ "k" }, 1),
				-ENODEV);
}

static void a_body_that_was_damaged_on_its_way_is_refused(void **state)
{
	struct bucket *b = *state;
	AUTO(fd) int fd = memfd_create("body", MFD_CLOEXEC);
	const struct bucket_put put = { .key = "k", .fd = fd, .size = 100 };
	struct bucket_info info;

	/* Shorter than it says: sent, it would be another body. */
	assert_int_equal(io_pwrite(fd, "short", 5, 0), 0);
	contract_assert_refused(bucket_put(b, &put, NULL), -EINVAL);
	contract_assert_refused(bucket_head(b, "k", &info), -ENOENT);
}

static void keys_below_another_prefix_are_not_seen(void **state)
{
	struct bucket *b = *state;
	const char *other = store_new_prefix();
	AUTO(bucket) struct bucket *elsewhere = open_at(other, "");

	contract_assert_ok(contract_put(elsewhere, "k", "theirs", NULL));
	contract_assert_lists(b, "", NULL, 0, "");
	contract_assert_refused(get_fails(b), -ENOENT);
	contract_assert_ok(contract_put(b, "k", "mine", NULL));
	contract_assert_holds(elsewhere, "k", "theirs");
	contract_remove_all(elsewhere);
}

static void a_prefix_of_odd_bytes_is_signed_right(void **state)
{
	char prefix[128];
	AUTO(bucket) struct bucket *b = NULL;

	(void)snprintf(prefix, sizeof(prefix), "%s/a%%20b%%26%%3C%%2B%%25%%C3%%A9",
		       store_new_prefix());
	b = open_at(prefix, "");
	contract_assert_ok(contract_put(b, "k", "x", NULL));
	contract_assert_holds(b, "k", "x");
	contract_assert_lists(b, "", NULL, 0, "k");
	contract_remove_all(b);
	contract_assert_lists(b, "", NULL, 0, "");
}

/* Only a name can have a name in front of it: needs a store on this machine. */
static void virtual_host_style_reaches_the_same_objects(void **state)
{
	const char *given = getenv(STORE_VARIABLE);
	const char *address = strstr(given, "127.0.0.1");
	const char *prefix = store_new_prefix();
	AUTO(bucket) struct bucket *by_path = open_at(prefix, "");
	AUTO(bucket) struct bucket *by_host = NULL;
	char text[1024];

	if (!address)
		skip();
	(void)snprintf(text, sizeof(text), "s3://%.*s/%s?endpoint=http://"
		       "localhost%s&path-style=false",
		       (int)strcspn(given + 5, "/?"), given + 5, prefix,
		       address + strlen("127.0.0.1"));
	by_host = store_open_text(bucket_s3_new, text);
	contract_assert_ok(contract_put(by_host, "k", "x", NULL));
	contract_assert_holds(by_path, "k", "x");
	contract_assert_lists(by_host, "", NULL, 0, "k");
	contract_remove_all(by_host);
}

/* One request to the bucket itself, with our own signature. */
static int ask_bucket(const struct s3_store *store, const char *method,
		      const char *parameter, const char *text)
{
	AUTO(http_response) struct http_response response = { 0 };
	struct s3_request request = s3_request(store, method, NULL);
	struct http_body body = { .data = text, .size = strlen(text) };

	if (parameter)
		s3_request_query(&request, parameter, "");
	request.body = &body;
	return s3_request_send(&request, clock_wall_ms(), &response);
}

/*
 * A new bucket in which the store keeps old versions; its name into ret.  It
 * stays, as its versions do.  Some stores cannot: -EOPNOTSUPP.
 */
static int make_versioned_bucket(char ret[64])
{
	AUTO(bucket_url) struct bucket_url url = { 0 };
	AUTO(s3_store) struct s3_store *store = NULL;

	(void)snprintf(ret, 64, "versioned-%s", store_new_prefix());
	contract_assert_ok(bucket_url_parse(getenv(STORE_VARIABLE), &url));
	free(url.name);
	url.name = strdup(ret);
	contract_assert_ok(s3_store_new(&url, &store));
	contract_assert_ok(ask_bucket(store, "PUT", NULL, ""));
	return ask_bucket(store, "PUT", "versioning",
			  "<VersioningConfiguration><Status>Enabled</Status>"
			  "</VersioningConfiguration>");
}

/* Ceph 16 ignores conditions in a versioned bucket; others keep them. */
static void the_probe_is_right_about_a_versioned_bucket_too(void **state)
{
	AUTO(bucket) struct bucket *b = NULL;
	char name[64], etag[BUCKET_ETAG_SIZE];
	unsigned caps;
	int rc;

	rc = make_versioned_bucket(name);
	if (rc == -EOPNOTSUPP)
		skip();
	contract_assert_ok(rc);
	b = store_open_named(bucket_s3_new, name);
	contract_assert_ok(bucket_probe(b, &caps));
	contract_assert_ok(contract_put_if(b, "slot", "1", true, NULL, NULL));
	rc = contract_put_if(b, "slot", "2", true, NULL, NULL);
	assert_int_equal(rc, caps & BUCKET_IF_ABSENT ? -ERR_PRECOND : 0);
	contract_etag(b, "slot", etag);
	rc = contract_put_if(b, "slot", "3", false, etag, NULL);
	assert_int_equal(rc, caps & BUCKET_IF_MATCH ? 0 : -EOPNOTSUPP);
}

/* A late packet: stores take none that was signed more than 15 minutes ago. */
/* The store refuses it, and its answer tells the time that it takes. */
static void a_put_by_a_wrong_clock_is_signed_by_the_stores(void **state)
{
	const int64_t hour_ms = 3600000;
	AUTO(bucket_url) struct bucket_url url = { 0 };
	AUTO(s3_store) struct s3_store *store = NULL;
	struct http_body body = { .data = "late", .size = 4 };
	struct s3_request request;

	contract_assert_ok(bucket_url_parse(getenv(STORE_VARIABLE), &url));
	contract_assert_ok(s3_store_new(&url, &store));
	request = s3_request(store, "PUT", "late");
	request.body = &body;
	for (int i = -1; i <= 1; i++) {
		AUTO(http_response) struct http_response response = { 0 };

		contract_assert_ok(s3_request_send(
			&request, clock_wall_ms() + i * hour_ms, &response));
		assert_in_range(*store->clock_ms + i * hour_ms + hour_ms / 4, 0,
				hour_ms / 2);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BUCKET_CONTRACT,
		CONTRACT_TEST(a_body_that_was_damaged_on_its_way_is_refused),
		CONTRACT_TEST(keys_below_another_prefix_are_not_seen),
		cmocka_unit_test(a_prefix_of_odd_bytes_is_signed_right),
		cmocka_unit_test(virtual_host_style_reaches_the_same_objects),
		cmocka_unit_test(
			a_wrong_secret_is_eacces_and_says_what_to_check),
		cmocka_unit_test(
			an_unknown_access_key_is_eacces_and_says_what_to_check),
		cmocka_unit_test(without_credentials_nothing_is_opened),
		cmocka_unit_test(a_bucket_that_does_not_exist_is_enodev),
		cmocka_unit_test(
			the_probe_is_right_about_a_versioned_bucket_too),
		cmocka_unit_test(a_put_by_a_wrong_clock_is_signed_by_the_stores),
	};
	int rc = store_missing();

	return rc >= 0 ? rc : cmocka_run_group_tests(tests, NULL, NULL);
}
