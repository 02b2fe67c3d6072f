#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/stream.h"
#include "bucket/probe.h"
#include "bucket/s3_list.h"
#include "bucket/s3_request.h"
#include "bucket/s3_xml.h"
#include "bucket/url.h"

#include "bucket/s3.h"

enum {
	DELETE_BODY_MAX = 4 << 20,
	PAGE_XML_MAX = 16 << 20,
	RANGE_SIZE = 64,
};

/* How a put has to say an ETag in If-Match. */
enum etag_form {
	FORM_UNKNOWN, /* not probed yet */
	FORM_QUOTED,
	FORM_BARE, /* Ceph */
	FORM_NONE, /* neither is kept */
};

struct s3 {
	struct bucket bucket;
	struct s3_store *store;

	/* Held while probing: who comes meanwhile needs the same answer. */
	pthread_mutex_t lock;
	enum etag_form form; /* guarded by lock */
	unsigned caps;	     /* guarded by lock; valid with a known form */
};

/* What was being done, in front of why it failed. */
static int failed(const struct bucket *b, const char *verb, const char *key,
		  int rc)
{
	return error_wrap(rc, "%s '%s' in %s", verb, key, b->url);
}

/* "bytes 10-19/1000" */
static bool parse_range(const char *text, uint64_t *ret_first,
			uint64_t *ret_total)
{
	uint64_t last;
	int used = 0;

	return sscanf(text, "bytes %" SCNu64 "-%" SCNu64 "/%" SCNu64 "%n",
		      ret_first, &last, ret_total, &used) == 3 &&
	       !text[used];
}

static void add_meta(struct bucket_info *info, const char *name,
		     size_t name_size, const char *value, size_t value_size)
{
	struct bucket_meta *meta = &info->meta[info->n_meta];

	if (info->n_meta == BUCKET_META_MAX || name_size >= sizeof(meta->name) ||
	    value_size >= sizeof(meta->value))
		return;
	(void)snprintf(meta->name, sizeof(meta->name), "%.*s", (int)name_size,
		       name);
	(void)snprintf(meta->value, sizeof(meta->value), "%.*s",
		       (int)value_size, value);
	info->n_meta++;
}

/* Metadata that does not fit is not ours, and is left out. */
static void read_meta(const struct http_response *response,
		      struct bucket_info *ret)
{
	static const char prefix[] = "x-amz-meta-";
	const char *line = response->headers.data;

	for (; line && *line; line = strchr(line, '\n') + 1) {
		const char *name = line + sizeof(prefix) - 1;
		const char *value;

		if (strncmp(line, prefix, sizeof(prefix) - 1) != 0)
			continue;
		value = name + strcspn(name, ":") + 1;
		value += strspn(value, " \t");
		add_meta(ret, name, strcspn(name, ":"), value,
			 strcspn(value, "\n"));
	}
}

static void read_info(const struct http_response *response,
		      struct bucket_info *ret)
{
	char length[32];

	*ret = (struct bucket_info){ 0 };
	(void)http_header_text(response, "etag", ret->etag, sizeof(ret->etag));
	ret->date_ms = http_header_date_ms(response, "date");
	ret->modified_ms = http_header_date_ms(response, "last-modified");
	(void)http_header_text(response, "content-length", length,
			       sizeof(length));
	ret->size = strtoull(length, NULL, 10);
	read_meta(response, ret);
}

struct getting {
	uint64_t offset;
	struct bucket_info *info;
};

static int begin_get(void *arg, const struct http_response *response)
{
	struct getting *g = arg;
	uint64_t first, total;
	char range[RANGE_SIZE];

	read_info(response, g->info);
	if (response->status != 206)
		return 0;
	(void)http_header_text(response, "content-range", range,
			       sizeof(range));
	if (!parse_range(range, &first, &total) || first != g->offset)
		return error_set(-EPROTO, "the store sent another range (%s)",
				 range);
	g->info->size = total;
	return 0;
}

