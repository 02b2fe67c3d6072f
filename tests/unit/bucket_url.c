/* URLs of buckets: what they mean, what is refused, and what is not repeated. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "bucket/bucket.h"
#include "bucket/url.h"

static int clean_environment(void **state)
{
	static const char *const names[] = {
		"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_CA_BUNDLE",
		"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
		"AWS_SESSION_TOKEN",
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		(void)unsetenv(names[i]);
	return 0;
}

static struct bucket_url parsed(const char *text)
{
	struct bucket_url url = { 0 };

	if (bucket_url_parse(text, &url) < 0)
		fail_msg("%s: %s", text, error_message());
	assert_string_equal(url.text, text);
	return url;
}

static void a_file_url_is_an_absolute_path(void **state)
{
	static const struct {
		const char *text, *path;
	} cases[] = {
		{ "file:///var/backups", "/var/backups" },
		{ "file:///var/backups//", "/var/backups" },
		{ "file:///", "/" },
		{ "FILE:///a", "/a" },
		{ "file:///a%20b/%C3%bc%25", "/a b/\xc3\xbc%" },
		{ "file:///a+b&c=d@e", "/a+b&c=d@e" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		AUTO(bucket_url) struct bucket_url url = parsed(cases[i].text);

		assert_int_equal(url.scheme, BUCKET_FILE);
		assert_string_equal(url.path, cases[i].path);
	}
}

static void an_s3_url_is_a_name_and_a_prefix(void **state)
{
	static const struct {
		const char *text, *name, *prefix;
	} cases[] = {
		{ "s3://name", "name", "" },
		{ "s3://name/", "name", "" },
		{ "s3://name?region=eu-west-1", "name", "" },
		{ "s3://name/a", "name", "a" },
		{ "s3://name//a/b//", "name", "a/b" },
		{ "s3://My_old.name-1/a%2Fb", "My_old.name-1", "a/b" },
		{ "s3://name/my%20db?region=x", "name", "my db" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		AUTO(bucket_url) struct bucket_url url = parsed(cases[i].text);

		assert_int_equal(url.scheme, BUCKET_S3);
		assert_string_equal(url.name, cases[i].name);
		assert_string_equal(url.prefix, cases[i].prefix);
	}
}

static void parameters_say_where_and_how(void **state)
{
	AUTO(bucket_url) struct bucket_url url =
		parsed("s3://name/p?endpoint=http://127.0.0.1:9000&"
		       "region=eu-central-1&path-style=false&"
		       "ca-bundle=%2Fetc/ca.pem&driver=libs3");

	assert_string_equal(url.endpoint, "http://127.0.0.1:9000");
	assert_string_equal(url.region, "eu-central-1");
	assert_string_equal(url.ca_bundle, "/etc/ca.pem");
	assert_false(url.path_style);
	assert_true(url.libs3);
}

static void without_parameters_it_is_aws(void **state)
{
	AUTO(bucket_url) struct bucket_url url = parsed("s3://name/p");

	assert_null(url.endpoint);
	assert_null(url.ca_bundle);
	assert_string_equal(url.region, "us-east-1");
	assert_false(url.path_style);
	assert_false(url.libs3);
}

static void an_endpoint_means_path_style_unless_told(void **state)
{
	AUTO(bucket_url) struct bucket_url with =
		parsed("s3://name?endpoint=https://host");
	AUTO(bucket_url) struct bucket_url told =
		parsed("s3://name?path-style=false&endpoint=https://host");
	AUTO(bucket_url) struct bucket_url encoded =
		parsed("s3://name?region=x&endpoint=https%3A%2F%2Fhost%3a90");

	assert_true(with.path_style);
	assert_false(told.path_style);
	assert_true(encoded.path_style);
	assert_string_equal(encoded.endpoint, "https://host:90");
}

static void the_environment_gives_what_the_url_leaves_out(void **state)
{
	assert_int_equal(setenv("AWS_DEFAULT_REGION", "eu-north-1", 1), 0);
	assert_int_equal(setenv("AWS_CA_BUNDLE", "/env.pem", 1), 0);
	AUTO(bucket_url) struct bucket_url left = parsed("s3://name");
	AUTO(bucket_url) struct bucket_url given =
		parsed("s3://name?region=sa-east-1&ca-bundle=/own.pem");
	assert_int_equal(setenv("AWS_REGION", "eu-west-3", 1), 0);
	AUTO(bucket_url) struct bucket_url first = parsed("s3://name");

	assert_string_equal(left.region, "eu-north-1");
	assert_string_equal(left.ca_bundle, "/env.pem");
	assert_string_equal(given.region, "sa-east-1");
	assert_string_equal(given.ca_bundle, "/own.pem");
	assert_string_equal(first.region, "eu-west-3");
}

static void an_empty_variable_is_none(void **state)
{
	assert_int_equal(setenv("AWS_REGION", "", 1), 0);
	assert_int_equal(setenv("AWS_CA_BUNDLE", "", 1), 0);
	AUTO(bucket_url) struct bucket_url url = parsed("s3://name");

	assert_string_equal(url.region, "us-east-1");
	assert_null(url.ca_bundle);
}

static void wrong_urls_are_usage_errors_that_help(void **state)
{
	/* The text, and what the sentence must speak of. */
	static const struct {
		const char *text, *word;
	} cases[] = {
		{ "", "file:///PATH" },
		{ "/var/backups", "file:///PATH" },
		{ "http://host/x", "s3://NAME" },
		{ "file://host/path", "absolute" },
		{ "file://", "absolute" },
		{ "file:///a?b=c", "%3F" },
		{ "file:///a#b", "%23" },
		{ "file:///a%", "hex digits" },
		{ "file:///a%2", "hex digits" },
		{ "file:///a%zz", "hex digits" },
		{ "file:///a%00b", "control" },
		{ "file:///a%0Ab", "control" },
		{ "s3://", "name" },
		{ "s3:///prefix", "name" },
		{ "s3://ab", "name" },
		{ "s3://na%6de", "name" },
		{ "s3://na me", "name" },
		{ "s3://user:password@name", "AWS_ACCESS_KEY_ID" },
		{ "s3://host:9000/x", "name" },
		{ "s3://name/a//b", "prefix" },
		{ "s3://name/a/../b", "prefix" },
		{ "s3://name/./b", "prefix" },
		{ "s3://name/..", "prefix" },
		{ "s3://name/a%00", "control" },
		{ "s3://name?bucket=x", "'bucket'" },
		{ "s3://name?region", "needs a value" },
		{ "s3://name?region=", "region" },
		{ "s3://name?region=a b", "region" },
		{ "s3://name?region=a&region=b", "twice" },
		{ "s3://name?endpoint=host:9000", "https://" },
		{ "s3://name?endpoint=ftp://host", "https://" },
		{ "s3://name?endpoint=https://", "HOST" },
		{ "s3://name?endpoint=https://host/path", "HOST" },
		{ "s3://name?path-style=yes", "true or false" },
		{ "s3://name?driver=minio", "curl or libs3" },
		{ "s3://name?ca-bundle=", "ca-bundle" },
		{ "s3://name?&", "parameter" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct bucket_url url = { 0 };
		int rc = bucket_url_parse(cases[i].text, &url);

		if (rc != -ERR_USAGE)
			fail_msg("'%s' gave %d", cases[i].text, rc);
		if (!strstr(error_message(), cases[i].word))
			fail_msg("'%s': '%s' does not speak of '%s'",
				 cases[i].text, error_message(),
				 cases[i].word);
		assert_null(url.text);
	}
}

