#ifndef LITEBUCKET_SQLITE_SHM_H
#define LITEBUCKET_SQLITE_SHM_H

/*
 * The wal-index: what SQLite's connections share, NAME-shm
 * ========================================================
 *
 * (sqlite.org/walformat.html, section 2; integers in this machine's order)
 *
 *	  0 header, copy 0	 48 header, copy 1
 *	 96 backfilled frames	100 read marks 0..4	120 lock bytes
 *	128 frames tried to backfill
 *	136 page numbers of frames 1..4062, and at 16384 their hash table
 *	32768, 65536, ... page numbers of 4096 frames each and their hash table
 *
 * Locks are byte ranges of the file.  We take them as open file description
 * locks (F_OFD_SETLK), which conflict with SQLite's own as if another process
 * held them, and which no close() of another descriptor takes away:
 *
 *	120 write   121 checkpoint   122 recover   123..127 read 0..4
 *	128 "dead man's switch": shared by everyone who has the file open; who
 *	    finds it free is first, and empties the file
 *
 * A shm is used by one thread.  Nothing here blocks: a lock that is held by
 * another gives -EAGAIN, without a sentence.
 */
#include <stdbool.h>
#include <stdint.h>

enum shm_lock {
	SHM_WRITE = 0,
	SHM_CHECKPOINT = 1,
	SHM_RECOVER = 2,
	SHM_READ_0 = 3, /* of who reads the database file only */
	SHM_READ_1 = 4,
	SHM_SWITCH = 8,
};

enum {
	SHM_READERS = 5,
	SHM_HEADER_SIZE = 48,
	SHM_MARK_UNUSED = -1, /* as uint32_t */
};

/* As it is in the file, both times. */
struct shm_header {
	uint32_t version, unused;
	uint32_t change; /* counts commits */
	uint8_t is_init;
	uint8_t big_endian; /* order of the log's checksums */
	uint16_t page_size; /* 65536 as 1 */
	uint32_t frames;    /* the last committed one */
	uint32_t pages;     /* of the database then */
	uint32_t frame_checksum[2];
	uint8_t salt[8]; /* as in the log's header */
	uint32_t checksum[2];
};

struct shm;

/*
 * Share the file's use, and empty it if nobody else does.  fd, opened to read
 * and write, is the shm's from now on, also on failure.  -EAGAIN: somebody is
 * about to do the same; try again.
 */
int shm_new(int fd, struct shm **ret);

/* Gives back all locks. */
void shm_free(struct shm *s);
int shm_fd(const struct shm *s);

/* Take n lock bytes for oneself, or give them back. */
int shm_lock(struct shm *s, enum shm_lock first, unsigned n);
void shm_unlock(struct shm *s, enum shm_lock first, unsigned n);
/* Is there a lock of another's on this byte?  Best effort, for people. */
bool shm_is_locked(struct shm *s, enum shm_lock byte);

/* Is there one header, twice, that readers would accept? */
bool shm_read_header(const struct shm *s, struct shm_header *ret);

/*
 * Make this the header: the moment at which readers see a commit.  Copy 1,
 * then copy 0: a reader takes the second it sees as proof of the first.  Sets
 * version, is_init and checksum itself.  Cannot block nor fail between them.
 */
void shm_publish(struct shm *s, struct shm_header *header);

uint32_t shm_backfilled(const struct shm *s);
void shm_set_backfilled(struct shm *s, uint32_t frames);
void shm_set_attempted(struct shm *s, uint32_t frames);
uint32_t shm_mark(const struct shm *s, unsigned reader);
void shm_set_mark(struct shm *s, unsigned reader, uint32_t frame);

/* Everything written before is seen before anything written after. */
void shm_barrier(void);

/*
 * The index proper.  Frames count from 1.  Room is made first, so that what
 * follows cannot fail (a full disk would be a SIGBUS); then frames are added
 * in order, the first behind the last committed one, whatever a killed writer
 * left there.
 */
int shm_reserve(struct shm *s, uint32_t frames);
void shm_add(struct shm *s, uint32_t frame, uint32_t pgno);

/* All of it anew, block by block.  Room must have been made. */
int shm_rebuild(struct shm *s, const uint32_t *pgnos, uint32_t frames);

/* The page in a frame; and the newest frame up to last with a page, or 0. */
uint32_t shm_page(const struct shm *s, uint32_t frame);
uint32_t shm_find(const struct shm *s, uint32_t pgno, uint32_t last);

#include "base/cleanup.h"
AUTO_FREE(shm);

#endif