/* Some stores ignore a range that ends where no int64_t can. */
static void format_range(uint64_t offset, uint64_t length,
			 char ret[RANGE_SIZE])
{
	if (length > INT64_MAX || offset > INT64_MAX - length)
		(void)snprintf(ret, RANGE_SIZE, "bytes=%" PRIu64 "-", offset);
	else
		(void)snprintf(ret, RANGE_SIZE, "bytes=%" PRIu64 "-%" PRIu64,
			       offset, offset + length - 1);
}

static int s3_get(struct bucket *b, const char *key, uint64_t offset,
		  uint64_t length, const char *if_match, struct sink *sink,
		  struct bucket_info *ret)
{
	AUTO(http_response) struct http_response response = { 0 };
	struct s3 *s3 = (struct s3 *)b;
	struct s3_request request = s3_request(s3->store, "GET", key);
	struct getting getting = { .offset = offset, .info = ret };
	bool whole = offset == 0 && length == BUCKET_TO_END;
	char range[RANGE_SIZE];
	int rc;

	format_range(offset, length, range);
	if (!whole)
		s3_request_header(&request, "range", range);
	if (if_match)
		s3_request_header(&request, "if-match", if_match);
	request.sink = sink;
	request.sink_status = whole ? 200 : 206;
	request.begin = begin_get;
	request.arg = &getting;
	rc = s3_request_send(&request, clock_wall_ms(), &response);
	return rc < 0 ? failed(b, "reading", key, rc) : 0;
}

static int s3_head(struct bucket *b, const char *key, struct bucket_info *ret)
{
	AUTO(http_response) struct http_response response = { 0 };
	struct s3 *s3 = (struct s3 *)b;
	struct s3_request request = s3_request(s3->store, "HEAD", key);
	int rc = s3_request_send(&request, clock_wall_ms(), &response);

	if (rc < 0)
		return failed(b, "looking up", key, rc);
	read_info(&response, ret);
	return 0;
}

/* The ETag without its quotes where the store wants that. */
static void write_etag(const char *etag, enum etag_form form,
		       char ret[BUCKET_ETAG_SIZE])
{
	size_t length = strlen(etag);

	if (form == FORM_BARE && length >= 2 && etag[0] == '"' &&
	    etag[length - 1] == '"') {
		etag++;
		length -= 2;
	}
	(void)snprintf(ret, BUCKET_ETAG_SIZE, "%.*s", (int)length, etag);
}

static int send_put(struct s3 *s3, const struct bucket_put *put,
		    enum etag_form form, struct bucket_info *ret)
{
	AUTO(http_response) struct http_response response = { 0 };
	struct s3_request request = s3_request(s3->store, "PUT", put->key);
	struct http_body body = {
		.data = put->data,
		.fd = put->fd,
		.size = put->size,
	};
	char names[BUCKET_META_MAX][sizeof("x-amz-meta-") + 32];
	char etag[BUCKET_ETAG_SIZE];
	int rc;

	for (size_t i = 0; i < put->n_meta; i++) {
		(void)snprintf(names[i], sizeof(names[i]), "x-amz-meta-%s",
			       put->meta[i].name);
		s3_request_header(&request, names[i], put->meta[i].value);
	}
	if (put->if_absent)
		s3_request_header(&request, "if-none-match", "*");
	if (put->if_match) {
		write_etag(put->if_match, form, etag);
		s3_request_header(&request, "if-match", etag);
	}
	request.body = &body;
	request.conditional = put->if_absent || put->if_match;
	rc = s3_request_send(&request, clock_wall_ms(), &response);
	if (rc < 0)
		return rc;
	read_info(&response, ret);
	ret->size = put->size;
	return 0;
}

static void s3_init(struct s3 *s3, const struct bucket *like,
		    struct s3_store *store, enum etag_form form)
{
	*s3 = (struct s3){ .bucket = *like, .store = store, .form = form };
	(void)pthread_mutex_init(&s3->lock, NULL);
}

