#ifndef LITEBUCKET_BUCKET_FILE_LIST_H
#define LITEBUCKET_BUCKET_FILE_LIST_H

/*
 * The objects of a file bucket in the order of their keys: bucket_list() for
 * the directory root.  Memory is bounded however many files a directory has.
 */
#include "bucket/bucket.h"

int file_list(int root, const char *prefix, const char *after, size_t limit,
	      bucket_list_fn fn, void *arg);

#endif
