#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "bucket/archive.h"
#include "bucket/bucket.h"
#include "bucket/url.h"
#include "cli/report.h"
#include "restorer/restorer.h"

#include "cli/database.h"

/* Where the components begin, after "file://" or "s3://NAME". */
static const char *path_of(const char *url)
{
	const char *host = strstr(url, "://");
	const char *path = host ? strchr(host + 3, '/') : NULL;

	return path && path < url + strcspn(url, "?") ? path : NULL;
}

static int hex_value(char digit)
{
	if (!isxdigit((unsigned char)digit))
		return -EINVAL;
	return isdigit((unsigned char)digit) ? digit - '0'
					     : (digit | 0x20) - 'a' + 10;
}

static int percent_decode(const char *text, size_t size,
			  char ret[BUCKET_KEY_MAX])
{
	size_t n = 0;

	for (size_t i = 0; i < size; i++) {
		int high, low;

		if (n == BUCKET_KEY_MAX - 1)
			return -ENAMETOOLONG;
		if (text[i] != '%') {
			ret[n++] = text[i];
			continue;
		}
		high = i + 2 < size ? hex_value(text[i + 1]) : -EINVAL;
		low = high < 0 ? high : hex_value(text[i + 2]);
		if (low < 0 || high * 16 + low == 0)
			return -EINVAL;
		ret[n++] = (char)(high * 16 + low);
		i += 2;
	}
	ret[n] = '\0';
	return 0;
}

static int append_escaped(struct buf *out, const char *text, size_t size)
{
	char decoded[BUCKET_KEY_MAX], escaped[BUCKET_KEY_MAX];
	int rc = percent_decode(text, size, decoded);

	if (rc == 0 && *decoded)
		rc = archive_escape(decoded, escaped);
	if (rc < 0)
		return rc;
	return *decoded ? buf_append(out, escaped, strlen(escaped)) : 0;
}

/* The beginning of the last n components; NULL: there are fewer. */
static const char *last_components(const char *path, const char *end,
				   unsigned n)
{
	const char *p = end;

	for (; n > 0; n--) {
		while (p > path && p[-1] == '/')
			p--;
		if (p == path)
			return NULL;
		while (p > path && p[-1] != '/')
			p--;
	}
	return p;
}

static int append_components(struct buf *out, const char *p, const char *end)
{
	int rc = 0;

	while (p < end && rc == 0) {
		size_t size = strcspn(p, "/?");

		if (p + size > end)
			size = (size_t)(end - p);
		rc = append_escaped(out, p, size);
		p += size;
		if (rc == 0 && p < end)
			rc = buf_append(out, p++, 1);
	}
	return rc;
}

char *database_escaped(const char *url, unsigned n)
{
	AUTO(buf) struct buf out = BUF_INIT(16 << 10);
	const char *path = path_of(url);
	const char *end = url + strcspn(url, "?");
	const char *from = path ? last_components(path, end, n) : NULL;

	if (!from || buf_append(&out, url, (size_t)(from - url)) < 0 ||
	    append_components(&out, from, end) < 0 ||
	    buf_append(&out, end, strlen(end)) < 0)
		return NULL;
	return TAKE(out.data);
}

/* Most URLs have nothing to escape, and are not tried twice. */
static bool has_another_form(const char *url)
{
	for (unsigned n = 1;; n++) {
		AUTO(mem) char *escaped = database_escaped(url, n);

		if (!escaped)
			return false;
		if (strcmp(escaped, url) != 0)
			return true;
	}
}

/* Where the last component between path and end begins, after its slash. */
static const char *last_component(const char *path, const char *end)
{
	while (end > path && end[-1] != '/')
		end--;
	return end;
}

static bool is_too_long(const char *path, const char *end)
{
	char decoded[BUCKET_KEY_MAX];

	return percent_decode(path, (size_t)(end - path), decoded) < 0 ||
	       strlen(decoded) > BUCKET_URL_PREFIX_MAX;
}

/* What is too long for a store's prefix is cut: the end of it is the db. */
static int open_form(const char *url, struct bucket **ret,
		     char ret_db[BUCKET_KEY_MAX])
{
	AUTO(mem) char *above = NULL;
	const char *path = path_of(url);
	const char *end = url + strcspn(url, "?"), *cut = end;

	ret_db[0] = '\0';
	if (!path || strncmp(url, "s3://", 5) != 0)
		return bucket_open(url, false, ret);
	for (path++; cut > path && is_too_long(path, cut);)
		cut = last_component(path, cut - 1);
	if (cut == end)
		return bucket_open(url, false, ret);
	if (percent_decode(cut, (size_t)(end - cut), ret_db) < 0)
		return error_set(-ERR_USAGE, "the URL is too long");
	if (asprintf(&above, "%.*s%s", (int)(cut - url), url, end) < 0)
		return error_set(-ENOMEM, "out of memory");
	return bucket_open(above, false, ret);
}

/* S3's keys are UTF-8; stores answer strangely when asked for others. */
static bool can_exist(const char *url)
{
	char decoded[BUCKET_KEY_MAX];

	return strncmp(url, "s3://", 5) != 0 ||
	       percent_decode(url, strcspn(url, "?"), decoded) < 0 ||
	       report_is_utf8(decoded);
}

/* -ENOENT or -ENODEV: there is none.  A broken one is one. */
static int try(const char *url, struct bucket **ret,
	       char ret_db[BUCKET_KEY_MAX])
{
	AUTO(bucket) struct bucket *bucket = NULL;
	struct restorer_point head;
	int rc;

	if (!can_exist(url))
		return -ENOENT;
	rc = open_form(url, &bucket, ret_db);
	if (rc == 0 && *ret_db)
		rc = bucket_key_check(ret_db);
	if (rc < 0)
		return rc;
	if (restorer_head(bucket, ret_db, &head) == -ENOENT)
		return -ENOENT;
	*ret = TAKE(bucket);
	return 0;
}

/* A name may hold what a URL or a key may not; its escaped form can. */
static bool is_absent(int rc)
{
	return rc == -ENOENT || rc == -ENODEV || rc == -ERR_USAGE ||
	       rc == -EINVAL;
}

int database_open(const char *url, struct bucket **ret,
		  char ret_db[BUCKET_KEY_MAX])
{
	if (!has_another_form(url))
		return open_form(url, ret, ret_db);
	for (unsigned n = 0;; n++) {
		AUTO(mem) char *form = database_escaped(url, n);
		int rc = form ? try(form, ret, ret_db) : 0;

		if (!form)
			return open_form(url, ret, ret_db);
		if (!is_absent(rc))
			return rc;
	}
}

/* An archive_db_fn; arg is the text. */
static int add_name(const char *db, void *arg)
{
	struct buf *names = arg;

	if (!*db)
		return 0;
	/* The buffer's limit says when it is enough. */
	return buf_printf(names, "%s%s", names->size ? ", " : "", db);
}

int database_explain(struct bucket *b, const char *db, int rc)
{
	AUTO(buf) struct buf names = BUF_INIT(256);
	char sentence[ERROR_MESSAGE_SIZE];

	if (rc != -ENOENT || *db)
		return rc;
	(void)snprintf(sentence, sizeof(sentence), "%s", error_message());
	(void)archive_databases(b, add_name, &names);
	if (names.size == 0)
		return error_set(rc, "%s", sentence);
	return error_set(rc,
			 "%s; it is a bucket with databases, so put the name "
			 "of one after it: %s",
			 sentence, names.data);
}
