#ifndef LITEBUCKET_CAPTURE_BATCH_H
#define LITEBUCKET_CAPTURE_BATCH_H

/*
 * An open batch: pages that were committed since the last one was sealed
 * ======================================================================
 *
 * Each page once, as of its latest commit, with its hash; and the database's
 * size.  Small batches live in memory, what exceeds BATCH_MEMORY in an unnamed
 * file of the state directory.
 *
 * A batch is lost when the process dies.  That loses nothing: the page hashes
 * on disk are as of the last sealed batch, so comparing finds its pages again.
 *
 * Not thread-safe; a batch that nobody changes any more may be read by any
 * number of threads.
 */
#include <stdbool.h>
#include <stdint.h>

#include "capture/pgmap.h"
#include "sqlite/wal.h"

enum { BATCH_MEMORY = 1 << 20 };

struct batch {
	int dirfd;		/* where the unnamed file goes; the owner's */
	int fd;			/* -1 until it is needed */
	uint32_t page_size;
	uint32_t commit;	/* size in pages now */
	uint32_t low_commit;	/* the smallest it has been since the beginning */
	bool changed;		/* there is something to seal */
	uint64_t dbsum;		/* when it was closed: of the whole database */
	struct wal_cursor wal;	/* when it was closed: captured up to here */
	struct pgmap map;	/* page -> slot + 1 */
	uint64_t *hashes;	/* by slot */
	uint32_t slots, capacity;
	uint8_t *memory;	/* of the first slots */
	uint32_t memory_slots;	/* how many it holds at most */
};

/* A batch for a database of this page size and of commit pages so far. */
int batch_new(int dirfd, uint32_t page_size, uint32_t commit,
	      struct batch **ret);

/* NULL is allowed. */
void batch_free(struct batch *b);

/* Add or replace a page.  On failure the batch lacks it. */
int batch_put(struct batch *b, uint32_t pgno, const void *page, uint64_t hash);

/* Its hash, or false. */
bool batch_find(const struct batch *b, uint32_t pgno, uint64_t *ret_hash);

/* Its content. */
int batch_read(const struct batch *b, uint32_t pgno, void *ret_page);

/* The database is now of this size; pages beyond it are dropped. */
void batch_resize(struct batch *b, uint32_t commit);

#endif
