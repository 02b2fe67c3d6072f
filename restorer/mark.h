#ifndef LITEBUCKET_RESTORER_MARK_H
#define LITEBUCKET_RESTORER_MARK_H

/*
 * How far a replica is
 * ====================
 *
 * A file of one record, written over in place before and after each commit:
 *
 *	store(done = N, begun = N + 1)  ->  commit  ->  store(done = N + 1)
 *
 * So whoever is killed leaves a replica in one of two states, and the checksum
 * of either beside it.  (The database cannot carry its own position: page 1
 * need not change in a commit, and a log is deleted by its last reader.)  After
 * a power loss the record may be older than the database or newer; boot tells
 * that there may have been one.
 *
 * In the file: "lbmark" and a version, the fields in little-endian, and a CRC-64
 * of all that.  Writing costs one pwrite() and no sync, but for a clean stop.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/boot.h"

/* A state: what the log's batch txid left. */
struct mark_state {
	uint64_t txid; /* 0: none */
	uint64_t dbsum;
	int64_t timestamp_ms;
	uint8_t format[2]; /* bytes 18 and 19 of its page 1 */
	bool dropped;	   /* the batch says that there is no database */
};

struct mark {
	struct mark_state done, begun;
	char boot[BOOT_ID_SIZE]; /* of the machine; "": not known */

	/* After a clean stop, what the file looked like; inode is 0 otherwise. */
	uint64_t inode, size;
	int64_t mtime_ns;
};

/* -ENOENT: nothing yet.  -ERR_CORRUPT: it cannot be read as one. */
int mark_load(int fd, struct mark *ret);
int mark_store(int fd, const struct mark *m);

#endif
