#ifndef LITEBUCKET_CLI_STANDBY_WIRE_H
#define LITEBUCKET_CLI_STANDBY_WIRE_H

/* What daemon and follower of a standby say to each other, each a packet. */
#include <stdint.h>

/* The descriptor of the follower's end; at its end it stops. */
enum { STANDBY_SOCKET = 3 };

enum standby_word {
	STANDBY_READY = 1, /* the follower's: number is that of its databases */
	STANDBY_HAND_OVER, /* the daemon's */
};

struct standby_packet {
	uint32_t word;
	uint32_t number;
};

#endif
