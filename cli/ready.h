#ifndef LITEBUCKET_CLI_READY_H
#define LITEBUCKET_CLI_READY_H

/*
 * Telling whoever started us that the mount can be used: a datagram to systemd
 * (NOTIFY_SOCKET; Type=notify), a line on a descriptor for everybody else.
 * Nobody listening is no error.
 */

/* READY=1; "ready" on fd, which is then closed.  -1: no descriptor. */
void ready_announce(int fd);

/* STOPPING=1, for systemd. */
void ready_withdraw(void);

#endif
