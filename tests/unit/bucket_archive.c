/*
 * The archive on a real file bucket, with a thin wrapper around it that counts
 * what is asked of the store and sees what a put carries.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/io.h"
#include "bucket/archive.h"
#include "bucket/bucket.h"
#include "bucket/url.h"
#include "ltx/header.h"

struct counted {
	struct bucket bucket;
	struct bucket *inner;
	int lists;    /* requests */
	int listed;   /* keys they gave */
	uint64_t got; /* bytes that gets asked for */
	struct bucket_meta meta[BUCKET_META_MAX]; /* of the last put */
	size_t n_meta;
	bucket_list_fn fn; /* of the list that is under way */
	void *arg;
};

static int counted_get(struct bucket *b, const char *key, uint64_t offset,
		       uint64_t length, const char *if_match,
		       struct sink *sink, struct bucket_info *ret)
{
	struct counted *c = (struct counted *)b;

	c->got += length;
	return bucket_get(c->inner, key, offset, length, if_match, sink, ret);
}

static int counted_put(struct bucket *b, const struct bucket_put *put,
		       struct bucket_info *ret)
{
	struct counted *c = (struct counted *)b;

	c->n_meta = put->n_meta;
	if (put->n_meta)
		memcpy(c->meta, put->meta, put->n_meta * sizeof(*put->meta));
	return bucket_put(c->inner, put, ret);
}

static int count_one(const struct bucket_object *object, void *arg)
{
	struct counted *c = arg;

	c->listed++;
	return c->fn(object, c->arg);
}

static int counted_list(struct bucket *b, const char *prefix, const char *after,
			size_t limit, bucket_list_fn fn, void *arg)
{
	struct counted *c = (struct counted *)b;

	c->lists++;
	c->fn = fn;
	c->arg = arg;
	return bucket_list(c->inner, prefix, after, limit, count_one, c);
}

static int counted_head(struct bucket *b, const char *key,
			struct bucket_info *ret)
{
	return bucket_head(((struct counted *)b)->inner, key, ret);
}

static void counted_free(struct bucket *b)
{
	bucket_free(((struct counted *)b)->inner);
	free(b);
}

static const struct bucket_ops counted_ops = {
	.name = "counted",
	.get = counted_get,
	.head = counted_head,
	.put = counted_put,
	.list = counted_list,
	.free = counted_free,
};

static char scratch[] = "/tmp/bucket-archive-XXXXXX";

static int make_scratch(void **state)
{
	return mkdtemp(scratch) ? 0 : -1;
}

static int remove_scratch(void **state)
{
	char command[64];

	(void)snprintf(command, sizeof(command), "rm -rf '%s'", scratch);
	return system(command);
}

/* A bucket of its own for each test. */
static int open_bucket(void **state)
{
	static int n;
	struct counted *c = calloc(1, sizeof(*c));
	char url[96];

	if (!c)
		return -1;
	(void)snprintf(url, sizeof(url), "file://%s/%d", scratch, n++);
	*state = c;
	c->bucket.ops = &counted_ops;
	if (bucket_open(url, true, &c->inner) < 0)
		return -1;
	c->bucket.url = c->inner->url;
	return 0;
}

static int close_bucket(void **state)
{
	bucket_free(*state);
	return 0;
}

static void put_text(struct bucket *b, const char *key, const char *text)
{
	const struct bucket_put put = {
		.key = key,
		.data = text,
		.fd = -1,
		.size = strlen(text),
	};

	if (bucket_put(b, &put, NULL) < 0)
		fail_msg("%s: %s", key, error_message());
}

static void put_file(struct bucket *b, const char *db, unsigned level,
		     uint64_t min, uint64_t max)
{
	char key[BUCKET_KEY_MAX];

	assert_int_equal(archive_key(db, level, min, max, key), 0);
	put_text(b, key, "x");
}

/* Names. */

