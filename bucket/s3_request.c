#include <assert.h>
#include <stdio.h>
#include <string.h>

#include <openssl/crypto.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "bucket/digest.h"

#include "bucket/s3_request.h"

enum {
	URL_MAX = 16384,
	LINE_MAX_SIZE = 8192, /* session tokens are long */
};

/* A key's path, its query, and the values of the headers that all have. */
struct envelope {
	struct buf path;
	struct buf query;
	struct digest digest;
	char time[SIGV4_TIME_SIZE];
};

static void envelope_cleanup(struct envelope *e)
{
	buf_cleanup(&e->path);
	buf_cleanup(&e->query);
}

/* The lines of a request, and pointers to them as http_exchange wants them. */
struct lines {
	struct buf line[S3_HEADERS_MAX + 1];
	const char *pointers[S3_HEADERS_MAX + 2];
	size_t n;
};

/* One of them is Authorization, another the session token. */
static void lines_cleanup(struct lines *l)
{
	for (size_t i = 0; i < l->n; i++) {
		if (l->line[i].data)
			OPENSSL_cleanse(l->line[i].data, l->line[i].size);
		buf_cleanup(&l->line[i]);
	}
}

struct s3_request s3_request(const struct s3_store *store, const char *method,
			     const char *key)
{
	return (struct s3_request){
		.store = store,
		.method = method,
		.key = key,
	};
}

void s3_request_query(struct s3_request *request, const char *name,
		      const char *value)
{
	assert(request->n_query < S3_QUERY_MAX);
	request->query[request->n_query++] = (struct sigv4_pair){
		.name = name,
		.value = value,
	};
}

void s3_request_header(struct s3_request *request, const char *name,
		       const char *value)
{
	assert(request->n_headers < S3_HEADERS_MAX);
	request->headers[request->n_headers++] = (struct sigv4_pair){
		.name = name,
		.value = value,
	};
}

struct s3_asked s3_request_asked(const struct s3_request *request)
{
	return (struct s3_asked){
		.head = strcmp(request->method, "HEAD") == 0,
		.object = request->key != NULL,
		.conditional = request->conditional,
		.bucket = request->store->bucket,
		.region = request->store->region,
		.endpoint = request->store->endpoint,
	};
}

static int make_path(const struct s3_request *request, struct buf *ret)
{
	const struct s3_store *store = request->store;
	int rc = buf_printf(ret, "%s", store->path);

	if (rc == 0 && (request->key || !*store->path))
		rc = buf_append(ret, "/", 1);
	if (rc == 0 && request->key)
		rc = sigv4_encode(store->prefix, "/", ret);
	if (rc == 0 && request->key)
		rc = sigv4_encode(request->key, "/", ret);
	return rc;
}

static int fill(struct s3_request *request, int64_t wall_ms,
		struct envelope *e)
{
	const struct http_body *body = request->body;
	const struct s3_store *store = request->store;
	int rc = digest_body(body ? body->data : "", body ? body->fd : -1,
			     body ? body->size : 0, &e->digest);

	if (rc == 0)
		rc = make_path(request, &e->path);
	sigv4_sort(request->query, request->n_query);
	if (rc == 0)
		rc = buf_reserve(&e->query, 1);
	if (rc == 0)
		rc = sigv4_query(request->query, request->n_query, &e->query);
	if (rc < 0)
		return rc;
	sigv4_time(wall_ms, e->time);
	s3_request_header(request, "host", store->host);
	s3_request_header(request, "x-amz-content-sha256", e->digest.sha256);
	s3_request_header(request, "x-amz-date", e->time);
	if (body)
		s3_request_header(request, "content-md5", e->digest.md5);
	if (store->credentials.session_token)
		s3_request_header(request, "x-amz-security-token",
				  store->credentials.session_token);
	sigv4_sort(request->headers, request->n_headers);
	return 0;
}

static struct buf *new_line(struct lines *l)
{
	l->line[l->n] = (struct buf)BUF_INIT(LINE_MAX_SIZE);
	return &l->line[l->n++];
}

