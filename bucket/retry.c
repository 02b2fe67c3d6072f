#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "base/stream.h"
#include "bucket/bucket.h"
#include "bucket/patience.h"

#include "bucket/retry.h"

struct retry {
	struct bucket bucket;
	struct bucket *inner;
	struct bucket_retry_config config;
};

const struct bucket_retry_config bucket_retry_default = {
	.tries = 5,
	.first_ms = 100,
	.cap_ms = 5000,
};

int64_t bucket_retry_bound_ms(const struct bucket_retry_config *config,
			      unsigned n)
{
	int64_t bound = config->first_ms;

	while (n-- > 0 && bound < config->cap_ms)
		bound *= 2;
	return bound < config->cap_ms ? bound : config->cap_ms;
}

/* From 1 ms on: a try that follows at once would be no other chance. */
static void pause_before_next(const struct retry *r, unsigned n)
{
	int64_t bound = bucket_retry_bound_ms(&r->config, n);
	uint64_t random;

	if (bound < 1)
		bound = 1;
	io_random(&random, sizeof(random));
	bucket_patience_sleep(r->config.sleep_ms,
			      1 + (int64_t)(random % (uint64_t)bound));
}

/*
 * Shall try number *n, which ended with rc, be followed by another?  If so,
 * wait, and count.  Not for a thread whose patience is over.
 */
static bool again(const struct retry *r, const char *what, int rc, unsigned *n)
{
	if (!bucket_transient(rc) || *n + 1 >= r->config.tries ||
	    bucket_patience_is_over())
		return false;
	log_debug("trying again", "op=%s bucket=%s try=%u error=%s", what,
		  log_quote(r->bucket.url), *n + 2, log_quote(error_message()));
	pause_before_next(r, *n);
	if (bucket_patience_is_over())
		return false;
	(*n)++;
	return true;
}

/* The result of the last try, number n. */
static int result(int rc, unsigned n)
{
	if (rc < 0 && n > 0 && bucket_transient(rc))
		return error_wrap(rc, "gave up after %u tries", n + 1);
	return rc;
}

/*
 * get
 * ---
 *
 * What a reply gives goes through this sink, which counts it and sees to it
 * that all of it comes from one object.
 */
struct joint {
	struct sink sink;
	struct sink *to;
	const char *key;
	const struct bucket_info *info; /* of the try that is under way */
	char etag[BUCKET_ETAG_SIZE];	/* of the first; "" until known */
	uint64_t got;
	bool stopped; /* by us or by the caller's sink, not by the store */
};

/* Some stores ignore If-Match on a get. */
static int check_same_object(struct joint *j)
{
	if (j->got == 0)
		memcpy(j->etag, j->info->etag, sizeof(j->etag));
	else if (strcmp(j->etag, j->info->etag) != 0)
		return error_set(-ERR_PRECOND,
				 "'%s' was replaced while it was read", j->key);
	return 0;
}

static int joint_write(struct sink *sink, const void *data, size_t size)
{
	struct joint *j = (struct joint *)sink;
	int rc = check_same_object(j);

	if (rc == 0)
		rc = sink_write(j->to, data, size);
	if (rc < 0)
		j->stopped = true;
	else
		j->got += size;
	return rc;
}

/* The reply broke off after its last byte. */
static bool is_complete(const struct joint *j, uint64_t offset,
			uint64_t length)
{
	uint64_t size = j->info->size;

	return j->got > 0 && (j->got == length || offset + j->got == size);
}

static int get_rest(struct bucket *inner, uint64_t offset, uint64_t length,
		    const char *if_match, struct joint *j,
		    struct bucket_info *ret)
{
	uint64_t left = length == BUCKET_TO_END ? length : length - j->got;
	int rc = bucket_get(inner, j->key, offset + j->got, left,
			    j->got > 0 ? j->etag : if_match, &j->sink, ret);

	if (rc < 0 && !j->stopped && is_complete(j, offset, length))
		return 0;
	if (rc == -ERR_PRECOND && !j->stopped && j->got > 0)
		return error_set(rc, "'%s' was replaced while it was read",
				 j->key);
	return rc;
}

