#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"

#include "fuse/mountpoint.h"

static void file_cleanup(FILE **file)
{
	if (*file)
		(void)fclose(*file);
}

/* In /proc/self/mountinfo some bytes of a path are written \ooo. */
static void unescape(char *text)
{
	char *out = text;

	for (const char *p = text; *p; out++) {
		unsigned byte;

		if (p[0] == '\\' && sscanf(p + 1, "%3o", &byte) == 1) {
			*out = (char)byte;
			p += 4;
		} else {
			*out = *p++;
		}
	}
	*out = '\0';
}

/* The mount point and type of a line of /proc/self/mountinfo, in line. */
static bool parse_mount(char *line, char **ret_point, char **ret_type)
{
	char *separator = strstr(line, " - ");
	char *state = NULL;

	if (!separator)
		return false;
	*separator = '\0';
	*ret_type = strtok_r(separator + 3, " ", &state);
	*ret_point = strtok_r(line, " ", &state);
	for (int i = 0; i < 4 && *ret_point; i++)
		*ret_point = strtok_r(NULL, " ", &state);
	if (!*ret_point || !*ret_type)
		return false;
	unescape(*ret_point);
	return true;
}

/* Is the uppermost mount at path one of ours? */
static bool ours_is_mounted(const char *path)
{
	AUTO(file) FILE *mounts = fopen("/proc/self/mountinfo", "re");
	AUTO(mem) char *line = NULL;
	size_t capacity = 0;
	bool ours = false;

	while (mounts && getline(&line, &capacity, mounts) > 0) {
		char *point, *type;

		if (parse_mount(line, &point, &type) &&
		    strcmp(point, path) == 0)
			ours = strcmp(type, MOUNTPOINT_TYPE) == 0;
	}
	return ours;
}

dev_t mountpoint_device(const char *path)
{
	AUTO(file) FILE *mounts = fopen("/proc/self/mountinfo", "re");
	AUTO(mem) char *line = NULL;
	size_t capacity = 0;
	dev_t device = 0;

	while (mounts && getline(&line, &capacity, mounts) > 0) {
		unsigned major, minor;
		char *point, *type;

		if (sscanf(line, "%*d %*d %u:%u", &major, &minor) == 2 &&
		    parse_mount(line, &point, &type) &&
		    strcmp(point, path) == 0)
			device = makedev(major, minor);
	}
	return device;
}

static int run_fusermount(const char *option, const char *path)
{
	const char *args[] = {"fusermount3", "-q", option, "--", path, NULL};
	int status;
	pid_t pid;
	int rc = posix_spawnp(&pid, args[0], NULL, NULL, (char *const *)args,
			      environ);

	if (rc)
		return error_set(-rc, "starting fusermount3: %s", strerror(rc));
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return error_errno("waiting for fusermount3");
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		return error_set(-EBUSY, "unmounting '%s': fusermount3 failed",
				 path);
	return 0;
}

static int unmount(const char *path, int flags, const char *option)
{
	if (umount2(path, flags | UMOUNT_NOFOLLOW) == 0)
		return 0;
	if (errno == EPERM)
		return run_fusermount(option, path);
	return error_errno("unmounting '%s'", path);
}

int mountpoint_unmount(const char *path)
{
	return unmount(path, 0, "-u");
}

/*
 * statvfs(3) always asks the daemon; stat(2) may be answered by the kernel's
 * cache long after it died.
 */
int mountpoint_remove_dead(const char *path)
{
	struct statvfs st;

	while (statvfs(path, &st) < 0 && errno == ENOTCONN) {
		int rc = unmount(path, MNT_DETACH, "-uz");

		if (rc < 0)
			return error_wrap(rc, "a crashed mount is in the way");
	}
	return 0;
}

bool mountpoint_is_dead(const char *path)
{
	struct statvfs st;

	return statvfs(path, &st) < 0 && errno == ENOTCONN &&
	       ours_is_mounted(path);
}

/* Is anything else than ours mounted at the same place? */
static bool others_are_mounted(const char *path)
{
	AUTO(file) FILE *mounts = fopen("/proc/self/mountinfo", "re");
	AUTO(mem) char *line = NULL;
	size_t capacity = 0;
	bool others = !mounts;

	while (mounts && getline(&line, &capacity, mounts) > 0) {
		char *point, *type;

		if (parse_mount(line, &point, &type) &&
		    strcmp(point, path) == 0 &&
		    strcmp(type, MOUNTPOINT_TYPE) != 0)
			others = true;
	}
	return others;
}

/* A copy, attached nowhere, of the mount that path lies in, from there on. */
static int copy_mount(const char *path)
{
	return open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
}

/*
 * A copy of the mount that the directory above lies in, attached nowhere: in
 * it nothing covers our directory.
 */
