#include <ctype.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include <curl/curl.h>

#include "base/error.h"
#include "base/io.h"
#include "base/stream.h"
#include "bucket/http_error.h"
#include "bucket/patience.h"

#include "bucket/http.h"

enum {
	CONNECT_MS = 10000,
	STALL_S = 30,
	STALL_BYTES = 1024,
	IDLE_MAX = 32,		    /* handles kept */
	CONNECTION_AGE_S = 30,	    /* stores close idle connections */
	EXPECT_SIZE = 1 << 20,	    /* ask before sending more than this */
	HEADERS_MAX = 1 << 16,
	BODY_MAX = 1 << 16,
};

struct http {
	char *ca_bundle;
	bool plain;
	long connect_ms;
	long stall_s;
	pthread_mutex_t lock;
	CURL *idle[IDLE_MAX]; /* guarded by lock; the last used on top */
	size_t n_idle;	      /* guarded by lock */
};

/* What libcurl's callbacks share during one exchange. */
struct exchange {
	CURL *curl;
	curl_socket_t kept; /* of the connection that the handle has, or BAD */
	const struct http_request *request;
	struct http_response *response;
	uint64_t sent;
	bool begun;
	int rc; /* of our own callback that made libcurl give up */
	bool failed; /* libcurl did */
};

static void http_slist_cleanup(struct curl_slist **list)
{
	curl_slist_free_all(*list);
}

static void global_init(void)
{
	(void)curl_global_init(CURL_GLOBAL_DEFAULT);
}

int http_new(const struct http_config *config, struct http **ret)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	AUTO(http) struct http *http = calloc(1, sizeof(*http));

	(void)pthread_once(&once, global_init);
	if (!http)
		return error_set(-ENOMEM, "out of memory");
	(void)pthread_mutex_init(&http->lock, NULL);
	http->plain = config->plain;
	http->connect_ms = config->connect_ms ? config->connect_ms : CONNECT_MS;
	http->stall_s = config->stall_s ? config->stall_s : STALL_S;
	if (config->ca_bundle) {
		http->ca_bundle = strdup(config->ca_bundle);
		if (!http->ca_bundle)
			return error_set(-ENOMEM, "out of memory");
		if (access(config->ca_bundle, R_OK) < 0)
			return error_errno("reading the CA bundle '%s'",
					   config->ca_bundle);
	}
	*ret = TAKE(http);
	return 0;
}

void http_free(struct http *http)
{
	if (!http)
		return;
	while (http->n_idle > 0)
		curl_easy_cleanup(http->idle[--http->n_idle]);
	(void)pthread_mutex_destroy(&http->lock);
	free(http->ca_bundle);
	free(http);
}

static CURL *take_handle(struct http *http)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&http->lock);

	return http->n_idle > 0 ? http->idle[--http->n_idle] : NULL;
}

/*
 * One that failed is not used again: it may remember that.  (libcurl 8.14 fails
 * each later request of a handle that once could not rewind a body.)
 */
static void give_handle(struct http *http, CURL *curl, bool failed)
{
	if (failed) {
		curl_easy_cleanup(curl);
		return;
	}
	/* Keeps its connections; drops what belonged to this request. */
	curl_easy_reset(curl);
	{
		AUTO(unlock) pthread_mutex_t *held = lock(&http->lock);

		if (http->n_idle < IDLE_MAX) {
			http->idle[http->n_idle++] = curl;
			return;
		}
	}
	curl_easy_cleanup(curl);
}

static size_t on_read(char *data, size_t one, size_t size, void *arg)
{
	struct exchange *x = arg;
	const struct http_body *body = x->request->body;
	uint64_t left = body->size - x->sent;
	ssize_t n;

	size *= one;
	if (size > left)
		size = (size_t)left;
	if (size == 0)
		return 0;
	if (body->data) {
		memcpy(data, (const char *)body->data + x->sent, size);
		n = (ssize_t)size;
	} else {
		n = io_pread(body->fd, data, size, x->sent);
	}
	if (n < 0 || (size_t)n < size) {
		x->rc = n < 0 ? (int)n
			      : error_set(-EINVAL,
					  "the file became shorter while it "
					  "was sent");
		return CURL_READFUNC_ABORT;
	}
	x->sent += size;
	return size;
}

/*
 * A server that writes head and body apart, with Nagle's algorithm (radosgw as
 * it comes), sends a small body only when the head has been acknowledged; and
 * on a connection that is not new the kernel puts that off for 40 ms.
 */
