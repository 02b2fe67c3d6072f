#ifndef LITEBUCKET_RESTORER_LAYOUT_H
#define LITEBUCKET_RESTORER_LAYOUT_H

/*
 * What a follower keeps in its directory
 * ======================================
 *
 *	DIR/.litebucket/follow/lock		held by the one that is at work
 *	DIR/.litebucket/follow/socket		what asks it how it is
 *	DIR/.litebucket/follow/<hash>/		one database's:
 *		position			restorer/mark.h
 *		name				its path below DIR
 *	DIR/.litebucket/aside/			changed replicas, for people to remove
 *
 * Who may read a replica may read its position and see whether there is a
 * follower; its data is nowhere here but in aside, and while it is restored.
 * Paths that are returned are the caller's to free.
 */
#include <stdbool.h>

/* Does this path below a directory belong to us, and not to its databases? */
bool layout_is_ours(const char *path);

int layout_path(const char *directory, const char *name, char **ret);

/* The directory of one database, which has this path below DIR. */
int layout_state(const char *directory, const char *db, char **ret);

/*
 * The follower's directory that a canonical path lies in, and the path below
 * it, "" for the directory itself.  -ENOENT, with a sentence: in none.
 */
int layout_find(const char *path, char **ret_directory, char **ret_db);

/* Hold the directory as long as the descriptor is open.  -EBUSY: another does. */
int layout_lock(const char *directory, int *ret_fd);

/* Is a follower at work there? */
bool layout_is_locked(const char *directory);

/* Each database that has a position or had one; fn's non-zero ends it. */
typedef int (*layout_fn)(const char *db, const char *state, void *arg);
int layout_each(const char *directory, layout_fn fn, void *arg);

#endif
