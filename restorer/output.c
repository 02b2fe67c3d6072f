#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/io.h"
#include "sqlite/format.h"

#include "restorer/output.h"

/* "NAME-wal"; an empty string if no such name can exist. */
static void side_name(const char *name, int side, char ret[NAME_MAX + 1])
{
	if (snprintf(ret, NAME_MAX + 1, "%s%s", name, format_sides[side]) >
	    NAME_MAX)
		ret[0] = '\0';
}

/* 1: it exists; 0: it does not. */
static int look(int dirfd, const char *name, struct stat *ret)
{
	if (fstatat(dirfd, name, ret, AT_SYMLINK_NOFOLLOW) == 0)
		return 1;
	return errno == ENOENT ? 0 : error_errno("looking at '%s'", name);
}

static int exists_error(const char *path, const char *side)
{
	return error_set(-EEXIST,
			 "'%s%s' exists; use --force to replace it, "
			 "or restore to another path",
			 path, side);
}

/*
 * A program that has the old database open would go on with a file that has no
 * name any more.  SQLite shows by its locks that it reads or writes and, where
 * there is a WAL, that a connection is open at all.
 */
static int check_unlocked(struct output *o)
{
	/* PENDING_BYTE and what follows it, in SQLite's os.h. */
	struct flock locks = {
		.l_type = F_WRLCK,
		.l_whence = SEEK_SET,
		.l_start = 0x40000000,
		.l_len = 512,
	};
	AUTO(fd) int fd = openat(o->dirfd, o->name,
				 O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0 || fcntl(fd, F_OFD_GETLK, &locks) < 0 ||
	    locks.l_type == F_UNLCK)
		return 0;
	return error_set(-EBUSY,
			 "a program has '%s' open; stop it first, or restore "
			 "to another path",
			 o->path);
}

/* Nothing is in the way, or it may be replaced. */
static int check_target(struct output *o)
{
	struct stat st;
	int rc = look(o->dirfd, o->name, &st);

	if (rc < 0)
		return rc;
	if (rc > 0 && !S_ISREG(st.st_mode))
		return error_set(-EEXIST,
				 "'%s' exists and is not a regular file",
				 o->path);
	if (rc > 0 && !o->force)
		return exists_error(o->path, "");
	if (rc > 0)
		return check_unlocked(o);
	for (int i = 0; i < FORMAT_SIDES && !o->force; i++) {
		char side[NAME_MAX + 1];

		side_name(o->name, i, side);
		if (!side[0])
			continue;
		rc = look(o->dirfd, side, &st);
		if (rc < 0)
			return rc;
		if (rc > 0)
			return exists_error(o->path, format_sides[i]);
	}
	return 0;
}

/* What is before the last slash, if there is one. */
static int open_parent(struct output *o, const char *slash)
{
	char directory[PATH_MAX] = ".";

	if (slash == o->path)
		strcpy(directory, "/");
	else if (slash)
		(void)snprintf(directory, sizeof(directory), "%.*s",
			       (int)(slash - o->path), o->path);
	o->dirfd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	/* -ENOENT is for what is missing in the bucket. */
	if (o->dirfd < 0 && errno == ENOENT)
		return error_set(-ENOTDIR, "there is no directory '%s'",
				 directory);
	if (o->dirfd < 0)
		return error_errno("opening directory '%s'", directory);
	return 0;
}

