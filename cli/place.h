#ifndef LITEBUCKET_CLI_PLACE_H
#define LITEBUCKET_CLI_PLACE_H

/*
 * Where a mount takes place
 * =========================
 *
 * Directory, mountpoint and bucket, as the command line names them, are looked
 * at before anything is mounted or made:
 *
 *   1. The directory is there, can be written to, and is in no live litebucket
 *      mount.  A dead one that lies over it is removed, which would hide it.
 *   2. No litebucket mount lies below it: its databases would have two logs.
 *   3. The mountpoint does not lie inside the directory.
 *   4. A file:// bucket lies apart from both.
 *
 * By 3 and 4 the daemon never opens a file through its own mount, where it
 * would wait for itself for ever.
 */
struct place {
	char *directory;  /* canonical */
	char *mountpoint; /* canonical; the directory, if none was given */
	int dirfd;	  /* of the directory */
};

/*
 * mountpoint may be NULL.  Afterwards / is the working directory, because a
 * daemon that stands inside its mount keeps it from being unmounted.
 *
 * -ERR_USAGE, -ENOENT, -EBUSY, or why the directory cannot be used.
 */
int place_find(const char *directory, const char *mountpoint,
	       const char *bucket, struct place *ret);

void place_cleanup(struct place *place);

#endif
