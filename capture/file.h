#ifndef LITEBUCKET_CAPTURE_FILE_H
#define LITEBUCKET_CAPTURE_FILE_H

/*
 * Files of the directory while they are in use, and the two operations that
 * end a transaction or a WAL, in halves: whoever takes the file away does it
 * between them.  The lock of db is held from _begin to _end.
 */
#include <stdatomic.h>

#include "capture/db.h"

struct capture_file {
	struct capture *capture;
	struct capture_file *next; /* the capture's table lock guards */
	char *path;		   /* likewise; "" when its name is gone */
	_Atomic(enum format_role) role; /* of its name, which may change */
	_Atomic(struct db *) db; /* NULL: nothing of ours, or its name is gone */
	struct db **former;	 /* before renames: a write may still use one */
	size_t n_former;	 /* table lock guards */
	unsigned writers;	 /* its share of db->writers; db's mark guards */
};

void file_finalise_begin(struct db *db);
void file_finalise_end(struct db *db, bool done);

void file_wal_end_begin(struct db *db);
void file_wal_end_end(struct db *db, bool done);

/* Might taking away this file of db wait for more than the system call? */
enum capture_wait file_end_may_wait(struct db *db, enum format_role role);

#endif
