#ifndef LITEBUCKET_FUSE_NOTIFIER_H
#define LITEBUCKET_FUSE_NOTIFIER_H

/*
 * Who tells the kernel to forget something, between _begin and _end
 * =================================================================
 *
 * The kernel takes what it is told under locks of its own, which somebody may hold
 * who waits for an answer from us; and it keeps the connection meanwhile, so that
 * that cannot be cut.  So before requests are no longer answered, everybody has to
 * have finished, and nobody may begin any more.
 */
#include <pthread.h>
#include <stdbool.h>

struct notifier {
	pthread_mutex_t lock;
	pthread_cond_t changed; /* nobody is telling it anything */

	/* Guarded by lock. */
	bool open;	  /* it may be told something */
	unsigned telling; /* that many do */
};

/* It is closed at first: the kernel knows nothing yet. */
int notifier_init(struct notifier *n);
void notifier_cleanup(struct notifier *n);

void notifier_open(struct notifier *n);

/* Returns when nobody is telling the kernel anything, and nobody will. */
void notifier_close(struct notifier *n);

/* False: the kernel is to be told nothing, and there is no _end. */
bool notifier_begin(struct notifier *n);
void notifier_end(struct notifier *n);

#endif
