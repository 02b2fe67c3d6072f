/*
 * Signatures against the examples that AWS publishes: the Signature Version 4
 * test suite, and the examples of "Authenticating Requests" in S3's
 * documentation.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>
#include <sys/mman.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "bucket/digest.h"
#include "bucket/sigv4.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define EMPTY_SHA256 \
	"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static const struct sigv4_key s3_key = {
	.access_key = "AKIAIOSFODNN7EXAMPLE",
	.secret_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
	.region = "us-east-1",
	.service = "s3",
};
static const char s3_time[] = "20130524T000000Z";

static void assert_signature(const struct sigv4_request *request,
			     const struct sigv4_key *key, const char *time,
			     const char *expected)
{
	AUTO(buf) struct buf got = BUF_INIT(4096);

	assert_int_equal(sigv4_authorize(request, key, time, &got), 0);
	assert_string_equal(got.data, expected);
}

static void get_vanilla_of_the_suite_is_signed_as_published(void **state)
{
	const struct sigv4_key key = {
		.access_key = "AKIDEXAMPLE",
		.secret_key = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
		.region = "us-east-1",
		.service = "service",
	};
	const struct sigv4_pair headers[] = {
		{ "host", "example.amazonaws.com" },
		{ "x-amz-date", "20150830T123600Z" },
	};
	const struct sigv4_request request = {
		.method = "GET",
		.path = "/",
		.query = "",
		.headers = headers,
		.n_headers = COUNT(headers),
		.body_sha256 = EMPTY_SHA256,
	};
	AUTO(buf) struct buf canonical = BUF_INIT(4096);

	assert_int_equal(sigv4_canonical(&request, &canonical), 0);
	assert_string_equal(canonical.data,
			    "GET\n/\n\n"
			    "host:example.amazonaws.com\n"
			    "x-amz-date:20150830T123600Z\n\n"
			    "host;x-amz-date\n" EMPTY_SHA256);
	assert_signature(
		&request, &key, "20150830T123600Z",
		"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/"
		"service/aws4_request, SignedHeaders=host;x-amz-date, "
		"Signature=5fa00fa31553b73ebf1942676e86291e"
		"8372ff2a2260956d9b8aae1d763fbf31");
}

static void get_of_a_range_is_signed_as_published(void **state)
{
	struct sigv4_pair headers[] = {
		{ "x-amz-date", s3_time },
		{ "x-amz-content-sha256", EMPTY_SHA256 },
		{ "range", "bytes=0-9" },
		{ "host", "examplebucket.s3.amazonaws.com" },
	};
	const struct sigv4_request request = {
		.method = "GET",
		.path = "/test.txt",
		.query = "",
		.headers = headers,
		.n_headers = COUNT(headers),
		.body_sha256 = EMPTY_SHA256,
	};

	sigv4_sort(headers, COUNT(headers));
	assert_signature(
		&request, &s3_key, s3_time,
		"AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/"
		"us-east-1/s3/aws4_request, SignedHeaders=host;range;"
		"x-amz-content-sha256;x-amz-date, "
		"Signature=f0e8bdb87c964420e857bd35b5d6ed31"
		"0bd44f0170aba48dd91039c6036bdb41");
}

static void put_of_an_object_is_signed_as_published(void **state)
{
	static const char body[] = "Welcome to Amazon S3.";
	struct digest digest;
	AUTO(buf) struct buf path = BUF_INIT(256);

	assert_int_equal(digest_body(body, -1, strlen(body), &digest), 0);
	assert_int_equal(sigv4_encode("/test$file.text", "/", &path), 0);
	assert_string_equal(path.data, "/test%24file.text");

	struct sigv4_pair headers[] = {
		{ "date", "Fri, 24 May 2013 00:00:00 GMT" },
		{ "host", "examplebucket.s3.amazonaws.com" },
		{ "x-amz-content-sha256", digest.sha256 },
		{ "x-amz-date", s3_time },
		{ "x-amz-storage-class", "REDUCED_REDUNDANCY" },
	};
	const struct sigv4_request request = {
		.method = "PUT",
		.path = path.data,
		.query = "",
		.headers = headers,
		.n_headers = COUNT(headers),
		.body_sha256 = digest.sha256,
	};
	assert_signature(
		&request, &s3_key, s3_time,
		"AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/"
		"us-east-1/s3/aws4_request, SignedHeaders=date;host;"
		"x-amz-content-sha256;x-amz-date;x-amz-storage-class, "
		"Signature=98ad721746da40c64f1a55b78f14c238"
		"d841ea1380cd77a1b5971af0ece108bd");
}

static void assert_bucket_get(struct sigv4_pair *query, size_t n,
			      const char *signature)
{
	const struct sigv4_pair headers[] = {
		{ "host", "examplebucket.s3.amazonaws.com" },
		{ "x-amz-content-sha256", EMPTY_SHA256 },
		{ "x-amz-date", s3_time },
	};
	AUTO(buf) struct buf text = BUF_INIT(256);
	AUTO(buf) struct buf expected = BUF_INIT(512);

	sigv4_sort(query, n);
	assert_int_equal(sigv4_query(query, n, &text), 0);
	const struct sigv4_request request = {
		.method = "GET",
		.path = "/",
		.query = text.data,
		.headers = headers,
		.n_headers = COUNT(headers),
		.body_sha256 = EMPTY_SHA256,
	};
	assert_int_equal(
		buf_printf(&expected, "AWS4-HMAC-SHA256 Credential="
			   "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/"
			   "aws4_request, SignedHeaders=host;"
			   "x-amz-content-sha256;x-amz-date, Signature=%s",
			   signature), 0);
	assert_signature(&request, &s3_key, s3_time, expected.data);
}

static void a_list_is_signed_as_published(void **state)
{
	struct sigv4_pair query[] = { { "prefix", "J" }, { "max-keys", "2" } };

	assert_bucket_get(query, COUNT(query),
			  "34b48302e7b5fa45bde8084f4b7868a8"
			  "6f0a534bc59db6670ed5711ef69dc6f7");
}

static void a_parameter_without_a_value_is_signed_as_published(void **state)
{
	struct sigv4_pair query[] = { { "lifecycle", "" } };

	assert_bucket_get(query, COUNT(query),
			  "fea454ca298b7da1c68078a5d1bdbfbb"
			  "e0d65c699e0f91ac7a200a0136783543");
}

static void all_but_unreserved_bytes_are_encoded(void **state)
{
	AUTO(buf) struct buf got = BUF_INIT(256);

	assert_int_equal(sigv4_encode("AZaz09-._~", "", &got), 0);
	assert_int_equal(sigv4_encode("/ +=%&\xc3\xa9", "", &got), 0);
	assert_int_equal(sigv4_encode("/a b", "/", &got), 0);
	assert_string_equal(got.data, "AZaz09-._~%2F%20%2B%3D%25%26%C3%A9"
				      "/a%20b");
}

static void a_time_is_written_as_the_header_wants_it(void **state)
{
	char text[SIGV4_TIME_SIZE];

	sigv4_time(1369353600999, text);
	assert_string_equal(text, s3_time);
}

static void a_body_is_digested_from_memory_and_from_a_file_alike(void **state)
{
	AUTO(fd) int fd = memfd_create("body", MFD_CLOEXEC);
	struct digest memory, file;

	assert_int_equal(io_pwrite(fd, "hello", 5, 0), 0);
	assert_int_equal(digest_body("hello", -1, 5, &memory), 0);
	assert_int_equal(digest_body(NULL, fd, 5, &file), 0);
	assert_memory_equal(&memory, &file, sizeof(memory));
	assert_string_equal(memory.md5, "XUFAKrxLKna5cZ2REBfFkg==");
	assert_int_equal(digest_body(NULL, fd, 6, &file), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			get_vanilla_of_the_suite_is_signed_as_published),
		cmocka_unit_test(get_of_a_range_is_signed_as_published),
		cmocka_unit_test(put_of_an_object_is_signed_as_published),
		cmocka_unit_test(a_list_is_signed_as_published),
		cmocka_unit_test(
			a_parameter_without_a_value_is_signed_as_published),
		cmocka_unit_test(all_but_unreserved_bytes_are_encoded),
		cmocka_unit_test(a_time_is_written_as_the_header_wants_it),
		cmocka_unit_test(
			a_body_is_digested_from_memory_and_from_a_file_alike),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
