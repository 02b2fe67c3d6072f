#ifndef LITEBUCKET_BUCKET_URL_H
#define LITEBUCKET_BUCKET_URL_H

/*
 * BUCKET on the command line
 * ==========================
 *
 *	file:///PATH
 *	s3://NAME/PREFIX?endpoint=https://HOST:PORT&region=R
 *
 * Parameters of s3: endpoint (default AWS's for the region), region (default
 * AWS_REGION, AWS_DEFAULT_REGION, else us-east-1), path-style (true or false;
 * default: true with an endpoint), ca-bundle (a file; default AWS_CA_BUNDLE),
 * driver (curl or libs3).  Unknown ones are errors.  Plain http is used only
 * where the endpoint says http://.  The URL never holds credentials: a user
 * part is refused.
 *
 * Path and prefix are percent-decoded.
 */
#include <stdbool.h>

struct bucket;

/* Leaves room for keys in what stores take (1024 bytes). */
enum { BUCKET_URL_PREFIX_MAX = 200 };

enum bucket_scheme { BUCKET_FILE, BUCKET_S3 };

struct bucket_url {
	enum bucket_scheme scheme;
	char *path;	 /* file: absolute */
	char *name;	 /* s3: the bucket */
	char *prefix;	 /* s3: without slashes at its ends; may be "" */
	char *endpoint;	 /* s3: NULL, or http[s]://host[:port] */
	char *region;	 /* s3 */
	char *ca_bundle; /* s3: NULL for the system's */
	bool path_style;
	bool libs3;
	char *text;	 /* as given, for messages */
};

/* -ERR_USAGE with a sentence that says what a right one looks like. */
int bucket_url_parse(const char *text, struct bucket_url *ret);
void bucket_url_clear(struct bucket_url *url);
static inline void bucket_url_cleanup(struct bucket_url *url)
{
	bucket_url_clear(url);
}

/*
 * The store behind a URL, with retries around it.  Nothing is asked of it yet.
 * Credentials come from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
 * AWS_SESSION_TOKEN.
 *
 * create: the first put makes the directory of a file:// bucket that does not
 * exist; without it that is -ENODEV.  -EACCES: no credentials in the environment.
 */
int bucket_open(const char *text, bool create, struct bucket **ret);

#endif
