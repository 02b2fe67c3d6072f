#ifndef LITEBUCKET_TESTS_UNIT_MEMORY_DIR_H
#define LITEBUCKET_TESTS_UNIT_MEMORY_DIR_H

/*
 * Tests that sync all the time work in /dev/shm, if that has room for those
 * which run beside each other: in a container it often has 64 MiB.
 */
#include <stdbool.h>
#include <sys/statvfs.h>
#include <unistd.h>

static inline bool memory_is_roomy(void)
{
	struct statvfs s;

	return access("/dev/shm", W_OK) == 0 && statvfs("/dev/shm", &s) == 0 &&
	       (unsigned long long)s.f_bavail * s.f_frsize >= 1ULL << 30;
}

#endif
