#ifndef LITEBUCKET_FUSE_OUTSIDE_H
#define LITEBUCKET_FUSE_OUTSIDE_H

/*
 * A database that is opened for the first time, or again after its last close,
 * while a process that does not go through the mount writes it: both have
 * locks that the other does not see, and would destroy it (design: zombies).
 */
#include <stdbool.h>

#include "fuse/lease.h"

struct inode;
struct mount;

/*
 * Ask for the database at path and its -wal, -shm and -journal, below dirfd.
 * LEASE_FREE for what is no database.
 */
enum lease_answer outside_ask(int dirfd, const char *path);

/*
 * The loop is about to open this inode.  True: mount_config.in_use() was told
 * something, so admit() is to be asked once more.
 */
bool outside_found(struct mount *m, struct inode *inode);

#endif
