#include "uploader/skew.h"

enum { DATE_RESOLUTION_MS = 1000 };

int64_t skew_adjust(int64_t offset_ms, int64_t requested_ms,
		    int64_t replied_ms, int64_t date_ms)
{
	int64_t low = date_ms - replied_ms;
	int64_t high = date_ms + DATE_RESOLUTION_MS - 1 - requested_ms;

	/* Our own clock was set back in between: this reply says nothing. */
	if (low > high)
		return offset_ms;
	if (offset_ms < low)
		return low;
	return offset_ms > high ? high : offset_ms;
}
