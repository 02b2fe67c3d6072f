#ifndef LITEBUCKET_CAPTURE_UNREAD_H
#define LITEBUCKET_CAPTURE_UNREAD_H

/*
 * What may be a database and could not be looked at
 * =================================================
 *
 * A backup that silently is none is the worst of surprises (D32).  So a file or
 * directory that the walk through the directory could not read is remembered,
 * and shown until it is gone or can be read.  Then it is taken up.
 *
 * At most UNREAD_MAX are remembered; beyond them the log has each.
 */
#include "capture/capture.h"

struct unread; /* one of them */

enum { UNREAD_MAX = 1000 };

enum unread_kind {
	UNREAD_FILE,
	UNREAD_DIRECTORY,
	UNREAD_BEYOND, /* a directory in which something lies too deep for us */
};

/*
 * error is the errno of what was tried.  Logged as well.  No lock is held.
 */
void unread_note(struct capture *c, const char *path, enum unread_kind kind,
		 int error);

/* As capture_each(), for those that still cannot be read. */
int unread_each(struct capture *c, capture_status_fn fn, void *arg);

void unread_free_all(struct capture *c);

#endif
