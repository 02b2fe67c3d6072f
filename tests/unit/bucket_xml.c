/* S3's XML: what stores really send, and what an attacker would. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "bucket/s3_xml.h"

#define HEAD "<?xml version=\"1.0\" encoding=\"UTF-8\"?>"
#define LIST HEAD "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/" \
		  "2006-03-01/\">"
#define END  "</ListBucketResult>"

static int read_listing(const char *text, struct s3_listing *ret)
{
	return s3_xml_listing(text, strlen(text), ret);
}

static void assert_listing_refused(const char *text, const char *why)
{
	AUTO(s3_listing) struct s3_listing listing = { 0 };

	assert_int_equal(read_listing(text, &listing), -ERR_CORRUPT);
	if (!strstr(error_message(), why))
		fail_msg("'%s' does not say '%s'", error_message(), why);
}

static void a_page_of_a_list_is_read(void **state)
{
	AUTO(s3_listing) struct s3_listing listing = { 0 };

	assert_int_equal(
		read_listing(LIST "<Name>b</Name><Prefix></Prefix>"
			     "<IsTruncated>true</IsTruncated>"
			     "<NextContinuationToken>a&amp;b=</"
			     "NextContinuationToken>\n"
			     "<Contents><Key>a/1</Key><LastModified>"
			     "2026-11-23T06:33:13.123Z</LastModified>"
			     "<ETag>&quot;x&quot;</ETag><Size>42</Size>"
			     "<Owner><ID>Key</ID><DisplayName>n</DisplayName>"
			     "</Owner></Contents>"
			     "<Contents><Size>18446744073709551615</Size>"
			     "<Key>a&lt;2</Key></Contents>" END,
			     &listing), 0);
	assert_true(listing.truncated);
	assert_string_equal(listing.token, "a&b=");
	assert_int_equal(listing.n, 2);
	assert_string_equal(listing.entries[0].key, "a/1");
	assert_int_equal(listing.entries[0].size, 42);
	assert_true(listing.entries[0].modified_ms == 1795415593123);
	assert_string_equal(listing.entries[1].key, "a<2");
	assert_true(listing.entries[1].size == UINT64_MAX);
}

static void keys_are_url_decoded_only_where_the_store_says_so(void **state)
{
	AUTO(s3_listing) struct s3_listing plain = { 0 }, encoded = { 0 };

	assert_int_equal(read_listing(LIST "<Contents><Key>a%2Fb+c</Key>"
				      "</Contents>" END, &plain), 0);
	assert_string_equal(plain.entries[0].key, "a%2Fb+c");
	/* The element may come last. */
	assert_int_equal(read_listing(LIST "<Contents><Key>a%2Fb+c%2b%C3%A9"
				      "</Key></Contents><EncodingType>url"
				      "</EncodingType>" END, &encoded), 0);
	assert_string_equal(encoded.entries[0].key, "a/b c+\xc3\xa9");
}

static void an_empty_list_is_a_list(void **state)
{
	AUTO(s3_listing) struct s3_listing listing = { 0 };

	assert_int_equal(read_listing(HEAD "<ListBucketResult/>", &listing), 0);
	assert_int_equal(listing.n, 0);
	assert_false(listing.truncated);
	assert_null(listing.token);
}

static void entities_are_never_expanded(void **state)
{
	static const char bomb[] =
		"<?xml version=\"1.0\"?><!DOCTYPE l [<!ENTITY a \"aaaaaaaaaa\">"
		"<!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;\">"
		"<!ENTITY c \"&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;\">]>"
		"<ListBucketResult><Contents><Key>&c;</Key></Contents>"
		"</ListBucketResult>";

	assert_listing_refused(bomb, "DOCTYPE");
	assert_listing_refused("<!DOCTYPE html><html></html>", "DOCTYPE");
	assert_listing_refused(LIST "<Contents><Key>&x;</Key></Contents>" END,
			       "undefined entity");
}

