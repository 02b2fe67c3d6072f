#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "capture/capture.h"
#include "fuse/inode.h"

#include "fuse/handle.h"

void handles_init(struct handles *h, struct capture *capture,
		  struct inode_table *inodes)
{
	h->capture = capture;
	h->inodes = inodes;
	h->first = NULL;
	h->count = 0;
	(void)pthread_mutex_init(&h->lock, NULL);
}

void handles_cleanup(struct handles *h)
{
	while (h->first)
		handle_close(h, h->first);
	(void)pthread_mutex_destroy(&h->lock);
}

unsigned handles_count(struct handles *h)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&h->lock);

	return h->count;
}

static void enter(struct handles *h, struct handle *handle)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&h->lock);

	handle->next = h->first;
	handle->link = &h->first;
	if (handle->next)
		handle->next->link = &handle->next;
	h->first = handle;
	h->count++;
}

static void leave(struct handles *h, struct handle *handle)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&h->lock);

	*handle->link = handle->next;
	if (handle->next)
		handle->next->link = handle->link;
	if (!handle->ours)
		h->count--;
}

static void uncount(struct handles *h)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&h->lock);

	h->count--;
}

void handle_disregard(struct handles *h, struct handle *handle)
{
	if (handle->ours)
		return;
	handle->ours = true;
	uncount(h);
	if (handle->captured)
		capture_closed(handle->captured, handle->writable);
}

/* Count an open; true if the inode has been open already. */
static bool share(struct inode_table *t, struct inode *inode,
		  struct capture_file **ret)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&t->lock);

	*ret = inode->captured;
	return inode->opens++ > 0;
}

static void publish(struct inode_table *t, struct inode *inode,
		    struct capture_file *file)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&t->lock);

	inode->captured = file;
}

/* Uncount it; the file to put if that was the last, else NULL. */
static struct capture_file *unshare_file(struct inode_table *t,
					 struct inode *inode)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&t->lock);

	return --inode->opens ? NULL : TAKE(inode->captured);
}

/*
 * Files are opened by the loop thread alone, so nobody shares an inode between
 * the first open's share() and its publish().
 */
static int acquire(struct handles *h, struct inode *inode,
		   struct capture_file **ret)
{
	char path[INODE_PATH_SIZE];
	int rc;

	if (share(h->inodes, inode, ret))
		return 0;
	rc = inode_path(h->inodes, inode, path);
	if (rc == 0)
		rc = capture_file_get(h->capture, path, ret);
	else
		rc = 0; /* no name, or none that capture could use */
	if (rc < 0)
		(void)unshare_file(h->inodes, inode);
	else
		publish(h->inodes, inode, *ret);
	return rc;
}

int handle_open(struct handles *h, struct inode *inode, int fd, int flags,
		struct handle **ret)
{
	AUTO(fd) int owned = fd;
	AUTO(mem) struct handle *handle = calloc(1, sizeof(*handle));
	int rc;

	if (!handle)
		return error_set(-ENOMEM, "no memory for an open file");
	rc = acquire(h, inode, &handle->captured);
	if (rc < 0)
		return rc;
	handle->fd = TAKE_FD(owned);
	handle->inode = inode;
	handle->writable = (flags & O_ACCMODE) != O_RDONLY;
	handle->synchronous = (flags & O_DSYNC) != 0;
	if (handle->captured)
		capture_opened(handle->captured, handle->writable);
	enter(h, handle);
	*ret = TAKE(handle);
	return 0;
}

void handle_close(struct handles *h, struct handle *handle)
{
	struct capture_file *last;

	leave(h, handle);
	(void)close(handle->fd);
	if (handle->captured && !handle->ours)
		capture_closed(handle->captured, handle->writable);
	last = unshare_file(h->inodes, handle->inode);
	if (last)
		capture_file_put(last);
	free(handle);
}
