#include "uploader/pace.h"

int64_t pace_due(int64_t interval_ms, int64_t sealed_ms, int64_t now_ms,
		 bool urged)
{
	if (urged || sealed_ms == PACE_NEVER ||
	    now_ms - sealed_ms >= interval_ms)
		return now_ms;
	return sealed_ms + interval_ms;
}

int64_t pace_pause(unsigned failures, bool slow, uint32_t random)
{
	int64_t bound = PACE_FIRST_PAUSE_MS;

	while (failures-- > 0 && bound < PACE_LAST_PAUSE_MS)
		bound *= 2;
	if (slow || bound > PACE_LAST_PAUSE_MS)
		bound = PACE_LAST_PAUSE_MS;
	return bound - (int64_t)((uint64_t)bound / 2 * random / UINT32_MAX);
}
