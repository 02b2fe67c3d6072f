#ifndef LITEBUCKET_BUCKET_FILE_H
#define LITEBUCKET_BUCKET_FILE_H

/*
 * A bucket in a directory
 * =======================
 *
 * Each object is a file of its own.  Keys are paths below the directory,
 * except that LTX files lie where Litestream's file backend looks for them
 * (bucket/file_path.h).
 *
 * A put writes a temporary file beside the target, syncs it, and renames it
 * into place; if_absent by a rename that never replaces.  What compares and
 * then replaces or removes does so under flock() of DIR/~lock, which orders
 * threads and processes alike.  Names of ours hold a '~', which no key has,
 * so that they never collide with an object and are never listed.
 *
 * The directory is opened once.  When it is removed, moved away or covered, every
 * operation is -ENODEV: what lies at its path then may be another bucket, or an
 * empty one, which only a start looks at.
 *
 * Any number of processes may use one directory.  Symbolic links below it are
 * not followed.  Files are 0600 and directories 0700: they hold what private
 * databases hold.
 *
 * An object's ETag is made of the file's inode, modification time and size.
 * The modification time is that of the put, or, with metadata
 * litestream-timestamp, that time (Litestream reads it so), always with random
 * digits below the millisecond, so that two versions never have the same.
 */
#include <stdbool.h>

struct bucket;
struct bucket_url;

/*
 * create: a directory that does not exist is an empty bucket, and made (with
 * those above it) by the first put; without it that is -ENODEV.
 */
int bucket_file_new(const struct bucket_url *url, bool create,
		    struct bucket **ret);

#endif
