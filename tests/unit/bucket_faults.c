/* The S3 driver and its HTTP client against a store that fails and lies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/stream.h"
#include "bucket/bucket.h"
#include "bucket/http.h"
#include "bucket/patience.h"
#include "bucket/s3.h"
#include "bucket/url.h"
#include "tests/unit/http_script.h"

#define ERROR(code) "<?xml version=\"1.0\"?><Error><Code>" code "</Code>" \
		    "<Message>words of the store</Message></Error>"
#define PAGE(token, key)                                                  \
	"<ListBucketResult><IsTruncated>true</IsTruncated>"               \
	"<NextContinuationToken>" token "</NextContinuationToken>"        \
	"<Contents><Key>" key "</Key><Size>1</Size></Contents>"           \
	"</ListBucketResult>"

#define STATUS(status_)	      { .status = (status_) }
#define BODY(status_, body_)  { .status = (status_), .body = (body_) }
#define REPLY(status_, headers_, body_) \
	{ .status = (status_), .headers = (headers_), .body = (body_) }

#define SECRET "the-secret-key"

static struct bucket *open_at(const char *host, int port)
{
	AUTO(bucket_url) struct bucket_url url = { 0 };
	struct bucket *b = NULL;
	char text[512];

	(void)snprintf(text, sizeof(text), "s3://bucket/?endpoint=http://%s:%d",
		       host, port);
	assert_int_equal(setenv("AWS_ACCESS_KEY_ID", "the-access-key", 1), 0);
	assert_int_equal(setenv("AWS_SECRET_ACCESS_KEY", SECRET, 1), 0);
	assert_int_equal(unsetenv("AWS_SESSION_TOKEN"), 0);
	assert_int_equal(bucket_url_parse(text, &url), 0);
	if (bucket_s3_new(&url, &b) < 0)
		fail_msg("%s", error_message());
	return b;
}

static struct bucket *open_script(struct script *script,
				  const struct script_step *steps, size_t n)
{
	script_start(script, steps, n);
	return open_at("127.0.0.1", script->port);
}

/* The operations, all on the key "k". */

static int do_get(struct bucket *b)
{
	AUTO(buf) struct buf got = BUF_INIT(1000);
	struct buf_sink sink;

	buf_sink_init(&sink, &got);
	return bucket_get(b, "k", 0, BUCKET_TO_END, NULL, &sink.sink, NULL);
}

static int do_range(struct bucket *b)
{
	AUTO(buf) struct buf got = BUF_INIT(1000);
	struct buf_sink sink;
	int rc;

	buf_sink_init(&sink, &got);
	rc = bucket_get(b, "k", 5, 3, NULL, &sink.sink, NULL);
	/* Never a byte that was not asked for. */
	assert_true(got.size == 0 || rc == 0);
	return rc;
}

static int do_head(struct bucket *b)
{
	struct bucket_info info;

	return bucket_head(b, "k", &info);
}

static int put(struct bucket *b, bool if_absent, const char *text)
{
	const struct bucket_put put = {
		.key = "k",
		.data = text,
		.fd = -1,
		.size = strlen(text),
		.if_absent = if_absent,
	};

	return bucket_put(b, &put, NULL);
}

static int do_put(struct bucket *b)
{
	return put(b, false, "body");
}

static int do_slot(struct bucket *b)
{
	return put(b, true, "body");
}

static int ignore_object(const struct bucket_object *object, void *arg)
{
	return 0;
}

static int do_list(struct bucket *b)
{
	return bucket_list(b, "", NULL, 0, ignore_object, NULL);
}

static int do_remove(struct bucket *b)
{
	return bucket_remove(b, (const char *[]){ "k", "l" }, 2);
}

struct answer {
	int (*operation)(struct bucket *b);
	struct script_step step;
	int rc;
	const char *says;
};

static void assert_answer(const struct answer *a)
{
	struct script script;
	struct bucket *b = open_script(&script, &a->step, 1);
	int rc = a->operation(b);

	script_stop(&script);
	bucket_free(b);
	if (rc != a->rc || !strstr(error_message(), a->says))
		fail_msg("got %d '%s', expected %d '%s'", rc, error_message(),
			 a->rc, a->says);
	/* Once more by the store's clock. */
	assert_int_equal(script.requests,
			 strstr(a->says, "set the clock") ? 2 : 1);
	assert_null(strstr(error_message(), SECRET));
	for (const char *p = error_message(); *p; p++)
		assert_true(*p >= ' ');
}

