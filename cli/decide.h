#ifndef LITEBUCKET_CLI_DECIDE_H
#define LITEBUCKET_CLI_DECIDE_H

/*
 * Which state of its log is a database?  (D12, D20)
 * =================================================
 *
 * At the start, before a database is served, what is in the directory, what
 * .litebucket knows of it and what the bucket has are brought together:
 *
 *	position	files		bucket		then
 *	--------------------------------------------------------------------
 *	any		older (power)	-		rolled forward to position
 *	none		-		no such name	a new log begins
 *	there		-		nothing newer	goes on
 *	none, or older	as the head	newer		adopted: goes on behind it
 *	  than the	as an older one	newer		rolled forward to the head
 *	  bucket's head				(adopt local: goes on with it)
 *			something else	newer, by	set aside as diverged, and
 *					  another	rolled forward to the head,
 *					  epoch		unless adopt says local
 *			something else	newer		closed, unless adopt says
 *	-		-		head is a drop	goes on behind it, all pages
 *	-		-		no answer	served; the slots fence
 *
 * Nothing is overwritten that exists only once: what goes is kept in
 * .litebucket/aside (capture_replace()).
 *
 *	decider_new -> decider_hold (by capture_open) -> decider_start
 *		    -> decider_free
 *
 * A database is held from decider_hold() on, with the gate pending, and decided
 * by one of a few threads: so a large one does not keep others waiting.  The
 * bucket is asked twice or so for each, for ten seconds at most; one that then
 * did not answer is not asked about the others for a while.  A database that is
 * rolled forward is fetched, however long that takes.
 */
#include <stdbool.h>

#include "base/cleanup.h"

struct bucket;
struct capture;
struct capture_found;
struct decider;
struct gate;

enum adopt {
	ADOPT_NEITHER, /* it is a person's to say */
	ADOPT_LOCAL,   /* go on with the files, behind what the bucket has */
	ADOPT_BUCKET,  /* put the bucket's state in their place */
};

/* All of it stays the caller's, and outlives the decider. */
struct decider_config {
	struct bucket *bucket;
	struct gate *gate;
	int dirfd;
	enum adopt adopt;

	/*
	 * The file at path is another now: mount_replaced(), and, once it is
	 * not held any more, mount_forget().
	 */
	void (*replaced)(void *arg, const char *path);
	void (*forget)(void *arg, const char *path);

	/*
	 * It is decided.  0: it is the callback's now, and stays held; 1: it is to
	 * be served.  An error keeps it closed, and it is decided about again.
	 * NULL: 1.
	 */
	int (*keep)(void *arg, const char *path);

	/*
	 * Does a process that goes past the mount have it open?  Then it is not
	 * replaced.  NULL: it is not asked.
	 */
	bool (*in_use)(void *arg, const char *path);

	/*
	 * Its state is decided and it is taken up, but not served yet: see to it
	 * that no older writer can extend its log any more.  An error keeps it
	 * closed; -ECANCELED: as asked.  May take long.
	 */
	int (*close_log)(void *arg, const char *path);
	void *arg;
};

int decider_new(const struct decider_config *config, struct decider **ret);

/* For capture_config.found: true, and it is held. */
bool decider_hold(struct decider *d, const struct capture_found *found);

/* Begin deciding.  Whoever is told of databases must be ready for them. */
int decider_start(struct decider *d, struct capture *c);

/*
 * What was a replica has no position of its own: without the bucket's answer it is
 * not served.
 */
void decider_insist(struct decider *d);

/* Stops deciding; what is not decided stays held.  NULL is allowed. */
void decider_free(struct decider *d);
AUTO_FREE(decider);

#endif
