#ifndef LITEBUCKET_BUCKET_S3_LIST_H
#define LITEBUCKET_BUCKET_S3_LIST_H

/*
 * A list, page by page
 * ====================
 *
 * How a page is fetched is its driver's.  Stores are held to what callers rely
 * on: keys that begin with the prefix, in ascending order, and an end.
 */
#include "bucket/bucket.h"

struct s3_listing;

struct s3_pages {
	const char *url;    /* for messages */
	const char *prefix; /* what the bucket's keys begin with */

	/*
	 * At most max keys that begin with prefix: what follows token (of the
	 * page before), or with token NULL what is greater than after.  ret is
	 * all zero; on success it has a token where it is truncated.
	 */
	int (*fetch)(void *arg, const char *prefix, const char *after,
		     const char *token, size_t max, struct s3_listing *ret);
	void *arg;
};

/* See bucket_list(). */
int s3_list(const struct s3_pages *pages, const char *prefix,
	    const char *after, size_t limit, bucket_list_fn fn, void *arg);

#endif