static void acknowledge(const struct exchange *x)
{
	const int on = 1;

	if (x->kept != CURL_SOCKET_BAD)
		(void)setsockopt(x->kept, IPPROTO_TCP, TCP_QUICKACK, &on,
				 sizeof(on));
}

/* Called for each line of the head, also of a "100 Continue" before it. */
static size_t on_header(char *line, size_t one, size_t size, void *arg)
{
	struct exchange *x = arg;
	struct buf *headers = &x->response->headers;
	const char *colon;
	size_t length = size * one, name;

	if (length > 5 && memcmp(line, "HTTP/", 5) == 0)
		buf_reset(headers);
	while (length > 0 && isspace((unsigned char)line[length - 1]))
		length--;
	if (length == 0)
		acknowledge(x);
	colon = memchr(line, ':', length);
	if (!colon)
		return size * one;
	name = headers->size;
	x->rc = buf_append(headers, line, length);
	if (x->rc == 0)
		x->rc = buf_append(headers, "\n", 1);
	if (x->rc < 0) {
		x->rc = error_wrap(-EPROTO, "the reply's headers");
		return 0;
	}
	for (; headers->data[name] != ':'; name++)
		headers->data[name] =
			(char)tolower((unsigned char)headers->data[name]);
	return size * one;
}

static int begin(struct exchange *x)
{
	if (x->begun || !x->request->begin)
		return 0;
	x->begun = true;
	return x->request->begin(x->request->arg, x->response);
}

static size_t on_write(char *data, size_t one, size_t size, void *arg)
{
	struct exchange *x = arg;
	struct buf *body = &x->response->body;
	size_t left = body->limit - body->size;

	size *= one;
	(void)curl_easy_getinfo(x->curl, CURLINFO_RESPONSE_CODE,
				&x->response->status);
	if (x->request->sink &&
	    x->response->status == x->request->sink_status) {
		x->rc = begin(x);
		if (x->rc == 0)
			x->rc = sink_write(x->request->sink, data, size);
		return x->rc == 0 ? size : 0;
	}
	/* An object where none was asked for could go on for hours. */
	if (x->response->status < 300 && size > left) {
		x->rc = error_set(-EPROTO, "the reply (HTTP status %ld) is not "
				  "what was asked for", x->response->status);
		return 0;
	}
	x->rc = buf_append(body, data, size < left ? size : left);
	return x->rc == 0 ? size : 0;
}

/* Called all the time, and each second while nothing moves. */
static int on_progress(void *arg, curl_off_t to_get, curl_off_t got,
		       curl_off_t to_put, curl_off_t put)
{
	struct exchange *x = arg;

	if (x->rc == 0)
		x->rc = bucket_patience();
	return x->rc < 0;
}

static void set_limits(const struct http *http, CURL *curl)
{
	(void)curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	(void)curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR,
			       http->plain ? "http" : "https");
	(void)curl_easy_setopt(curl, CURLOPT_HTTP_VERSION,
			       (long)CURL_HTTP_VERSION_1_1);
	(void)curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
	(void)curl_easy_setopt(curl, CURLOPT_TCP_KEEPALIVE, 1L);
	(void)curl_easy_setopt(curl, CURLOPT_MAXAGE_CONN,
			       (long)CONNECTION_AGE_S);
	(void)curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS,
			       http->connect_ms);
	(void)curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT,
			       (long)STALL_BYTES);
	(void)curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, http->stall_s);
	(void)curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 1L);
	(void)curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 2L);
	(void)curl_easy_setopt(curl, CURLOPT_USERAGENT,
			       "litebucket/" LITEBUCKET_VERSION);
	if (http->ca_bundle)
		(void)curl_easy_setopt(curl, CURLOPT_CAINFO, http->ca_bundle);
}

static void set_callbacks(CURL *curl, struct exchange *x)
{
	(void)curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
	(void)curl_easy_setopt(curl, CURLOPT_HEADERDATA, x);
	(void)curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_write);
	(void)curl_easy_setopt(curl, CURLOPT_WRITEDATA, x);
	(void)curl_easy_setopt(curl, CURLOPT_READFUNCTION, on_read);
	(void)curl_easy_setopt(curl, CURLOPT_READDATA, x);
	(void)curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
	(void)curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
	(void)curl_easy_setopt(curl, CURLOPT_XFERINFODATA, x);
}

/*
 * When a kept connection turns out to be dead, libcurl sends the request again
 * by itself.  There is no seek callback, so that a body that was sent cannot be
 * rewound, and it fails instead; bucket_retry decides.  An empty body needs no
 * rewinding: where it matters, it goes over a connection of its own.
 */
