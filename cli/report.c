#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "cli/cli.h"
#include "ltx/name.h"

#include "cli/report.h"

static void print_line(const char *kind, const char *fmt, va_list args)
	__attribute__((format(printf, 2, 0)));

/* Is this parameter of a URL one of ours, which hold no secret? */
static bool is_parameter(const char *name, size_t length)
{
	static const char *const names[] = {
		"endpoint", "region", "path-style", "ca-bundle", "driver",
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strlen(names[i]) == length &&
		    memcmp(names[i], name, length) == 0)
			return true;
	return false;
}

/* query: from a URL's question mark on.  Of what is unknown the name stays. */
static void hide_values(char *query)
{
	while (*query == '?' || *query == '&') {
		char *name = query + 1;
		size_t length = strcspn(name, "=& '\"");
		char *value = name + length + (name[length] == '=');
		size_t size = strcspn(value, "& '\"");

		if (!is_parameter(name, length)) {
			memmove(value, value + size, strlen(value + size) + 1);
			size = 0;
		}
		query = value + size;
	}
}

/*
 * A URL that somebody wrote credentials into (s3://KEY:SECRET@NAME/) is refused,
 * and quoted in the refusal.  A secret may hold a slash, so everything up to the
 * last @ goes.  A file's URL has no such part: three slashes, and then its path.
 * So is one with a parameter that there is not (?secret_key=...).
 */
static void hide_credentials(char *line)
{
	char *url = line;

	while ((url = strstr(url, "://"))) {
		char *user = url + 3;
		size_t length = strcspn(user, " '\"");
		char *at = memrchr(user, '@', length);

		if (*user != '/' && at &&
		    memchr(user, ':', (size_t)(at - user)))
			memmove(user, at, strlen(at) + 1);
		hide_values(user + strcspn(user, "? '\""));
		url = user;
	}
}

static void print_line(const char *kind, const char *fmt, va_list args)
{
	char line[2 * ERROR_MESSAGE_SIZE];

	(void)vsnprintf(line, sizeof(line), fmt, args);
	hide_credentials(line);
	for (char *c = line; *c; c++)
		if (iscntrl((unsigned char)*c))
			*c = '?';
	(void)fprintf(stderr, "litebucket: %s%s\n", kind, line);
}

void report_error(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	print_line("", fmt, args);
	va_end(args);
}

void report_warning(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	print_line("warning: ", fmt, args);
	va_end(args);
}

int report_finish(int code)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return code;
	report_error("writing to standard output: %s", strerror(errno));
	return code ? code : CLI_FAILED;
}

json_t *report_document(void)
{
	json_t *document = json_object();

	report_field(&document, "version", json_integer(1));
	return document;
}

void report_field(json_t **object, const char *name, json_t *value)
{
	if (*object && json_object_set_new(*object, name, value) == 0)
		return;
	if (!*object)
		json_decref(value);
	json_decref(*object);
	*object = NULL;
}

int report_json(json_t *document)
{
	int rc;

	if (!document)
		return error_set(-ENOMEM,
				 "out of memory for the JSON document");
	rc = json_dumpf(document, stdout, JSON_INDENT(2) | REPORT_JSON_REALS);
	json_decref(document);
	if (rc < 0 || putchar('\n') == EOF)
		return error_set(-EIO,
				 "writing JSON to standard output failed");
	return 0;
}

/* The length of the UTF-8 sequence text begins with; 0 if it is none. */
static size_t utf8_length(const unsigned char *text)
{
	static const struct {
		unsigned char mask, lead;
		uint32_t least; /* shorter forms of smaller ones are invalid */
	} forms[] = {
		{0x80, 0x00, 0},
		{0xe0, 0xc0, 0x80},
		{0xf0, 0xe0, 0x800},
		{0xf8, 0xf0, 0x10000},
	};

	for (size_t n = 0; n < 4; n++) {
		uint32_t code = text[0] & (unsigned char)~forms[n].mask;

		if ((text[0] & forms[n].mask) != forms[n].lead)
			continue;
		for (size_t i = 1; i <= n; i++) {
			if ((text[i] & 0xc0) != 0x80)
				return 0;
			code = code << 6 | (text[i] & 0x3f);
		}
		if (code < forms[n].least || code > 0x10ffff ||
		    (code >= 0xd800 && code < 0xe000))
			return 0;
		return n + 1;
	}
	return 0;
}

bool report_is_utf8(const char *text)
{
	while (*text) {
		size_t n = utf8_length((const unsigned char *)text);

		if (n == 0)
			return false;
		text += n;
	}
	return true;
}

json_t *report_json_text(const char *text)
{
	static const char replacement[] = "\xef\xbf\xbd";
	AUTO(mem) char *clean = text ? malloc(strlen(text) * 3 + 1) : NULL;
	char *end = clean;

	if (!text)
		return json_null();
	if (!clean)
		return NULL;
	while (*text) {
		size_t n = utf8_length((const unsigned char *)text);
		const char *from = n ? text : replacement;
		size_t size = n ? n : strlen(replacement);

		memcpy(end, from, size);
		end += size;
		text += n ? n : 1;
	}
	return json_stringn(clean, (size_t)(end - clean));
}

json_t *report_json_txid(uint64_t txid)
{
	char text[LTX_TXID_TEXT_SIZE];

	if (txid == 0)
		return json_null();
	ltx_txid_format(txid, text);
	return json_string(text);
}

json_t *report_json_time(int64_t wall_ms)
{
	char text[CLOCK_TEXT_SIZE];

	if (wall_ms == 0)
		return json_null();
	clock_format(wall_ms, text);
	return json_string(text);
}

void report_size(uint64_t bytes, char ret[REPORT_SIZE_TEXT])
{
	static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
	double size = (double)bytes / 1024;
	size_t unit = 0;

	if (bytes < 1024) {
		(void)snprintf(ret, REPORT_SIZE_TEXT, "%u B", (unsigned)bytes);
		return;
	}
	/* 1023.95 would be printed as 1024.0. */
	for (; size >= 1023.95 && unit < 4; unit++)
		size /= 1024;
	(void)snprintf(ret, REPORT_SIZE_TEXT, "%.1f %s", size, units[unit]);
}

void report_lag(double seconds, char ret[REPORT_LAG_TEXT])
{
	if (seconds < 119.95)
		(void)snprintf(ret, REPORT_LAG_TEXT, "%.1f s", seconds);
	else if (seconds < 7170)
		(void)snprintf(ret, REPORT_LAG_TEXT, "%.0f min", seconds / 60);
	else
		(void)snprintf(ret, REPORT_LAG_TEXT, "%.1f h", seconds / 3600);
}
