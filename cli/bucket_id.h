#ifndef LITEBUCKET_CLI_BUCKET_ID_H
#define LITEBUCKET_CLI_BUCKET_ID_H

/*
 * .litebucket/bucket: which bucket a directory belongs to
 * =======================================================
 *
 * The id in the bucket's catalog (bucket/catalog.h) and a newline.  It is
 * written when something of the directory is in that bucket, and compared at
 * each start, so that a wrong URL is noticed before anything is sent (D3).
 */
#include "bucket/catalog.h"

/*
 * ret is "" if the directory belongs to none so far.  -ERR_CORRUPT: what is
 * there is no id.
 */
int bucket_id_read(int dirfd, char ret[CATALOG_ID_SIZE]);

int bucket_id_write(int dirfd, const char *id);

#endif
