#ifndef LITEBUCKET_SQLITE_REPLICA_PARTS_H
#define LITEBUCKET_SQLITE_REPLICA_PARTS_H

/* What the files of the replica share; replica.h has the invariants. */
#include "sqlite/replica.h"
#include "sqlite/shm.h"
#include "sqlite/wal.h"

/* A commit under way: everything but its last page is in the log. */
struct replica_stage {
	bool active, failed, prepared;
	uint32_t page_size, pages;
	struct wal_cursor end; /* behind what is written */
	struct wal_pgnos pgnos; /* of the frames written, and of the last page */
	uint32_t grown;	   /* how many are behind the old end */
	uint8_t *frame;	   /* the last page, with room for its header */
	uint64_t sum;
	uint8_t format[2];
};

struct replica {
	char *path;
	int dirfd, db, wal;
	struct shm *shm;
	struct replica_options options;
	struct wal_cursor end; /* of what is committed; frames are the index's */
	uint32_t page_size, pages;
	uint32_t change, checkpoint;
	bool sum_known;
	uint64_t sum;
	uint8_t format[2];
	struct replica_stage stage;
	int64_t next_try; /* monotonic ms, at which a held log is tried again */
	bool held_back;
};

/* Bytes 18 and 19 of a replica's page 1. */
enum { REPLICA_VERSIONS = 18, REPLICA_WRITE = 3, REPLICA_READ = 2 };

/*
 * A reader that may not write the index has to find a mark that is not behind the
 * header it has read, or gets SQLITE_READONLY_CANTINIT.  That header may be an
 * older one by the time it looks for the mark.  So the last mark is zero while
 * nobody uses it: then such a reader sees that the header has changed, and begins
 * again.
 */
enum { REPLICA_LOW_MARK = SHM_READERS - 1 };

static inline uint32_t replica_idle_mark(unsigned i)
{
	return i == REPLICA_LOW_MARK ? 0 : (uint32_t)SHM_MARK_UNUSED;
}

uint32_t replica_lock_page(uint32_t page_size);
void replica_publish(struct replica *r);
/* The hashes of committed pages, as they are in the bucket, added up. */
int replica_sum_pages(const struct replica *r, uint32_t first, uint32_t last,
		      const uint8_t format[2], uint64_t *ret);

/* A commit of page 1 with these bytes, and nothing else; synced. */
int replica_commit_format(struct replica *r, const uint8_t format[2]);

/* 1: all frames are in the database; 0: readers are in the way. */
int replica_checkpoint(struct replica *r);
/* 1: the log is empty; 0: readers are in the way. */
int replica_reset(struct replica *r);
/* Checkpoint and reset, again and again until wait_ms are over. */
int replica_empty_log(struct replica *r, unsigned wait_ms);

#endif