#define assert_answers(answers)                                              \
	do {                                                                 \
		for (size_t i_ = 0; i_ < sizeof(answers) / sizeof(*answers); \
		     i_++)                                                   \
			assert_answer(&(answers)[i_]);                       \
	} while (0)

static void what_may_pass_is_transient_and_tried_once(void **state)
{
	static const struct answer answers[] = {
		{ do_get, BODY(503, ERROR("SlowDown")), -EAGAIN,
		  "SlowDown: words of the store" },
		{ do_put, BODY(500, ERROR("InternalError")), -EAGAIN,
		  "InternalError" },
		{ do_list, BODY(502, "<html>bad gateway"), -EAGAIN,
		  "HTTP status 502" },
		{ do_head, STATUS(429), -EAGAIN, "429" },
		{ do_remove, STATUS(408), -EAGAIN, "408" },
		{ do_slot,
		  BODY(409, ERROR("ConditionalRequestConflict")),
		  -EAGAIN, "ConditionalRequestConflict" },
		{ do_put, { .lost = true }, -ECONNRESET, "connection broke" },
		{ do_slot, { .lost = true }, -ECONNRESET, "connection broke" },
		{ do_get, { .status = 200, .body = "short", .claim = 100 }, -ECONNRESET,
		  "connection broke" },
	};

	assert_answers(answers);
	for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++)
		assert_true(bucket_transient(answers[i].rc));
}

static void conditions_and_absence_have_their_errnos(void **state)
{
	static const struct answer answers[] = {
		{ do_slot, BODY(412, ERROR("PreconditionFailed")),
		  -ERR_PRECOND, "another object" },
		{ do_slot, STATUS(412), -ERR_PRECOND, "another object" },
		{ do_slot, BODY(404, ERROR("NoSuchKey")), -ERR_PRECOND,
		  "no such object" },
		{ do_slot, BODY(404, ERROR("NoSuchBucket")), -ENODEV,
		  "no bucket 'bucket'" },
		{ do_slot, BODY(501, ERROR("NotImplemented")),
		  -EOPNOTSUPP, "on condition" },
		{ do_get, BODY(404, ERROR("NoSuchKey")), -ENOENT,
		  "no such object" },
		{ do_head, STATUS(404), -ENOENT, "no such object" },
		{ do_get, BODY(404, ERROR("NoSuchBucket")), -ENODEV,
		  "no bucket 'bucket'" },
		{ do_list, BODY(404, ERROR("NoSuchBucket")), -ENODEV,
		  "no bucket 'bucket'" },
		{ do_range, BODY(416, ERROR("InvalidRange")), -ERANGE,
		  "beyond" },
	};

	assert_answers(answers);
}

