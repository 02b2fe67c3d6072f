#ifndef LITEBUCKET_UPLOADER_BATCH_H
#define LITEBUCKET_UPLOADER_BATCH_H

/*
 * One batch of the spool, open for sending.
 */
#include <stdint.h>

#include "ltx/header.h"

struct spool;

struct batch {
	int fd; /* read-only; the batch's own */
	uint64_t size;
	struct ltx_header header;
};

#define BATCH_NONE { .fd = -1 }

/*
 * For sending: from here on it stays as it is.  -ENOENT: not in the spool.
 * -EBUSY: it is being replaced (spool_claim).  -ERR_CORRUPT: its header is not
 * this batch's.
 */
int batch_open(struct spool *spool, uint64_t txid, struct batch *ret);

/* One that is in the bucket, and kept. */
int batch_open_kept(struct spool *spool, uint64_t txid, struct batch *ret);

/*
 * Read it through and check every byte.  For what has lain in the spool since
 * an earlier life: a slot, once taken, cannot be filled again.
 */
int batch_verify(const struct batch *batch);

void batch_cleanup(struct batch *batch);

#endif
