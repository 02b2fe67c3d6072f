#ifndef LITEBUCKET_UPLOADER_PACE_H
#define LITEBUCKET_UPLOADER_PACE_H

/*
 * When a database's next turn is due.  Pure: times (monotonic milliseconds)
 * go in and come out.
 *
 * A batch is sealed at most once per interval, counted from the last one that
 * was sealed; so the first commit after a pause goes out at once, and what
 * follows gathers.  Who waits does not wait for the interval.
 */
#include <stdbool.h>
#include <stdint.h>

/* No batch was sealed yet. */
#define PACE_NEVER INT64_MIN

/* When to seal; not before now_ms. */
int64_t pace_due(int64_t interval_ms, int64_t sealed_ms, int64_t now_ms,
		 bool urged);

enum {
	PACE_FIRST_PAUSE_MS = 1000,
	PACE_LAST_PAUSE_MS = 30000,
};

/*
 * The pause after the failure that follows failures others.  It doubles from
 * the first to the last, or is the last at once for errors that only a person
 * can mend (slow).  random, any number, takes up to half of it away, so that
 * many databases and nodes do not come back in step.
 */
int64_t pace_pause(unsigned failures, bool slow, uint32_t random);

#endif