static void a_refusal_says_what_to_check(void **state)
{
	static const struct answer answers[] = {
		{ do_get, BODY(403, ERROR("SignatureDoesNotMatch")),
		  -EACCES, "AWS_SECRET_ACCESS_KEY" },
		{ do_get, BODY(403, ERROR("InvalidAccessKeyId")),
		  -EACCES, "AWS_ACCESS_KEY_ID" },
		{ do_get, BODY(404, ERROR("XAdminUserNotFound")),
		  -EACCES, "AWS_ACCESS_KEY_ID" },
		{ do_put, BODY(403, ERROR("AccessDenied")), -EACCES,
		  "permission" },
		{ do_head, STATUS(403), -EACCES, "permission" },
		{ do_head,
		  REPLY(403, "Date: Tue, 02 Jan 2024 03:04:05 GMT\r\n", NULL),
		  -EACCES, "set the clock" },
		{ do_get, BODY(400, ERROR("ExpiredToken")), -EACCES,
		  "AWS_SESSION_TOKEN" },
		{ do_get,
		  REPLY(403, "Date: Tue, 02 Jan 2024 03:04:05 GMT\r\n",
		    ERROR("RequestTimeTooSkewed")),
		  -EACCES, "2024-01-02T03:04:05.000Z there; set the clock" },
		{ do_get,
		  REPLY(400, NULL,
		    "<Error><Code>AuthorizationHeaderMalformed</Code>"
		    "<Region>eu-north-1</Region></Error>"),
		  -EINVAL, "?region=eu-north-1" },
		{ do_list,
		  REPLY(301, "x-amz-bucket-region: eu-west-3\r\n",
		    ERROR("IllegalLocationConstraintException")),
		  -EINVAL, "?region=eu-west-3" },
		{ do_put,
		  REPLY(307, "Location: https://elsewhere.example/k\r\n",
		    ERROR("TemporaryRedirect")),
		  -EINVAL, "https://elsewhere.example/k" },
		{ do_head, REPLY(301, "x-amz-bucket-region: eu-west-3\r\n", NULL),
		  -EINVAL, "?region=eu-west-3" },
		{ do_get, BODY(400, ERROR("Strange\xc2\x9b\n")), -EPROTO,
		  "Strange???" },
	};

	assert_answers(answers);
}

static void what_is_no_s3_store_is_not_believed(void **state)
{
	static const struct answer answers[] = {
		/* Not -ENOENT: that would be the end of the log. */
		{ do_get, BODY(404, "<html>not found</html>"), -EPROTO,
		  "S3 store?" },
		{ do_get, STATUS(404), -EPROTO, "S3 store?" },
		{ do_list, BODY(200, "<html><p>hello</p></html>"),
		  -ERR_CORRUPT, "it is a html" },
		{ do_list, STATUS(200), -ERR_CORRUPT, "empty" },
		{ do_list,
		  REPLY(200, NULL,
		    "<!DOCTYPE l [<!ENTITY a \"aaaa\">]><ListBucketResult>"
		    "<Contents><Key>&a;</Key></Contents></ListBucketResult>"),
		  -ERR_CORRUPT, "DOCTYPE" },
		{ do_range, BODY(200, "the whole object"), -EOPNOTSUPP,
		  "ignores ranges" },
		{ do_range,
		  REPLY(206, "Content-Range: bytes 0-2/9\r\n", "abc"), -EPROTO,
		  "another range" },
		{ do_range, BODY(206, "abc"), -EPROTO, "another range" },
	};

	assert_answers(answers);
}

static void a_deletion_that_failed_for_one_key_is_a_failure(void **state)
{
	static const struct answer answers[] = {
		{ do_remove,
		  REPLY(200, NULL,
		    "<DeleteResult><Error><Key>l</Key><Code>AccessDenied"
		    "</Code></Error></DeleteResult>"),
		  -EACCES, "'l'" },
		{ do_remove, BODY(200, ERROR("InternalError")), -EAGAIN,
		  "InternalError" },
		{ do_remove, BODY(200, "<html/>"), -ERR_CORRUPT,
		  "cannot be read" },
	};

	assert_answers(answers);
}

static void a_list_without_an_end_is_an_error(void **state)
{
	static const struct script_step same_token[] = {
		BODY(200, PAGE("t", "a")),
		BODY(200, PAGE("t", "b")),
	};
	static const struct script_step same_keys[] = {
		BODY(200, PAGE("t", "a")),
		BODY(200, PAGE("u", "a")),
	};
	static const struct script_step no_token[] = {
		BODY(200, "<ListBucketResult><IsTruncated>true"
			  "</IsTruncated></ListBucketResult>"),
	};
	static const struct {
		const struct script_step *steps;
		size_t n;
		const char *says;
	} cases[] = {
		{ same_token, 2, "but not where" },
		{ same_keys, 2, "ascending" },
		{ no_token, 1, "but not where" },
	};

	for (int i = 0; i < 3; i++) {
		struct script script;
		struct bucket *b = open_script(&script, cases[i].steps,
					       cases[i].n);

		assert_int_equal(do_list(b), -EPROTO);
		assert_non_null(strstr(error_message(), cases[i].says));
		script_stop(&script);
		assert_int_equal(script.requests, cases[i].n);
		bucket_free(b);
	}
}

