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

/* -ENOENT or -ENODEV: there is none.  A broken one is one. */
static int try(const char *url, struct bucket **ret)
{
	AUTO(bucket) struct bucket *bucket = NULL;
	struct restorer_point head;
	int rc = bucket_open(url, false, &bucket);

	if (rc < 0)
		return rc;
	if (restorer_head(bucket, "", &head) == -ENOENT)
		return -ENOENT;
	*ret = TAKE(bucket);
	return 0;
}

int database_open(const char *url, struct bucket **ret)
{
	if (!has_another_form(url))
		return bucket_open(url, false, ret);
	for (unsigned n = 0;; n++) {
		AUTO(mem) char *form = database_escaped(url, n);
		int rc = form ? try(form, ret) : 0;

		if (!form)
			return bucket_open(url, false, ret);
		/* A name may hold what a URL may not, but its key can. */
		if (rc != -ENOENT && rc != -ENODEV && rc != -ERR_USAGE)
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

int database_explain(struct bucket *b, int rc)
{
	AUTO(buf) struct buf names = BUF_INIT(256);
	char sentence[ERROR_MESSAGE_SIZE];

	if (rc != -ENOENT)
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