static void a_prefix_leaves_room_for_keys(void **state)
{
	char text[300] = "s3://name/";
	struct bucket_url url = { 0 };

	memset(text + 10, 'p', BUCKET_URL_PREFIX_MAX + 1);
	assert_int_equal(bucket_url_parse(text, &url), -ERR_USAGE);
	text[10 + BUCKET_URL_PREFIX_MAX] = '\0';
	url = parsed(text);
	bucket_url_clear(&url);
}

static void a_secret_in_a_wrong_place_is_not_repeated(void **state)
{
	static const char *const texts[] = {
		"s3://AKIAID:s3cr3t@name/prefix",
		"s3://AKIAs3cr3t@name",
		"s3://AKIA:s3cr3t/x",
		"s3://name?secret-key=s3cr3t",
		"s3://name?endpoint=https://user:s3cr3t@host",
		"s3://name?endpoint=https%3A%2F%2Fuser:s3cr3t%40host",
		"s3://name?region=s3cr3t!",
		"https://user:s3cr3t@host/bucket",
	};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct bucket_url url = { 0 };

		assert_int_equal(bucket_url_parse(texts[i], &url), -ERR_USAGE);
		if (strstr(error_message(), "s3cr3t"))
			fail_msg("repeated: %s", error_message());
	}
}

static void opening_needs_a_directory_or_credentials(void **state)
{
	struct bucket *b;

	assert_int_equal(bucket_open("nonsense", true, &b), -ERR_USAGE);
	assert_int_equal(bucket_open("file:///no/such/dir", false, &b),
			 -ENODEV);
	assert_non_null(strstr(error_message(), "/no/such/dir"));
	assert_int_equal(bucket_open("s3://name/prefix", true, &b), -EACCES);
	assert_non_null(strstr(error_message(), "AWS_ACCESS_KEY_ID"));
}

int main(void)
{
#define URL_TEST(name) cmocka_unit_test_setup(name, clean_environment)
	const struct CMUnitTest tests[] = {
		URL_TEST(a_file_url_is_an_absolute_path),
		URL_TEST(an_s3_url_is_a_name_and_a_prefix),
		URL_TEST(parameters_say_where_and_how),
		URL_TEST(without_parameters_it_is_aws),
		URL_TEST(an_endpoint_means_path_style_unless_told),
		URL_TEST(the_environment_gives_what_the_url_leaves_out),
		URL_TEST(an_empty_variable_is_none),
		URL_TEST(wrong_urls_are_usage_errors_that_help),
		URL_TEST(a_prefix_leaves_room_for_keys),
		URL_TEST(a_secret_in_a_wrong_place_is_not_repeated),
		URL_TEST(opening_needs_a_directory_or_credentials),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
