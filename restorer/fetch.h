#ifndef LITEBUCKET_RESTORER_FETCH_H
#define LITEBUCKET_RESTORER_FETCH_H

/*
 * Getting the planned files, several at a time, ahead of their use
 * ================================================================
 *
 *	fetch_start  ->  fetch_next until it returns 0  ->  fetch_free
 *
 * Threads fetch and verify the files of a plan; the caller gets them in the
 * plan's order.  A file has been read to its end and all its checksums hold
 * before fetch_next() gives it out.
 *
 * Bounded: at most parallel files are under way or waiting for the caller,
 * each in memory if it is small (FETCH_MEMORY_MAX), else in a file without a
 * name beside the output.
 *
 * The functions are for one thread, that of the caller.
 */
#include <signal.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/stream.h"
#include "bucket/archive.h"

struct fetch;
struct ltx_header;
struct output;

enum { FETCH_MEMORY_MAX = 1 << 20 };

/* One file, verified. */
struct fetched {
	struct archive_file file;
	char key[BUCKET_KEY_MAX];
	struct buf memory; /* the content, when fd is -1 */
	int fd;
};
void fetched_cleanup(struct fetched *item);

/* Reading it from the beginning. */
struct fetched_source {
	union {
		struct mem_source mem;
		struct fd_source fd;
	};
};
struct source *fetched_open(const struct fetched *item,
			    struct fetched_source *s);

/*
 * Is it the header of the file that was asked for, and of a kind that can be
 * applied?  -ERR_CORRUPT, -EOPNOTSUPP.
 */
int fetched_check(const struct fetched *item, const struct ltx_header *header);

struct fetch_config {
	struct bucket *bucket;
	const char *db;
	struct output *scratch; /* where large files go */
	unsigned parallel;
	const volatile sig_atomic_t *cancel; /* or NULL */
	void (*progress)(uint64_t bytes, void *arg); /* or NULL */
	void *progress_arg;
};

/* plan and what config points to must outlive the result. */
int fetch_start(const struct fetch_config *config,
		const struct archive_file *plan, size_t n,
		struct fetch **ret);

/*
 * The next file of the plan.  1: there was one, which is the caller's; 0: that
 * was all.  While it waits it calls progress.
 *
 * -ESTALE: a file is gone that was listed.  -ERR_CORRUPT: the sentence names
 * the object.  -EOPNOTSUPP, -ECANCELED, and what the bucket gives.
 */
int fetch_next(struct fetch *f, struct fetched *ret);

/* Bytes received so far. */
uint64_t fetch_bytes(struct fetch *f);

/* Stop what is under way.  NULL is allowed. */
void fetch_free(struct fetch *f);
AUTO_FREE(fetch);

#endif
