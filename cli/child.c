#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"

#include "cli/child.h"

static int prepare(posix_spawn_file_actions_t *actions, int fd)
{
	int rc = posix_spawn_file_actions_addopen(actions, 0, "/dev/null",
						  O_RDONLY, 0);

	if (rc == 0)
		rc = posix_spawn_file_actions_adddup2(actions, fd,
						      CHILD_SOCKET);
	if (rc == 0)
		rc = posix_spawn_file_actions_addclosefrom_np(
			actions, CHILD_SOCKET + 1);
	return rc;
}

static int spawn(char *const argv[], char *const environment[], int fd,
		 pid_t *ret_pid)
{
	posix_spawn_file_actions_t actions;
	int rc = posix_spawn_file_actions_init(&actions);

	if (rc == 0)
		rc = prepare(&actions, fd);
	if (rc == 0)
		rc = posix_spawn(ret_pid, "/proc/self/exe", &actions, NULL,
				 argv, environment);
	(void)posix_spawn_file_actions_destroy(&actions);
	return rc ? error_set(-rc, "starting a process ('%s'): %s", argv[1],
			      strerror(rc)) :
		    0;
}

int child_start(char *const argv[], char *const environment[], pid_t *ret_pid,
		int *ret_fd)
{
	int fds[2], rc;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
		return error_errno("making a socket for a process");
	rc = spawn(argv, environment, fds[1], ret_pid);
	(void)close(fds[1]);
	if (rc < 0) {
		(void)close(fds[0]);
		return rc;
	}
	*ret_fd = fds[0];
	return 0;
}

void child_wait(pid_t pid)
{
	siginfo_t info;

	while (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) < 0 &&
	       errno == EINTR)
		;
}