/* Probe as if this were the form that works. */
static int try_form(struct s3 *s3, enum etag_form form, unsigned *ret_caps)
{
	struct s3 trial;
	int rc;

	s3_init(&trial, &s3->bucket, s3->store, form);
	rc = bucket_probe_conditions(&trial.bucket, ret_caps);
	(void)pthread_mutex_destroy(&trial.lock);
	return rc;
}

static int find_form(struct s3 *s3, enum etag_form *ret_form,
		     unsigned *ret_caps)
{
	unsigned caps;
	int rc = try_form(s3, FORM_QUOTED, &caps);

	*ret_form = FORM_QUOTED;
	if (rc == 0 && !(caps & BUCKET_IF_MATCH)) {
		*ret_form = FORM_BARE;
		rc = try_form(s3, FORM_BARE, &caps);
	}
	if (rc < 0)
		return rc;
	if (!(caps & BUCKET_IF_MATCH))
		*ret_form = FORM_NONE;
	*ret_caps = caps;
	return 0;
}

/* The answer of the only probe there will be, once it succeeded. */
static int probed(struct s3 *s3, enum etag_form *ret_form, unsigned *ret_caps)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&s3->lock);
	enum etag_form form = FORM_UNKNOWN;

	if (s3->form == FORM_UNKNOWN) {
		int rc = find_form(s3, &form, &s3->caps);

		if (rc < 0)
			return rc;
		s3->form = form;
	}
	*ret_form = s3->form;
	*ret_caps = s3->caps;
	return 0;
}

static int s3_probe(struct bucket *b, unsigned *ret_caps)
{
	enum etag_form form;

	return probed((struct s3 *)b, &form, ret_caps);
}

static int s3_put(struct bucket *b, const struct bucket_put *put,
		  struct bucket_info *ret)
{
	struct s3 *s3 = (struct s3 *)b;
	enum etag_form form = FORM_QUOTED;
	unsigned caps;
	int rc = 0;

	if (put->if_match)
		rc = probed(s3, &form, &caps);
	if (rc == 0 && form == FORM_NONE)
		rc = error_set(-EOPNOTSUPP, "this store does not keep If-Match "
			       "(is the bucket versioned?)");
	if (rc == 0)
		rc = send_put(s3, put, form, ret);
	return rc < 0 ? failed(b, "writing", put->key, rc) : 0;
}

static int fetch_page(void *arg, const char *prefix, const char *after,
		      const char *token, size_t max, struct s3_listing *ret)
{
	AUTO(http_response) struct http_response response = { 0 };
	AUTO(buf) struct buf xml = BUF_INIT(PAGE_XML_MAX);
	struct s3_request request = s3_request(arg, "GET", NULL);
	struct buf_sink sink;
	char keys[24];
	int rc;

	buf_sink_init(&sink, &xml);
	(void)snprintf(keys, sizeof(keys), "%zu", max);
	s3_request_query(&request, "list-type", "2");
	s3_request_query(&request, "encoding-type", "url");
	s3_request_query(&request, "max-keys", keys);
	if (*prefix)
		s3_request_query(&request, "prefix", prefix);
	if (token)
		s3_request_query(&request, "continuation-token", token);
	else if (*after)
		s3_request_query(&request, "start-after", after);
	request.sink = &sink.sink;
	request.sink_status = 200;
	rc = s3_request_send(&request, clock_wall_ms(), &response);
	return rc < 0 ? rc : s3_xml_listing(xml.data, xml.size, ret);
}

static int s3_list_keys(struct bucket *b, const char *prefix,
			const char *after, size_t limit, bucket_list_fn fn,
			void *arg)
{
	struct s3_store *store = ((struct s3 *)b)->store;
	const struct s3_pages pages = {
		.url = b->url,
		.prefix = store->prefix,
		.fetch = fetch_page,
		.arg = store,
	};

	return s3_list(&pages, prefix, after, limit, fn, arg);
}

