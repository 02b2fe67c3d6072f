#ifndef LITEBUCKET_CLI_OUTSIDE_H
#define LITEBUCKET_CLI_OUTSIDE_H

/*
 * Processes that go past the mount
 * ================================
 *
 * Who has a database open beneath the mount writes it under locks that nobody
 * in the mount sees, and the other way round: together they destroy it.  So
 *
 *	- over a directory that is in use nothing is mounted (D22),
 *	- a database that is in use outside cannot be opened through the mount;
 *	  the gate (cli/gate.h) holds it, with a sentence that names who it is,
 *	  until they are gone,
 *	- and now and then a thread looks for who came later, and logs it.
 *
 * The mount's loop finds the first opening of such a database (in_use() of
 * fuse/mount.h) and must not wait, so it only says so to this thread, which
 * looks into /proc and decides.
 */
#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"

struct gate;
struct outside;

/*
 * Is anybody below the directory dirfd, which is to be mounted over?  -EBUSY,
 * and the sentence names them; with force that is only logged.
 */
int outside_check(int dirfd, bool force);

struct outside_config {
	int dirfd; /* the backing directory; stays the caller's */
	struct gate *gate;

	/*
	 * The database was in use outside, and is not any more: what is known
	 * of its files may be wrong.  Before the gate opens.
	 */
	void (*changed)(void *arg, const char *path);

	/* The nth database's path, or NULL; it stays until outside_free(). */
	const char *(*database)(void *arg, size_t n);
	void *arg;
};

int outside_new(const struct outside_config *config, struct outside **ret);

/* NULL is allowed. */
void outside_free(struct outside *o);
AUTO_FREE(outside);

/* As mount_config.in_use(). */
bool outside_in_use(struct outside *o, const char *path, bool unknown);

#endif