/* Split the path; open the directory. */
static int open_directory(struct output *o)
{
	const char *slash = strrchr(o->path, '/');
	const char *name = slash ? slash + 1 : o->path;

	if (!name[0] || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return error_set(-EISDIR, "'%s' is not the name of a file",
				 o->path);
	if (strlen(name) > NAME_MAX || strlen(o->path) >= PATH_MAX)
		return error_set(-ENAMETOOLONG, "'%s' is too long a name",
				 o->path);
	strcpy(o->name, name);
	return open_parent(o, slash);
}

/* A new file of a name that nobody has, ".NAME.litebucket-XXXXXX". */
static int create_unique(struct output *o, char ret_name[NAME_MAX + 1])
{
	/* Room for the rest, and for "-journal" when a side is set aside. */
	const int longest = NAME_MAX - 40;

	for (int tries = 0; tries < 100; tries++) {
		uint8_t salt[3];
		int fd;

		io_random(salt, sizeof(salt));
		(void)snprintf(ret_name, NAME_MAX + 1,
			       ".%.*s.litebucket-%02x%02x%02x", longest,
			       o->name, salt[0], salt[1], salt[2]);
		fd = openat(o->dirfd, ret_name,
			    O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd >= 0)
			return fd;
		if (errno != EEXIST)
			break;
	}
	ret_name[0] = '\0';
	return error_errno("creating a temporary file beside '%s'", o->path);
}

/* As the file that it will replace, if there is one. */
static int take_mode_and_owner(struct output *o)
{
	struct stat old, own;
	int rc = look(o->dirfd, o->name, &old);

	if (rc <= 0)
		return rc;
	if (fstat(o->fd, &own) < 0)
		return error_errno("looking at a temporary file");
	if ((own.st_uid != old.st_uid || own.st_gid != old.st_gid) &&
	    fchown(o->fd, old.st_uid, old.st_gid) < 0)
		return error_errno("'%s' belongs to another user or group, "
				   "and the new file cannot be given to them",
				   o->path);
	if (fchmod(o->fd, old.st_mode & 07777) < 0)
		return error_errno("setting the mode of '%s'", o->path);
	return 0;
}

int output_open(const char *path, bool force, struct output **ret)
{
	AUTO(output) struct output *o = calloc(1, sizeof(*o));
	int rc;

	if (!o)
		return error_set(-ENOMEM, "out of memory");
	o->fd = o->dirfd = -1;
	o->force = force;
	o->path = strdup(path);
	if (!o->path)
		return error_set(-ENOMEM, "out of memory");
	rc = open_directory(o);
	if (rc < 0)
		return rc;
	rc = check_target(o);
	if (rc < 0)
		return rc;
	o->fd = create_unique(o, o->temporary);
	if (o->fd < 0)
		return o->fd;
	rc = take_mode_and_owner(o);
	if (rc < 0)
		return rc;
	*ret = TAKE(o);
	return 0;
}

int output_scratch(struct output *o, int *ret_fd)
{
	char name[NAME_MAX + 1];
	AUTO(fd) int fd = create_unique(o, name);

	if (fd < 0)
		return fd;
	if (unlinkat(o->dirfd, name, 0) < 0)
		return error_errno("removing '%s'", name);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* Undo set_aside(), as far as it came. */
static void put_back(struct output *o)
{
	for (int i = FORMAT_SIDES - 1; i >= 0; i--) {
		char from[NAME_MAX + 1], to[NAME_MAX + 1];

		side_name(o->temporary, i, from);
		side_name(o->name, i, to);
		if (to[0])
			(void)renameat(o->dirfd, from, o->dirfd, to);
	}
}

/*
 * Rename what lies beside the old database, durably, before the new one gets
 * its name.  A crash right after it leaves them under the temporary's name,
 * from which they can still be put back.
 */
static int set_aside(struct output *o)
{
	bool any = false;

	for (int i = 0; i < FORMAT_SIDES; i++) {
		char from[NAME_MAX + 1], to[NAME_MAX + 1];

		side_name(o->name, i, from);
		side_name(o->temporary, i, to);
		if (!from[0])
			continue;
		if (renameat(o->dirfd, from, o->dirfd, to) == 0)
			any = true;
		else if (errno != ENOENT)
			return error_errno("moving '%s%s' out of the way",
					   o->path, format_sides[i]);
	}
	return any ? io_sync_parent(o->dirfd, o->name) : 0;
}

static void remove_aside(struct output *o)
{
	for (int i = 0; i < FORMAT_SIDES; i++) {
		char name[NAME_MAX + 1];

		side_name(o->temporary, i, name);
		(void)unlinkat(o->dirfd, name, 0);
	}
}

static int put_in_place(struct output *o)
{
	int rc;

	if (o->force)
		rc = renameat(o->dirfd, o->temporary, o->dirfd, o->name) < 0 ?
			     -errno :
			     0;
	else
		rc = io_rename_new(o->dirfd, o->temporary, o->dirfd, o->name);
	if (rc == -EEXIST)
		return exists_error(o->path, "");
	errno = -rc;
	if (rc < 0)
		return error_errno("renaming the restored database to '%s'",
				   o->path);
	return 0;
}

int output_commit(struct output *o)
{
	int rc;

	if (fsync(o->fd) < 0)
		return error_errno("syncing the restored database");
	rc = o->force ? check_unlocked(o) : 0;
	if (rc == 0 && o->force)
		rc = set_aside(o);
	if (rc == 0)
		rc = put_in_place(o);
	if (rc < 0) {
		put_back(o);
		return rc;
	}
	rc = io_sync_parent(o->dirfd, o->name);
	remove_aside(o);
	o->temporary[0] = '\0';
	if (rc < 0)
		return error_wrap(rc,
				  "'%s' is restored, but may not survive a "
				  "power cut",
				  o->path);
	return 0;
}

void output_free(struct output *o)
{
	if (!o)
		return;
	if (o->temporary[0])
		(void)unlinkat(o->dirfd, o->temporary, 0);
	fd_cleanup(&o->fd);
	fd_cleanup(&o->dirfd);
	free(o->path);
	free(o);
}
