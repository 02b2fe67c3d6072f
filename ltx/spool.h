#ifndef LITEBUCKET_LTX_SPOOL_H
#define LITEBUCKET_LTX_SPOOL_H

/*
 * The spool: what was sealed and is not yet known to be in the bucket
 * ===================================================================
 *
 * A directory of one database's batches, <txid>-<txid>.ltx, which capture
 * fills and the uploader empties.  It is all they share: capture never knows
 * of the bucket, the uploader never of SQLite.
 *
 * A batch in the spool is complete and on disk.  Once it may have been sent it
 * never changes again, and leaves only when its fate in the bucket is known,
 * because its bytes may be on their way (a put that was sent can land much
 * later).  What was certainly never sent can be replaced (D19), and its TXIDs
 * given again.  Which is which the two sides agree upon here:
 *
 *	spool_claim	the uploader's, before a batch is sent: from here on it
 *			and all before it stay as they are.  The first batch
 *			that is found at the start counts as claimed, since an
 *			earlier process may have sent it; no other was (R3).
 *	spool_bar	capture's, before a batch is replaced or removed: from
 *			here on it cannot be claimed, until spool_unbar.
 *
 * Neither waits; who comes second gets -EBUSY.
 *
 * Sealing:	spool_begin  ->  write to the descriptor  ->  spool_publish
 *
 * or, for who has a complete file already, spool_adopt.
 *
 * A crash before spool_publish leaves a *.tmp that the next spool_open removes.
 *
 * Threads: one writer (begin, publish, adopt, cut) and one reader (list, open,
 * claim, remove) at the same time; sizes and claims may be asked for by anybody.
 * Descriptors and paths are below the directory's descriptor, which is the
 * spool's own.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct spool;

/*
 * What the spools of one mount may hold together, and do.  A batch that comes
 * into an empty spool counts for half of it at most: a database that is larger
 * has to begin somehow, and not to keep the others from going on.
 */
struct spool_budget {
	uint64_t max; /* bytes; 0: as much as the disk has */
	atomic_uint_least64_t used;
};

/* What a batch of this size would count now.  The spool has joined one. */
uint64_t spool_cost(struct spool *s, uint64_t size);

/* Open, and create if need be, the directory path below dirfd. */
int spool_open(int dirfd, const char *path, struct spool **ret);

/* A new, empty, writable file for batch txid; replaces an unpublished one. */
int spool_begin(struct spool *s, uint64_t txid, int *ret_fd);

/*
 * Make the file durable and visible under its name.  fd is closed in any
 * case.  -EEXIST: the batch is there already.
 */
int spool_publish(struct spool *s, uint64_t txid, int fd);

/*
 * Take a file that is complete and synced, name in dirfd (of the same file
 * system), into the spool as batch txid.  Durable when it returns.  -EEXIST:
 * another batch has that TXID; the same bytes are what an interrupted call left.
 */
int spool_adopt(struct spool *s, int dirfd, const char *name, uint64_t txid);

/*
 * As spool_adopt, in the place of batch txid and of all after it.  A crash
 * leaves the file where it was, or in its place and no other there.
 */
int spool_supersede(struct spool *s, int dirfd, const char *name,
		    uint64_t txid);

/* Remove all batches after txid, durably. */
int spool_cut(struct spool *s, uint64_t txid);

/*
 * TXIDs in ascending order; the array is the caller's to free.  Other names
 * in the directory are not touched and not listed, nor are kept batches.
 */
int spool_list(struct spool *s, uint64_t **ret_txids, size_t *ret_n);

/* The lowest and highest TXID; both 0 when the spool is empty. */
int spool_range(struct spool *s, uint64_t *ret_first, uint64_t *ret_last);

/* Read-only.  -ENOENT. */
int spool_open_batch(struct spool *s, uint64_t txid, int *ret_fd);

/*
 * As spool_open_batch, to be sent.  -EBUSY: it is being replaced; the writer
 * has to come to the end of that first.
 */
int spool_claim(struct spool *s, uint64_t txid, int *ret_fd);

/* Is this batch one that may have been sent? */
bool spool_is_claimed(struct spool *s, uint64_t txid);

/*
 * Keep txid and all after it from being claimed.  -EBUSY: it is claimed.
 * Unbar, if it is barred.
 */
int spool_bar(struct spool *s, uint64_t txid);
void spool_unbar(struct spool *s);

/*
 * Durably, so that the first batch after a power loss is the one that may have
 * been sent last.  -ENOENT is not an error: removed is removed.
 */
int spool_remove(struct spool *s, uint64_t txid);

/*
 * A batch that is in the bucket, and whose bytes are wanted once more: out of
 * the way of those that are not, durably.  Then the lowest that is kept (0:
 * none), its bytes, and its end.
 */
int spool_keep(struct spool *s, uint64_t txid);
int spool_kept(struct spool *s, uint64_t *ret_txid);
int spool_open_kept(struct spool *s, uint64_t txid, int *ret_fd);
int spool_remove_kept(struct spool *s, uint64_t txid);

/*
 * Count this spool's batches in a budget, which must outlive it; not those
 * that are kept.
 */
int spool_join(struct spool *s, struct spool_budget *budget);

/* Bytes of all batches, kept ones too, for status. */
int spool_size(struct spool *s, uint64_t *ret_bytes, size_t *ret_n);

/* NULL is allowed. */
void spool_free(struct spool *s);
AUTO_FREE(spool);

#endif
