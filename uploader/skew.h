#ifndef LITEBUCKET_UPLOADER_SKEW_H
#define LITEBUCKET_UPLOADER_SKEW_H

/*
 * The store's clock minus ours, from the Date of its replies.
 *
 * A Date of D, in whole seconds, was written at a moment between D and D + 1 s
 * of the store's clock and between request and reply of ours.  So a reply does
 * not give the offset, only bounds for it.  An offset within the bounds is
 * kept: with two good clocks it stays 0, and the times of batches do not
 * jump about by a second.
 */
#include <stdint.h>

/*
 * The value nearest to offset_ms that this reply allows.  Times are of the
 * wall clock; date_ms is the store's.
 */
int64_t skew_adjust(int64_t offset_ms, int64_t requested_ms,
		    int64_t replied_ms, int64_t date_ms);

#endif
