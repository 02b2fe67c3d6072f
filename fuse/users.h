#ifndef LITEBUCKET_FUSE_USERS_H
#define LITEBUCKET_FUSE_USERS_H

/*
 * Which processes use a file
 * ==========================
 *
 * A process that has a file beneath a mount, from before it was mounted over
 * or by another way, reads and writes past the mount, under locks of its own
 * (D22).  /proc tells who that is: working and root directories, open
 * descriptors, mapped files.  Files are known by device and inode number, so
 * a process in another mount namespace is found, too, whatever the file is
 * called there.
 *
 * What cannot be looked into (processes of other users, without privileges, or
 * of other pid namespaces) is not found; a lease tells of those (fuse/lease.h).
 *
 * No file is opened and no server asked for what it is (AT_STATX_DONT_SYNC), so
 * this may look for users of our own mount.  It may still wait for the memory
 * map of a process that waits for us: never call it in the mount's loop.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"

/*
 * A set of files: whole directories, single ones, or a whole device.
 */
struct users_file {
	dev_t dev;
	ino_t ino;
};

struct users_files {
	struct users_file *files;
	size_t n, capacity;
	bool sorted;
	bool whole_device; /* everything on dev, and nothing else */
	dev_t dev;
};

enum {
	USERS_FILES_MAX = 1 << 20 /* what is more is not looked for */
};

void users_files_cleanup(struct users_files *f);

/* The file itself.  Nothing if there is none of that name. */
int users_files_add(struct users_files *f, int dirfd, const char *path);

/*
 * A directory and all that is below it, but not the entry of the directory
 * itself that is called except (may be NULL).
 */
int users_files_add_tree(struct users_files *f, int dirfd, const char *except);

enum users_how {
	USERS_CWD,
	USERS_ROOT,
	USERS_OPEN,
	USERS_MAPPED,
};

struct user {
	pid_t pid;
	char command[32];
	enum users_how how; /* the first that was found */
	char path[256];	    /* of the file, cut; as it was opened */
};

enum {
	USERS_MAX = 64, /* the others are only counted */
	USERS_NAMED = 8 /* by users_describe() */
};

struct users {
	struct user list[USERS_MAX];
	size_t n;	 /* processes that were found, perhaps more than that */
	size_t unseen;	 /* processes that could not be looked into */
};

/*
 * Find the processes, except ourselves and those whose parent we are, that
 * use a file of the set.  -ENOENT: there is no /proc.
 */
int users_find(struct users_files *files, struct users *ret);

enum {
	USERS_TEXT_SIZE = 700
};

/* "sqlite3 (pid 12, has '/srv/app/shop.db' open), bash (pid 34, ...)" */
void users_describe(const struct users *users, char ret[USERS_TEXT_SIZE]);

/*
 * The file of a line of /proc/PID/maps, without asking anybody.  False: none
 * is mapped there.  ret_path points into the line, which is cut at its end.
 */
bool users_parse_map(char *line, struct users_file *ret, const char **ret_path);

/* The parent in the text of /proc/PID/stat, whatever the process is called. */
bool users_parse_stat(const char *text, pid_t *ret_parent);

#endif
