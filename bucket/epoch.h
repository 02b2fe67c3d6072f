#ifndef LITEBUCKET_BUCKET_EPOCH_H
#define LITEBUCKET_BUCKET_EPOCH_H

/*
 * Which epochs has a bucket had?
 * ==============================
 *
 * Who takes the lease begins an epoch that is greater than all before
 * (bucket/lease.h).  lock.json has the last one, but somebody may have removed
 * that, and writers of before the lease had none.  An epoch given again would
 * make a late put of the old one look like one of the new, so it is also read
 * from where it left its traces: the header of the last slot of each database's
 * log, in which it never falls, and the catalog, which is rewritten before
 * the first slot is.
 *
 * What is written meanwhile may be missing; but that is of a holder of the
 * lease, so its epoch is in lock.json.  What was sealed and never sent is only in
 * its node's spools, and for the caller to add.
 */
#include <stdint.h>

struct bucket;

/*
 * The greatest one, or 0: for lease_take().  Costs a request for the catalog,
 * and for each database some tens at most.  Other programs' slots, a damaged
 * catalog, and a log whose last slot is damaged, which is logged, tell none.
 *
 * -EOPNOTSUPP: the bucket has a newer format.  Or the store's error.
 */
int epoch_greatest(struct bucket *b, uint64_t *ret);

#endif
