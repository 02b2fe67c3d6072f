#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

#include "fuse/lease.h"

/*
 * Whoever opens the file for writing while we have the lease waits until it is
 * given back, which is now, and we get a signal: one that does nothing.
 */
static int take_and_give_back(int fd)
{
	if (fcntl(fd, F_SETSIG, SIGURG) < 0 ||
	    fcntl(fd, F_SETLEASE, F_RDLCK) < 0)
		return -errno;
	(void)fcntl(fd, F_SETLEASE, F_UNLCK);
	return 0;
}

enum lease_answer lease_ask(int dirfd, const char *path, struct stat *ret_stat,
			    char ret_begin[16])
{
	AUTO(fd) int fd = openat(dirfd, path, O_RDONLY | O_NOFOLLOW |
						      O_NONBLOCK | O_CLOEXEC);
	struct stat st;
	int rc;

	memset(ret_begin, 0, 16);
	if (fd < 0)
		return errno == ENOENT ? LEASE_FREE : LEASE_UNKNOWN;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return LEASE_FREE;
	if (ret_stat)
		*ret_stat = st;
	if (pread(fd, ret_begin, 16, 0) < 16)
		memset(ret_begin, 0, 16);
	rc = take_and_give_back(fd);
	if (rc == 0)
		return LEASE_FREE;
	return rc == -EAGAIN ? LEASE_TAKEN : LEASE_UNKNOWN;
}
