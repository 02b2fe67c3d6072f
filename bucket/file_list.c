/*
 * Keys and directories have different trees: DB/0009/<name>.ltx lies at
 * DB/ltx/9/<name>.ltx (file_path.h).  This walks the tree of the keys, whose
 * directory D has these entries:
 *
 *	1. what is in the directory D itself, except LTX files at a place that
 *	   belongs to other keys or to none;
 *	2. for each directory D/ltx/<n> a directory <n, 4 hex digits>;
 *	3. if D ends in such a level: the LTX files of its D/../ltx/<n>.
 *
 * A directory's name carries its "/" while it is sorted, which makes the order
 * of names that of the keys below them: "a.b" comes before "a/".
 */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "bucket/file_path.h"

#include "bucket/file_list.h"

/* Names held at a time; a directory with more is read more than once. */
enum { BATCH = 8192 };

/* A directory entry, perhaps with a "/" behind. */
enum { NAME_SIZE = NAME_MAX + 2 };

struct walk {
	int root;
	const char *prefix;
	const char *after;
	size_t left; /* of the limit; SIZE_MAX without one */
	bucket_list_fn fn;
	void *arg;
	/* The directory of the object last looked at. */
	int dir;
	char dir_path[FILE_PATH_MAX];
};

/*
 * The smallest names of a directory that come after another: up to max of
 * them, and while they are gathered up to twice as many.
 */
struct names {
	char **items;
	size_t n;
	size_t max;
	bool cut; /* there are more; none of them is below items[max - 1] */
};

