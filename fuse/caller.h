#ifndef LITEBUCKET_FUSE_CALLER_H
#define LITEBUCKET_FUSE_CALLER_H

/*
 * Who makes a request
 * ===================
 *
 * A new file belongs to whoever asked for it, from its first moment on, and
 * not to us until somebody changes that.  So a thread of a privileged daemon
 * takes on the caller's user, group and umask while it creates:
 *
 *	AUTO(caller) struct caller as = caller_assume(...);
 *	fd = openat(...);
 *
 * It keeps its capabilities, because the kernel has already decided whether
 * the caller may (default_permissions), and knows the caller's other groups,
 * which we do not.  The umask is left to the backing file system, because it
 * does not apply below a directory with a default ACL.
 */
#include <stdbool.h>
#include <sys/types.h>

struct caller {
	bool changed;
	unsigned own_umask;
};

/* privileged: caller_privileged()'s answer; own_umask: to go back to. */
struct caller caller_assume(bool privileged, uid_t uid, gid_t gid,
			    unsigned umask, unsigned own_umask);

/* Keeps errno. */
void caller_cleanup(const struct caller *as);

/* May this process create files that belong to others? */
bool caller_privileged(void);

/*
 * Is this thread of another process about to end by a signal, whatever it waits
 * for?  False where that cannot be told: 0 is one that we do not see.
 */
bool caller_is_dying(pid_t thread);

/* Is the thread that waits for our answer one of this process's? */
bool caller_is_thread_of(pid_t thread, pid_t process);

/* Give this thread a umask of its own, where the system allows. */
void caller_own_thread(void);

#endif
