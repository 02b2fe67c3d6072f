#ifndef LITEBUCKET_BUCKET_S3_ERROR_H
#define LITEBUCKET_BUCKET_S3_ERROR_H

/*
 * What a reply other than success means
 * =====================================
 *
 * The code in an S3 error document says more than the HTTP status, but not
 * every reply has one: a HEAD has no body, a proxy answers in HTML.  Both
 * together become an errno of bucket/bucket.h and a sentence that says what to
 * do.
 *
 * A 404 without NoSuchKey is "no such object" only for HEAD.  Else it would be
 * taken for the end of the log, when it is a web server that is no S3 store.
 */
#include <stdbool.h>
#include <stdint.h>

struct http_response;

struct s3_asked {
	bool head;	  /* a HEAD: there is no error document */
	bool object;	  /* an object, not the bucket */
	bool conditional; /* a put with if_absent or if_match */
	const char *bucket;
	const char *region;   /* as signed */
	const char *endpoint; /* as connected to */
};

/*
 * Was it refused because of the time of its signature?  Then ret is the store's
 * clock.
 */
bool s3_error_is_of_clock(const struct http_response *response,
			  int64_t signed_ms, int64_t *ret_date_ms);

/* The errno and the sentence for a reply that is no success. */
int s3_error(const struct s3_asked *asked,
	     const struct http_response *response);

/* The same for a code alone, as a DeleteResult has it for a single key. */
int s3_code_error(const struct s3_asked *asked, const char *code,
		  const char *message);

#endif
