#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "bucket/bucket.h"
#include "bucket/catalog.h"
#include "bucket/url.h"
#include "cli/report.h"

#include "cli/root.h"

/* "s3://NAME" and "file://" are above all. */
static const char *top_of(const char *url, const char *end)
{
	const char *host = strstr(url, "://");

	if (!host || host > end)
		return end;
	host += 3;
	while (host < end && *host != '/')
		host++;
	return host;
}

char *root_parent(const char *url)
{
	const char *end = url + strcspn(url, "?");
	const char *top = top_of(url, end);
	const char *cut = end;
	char *parent;

	while (cut > top && cut[-1] == '/')
		cut--;
	if (cut <= top)
		return NULL;
	while (cut > top && cut[-1] != '/')
		cut--;
	while (cut > top + 1 && cut[-1] == '/')
		cut--;
	if (asprintf(&parent, "%.*s%s", (int)(cut - url), url, end) < 0)
		return NULL;
	return parent;
}

/* 1: there is a catalog here, and it is one that we can read. */
static int look(const char *url)
{
	AUTO(bucket) struct bucket *bucket = NULL;
	AUTO(catalog) struct catalog *catalog = NULL;
	int rc = bucket_open(url, false, &bucket);

	/* No directory, or none that a URL can name. */
	if (rc == -ENODEV || rc == -ERR_USAGE)
		return 0;
	if (rc == 0)
		rc = catalog_get(bucket, &catalog, NULL);
	switch (rc) {
	case 0:
		return 1;
	case -ENOENT:
	case -EACCES: /* what somebody may not see above is not his bucket */
	case -ENODEV:
		return 0;
	case -ERR_CORRUPT:
	case -EFBIG:
		report_warning("%s", error_message());
		return 1;
	default:
		return rc;
	}
}

int root_check(const char *database_url)
{
	AUTO(mem) char *url = root_parent(database_url);

	while (url) {
		AUTO(mem) char *below = NULL;
		int rc = look(url);

		if (rc != 0)
			return rc < 0 ? rc : 0;
		below = TAKE(url);
		url = root_parent(below);
	}
	return 0;
}
