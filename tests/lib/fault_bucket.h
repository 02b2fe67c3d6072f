#ifndef LITEBUCKET_TESTS_LIB_FAULT_BUCKET_H
#define LITEBUCKET_TESTS_LIB_FAULT_BUCKET_H

/*
 * A bucket around a real one that does what networks do, when told: it is slow,
 * fails before a request or loses the reply after it, and counts.  Set the
 * knobs with the lock held (fault_set()).
 */
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "bucket/bucket.h"

enum { FAULT_KEYS = 512 };

struct fault_bucket {
	struct bucket bucket;
	struct bucket *inner; /* stays the caller's */
	pthread_mutex_t lock;

	/* Knobs. */
	int fail;	   /* every request fails so; 0: none */
	const char *only;  /* ... whose key contains this; NULL: all */
	bool only_gets;
	unsigned lose;	   /* so many puts happen and answer -ETIMEDOUT, */
	unsigned drop;	   /* and then so many do not, and do too; */
	int answer;	   /* ... or answer this, if it is not 0 */
	bool dies;	   /* with the last of those, the network does */
	int64_t delay_ms;  /* of each put */
	bool has_clock;	   /* replies have a Date, in whole seconds, */
	int64_t ahead_ms;  /* of a clock that is ahead of ours by this */
	bool no_clock;	   /* they have none */
	unsigned without;  /* capabilities that the probe denies */

	/* Called before each put of the catalog; may put one itself. */
	void (*before_catalog)(struct fault_bucket *f);

	/* Called before any put; may keep a copy of it. */
	void (*before_put)(struct fault_bucket *f,
			   const struct bucket_put *put);

	/* Counts; of puts and gets those of the catalog apart. */
	unsigned requests, puts, gets, catalog_puts, catalog_gets;
	unsigned in_flight, max_in_flight; /* puts */
	char keys[FAULT_KEYS][128];	   /* put, in order of arrival */
	int64_t at_ms[FAULT_KEYS];	   /* monotonic */
};

static inline struct fault_bucket *fault_lock(struct bucket *b)
{
	struct fault_bucket *f = (struct fault_bucket *)b;

	pthread_mutex_lock(&f->lock);
	return f;
}

static inline bool fault_is_catalog(const char *key)
{
	return strcmp(key, "catalog.json") == 0;
}

/* A request begins: the error it fails with, or 0. */
static inline int fault_begin(struct bucket *b, const char *key, bool get)
{
	struct fault_bucket *f = fault_lock(b);
	int rc = f->fail;

	f->requests++;
	if ((f->only && !strstr(key, f->only)) || (f->only_gets && !get))
		rc = 0;
	pthread_mutex_unlock(&f->lock);
	return rc ? error_set(rc, "%s: told to fail", key) : 0;
}

static inline void fault_tell_time(struct fault_bucket *f,
				   struct bucket_info *ret)
{
	pthread_mutex_lock(&f->lock);
	if (f->has_clock)
		ret->date_ms = (clock_wall_ms() + f->ahead_ms) / 1000 * 1000;
	if (f->no_clock)
		ret->date_ms = 0;
	pthread_mutex_unlock(&f->lock);
}

static inline int fault_get(struct bucket *b, const char *key, uint64_t offset,
			    uint64_t length, const char *if_match,
			    struct sink *sink, struct bucket_info *ret)
{
	int rc = fault_begin(b, key, true);
	struct fault_bucket *f = fault_lock(b);

	if (fault_is_catalog(key))
		f->catalog_gets++;
	else
		f->gets++;
	pthread_mutex_unlock(&f->lock);
	if (rc == 0)
		rc = bucket_get(f->inner, key, offset, length, if_match, sink,
				ret);
	fault_tell_time(f, ret);
	return rc;
}

static inline int fault_head(struct bucket *b, const char *key,
			     struct bucket_info *ret)
{
	int rc = fault_begin(b, key, false);

	return rc ? rc : bucket_head(((struct fault_bucket *)b)->inner, key,
				     ret);
}

