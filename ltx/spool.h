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
 * A batch in the spool is complete, on disk, and never changes again.  It
 * leaves only when its fate in the bucket is known, because its bytes may be
 * on their way (a put that was sent can land much later).
 *
 * Sealing:	spool_begin  ->  write to the descriptor  ->  spool_publish
 *
 * or, for who has a complete file already, spool_adopt.
 *
 * A crash before spool_publish leaves a *.tmp that the next spool_open removes.
 *
 * Threads: one writer (begin, publish) and one reader (list, open, remove) at
 * the same time.  Descriptors and paths are below the directory's descriptor,
 * which is the spool's own.
 */
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct spool;

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
 * TXIDs in ascending order; the array is the caller's to free.  Other names
 * in the directory are not touched and not listed.
 */
int spool_list(struct spool *s, uint64_t **ret_txids, size_t *ret_n);

/* The lowest and highest TXID; both 0 when the spool is empty. */
int spool_range(struct spool *s, uint64_t *ret_first, uint64_t *ret_last);

/* Read-only.  -ENOENT. */
int spool_open_batch(struct spool *s, uint64_t txid, int *ret_fd);

/* -ENOENT is not an error: removed is removed. */
int spool_remove(struct spool *s, uint64_t txid);

/* Bytes of all batches, for status. */
int spool_size(struct spool *s, uint64_t *ret_bytes, size_t *ret_n);

/* NULL is allowed. */
void spool_free(struct spool *s);
AUTO_FREE(spool);

#endif
