#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/io.h"

#include "fuse/users.h"

enum {
	TREE_DEPTH_MAX = 64
};

static void dir_cleanup(DIR **dir)
{
	if (*dir)
		(void)closedir(*dir);
}

static void file_cleanup(FILE **file)
{
	if (*file)
		(void)fclose(*file);
}

/*
 * The set
 * -------
 */

void users_files_cleanup(struct users_files *f)
{
	free(f->files);
	memset(f, 0, sizeof(*f));
}

static int compare(const void *a, const void *b)
{
	const struct users_file *x = a, *y = b;

	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	if (x->dev != y->dev)
		return x->dev < y->dev ? -1 : 1;
	return 0;
}

static bool contains(const struct users_files *f, const struct users_file *key)
{
	if (f->whole_device)
		return key->dev == f->dev;
	return f->n && bsearch(key, f->files, f->n, sizeof(*key), compare);
}

static int add(struct users_files *f, dev_t dev, ino_t ino)
{
	if (f->n == USERS_FILES_MAX)
		return 0;
	if (f->n == f->capacity) {
		size_t capacity = f->capacity ? 2 * f->capacity : 64;
		void *files = reallocarray(f->files, capacity,
					   sizeof(*f->files));

		if (!files)
			return error_set(-ENOMEM, "no memory for a list of "
						  "files");
		f->files = files;
		f->capacity = capacity;
	}
	f->files[f->n++] = (struct users_file){dev, ino};
	f->sorted = false;
	return 0;
}

int users_files_add(struct users_files *f, int dirfd, const char *path)
{
	struct stat st;

	if (fstatat(dirfd, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	return add(f, st.st_dev, st.st_ino);
}

static int add_below(struct users_files *f, int dirfd, const char *except,
		     unsigned depth);

static int add_entry(struct users_files *f, int dirfd, const char *name,
		     unsigned depth)
{
	struct stat st;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0; /* gone meanwhile */
	if (S_ISREG(st.st_mode))
		return add(f, st.st_dev, st.st_ino);
	if (!S_ISDIR(st.st_mode) || depth == TREE_DEPTH_MAX)
		return 0;
	AUTO(fd) int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY |
						      O_NOFOLLOW | O_CLOEXEC);
	int rc = add(f, st.st_dev, st.st_ino);

	return rc < 0 || fd < 0 ? rc : add_below(f, fd, NULL, depth + 1);
}

/* What cannot be listed is left out: nothing there can be opened either. */
static int add_below(struct users_files *f, int dirfd, const char *except,
		     unsigned depth)
{
	int copy = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	AUTO(dir) DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *entry;
	int rc = 0;

	while (rc == 0 && dir && (entry = readdir(dir))) {
		const char *name = entry->d_name;

		if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
		    (except && strcmp(name, except) == 0))
			continue;
		rc = add_entry(f, dirfd, name, depth);
	}
	return rc;
}

int users_files_add_tree(struct users_files *f, int dirfd, const char *except)
{
	int rc = users_files_add(f, dirfd, ".");

	return rc < 0 ? rc : add_below(f, dirfd, except, 0);
}

/*
 * What /proc says
 * ---------------
 */

bool users_parse_map(char *line, struct users_file *ret, const char **ret_path)
{
	unsigned major, minor;
	uint64_t inode;
	int path_at = 0;

	line[strcspn(line, "\n")] = '\0';
	if (sscanf(line, "%*[0-9a-f]-%*[0-9a-f] %*s %*[0-9a-f] %x:%x %" SCNu64
			 " %n",
		   &major, &minor, &inode, &path_at) != 3 ||
	    path_at == 0 || inode == 0)
		return false;
	*ret = (struct users_file){makedev(major, minor), inode};
	*ret_path = line + path_at;
	return true;
}

bool users_parse_stat(const char *text, pid_t *ret_parent)
{
	const char *end = strrchr(text, ')');

	return end && sscanf(end + 1, " %*c %d", ret_parent) == 1;
}

/* One process that is being looked at. */
struct look {
	const struct users_files *files;
	int fd; /* /proc/PID */
	struct user user;
	bool found, refused;
};

/* The end of a long path says more than its beginning. */
static void keep_path(struct user *user, const char *path)
{
	size_t size = strlen(path), most = sizeof(user->path) - 1;

	if (size > most)
		path += size - most;
	(void)snprintf(user->path, sizeof(user->path), "%s", path);
}

/* name, below dirfd, is one of /proc's links to a file in use. */
static void look_at_link(struct look *l, int dirfd, const char *name,
			 enum users_how how)
{
	char path[4096] = "";
	struct statx st;

	if (statx(dirfd, name, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_INO,
		  &st) < 0) {
		l->refused = l->refused || errno == EACCES || errno == EPERM;
		return;
	}
	const struct users_file file = {
		makedev(st.stx_dev_major, st.stx_dev_minor), st.stx_ino};

