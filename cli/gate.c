#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"

#include "cli/gate.h"

struct gate_entry {
	char *path;
	struct {
		enum gate_state state;
		int rc;
		char why[ERROR_MESSAGE_SIZE];
	} reasons[GATE_REASONS];
};

void gate_init(struct gate *g, void (*changed)(void *arg), void *arg)
{
	*g = (struct gate){
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.changed = changed,
		.arg = arg,
	};
}

static void free_entry(struct gate_entry *e)
{
	free(e->path);
	free(e);
}

void gate_cleanup(struct gate *g)
{
	for (size_t i = 0; i < g->n; i++)
		free_entry(g->entries[i]);
	free(g->entries);
	g->entries = NULL;
	g->n = g->capacity = 0;
	atomic_store(&g->held, 0);
	(void)pthread_mutex_destroy(&g->lock);
}

/* Where the first size bytes of path are, or belong.  The lock is held. */
static size_t find_place(const struct gate *g, const char *path, size_t size)
{
	size_t low = 0, high = g->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const char *other = g->entries[middle]->path;
		int order = strncmp(other, path, size);

		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct gate_entry *find_part(const struct gate *g, const char *path,
				    size_t size)
{
	size_t i = find_place(g, path, size);
	struct gate_entry *e = i < g->n ? g->entries[i] : NULL;

	return e && strncmp(e->path, path, size) == 0 && !e->path[size] ? e
									: NULL;
}

static struct gate_entry *find(const struct gate *g, const char *path)
{
	return find_part(g, path, strlen(path));
}

/* The lock is held. */
static int make_room(struct gate *g)
{
	size_t capacity = g->capacity ? 2 * g->capacity : 16;
	struct gate_entry **entries;

	if (g->n < g->capacity)
		return 0;
	entries =
		reallocarray(g->entries, capacity, sizeof(struct gate_entry *));
	if (!entries)
		return error_set(-ENOMEM, "no memory to hold a database back");
	g->entries = entries;
	g->capacity = capacity;
	return 0;
}

/* The lock is held. */
static int find_or_add(struct gate *g, const char *path,
		       struct gate_entry **ret)
{
	struct gate_entry *e = find(g, path);
	size_t place = find_place(g, path, strlen(path));

	if (!e) {
		if (make_room(g) < 0)
			return -ENOMEM;
		e = calloc(1, sizeof(*e));
		if (e)
			e->path = strdup(path);
		if (!e || !e->path) {
			free(e);
			return error_set(-ENOMEM, "no memory to hold '%s' back",
					 path);
		}
		memmove(g->entries + place + 1, g->entries + place,
			(g->n - place) * sizeof(struct gate_entry *));
		g->entries[place] = e;
		atomic_store(&g->held, (unsigned)++g->n);
	}
	*ret = e;
	return 0;
}

static void tell(struct gate *g)
{
	if (g->changed)
		g->changed(g->arg);
}

int gate_pend(struct gate *g, const char *path, enum gate_reason reason)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&g->lock);
	struct gate_entry *e;
	int rc = find_or_add(g, path, &e);

	if (rc == 0)
		e->reasons[reason].state = GATE_PENDING;
	return rc;
}

/* Was something else said for this reason before? */
static int enter_why(struct gate *g, const char *path, enum gate_reason reason,
		     int rc, const char *why, bool *ret_news)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&g->lock);
	struct gate_entry *e;
	int failed = find_or_add(g, path, &e);

	if (failed < 0)
		return failed;
	*ret_news = strncmp(e->reasons[reason].why, why,
			    sizeof(e->reasons[reason].why) - 1) != 0;
	e->reasons[reason].state = GATE_CLOSED;
	e->reasons[reason].rc = rc;
	(void)snprintf(e->reasons[reason].why, sizeof(e->reasons[reason].why),
		       "%s", why);
	return 0;
}

int gate_close(struct gate *g, const char *path, enum gate_reason reason,
	       int rc, const char *why)
{
	bool news = false;
	int failed = enter_why(g, path, reason, rc, why, &news);

	if (failed < 0)
		return failed;
	if (news)
		log_error("database is closed", "db=%s error=%s",
			  log_quote(path), log_quote(why));
	tell(g);
	return 0;
}

