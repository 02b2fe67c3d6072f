#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

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