static inline int64_t fault_begin_put(struct fault_bucket *f, const char *key)
{
	int64_t delay_ms;

	pthread_mutex_lock(&f->lock);
	if (fault_is_catalog(key)) {
		f->catalog_puts++;
		delay_ms = f->delay_ms;
		pthread_mutex_unlock(&f->lock);
		return delay_ms;
	}
	if (f->puts < FAULT_KEYS) {
		strncpy(f->keys[f->puts], key, sizeof(f->keys[0]) - 1);
		f->at_ms[f->puts] = clock_monotonic_ms();
	}
	f->puts++;
	if (++f->in_flight > f->max_in_flight)
		f->max_in_flight = f->in_flight;
	delay_ms = f->delay_ms;
	pthread_mutex_unlock(&f->lock);
	return delay_ms;
}

/* Is it one of those that do not arrive? */
static inline bool fault_drops(struct fault_bucket *f)
{
	bool drops;

	pthread_mutex_lock(&f->lock);
	drops = f->lose == 0 && f->drop > 0;
	f->drop -= drops;
	pthread_mutex_unlock(&f->lock);
	return drops;
}

static inline int fault_put(struct bucket *b, const struct bucket_put *put,
			    struct bucket_info *ret)
{
	struct fault_bucket *f = (struct fault_bucket *)b;
	int answer = f->answer ? f->answer : -ETIMEDOUT;
	bool lost = false;
	int rc;

	clock_sleep_ms(fault_begin_put(f, put->key));
	if (f->before_catalog && fault_is_catalog(put->key))
		f->before_catalog(f);
	if (f->before_put)
		f->before_put(f, put);
	rc = fault_begin(b, put->key, false);
	if (rc == 0 && fault_drops(f))
		rc = error_set(answer, "%s: request lost", put->key);
	if (rc == 0)
		rc = bucket_put(f->inner, put, ret);
	if (rc == 0)
		fault_tell_time(f, ret);

	fault_lock(b);
	if (!fault_is_catalog(put->key))
		f->in_flight--;
	if (rc == 0 && f->lose > 0) {
		f->lose--;
		lost = true;
		if (f->dies && f->lose == 0)
			f->fail = -ETIMEDOUT;
	}
	pthread_mutex_unlock(&f->lock);
	return lost ? error_set(answer, "%s: reply lost", put->key) : rc;
}

static inline int fault_list(struct bucket *b, const char *prefix,
			     const char *after, size_t limit,
			     bucket_list_fn fn, void *arg)
{
	int rc = fault_begin(b, prefix, false);

	return rc ? rc : bucket_list(((struct fault_bucket *)b)->inner, prefix,
				     after, limit, fn, arg);
}

static inline int fault_remove(struct bucket *b, const char *const keys[],
			       size_t n)
{
	int rc = fault_begin(b, n ? keys[0] : "", false);

	return rc ? rc : bucket_remove(((struct fault_bucket *)b)->inner, keys,
				       n);
}

static inline int fault_probe(struct bucket *b, unsigned *ret_caps)
{
	struct fault_bucket *f = (struct fault_bucket *)b;
	int rc = fault_begin(b, "", false);

	if (rc == 0)
		rc = bucket_probe(f->inner, ret_caps);
	if (rc == 0)
		*ret_caps &= ~f->without;
	return rc;
}

static inline void fault_free(struct bucket *b)
{
	pthread_mutex_destroy(&((struct fault_bucket *)b)->lock);
}

static const struct bucket_ops fault_ops = {
	.name = "fault",
	.get = fault_get,
	.head = fault_head,
	.put = fault_put,
	.list = fault_list,
	.remove = fault_remove,
	.probe = fault_probe,
	.free = fault_free,
};

static inline void fault_init(struct fault_bucket *f, struct bucket *inner)
{
	memset(f, 0, sizeof(*f));
	f->bucket.ops = &fault_ops;
	f->bucket.url = inner->url;
	f->inner = inner;
	pthread_mutex_init(&f->lock, NULL);
}

#define fault_set(f, knob, value)                   \
	do {                                        \
		pthread_mutex_lock(&(f)->lock);     \
		(f)->knob = (value);                \
		pthread_mutex_unlock(&(f)->lock);   \
	} while (0)

#define fault_read(f, count)                        \
	__extension__({                             \
		pthread_mutex_lock(&(f)->lock);     \
		__auto_type count_ = (f)->count;    \
		pthread_mutex_unlock(&(f)->lock);   \
		count_;                             \
	})

#endif
