#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <expat.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"

#include "bucket/s3_xml.h"

enum {
	DEPTH_MAX = 8,
	NAME_MAX_SIZE = 32, /* longer names are none of ours */
	TEXT_MAX = 8192,
	ENTRIES_MAX = 10000, /* ten times what is asked for */
};

struct document {
	XML_Parser parser;
	char path[DEPTH_MAX][NAME_MAX_SIZE];
	int depth;
	struct buf text; /* of the innermost element */
	int rc;

	/* The end of an element that holds text. */
	int (*element)(struct document *doc, const char *parent,
		       const char *name, const char *text);
	void *result;
};

static void refuse(struct document *doc, int rc)
{
	if (doc->rc == 0)
		doc->rc = rc;
	(void)XML_StopParser(doc->parser, XML_FALSE);
}

static void XMLCALL on_start(void *arg, const XML_Char *name,
			     const XML_Char **attributes)
{
	struct document *doc = arg;

	if (doc->depth == DEPTH_MAX) {
		refuse(doc, error_set(-ERR_CORRUPT, "it is nested too deeply"));
		return;
	}
	(void)snprintf(doc->path[doc->depth++], NAME_MAX_SIZE, "%s", name);
	buf_reset(&doc->text);
}

static void XMLCALL on_text(void *arg, const XML_Char *text, int size)
{
	struct document *doc = arg;
	int rc = buf_append(&doc->text, text, (size_t)size);

	if (rc == -EFBIG)
		rc = error_set(-ERR_CORRUPT, "the text of %s is too long",
			       doc->depth ? doc->path[doc->depth - 1] : "it");
	if (rc < 0)
		refuse(doc, rc);
}

static void XMLCALL on_end(void *arg, const XML_Char *name)
{
	struct document *doc = arg;
	int rc;

	/* Stopping does not keep expat from ending an empty element. */
	if (doc->rc < 0)
		return;
	doc->depth--;
	rc = doc->element(doc, doc->depth ? doc->path[doc->depth - 1] : "",
			  doc->path[doc->depth],
			  doc->text.data ? doc->text.data : "");
	buf_reset(&doc->text);
	if (rc < 0)
		refuse(doc, rc);
}

/* Entities are declared in a DOCTYPE, and S3 never sends one. */
static void XMLCALL on_doctype(void *arg, const XML_Char *name,
			       const XML_Char *system, const XML_Char *public,
			       int internal)
{
	refuse(arg, error_set(-ERR_CORRUPT, "it has a DOCTYPE"));
}

static int parse(struct document *doc, const char *data, size_t size)
{
	if (size == 0 || size > INT32_MAX)
		return error_set(-ERR_CORRUPT, "it is empty");
	doc->parser = XML_ParserCreate(NULL);
	if (!doc->parser)
		return error_set(-ENOMEM, "out of memory");
	doc->text.limit = TEXT_MAX;
	XML_SetUserData(doc->parser, doc);
	XML_SetElementHandler(doc->parser, on_start, on_end);
	XML_SetCharacterDataHandler(doc->parser, on_text);
	XML_SetStartDoctypeDeclHandler(doc->parser, on_doctype);
	if (XML_Parse(doc->parser, data, (int)size, XML_TRUE) ==
		    XML_STATUS_ERROR && doc->rc == 0)
		doc->rc = error_set(
			-ERR_CORRUPT, "%s",
			XML_ErrorString(XML_GetErrorCode(doc->parser)));
	XML_ParserFree(doc->parser);
	buf_cleanup(&doc->text);
	return doc->rc;
}

static int problem_element(struct document *doc, const char *parent,
			   const char *name, const char *text)
{
	struct s3_problem *p = doc->result;
	const struct {
		const char *name;
		char *ret;
		size_t size;
	} parts[] = {
		{ "Code", p->code, sizeof(p->code) },
		{ "Message", p->message, sizeof(p->message) },
		{ "Key", p->key, sizeof(p->key) },
		{ "Region", p->region, sizeof(p->region) },
		{ "Endpoint", p->endpoint, sizeof(p->endpoint) },
	};

	if (strcmp(parent, "Error") != 0)
		return 0;
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		if (strcmp(name, parts[i].name) == 0 && !*parts[i].ret)
			(void)snprintf(parts[i].ret, parts[i].size, "%s", text);
	return 0;
}

