/* Where a bucket's root is, seen from the URL of a database in it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "bucket/bucket.h"
#include "bucket/catalog.h"
#include "bucket/url.h"

#include "cli/root.h"

static void assert_parent(const char *url, const char *expected)
{
	AUTO(mem) char *parent = root_parent(url);

	if (!expected) {
		assert_null(parent);
		return;
	}
	assert_non_null(parent);
	assert_string_equal(parent, expected);
}

static void the_directory_above_keeps_the_parameters(void **state)
{
	assert_parent("s3://b/p/app.db?endpoint=http://h:1/x&region=r",
		      "s3://b/p?endpoint=http://h:1/x&region=r");
	assert_parent("s3://b/p?region=r", "s3://b/?region=r");
	assert_parent("s3://b/?region=r", NULL);
	assert_parent("s3://b", NULL);
	assert_parent("file:///a/b/c%20d", "file:///a/b");
	assert_parent("file:///a//b/", "file:///a");
	assert_parent("file:///a", "file:///");
	assert_parent("file:///", NULL);
	assert_parent("nonsense", NULL);
}

struct place {
	char dir[64], database[128], root[128], above[128];
};

static void put_catalog(const char *url, const char *text)
{
	AUTO(bucket) struct bucket *b = NULL;
	struct bucket_put put = {
		.key = CATALOG_KEY,
		.data = text,
		.fd = -1,
		.size = strlen(text),
	};

	assert_int_equal(bucket_open(url, true, &b), 0);
	assert_int_equal(bucket_put(b, &put, NULL), 0);
}

static int set_up(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	assert_non_null(p);
	strcpy(p->dir, "/tmp/litebucket-root-XXXXXX");
	assert_non_null(mkdtemp(p->dir));
	snprintf(p->above, sizeof(p->above), "file://%s", p->dir);
	snprintf(p->root, sizeof(p->root), "%s/backups/site", p->above);
	snprintf(p->database, sizeof(p->database), "%s/dir/app.db", p->root);
	*state = p;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type,
		      struct FTW *walk)
{
	return remove(path);
}

static int tear_down(void **state)
{
	struct place *p = *state;

	nftw(p->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	free(p);
	return 0;
}

static void without_a_catalog_anything_may_be_read(void **state)
{
	struct place *p = *state;

	assert_int_equal(root_check(p->database), 0);
}

static void a_newer_format_above_is_refused(void **state)
{
	struct place *p = *state;

	put_catalog(p->root, "{\"format\": 2}");
	assert_int_equal(root_check(p->database), -EOPNOTSUPP);
	assert_non_null(strstr(error_message(), "newer litebucket"));
	assert_non_null(strstr(error_message(), p->root));
}

/* What lies above the bucket is another one, and none of its business. */
static void the_first_on_the_way_up_is_the_one(void **state)
{
	struct place *p = *state;

	put_catalog(p->above, "{\"format\": 2}");
	put_catalog(p->root,
		    "{\"format\": 1, \"epoch\": 1, \"databases\": {}, "
		    "\"bucket_id\": \"00112233445566778899aabbccddeeff\"}");
	assert_int_equal(root_check(p->database), 0);
}

static void a_damaged_one_is_only_a_warning(void **state)
{
	struct place *p = *state;

	put_catalog(p->root, "{\"format\"");
	assert_int_equal(root_check(p->database), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_directory_above_keeps_the_parameters),
		TEST(without_a_catalog_anything_may_be_read),
		TEST(a_newer_format_above_is_refused),
		TEST(the_first_on_the_way_up_is_the_one),
		TEST(a_damaged_one_is_only_a_warning),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
