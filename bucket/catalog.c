#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/io.h"
#include "base/stream.h"
#include "bucket/archive.h"
#include "ltx/header.h"
#include "ltx/name.h"

#include "bucket/catalog.h"

/*
 * The document itself, so that what we do not know of stays in it.  Everything
 * that we do know of was checked when it came in; reading it cannot fail.
 */
struct catalog {
	json_t *root;
	json_t *databases; /* root's */
};

static void json_cleanup(json_t **value)
{
	json_decref(*value);
}

static int out_of_memory(void)
{
	return error_set(-ENOMEM, "no memory for the catalog");
}

/*
 * Members
 * -------
 */

static bool is_lower_hex(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

bool catalog_id_valid(const char *id)
{
	size_t n = 0;

	while (is_lower_hex(id[n]))
		n++;
	return n == CATALOG_ID_SIZE - 1 && id[n] == '\0';
}

void catalog_id_make(char ret[CATALOG_ID_SIZE])
{
	uint64_t random[2];

	io_random(random, sizeof(random));
	(void)snprintf(ret, CATALOG_ID_SIZE, "%016" PRIx64 "%016" PRIx64,
		       random[0], random[1]);
}

static const char *text_of(const json_t *object, const char *name)
{
	return json_string_value(json_object_get(object, name));
}

/* An integer from 1 up to max; 0: it is something else, or not there. */
static uint64_t number_of(const json_t *object, const char *name, uint64_t max)
{
	const json_t *value = json_object_get(object, name);
	json_int_t number = json_is_integer(value) ? json_integer_value(value)
						   : 0;

	return number > 0 && (uint64_t)number <= max ? (uint64_t)number : 0;
}

/* 0: it is something else, or not there. */
static uint64_t txid_of(const json_t *object, const char *name)
{
	const char *text = text_of(object, name);
	uint64_t txid = 0;

	return text && ltx_txid_parse(text, &txid) == 0 ? txid : 0;
}

/* The name of the member that is not as it should be, or NULL. */
static const char *read_entry(const json_t *line, struct catalog_entry *ret)
{
	const char *state = text_of(line, "state");
	const char *time = text_of(line, "time");
	struct catalog_entry e = {
		.page_size = (uint32_t)number_of(line, "page_size",
						 LTX_MAX_PAGE_SIZE),
		.dropped = state && strcmp(state, "dropped") == 0,
		.txid = txid_of(line, "txid"),
		.floor = txid_of(line, "floor"),
	};

	if (!state || (!e.dropped && strcmp(state, "live") != 0))
		return "state";
	if (!ltx_page_size_valid(e.page_size))
		return "page_size";
	if (!e.txid)
		return "txid";
	if (!time || clock_parse(time, &e.time_ms) < 0)
		return "time";
	if (!e.floor)
		return "floor";
	*ret = e;
	return NULL;
}

/* Sets our members of a line, which is new or one of before. */
static int write_entry(json_t *line, const struct catalog_entry *e)
{
	char txid[LTX_TXID_TEXT_SIZE], floor[LTX_TXID_TEXT_SIZE];
	char time[CLOCK_TEXT_SIZE];
	const char *state = e->dropped ? "dropped" : "live";

	ltx_txid_format(e->txid, txid);
	ltx_txid_format(e->floor ? e->floor : 1, floor);
	clock_format(e->time_ms, time);
	if (json_object_set_new(line, "state", json_string(state)) < 0 ||
	    json_object_set_new(line, "page_size",
				json_integer(e->page_size)) < 0 ||
	    json_object_set_new(line, "txid", json_string(txid)) < 0 ||
	    json_object_set_new(line, "time", json_string(time)) < 0 ||
	    json_object_set_new(line, "floor", json_string(floor)) < 0)
		return out_of_memory();
	return 0;
}

/*
 * The whole
 * ---------
 */

static int corrupt(const char *what)
{
	return error_set(-ERR_CORRUPT, CATALOG_KEY " is damaged: %s", what);
}

/* First of all: of a newer format nothing else is understood. */
static int check_format(const json_t *root)
{
	const json_t *format = json_object_get(root, "format");
	json_int_t number = json_integer_value(format);

	if (!json_is_integer(format) || number < 1)
		return corrupt("it has no format");
	if (number > CATALOG_FORMAT)
		return error_set(-EOPNOTSUPP,
				 "the bucket has format %" JSON_INTEGER_FORMAT
				 ", and this litebucket knows format %d: use a "
				 "newer litebucket",
				 number, CATALOG_FORMAT);
	return 0;
}

static int check_members(const json_t *root)
{
	const char *id = text_of(root, "bucket_id");

	if (!id || !catalog_id_valid(id))
		return corrupt("bucket_id is not 32 hex digits");
	if (!number_of(root, "epoch", UINT32_MAX))
		return corrupt("epoch is no number that one can have");
	if (!json_is_object(json_object_get(root, "databases")))
		return corrupt("there are no databases in it");
	return 0;
}

static int check_entry(const char *db, const json_t *line)
{
	char path[BUCKET_KEY_MAX];
	struct catalog_entry entry;
	const char *wrong;

	if (archive_unescape(db, path) < 0)
		return error_wrap(-ERR_CORRUPT, CATALOG_KEY " is damaged");
	wrong = read_entry(line, &entry);
	if (wrong)
		return error_set(-ERR_CORRUPT, CATALOG_KEY " is damaged: the "
				 "%s of '%.200s' makes no sense", wrong, db);
	return 0;
}

static int check(json_t *root)
{
	const char *db;
	json_t *line;
	int rc = check_format(root);

	if (rc == 0)
		rc = check_members(root);
	if (rc < 0)
		return rc;
	json_object_foreach(json_object_get(root, "databases"), db, line) {
		rc = check_entry(db, line);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int wrap(json_t **root, struct catalog **ret)
{
	struct catalog *c = malloc(sizeof(*c));

	if (!c)
		return out_of_memory();
	c->root = TAKE(*root);
	c->databases = json_object_get(c->root, "databases");
	*ret = c;
	return 0;
}

int catalog_new(const char *id, struct catalog **ret)
{
	AUTO(json) json_t *root = json_pack("{s:i, s:s, s:i, s:{}}", "format",
					    CATALOG_FORMAT, "bucket_id", id,
					    "epoch", 1, "databases");

	return root ? wrap(&root, ret) : out_of_memory();
}

int catalog_parse(const char *data, size_t size, struct catalog **ret)
{
	AUTO(json) json_t *root = NULL;
	json_error_t error;
	int rc;

	if (size > CATALOG_SIZE_MAX)
		return error_set(-EFBIG, CATALOG_KEY " has %zu bytes; no "
				 "litebucket writes so many", size);
	root = json_loadb(data ? data : "", size, JSON_REJECT_DUPLICATES,
			  &error);
	if (!root && json_error_code(&error) == json_error_out_of_memory)
		return out_of_memory();
	if (!root)
		return corrupt(error.text);
	rc = check(root);
	return rc < 0 ? rc : wrap(&root, ret);
}

static int append(const char *data, size_t size, void *arg)
{
	return buf_append(arg, data, size);
}

int catalog_print(const struct catalog *c, struct buf *ret)
{
	AUTO(buf) struct buf text = BUF_INIT(CATALOG_SIZE_MAX);

	if (json_dump_callback(c->root, append, &text,
			       JSON_INDENT(1) | JSON_SORT_KEYS) < 0 ||
	    buf_append(&text, "\n", 1) < 0)
		return error_set(-EFBIG, CATALOG_KEY " gets too large with %zu "
				 "databases", catalog_count(c));
	return buf_append(ret, text.data, text.size);
}

int catalog_get(struct bucket *b, struct catalog **ret,
		struct bucket_info *ret_info)
{
	AUTO(buf) struct buf text = BUF_INIT(CATALOG_SIZE_MAX);
	struct bucket_info info = { 0 };
	struct buf_sink sink;
	int rc;

	buf_sink_init(&sink, &text);
	rc = bucket_get(b, CATALOG_KEY, 0, BUCKET_TO_END, NULL, &sink.sink,
			&info);
	if (rc == 0)
		rc = catalog_parse(text.data, text.size, ret);
	if (rc < 0)
		return error_wrap(rc, "reading " CATALOG_KEY " of %s", b->url);
	if (ret_info)
		*ret_info = info;
	return 0;
}

const char *catalog_id(const struct catalog *c)
{
	return text_of(c->root, "bucket_id");
}

uint64_t catalog_epoch(const struct catalog *c)
{
	return number_of(c->root, "epoch", UINT32_MAX);
}

int catalog_set_epoch(struct catalog *c, uint64_t epoch)
{
	uint64_t before = catalog_epoch(c);

	if (epoch > UINT32_MAX)
		return error_set(-EINVAL, "%" PRIu64 " is no epoch", epoch);
	if (epoch < before)
		return error_set(-EINVAL, CATALOG_KEY " is of epoch %" PRIu64
				 ", and cannot become one of epoch %" PRIu64,
				 before, epoch);
	if (epoch == before)
		return 0;
	if (json_object_set_new(c->root, "epoch",
				json_integer((json_int_t)epoch)) < 0)
		return out_of_memory();
	return 1;
}

size_t catalog_count(const struct catalog *c)
{
	return json_object_size(c->databases);
}

bool catalog_find(const struct catalog *c, const char *db,
		  struct catalog_entry *ret)
{
	const json_t *line = json_object_get(c->databases, db);

	return line && !read_entry(line, ret);
}

static int set_entry(struct catalog *c, const char *db,
		     const struct catalog_entry *entry)
{
	AUTO(json) json_t *line = json_incref(json_object_get(c->databases,
							      db));
	int rc;

	if (!line)
		line = json_object();
	if (!line)
		return out_of_memory();
	rc = write_entry(line, entry);
	if (rc == 0 && json_object_set(c->databases, db, line) < 0)
		rc = out_of_memory();
	return rc;
}

int catalog_note(struct catalog *c, const char *db,
		 const struct catalog_entry *entry)
{
	struct catalog_entry now = *entry, before;
	char path[BUCKET_KEY_MAX];
	/* Nothing is written that would be refused when it is read. */
	int rc = archive_unescape(db, path);

	if (rc < 0)
		return rc;
	if (catalog_find(c, db, &before)) {
		if (before.txid > entry->txid ||
		    (before.dropped == entry->dropped &&
		     before.page_size == entry->page_size))
			return 0;
		now.floor = before.floor;
	}
	rc = set_entry(c, db, &now);
	return rc < 0 ? rc : 1;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

int catalog_each(const struct catalog *c, catalog_fn fn, void *arg)
{
	AUTO(mem) const char **names = calloc(catalog_count(c) + 1,
					      sizeof(*names));
	const char *name;
	json_t *line;
	size_t n = 0;
	int rc = 0;

	if (!names)
		return out_of_memory();
	json_object_foreach(c->databases, name, line)
		names[n++] = name;
	qsort(names, n, sizeof(*names), compare_names);
	for (size_t i = 0; i < n && rc == 0; i++) {
		struct catalog_entry entry;

		if (catalog_find(c, names[i], &entry))
			rc = fn(names[i], &entry, arg);
	}
	return rc;
}

void catalog_free(struct catalog *c)
{
	if (!c)
		return;
	json_decref(c->root);
	free(c);
}
