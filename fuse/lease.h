#ifndef LITEBUCKET_FUSE_LEASE_H
#define LITEBUCKET_FUSE_LEASE_H

/*
 * Does anybody else write this file?
 * ==================================
 *
 * The kernel grants a read lease on a file only while nobody at all has it open
 * for writing: no process of another container, no leftover of a killed
 * daemon's mount, no mapping.  So asking for one tells what /proc may not show.
 * It is given back at once.
 *
 * Who only reads, like cp(1), is not found, and does not have to be: it cannot
 * damage anything.  Every SQLite that takes locks has some file open for
 * writing, if not the database then its -shm.
 */
#include <sys/stat.h>

enum lease_answer {
	LEASE_FREE, /* or there is no such file */
	LEASE_TAKEN,
	LEASE_UNKNOWN, /* the file system has no leases, or we no right to them */
};

/*
 * Ask about the file at path below dirfd.  Descriptors of our own count as
 * well.  ret_stat (may be NULL) is filled unless there is no such file, and
 * ret_begin gets the first 16 bytes, or zeros.
 */
enum lease_answer lease_ask(int dirfd, const char *path, struct stat *ret_stat,
			    char ret_begin[16]);

#endif
