#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/io.h"

#include "restorer/inherit.h"

int inherit_owner(int parent_fd, int fd, mode_t mask)
{
	struct stat above;

	if (fstat(parent_fd, &above) < 0)
		return error_errno("looking at the directory");
	if (fchown(fd, above.st_uid, above.st_gid) < 0 && geteuid() == 0)
		return error_errno("giving it to the directory's owner");
	if (fchmod(fd, above.st_mode & mask) < 0)
		return error_errno("setting its mode");
	return 0;
}

/* The directory below parent, made if there is none. */
static int enter(int parent, const char *name, int *ret)
{
	bool made = mkdirat(parent, name, 0700) == 0;
	AUTO(fd) int fd = -1;
	int rc = 0;

	if (!made && errno != EEXIST)
		return error_errno("making the directory '%s'", name);
	fd = openat(parent, name,
		    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return error_errno("opening the directory '%s'", name);
	if (made)
		rc = inherit_owner(parent, fd, 0777);
	if (rc == 0 && made)
		rc = io_sync_parent(parent, name);
	if (rc == 0)
		*ret = TAKE_FD(fd);
	return rc;
}

int inherit_parents(int dirfd, const char *path, int *ret_fd,
		    const char **ret_name)
{
	AUTO(fd) int fd = fcntl(dirfd, F_DUPFD_CLOEXEC, 0);
	const char *slash;

	if (fd < 0)
		return error_errno("opening the directory");
	while ((slash = strchr(path, '/'))) {
		AUTO(mem) char *name = strndup(path, (size_t)(slash - path));
		AUTO(fd) int above = TAKE_FD(fd);
		int rc = name ? enter(above, name, &fd) :
				error_set(-ENOMEM, "out of memory");

		if (rc < 0)
			return rc;
		path = slash + 1;
	}
	*ret_fd = TAKE_FD(fd);
	*ret_name = path;
	return 0;
}
