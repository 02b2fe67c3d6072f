#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/io.h"
#include "base/stream.h"

#include "bucket/lease_record.h"

static void json_cleanup(json_t **value)
{
	json_decref(*value);
}

void lease_holder_make(char ret[LEASE_HOLDER_SIZE])
{
	uint64_t random;

	io_random(&random, sizeof(random));
	(void)snprintf(ret, LEASE_HOLDER_SIZE, "%016" PRIx64, random);
}

/* ------------------------------------------------------------- reading */

static bool read_number(const json_t *root, const char *name, uint64_t max,
			uint64_t *ret)
{
	const json_t *value = json_object_get(root, name);
	json_int_t number = json_integer_value(value);

	if (!json_is_integer(value) || number < 0 || (uint64_t)number > max)
		return false;
	*ret = (uint64_t)number;
	return true;
}

static bool read_flag(const json_t *root, const char *name, bool *ret)
{
	const json_t *value = json_object_get(root, name);

	*ret = json_is_true(value);
	return json_is_boolean(value);
}

/* A text for people and scripts: nothing in it that moves a cursor. */
static bool is_plain(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == '\x7f')
			return false;
	return true;
}

static bool read_text(const json_t *root, const char *name, char *ret,
		      size_t size)
{
	const char *text = json_string_value(json_object_get(root, name));

	if (!text || strlen(text) >= size || !is_plain(text))
		return false;
	(void)snprintf(ret, size, "%s", text);
	return true;
}

static bool read_time(const json_t *root, const char *name, int64_t *ret)
{
	const char *text = json_string_value(json_object_get(root, name));

	return text && clock_parse(text, ret) == 0;
}

static bool read_holder(const json_t *root, char ret[LEASE_HOLDER_SIZE])
{
	return read_text(root, "holder", ret, LEASE_HOLDER_SIZE) &&
	       strlen(ret) == LEASE_HOLDER_SIZE - 1 &&
	       strspn(ret, "0123456789abcdef") == LEASE_HOLDER_SIZE - 1;
}

/* The name of the member that is not as it should be, or NULL. */
static const char *read_members(const json_t *root, struct lease_record *r)
{
	if (!read_number(root, "generation", UINT32_MAX, &r->generation))
		return "generation";
	if (!read_holder(root, r->holder))
		return "holder";
	if (!read_number(root, "serial", INT64_MAX, &r->serial))
		return "serial";
	if (!read_text(root, "owner", r->owner, sizeof(r->owner)))
		return "owner";
	if (!read_text(root, "url", r->url, sizeof(r->url)))
		return "url";
	if (!read_time(root, "acquired_at", &r->acquired_ms))
		return "acquired_at";
	if (!read_time(root, "expires_at", &r->expires_ms))
		return "expires_at";
	if (!read_flag(root, "released", &r->released))
		return "released";
	if (!read_flag(root, "clean", &r->clean))
		return "clean";
	return NULL;
}

static int damaged(const char *what)
{
	return error_set(-ERR_CORRUPT,
			 LEASE_KEY " is damaged: %s; if no litebucket writes "
			 "to the bucket, remove that object", what);
}

/* First of all: of a newer format nothing else is understood. */
static int check_format(const json_t *root)
{
	uint64_t format;

	if (!read_number(root, "format", INT64_MAX, &format) || format == 0)
		return damaged("it has no format");
	if (format > LEASE_FORMAT)
		return error_set(-EOPNOTSUPP,
				 LEASE_KEY " has format %" PRIu64
				 ", and this litebucket knows format %d: use a "
				 "newer litebucket", format, LEASE_FORMAT);
	return 0;
}

int lease_record_parse(const char *data, size_t size, struct lease_record *ret)
{
	AUTO(json) json_t *root = NULL;
	struct lease_record record;
	json_error_t error;
	const char *wrong;
	int rc;

	if (size > LEASE_RECORD_MAX)
		return damaged("no litebucket writes so many bytes");
	root = json_loadb(data ? data : "", size, JSON_REJECT_DUPLICATES,
			  &error);
	if (!root && json_error_code(&error) == json_error_out_of_memory)
		return error_set(-ENOMEM, "no memory for " LEASE_KEY);
	if (!root)
		return damaged(error.text);
	rc = check_format(root);
	if (rc < 0)
		return rc;
	wrong = read_members(root, &record);
	if (wrong)
		return error_set(-ERR_CORRUPT,
				 LEASE_KEY " is damaged: its %s makes no sense; "
				 "if no litebucket writes to the bucket, remove "
				 "that object", wrong);
	*ret = record;
	return 0;
}

/* ------------------------------------------------------------- writing */

static int append(const char *data, size_t size, void *arg)
{
	return buf_append(arg, data, size);
}

static int no_text(void)
{
	return error_set(-EINVAL, "the owner's name or URL is no text that "
			 LEASE_KEY " can hold");
}

int lease_record_print(const struct lease_record *r, struct buf *ret)
{
	char acquired[CLOCK_TEXT_SIZE], expires[CLOCK_TEXT_SIZE];
	AUTO(json) json_t *root = NULL;

	/* What nobody can read would be left alone, by its writer as well. */
	if (!is_plain(r->owner) || !is_plain(r->url))
		return no_text();
	clock_format(r->acquired_ms, acquired);
	clock_format(r->expires_ms, expires);
	root = json_pack("{s:i, s:I, s:s, s:I, s:s, s:s, s:s, s:s, s:b, s:b}",
			 "format", LEASE_FORMAT, "generation",
			 (json_int_t)r->generation, "holder", r->holder,
			 "serial", (json_int_t)r->serial, "owner", r->owner,
			 "url", r->url, "acquired_at", acquired, "expires_at",
			 expires, "released", r->released, "clean", r->clean);
	if (!root)
		return no_text();
	if (json_dump_callback(root, append, ret,
			       JSON_INDENT(1) | JSON_SORT_KEYS) < 0)
		return error_set(-ENOMEM, "no memory for " LEASE_KEY);
	return buf_append(ret, "\n", 1);
}

/* -------------------------------------------------------- in the bucket */

int lease_record_get(struct bucket *b, struct lease_record *ret,
		     struct bucket_info *ret_info)
{
	AUTO(buf) struct buf text = BUF_INIT(LEASE_RECORD_MAX);
	struct buf_sink sink;
	int rc;

	*ret_info = (struct bucket_info){ 0 };
	buf_sink_init(&sink, &text);
	rc = bucket_get(b, LEASE_KEY, 0, BUCKET_TO_END, NULL, &sink.sink,
			ret_info);
	if (rc == -EFBIG)
		rc = damaged("no litebucket writes so many bytes");
	if (rc == 0)
		rc = lease_record_parse(text.data, text.size, ret);
	return rc < 0 ? error_wrap(rc, "reading " LEASE_KEY " of %s", b->url)
		      : 0;
}

int lease_record_put(struct bucket *b, const struct lease_record *r,
		     const char *etag, struct bucket_info *ret_info)
{
	AUTO(buf) struct buf text = BUF_INIT(LEASE_RECORD_MAX);
	int rc = lease_record_print(r, &text);
	const struct bucket_put put = {
		.key = LEASE_KEY,
		.data = text.data,
		.size = text.size,
		.if_absent = !etag,
		.if_match = etag,
	};

	*ret_info = (struct bucket_info){ 0 };
	if (rc == 0)
		rc = bucket_put(b, &put, ret_info);
	return rc < 0 ? error_wrap(rc, "writing " LEASE_KEY " of %s", b->url)
		      : 0;
}
