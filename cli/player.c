#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "cli/helper.h"

#include "cli/player.h"

enum {
	/* A large transaction takes a while; so may who has it open. */
	PLAY_MS = 60000
};

struct item {
	struct item *next;
	char path[];
};

struct player {
	struct helper *helper;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;

	/* Guarded by lock. */
	struct item *items;
	bool started, stopping;
};

void player_add(struct player *p, const char *path)
{
	size_t size = strlen(path) + 1;
	struct item *item = malloc(sizeof(*item) + size);

	if (!item)
		return;
	memcpy(item->path, path, size);
	AUTO(unlock) pthread_mutex_t *held = lock(&p->lock);
	item->next = p->items;
	p->items = item;
	(void)pthread_cond_signal(&p->changed);
}

void player_start(struct player *p)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&p->lock);

	p->started = true;
	(void)pthread_cond_signal(&p->changed);
}

/* Waits for one; NULL: it is over. */
static struct item *take(struct player *p)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&p->lock);
	struct item *item;

	while (!p->stopping && (!p->started || !p->items))
		(void)pthread_cond_wait(&p->changed, &p->lock);
	if (p->stopping)
		return NULL;
	item = p->items;
	p->items = item->next;
	return item;
}

static void play(struct player *p, const char *path)
{
	int rc = helper_play(p->helper, path, PLAY_MS);

	if (rc == 0)
		log_info("a transaction of several databases was interrupted; "
			 "SQLite has dealt with its journal",
			 "db=%s", log_quote(path));
	else if (rc > 0)
		log_warn("a transaction of several databases was interrupted, "
			 "under another path than that of this mount; who "
			 "opens the database first plays its journal back",
			 "db=%s", log_quote(path));
	else
		log_warn("the journal of a transaction of several databases "
			 "is left to who opens the database first",
			 "db=%s error=%s", log_quote(path),
			 log_quote(error_message()));
}

static void *run(void *arg)
{
	struct player *p = arg;
	struct item *item;

	while ((item = take(p))) {
		play(p, item->path);
		free(item);
	}
	return NULL;
}

int player_new(struct helper *helper, struct player **ret)
{
	AUTO(mem) struct player *p = calloc(1, sizeof(*p));
	int rc;

	if (!p)
		return error_set(-ENOMEM, "no memory for a mount");
	p->helper = helper;
	(void)pthread_mutex_init(&p->lock, NULL);
	(void)pthread_cond_init(&p->changed, NULL);
	rc = pthread_create(&p->thread, NULL, run, p);
	if (rc)
		return error_set(-rc, "starting a thread: %s", strerror(rc));
	*ret = TAKE(p);
	return 0;
}

void player_free(struct player *p)
{
	if (!p)
		return;
	(void)pthread_mutex_lock(&p->lock);
	p->stopping = true;
	(void)pthread_cond_signal(&p->changed);
	(void)pthread_mutex_unlock(&p->lock);
	(void)pthread_join(p->thread, NULL);
	while (p->items) {
		struct item *item = p->items;

		p->items = item->next;
		free(item);
	}
	(void)pthread_cond_destroy(&p->changed);
	(void)pthread_mutex_destroy(&p->lock);
	free(p);
}
