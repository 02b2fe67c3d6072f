#ifndef LITEBUCKET_FUSE_MOUNTPOINT_H
#define LITEBUCKET_FUSE_MOUNTPOINT_H

/*
 * The place in the file system: may we mount there, and what is in the way.
 *
 * While our own mount lies there only mountpoint_unmount() may be called, and
 * only while the loop thread runs: the others would ask us, and wait.
 */
#include <stdbool.h>
#include <sys/types.h>

/* The type that /proc/mounts shows. */
#define MOUNTPOINT_TYPE "fuse.litebucket"

/*
 * Find the canonical name of path (the caller frees ret).  -EBUSY: a litebucket
 * is mounted there and alive.  -EINVAL, -ENOENT, -ENOTDIR: no place to mount
 * at.  A dead mount stays until mountpoint_remove_dead().
 */
int mountpoint_prepare(const char *path, char **ret);

/* Is what mounting needs at hand?  -ENODEV, -EPERM: with what to do. */
int mountpoint_check_rights(bool allow_other);

/* Is a mount of ours there whose daemon is dead? */
bool mountpoint_is_dead(const char *path);

/*
 * Open the directory beneath a dead mount, so that the mount can stay, and keep
 * everybody out, until another replaces it.  -EOPNOTSUPP: it has to go first,
 * because we have no right to this, or a disk is mounted at the same place.
 */
int mountpoint_open_beneath(const char *path, int *ret_fd);

/*
 * A dead mount at path is to be replaced: mount at ret_place, which is a new
 * directory, and then have mountpoint_replace() bring it to path, whatever it
 * returns.  Nobody ever sees what is beneath, unless the kernel is older than
 * Linux 6.5: there the dead mount goes the moment before.  -EOPNOTSUPP: it has
 * to be removed first, because we have no right to this, or the kernel cannot
 * copy a mount (before Linux 5.2).
 */
enum { MOUNTPOINT_PLACE_SIZE = 64 };
int mountpoint_prepare_place(const char *path,
			     char ret_place[MOUNTPOINT_PLACE_SIZE]);
int mountpoint_replace(const char *path, const char *place);

/* Remove what is mounted there as long as it is a mount whose daemon is dead. */
int mountpoint_remove_dead(const char *path);

/* The device number of what is mounted uppermost at path; 0: nothing is. */
dev_t mountpoint_device(const char *path);

/* As umount(8).  -EBUSY: something in it is in use. */
int mountpoint_unmount(const char *path);

#endif