static void paths_are_escaped_and_come_back(void **state)
{
	static const struct {
		const char *path, *db;
	} cases[] = {
		{ "app.db", "app.db" },
		{ "a/b-c_D/9.sqlite", "a/b-c_D/9.sqlite" },
		{ "my db", "my=20db" },
		{ "a=b", "a=3Db" },
		{ "=20", "=3D20" },
		{ "\xc3\xbc/100%", "=C3=BC/100=25" },
		{ "a\nb\x01\x7f\xff", "a=0Ab=01=7F=FF" },
		{ "lock.json", "=6Cock.json" },
		{ "a/catalog.json/b", "a/=63atalog.json/b" },
		{ "ltx", "=6Ctx" },
		{ "staged/generations", "=73taged/=67enerations" },
		{ "0000", "=30000" },
		{ "a/beef/c", "a/=62eef/c" },
		{ "BEEF", "BEEF" },
		{ "00000", "00000" },
		{ "ltx.db", "ltx.db" },
		{ ".hidden/...", ".hidden/..." },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char db[BUCKET_KEY_MAX], path[BUCKET_KEY_MAX];

		assert_int_equal(archive_escape(cases[i].path, db), 0);
		assert_string_equal(db, cases[i].db);
		assert_int_equal(bucket_key_check(db), 0);
		assert_int_equal(archive_unescape(db, path), 0);
		assert_string_equal(path, cases[i].path);
	}
}

static void every_byte_of_a_name_comes_back(void **state)
{
	for (int c = 1; c < 256; c++) {
		char path[] = "x?y", db[BUCKET_KEY_MAX], back[BUCKET_KEY_MAX];

		path[1] = (char)c;
		assert_int_equal(archive_escape(path, db), 0);
		assert_int_equal(bucket_key_check(db), 0);
		assert_int_equal(archive_unescape(db, back), 0);
		assert_string_equal(back, path);
	}
}

static void what_is_no_path_is_not_escaped(void **state)
{
	static const char *const bad[] = { "", "/", "/a", "a/", "a//b", ".",
					   "a/./b", "..", "a/.." };
	char db[BUCKET_KEY_MAX] = "untouched";

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(archive_escape(bad[i], db), -EINVAL);
		assert_string_equal(db, "untouched");
	}
}

static void only_what_escape_makes_is_unescaped(void **state)
{
	static const char *const bad[] = {
		"", "a=", "a=2", "a=2x", "a=c3", "a=61", "a=00b", "a b",
		"lock.json", "0000", "a/ltx", "=6Cocks", "a//b", "a/", "a=2F",
		"=2E", "\xc3\xbc"
	};
	char path[BUCKET_KEY_MAX] = "untouched";

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (archive_unescape(bad[i], path) != -EINVAL)
			fail_msg("'%s' was taken", bad[i]);
		assert_string_equal(path, "untouched");
	}
}

static void names_too_long_for_keys_are_refused(void **state)
{
	char path[2048], db[BUCKET_KEY_MAX], key[BUCKET_KEY_MAX];

	/* A component of 255 bytes is a file's name, one of 256 is not. */
	memset(path, 'a', sizeof(path));
	path[NAME_MAX] = '\0';
	assert_int_equal(archive_escape(path, db), 0);
	path[NAME_MAX] = 'a';
	path[NAME_MAX + 1] = '\0';
	assert_int_equal(archive_escape(path, db), -ENAMETOOLONG);
	/* Escapes count in full. */
	memset(path, ' ', 85);
	path[85] = '\0';
	assert_int_equal(archive_escape(path, db), 0);
	memcpy(path + 85, " ", 2);
	assert_int_equal(archive_escape(path, db), -ENAMETOOLONG);
	memset(path, 'a', NAME_MAX - 1);
	memcpy(path + NAME_MAX - 1, " ", 2);
	assert_int_equal(archive_escape(path, db), -ENAMETOOLONG);
	/* And so does the whole; what is taken has room for level and name. */
	for (size_t n = 1; n < 1500; n++) {
		int rc;

		memset(path, 'a', n);
		for (size_t i = 100; i + 1 < n; i += 101)
			path[i] = '/';
		path[n] = '\0';
		rc = archive_escape(path, db);
		if (rc == -ENAMETOOLONG) {
			assert_true(n > 700);
			assert_true(strlen(error_message()) < 400);
			continue;
		}
		assert_int_equal(rc, 0);
		assert_int_equal(archive_key(db, 9, 1, UINT64_MAX, key), 0);
		assert_true(strlen(key) + BUCKET_URL_PREFIX_MAX + 1 <= 1024);
	}
	assert_int_equal(archive_escape(path, db), -ENAMETOOLONG);
}

