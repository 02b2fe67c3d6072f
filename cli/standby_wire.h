#ifndef LITEBUCKET_CLI_STANDBY_WIRE_H
#define LITEBUCKET_CLI_STANDBY_WIRE_H

/*
 * What daemon and follower of a standby say to each other, each a packet; at the end
 * of the socket the follower stops.
 */
#include <stdint.h>

enum standby_word {
	STANDBY_READY = 1, /* the follower's: number is that of its databases */
	STANDBY_HAND_OVER, /* the daemon's */
};

struct standby_packet {
	uint32_t word;
	uint32_t number;
};

#endif
