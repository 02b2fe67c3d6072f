#ifndef LITEBUCKET_BUCKET_S3_LIST_H
#define LITEBUCKET_BUCKET_S3_LIST_H

/*
 * ListObjectsV2, page by page
 * ===========================
 *
 * Stores are held to what callers rely on: keys that begin with the prefix,
 * in ascending order, and an end.
 */
#include "bucket/bucket.h"

struct s3_store;

/* See bucket_list().  url is for messages. */
int s3_list_keys(const struct s3_store *store, const char *url,
		 const char *prefix, const char *after, size_t limit,
		 bucket_list_fn fn, void *arg);

#endif
