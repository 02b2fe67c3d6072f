#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/error.h"

#include "base/clock.h"

static int64_t read_clock(clockid_t id)
{
	struct timespec now;

	(void)clock_gettime(id, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t clock_wall_ms(void)
{
	return read_clock(CLOCK_REALTIME);
}

int64_t clock_monotonic_ms(void)
{
	return read_clock(CLOCK_MONOTONIC);
}

void clock_sleep_ms(int64_t ms)
{
	struct timespec left = {
		.tv_sec = ms / 1000,
		.tv_nsec = (long)(ms % 1000) * 1000000,
	};

	while (ms > 0 && nanosleep(&left, &left) < 0 && errno == EINTR)
		;
}

/* The years that have four digits. */
#define FIRST_MS INT64_C(-62167219200000)
#define LAST_MS	 INT64_C(253402300799999)

void clock_format(int64_t wall_ms, char ret[CLOCK_TEXT_SIZE])
{
	int64_t ms = ((wall_ms % 1000) + 1000) % 1000;
	time_t seconds;
	struct tm tm;

	if (wall_ms < FIRST_MS || wall_ms > LAST_MS) {
		(void)snprintf(ret, CLOCK_TEXT_SIZE, "invalid-time");
		return;
	}
	seconds = (time_t)((wall_ms - ms) / 1000);
	(void)gmtime_r(&seconds, &tm);
	(void)snprintf(ret, CLOCK_TEXT_SIZE, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ",
		       tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour,
		       tm.tm_min, tm.tm_sec, (int)ms);
}

/*
 * Does it begin as the pattern says, where 0 is any digit, and ? anything?
 * sscanf(3) alone takes blanks, signs, and fewer digits.
 */
static bool begins_as(const char *text, const char *pattern)
{
	for (; *pattern; text++, pattern++) {
		if (!*text)
			return false;
		if (*pattern == '0' ? !isdigit((unsigned char)*text)
				    : *pattern != '?' && *text != *pattern)
			return false;
	}
	return true;
}

/* "Z" or "+hh:mm": seconds to subtract, and the end of the text. */
static int parse_zone(const char *text, int *ret_seconds)
{
	int hours, minutes, used = 0;
	char sign;

	if (strcmp(text, "Z") == 0 || strcmp(text, "z") == 0) {
		*ret_seconds = 0;
		return 0;
	}
	if (!begins_as(text, "?00:00") ||
	    sscanf(text, "%c%2d:%2d%n", &sign, &hours, &minutes, &used) != 3 ||
	    text[used] || (sign != '+' && sign != '-') || hours > 23 ||
	    minutes > 59)
		return -EINVAL;
	*ret_seconds = (hours * 3600 + minutes * 60) * (sign == '+' ? 1 : -1);
	return 0;
}

/* The digits after the point, as milliseconds; *text goes past them. */
static int parse_fraction(const char **text)
{
	int ms = 0, scale = 100;

	if (**text != '.')
		return 0;
	if (!isdigit((unsigned char)(*text)[1]))
		return -EINVAL;
	for ((*text)++; isdigit((unsigned char)**text); (*text)++) {
		ms += (**text - '0') * scale;
		scale /= 10;
	}
	return ms;
}

/* timegm() makes 3 March of 31 February; that is no date. */
static bool date_exists(int year, int month, int day)
{
	struct tm tm = { .tm_year = year - 1900,
			 .tm_mon = month - 1,
			 .tm_mday = day };

	(void)timegm(&tm);
	return tm.tm_mon == month - 1 && tm.tm_mday == day;
}

int clock_parse(const char *text, int64_t *ret_wall_ms)
{
	struct tm tm = { 0 };
	int used = 0, zone, ms;
	char separator;
	const char *rest;
	int day, month, hour;
	int64_t found;

	if (!begins_as(text, "0000-00-00?00:00:00") ||
	    sscanf(text, "%4d-%2d-%2d%c%2d:%2d:%2d%n", &tm.tm_year, &month,
		   &day, &separator, &hour, &tm.tm_min, &tm.tm_sec,
		   &used) != 7 ||
	    !strchr("Tt ", separator))
		goto invalid;
	rest = text + used;
	ms = parse_fraction(&rest);
	if (ms < 0 || parse_zone(rest, &zone) < 0 ||
	    !date_exists(tm.tm_year, month, day) || hour > 23 ||
	    tm.tm_min > 59 || tm.tm_sec > 60)
		goto invalid;
	tm.tm_year -= 1900;
	tm.tm_mon = month - 1;
	tm.tm_mday = day;
	tm.tm_hour = hour;
	found = ((int64_t)timegm(&tm) - zone) * 1000 + ms;
	if (found < FIRST_MS || found > LAST_MS)
		goto invalid;
	*ret_wall_ms = found;
	return 0;
invalid:
	return error_set(-EINVAL,
			 "'%s' is no time; write it as 2006-01-02T15:04:05Z",
			 text);
}

static int64_t unit_ms(const char *unit, size_t length)
{
	static const struct {
		const char *name;
		int64_t ms;
	} units[] = {
		{ "ms", 1 },	    { "s", 1000 },	{ "m", 60000 },
		{ "h", 3600000 }, { "d", 86400000 },
	};

	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (strlen(units[i].name) == length &&
		    memcmp(units[i].name, unit, length) == 0)
			return units[i].ms;
	return -1;
}

int clock_parse_duration(const char *text, int64_t *ret_ms)
{
	const char *p = text;
	int64_t total = 0;

	if (strcmp(text, "0") == 0) {
		*ret_ms = 0;
		return 0;
	}
	do {
		char *end;
		double number;
		size_t unit = 0;
		int64_t ms;

		if (!isdigit((unsigned char)*p))
			goto invalid;
		number = strtod(p, &end);
		while (isalpha((unsigned char)end[unit]))
			unit++;
		ms = unit_ms(end, unit);
		if (ms < 0 || number > 1e9)
			goto invalid;
		total += (int64_t)(number * (double)ms + 0.5);
		p = end + unit;
	} while (*p);
	*ret_ms = total;
	return 0;
invalid:
	return error_set(-EINVAL,
			 "'%s' is no duration; write it as 20ms, 1s, 5m or 24h",
			 text);
}
