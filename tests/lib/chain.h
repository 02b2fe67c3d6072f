#ifndef LITEBUCKET_TESTS_LIB_CHAIN_H
#define LITEBUCKET_TESTS_LIB_CHAIN_H

/*
 * A judge of captured batches
 * ===========================
 *
 * Lays the batches of a spool over each other, as a restore would, checking
 * each one's binding to the one before (TXID, checksums, growth); and makes
 * what SQLite itself says is committed, to compare with.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct spool;

struct chain {
	uint8_t *image; /* the database after txid */
	uint32_t page_size, commit;
	uint64_t txid;
	uint64_t dbsum;
	bool dropped;
};

/* Apply the batches of the spool above chain->txid; false with a printed reason. */
bool chain_follow(struct chain *chain, struct spool *spool);
void chain_clear(struct chain *chain);

/* Apply the next one, from a file. */
bool chain_apply(struct chain *chain, uint64_t txid, int fd);

/*
 * Is the chain's image what SQLite reads in the database at path?  The file,
 * its WAL, and its journal are copied, and the copy is opened with SQLite and
 * checkpointed.
 */
bool chain_equals(const struct chain *chain, const char *path);

/*
 * The same in the middle of anything: what the free list has given away does
 * not count (a rollback does not restore it), nor what lies beyond the size
 * that page 1 tells (SQLite cuts that off later).
 */
bool chain_equals_meanwhile(const struct chain *chain, const char *path);

#endif