static int delete_body(const struct s3_store *store, const char *const keys[],
		       size_t n, struct buf *ret)
{
	int rc = buf_printf(ret, "<Delete><Quiet>true</Quiet>");

	for (size_t i = 0; rc == 0 && i < n; i++) {
		rc = buf_printf(ret, "<Object><Key>");
		if (rc == 0)
			rc = s3_xml_escape(store->prefix, ret);
		if (rc == 0)
			rc = s3_xml_escape(keys[i], ret);
		if (rc == 0)
			rc = buf_printf(ret, "</Key></Object>");
	}
	return rc < 0 ? rc : buf_printf(ret, "</Delete>");
}

/* A success may still tell of keys that are still there. */
static int check_deleted(const struct s3_request *request,
			 const struct buf *reply)
{
	struct s3_asked asked = s3_request_asked(request);
	struct s3_problem problem;
	int rc;

	/* With Quiet some stores have nothing to say at all. */
	if (reply->size == 0)
		return 0;
	rc = s3_xml_problem(reply->data, reply->size, &problem);
	if (rc < 0)
		return error_wrap(rc, "the store's answer cannot be read");
	if (!*problem.code || strcmp(problem.code, "NoSuchKey") == 0)
		return 0;
	rc = s3_code_error(&asked, problem.code, problem.message);
	return error_wrap(rc, "'%s'", problem.key);
}

static int s3_remove(struct bucket *b, const char *const keys[], size_t n)
{
	AUTO(http_response) struct http_response response = { 0 };
	AUTO(buf) struct buf text = BUF_INIT(DELETE_BODY_MAX);
	AUTO(buf) struct buf reply = BUF_INIT(DELETE_BODY_MAX);
	struct s3 *s3 = (struct s3 *)b;
	struct s3_request request = s3_request(s3->store, "POST", NULL);
	struct http_body body;
	struct buf_sink sink;
	int rc = delete_body(s3->store, keys, n, &text);

	buf_sink_init(&sink, &reply);
	body = (struct http_body){ .data = text.data, .size = text.size };
	s3_request_query(&request, "delete", "");
	request.body = &body;
	request.sink = &sink.sink;
	request.sink_status = 200;
	if (rc == 0)
		rc = s3_request_send(&request, clock_wall_ms(), &response);
	if (rc == 0)
		rc = check_deleted(&request, &reply);
	return rc < 0 ? failed(b, "removing", keys[0], rc) : 0;
}

static void s3_free(struct bucket *b)
{
	struct s3 *s3 = (struct s3 *)b;

	s3_store_free(s3->store);
	(void)pthread_mutex_destroy(&s3->lock);
	free((char *)s3->bucket.url);
	free(s3);
}

static const struct bucket_ops s3_ops = {
	.name = "s3",
	.get = s3_get,
	.head = s3_head,
	.put = s3_put,
	.list = s3_list_keys,
	.remove = s3_remove,
	.probe = s3_probe,
	.free = s3_free,
};

int bucket_s3_new(const struct bucket_url *url, struct bucket **ret)
{
	AUTO(s3_store) struct s3_store *store = NULL;
	AUTO(mem) char *text = strdup(url->text);
	struct s3 *s3 = malloc(sizeof(*s3));
	struct bucket like = { .ops = &s3_ops, .url = text };
	int rc;

	if (!text || !s3) {
		free(s3);
		return error_set(-ENOMEM, "out of memory");
	}
	rc = s3_store_new(url, &store);
	if (rc < 0) {
		free(s3);
		return error_wrap(rc, "opening %s", url->text);
	}
	s3_init(s3, &like, TAKE(store), FORM_UNKNOWN);
	(void)TAKE(text);
	*ret = &s3->bucket;
	return 0;
}
