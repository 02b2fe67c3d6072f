#include "base/cleanup.h"
#include "base/cond.h"

#include "fuse/notifier.h"

int notifier_init(struct notifier *n)
{
	int rc = cond_init(&n->changed);

	if (rc < 0)
		return rc;
	(void)pthread_mutex_init(&n->lock, NULL);
	n->open = false;
	n->telling = 0;
	return 0;
}

void notifier_cleanup(struct notifier *n)
{
	(void)pthread_cond_destroy(&n->changed);
	(void)pthread_mutex_destroy(&n->lock);
}

void notifier_open(struct notifier *n)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&n->lock);

	n->open = true;
}

void notifier_close(struct notifier *n)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&n->lock);

	n->open = false;
	while (n->telling)
		(void)cond_wait_until(&n->changed, &n->lock, COND_NEVER);
}

bool notifier_begin(struct notifier *n)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&n->lock);

	if (n->open)
		n->telling++;
	return n->open;
}

void notifier_end(struct notifier *n)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&n->lock);

	if (--n->telling == 0)
		(void)pthread_cond_broadcast(&n->changed);
}
