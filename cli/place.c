#include <fcntl.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "bucket/url.h"
#include "cli/paths.h"
#include "fuse/control.h"
#include "fuse/mountpoint.h"

#include "cli/place.h"

enum {
	STATUS_MAX = 16 << 20
};

static bool is_url(const char *text)
{
	return strstr(text, "://") != NULL;
}

/* The usual slips of a first try get a sentence of their own. */
static int check_operands(const char *directory, const char *url)
{
	if (is_url(directory) && !is_url(url))
		return error_set(-ERR_USAGE,
				 "the directory comes first: "
				 "litebucket mount '%s' '%s'",
				 url, directory);
	if (is_url(directory))
		return error_set(-ERR_USAGE,
				 "'%s' is a URL; DIR is a local directory",
				 directory);
	return 0;
}

/*
 * A second daemon over the same mount would write its state into the first
 * one's databases.
 */
static int check_unmounted(const char *directory)
{
	AUTO(buf) struct buf reply = BUF_INIT(STATUS_MAX);
	int rc = control_call(directory, CONTROL_STATUS, &reply);

	/* One that has too much to do, or is about to end, is one as well. */
	if (rc < 0 && rc != -EFBIG && rc != -EAGAIN && rc != -ESHUTDOWN)
		return 0;
	return error_set(-EBUSY,
			 "it is in a litebucket mount already; see "
			 "'litebucket status %s'",
			 directory);
}

/*
 * Beneath a mount that a crash or a stop left dead, if possible: programs that
 * only wait for it to come back must not meet the plain files meanwhile.
 */
static int open_directory(const char *directory, int *ret_fd)
{
	AUTO(fd) int fd = -1;
	int rc;

	if (!mountpoint_is_dead(directory) ||
	    mountpoint_open_beneath(directory, &fd) < 0) {
		rc = mountpoint_remove_dead(directory);
		if (rc < 0)
			return rc;
		fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	}
	if (fd < 0 && errno == ENOENT)
		return error_set(-ENOENT, "there is no such directory; create "
					  "it first");
	if (fd < 0)
		return error_errno("opening it");
	if (faccessat(fd, ".", W_OK | X_OK, AT_EACCESS) < 0)
		return error_errno("writing to it");
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int check_mountpoint_apart(const struct place *place)
{
	if (strcmp(place->mountpoint, place->directory) != 0 &&
	    paths_within(place->mountpoint, place->directory))
		return error_set(-ERR_USAGE,
				 "--mountpoint '%s' lies inside '%s', and so "
				 "would contain itself; take one outside, or "
				 "leave --mountpoint out to mount over DIR",
				 place->mountpoint, place->directory);
	return 0;
}

static int check_mountpoint(const struct place *place)
{
	struct stat st;

	if (stat(place->mountpoint, &st) < 0)
		return error_errno("--mountpoint '%s'", place->mountpoint);
	if (!S_ISDIR(st.st_mode))
		return error_set(-ENOTDIR,
				 "--mountpoint '%s' is no directory",
				 place->mountpoint);
	return check_mountpoint_apart(place);
}

/* A file:// bucket inside the mount would replicate itself. */
static int check_bucket_apart(const struct place *place, const char *text)
{
	AUTO(bucket_url) struct bucket_url url = {0};
	AUTO(mem) char *path = NULL;
	int rc = bucket_url_parse(text, &url);

	if (rc < 0 || url.scheme != BUCKET_FILE)
		return rc;
	rc = paths_resolve(url.path, &path);
	if (rc < 0)
		return error_wrap(rc, "the bucket '%s'", text);
	if (paths_within(path, place->directory) ||
	    paths_within(place->directory, path) ||
	    paths_within(path, place->mountpoint) ||
	    paths_within(place->mountpoint, path))
		return error_set(-ERR_USAGE,
				 "the bucket '%s' and the mounted directory "
				 "must lie apart, not one inside the other",
				 text);
	return 0;
}

static void mounts_cleanup(FILE **mounts)
{
	if (*mounts)
		(void)endmntent(*mounts);
}

static int check_none_below(const char *directory)
{
	AUTO(mounts) FILE *mounts = setmntent("/proc/self/mounts", "re");
	char text[8192];
	struct mntent m;

	while (mounts && getmntent_r(mounts, &m, text, sizeof(text))) {
		if (strcmp(m.mnt_type, MOUNTPOINT_TYPE) != 0 ||
		    strcmp(m.mnt_dir, directory) == 0 ||
		    !paths_within(m.mnt_dir, directory))
			continue;
		return error_set(-EBUSY,
				 "below it, at '%s', is another litebucket "
				 "mount; stop that first, or take a directory "
				 "without it",
				 m.mnt_dir);
	}
	return 0;
}

static int find_directory(const char *directory, struct place *ret)
{
	int rc = paths_resolve(directory, &ret->directory);

	if (rc == 0)
		rc = check_unmounted(ret->directory);
	if (rc == 0)
		rc = check_none_below(ret->directory);
	if (rc == 0)
		rc = open_directory(ret->directory, &ret->dirfd);
	return rc;
}

static int find_mountpoint(const char *mountpoint, struct place *ret)
{
	int rc = paths_resolve(mountpoint, &ret->mountpoint);

	/* A dead mount is a directory, and fit; it stays until ours is there. */
	if (rc < 0 || mountpoint_is_dead(ret->mountpoint))
		return rc < 0 ? rc : check_mountpoint_apart(ret);
	return check_mountpoint(ret);
}

int place_find(const char *directory, const char *mountpoint,
	       const char *bucket, struct place *ret)
{
	int rc = check_operands(directory, bucket);

	if (rc == 0)
		rc = find_directory(directory, ret);
	if (rc == 0)
		rc = find_mountpoint(mountpoint ? mountpoint : directory, ret);
	if (rc == 0)
		rc = check_bucket_apart(ret, bucket);
	if (rc == 0 && chdir("/") < 0)
		rc = error_errno("changing to /");
	return rc;
}

void place_cleanup(struct place *place)
{
	free(place->directory);
	free(place->mountpoint);
	fd_cleanup(&place->dirfd);
}
