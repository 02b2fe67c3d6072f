#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "ltx/name.h"

#include "bucket/file_path.h"

int file_path_key_level(const char *name, size_t length)
{
	int level = 0;

	if (length != 4)
		return -1;
	for (size_t i = 0; i < length; i++) {
		if (name[i] >= '0' && name[i] <= '9')
			level = level * 16 + name[i] - '0';
		else if (name[i] >= 'a' && name[i] <= 'f')
			level = level * 16 + name[i] - 'a' + 10;
		else
			return -1;
	}
	return level;
}

int file_path_dir_level(const char *name, size_t length)
{
	int level = 0;

	if (length < 1 || length > 5 || (name[0] == '0' && length > 1))
		return -1;
	for (size_t i = 0; i < length; i++) {
		if (name[i] < '0' || name[i] > '9')
			return -1;
		level = level * 10 + name[i] - '0';
	}
	return level <= FILE_LEVEL_MAX ? level : -1;
}

bool file_path_is_ltx(const char *name)
{
	uint64_t min, max;

	return ltx_name_parse(name, &min, &max) == 0;
}

/* The part of path before the component that begins at end; may be empty. */
static size_t component_before(const char *path, size_t end, size_t *ret_length)
{
	size_t begin;

	if (end == 0) {
		*ret_length = 0;
		return 0;
	}
	begin = end - 1;
	while (begin > 0 && path[begin - 1] != '/')
		begin--;
	*ret_length = end - 1 - begin;
	return begin;
}

int file_path_of_key(const char *key, char ret[FILE_PATH_MAX])
{
	const char *slash = strrchr(key, '/');
	size_t name = slash ? (size_t)(slash - key) + 1 : 0;
	size_t dir, dir_length, above, above_length;
	int level;

	(void)snprintf(ret, FILE_PATH_MAX, "%s", key);
	if (!file_path_is_ltx(key + name))
		return 0;
	dir = component_before(key, name, &dir_length);
	above = component_before(key, dir, &above_length);
	if (file_path_dir_level(key + dir, dir_length) >= 0 &&
	    above_length == 3 && memcmp(key + above, "ltx", 3) == 0)
		return error_set(-EINVAL, "'%s' is no key of a file bucket: "
				 "it is where another key's file lies", key);
	level = file_path_key_level(key + dir, dir_length);
	if (level >= 0)
		(void)snprintf(ret, FILE_PATH_MAX, "%.*sltx/%d/%s", (int)dir,
			       key, level, key + name);
	return 0;
}

/* A new directory must be there after a crash, or what is put in it is not. */
static int make_dir(int parent, const char *name)
{
	if (mkdirat(parent, name, 0700) < 0)
		return errno == EEXIST ? 0 : -errno;
	return fsync(parent) < 0 ? -errno : 0;
}

static int open_child(int parent, const char *name, bool create)
{
	const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
	int fd = openat(parent, name, flags);

	if (fd < 0 && errno == ENOENT && create) {
		int rc = make_dir(parent, name);

		if (rc < 0)
			return rc;
		fd = openat(parent, name, flags);
	}
	if (fd < 0 && (errno == ENOTDIR || errno == ELOOP))
		return create ? -ENOTDIR : -ENOENT;
	return fd < 0 ? -errno : fd;
}

/* The sentence for what open_child() returned. */
static int cannot_open(int rc, const char *path)
{
	if (rc == -ENOTDIR)
		return error_set(-EOPNOTSUPP, "'%s' is no directory: in a file "
				 "bucket a key cannot go on below another key "
				 "or a symbolic link", path);
	errno = -rc;
	return error_errno("opening directory '%s'", path);
}

int file_path_open_dir(int root, const char *path, bool create)
{
	AUTO(fd) int fd = openat(root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return error_errno("opening the bucket's directory");
	while (*path) {
		size_t length = strcspn(path, "/");
		char name[FILE_PATH_MAX];
		int child;

		if (length >= sizeof(name))
			return error_set(-ENAMETOOLONG, "'%s' is too long",
					 path);
		memcpy(name, path, length);
		name[length] = '\0';
		child = open_child(fd, name, create);
		if (child < 0)
			return cannot_open(child, name);
		(void)close(fd);
		fd = child;
		path += length;
		path += *path == '/';
	}
	return TAKE_FD(fd);
}

int file_path_open_parent(int root, const char *path, bool create,
			  const char **ret_name)
{
	const char *slash = strrchr(path, '/');
	char parent[FILE_PATH_MAX];

	*ret_name = slash ? slash + 1 : path;
	(void)snprintf(parent, sizeof(parent), "%.*s",
		       slash ? (int)(slash - path) : 0, path);
	return file_path_open_dir(root, parent, create);
}