	if (l->found || !contains(l->files, &file))
		return;
	(void)!readlinkat(dirfd, name, path, sizeof(path) - 1);
	keep_path(&l->user, path);
	l->user.how = how;
	l->found = true;
}

static void look_at_descriptors(struct look *l)
{
	int fd = openat(l->fd, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	AUTO(dir) DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	if (!dir)
		l->refused = l->refused || errno == EACCES || errno == EPERM;
	while (dir && !l->found && (entry = readdir(dir)))
		if (isdigit((unsigned char)entry->d_name[0]))
			look_at_link(l, fd, entry->d_name, USERS_OPEN);
}

static void look_at_maps(struct look *l)
{
	int fd = openat(l->fd, "maps", O_RDONLY | O_CLOEXEC);
	AUTO(file) FILE *maps = fd < 0 ? NULL : fdopen(fd, "re");
	AUTO(mem) char *line = NULL;
	size_t capacity = 0;

	while (maps && !l->found && getline(&line, &capacity, maps) > 0) {
		struct users_file file;
		const char *path;

		if (!users_parse_map(line, &file, &path) ||
		    !contains(l->files, &file))
			continue;
		keep_path(&l->user, path);
		l->user.how = USERS_MAPPED;
		l->found = true;
	}
}

static void read_text(int dirfd, const char *name, char *ret, size_t size)
{
	AUTO(fd) int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, ret, size - 1);

	ret[n > 0 ? n : 0] = '\0';
}

static bool is_child_of_ours(struct look *l)
{
	char text[512];
	pid_t parent;

	read_text(l->fd, "stat", text, sizeof(text));
	return users_parse_stat(text, &parent) && parent == getpid();
}

static void look_at_process(struct look *l)
{
	/* What somebody has open says more than where he sits. */
	look_at_descriptors(l);
	if (!l->found)
		look_at_link(l, l->fd, "cwd", USERS_CWD);
	if (!l->found)
		look_at_link(l, l->fd, "root", USERS_ROOT);
	if (!l->found)
		look_at_maps(l);
	if (!l->found)
		return;
	read_text(l->fd, "comm", l->user.command, sizeof(l->user.command));
	l->user.command[strcspn(l->user.command, "\n")] = '\0';
}

static void look_at(const struct users_files *files, int proc,
		    const char *name, struct users *ret)
{
	struct look l = {
		.files = files,
		.fd = openat(proc, name, O_PATH | O_DIRECTORY | O_CLOEXEC),
		.user = {.pid = (pid_t)strtol(name, NULL, 10)},
	};

	if (l.fd < 0)
		return;
	if (l.user.pid != getpid() && !is_child_of_ours(&l))
		look_at_process(&l);
	(void)close(l.fd);
	if (l.found && ret->n < USERS_MAX)
		ret->list[ret->n] = l.user;
	if (l.found)
		ret->n++;
	else if (l.refused)
		ret->unseen++;
}

int users_find(struct users_files *files, struct users *ret)
{
	AUTO(dir) DIR *dir = opendir("/proc");
	struct dirent *entry;

	ret->n = ret->unseen = 0;
	if (!dir)
		return error_errno("opening /proc");
	if (!files->sorted && files->n)
		qsort(files->files, files->n, sizeof(*files->files), compare);
	files->sorted = true;
	while ((entry = readdir(dir)))
		if (isdigit((unsigned char)entry->d_name[0]))
			look_at(files, dirfd(dir), entry->d_name, ret);
	return 0;
}

/*
 * For people
 * ----------
 */

static const struct {
	const char *before, *after;
} words[] = {
	[USERS_CWD] = {"its working directory is '", "'"},
	[USERS_ROOT] = {"its root directory is '", "'"},
	[USERS_OPEN] = {"has '", "' open"},
	[USERS_MAPPED] = {"has '", "' mapped"},
};

static void describe(const struct user *user, char *ret, size_t size)
{
	(void)snprintf(ret, size, "%s (pid %d, %s%s%s)", user->command,
		       (int)user->pid, words[user->how].before, user->path,
		       words[user->how].after);
}

void users_describe(const struct users *users, char ret[USERS_TEXT_SIZE])
{
	size_t used = 0, named = 0;

	ret[0] = '\0';
	for (; named < users->n && named < USERS_NAMED; named++) {
		char one[sizeof(users->list[0]) + 64];
		int n;

		describe(&users->list[named], one, sizeof(one));
		/* Room for the number of those that have none. */
		if (used + strlen(one) + 32 > USERS_TEXT_SIZE)
			break;
		n = snprintf(ret + used, USERS_TEXT_SIZE - used, "%s%s",
			     named ? ", " : "", one);
		used += (size_t)n;
	}
	if (named < users->n)
		(void)snprintf(ret + used, USERS_TEXT_SIZE - used,
			       " and %zu more", users->n - named);
}