static void keys_are_made_and_parsed(void **state)
{
	static const struct {
		const char *key, *db;
		unsigned level;
		uint64_t min, max;
	} cases[] = {
		{ "app.db/0000/000000000000002a-000000000000002a.ltx",
		  "app.db", 0, 42, 42 },
		{ "a/b/0009/0000000000000001-00000000000000ff.ltx", "a/b", 9,
		  1, 255 },
		{ "0003/0000000000000001-ffffffffffffffff.ltx", "", 3, 1,
		  UINT64_MAX },
		{ "a/0000/0001/0000000000000001-0000000000000001.ltx",
		  "a/0000", 1, 1, 1 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct archive_file file = { .size = 77, .modified_ms = 88 };
		char key[BUCKET_KEY_MAX], db[BUCKET_KEY_MAX];

		assert_int_equal(archive_key(cases[i].db, cases[i].level,
					     cases[i].min, cases[i].max, key),
				 0);
		assert_string_equal(key, cases[i].key);
		assert_int_equal(archive_parse_key(key, db, &file), 0);
		assert_string_equal(db, cases[i].db);
		assert_int_equal(file.level, cases[i].level);
		assert_true(file.min_txid == cases[i].min);
		assert_true(file.max_txid == cases[i].max);
		assert_int_equal(file.size, 77);
		assert_int_equal(file.modified_ms, 88);
	}
}

static void other_keys_are_no_ltx_files(void **state)
{
	static const char *const others[] = {
		"lock.json", "catalog.json", "", "0000", "0000/", "/",
		"db/0000/x.ltx", "db/0000/0000000000000001.ltx",
		"db/0000/0000000000000001-0000000000000001.ltx.tmp",
		"db/0000/0000000000000000-0000000000000001.ltx",
		"db/0000/0000000000000002-0000000000000001.ltx",
		"db/0000/000000000000000A-000000000000000A.ltx",
		"db/000a/0000000000000001-0000000000000001.ltx",
		"db/0010/0000000000000001-0000000000000001.ltx",
		"db/00000/0000000000000001-0000000000000001.ltx",
		"db0000/0000000000000001-0000000000000001.ltx",
		"/0000/0000000000000001-0000000000000001.ltx",
		"db/staged/0000000000000001-0000000000000001.ltx",
		"0000000000000001-0000000000000001.ltx",
	};
	struct archive_file file = { .level = 7 };
	char db[BUCKET_KEY_MAX] = "untouched";

	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		if (archive_parse_key(others[i], db, &file) != -EINVAL)
			fail_msg("'%s' was taken", others[i]);
		assert_string_equal(db, "untouched");
		assert_int_equal(file.level, 7);
	}
}

/* Lists. */

/* "level:min-max" of each file, joined by spaces. */
static void assert_files(const struct archive_files *files,
			 const char *expected)
{
	AUTO(buf) struct buf text = BUF_INIT(1 << 16);

	for (size_t i = 0; i < files->n; i++)
		assert_int_equal(
			buf_printf(&text, "%s%u:%" PRIu64 "-%" PRIu64,
				   i ? " " : "", files->items[i].level,
				   files->items[i].min_txid,
				   files->items[i].max_txid), 0);
	assert_string_equal(text.size ? text.data : "", expected);
}

/* A database with neighbours whose keys surround and interleave with its own. */
static void put_neighbourhood(struct bucket *b, const char *db)
{
	static const char *const others[] = { "lock.json", "catalog.json",
					      "0000/note", "0009/x.ltx",
					      "staged/0000000100000002.ltx" };
	char key[BUCKET_KEY_MAX];

	put_file(b, db, 0, 1, 1);
	put_file(b, db, 0, 2, 2);
	put_file(b, db, 0, 0x10, 0x12);
	put_file(b, db, 1, 1, 2);
	put_file(b, db, 2, 1, 16);
	put_file(b, db, 9, 1, 1);
	put_file(b, db, 9, 1, 18);
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		(void)snprintf(key, sizeof(key), "%s%s%s", db, *db ? "/" : "",
			       others[i]);
		put_text(b, key, "other");
	}
	(void)snprintf(key, sizeof(key), "%s%s00001.db", db, *db ? "/" : "");
	put_file(b, key, 0, 5, 5);
	put_file(b, key, 1, 5, 5);
	(void)snprintf(key, sizeof(key), "%s%sbelow", db, *db ? "/" : "");
	put_file(b, key, 1, 6, 6);
	put_file(b, "a", 1, 7, 7);
	put_file(b, "db.2", 0, 8, 8);
	put_file(b, "db2", 9, 1, 9);
}