static void names_cleanup(struct names *names)
{
	for (size_t i = 0; i < names->n; i++)
		free(names->items[i]);
	free(names->items);
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sort, drop what is twice there, keep the max smallest. */
static void names_settle(struct names *names)
{
	size_t kept = 0;

	if (names->n == 0)
		return;
	qsort(names->items, names->n, sizeof(*names->items), compare_names);
	for (size_t i = 0; i < names->n; i++) {
		bool twice = kept > 0 && strcmp(names->items[kept - 1],
						names->items[i]) == 0;

		if (!twice && kept == names->max)
			names->cut = true;
		if (twice || kept == names->max)
			free(names->items[i]);
		else
			names->items[kept++] = names->items[i];
	}
	names->n = kept;
}

static int names_add(struct names *names, const char *name)
{
	char *copy;

	if (names->cut && strcmp(name, names->items[names->max - 1]) > 0)
		return 0;
	if (!names->items)
		names->items = calloc(2 * names->max, sizeof(*names->items));
	copy = names->items ? strdup(name) : NULL;
	if (!copy)
		return error_set(-ENOMEM, "listing: out of memory");
	names->items[names->n++] = copy;
	if (names->n == 2 * names->max)
		names_settle(names);
	return 0;
}

static bool starts_with(const char *text, const char *prefix)
{
	return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* Can the key, or one below it if it is a directory ("a/"), be wanted? */
static bool is_wanted(const struct walk *w, const char *key, bool directory)
{
	bool in_prefix = starts_with(key, w->prefix) ||
			 (directory && starts_with(w->prefix, key));
	bool is_after = strcmp(key, w->after) > 0 ||
			(directory && starts_with(w->after, key));

	return in_prefix && is_after;
}

/* One reading of a directory of the key tree. */
struct reading {
	const struct walk *walk;
	const char *key;  /* "" or ending in "/" */
	const char *from; /* names up to this one were given before */
	struct names *names;
};

/* An entry of the key tree; names that cannot be part of a key are none. */
static int gather(const struct reading *r, const char *name, bool directory)
{
	char entry[NAME_SIZE], key[BUCKET_KEY_MAX];

	if (bucket_key_check(name) < 0)
		return 0;
	(void)snprintf(entry, sizeof(entry), "%s%s", name,
		       directory ? "/" : "");
	if (strcmp(entry, r->from) <= 0 ||
	    snprintf(key, sizeof(key), "%s%s", r->key, entry) >=
		    (int)sizeof(key) ||
	    !is_wanted(r->walk, key, directory))
		return 0;
	return names_add(r->names, entry);
}

/* The last component of a directory's key. */
static const char *last_component(const char *key, size_t *ret_length)
{
	size_t end = strlen(key);
	size_t begin;

	end -= end > 0; /* its slash */
	begin = end;
	while (begin > 0 && key[begin - 1] != '/')
		begin--;
	*ret_length = end - begin;
	return key + begin;
}

/* Do LTX files right in this directory have their keys elsewhere? */
static bool hides_ltx(const char *key)
{
	size_t length;
	const char *last = last_component(key, &length);

	if (file_path_key_level(last, length) >= 0)
		return true;
	if (file_path_dir_level(last, length) < 0)
		return false;
	return last - key == 4 ? starts_with(key, "ltx/") :
				 last - key > 4 && starts_with(last - 5, "/ltx/");
}

/* The three kinds of entries, from a file or directory that was found. */
static int gather_own(const struct reading *r, const char *name,
		      bool directory)
{
	if (!directory && file_path_is_ltx(name) && hides_ltx(r->key))
		return 0;
	return gather(r, name, directory);
}

static int gather_level(const struct reading *r, const char *name,
			bool directory)
{
	int level = file_path_dir_level(name, strlen(name));
	char as_key[FILE_LEVEL_SIZE];

	if (!directory || level < 0)
		return 0;
	(void)snprintf(as_key, sizeof(as_key), "%04x", (unsigned)level);
	return gather(r, as_key, true);
}

static int gather_ltx(const struct reading *r, const char *name,
		      bool directory)
{
	if (directory || !file_path_is_ltx(name))
		return 0;
	return gather(r, name, false);
}

/* Is it a file or a directory?  Other things are not ours. */
static bool kind_of(int dir, const struct dirent *entry, bool *ret_directory)
{
	struct stat st = { 0 };

	if (entry->d_type == DT_UNKNOWN)
		(void)fstatat(dir, entry->d_name, &st, AT_SYMLINK_NOFOLLOW);
	*ret_directory = entry->d_type == DT_DIR || S_ISDIR(st.st_mode);
	return *ret_directory || entry->d_type == DT_REG ||
	       S_ISREG(st.st_mode);
}

static void dir_cleanup(DIR **dir)
{
	if (*dir)
		(void)closedir(*dir);
}

/* Give each entry of the directory at path to fn; a missing one has none. */
static int scan(const struct reading *r, const char *path,
		int (*fn)(const struct reading *r, const char *name,
			  bool directory))
{
	int fd = file_path_open_dir(r->walk->root, path, false);

	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	AUTO(dir) DIR *dir = fdopendir(fd);
	if (!dir) {
		(void)close(fd);
		return error_set(-ENOMEM, "listing '%s': out of memory", path);
	}
	for (;;) {
		const struct dirent *entry;
		bool directory;
		int rc;

		errno = 0;
		entry = readdir(dir);
		if (!entry)
			return errno ? error_errno("listing '%s'", path) : 0;
		if (!kind_of(fd, entry, &directory))
			continue;
		rc = fn(r, entry->d_name, directory);
		if (rc < 0)
			return rc;
	}
}

/* The smallest names, after from, of the directory that key is. */
static int read_names(const struct walk *w, const char *key, const char *from,
		      struct names *names)
{
	struct reading r = { w, key, from, names };
	char path[FILE_PATH_MAX];
	size_t length;
	const char *last = last_component(key, &length);
	int level = file_path_key_level(last, length);
	int rc;

	rc = scan(&r, key, gather_own);
	if (rc < 0)
		return rc;
	(void)snprintf(path, sizeof(path), "%sltx", key);
	rc = scan(&r, path, gather_level);
	if (rc == 0 && level >= 0) {
		(void)snprintf(path, sizeof(path), "%.*sltx/%d",
			       (int)(last - key), key, level);
		rc = scan(&r, path, gather_ltx);
	}
	names_settle(names);
	return rc;
}

/* Look at the object; 1 if it went away since its directory was read. */
static int stat_object(struct walk *w, const char *key, struct stat *ret)
{
	char path[FILE_PATH_MAX];
	const char *slash;
	size_t length;
	int rc = file_path_of_key(key, path);

	if (rc < 0)
		return rc;
	slash = strrchr(path, '/');
	length = slash ? (size_t)(slash - path) : 0;
	if (w->dir < 0 || strlen(w->dir_path) != length ||
	    memcmp(w->dir_path, path, length) != 0) {
		fd_cleanup(&w->dir);
		memcpy(w->dir_path, path, length);
		w->dir_path[length] = '\0';
		w->dir = file_path_open_dir(w->root, w->dir_path, false);
	}
	if (w->dir < 0)
		return w->dir == -ENOENT ? 1 : w->dir;
	if (fstatat(w->dir, slash ? slash + 1 : path, ret,
		    AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 1 : error_errno("looking at '%s'", key);
	return S_ISREG(ret->st_mode) ? 0 : 1;
}

static int give_object(struct walk *w, const char *key)
{
	struct stat st;
	struct bucket_object object = { .key = key };
	int rc = stat_object(w, key, &st);

	if (rc != 0)
		return rc < 0 ? rc : 0;
	object.size = (uint64_t)st.st_size;
	object.modified_ms = (int64_t)st.st_mtim.tv_sec * 1000 +
			     st.st_mtim.tv_nsec / 1000000;
	w->left--;
	return w->fn(&object, w->arg);
}

static int walk_dir(struct walk *w, const char *key);

static int visit(struct walk *w, const char *dir, const char *name)
{
	char key[BUCKET_KEY_MAX];

	(void)snprintf(key, sizeof(key), "%s%s", dir, name);
	if (name[strlen(name) - 1] == '/')
		return walk_dir(w, key);
	return give_object(w, key);
}

static int walk_dir(struct walk *w, const char *key)
{
	char from[NAME_SIZE] = "";
	bool more = true;

	while (more && w->left > 0) {
		AUTO(names) struct names names = {
			.max = w->left < BATCH ? w->left : BATCH,
		};
		int rc = read_names(w, key, from, &names);

		for (size_t i = 0; rc == 0 && i < names.n && w->left > 0; i++)
			rc = visit(w, key, names.items[i]);
		if (rc != 0)
			return rc;
		more = names.cut;
		if (more)
			(void)snprintf(from, sizeof(from), "%s",
				       names.items[names.n - 1]);
	}
	return 0;
}

int file_list(int root, const char *prefix, const char *after, size_t limit,
	      bucket_list_fn fn, void *arg)
{
	struct walk w = {
		.root = root,
		.prefix = prefix,
		.after = after,
		.left = limit ? limit : SIZE_MAX,
		.fn = fn,
		.arg = arg,
		.dir = -1,
	};
	const char *slash = strrchr(prefix, '/');
	char start[BUCKET_KEY_MAX];
	int rc;

	/* Above the prefix's last slash there is nothing to choose from. */
	(void)snprintf(start, sizeof(start), "%.*s",
		       slash ? (int)(slash - prefix) + 1 : 0, prefix);
	rc = is_wanted(&w, start, true) ? walk_dir(&w, start) : 0;
	fd_cleanup(&w.dir);
	return rc;
}