int mountpoint_open_beneath(const char *path, int *ret_fd)
{
	AUTO(mem) char *above = strdup(path);
	AUTO(fd) int tree = -1;
	char *name = above ? strrchr(above, '/') : NULL;
	int fd;

	if (!name || !name[1] || others_are_mounted(path))
		return -EOPNOTSUPP;
	*name++ = '\0';
	tree = copy_mount(*above ? above : "/");
	if (tree < 0)
		return -EOPNOTSUPP;
	fd = openat(tree, name,
		    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -EOPNOTSUPP;
	*ret_fd = fd;
	return 0;
}

#ifndef MOVE_MOUNT_BENEATH
#define MOVE_MOUNT_BENEATH 0x00000200 /* Linux 6.5 */
#endif

int mountpoint_prepare_place(const char *path,
			     char ret_place[MOUNTPOINT_PLACE_SIZE])
{
	if (geteuid() != 0 || !mountpoint_is_dead(path))
		return -EOPNOTSUPP;
	(void)snprintf(ret_place, MOUNTPOINT_PLACE_SIZE,
		       "/tmp/litebucket-mount-XXXXXX");
	if (!mkdtemp(ret_place))
		return -EOPNOTSUPP;
	/* Without this, what is mounted there would not get away again. */
	AUTO(fd) int tree = copy_mount(ret_place);

	if (tree >= 0)
		return 0;
	(void)rmdir(ret_place);
	return -EOPNOTSUPP;
}

/*
 * Attach a copy of a mount: a mount itself cannot be moved away from where
 * mounts are shared, as systemd has them everywhere.
 */
static int attach(int tree, const char *path, unsigned flags)
{
	if (move_mount(tree, "", AT_FDCWD, path,
		       MOVE_MOUNT_F_EMPTY_PATH | flags) < 0)
		return error_errno("moving the mount to '%s'", path);
	return 0;
}

/* Between path and its dead mount, or else once the dead ones are gone. */
static int attach_instead(int tree, const char *path)
{
	int rc;

	/* Only one: the next is ours, and would have to answer. */
	if (attach(tree, path, MOVE_MOUNT_BENEATH) == 0)
		return unmount(path, MNT_DETACH, "-uz");
	rc = mountpoint_remove_dead(path);
	return rc < 0 ? rc : attach(tree, path, 0);
}

int mountpoint_replace(const char *path, const char *place)
{
	AUTO(fd) int tree = copy_mount(place);
	int rc = tree < 0 ? error_errno("copying the mount at '%s'", place) :
			    attach_instead(tree, path);

	(void)umount2(place, MNT_DETACH | UMOUNT_NOFOLLOW);
	(void)rmdir(place);
	return rc;
}

/* The canonical name, without asking anybody who may be mounted there. */
static int resolve(const char *path, char **ret)
{
	AUTO(fd) int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	char link[32], resolved[PATH_MAX];
	ssize_t n;

	if (fd < 0 && errno == ENOENT)
		return error_set(-ENOENT,
				 "the mount point '%s' does not "
				 "exist; create the directory first",
				 path);
	if (fd < 0)
		return error_errno("opening the mount point '%s'", path);
	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, resolved, sizeof(resolved) - 1);
	if (n < 0)
		return error_errno("resolving '%s' (is /proc mounted?)", path);
	resolved[n] = '\0';
	*ret = strdup(resolved);
	return *ret ? 0 : error_set(-ENOMEM, "no memory for a path");
}

int mountpoint_prepare(const char *path, char **ret)
{
	AUTO(mem) char *resolved = NULL;
	int rc;

	if (path[0] != '/')
		return error_set(-EINVAL,
				 "the mount point '%s' is not an "
				 "absolute path",
				 path);
	rc = resolve(path, &resolved);
	if (rc < 0)
		return rc;
	if (ours_is_mounted(resolved) && !mountpoint_is_dead(resolved))
		return error_set(-EBUSY,
				 "another litebucket is mounted at "
				 "'%s'; stop it first",
				 resolved);
	*ret = TAKE(resolved);
	return 0;
}

#define IN_A_CONTAINER "in a container: --device /dev/fuse --cap-add SYS_ADMIN"

static int check_device(void)
{
	AUTO(fd) int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (fd >= 0)
		return 0;
	if (errno == EACCES || errno == EPERM)
		return error_set(-EPERM,
				 "no right to open /dev/fuse (" IN_A_CONTAINER
				 ")");
	return error_set(-ENODEV, "there is no /dev/fuse: load the kernel "
				  "module fuse (" IN_A_CONTAINER ")");
}

static bool in_search_path(const char *program)
{
	const char *path = getenv("PATH");
	AUTO(mem) char *copy = strdup(path ? path : "/usr/bin:/bin");
	char *state = NULL, file[PATH_MAX];

	for (char *dir = copy ? strtok_r(copy, ":", &state) : NULL; dir;
	     dir = strtok_r(NULL, ":", &state)) {
		(void)snprintf(file, sizeof(file), "%s/%s", dir, program);
		if (access(file, X_OK) == 0)
			return true;
	}
	return false;
}

/* Does /etc/fuse.conf let users other than root say allow_other? */
static bool users_may_allow_other(void)
{
	AUTO(file) FILE *conf = fopen("/etc/fuse.conf", "re");
	char line[256];

	while (conf && fgets(line, sizeof(line), conf)) {
		line[strcspn(line, " \t\r\n")] = '\0';
		if (strcmp(line, "user_allow_other") == 0)
			return true;
	}
	return false;
}

int mountpoint_check_rights(bool allow_other)
{
	int rc = check_device();

	if (rc < 0 || geteuid() == 0)
		return rc;
	if (!in_search_path("fusermount3"))
		return error_set(-EPERM,
				 "fusermount3 is missing, which mounts "
				 "for users: install the package fuse3, or "
				 "start as root");
	if (allow_other && !users_may_allow_other())
		return error_set(-EPERM, "users may say allow-other only if "
					 "/etc/fuse.conf has the line "
					 "user_allow_other");
	return 0;
}
