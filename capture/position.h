#ifndef LITEBUCKET_CAPTURE_POSITION_H
#define LITEBUCKET_CAPTURE_POSITION_H

/*
 * How far a database has been sealed
 * ==================================
 *
 * A small text file of key=value lines, replaced atomically and synced with
 * each sealed batch, before the batch may be sent: a TXID that was ever sent
 * is never given to other pages.  It goes back only over batches that never
 * were (D19).
 *
 * known differs from dbsum while the hashes of some pages are unknown.
 *
 * clean names the run that capture last stopped in order (capture_close()); if
 * that was the last run, and the files still look the same, nothing has to be
 * compared (D20).
 *
 * boot, change_counter and the WAL's place tell after a power loss whether the
 * files are older than the batch (D20).  Files of earlier versions lack them,
 * and say nothing about it.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/boot.h"

struct position {
	uint64_t txid;		/* the last sealed; 0: none yet */
	uint64_t dbsum;		/* rolling checksum after it */
	uint32_t page_size;	/* 0: no database (never, or dropped) */
	uint32_t commit;
	int64_t timestamp_ms;	/* of the batch */
	bool dropped;
	uint64_t known;		/* sum of the page hashes that are on disk */
	uint64_t clean;		/* 0: sealed since */
	uint64_t main_size, wal_size;
	int64_t main_mtime_ns, main_ctime_ns, wal_mtime_ns;

	char boot[BOOT_ID_SIZE]; /* of the machine; "": not known */
	uint32_t change_counter; /* in page 1, as of the batch; 0: not known */
	uint32_t wal_salt[2];	 /* of the WAL that it ended in, */
	uint64_t wal_end;	 /* and where; 0: there was no WAL */
};

/* -ENOENT: there is none.  -ERR_CORRUPT: it cannot be read as one. */
int position_load(int dirfd, const char *path, struct position *ret);

int position_store(int dirfd, const char *path, const struct position *p);

#endif