static void a_level_is_listed_from_any_point_on(void **state)
{
	static const char *const dbs[] = { "db", "" };
	struct bucket *b = *state;

	for (int i = 0; i < 2; i++) {
		AUTO(archive_files) struct archive_files all = { 0 };
		AUTO(archive_files) struct archive_files some = { 0 };
		AUTO(archive_files) struct archive_files none = { 0 };

		put_neighbourhood(b, dbs[i]);
		assert_int_equal(archive_list(b, dbs[i], 0, 0, &all), 0);
		assert_files(&all, "0:1-1 0:2-2 0:16-18");
		assert_int_equal(all.items[0].size, 1);
		assert_true(all.items[0].modified_ms > 0);
		assert_int_equal(archive_list(b, dbs[i], 0, 1, &some), 0);
		assert_files(&some, "0:2-2 0:16-18");
		assert_int_equal(archive_list(b, dbs[i], 0, 16, &none), 0);
		assert_int_equal(archive_list(b, dbs[i], 0, UINT64_MAX, &none),
				 0);
		assert_int_equal(archive_list(b, dbs[i], 5, 0, &none), 0);
		assert_files(&none, "");
		/* Appended to what is there. */
		assert_int_equal(archive_list(b, dbs[i], 9, 0, &some), 0);
		assert_files(&some, "0:2-2 0:16-18 9:1-1 9:1-18");
	}
}

static void all_levels_above_zero_are_one_request(void **state)
{
	static const char *const dbs[] = { "db", "" };
	struct counted *c = *state;

	for (int i = 0; i < 2; i++) {
		AUTO(archive_files) struct archive_files files = { 0 };

		put_neighbourhood(&c->bucket, dbs[i]);
		c->lists = 0;
		assert_int_equal(archive_list_above(&c->bucket, dbs[i], &files),
				 0);
		assert_files(&files, "1:1-2 2:1-16 9:1-1 9:1-18");
		assert_int_equal(c->lists, 1);
	}
}

static int join_db(const char *db, void *arg)
{
	return buf_printf(arg, "[%s]", db);
}

static void assert_databases(struct bucket *b, const char *expected)
{
	AUTO(buf) struct buf dbs = BUF_INIT(1 << 16);

	assert_int_equal(archive_databases(b, join_db, &dbs), 0);
	assert_string_equal(dbs.size ? dbs.data : "", expected);
}

static void databases_are_found_once_each(void **state)
{
	struct bucket *b = *state;

	assert_databases(b, "");
	put_text(b, "catalog.json", "{}");
	put_text(b, "db/staged/x.ltx", "x");
	assert_databases(b, "");
	/* "db" comes twice among the keys, before and after what is in it. */
	put_neighbourhood(b, "db");
	assert_databases(b, "[a][db.2][db][db/00001.db][db/below][db2]");
}

static void a_database_within_anothers_level_is_told_apart(void **state)
{
	struct bucket *b = *state;

	/* We never name one so; others' buckets may hold it. */
	put_file(b, "a", 0, 1, 1);
	put_file(b, "a/0000", 1, 1, 1);
	put_file(b, "a", 0, UINT64_C(1) << 60, UINT64_C(1) << 60);
	assert_databases(b, "[a][a/0000]");
}

static void a_database_at_the_root_is_found_too(void **state)
{
	struct bucket *b = *state;

	put_neighbourhood(b, "");
	assert_databases(b, "[][00001.db][a][below][db.2][db2]");
}

static void finding_databases_costs_by_database_not_by_object(void **state)
{
	enum { DATABASES = 4, FILES = 1500 };
	struct counted *c = *state;
	AUTO(buf) struct buf dbs = BUF_INIT(1 << 16);

	for (int i = 0; i < DATABASES; i++) {
		char path[160], db[16];

		(void)snprintf(db, sizeof(db), "db%d", i);
		put_file(&c->bucket, db, 0, 1, 1);
		put_file(&c->bucket, db, 9, 1, 1);
		/* The other files of its log, made in a cheaper way. */
		for (unsigned j = 2; j <= FILES; j++) {
			(void)snprintf(path, sizeof(path),
				       "%s/%s/ltx/0/%016x-%016x.ltx",
				       c->bucket.url + strlen("file://"), db,
				       j, j);
			FILE *f = fopen(path, "w");
			assert_non_null(f);
			assert_int_equal(fclose(f), 0);
		}
	}
	c->lists = c->listed = 0;
	assert_int_equal(archive_databases(&c->bucket, join_db, &dbs), 0);
	assert_string_equal(dbs.data, "[db0][db1][db2][db3]");
	assert_true(c->lists <= 2 * DATABASES + 1);
	assert_true(c->listed < DATABASES * 500);
}

