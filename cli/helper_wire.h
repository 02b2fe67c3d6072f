#ifndef LITEBUCKET_CLI_HELPER_WIRE_H
#define LITEBUCKET_CLI_HELPER_WIRE_H

/*
 * What daemon and helper say to each other: one request, one reply, each a
 * packet.  Both are the same program, so the bytes need no version.
 */
#include <stdint.h>

#include "fuse/control.h"

enum helper_kind {
	HELPER_WRITER = 1, /* helper_ask_writer() */
	HELPER_PLAY,	   /* helper_play() */
};

struct helper_request {
	uint64_t number; /* the reply repeats it: an old one is no answer */
	uint32_t kind;
	uint32_t as_owner;
	uint64_t pending_byte;
	uint8_t nonce[CONTROL_NONCE_SIZE];
	char mountpoint[4096];
	char path[4096]; /* absolute; below mountpoint */
};

struct helper_reply {
	uint64_t number;
	int32_t result;
	char text[512]; /* the sentence of a negative result */
};

#endif
