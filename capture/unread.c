#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "capture/table.h"

#include "capture/unread.h"

struct unread {
	struct unread *next;
	char *path;
	enum unread_kind kind;
	int error;
};

static const struct {
	const char *what, *then;
} sentences[] = {
	[UNREAD_FILE] = { "the file cannot be read",
			  "so if it is a database it is not replicated" },
	[UNREAD_DIRECTORY] = { "the directory cannot be read",
			       "so what is in it is not replicated" },
	[UNREAD_BEYOND] = { "something in the directory has too long a path",
			    "and is not replicated" },
};

static void unread_free(struct unread *u)
{
	free(u->path);
	free(u);
}

static bool is_noted(const struct capture *c, const char *path)
{
	for (const struct unread *u = c->unread; u; u = u->next)
		if (strcmp(u->path, path) == 0)
			return true;
	return false;
}

static void describe(const struct unread *u, char *ret, size_t size)
{
	(void)snprintf(ret, size, "%s (%s), %s", sentences[u->kind].what,
		       strerror(u->error), sentences[u->kind].then);
}

void unread_note(struct capture *c, const char *path, enum unread_kind kind,
		 int error)
{
	const struct unread told = { .kind = kind, .error = error };
	struct unread *u = calloc(1, sizeof(*u));
	char why[256];

	describe(&told, why, sizeof(why));
	log_warn("not looked at", "path=%s error=%s", log_quote(path),
		 log_quote(why));
	if (u)
		u->path = strdup(path);
	AUTO(unlock) pthread_mutex_t *held = lock(&c->table_lock);
	if (!u || !u->path || is_noted(c, path) || c->n_unread >= UNREAD_MAX) {
		if (u)
			unread_free(u);
		return;
	}
	u->kind = kind;
	u->error = error;
	u->next = c->unread;
	c->unread = u;
	c->n_unread++;
}

static struct unread *take_all(struct capture *c)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&c->table_lock);

	c->n_unread = 0;
	return TAKE(c->unread);
}

static void put_back(struct capture *c, struct unread *u)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&c->table_lock);

	if (is_noted(c, u->path)) {
		unread_free(u);
		return;
	}
	u->next = c->unread;
	c->unread = u;
	c->n_unread++;
}

/* 1: it can be read now; 0: it cannot; -ENOENT: it is gone. */
static int look(struct capture *c, const struct unread *u)
{
	AUTO(fd) int fd = openat(c->config.dirfd, u->path,
				 O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	if (fd >= 0)
		return u->kind != UNREAD_BEYOND;
	return errno == ENOENT || errno == ENOTDIR || errno == ELOOP ? -ENOENT :
								       0;
}

/* One that was taken up under this path tells itself what is wrong. */
static bool is_known(struct capture *c, const char *path)
{
	struct db *db = capture_find(c, path);

	capture_release(c, db);
	return db != NULL;
}

static int show(struct capture *c, const struct unread *u, capture_status_fn fn,
		void *arg)
{
	struct capture_status status = { 0 };

	if (is_known(c, u->path))
		return 0;
	(void)snprintf(status.path, sizeof(status.path), "%s", u->path);
	describe(u, status.error, sizeof(status.error));
	return fn(&status, arg);
}

static int compare_paths(const void *a, const void *b)
{
	const struct unread *x = *(struct unread *const *)a;
	const struct unread *y = *(struct unread *const *)b;

	return strcmp(x->path, y->path);
}

/* In order of path. */
static struct unread *sorted(struct unread *list, size_t n)
{
	AUTO(mem) struct unread **all = calloc(n + 1, sizeof(*all));
	struct unread *head = NULL;
	size_t i = 0;

	if (!all)
		return list;
	for (struct unread *u = list; u; u = u->next)
		all[i++] = u;
	qsort(all, i, sizeof(struct unread *), compare_paths);
	while (i > 0) {
		all[--i]->next = head;
		head = all[i];
	}
	return head;
}

int unread_each(struct capture *c, capture_status_fn fn, void *arg)
{
	struct unread *all = sorted(take_all(c), UNREAD_MAX);
	int rc = 0;

	while (all) {
		struct unread *u = all;
		int found = look(c, u);

		all = u->next;
		if (found == 0) {
			if (rc == 0)
				rc = show(c, u, fn, arg);
			put_back(c, u);
			continue;
		}
		if (found > 0)
			table_take_up(c, u->path);
		unread_free(u);
	}
	return rc;
}

void unread_free_all(struct capture *c)
{
	struct unread *all = take_all(c);

	while (all) {
		struct unread *u = all;

		all = u->next;
		unread_free(u);
	}
}
