#ifdef LITEBUCKET_FAILPOINTS

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

#include "base/fail.h"

void fail_point(const char *name)
{
	static atomic_uint passes;
	const char *armed = getenv("LITEBUCKET_FAILPOINT");
	size_t length = strlen(name);
	unsigned at = 1;

	if (!armed || strncmp(armed, name, length) != 0 ||
	    strncmp(armed + length, ":kill", 5) != 0)
		return;
	if (armed[length + 5] == ':')
		at = (unsigned)strtoul(armed + length + 6, NULL, 10);
	if (atomic_fetch_add(&passes, 1) + 1 == at)
		(void)kill(getpid(), SIGKILL);
}

void fail_slow_point(const char *name)
{
	const char *slow = getenv("LITEBUCKET_SLOWPOINT");
	size_t length = strlen(name);

	if (slow && strncmp(slow, name, length) == 0 && slow[length] == ':')
		clock_sleep_ms(atoi(slow + length + 1));
}

#else
/* ISO C wants something in every file. */
typedef int fail_points_are_off;
#endif
