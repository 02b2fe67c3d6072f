#ifndef LITEBUCKET_CLI_LIVES_H
#define LITEBUCKET_CLI_LIVES_H

/*
 * .litebucket/lease: who this directory has been
 * ==============================================
 *
 *	6a7b3c1e-0d4f-4b4e-9a53-0a1b2c3d4e5f 65025 2752522	the boot; this file's
 *							device and inode
 *	9f8e7d6c5b4a3921 7 closed
 *	1a2b3c4d5e6f7a8b 7 open
 *
 * A line behind the first is a life: one process that held the lease of the
 * bucket, or was about to take it (bucket/lease.h).  It is over as soon as
 * another process has the directory, whatever lock.json says, so its lease need
 * not expire first.
 *
 *   1. The new life is noted before it takes the lease, so that one that was
 *      killed directly afterwards is known; and again once its epoch is.
 *   2. closed: every log was closed for older epochs, by this life or by those
 *      before it.  What it sent since then waits in the spools of this directory
 *      as long as its fate is not known (R12), so who comes next in the same
 *      directory needs no barrier against it: whatever arrives late has the
 *      bytes that this one sends as well.
 *   3. No epoch in the spools is above those in here.
 *   4. 1 and 2 hold for the directory itself, and not for a copy of it, whose
 *      original may be alive, nor for an older state that was put back, whose
 *      spools lack what was sent since.  A copy has another inode, one of the
 *      disk's blocks another device, and what survives a restart of the machine
 *      another boot: then there are no former lives, and only the epochs count.
 *
 * A file that makes no sense is none: the lease then has to expire, and every
 * log gets a barrier.
 */
#include <stdbool.h>
#include <stdint.h>

#include "bucket/lease.h"

struct life {
	char holder[LEASE_HOLDER_SIZE]; /* "": none */
	uint32_t epoch;			/* 0: never had one, as far as known */
	bool closed;
};

/*
 * Those that are over for certain, at most LEASE_FORMERS, the last one first;
 * and the greatest epoch of all that are noted.  An error: it cannot be read.
 */
int lives_read(int dirfd, struct life ret[LEASE_FORMERS], uint32_t *ret_epoch);
int lives_write(int dirfd, const struct life lives[LEASE_FORMERS]);

#endif
