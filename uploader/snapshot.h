#ifndef LITEBUCKET_UPLOADER_SNAPSHOT_H
#define LITEBUCKET_UPLOADER_SNAPSHOT_H

/*
 * The snapshot that a slot gives by itself
 * ========================================
 *
 * A chain of batches begins at one that holds every page: slot 1, the first
 * slot of another page size, or the first after a drop.  After such a slot K
 * comes a snapshot 0009/1-K with the same pages (R19, R21), so that whoever
 * restores finds a base without reading further back.
 *
 * It is made from the slot's batch, after the slot is confirmed, and put if
 * absent: as everything of one slot gives the same snapshot, one that is there
 * is as good.
 */
#include <stdbool.h>
#include <stdint.h>

struct batch;
struct bucket;
struct bucket_info;
struct ltx_header;

/*
 * Does a snapshot belong to this slot?  before is the header of the slot
 * before it; page_size 0: not known.  Then the answer may be wrongly yes, and
 * snapshot_put() finds out.
 */
bool snapshot_due(const struct ltx_header *before,
		  const struct ltx_header *slot);

/*
 * The snapshot of this batch into the bucket.  What must be re-encoded for it
 * goes through a file in temp_dir.  ret_size: the bytes sent, 0 if it was
 * there already.
 *
 * -EINVAL: the batch does not hold every page.
 */
int snapshot_put(struct bucket *b, const char *db, const struct batch *batch,
		 const char *temp_dir, uint64_t *ret_size);

#endif