static void depth_and_length_have_limits(void **state)
{
	AUTO(buf) struct buf text = BUF_INIT(1 << 20);

	for (int i = 0; i < 9; i++)
		assert_int_equal(buf_printf(&text, "<a>"), 0);
	assert_listing_refused(text.data, "nested");
	buf_reset(&text);
	assert_int_equal(buf_printf(&text, LIST "<Contents><Key>%09000d</Key>"
				    "</Contents>" END, 1), 0);
	assert_listing_refused(text.data, "too long");
}

static void what_is_no_list_is_refused(void **state)
{
	assert_listing_refused("", "empty");
	assert_listing_refused("<html><body>hello</body></html>", "html");
	assert_listing_refused(LIST "<Contents>", "no element found");
	assert_listing_refused(LIST "<Contents><Size>1</Size></Contents>" END,
			       "no key");
	assert_listing_refused(LIST "<Contents><Key>a</Key><Size>-1</Size>"
			       "</Contents>" END, "no size");
	assert_listing_refused(LIST "<Contents><Key>a</Key><Size>1x</Size>"
			       "</Contents>" END, "no size");
	assert_listing_refused(LIST "<EncodingType>url</EncodingType>"
			       "<Contents><Key>a%00b</Key></Contents>" END,
			       "no key");
	assert_listing_refused(LIST "<EncodingType>url</EncodingType>"
			       "<Contents><Key>a%4</Key></Contents>" END,
			       "no key");
}

static void an_error_document_tells_its_code(void **state)
{
	static const char text[] =
		HEAD "<Error><Code>AuthorizationHeaderMalformed</Code>"
		     "<Message>wrong &apos;region&apos;</Message>"
		     "<Region>eu-north-1</Region><RequestId>1</RequestId>"
		     "</Error>";
	struct s3_problem problem;

	assert_int_equal(s3_xml_problem(text, strlen(text), &problem), 0);
	assert_string_equal(problem.code, "AuthorizationHeaderMalformed");
	assert_string_equal(problem.message, "wrong 'region'");
	assert_string_equal(problem.region, "eu-north-1");
}

static void the_first_error_of_a_delete_counts(void **state)
{
	static const char failed[] =
		HEAD "<DeleteResult><Deleted><Key>a</Key></Deleted>"
		     "<Error><Key>b</Key><Code>AccessDenied</Code>"
		     "<Message>no</Message></Error><Error><Key>c</Key>"
		     "<Code>InternalError</Code></Error></DeleteResult>";
	static const char fine[] = HEAD "<DeleteResult/>";
	static const char html[] = "<html><body>504</body></html>";
	struct s3_problem problem;

	assert_int_equal(s3_xml_problem(failed, strlen(failed), &problem), 0);
	assert_string_equal(problem.key, "b");
	assert_string_equal(problem.code, "AccessDenied");
	assert_int_equal(s3_xml_problem(fine, strlen(fine), &problem), 0);
	assert_string_equal(problem.code, "");
	assert_int_equal(s3_xml_problem(html, strlen(html), &problem),
			 -ERR_CORRUPT);
}

static void what_is_written_into_xml_is_escaped(void **state)
{
	AUTO(buf) struct buf got = BUF_INIT(256);

	assert_int_equal(s3_xml_escape("a<b>&c", &got), 0);
	assert_string_equal(got.data, "a&lt;b&gt;&amp;c");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_page_of_a_list_is_read),
		cmocka_unit_test(
			keys_are_url_decoded_only_where_the_store_says_so),
		cmocka_unit_test(an_empty_list_is_a_list),
		cmocka_unit_test(entities_are_never_expanded),
		cmocka_unit_test(depth_and_length_have_limits),
		cmocka_unit_test(what_is_no_list_is_refused),
		cmocka_unit_test(an_error_document_tells_its_code),
		cmocka_unit_test(the_first_error_of_a_delete_counts),
		cmocka_unit_test(what_is_written_into_xml_is_escaped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
