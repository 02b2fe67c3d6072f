#ifndef LITEBUCKET_CLI_HELPER_H
#define LITEBUCKET_CLI_HELPER_H

/*
 * What must be a client of our own mount
 * ======================================
 *
 * A thread of the daemon that opened a file through the daemon's own mount
 * would wait for itself, for ever if the daemon is killed meanwhile (D14).  So
 * a process of its own does that (D15): this program again, as
 * "litebucket helper", which knows nothing but a socket to the daemon, does one
 * request at a time, and ends when the socket does.
 *
 * It is started by exec, and with every descriptor but that socket closed: if
 * it held /dev/fuse, a killed daemon's mount would not be dead but hang.
 *
 * The daemon never waits for it without a limit, and never in the loop thread,
 * which the helper itself may be waiting for.  When it dies, another is
 * started; what it was asked meanwhile cannot be told.
 *
 * Threads: any but the mount's loop.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "fuse/control.h"

/* Verbs that nobody types: this one, and that of capture_config.player. */
#define HELPER_VERB "helper"
#define PLAYER_VERB "play-journal"

struct helper;

struct helper_config {
	const char *mountpoint; /* absolute; stays the caller's */

	/* Files' owners can use the mount, so what is theirs is done as them. */
	bool as_owner;

	/* Where SQLite's lock bytes are; its own tests move them (D39). */
	uint64_t pending_byte;
};

enum { HELPER_PENDING_BYTE = 0x40000000 };

/* It may take a while until the process is there. */
int helper_new(const struct helper_config *config, struct helper **ret);

/* Ends the process, soon, and every call.  NULL is allowed, as below. */
void helper_stop(struct helper *h);
void helper_free(struct helper *h);
AUTO_FREE(helper);

/* What proves to the mount that a descriptor is the helper's. */
const uint8_t *helper_nonce(const struct helper *h);

/*
 * Does anybody hold RESERVED or more on the database at path (below the
 * mount)?  1: yes.  0: not at one moment of this call.  Negative: it cannot be
 * told.
 */
int helper_ask_writer(struct helper *h, const char *path);

/*
 * Open the database at path with SQLite, which plays back a hot journal.  Only
 * if that names a super-journal that lies in the mount, too: then nothing else
 * is needed to tell whether the transaction was committed.  1: it does not.
 */
int helper_play(struct helper *h, const char *path, int64_t timeout_ms);

/* The helper's own main(); descriptor 3 is the socket.  Returns its status. */
int helper_main(void);

#endif
