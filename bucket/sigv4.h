#ifndef LITEBUCKET_BUCKET_SIGV4_H
#define LITEBUCKET_BUCKET_SIGV4_H

/*
 * AWS Signature Version 4
 * =======================
 *
 * The client and the store share a secret.  From it, the day, the region and
 * the service comes a key; with the key a hash of the request is signed:
 *
 *	canonical = METHOD \n path \n query \n headers \n names \n sha256(body)
 *	to sign   = "AWS4-HMAC-SHA256" \n time \n scope \n sha256(canonical)
 *	key       = HMAC(HMAC(HMAC(HMAC("AWS4" + secret, day), region),
 *			 service), "aws4_request")
 *	signature = hex(HMAC(key, to sign))
 *
 * All of this is pure: the time is given, nothing is read or sent.
 */
#include <stddef.h>
#include <stdint.h>

struct buf;

enum {
	SIGV4_HEX_SIZE = 65,  /* a SHA-256 in hex, and a NUL */
	SIGV4_TIME_SIZE = 17, /* 20130524T000000Z, and a NUL */
};

/* A header (name in lower case) or a query parameter (not yet encoded). */
struct sigv4_pair {
	const char *name;
	const char *value;
};

struct sigv4_request {
	const char *method;
	const char *path;  /* as it goes over the wire: sigv4_encode() */
	const char *query; /* likewise: sigv4_query() */
	const struct sigv4_pair *headers; /* sorted: sigv4_sort() */
	size_t n_headers;
	const char *body_sha256; /* in hex */
};

struct sigv4_key {
	const char *access_key;
	const char *secret_key;
	const char *region;
	const char *service;
};

/* Percent-encode all but A-Z a-z 0-9 - . _ ~ and the bytes in keep. */
int sigv4_encode(const char *text, const char *keep, struct buf *ret);

/* By name, as headers and parameters have to be. */
void sigv4_sort(struct sigv4_pair *pairs, size_t n);

/* Sorted parameters as name=value&name=value. */
int sigv4_query(const struct sigv4_pair *params, size_t n, struct buf *ret);

/* The time as it belongs into the header x-amz-date. */
void sigv4_time(int64_t wall_ms, char ret[SIGV4_TIME_SIZE]);

int sigv4_canonical(const struct sigv4_request *request, struct buf *ret);

/* The value of the header Authorization.  time: see sigv4_time(). */
int sigv4_authorize(const struct sigv4_request *request,
		    const struct sigv4_key *key, const char *time,
		    struct buf *ret);

#endif