static bool is_held(const struct gate_entry *e)
{
	for (int i = 0; i < GATE_REASONS; i++)
		if (e->reasons[i].state != GATE_OPEN)
			return true;
	return false;
}

/* The lock is held. */
static void take_out(struct gate *g, const char *path)
{
	size_t place = find_place(g, path, strlen(path));

	free_entry(g->entries[place]);
	memmove(g->entries + place, g->entries + place + 1,
		(g->n - place - 1) * sizeof(struct gate_entry *));
	atomic_store(&g->held, (unsigned)--g->n);
}

void gate_lift(struct gate *g, const char *path, enum gate_reason reason)
{
	{
		AUTO(unlock) pthread_mutex_t *held = lock(&g->lock);
		struct gate_entry *e = find(g, path);

		if (!e)
			return;
		e->reasons[reason].state = GATE_OPEN;
		e->reasons[reason].why[0] = '\0';
		if (!is_held(e))
			take_out(g, path);
	}
	tell(g);
}

/* The worst of two answers. */
static int worst(int a, int b)
{
	if (a == 0 || (a == -EAGAIN && b != 0))
		return b;
	return a;
}

static int admit_entry(const struct gate_entry *e)
{
	int rc = 0;

	for (int i = 0; e && i < GATE_REASONS; i++) {
		if (e->reasons[i].state == GATE_PENDING)
			rc = worst(rc, -EAGAIN);
		if (e->reasons[i].state == GATE_CLOSED)
			rc = worst(rc, e->reasons[i].rc);
	}
	return rc;
}

/* All below path as a directory.  The lock is held. */
static int admit_below(const struct gate *g, const char *path)
{
	size_t size = strlen(path);
	int rc = 0;

	/* Names like "path-x" come between path and what is below it. */
	for (size_t i = find_place(g, path, size);
	     i < g->n && strncmp(g->entries[i]->path, path, size) == 0; i++)
		if (size == 0 || g->entries[i]->path[size] == '/')
			rc = worst(rc, admit_entry(g->entries[i]));
	return rc;
}

int gate_admit(struct gate *g, const char *path, bool below)
{
	static const char *const sides[] = { "", "-wal", "-shm", "-journal" };
	size_t size = strlen(path);
	int rc = 0;

	if (atomic_load(&g->held) == 0)
		return 0;
	AUTO(unlock) pthread_mutex_t *held = lock(&g->lock);
	for (int i = 0; i < 4; i++) {
		size_t side = strlen(sides[i]);

		if (side < size && strcmp(path + size - side, sides[i]) == 0)
			rc = worst(rc, admit_entry(find_part(g, path,
							     size - side)));
	}
	return below ? worst(rc, admit_below(g, path)) : rc;
}

/* Append a sentence, as far as there is room. */
static void append(char ret[GATE_WHY_SIZE], const char *why)
{
	size_t size = strlen(ret);

	(void)snprintf(ret + size, GATE_WHY_SIZE - size, "%s%s",
		       size ? "; " : "", why);
}

enum gate_state gate_look(struct gate *g, const char *path,
			  char ret_why[GATE_WHY_SIZE])
{
	AUTO(unlock) pthread_mutex_t *held = lock(&g->lock);
	const struct gate_entry *e = find(g, path);
	enum gate_state state = GATE_OPEN;

	ret_why[0] = '\0';
	for (int i = 0; e && i < GATE_REASONS; i++) {
		if (e->reasons[i].state > state)
			state = e->reasons[i].state;
		if (e->reasons[i].state == GATE_CLOSED)
			append(ret_why, e->reasons[i].why);
	}
	return state;
}

/* A copy of the path of the first entry behind path, or NULL. */
static char *next_path(struct gate *g, const char *path)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&g->lock);
	size_t i = path ? find_place(g, path, strlen(path)) : 0;

	if (path && i < g->n && strcmp(g->entries[i]->path, path) == 0)
		i++;
	return i < g->n ? strdup(g->entries[i]->path) : NULL;
}

int gate_each(struct gate *g, int (*fn)(const char *path, void *arg), void *arg)
{
	char *path = NULL;
	int rc = 0;

	while (rc == 0) {
		char *next = next_path(g, path);

		free(path);
		path = next;
		if (!path)
			return 0;
		rc = fn(path, arg);
	}
	free(path);
	return rc;
}
