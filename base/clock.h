#ifndef LITEBUCKET_BASE_CLOCK_H
#define LITEBUCKET_BASE_CLOCK_H

/*
 * Time: milliseconds since the Unix epoch (wall), milliseconds of a clock
 * that never jumps (monotonic), and their texts.
 */
#include <stddef.h>
#include <stdint.h>
#include <time.h>

enum { CLOCK_TEXT_SIZE = 32 };

int64_t clock_wall_ms(void);
int64_t clock_monotonic_ms(void);
void clock_sleep_ms(int64_t ms);

/* As file times are compared. */
static inline int64_t clock_nanoseconds(struct timespec t)
{
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/*
 * RFC 3339 in UTC with milliseconds: 2006-01-02T15:04:05.000Z; "invalid-time"
 * before the year 0 and after 9999.
 */
void clock_format(int64_t wall_ms, char ret[CLOCK_TEXT_SIZE]);

/*
 * RFC 3339 with any number of fractional digits (cut to milliseconds), "Z" or
 * an offset, "T" or a space.  -EINVAL for anything else, and for a time that
 * clock_format() could not write.
 */
int clock_parse(const char *text, int64_t *ret_wall_ms);

/* "20ms", "1s", "5m", "24h", also "1h30m" and plain "0".  -EINVAL. */
int clock_parse_duration(const char *text, int64_t *ret_ms);

#endif