/* Every header that we choose is signed, so that none can be dropped. */
static int sign(const struct s3_request *request, const struct envelope *e,
		struct lines *ret)
{
	const struct s3_store *store = request->store;
	const struct sigv4_request to_sign = {
		.method = request->method,
		.path = e->path.data,
		.query = e->query.data,
		.headers = request->headers,
		.n_headers = request->n_headers,
		.body_sha256 = e->digest.sha256,
	};
	const struct sigv4_key key = {
		.access_key = store->credentials.access_key,
		.secret_key = store->credentials.secret_key,
		.region = store->region,
		.service = "s3",
	};
	struct buf *line;
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < request->n_headers; i++)
		rc = buf_printf(new_line(ret), "%s: %s",
				request->headers[i].name,
				request->headers[i].value);
	if (rc < 0)
		return rc;
	line = new_line(ret);
	rc = buf_printf(line, "authorization: ");
	if (rc == 0)
		rc = sigv4_authorize(&to_sign, &key, e->time, line);
	for (size_t i = 0; i < ret->n; i++)
		ret->pointers[i] = ret->line[i].data;
	return rc;
}

static int make_url(const struct s3_request *request, const struct envelope *e,
		    struct buf *ret)
{
	return buf_printf(ret, "%s%s%s%s", request->store->base, e->path.data,
			  request->n_query ? "?" : "", e->query.data);
}

static int exchange(const struct s3_request *request, const char *url,
		    const struct lines *lines, struct http_response *ret)
{
	const struct http_request http_request = {
		.method = request->method,
		.url = url,
		.headers = lines->pointers,
		.body = request->body,
		.once = request->conditional,
		.sink_status = request->sink_status,
		.sink = request->sink,
		.begin = request->begin,
		.arg = request->arg,
	};
	int64_t began = clock_monotonic_ms();
	int rc = http_exchange(request->store->http, &http_request, ret);

	log_debug("s3", "method=%s key=%s status=%ld ms=%lld", request->method,
		  log_quote(request->key ? request->key : ""), ret->status,
		  (long long)(clock_monotonic_ms() - began));
	return rc;
}

/* Adds to the request, so that is the caller's for once. */
static int send_once(struct s3_request *request, int64_t wall_ms,
		     struct http_response *ret)
{
	AUTO(envelope) struct envelope e = {
		.path = BUF_INIT(URL_MAX),
		.query = BUF_INIT(URL_MAX),
	};
	AUTO(lines) struct lines lines = { .n = 0 };
	AUTO(buf) struct buf url = BUF_INIT(3 * URL_MAX);
	int rc = fill(request, wall_ms, &e);

	if (rc == 0)
		rc = sign(request, &e, &lines);
	if (rc == 0)
		rc = make_url(request, &e, &url);
	return rc < 0 ? rc : exchange(request, url.data, &lines, ret);
}

/* Refused, so nothing was done, and it can be sent once more. */
static int send_by_its_clock(const struct s3_request *request, int64_t wall_ms,
			     int64_t date_ms, struct http_response *ret)
{
	struct s3_request copy = *request;

	log_warn("this machine's clock differs much from the store's; signing "
		 "with the store's", "offset_ms=%lld",
		 (long long)(date_ms - wall_ms));
	atomic_store(request->store->clock_ms, date_ms - wall_ms);
	http_response_cleanup(ret);
	*ret = (struct http_response){ 0 };
	return send_once(&copy, date_ms, ret);
}

int s3_request_send(const struct s3_request *request, int64_t wall_ms,
		    struct http_response *ret)
{
	struct s3_request copy = *request;
	struct s3_asked asked = s3_request_asked(request);
	int64_t signed_ms = wall_ms + atomic_load(request->store->clock_ms);
	int64_t date_ms;
	int rc = send_once(&copy, signed_ms, ret);

	if (rc == 0 && s3_error_is_of_clock(ret, signed_ms, &date_ms))
		rc = send_by_its_clock(request, wall_ms, date_ms, ret);
	if (rc < 0)
		return rc;
	if (ret->status != 200 && ret->status != 204 && ret->status != 206)
		return s3_error(&asked, ret);
	if (request->sink && ret->status != request->sink_status)
		return error_set(-EOPNOTSUPP, "the store ignores ranges (HTTP "
				 "status %ld)", ret->status);
	return 0;
}
