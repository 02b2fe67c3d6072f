#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"

#include "capture/table.h"
#include "capture/unread.h"

enum { WALK_DEPTH_MAX = 64 };

struct walk {
	struct capture *capture;
	table_walk_fn fn;
	void *arg;
	unsigned depth;
	char path[4096];
};

static void dir_cleanup(DIR **dir)
{
	if (*dir)
		(void)closedir(*dir);
}

/* Does a file begin as a database does, or have a WAL that could make it one? */
static bool begins_as_database(int fd)
{
	struct format_header header;
	uint8_t data[FORMAT_HEADER_SIZE];

	return io_pread(fd, data, sizeof(data), 0) == sizeof(data) &&
	       format_parse_header(data, &header);
}

static int visit_file(struct walk *w, int dir_fd, const char *name)
{
	AUTO(fd) int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW |
						       O_NONBLOCK | O_CLOEXEC);
	int error = errno;
	char base[4096];

	if (table_role(w->capture, w->path, base) != FORMAT_MAIN)
		return 0;
	if (fd < 0 && error != ENOENT)
		unread_note(w->capture, w->path, UNREAD_FILE, error);
	if (fd < 0 || !begins_as_database(fd))
		return 0;
	return w->fn(w->capture, w->path, w->arg);
}

static int visit_dir(struct walk *w, int dir_fd);

static int visit_entry(struct walk *w, int dir_fd, const char *name)
{
	struct stat st;

	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0; /* gone meanwhile */
	if (S_ISREG(st.st_mode))
		return visit_file(w, dir_fd, name);
	if (!S_ISDIR(st.st_mode))
		return 0;
	if (w->depth == WALK_DEPTH_MAX) {
		unread_note(w->capture, w->path, UNREAD_BEYOND, ENAMETOOLONG);
		return 0;
	}
	AUTO(fd) int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY |
						       O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && errno != ENOENT)
		unread_note(w->capture, w->path, UNREAD_DIRECTORY, errno);
	return fd < 0 ? 0 : visit_dir(w, fd);
}

static int visit_dir(struct walk *w, int dir_fd)
{
	int copy = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	AUTO(dir) DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	size_t length = strlen(w->path);
	struct dirent *entry;
	bool too_long = false;
	int rc = 0;

	if (!dir && length > 0) {
		unread_note(w->capture, w->path, UNREAD_DIRECTORY, errno);
		return 0;
	}
	if (!dir)
		return error_errno("listing the directory");
	w->depth++;
	while (rc == 0 && (entry = readdir(dir))) {
		const char *name = entry->d_name;

		if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
		    (length == 0 && strcmp(name, ".litebucket") == 0))
			continue;
		if (snprintf(w->path + length, sizeof(w->path) - length, "%s%s",
			     length ? "/" : "", name) <
		    (int)(sizeof(w->path) - length))
			rc = visit_entry(w, dir_fd, name);
		else
			too_long = true;
		w->path[length] = '\0';
	}
	w->depth--;
	if (too_long)
		unread_note(w->capture, w->path, UNREAD_BEYOND, ENAMETOOLONG);
	return rc;
}

int table_walk(struct capture *c, const char *path, table_walk_fn fn, void *arg)
{
	struct walk w = { .capture = c, .fn = fn, .arg = arg };
	AUTO(fd) int fd = openat(c->config.dirfd, *path ? path : ".",
				 O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat st;

	(void)snprintf(w.path, sizeof(w.path), "%s", path);
	if (fd < 0 || fstat(fd, &st) < 0)
		return 0;
	if (S_ISREG(st.st_mode))
		return visit_file(&w, c->config.dirfd, path);
	return S_ISDIR(st.st_mode) ? visit_dir(&w, fd) : 0;
}
