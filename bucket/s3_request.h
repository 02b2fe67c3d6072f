#ifndef LITEBUCKET_BUCKET_S3_REQUEST_H
#define LITEBUCKET_BUCKET_S3_REQUEST_H

/*
 * One signed request to a store
 * =============================
 *
 *	struct s3_request r = s3_request(store, "PUT", key);
 *	s3_request_header(&r, "if-none-match", "*");
 *	rc = s3_request_send(&r, &response);
 *
 * A store is where a bucket is and who we are there.  It does not change, but for
 * its clock, so threads share it.
 *
 * Stores refuse a signature of another quarter of an hour than theirs.  Where this
 * machine's clock is so wrong, the store's answer tells, and from then on its time
 * is signed with: a wrong clock is no reason to be without a backup.
 */
#include <stdatomic.h>

#include "bucket/bucket.h"
#include "bucket/credentials.h"
#include "bucket/http.h"
#include "bucket/s3_error.h"
#include "bucket/sigv4.h"

struct bucket_url;

struct s3_store {
	struct http *http;
	atomic_int_least64_t *clock_ms; /* the store's minus ours; 0: about right */
	struct credentials credentials;
	char *endpoint; /* http[s]://host[:port], for messages */
	char *base;	/* what URLs begin with: scheme and host */
	char *host;	/* as the header says it; part of base */
	char *path;	/* "/bucket", or "" where the host names it */
	char *bucket;
	char *prefix; /* what keys begin with: "", or ends with "/" */
	char *region;
};

/* url stays the caller's. */
int s3_store_new(const struct bucket_url *url, struct s3_store **ret);

/* NULL is allowed. */
void s3_store_free(struct s3_store *store);
AUTO_FREE(s3_store);

enum {
	S3_QUERY_MAX = 8,
	S3_HEADERS_MAX = 16,
};

struct s3_request {
	const struct s3_store *store;
	const char *method;
	const char *key; /* NULL: the bucket itself */
	struct sigv4_pair query[S3_QUERY_MAX];
	size_t n_query;
	struct sigv4_pair headers[S3_HEADERS_MAX];
	size_t n_headers;
	const struct http_body *body;
	bool conditional;

	/* See struct http_request. */
	long sink_status;
	struct sink *sink;
	int (*begin)(void *arg, const struct http_response *response);
	void *arg;
};

struct s3_request s3_request(const struct s3_store *store, const char *method,
			     const char *key);

/* The texts stay the caller's, until the request was sent. */
void s3_request_query(struct s3_request *request, const char *name,
		      const char *value);
void s3_request_header(struct s3_request *request, const char *name,
		       const char *value);

/*
 * Sign and send, with the time wall_ms, or what the store has instead, in the
 * signature.  Anything but a success (200, 204, 206) is an error, see
 * bucket/s3_error.h.  ret as for http_exchange().
 */
int s3_request_send(const struct s3_request *request, int64_t wall_ms,
		    struct http_response *ret);

/* What s3_error() wants to know. */
struct s3_asked s3_request_asked(const struct s3_request *request);

#endif
