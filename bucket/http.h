#ifndef LITEBUCKET_BUCKET_HTTP_H
#define LITEBUCKET_BUCKET_HTTP_H

/*
 * One HTTP request and its reply
 * ==============================
 *
 * A client is a pool of libcurl handles, each with connections that stay
 * open; any number of threads may exchange at the same time, each takes a
 * handle for the time of one exchange.
 *
 * Limits: 10 s to connect; an exchange ends when less than 1 KiB/s moves for
 * 30 s; 64 KiB of headers; no redirect is followed (it would have to be signed
 * anew); certificates are always verified; proxies are those that the
 * environment names (https_proxy, no_proxy, ...).
 *
 * An HTTP status of any kind is a success here: exchange() fails only where
 * there is no whole reply.  Its errors are those of bucket/bucket.h, with
 * -EPROTO for what will not get better by itself (TLS, certificates).
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/cleanup.h"

struct http;
struct sink;

struct http_config {
	const char *ca_bundle; /* a file; NULL for the system's */
	bool plain;	       /* http:// is allowed, and nothing else is */
	long connect_ms;       /* 0: 10 s */
	long stall_s;	       /* 0: 30 s */
};

/* Memory, or with data NULL the beginning of a file. */
struct http_body {
	const void *data;
	int fd;
	uint64_t size;
};

struct http_response {
	long status;
	struct buf headers; /* "name: value\n", names in lower case */
	struct buf body;    /* unless it went to the sink; at most 64 KiB */
};

struct http_request {
	const char *method; /* GET, HEAD, PUT or POST */
	const char *url;
	const char *const *headers; /* "name: value", ends with NULL */
	const struct http_body *body; /* NULL: none */
	bool once; /* never send it again without the caller knowing */

	/* The body of a reply with this status goes to the sink. */
	long sink_status;
	struct sink *sink;

	/* Before the first byte of it, once; may be NULL. */
	int (*begin)(void *arg, const struct http_response *response);
	void *arg;
};

/* config and its texts stay the caller's. */
int http_new(const struct http_config *config, struct http **ret);

/* ret is all zero before, and http_response_cleanup() is due in any case. */
int http_exchange(struct http *http, const struct http_request *request,
		  struct http_response *ret);
void http_response_cleanup(struct http_response *response);

/*
 * A header's value, or NULL.  name in lower case.  The value ends at *ret_size
 * bytes, not with a NUL.
 */
const char *http_header(const struct http_response *response,
			const char *name, size_t *ret_size);

/*
 * The same as a text; cut where it does not fit, and empty where there is no
 * such header.  Returns whether there is one.
 */
bool http_header_text(const struct http_response *response, const char *name,
		      char *ret, size_t size);

/* A date, in milliseconds since the epoch; 0 where there is none. */
int64_t http_header_date_ms(const struct http_response *response,
			    const char *name);

/* NULL is allowed. */
void http_free(struct http *http);
AUTO_FREE(http);

#endif
