#ifndef LITEBUCKET_CAPTURE_CONTENT_H
#define LITEBUCKET_CAPTURE_CONTENT_H

/*
 * What a database holds, by its files alone
 * =========================================
 *
 * The main file with what is committed in its WAL on top, read while nobody
 * writes: at a start, before a database is served, when it has to be found out
 * which state of its log the files are.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "capture/pgmap.h"
#include "sqlite/wal.h"

struct content {
	int main_fd, wal_fd;	/* wal_fd is -1 where there is no WAL */
	uint32_t page_size, commit;
	uint32_t change_counter;
	struct wal_cursor wal;	/* behind the last commit; frames 0: none */
	struct pgmap wal_index; /* page -> latest committed frame + 1 */

	/* After content_sum(): of page n at [n - 1]. */
	uint64_t *hashes;
	uint64_t dbsum;
};

/* -ENOENT; -ERR_NO_DATABASE (capture/capture.h): it is something else. */
int content_open(int dirfd, const char *path, struct content *ret);

/* Hash every page: 8 bytes of memory for each.  -ECANCELED: *cancel. */
int content_sum(struct content *c, const atomic_bool *cancel);

void content_cleanup(struct content *c);

#endif
