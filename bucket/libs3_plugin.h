#ifndef LITEBUCKET_BUCKET_LIBS3_PLUGIN_H
#define LITEBUCKET_BUCKET_LIBS3_PLUGIN_H

/*
 * What litebucket_libs3.so and the program say to each other
 * ==========================================================
 *
 * The shared object exports one symbol, a struct of functions.  It uses
 * nothing of the program but the plain data of these headers: errors come back
 * as a negative errno of bucket/bucket.h and a text in the reply, bytes go
 * through the program's own sinks and sources.
 *
 * Every call may come from any thread at any time.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bucket/bucket.h"

struct sink;
struct source;

#define LIBS3_PLUGIN_SYMBOL "litebucket_libs3_plugin"

/* Counts up with every change below. */
enum { LIBS3_PLUGIN_VERSION = 1 };

/* Which bucket, and who we are there. */
struct libs3_target {
	const char *host; /* host[:port] */
	const char *bucket;
	const char *region;
	const char *access_key;
	const char *secret_key;
	const char *session_token; /* NULL: none */
	bool https;
	bool path_style;
};

struct libs3_reply {
	struct bucket_info info;
	char message[512]; /* of an error */
};

struct libs3_plugin {
	unsigned version;
	const char *name; /* of the library, for messages */

	bool verifies;	    /* TLS certificates */
	bool session_token; /* can be sent */
	bool put_etag;	    /* the reply to a put tells it */

	/* 0 until the library is ready; once, before all others. */
	int (*init)(char message[512]);

	/*
	 * length 0: to the end.  The reply's info is there before the first
	 * byte goes to the sink; its size is that of the range.
	 */
	int (*get)(const struct libs3_target *target, const char *key,
		   uint64_t offset, uint64_t length, const char *if_match,
		   struct sink *sink, struct libs3_reply *ret);
	int (*head)(const struct libs3_target *target, const char *key,
		    struct libs3_reply *ret);
	int (*put)(const struct libs3_target *target, const char *key,
		   struct source *source, uint64_t size, const char *md5,
		   const struct bucket_meta *meta, size_t n_meta,
		   struct libs3_reply *ret);
	int (*remove)(const struct libs3_target *target, const char *key,
		      struct libs3_reply *ret);

	/* One page of the keys that begin with prefix, from after marker on. */
	int (*list)(const struct libs3_target *target, const char *prefix,
		    const char *marker, int max,
		    int (*entry)(void *arg, const struct bucket_object *object),
		    void *arg, bool *ret_truncated, struct libs3_reply *ret);
};

#endif