static int retry_get(struct bucket *b, const char *key, uint64_t offset,
		     uint64_t length, const char *if_match, struct sink *sink,
		     struct bucket_info *ret)
{
	struct retry *r = (struct retry *)b;
	struct joint j = {
		.sink.write = joint_write,
		.to = sink,
		.key = key,
		.info = ret,
	};
	unsigned n = 0;
	int rc;

	for (;;) {
		uint64_t before = j.got;

		rc = get_rest(r->inner, offset, length, if_match, &j, ret);
		if (rc == 0 || j.stopped)
			return rc;
		/* Without an ETag nothing says what the rest belongs to. */
		if (j.got > 0 && !j.etag[0])
			return rc;
		if (j.got > before)
			n = 0;
		if (!again(r, "get", rc, &n))
			return result(rc, n);
	}
}

static int retry_head(struct bucket *b, const char *key,
		      struct bucket_info *ret)
{
	struct retry *r = (struct retry *)b;
	unsigned n = 0;
	int rc;

	do
		rc = bucket_head(r->inner, key, ret);
	while (again(r, "head", rc, &n));
	return result(rc, n);
}

static int retry_put(struct bucket *b, const struct bucket_put *put,
		     struct bucket_info *ret)
{
	struct retry *r = (struct retry *)b;
	unsigned n = 0;
	int rc;

	do
		rc = bucket_put(r->inner, put, ret);
	while (again(r, "put", rc, &n));
	return result(rc, n);
}

/* What a list has given so far. */
struct listed {
	bucket_list_fn fn;
	void *arg;
	size_t n;
	bool stopped; /* by the caller */
	char last[BUCKET_KEY_MAX + 1];
};

static int listed_one(const struct bucket_object *object, void *arg)
{
	struct listed *l = arg;
	int rc = l->fn(object, l->arg);

	if (rc != 0) {
		l->stopped = true;
		return rc;
	}
	(void)snprintf(l->last, sizeof(l->last), "%s", object->key);
	l->n++;
	return 0;
}

static int retry_list(struct bucket *b, const char *prefix, const char *after,
		      size_t limit, bucket_list_fn fn, void *arg)
{
	struct retry *r = (struct retry *)b;
	struct listed l = { .fn = fn, .arg = arg };
	unsigned n = 0;
	int rc;

	for (;;) {
		size_t before = l.n;

		rc = bucket_list(r->inner, prefix, l.n > 0 ? l.last : after,
				 limit ? limit - l.n : 0, listed_one, &l);
		if (rc == 0 || l.stopped || (limit && l.n == limit))
			return l.stopped ? rc : 0;
		if (l.n > before)
			n = 0;
		if (!again(r, "list", rc, &n))
			return result(rc, n);
	}
}

static int retry_remove(struct bucket *b, const char *const keys[], size_t n)
{
	struct retry *r = (struct retry *)b;
	unsigned tries = 0;
	int rc;

	do
		rc = bucket_remove(r->inner, keys, n);
	while (again(r, "remove", rc, &tries));
	return result(rc, tries);
}

static int retry_probe(struct bucket *b, unsigned *ret_caps)
{
	struct retry *r = (struct retry *)b;
	unsigned n = 0;
	int rc;

	do
		rc = bucket_probe(r->inner, ret_caps);
	while (again(r, "probe", rc, &n));
	return result(rc, n);
}

static void retry_free(struct bucket *b)
{
	struct retry *r = (struct retry *)b;

	bucket_free(r->inner);
	free(r);
}

static const struct bucket_ops retry_ops = {
	.name = "retry",
	.get = retry_get,
	.head = retry_head,
	.put = retry_put,
	.list = retry_list,
	.remove = retry_remove,
	.probe = retry_probe,
	.free = retry_free,
};

int bucket_retry_new(struct bucket *inner,
		     const struct bucket_retry_config *config,
		     struct bucket **ret)
{
	struct retry *r = malloc(sizeof(*r));

	if (!r) {
		bucket_free(inner);
		return error_set(-ENOMEM, "out of memory");
	}
	*r = (struct retry){
		.bucket = { .ops = &retry_ops, .url = inner->url },
		.inner = inner,
		.config = *config,
	};
	if (!r->config.sleep_ms)
		r->config.sleep_ms = clock_sleep_ms;
	*ret = &r->bucket;
	return 0;
}
