#ifndef LITEBUCKET_CAPTURE_PAGES_H
#define LITEBUCKET_CAPTURE_PAGES_H

/*
 * The page hashes of a database as of its last sealed batch
 * =========================================================
 *
 * A file of eight bytes per page, little-endian: entry n - 1 is ltx_dbsum of
 * page n, 0 where it is unknown.  Their sum is the position's checksum, which
 * is how a torn file is noticed.
 *
 * Read through a mapping (so a mount of a large database costs nothing until a
 * page is looked up), written with pwrite(2) (so a full disk is an error code
 * and not a signal).  Not thread-safe, but for pages_write() and pages_sync().
 */
#include <stdint.h>

#include "base/cleanup.h"

struct pages;

int pages_open(int dirfd, const char *path, struct pages **ret);

/* How many entries there are; further ones are unknown. */
uint32_t pages_count(const struct pages *p);

/* 0: unknown. */
uint64_t pages_get(const struct pages *p, uint32_t pgno);

/*
 * Write n entries from page pgno on.  What lies beyond the present count stays
 * unknown until pages_extend(), so that a thread may write while others read.
 */
int pages_write(struct pages *p, uint32_t pgno, const uint64_t *hashes,
		uint32_t n);
int pages_extend(struct pages *p);

/* Forget the entries beyond count. */
int pages_truncate(struct pages *p, uint32_t count);

/* The sum over the first count entries: the rolling checksum. */
uint64_t pages_sum(const struct pages *p, uint32_t count);

int pages_sync(struct pages *p);

/* NULL is allowed. */
void pages_free(struct pages *p);
AUTO_FREE(pages);

#endif