/* libcurl must not send a put again when a kept connection was dead. */
static void assert_sent_once(const char *body)
{
	static const struct script_step steps[] = {
		{ .status = 200, .keep = true },
		{ .lost = true },
		BODY(412, ERROR("PreconditionFailed")),
	};
	struct script script;
	struct bucket *b = open_script(&script, steps, 3);
	int rc;

	assert_int_equal(put(b, false, "first"), 0);
	rc = put(b, true, body);
	assert_true(bucket_transient(rc));
	/* And what failed once does not fail for ever. */
	assert_int_equal(put(b, true, body), -EEXIST);
	bucket_free(b);
	script_stop(&script);
	assert_int_equal(script.requests, 3);
}

static void a_put_on_a_dead_connection_is_not_sent_again(void **state)
{
	assert_sent_once("body");
	/* Nothing to rewind: that alone would not keep libcurl from it. */
	assert_sent_once("");
}

static void a_get_tells_what_it_reads_before_the_first_byte(void **state)
{
	static const struct script_step step = {
		.status = 206,
		.headers = "Content-Range: bytes 5-7/1000\r\nETag: \"e\"\r\n"
		"Date: Tue, 02 Jan 2024 03:04:05 GMT\r\n"
		"Last-Modified: Tue, 02 Jan 2024 03:04:04 GMT\r\n"
		"X-Amz-Meta-Litebucket-Pre: abc\r\n",
		.body = "ab",
		.claim = 3,
	};
	struct script script;
	struct bucket *b = open_script(&script, &step, 1);
	AUTO(buf) struct buf got = BUF_INIT(1000);
	struct bucket_info info;
	struct buf_sink sink;

	buf_sink_init(&sink, &got);
	assert_int_equal(bucket_get(b, "k", 5, 3, NULL, &sink.sink, &info),
			 -ECONNRESET);
	script_stop(&script);
	bucket_free(b);
	assert_string_equal(got.data, "ab");
	assert_int_equal(info.size, 1000);
	assert_string_equal(info.etag, "\"e\"");
	assert_true(info.date_ms == 1704164645000);
	assert_true(info.modified_ms == 1704164644000);
	assert_string_equal(bucket_info_meta(&info, "litebucket-pre"), "abc");
	assert_non_null(strstr(script.last, "\r\nrange: bytes=5-7\r\n"));
}

static void a_small_put_asks_nothing_and_tells_its_digests(void **state)
{
	static const struct script_step step = STATUS(200);
	struct script script;
	struct bucket *b = open_script(&script, &step, 1);

	assert_int_equal(put(b, true, "hello"), 0);
	script_stop(&script);
	bucket_free(b);
	assert_non_null(strstr(script.last, "PUT /bucket/k HTTP/1.1\r\n"));
	assert_null(strcasestr(script.last, "\r\nexpect:"));
	assert_non_null(strstr(script.last, "\r\nif-none-match: *\r\n"));
	assert_non_null(strstr(script.last, "\r\ncontent-md5: "
			       "XUFAKrxLKna5cZ2REBfFkg==\r\n"));
	assert_non_null(strstr(script.last,
			       "SignedHeaders=content-md5;host;if-none-match;"
			       "x-amz-content-sha256;x-amz-date,"));
	assert_null(strstr(script.last, SECRET));
}

/* The HTTP client by itself, with limits that a test can wait for. */

static int exchange(int port, struct http_response *ret)
{
	const struct http_config config = { .plain = true, .stall_s = 1 };
	static const char *const headers[] = { NULL };
	AUTO(http) struct http *http = NULL;
	char url[64];
	const struct http_request request = {
		.method = "GET",
		.url = url,
		.headers = headers,
	};

	(void)snprintf(url, sizeof(url), "http://127.0.0.1:%d/", port);
	assert_int_equal(http_new(&config, &http), 0);
	return http_exchange(http, &request, ret);
}

static void a_store_that_stalls_times_out(void **state)
{
	static const struct script_step step = { .stall = true };
	AUTO(http_response) struct http_response response = { 0 };
	struct script script;
	int64_t began = clock_monotonic_ms();
	int rc;

	script_start(&script, &step, 1);
	rc = exchange(script.port, &response);
	script_stop(&script);
	assert_int_equal(rc, -ETIMEDOUT);
	assert_true(clock_monotonic_ms() - began < 10000);
}

