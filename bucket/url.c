#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/error.h"

#include "bucket/url.h"

/*
 * Messages about a URL that is refused never repeat more of it than a name:
 * the refused part may be somebody's secret.
 */
#define URL_FORMS "write file:///PATH or s3://NAME/PREFIX?endpoint=https://HOST"

static int no_memory(void)
{
	return error_set(-ENOMEM, "out of memory");
}

static int copy(const char *text, size_t length, char **ret)
{
	*ret = strndup(text, length);
	return *ret ? 0 : no_memory();
}

static int hex_digit(char c)
{
	const char *digits = "0123456789abcdef";
	const char *at = c ? strchr(digits, tolower((unsigned char)c)) : NULL;

	return at ? (int)(at - digits) : -1;
}

/* Percent-decoded; control characters have no place in any part. */
static int decode(const char *text, size_t length, const char *what,
		  char **ret)
{
	AUTO(mem) char *out = malloc(length + 1);
	size_t n = 0;

	if (!out)
		return no_memory();
	for (size_t i = 0; i < length; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c == '%') {
			int high = i + 1 < length ? hex_digit(text[i + 1]) : -1;
			int low = i + 2 < length ? hex_digit(text[i + 2]) : -1;

			if (high < 0 || low < 0)
				return error_set(-ERR_USAGE, "bucket URL: in "
						 "the %s, %% must be followed "
						 "by two hex digits; write "
						 "%%25 for %%", what);
			c = (unsigned char)(high << 4 | low);
			i += 2;
		}
		if (c < 0x20 || c == 0x7f)
			return error_set(-ERR_USAGE, "bucket URL: the %s holds "
					 "a control character", what);
		out[n++] = (char)c;
	}
	out[n] = '\0';
	*ret = TAKE(out);
	return 0;
}

/* Parts between slashes that stores and file systems read in different ways. */
static bool has_odd_component(const char *path)
{
	for (const char *p = path; *p;) {
		size_t length = strcspn(p, "/");

		if (length == 0 || strncmp(p, ".", length) == 0 ||
		    strncmp(p, "..", length) == 0)
			return true;
		p += length;
		if (*p == '/')
			p++;
	}
	return false;
}

static void strip_slashes_at_end(char *path, size_t keep)
{
	size_t length = strlen(path);

	while (length > keep && path[length - 1] == '/')
		path[--length] = '\0';
}

static int parse_file(const char *rest, struct bucket_url *url)
{
	int rc;

	if (*rest != '/')
		return error_set(-ERR_USAGE, "bucket URL: a file bucket needs "
				 "an absolute path after 'file://', as in "
				 "file:///var/backups/app");
	if (strchr(rest, '?'))
		return error_set(-ERR_USAGE, "bucket URL: file:// takes no "
				 "parameters; write %%3F for a '?' in the path");
	rc = decode(rest, strlen(rest), "path", &url->path);
	if (rc == 0)
		strip_slashes_at_end(url->path, 1);
	return rc;
}

/* S3's rule for names, widened by what older buckets and other stores have. */
static int check_name(const char *name, size_t length)
{
	if (length < 3 || length > 255 || name[0] == '.' || name[0] == '-')
		goto invalid;
	for (size_t i = 0; i < length; i++)
		if (!isalnum((unsigned char)name[i]) &&
		    !strchr(".-_", name[i]))
			goto invalid;
	return 0;
invalid:
	return error_set(-ERR_USAGE, "bucket URL: after 's3://' comes the "
			 "bucket's name, 3 to 255 letters, digits, '.', '-' "
			 "or '_'");
}

static int parse_prefix(const char *text, size_t length,
			struct bucket_url *url)
{
	int rc;

	while (length > 0 && *text == '/') {
		text++;
		length--;
	}
	rc = decode(text, length, "prefix", &url->prefix);
	if (rc < 0)
		return rc;
	strip_slashes_at_end(url->prefix, 0);
	if (strlen(url->prefix) > BUCKET_URL_PREFIX_MAX)
		return error_set(-ERR_USAGE, "bucket URL: the prefix is longer "
				 "than %d bytes", BUCKET_URL_PREFIX_MAX);
	if (has_odd_component(url->prefix))
		return error_set(-ERR_USAGE, "bucket URL: the prefix may not "
				 "hold '//', '/./' or '/../'");
	return 0;
}

static int set_endpoint(struct bucket_url *url, const char *value)
{
	const char *host = strstr(value, "://");

	if (strncmp(value, "https://", 8) != 0 &&
	    strncmp(value, "http://", 7) != 0)
		return error_set(-ERR_USAGE, "bucket URL: endpoint must begin "
				 "with https:// (or, unencrypted, http://)");
	host += 3;
	if (strchr(host, '@'))
		return error_set(-ERR_USAGE, "bucket URL: the endpoint may not "
				 "hold a user or password; credentials come "
				 "from AWS_ACCESS_KEY_ID and "
				 "AWS_SECRET_ACCESS_KEY");
	if (!*host || strcspn(host, "/?# \\") != strlen(host))
		return error_set(-ERR_USAGE, "bucket URL: endpoint is "
				 "https://HOST or https://HOST:PORT, with "
				 "nothing after it");
	return copy(value, strlen(value), &url->endpoint);
}

static int set_region(struct bucket_url *url, const char *value)
{
	for (const char *p = value; *p; p++)
		if (!isalnum((unsigned char)*p) && *p != '-' && *p != '_')
			goto invalid;
	if (!*value)
		goto invalid;
	return copy(value, strlen(value), &url->region);
invalid:
	return error_set(-ERR_USAGE, "a region is of letters, digits and '-', "
			 "like eu-central-1");
}