int s3_xml_problem(const char *data, size_t size, struct s3_problem *ret)
{
	struct document doc = { .element = problem_element, .result = ret };
	int rc;

	*ret = (struct s3_problem){ 0 };
	rc = parse(&doc, data, size);
	if (rc == 0 && strcmp(doc.path[0], "Error") != 0 &&
	    strcmp(doc.path[0], "ErrorResponse") != 0 &&
	    strcmp(doc.path[0], "DeleteResult") != 0)
		rc = error_set(-ERR_CORRUPT, "it is a %s", doc.path[0]);
	return rc;
}

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* As in a form: '+' is a space.  In place; a NUL in a key is refused. */
static int url_decode(char *text)
{
	char *to = text;

	for (const char *from = text; *from; to++) {
		if (*from != '%') {
			*to = *from == '+' ? ' ' : *from;
			from++;
			continue;
		}
		if (hex(from[1]) < 0 || hex(from[2]) < 0)
			return -EINVAL;
		*to = (char)(hex(from[1]) << 4 | hex(from[2]));
		if (!*to)
			return -EINVAL;
		from += 3;
	}
	*to = '\0';
	return 0;
}

struct s3_entry *s3_listing_add(struct s3_listing *l)
{
	if (l->n == l->capacity) {
		size_t capacity = l->capacity ? 2 * l->capacity : 64;
		struct s3_entry *entries =
			realloc(l->entries, capacity * sizeof(*entries));

		if (!entries)
			return NULL;
		l->entries = entries;
		l->capacity = capacity;
	}
	l->entries[l->n] = (struct s3_entry){ 0 };
	return &l->entries[l->n++];
}

static int copy(const char *text, char **ret)
{
	free(*ret);
	*ret = strdup(text);
	return *ret ? 0 : error_set(-ENOMEM, "out of memory");
}

/* Parts of Contents; its last entry is the one being read. */
static int entry_part(struct s3_entry *entry, const char *name,
		      const char *text)
{
	if (strcmp(name, "Key") == 0)
		return copy(text, &entry->key);
	if (strcmp(name, "Size") == 0) {
		char *end;

		errno = 0;
		entry->size = strtoull(text, &end, 10);
		if (errno || end == text || *end || *text == '-')
			return error_set(-ERR_CORRUPT, "'%.40s' is no size",
					 text);
	}
	/* The time of a list is only shown to people. */
	if (strcmp(name, "LastModified") == 0)
		(void)clock_parse(text, &entry->modified_ms);
	return 0;
}

struct listing_reader {
	struct s3_listing *listing;
	bool in_entry;
};

static int contents_element(struct listing_reader *reader, const char *name,
			    const char *text)
{
	struct s3_listing *l = reader->listing;

	if (!reader->in_entry) {
		if (l->n == ENTRIES_MAX)
			return error_set(-ERR_CORRUPT,
					 "it has too many entries");
		if (!s3_listing_add(l))
			return error_set(-ENOMEM, "out of memory");
		reader->in_entry = true;
	}
	return entry_part(&l->entries[l->n - 1], name, text);
}

static int listing_element(struct document *doc, const char *parent,
			   const char *name, const char *text)
{
	struct listing_reader *reader = doc->result;
	struct s3_listing *l = reader->listing;

	if (strcmp(parent, "Contents") == 0)
		return contents_element(reader, name, text);
	if (strcmp(parent, "ListBucketResult") != 0)
		return 0;
	if (strcmp(name, "Contents") == 0)
		reader->in_entry = false;
	else if (strcmp(name, "IsTruncated") == 0)
		l->truncated = strcmp(text, "true") == 0;
	else if (strcmp(name, "EncodingType") == 0)
		l->url_encoded = strcmp(text, "url") == 0;
	else if (strcmp(name, "NextContinuationToken") == 0)
		return copy(text, &l->token);
	return 0;
}

int s3_xml_listing(const char *data, size_t size, struct s3_listing *ret)
{
	struct listing_reader reader = { .listing = ret };
	struct document doc = { .element = listing_element, .result = &reader };
	int rc = parse(&doc, data, size);

	if (rc == 0 && strcmp(doc.path[0], "ListBucketResult") != 0)
		rc = error_set(-ERR_CORRUPT, "it is a %s", doc.path[0]);
	for (size_t i = 0; rc == 0 && i < ret->n; i++) {
		struct s3_entry *entry = &ret->entries[i];

		if (!entry->key ||
		    (ret->url_encoded && url_decode(entry->key) < 0))
			rc = error_set(-ERR_CORRUPT, "an entry has no key");
	}
	if (rc < 0)
		return error_wrap(rc, "the store's list cannot be read");
	return 0;
}

void s3_listing_cleanup(struct s3_listing *listing)
{
	for (size_t i = 0; i < listing->n; i++)
		free(listing->entries[i].key);
	free(listing->entries);
	free(listing->token);
	*listing = (struct s3_listing){ 0 };
}

int s3_xml_escape(const char *text, struct buf *ret)
{
	int rc = 0;

	for (; rc == 0 && *text; text++)
		switch (*text) {
		case '&':
			rc = buf_printf(ret, "&amp;");
			break;
		case '<':
			rc = buf_printf(ret, "&lt;");
			break;
		case '>':
			rc = buf_printf(ret, "&gt;");
			break;
		default:
			rc = buf_append(ret, text, 1);
		}
	return rc;
}
