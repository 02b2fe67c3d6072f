#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/stream.h"

#include "bucket/archive.h"

/* 160 MB of memory; at a batch each second, a month and a half of level 0. */
enum { FILES_MAX = 4000000 };

void archive_files_cleanup(struct archive_files *files)
{
	free(files->items);
	*files = (struct archive_files){ 0 };
}

static int append(struct archive_files *files, const struct archive_file *file)
{
	if (files->n == files->capacity) {
		size_t more = files->capacity ? 2 * files->capacity : 64;
		void *grown;

		if (files->n >= FILES_MAX)
			return error_set(-EFBIG, "a database with more than %d "
					 "LTX files", FILES_MAX);
		grown = realloc(files->items, more * sizeof(*files->items));
		if (!grown)
			return error_set(-ENOMEM, "out of memory");
		files->items = grown;
		files->capacity = more;
	}
	files->items[files->n++] = *file;
	return 0;
}

/* The part of a key before the level: "DB/", or "" for the root's own. */
static int format_prefix(char ret[BUCKET_KEY_MAX], const char *db,
			 const char *rest)
{
	if (snprintf(ret, BUCKET_KEY_MAX, "%s%s%s", db, *db ? "/" : "", rest) >=
	    BUCKET_KEY_MAX)
		return error_set(-ENAMETOOLONG,
				 "the key of '%.200s...' is too long", db);
	return 0;
}

struct listing {
	const char *db;
	struct archive_files *files;
};

static int list_one(const struct bucket_object *object, void *arg)
{
	struct listing *l = arg;
	struct archive_file file = {
		.size = object->size,
		.modified_ms = object->modified_ms,
	};
	char db[BUCKET_KEY_MAX];

	/* Others' objects, and those of a database in a directory below. */
	if (archive_parse_key(object->key, db, &file) < 0 ||
	    strcmp(db, l->db) != 0)
		return 0;
	return append(l->files, &file);
}

static int list_below(struct bucket *b, const char *db, const char *prefix,
		      const char *after, struct archive_files *ret)
{
	struct listing l = { .db = db, .files = ret };
	char key[BUCKET_KEY_MAX], from[BUCKET_KEY_MAX];
	int rc = format_prefix(key, db, prefix);

	if (rc == 0)
		rc = format_prefix(from, db, after);
	if (rc == 0)
		rc = bucket_list(b, key, from, 0, list_one, &l);
	if (rc < 0)
		return error_wrap(rc, "listing the LTX files of '%s' in %s", db,
				  b->url);
	return 0;
}

int archive_list(struct bucket *b, const char *db, unsigned level,
		 uint64_t after, struct archive_files *ret)
{
	char prefix[8], from[32];

	(void)snprintf(prefix, sizeof(prefix), "%04x/", level);
	/* '.' follows '-': beyond every file that begins with this TXID. */
	(void)snprintf(from, sizeof(from), "%04x/%016" PRIx64 ".", level,
		       after);
	return list_below(b, db, prefix, from, ret);
}

int archive_list_above(struct bucket *b, const char *db,
		       struct archive_files *ret)
{
	/* '0' follows '/': beyond all that is in 0000/. */
	return list_below(b, db, "000", "00000", ret);
}

static void add_meta(struct bucket_meta *meta, size_t *n, const char *name,
		     const char *value)
{
	(void)snprintf(meta[*n].name, sizeof(meta[*n].name), "%s", name);
	(void)snprintf(meta[*n].value, sizeof(meta[*n].value), "%s", value);
	(*n)++;
}

static void add_checksum(struct bucket_meta *meta, size_t *n, const char *name,
			 uint64_t checksum)
{
	char text[17];

	if (checksum == 0)
		return;
	(void)snprintf(text, sizeof(text), "%016" PRIx64, checksum);
	add_meta(meta, n, name, text);
}

int archive_put(struct bucket *b, const char *db, unsigned level,
		const struct ltx_header *header, int fd, uint64_t size,
		bool if_absent, struct bucket_info *ret)
{
	char key[BUCKET_KEY_MAX], time[CLOCK_TEXT_SIZE];
	struct bucket_meta meta[BUCKET_META_MAX];
	struct bucket_put put = {
		.key = key,
		.fd = fd,
		.size = size,
		.meta = meta,
		.if_absent = if_absent,
	};
	int rc = archive_key(db, level, header->min_txid, header->max_txid,
			     key);

	if (rc < 0)
		return rc;
	clock_format(header->timestamp_ms, time);
	add_meta(meta, &put.n_meta, "litestream-timestamp", time);
	add_checksum(meta, &put.n_meta, "litebucket-pre", header->pre_dbsum);
	add_checksum(meta, &put.n_meta, "litebucket-checksum",
		     header->post_dbsum);
	return bucket_put(b, &put, ret);
}

static int check_header(const struct buf *bytes, uint64_t size,
			const struct archive_file *file, struct ltx_header *ret)
{
	int rc;

	if (bytes->size < LTX_HEADER_SIZE)
		return error_set(-ERR_CORRUPT, "it ends after %" PRIu64 " bytes",
				 size);
	rc = ltx_header_decode((const uint8_t *)bytes->data, ret);
	if (rc < 0)
		return rc;
	if (ret->min_txid != file->min_txid || ret->max_txid != file->max_txid)
		return error_set(-ERR_CORRUPT, "it holds the transactions "
				 "%016" PRIx64 " to %016" PRIx64,
				 ret->min_txid, ret->max_txid);
	return 0;
}

