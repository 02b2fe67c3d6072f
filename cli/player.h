#ifndef LITEBUCKET_CLI_PLAYER_H
#define LITEBUCKET_CLI_PLAYER_H

/*
 * Journals of a transaction over several databases
 * ================================================
 *
 * Such a journal names a super-journal by a path as the application saw it,
 * and counts only while that exists.  So it can be played back only through the
 * mount, once that is there (D21): capture names the databases while it opens,
 * and a thread has the helper open each of them with SQLite.  Nothing of them
 * is sealed before, because a live journal keeps capture waiting.
 */
#include "base/cleanup.h"

struct helper;
struct player;

/* helper stays the caller's. */
int player_new(struct helper *helper, struct player **ret);

/* The database at path has such a journal.  Any thread, any locks. */
void player_add(struct player *p, const char *path);

/* The mount is there. */
void player_start(struct player *p);

/* After helper_stop().  NULL is allowed. */
void player_free(struct player *p);
AUTO_FREE(player);

#endif
