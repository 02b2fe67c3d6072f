#ifndef LITEBUCKET_FUSE_CONTROLS_H
#define LITEBUCKET_FUSE_CONTROLS_H

/*
 * The daemon's side of fuse/control.h: requests under way, each in a thread of
 * its own because it may wait for the bucket, and texts of which a client has
 * not yet fetched all pieces.
 *
 * A client that is interrupted gets -EINTR at once; the work then goes on, and
 * its result is dropped.
 */
#include <pthread.h>
#include <stdint.h>

struct control_call;
struct control_text;

enum {
	CONTROLS_LIMIT = 64,	       /* calls at the same time */
	CONTROLS_TEXTS = 8,	       /* texts kept; the oldest goes first */
	CONTROLS_TEXT_LIMIT = 16 << 20 /* bytes of one */
};

struct controls {
	pthread_mutex_t lock;
	pthread_cond_t changed; /* a call was answered, or has ended */

	/* Guarded by lock. */
	struct control_call *calls;
	unsigned calls_count;
	unsigned answering;	    /* replies that are just being written */
	struct control_text *texts; /* the newest first */
};

int controls_init(struct controls *c);

/*
 * Answer every waiting client with -ESHUTDOWN, because the mount ends.  Calls
 * may go on, but none replies after this.
 */
void controls_dismiss(struct controls *c);

/* Waits until the last call has returned. */
void controls_cleanup(struct controls *c);

#endif