int archive_get_header(struct bucket *b, const char *db,
		       const struct archive_file *file, struct ltx_header *ret)
{
	AUTO(buf) struct buf bytes = BUF_INIT(LTX_HEADER_SIZE);
	struct bucket_info info = { 0 };
	struct ltx_header header;
	struct buf_sink sink;
	char key[BUCKET_KEY_MAX];
	int rc = archive_key(db, file->level, file->min_txid, file->max_txid,
			     key);

	if (rc < 0)
		return rc;
	buf_sink_init(&sink, &bytes);
	rc = bucket_get(b, key, 0, LTX_HEADER_SIZE, NULL, &sink.sink, &info);
	/* -ERANGE: nothing at offset 0, an empty object. */
	if (rc == 0 || rc == -ERANGE)
		rc = check_header(&bytes, info.size, file, &header);
	if (rc < 0)
		return error_wrap(rc, "reading the header of '%s' in %s", key,
				  b->url);
	*ret = header;
	return 0;
}

/*
 * The databases of a bucket
 * -------------------------
 *
 * Nothing lists them (a catalog may, but not in Litestream's buckets), so the
 * keys are walked.  After a number of files in one level of one database the
 * rest of that level is skipped by a new request that begins beyond it.
 */
enum { LOOKED_AT = 200 };

struct scan {
	archive_db_fn fn;
	void *arg;
	/*
	 * The databases told of whose keys may come again: between the levels
	 * of "a" can be those of "a/00001.db".  Each is in the directory
	 * before it.
	 */
	char **open;
	size_t n_open, capacity;
	/* Where we are: the last level, and how many of its files in a row. */
	char level[BUCKET_KEY_MAX];
	size_t in_a_row;
	bool stopped; /* by fn, or by an error of ours */
};

static void scan_cleanup(struct scan *s)
{
	for (size_t i = 0; i < s->n_open; i++)
		free(s->open[i]);
	free(s->open);
}

/* Is the key db's, or of a database below it? */
static bool is_in(const char *key, const char *db)
{
	size_t length = strlen(db);

	return length == 0 ||
	       (strncmp(key, db, length) == 0 && key[length] == '/');
}

static bool is_known(struct scan *s, const char *key, const char *db)
{
	while (s->n_open > 0 && !is_in(key, s->open[s->n_open - 1]))
		free(s->open[--s->n_open]);
	for (size_t i = 0; i < s->n_open; i++)
		if (strcmp(s->open[i], db) == 0)
			return true;
	return false;
}

static int remember(struct scan *s, const char *db)
{
	char *copy;

	if (s->n_open == s->capacity) {
		size_t more = s->capacity ? 2 * s->capacity : 8;
		char **grown = realloc(s->open, more * sizeof(*grown));

		if (!grown)
			return error_set(-ENOMEM, "out of memory");
		s->open = grown;
		s->capacity = more;
	}
	copy = strdup(db);
	if (!copy)
		return error_set(-ENOMEM, "out of memory");
	s->open[s->n_open++] = copy;
	return 0;
}

static int tell(struct scan *s, const char *key, const char *db)
{
	int rc;

	if (is_known(s, key, db))
		return 0;
	rc = remember(s, db);
	return rc < 0 ? rc : s->fn(db, s->arg);
}

/* Count files of one level; 1 when it is time to skip the rest. */
static int count_in_a_row(struct scan *s, const char *key)
{
	size_t length = (size_t)(strrchr(key, '/') - key);

	if (strncmp(s->level, key, length) != 0 || s->level[length]) {
		memcpy(s->level, key, length);
		s->level[length] = '\0';
		s->in_a_row = 0;
	}
	return ++s->in_a_row >= LOOKED_AT;
}

static int scan_one(const struct bucket_object *object, void *arg)
{
	struct scan *s = arg;
	struct archive_file file = { 0 };
	char db[BUCKET_KEY_MAX];
	int rc;

	if (archive_parse_key(object->key, db, &file) < 0)
		return 0;
	rc = tell(s, object->key, db);
	if (rc != 0) {
		s->stopped = true;
		return rc;
	}
	return count_in_a_row(s, object->key);
}

/* '0' follows '/': beyond all that is in the level. */
static void skip_level(struct scan *s, char ret_after[BUCKET_KEY_MAX + 1])
{
	(void)snprintf(ret_after, BUCKET_KEY_MAX + 1, "%s0", s->level);
	s->in_a_row = 0;
}

int archive_databases(struct bucket *b, archive_db_fn fn, void *arg)
{
	AUTO(scan) struct scan s = { .fn = fn, .arg = arg };
	char after[BUCKET_KEY_MAX + 1] = "";
	int rc;

	do {
		rc = bucket_list(b, "", after, 0, scan_one, &s);
		if (rc > 0 && !s.stopped)
			skip_level(&s, after);
	} while (rc > 0 && !s.stopped);
	if (rc < 0 && !s.stopped)
		return error_wrap(rc, "looking for databases in %s", b->url);
	return rc;
}