/* The driver's own timeout is longer than this test allows. */
static void assert_left_soon(int expected)
{
	static const struct script_step step = { .stall = true };
	struct script script;
	struct bucket *b = open_script(&script, &step, 1);
	int64_t began = clock_monotonic_ms();
	int first = do_get(b), second = do_get(b);

	bucket_free(b);
	script_stop(&script);
	assert_int_equal(first, expected);
	assert_int_equal(second, expected);
	assert_true(clock_monotonic_ms() - began < 10000);
	assert_true(script.requests <= 1);
}

static void a_thread_leaves_a_silent_store_at_its_time(void **state)
{
	bucket_wait_until(clock_monotonic_ms() + 300);
	assert_left_soon(-ETIMEDOUT);
	bucket_wait_until(0);
}

static void *cancel_soon(void *flag)
{
	clock_sleep_ms(300);
	atomic_store((atomic_bool *)flag, true);
	return NULL;
}

static void a_cancelled_thread_leaves_a_silent_store(void **state)
{
	static atomic_bool cancelled;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, cancel_soon, &cancelled),
			 0);
	bucket_cancel_by(&cancelled);
	assert_left_soon(-ECANCELED);
	bucket_cancel_by(NULL);
	assert_int_equal(pthread_join(thread, NULL), 0);
}

static void headers_and_error_bodies_are_bounded(void **state)
{
	static char many[80001], large[200001];
	struct script_step step = REPLY(200, many, NULL);
	AUTO(http_response) struct http_response first = { 0 }, second = { 0 };
	struct script script;
	int rc;

	/* Not too many lines: newer versions of libcurl count them. */
	memset(many, 'y', 80000);
	for (size_t i = 0; i < 80000; i += 1000) {
		memcpy(many + i, "X: ", 3);
		memcpy(many + i + 998, "\r\n", 2);
	}
	script_start(&script, &step, 1);
	rc = exchange(script.port, &first);
	script_stop(&script);
	assert_int_equal(rc, -EPROTO);
	memset(large, 'x', 200000);
	step = (struct script_step)BODY(500, large);
	script_start(&script, &step, 1);
	rc = exchange(script.port, &second);
	script_stop(&script);
	assert_int_equal(rc, 0);
	assert_int_equal(second.body.size, 65536);
}

static void assert_unreachable(const char *host, int rc, const char *says)
{
	AUTO(bucket) struct bucket *b = open_at(host, 9);
	int got = do_get(b);

	if (got != rc || !strstr(error_message(), says))
		fail_msg("got %d '%s', expected %d '%s'", got, error_message(),
			 rc, says);
}

static void an_endpoint_that_is_not_there_is_told(void **state)
{
	assert_unreachable("127.0.0.1", -ECONNREFUSED, "is the endpoint right");
	assert_unreachable("no.such.invalid", -EHOSTUNREACH, "DNS");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_may_pass_is_transient_and_tried_once),
		cmocka_unit_test(conditions_and_absence_have_their_errnos),
		cmocka_unit_test(a_refusal_says_what_to_check),
		cmocka_unit_test(what_is_no_s3_store_is_not_believed),
		cmocka_unit_test(
			a_deletion_that_failed_for_one_key_is_a_failure),
		cmocka_unit_test(a_list_without_an_end_is_an_error),
		cmocka_unit_test(a_put_on_a_dead_connection_is_not_sent_again),
		cmocka_unit_test(
			a_get_tells_what_it_reads_before_the_first_byte),
		cmocka_unit_test(
			a_small_put_asks_nothing_and_tells_its_digests),
		cmocka_unit_test(a_store_that_stalls_times_out),
		cmocka_unit_test(a_thread_leaves_a_silent_store_at_its_time),
		cmocka_unit_test(a_cancelled_thread_leaves_a_silent_store),
		cmocka_unit_test(headers_and_error_bodies_are_bounded),
		cmocka_unit_test(an_endpoint_that_is_not_there_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
