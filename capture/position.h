#ifndef LITEBUCKET_CAPTURE_POSITION_H
#define LITEBUCKET_CAPTURE_POSITION_H

/*
 * How far a database has been sealed
 * ==================================
 *
 * A small text file of key=value lines, replaced atomically and synced with
 * each sealed batch, before the batch may be sent: a TXID that was ever sent
 * is never given to other pages.
 *
 * clean names the run that capture last stopped in order (capture_close()); if
 * that was the last run, and the files still look the same, nothing has to be
 * compared (D20).
 */
#include <stdbool.h>
#include <stdint.h>

struct position {
	uint64_t txid;		/* the last sealed; 0: none yet */
	uint64_t dbsum;		/* rolling checksum after it */
	uint32_t page_size;	/* 0: no database (never, or dropped) */
	uint32_t commit;
	int64_t timestamp_ms;	/* of the batch */
	bool dropped;
	uint64_t clean;		/* 0: sealed since */
	uint64_t main_size, wal_size;
	int64_t main_mtime_ns, main_ctime_ns, wal_mtime_ns;
};

/* -ENOENT: there is none.  -ERR_CORRUPT: it cannot be read as one. */
int position_load(int dirfd, const char *path, struct position *ret);

int position_store(int dirfd, const char *path, const struct position *p);

#endif
