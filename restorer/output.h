#ifndef LITEBUCKET_RESTORER_OUTPUT_H
#define LITEBUCKET_RESTORER_OUTPUT_H

/*
 * The file that is being made
 * ===========================
 *
 *	output_open  ->  write to fd  ->  output_commit  ->  output_free
 *
 * Everything goes into a temporary file beside the target, so that the target
 * is what it was before until output_commit() makes it the new one in one
 * step.  output_free() without a commit leaves no trace.
 *
 * A -wal, -journal or -shm that belonged to the old database would be played
 * into the new one by the next SQLite that opens it: data of two databases in
 * one file.  So they get out of the way first, and are deleted only once the
 * new file is in place; until then they go back when something fails.
 */
#include <stdbool.h>
#include <limits.h>

#include "base/cleanup.h"

struct output {
	int fd;		/* the temporary file, readable and writable */
	int dirfd;	/* where it is */
	bool force;	/* replace what exists */
	char *path;	/* as given, for messages */
	char name[NAME_MAX + 1];
	char temporary[NAME_MAX + 1]; /* "" once it is in place */
};

/*
 * -EEXIST: there is something and force is not set.  -EBUSY: SQLite has locks
 * on it; output_commit() finds that out as well.  -EPERM: it belongs to
 * somebody else, whose we cannot make the new file.  -ENOTDIR: there is no such
 * directory.
 */
int output_open(const char *path, bool force, struct output **ret);

/* An empty file without a name beside the output, gone once it is closed. */
int output_scratch(struct output *o, int *ret_fd);

/* The content is complete: make it durable and put it in place. */
int output_commit(struct output *o);

/* NULL is allowed. */
void output_free(struct output *o);
AUTO_FREE(output);

#endif
