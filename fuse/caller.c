#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"

#include "fuse/caller.h"

enum {
	CAPABILITY_WORDS = _LINUX_CAPABILITY_U32S_3
};

struct capabilities {
	struct __user_cap_header_struct header;
	struct __user_cap_data_struct data[CAPABILITY_WORDS];
};

static void capabilities_get(struct capabilities *c)
{
	memset(c, 0, sizeof(*c));
	c->header.version = _LINUX_CAPABILITY_VERSION_3;
	(void)syscall(SYS_capget, &c->header, c->data);
}

/* The C library would change the whole process; we change this thread. */
static void set_ids(uid_t uid, gid_t gid)
{
	(void)syscall(SYS_setfsgid, gid);
	(void)syscall(SYS_setfsuid, uid);
}

bool caller_privileged(void)
{
	struct capabilities c;
	const unsigned needed = 1U << CAP_SETUID | 1U << CAP_SETGID;

	capabilities_get(&c);
	return geteuid() == 0 && (c.data[0].effective & needed) == needed;
}

/* The mask of signals in a line of /proc/PID/status. */
static uint64_t signals_of(const char *status, const char *line)
{
	const char *at = strstr(status, line);

	return at ? strtoull(at + strlen(line), NULL, 16) : 0;
}

static uint64_t signal_bit(int signal)
{
	return UINT64_C(1) << (signal - 1);
}

/*
 * A signal that ends a process makes SIGKILL pending for each of its threads;
 * one that dumps core, only once a thread takes it.
 */
bool caller_is_dying(pid_t thread)
{
	const uint64_t cores = signal_bit(SIGQUIT) | signal_bit(SIGABRT) |
			       signal_bit(SIGXCPU) | signal_bit(SIGXFSZ) |
			       signal_bit(SIGSYS) | signal_bit(SIGSEGV) |
			       signal_bit(SIGBUS) | signal_bit(SIGFPE) |
			       signal_bit(SIGILL) | signal_bit(SIGTRAP);
	char path[40], status[4096];
	uint64_t pending, kept;
	ssize_t n;

	(void)snprintf(path, sizeof(path), "/proc/%d/status", (int)thread);
	AUTO(fd) int fd = thread > 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (fd < 0)
		return false;
	n = read(fd, status, sizeof(status) - 1);
	if (n <= 0)
		return false;
	status[n] = '\0';
	pending = signals_of(status, "\nSigPnd:") |
		  signals_of(status, "\nShdPnd:");
	kept = signals_of(status, "\nSigBlk:") |
	       signals_of(status, "\nSigIgn:") |
	       signals_of(status, "\nSigCgt:");
	return (pending & signal_bit(SIGKILL)) || (pending & cores & ~kept);
}

bool caller_is_thread_of(pid_t thread, pid_t process)
{
	char path[60];

	(void)snprintf(path, sizeof(path), "/proc/%d/task/%d", (int)process,
		       (int)thread);
	return thread > 0 && access(path, F_OK) == 0;
}

void caller_own_thread(void)
{
	(void)unshare(CLONE_FS);
}

struct caller caller_assume(bool privileged, uid_t uid, gid_t gid,
			    unsigned mask, unsigned own_umask)
{
	struct caller as = {privileged && (uid || gid), own_umask};

	(void)umask(mask);
	if (as.changed) {
		struct capabilities before;

		/* The kernel takes capabilities away with user 0. */
		capabilities_get(&before);
		set_ids(uid, gid);
		(void)syscall(SYS_capset, &before.header, before.data);
	}
	return as;
}

void caller_cleanup(const struct caller *as)
{
	int saved = errno;

	(void)umask(as->own_umask);
	if (as->changed)
		set_ids(geteuid(), getegid());
	errno = saved;
}