static int stop_with_42(const char *db, void *arg)
{
	++*(int *)arg;
	return 42;
}

static int fail_with_eio(const char *db, void *arg)
{
	++*(int *)arg;
	return error_set(-EIO, "my own trouble");
}

static void the_callers_result_ends_the_search(void **state)
{
	struct bucket *b = *state;
	int calls = 0;

	put_file(b, "a", 0, 1, 1);
	put_file(b, "b", 0, 1, 1);
	assert_int_equal(archive_databases(b, stop_with_42, &calls), 42);
	assert_int_equal(archive_databases(b, fail_with_eio, &calls), -EIO);
	assert_string_equal(error_message(), "my own trouble");
	assert_int_equal(calls, 2);
}

/* Files. */

static const struct ltx_header example = {
	.flags = LTX_NO_CHECKSUM,
	.page_size = 4096,
	.commit = 7,
	.min_txid = 42,
	.max_txid = 42,
	.timestamp_ms = 1795402201123, /* 2026-11-23T02:50:01.123Z */
	.pre_dbsum = 0xdeadbeef,
	.post_dbsum = 0x0123456789abcdef,
};

/* A file that begins with the header; the caller closes it. */
static int body_with(const struct ltx_header *header)
{
	uint8_t bytes[LTX_HEADER_SIZE];
	int fd = memfd_create("ltx", MFD_CLOEXEC);

	assert_true(fd >= 0);
	ltx_header_encode(header, bytes);
	assert_int_equal(io_pwrite(fd, bytes, sizeof(bytes), 0), 0);
	assert_int_equal(io_pwrite(fd, "rest", 4, sizeof(bytes)), 0);
	return fd;
}

static const char *sent(const struct counted *c, const char *name)
{
	for (size_t i = 0; i < c->n_meta; i++)
		if (strcmp(c->meta[i].name, name) == 0)
			return c->meta[i].value;
	return NULL;
}

static void a_put_carries_the_metadata_of_its_header(void **state)
{
	struct counted *c = *state;
	AUTO(fd) int fd = body_with(&example);
	struct bucket_info info;

	assert_int_equal(archive_put(&c->bucket, "db", 0, &example, fd, 104,
				     true, &info), 0);
	assert_true(info.etag[0] != '\0');
	assert_string_equal(sent(c, "litestream-timestamp"),
			    "2026-11-23T02:50:01.123Z");
	assert_string_equal(sent(c, "litebucket-pre"), "00000000deadbeef");
	assert_string_equal(sent(c, "litebucket-checksum"),
			    "0123456789abcdef");
	assert_int_equal(c->n_meta, 3);
	assert_int_equal(
		bucket_head(&c->bucket,
			    "db/0000/000000000000002a-000000000000002a.ltx",
			    &info), 0);
	assert_int_equal(info.size, 104);
	assert_int_equal(info.modified_ms, example.timestamp_ms);
}

static void an_unknown_checksum_is_left_out(void **state)
{
	struct counted *c = *state;
	struct ltx_header header = example;
	AUTO(fd) int fd = body_with(&header);

	header.pre_dbsum = 0;
	header.post_dbsum = 0;
	assert_int_equal(archive_put(&c->bucket, "", 9, &header, fd, 104, false,
				     NULL), 0);
	assert_int_equal(c->n_meta, 1);
	assert_non_null(sent(c, "litestream-timestamp"));
}

static void a_slot_is_put_once_a_snapshot_may_be_again(void **state)
{
	struct bucket *b = *state;
	AUTO(fd) int fd = body_with(&example);

	assert_int_equal(archive_put(b, "db", 0, &example, fd, 104, true, NULL),
			 0);
	assert_int_equal(archive_put(b, "db", 0, &example, fd, 104, true, NULL),
			 -ERR_PRECOND);
	assert_int_equal(archive_put(b, "db", 0, &example, fd, 104, false,
				     NULL), 0);
}

