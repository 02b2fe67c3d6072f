#ifndef LITEBUCKET_LTX_MERGE_H
#define LITEBUCKET_LTX_MERGE_H

/*
 * Batches of a spool, as one batch
 * ================================
 *
 * As ltx_compact_as(), for any number of batches with as many descriptors and
 * as much memory as a few dozen need: more are merged in groups first, into
 * unnamed files, and then those.
 */
#include <stddef.h>
#include <stdint.h>

struct ltx_compact_batch;
struct ltx_header;
struct sink;
struct spool;

/* The most files that are merged at a time. */
enum { MERGE_FAN_IN = 64 };

/*
 * Batches first..last of the spool, which is left as it is, into out.  Unnamed
 * files go to dirfd.  Errors as ltx_compact_as().
 */
int merge_batches(struct spool *s, uint64_t first, uint64_t last, int dirfd,
		  const struct ltx_compact_batch *as, struct sink *out,
		  struct ltx_header *ret_header);

#endif
