#ifndef LITEBUCKET_BUCKET_PROBE_H
#define LITEBUCKET_BUCKET_PROBE_H

/*
 * Which conditions does a store keep?
 * ===================================
 *
 * Documentation and version numbers do not tell: the same server keeps
 * If-None-Match in one bucket and ignores it in a versioned one.  So it is
 * tried out, on a key of its own, which is removed afterwards.
 *
 * Drivers call this from their probe operation and remember the result.
 */
struct bucket;

/*
 * ret_caps gets enum bucket_caps.  That a condition is refused or ignored is
 * a result; an error is what kept us from finding out.
 */
int bucket_probe_conditions(struct bucket *b, unsigned *ret_caps);

#endif
