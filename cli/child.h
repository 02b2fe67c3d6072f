#ifndef LITEBUCKET_CLI_CHILD_H
#define LITEBUCKET_CLI_CHILD_H

/*
 * A process of ours that is a client of our own mount: this program again, with a
 * socket and nothing else.  If it held /dev/fuse, a killed daemon's mount would not be
 * dead but hang (D15).
 */
#include <sys/types.h>

/* The descriptor of its end of the socket. */
enum { CHILD_SOCKET = 3 };

/*
 * Start it.  ret_fd is our end, of packets; close it once the process is reaped.  A
 * process that asks to be killed with its parent is, with the thread that calls this.
 */
int child_start(char *const argv[], char *const environment[], pid_t *ret_pid,
		int *ret_fd);

/* Wait until it has ended, and leave its pid its own until it is reaped. */
void child_wait(pid_t pid);

#endif