static void set_method(CURL *curl, const struct http_request *request)
{
	(void)curl_easy_setopt(curl, CURLOPT_URL, request->url);
	(void)curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
	if (request->body) {
		(void)curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);
		(void)curl_easy_setopt(curl, CURLOPT_FRESH_CONNECT,
				       (long)(request->once &&
					      request->body->size == 0));
		(void)curl_easy_setopt(curl, CURLOPT_INFILESIZE_LARGE,
				       (curl_off_t)request->body->size);
		(void)curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST,
				       request->method);
	} else if (strcmp(request->method, "HEAD") == 0) {
		(void)curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
	} else {
		(void)curl_easy_setopt(curl, CURLOPT_HTTPGET, 1L);
	}
}

static int add_header(struct curl_slist **list, const char *line)
{
	struct curl_slist *longer = curl_slist_append(*list, line);

	if (!longer)
		return error_set(-ENOMEM, "out of memory");
	*list = longer;
	return 0;
}

static int header_list(const struct http_request *request,
		       struct curl_slist **ret)
{
	int rc = 0;

	for (size_t i = 0; rc == 0 && request->headers[i]; i++)
		rc = add_header(ret, request->headers[i]);
	/* A pause of a round trip for nothing where the body is small. */
	if (rc == 0 && request->body && request->body->size <= EXPECT_SIZE)
		rc = add_header(ret, "Expect:");
	return rc;
}

static int perform(struct http *http, struct exchange *x)
{
	AUTO(http_slist) struct curl_slist *headers = NULL;
	char text[CURL_ERROR_SIZE] = "";
	CURLcode code;
	int rc = header_list(x->request, &headers);

	if (rc < 0)
		return rc;
	set_limits(http, x->curl);
	set_callbacks(x->curl, x);
	set_method(x->curl, x->request);
	(void)curl_easy_setopt(x->curl, CURLOPT_HTTPHEADER, headers);
	(void)curl_easy_setopt(x->curl, CURLOPT_ERRORBUFFER, text);
	if (curl_easy_getinfo(x->curl, CURLINFO_ACTIVESOCKET, &x->kept) !=
	    CURLE_OK)
		x->kept = CURL_SOCKET_BAD;
	code = curl_easy_perform(x->curl);
	x->failed = code != CURLE_OK;
	if (x->rc < 0)
		return x->rc;
	if (code != CURLE_OK)
		return http_error(code, x->curl, text);
	(void)curl_easy_getinfo(x->curl, CURLINFO_RESPONSE_CODE,
				&x->response->status);
	/* An empty object has no first byte. */
	if (x->response->status == x->request->sink_status)
		return begin(x);
	return 0;
}

int http_exchange(struct http *http, const struct http_request *request,
		  struct http_response *ret)
{
	struct exchange x = {
		.request = request,
		.response = ret,
	};
	int rc = bucket_patience();

	ret->headers.limit = HEADERS_MAX;
	ret->body.limit = BODY_MAX;
	if (rc < 0)
		return rc;
	x.curl = take_handle(http);
	if (!x.curl)
		x.curl = curl_easy_init();
	if (!x.curl)
		return error_set(-ENOMEM, "out of memory");
	rc = perform(http, &x);
	give_handle(http, x.curl, x.failed);
	return rc;
}

void http_response_cleanup(struct http_response *response)
{
	buf_cleanup(&response->headers);
	buf_cleanup(&response->body);
}

const char *http_header(const struct http_response *response,
			const char *name, size_t *ret_size)
{
	size_t length = strlen(name);
	const char *line = response->headers.data;

	for (; line && *line; line = strchr(line, '\n') + 1) {
		if (strncmp(line, name, length) != 0 || line[length] != ':')
			continue;
		line += length + 1;
		line += strspn(line, " \t");
		*ret_size = strcspn(line, "\n");
		return line;
	}
	return NULL;
}

bool http_header_text(const struct http_response *response, const char *name,
		      char *ret, size_t size)
{
	size_t length = 0;
	const char *value = http_header(response, name, &length);

	(void)snprintf(ret, size, "%.*s", (int)length, value ? value : "");
	return value != NULL;
}

int64_t http_header_date_ms(const struct http_response *response,
			    const char *name)
{
	char text[64];
	time_t seconds;

	if (!http_header_text(response, name, text, sizeof(text)))
		return 0;
	seconds = curl_getdate(text, NULL);
	return seconds < 0 ? 0 : (int64_t)seconds * 1000;
}
