#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/error.h"
#include "bucket/url.h"

#include "bucket/s3_request.h"

/* S3's rules; the longest and upper case are for other stores. */
static int check_name(const char *name, bool in_host)
{
	size_t length = strlen(name);
	const char *allowed = in_host ? "abcdefghijklmnopqrstuvwxyz0123456789-."
				      : "abcdefghijklmnopqrstuvwxyz0123456789"
					"ABCDEFGHIJKLMNOPQRSTUVWXYZ-._";

	if (length < 3 || length > (in_host ? 63 : 255) ||
	    strspn(name, allowed) != length || strstr(name, "..") ||
	    strchr("-.", name[0]) || strchr("-.", name[length - 1]))
		return error_set(-EINVAL, "'%s' is no name of a bucket: 3 to "
				 "63 of a-z 0-9 - and .", name);
	return 0;
}

static int format(char **ret, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static int format(char **ret, const char *fmt, ...)
{
	va_list args;
	int n;

	va_start(args, fmt);
	n = vasprintf(ret, fmt, args);
	va_end(args);
	if (n >= 0)
		return 0;
	*ret = NULL;
	return error_set(-ENOMEM, "out of memory");
}

/* AWS's own endpoints; China's are another partition, under another domain. */
static int set_endpoint(struct s3_store *s, const struct bucket_url *url)
{
	size_t length;

	if (!url->endpoint)
		return format(&s->endpoint, "https://s3.%s.amazonaws.com%s",
			      url->region,
			      strncmp(url->region, "cn-", 3) == 0 ? ".cn" : "");
	length = strlen(url->endpoint);
	while (length > 0 && url->endpoint[length - 1] == '/')
		length--;
	return format(&s->endpoint, "%.*s", (int)length, url->endpoint);
}

/* Split the endpoint, and put the bucket's name where it belongs. */
static int set_address(struct s3_store *s, bool path_style)
{
	const char *host = strstr(s->endpoint, "://");
	int rc;

	host = host ? host + 3 : "";
	if (!*host || strchr(host, '/'))
		return error_set(-EINVAL, "'%s' is no endpoint; write it as "
				 "https://HOST:PORT", s->endpoint);
	rc = format(&s->host, "%s%s%s", path_style ? "" : s->bucket,
		    path_style ? "" : ".", host);
	if (rc == 0)
		rc = format(&s->base, "%.*s%s", (int)(host - s->endpoint),
			    s->endpoint, s->host);
	if (rc == 0)
		rc = format(&s->path, "%s%s", path_style ? "/" : "",
			    path_style ? s->bucket : "");
	return rc;
}

static int open_http(struct s3_store *s, const struct bucket_url *url)
{
	struct http_config config = {
		.ca_bundle = url->ca_bundle,
		.plain = strncmp(s->endpoint, "http://", 7) == 0,
	};

	return http_new(&config, &s->http);
}

int s3_store_new(const struct bucket_url *url, struct s3_store **ret)
{
	AUTO(s3_store) struct s3_store *s = calloc(1, sizeof(*s));
	bool path_style = url->path_style;
	int rc;

	if (!s)
		return error_set(-ENOMEM, "out of memory");
	s->clock_ms = calloc(1, sizeof(*s->clock_ms));
	if (!s->clock_ms)
		return error_set(-ENOMEM, "out of memory");
	/* A certificate for *.HOST does not cover a.b.HOST. */
	if (!path_style && strchr(url->name, '.') &&
	    (!url->endpoint || strncmp(url->endpoint, "https:", 6) == 0))
		path_style = true;
	rc = check_name(url->name, !path_style);
	if (rc == 0)
		rc = format(&s->bucket, "%s", url->name);
	if (rc == 0)
		rc = format(&s->region, "%s", url->region);
	if (rc == 0)
		rc = format(&s->prefix, "%s%s", url->prefix,
			    *url->prefix ? "/" : "");
	if (rc == 0)
		rc = set_endpoint(s, url);
	if (rc == 0)
		rc = set_address(s, path_style);
	if (rc == 0)
		rc = credentials_from_env(&s->credentials);
	if (rc == 0)
		rc = open_http(s, url);
	if (rc < 0)
		return rc;
	*ret = TAKE(s);
	return 0;
}

void s3_store_free(struct s3_store *store)
{
	if (!store)
		return;
	http_free(store->http);
	credentials_clear(&store->credentials);
	free(store->endpoint);
	free(store->base);
	free(store->host);
	free(store->path);
	free(store->bucket);
	free(store->prefix);
	free(store->region);
	free(store->clock_ms);
	free(store);
}