static void a_header_is_fetched_without_the_rest(void **state)
{
	struct counted *c = *state;
	AUTO(fd) int fd = body_with(&example);
	const struct archive_file file = { .min_txid = 42, .max_txid = 42 };
	struct ltx_header header;

	assert_int_equal(archive_put(&c->bucket, "db", 0, &example, fd, 104,
				     true, NULL), 0);
	assert_int_equal(archive_get_header(&c->bucket, "db", &file, &header),
			 0);
	assert_int_equal(header.timestamp_ms, example.timestamp_ms);
	assert_true(header.post_dbsum == example.post_dbsum);
	assert_int_equal(c->got, LTX_HEADER_SIZE);
}

/* Whatever is wrong is told with the object's key. */
static void assert_bad_header(struct bucket *b, uint64_t txid, int rc,
			      const char *word)
{
	const struct archive_file file = { .min_txid = txid, .max_txid = txid };
	struct ltx_header header;
	char key[BUCKET_KEY_MAX];

	assert_int_equal(archive_key("db", 0, txid, txid, key), 0);
	assert_int_equal(archive_get_header(b, "db", &file, &header), rc);
	if (!strstr(error_message(), key) || !strstr(error_message(), word))
		fail_msg("'%s' tells neither '%s' nor '%s'", error_message(),
			 key, word);
}

static void a_bad_header_names_its_object(void **state)
{
	struct bucket *b = *state;
	struct ltx_header other = example;
	AUTO(fd) int fd = body_with(&example);
	char key[BUCKET_KEY_MAX];

	assert_bad_header(b, 1, -ENOENT, "");
	assert_int_equal(archive_key("db", 0, 2, 2, key), 0);
	put_text(b, key, "LTX1 and then nothing");
	assert_bad_header(b, 2, -ERR_CORRUPT, "21 bytes");
	assert_int_equal(archive_key("db", 0, 3, 3, key), 0);
	put_text(b, key, "");
	assert_bad_header(b, 3, -ERR_CORRUPT, "0 bytes");
	assert_int_equal(archive_key("db", 0, 4, 4, key), 0);
	put_text(b, key, "0123456789012345678901234567890123456789012345678901"
			 "0123456789012345678901234567890123456789012345678901");
	assert_bad_header(b, 4, -ERR_CORRUPT, "");
	/* The file of another slot. */
	other.min_txid = other.max_txid = 5;
	assert_int_equal(archive_put(b, "db", 0, &other, fd, 104, true, NULL),
			 0);
	assert_bad_header(b, 5, -ERR_CORRUPT, "000000000000002a");
}

int main(void)
{
#define ARCHIVE_TEST(name) \
	cmocka_unit_test_setup_teardown(name, open_bucket, close_bucket)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(paths_are_escaped_and_come_back),
		cmocka_unit_test(every_byte_of_a_name_comes_back),
		cmocka_unit_test(what_is_no_path_is_not_escaped),
		cmocka_unit_test(only_what_escape_makes_is_unescaped),
		cmocka_unit_test(names_too_long_for_keys_are_refused),
		cmocka_unit_test(keys_are_made_and_parsed),
		cmocka_unit_test(other_keys_are_no_ltx_files),
		ARCHIVE_TEST(a_level_is_listed_from_any_point_on),
		ARCHIVE_TEST(all_levels_above_zero_are_one_request),
		ARCHIVE_TEST(databases_are_found_once_each),
		ARCHIVE_TEST(a_database_within_anothers_level_is_told_apart),
		ARCHIVE_TEST(a_database_at_the_root_is_found_too),
		ARCHIVE_TEST(finding_databases_costs_by_database_not_by_object),
		ARCHIVE_TEST(the_callers_result_ends_the_search),
		ARCHIVE_TEST(a_put_carries_the_metadata_of_its_header),
		ARCHIVE_TEST(an_unknown_checksum_is_left_out),
		ARCHIVE_TEST(a_slot_is_put_once_a_snapshot_may_be_again),
		ARCHIVE_TEST(a_header_is_fetched_without_the_rest),
		ARCHIVE_TEST(a_bad_header_names_its_object),
	};

	return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
