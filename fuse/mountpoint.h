#ifndef LITEBUCKET_FUSE_MOUNTPOINT_H
#define LITEBUCKET_FUSE_MOUNTPOINT_H

/*
 * The place in the file system: may we mount there, and what is in the way.
 *
 * While our own mount lies there only mountpoint_unmount() may be called, and
 * only while the loop thread runs: the others would ask us, and wait.
 */
#include <stdbool.h>

/* The type that /proc/mounts shows. */
#define MOUNTPOINT_TYPE "fuse.litebucket"

/*
 * Remove dead mounts from path, and find its canonical name (the caller frees
 * ret).  -EBUSY: a litebucket is mounted there and alive.  -EINVAL, -ENOENT,
 * -ENOTDIR: no place to mount at.
 */
int mountpoint_prepare(const char *path, char **ret);

/* Is what mounting needs at hand?  -ENODEV, -EPERM: with what to do. */
int mountpoint_check_rights(bool allow_other);

/* Remove what is mounted there as long as it is a mount whose daemon is dead. */
int mountpoint_remove_dead(const char *path);

/* As umount(8).  -EBUSY: something in it is in use. */
int mountpoint_unmount(const char *path);

#endif
