#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/io.h"
#include "bucket/digest.h"

#include "restorer/layout.h"

enum { HASH_SIZE = 32, NAME_MAX_SIZE = 8192 };

#define OURS "/.litebucket/follow"

bool layout_is_ours(const char *path)
{
	static const char ours[] = ".litebucket";
	size_t n = strlen(ours);

	return strncmp(path, ours, n) == 0 && (!path[n] || path[n] == '/');
}

int layout_path(const char *directory, const char *name, char **ret)
{
	if (asprintf(ret, "%s/.litebucket/%s", directory, name) >= 0)
		return 0;
	*ret = NULL;
	return error_set(-ENOMEM, "out of memory for a path");
}

int layout_state(const char *directory, const char *db, char **ret)
{
	char sha256[DIGEST_SHA256_SIZE], name[64];
	int rc = digest_sha256(db, strlen(db), sha256);

	if (rc < 0)
		return rc;
	(void)snprintf(name, sizeof(name), "follow/%.*s", HASH_SIZE, sha256);
	return layout_path(directory, name, ret);
}

/* Is there a follower's directory at this one? */
static bool is_directory(const char *path, size_t size)
{
	AUTO(mem) char *ours = NULL;

	if (asprintf(&ours, "%.*s" OURS, (int)size, path) < 0)
		ours = NULL;
	return ours && access(ours, F_OK) == 0;
}

int layout_find(const char *path, char **ret_directory, char **ret_db)
{
	size_t size = strlen(path);

	while (size > 0 && !is_directory(path, size))
		do
			size--;
		while (size > 0 && path[size] != '/');
	if (size == 0 && !is_directory(path, 0))
		return error_set(-ENOENT, "no follower was ever at work in it");
	*ret_directory = size ? strndup(path, size) : strdup("/");
	*ret_db = strdup(path + size + (path[size] == '/'));
	if (*ret_directory && *ret_db)
		return 0;
	free(TAKE(*ret_directory));
	free(TAKE(*ret_db));
	return error_set(-ENOMEM, "out of memory for a path");
}

int layout_lock(const char *directory, int *ret_fd)
{
	AUTO(mem) char *ours = NULL, *path = NULL;
	AUTO(fd) int fd = -1;
	int rc = layout_path(directory, "follow", &ours);

	if (rc == 0)
		rc = layout_path(directory, "follow/lock", &path);
	if (rc == 0)
		rc = io_make_dirs(AT_FDCWD, ours, 0755);
	if (rc < 0)
		return rc;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0)
		return error_errno("opening %s", path);
	rc = io_lock(fd, F_WRLCK, 0, 0);
	if (rc == -EAGAIN)
		return error_set(-EBUSY, "a follower is at work in %s",
				 directory);
	if (rc < 0)
		return rc;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

bool layout_is_locked(const char *directory)
{
	AUTO(mem) char *path = NULL;
	AUTO(fd) int fd = -1;
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	if (layout_path(directory, "follow/lock", &path) < 0)
		return false;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd >= 0 && fcntl(fd, F_OFD_GETLK, &l) == 0 &&
	       l.l_type != F_UNLCK;
}

/* What else lies there has no name. */
static int tell(const char *state, layout_fn fn, void *arg)
{
	AUTO(buf) struct buf name = BUF_INIT(NAME_MAX_SIZE);
	AUTO(mem) char *path = NULL;

	if (asprintf(&path, "%s/name", state) < 0)
		path = NULL;
	if (!path)
		return error_set(-ENOMEM, "out of memory for a path");
	if (io_read_file(AT_FDCWD, path, &name) < 0 ||
	    buf_append(&name, "", 1) < 0)
		return 0;
	return fn(name.data, state, arg);
}

int layout_each(const char *directory, layout_fn fn, void *arg)
{
	AUTO(mem) char *ours = NULL;
	struct dirent *entry;
	DIR *dir;
	int rc = layout_path(directory, "follow", &ours);

	if (rc < 0)
		return rc;
	dir = opendir(ours);
	if (!dir)
		return error_errno("reading %s", ours);
	while (rc == 0 && (entry = readdir(dir))) {
		AUTO(mem) char *state = NULL;

		if (strlen(entry->d_name) != HASH_SIZE)
			continue;
		if (asprintf(&state, "%s/%s", ours, entry->d_name) < 0)
			state = NULL;
		rc = state ? tell(state, fn, arg) :
			     error_set(-ENOMEM, "out of memory for a path");
	}
	(void)closedir(dir);
	return rc;
}
