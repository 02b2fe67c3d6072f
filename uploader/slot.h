#ifndef LITEBUCKET_UPLOADER_SLOT_H
#define LITEBUCKET_UPLOADER_SLOT_H

/*
 * One slot of a database's log, filled or found filled.
 */
#include <stdint.h>

struct batch;
struct bucket;
struct bucket_info;
struct ltx_header;

/*
 * Put the batch into its slot if that is empty.  If it is not, read the slot
 * and compare: our own bytes were put by an earlier try whose reply was lost,
 * and count as much as a reply that came (R13).  Bytes are our own if they are
 * equal, because the header's node id holds a random number of each batch (R2).
 *
 * 0: the batch is in the bucket.  -ERR_FENCED: another writer's is, and stays.
 * Anything else leaves open what happened: call again.  ret always gets the
 * last reply's date_ms, 0 if there was none.
 */
int slot_put(struct bucket *b, const char *db, const struct batch *batch,
	     struct bucket_info *ret);

/*
 * The header of the last slot that an earlier life filled.  -ERR_GAP: it is
 * not there, so this is another bucket than then, or one that lost something;
 * what is put behind it could never be restored.
 */
int slot_last(struct bucket *b, const char *db, uint64_t txid,
	      struct ltx_header *ret);

/*
 * Was next made on top of last?  -ERR_FENCED: no, last is another writer's.
 * What is not known is no contradiction.
 */
int slot_follows(const struct bucket *b, const char *db,
		 const struct ltx_header *last, const struct ltx_header *next);

#endif