static int set_path_style(struct bucket_url *url, const char *value)
{
	if (strcmp(value, "true") != 0 && strcmp(value, "false") != 0)
		return error_set(-ERR_USAGE,
				 "bucket URL: path-style is true or false");
	url->path_style = strcmp(value, "true") == 0;
	return 0;
}

static int set_ca_bundle(struct bucket_url *url, const char *value)
{
	if (!*value)
		return error_set(-ERR_USAGE,
				 "bucket URL: ca-bundle needs a file's name");
	return copy(value, strlen(value), &url->ca_bundle);
}

static int set_driver(struct bucket_url *url, const char *value)
{
	if (strcmp(value, "curl") != 0 && strcmp(value, "libs3") != 0)
		return error_set(-ERR_USAGE,
				 "bucket URL: driver is curl or libs3");
	url->libs3 = strcmp(value, "libs3") == 0;
	return 0;
}

static const struct {
	const char *name;
	int (*set)(struct bucket_url *url, const char *value);
} parameters[] = {
	{ "endpoint", set_endpoint },	  { "region", set_region },
	{ "path-style", set_path_style }, { "ca-bundle", set_ca_bundle },
	{ "driver", set_driver },
};

enum { PARAMETERS = sizeof(parameters) / sizeof(parameters[0]) };

/* NAME=VALUE; *seen is a bit for each parameter that was given already. */
static int parse_parameter(const char *text, size_t length,
			   struct bucket_url *url, unsigned *seen)
{
	const char *equals = memchr(text, '=', length);
	size_t name = equals ? (size_t)(equals - text) : length;
	AUTO(mem) char *value = NULL;
	unsigned i = 0;
	int rc;

	while (i < PARAMETERS && (strlen(parameters[i].name) != name ||
				  memcmp(parameters[i].name, text, name) != 0))
		i++;
	if (i == PARAMETERS)
		return error_set(-ERR_USAGE, "bucket URL: there is no "
				 "parameter '%.*s'; there are endpoint, "
				 "region, path-style, ca-bundle and driver",
				 (int)(name < 40 ? name : 40), text);
	if (*seen & 1u << i)
		return error_set(-ERR_USAGE, "bucket URL: '%s' is given twice",
				 parameters[i].name);
	*seen |= 1u << i;
	if (!equals)
		return error_set(-ERR_USAGE, "bucket URL: '%s' needs a value",
				 parameters[i].name);
	rc = decode(equals + 1, length - name - 1, parameters[i].name, &value);
	return rc < 0 ? rc : parameters[i].set(url, value);
}

static int parse_parameters(const char *query, struct bucket_url *url)
{
	unsigned seen = 0;

	/* An endpoint of one's own seldom has a DNS name per bucket. */
	url->path_style = strncmp(query, "endpoint=", 9) == 0 ||
			  strstr(query, "&endpoint=");
	while (*query) {
		size_t length = strcspn(query, "&");
		int rc = parse_parameter(query, length, url, &seen);

		if (rc < 0)
			return rc;
		query += length;
		if (*query == '&')
			query++;
	}
	return 0;
}

static const char *environment(const char *name)
{
	const char *value = getenv(name);

	return value && *value ? value : NULL;
}

static int set_defaults(struct bucket_url *url)
{
	const char *ca_bundle = environment("AWS_CA_BUNDLE");
	const char *region = environment("AWS_REGION");
	int rc = 0;

	if (!region)
		region = environment("AWS_DEFAULT_REGION");
	if (!url->region)
		rc = set_region(url, region ? region : "us-east-1");
	if (rc == 0 && !url->ca_bundle && ca_bundle)
		rc = set_ca_bundle(url, ca_bundle);
	return rc;
}

static int parse_s3(const char *rest, struct bucket_url *url)
{
	size_t before_query = strcspn(rest, "?");
	size_t name = strcspn(rest, "/?");
	const char *query = rest + before_query;
	int rc = 0;

	if (memchr(rest, '@', name))
		return error_set(-ERR_USAGE, "bucket URL: it may not hold "
				 "credentials; they come from AWS_ACCESS_KEY_ID "
				 "and AWS_SECRET_ACCESS_KEY");
	rc = check_name(rest, name);
	if (rc == 0)
		rc = copy(rest, name, &url->name);
	if (rc == 0)
		rc = parse_prefix(rest + name, before_query - name, url);
	if (rc == 0)
		rc = parse_parameters(*query ? query + 1 : query, url);
	return rc < 0 ? rc : set_defaults(url);
}

static int parse(const char *text, struct bucket_url *url)
{
	if (strchr(text, '#'))
		return error_set(-ERR_USAGE,
				 "bucket URL: write %%23 for a '#'");
	if (strncasecmp(text, "file://", 7) == 0) {
		url->scheme = BUCKET_FILE;
		return parse_file(text + 7, url);
	}
	if (strncasecmp(text, "s3://", 5) == 0) {
		url->scheme = BUCKET_S3;
		return parse_s3(text + 5, url);
	}
	return error_set(-ERR_USAGE,
			 "a bucket is named by a URL: " URL_FORMS);
}

int bucket_url_parse(const char *text, struct bucket_url *ret)
{
	struct bucket_url url = { 0 };
	int rc = parse(text, &url);

	if (rc == 0)
		rc = copy(text, strlen(text), &url.text);
	if (rc < 0) {
		bucket_url_clear(&url);
		return rc;
	}
	*ret = url;
	return 0;
}

void bucket_url_clear(struct bucket_url *url)
{
	free(url->path);
	free(url->name);
	free(url->prefix);
	free(url->endpoint);
	free(url->region);
	free(url->ca_bundle);
	free(url->text);
	*url = (struct bucket_url){ 0 };
}
