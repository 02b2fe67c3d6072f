#ifndef LITEBUCKET_BUCKET_FILE_PATH_H
#define LITEBUCKET_BUCKET_FILE_PATH_H

/*
 * Where a key lies below a file bucket's directory
 * ================================================
 *
 * Litestream has LTX files at DB/<level, 4 hex digits>/ in S3, and at
 * DB/ltx/<level, decimal>/ in a directory.  Keys are always those of S3:
 *
 *	key				path
 *	DB/0009/<min>-<max>.ltx		DB/ltx/9/<min>-<max>.ltx
 *	anything else			the same
 *
 * A key of the form DB/ltx/9/<min>-<max>.ltx would share its path with
 * another; such keys are refused.
 */
#include <stdbool.h>
#include <stddef.h>

#include "bucket/bucket.h"

enum {
	FILE_PATH_MAX = BUCKET_KEY_MAX + 8,
	FILE_LEVEL_MAX = 0xffff,
	FILE_LEVEL_SIZE = 8,	/* a level's directory name, with its NUL */
};

/* -EINVAL for a key in another's place. */
int file_path_of_key(const char *key, char ret[FILE_PATH_MAX]);

/* "0009" is 9 in a key, "9" is 9 in a path; -1 for anything else. */
int file_path_key_level(const char *name, size_t length);
int file_path_dir_level(const char *name, size_t length);

/* Is this the file name of an LTX file? */
bool file_path_is_ltx(const char *name);

/*
 * Open the directory at path ("" for root itself) below root, with no symbolic
 * link on the way.  create: make what is missing, durably.  Returns the
 * descriptor or a negative errno: -ENOENT, also for what is no directory,
 * unless create.
 */
int file_path_open_dir(int root, const char *path, bool create);

/*
 * The same for the directory that holds path; *ret_name is path's last part.
 */
int file_path_open_parent(int root, const char *path, bool create,
			  const char **ret_name);

#endif
