#ifndef LITEBUCKET_FUSE_CONTROL_H
#define LITEBUCKET_FUSE_CONTROL_H

/*
 * How a client speaks to a running mount: ioctl(2) on a file or directory in
 * it, because that works from any container that sees the mount, also when it
 * lies over its own directory.
 *
 *	CONTROL_SYNC	on a database: returns when all that was committed
 *			before is in the bucket; text: the TXID, 16 hex digits
 *	CONTROL_STATUS	on any file or directory: text: JSON
 *	CONTROL_OURS	on a file: this descriptor is the daemon's own helper's,
 *			which proves it by a number that only the two know
 *			(D15); it does not count as open from here on
 *
 * The kernel limits an ioctl to 16 KiB less one, so a longer text comes in
 * pieces: ask with offset 0 and token 0, then with the token of the reply and
 * the offset advanced, until offset reaches total.
 *
 * control_call() is the client's side of it; it never runs in the daemon.
 */
#include <stdint.h>
#include <sys/ioctl.h>

enum { CONTROL_VERSION = 1, CONTROL_TEXT_SIZE = 8192 };

struct control_message {
	uint32_t version;
	int32_t result;	 /* out: 0, or a negative errno and text is the reason */
	uint64_t token;	 /* in, out: which reply the pieces belong to */
	uint64_t offset; /* in: of this piece */
	uint32_t total;	 /* out: size of the whole text */
	uint32_t size;	 /* out: bytes of text in this piece */
	char text[CONTROL_TEXT_SIZE];
};

#define CONTROL_SYNC   _IOWR(0x4c, 1, struct control_message)
#define CONTROL_STATUS _IOWR(0x4c, 2, struct control_message)

enum { CONTROL_NONCE_SIZE = 16 };

struct control_ours {
	uint8_t nonce[CONTROL_NONCE_SIZE];
};

/* ENOTTY: there is no such mount, or it is the wrong number. */
#define CONTROL_OURS _IOW(0x4c, 3, struct control_ours)

struct buf;

/*
 * Ask the mount that path lies in; the whole text is appended to ret.
 * -ENOTTY: not inside a litebucket mount.  -ENOTCONN: its daemon is dead.
 * Otherwise what the mount answered, with its sentence.
 */
int control_call(const char *path, unsigned long command, struct buf *ret);

#endif
