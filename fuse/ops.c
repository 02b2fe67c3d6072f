#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/error.h"

#include "fuse/ops.h"

/* Freeing the blocks of a deleted file above this takes noticeable time. */
enum {
	LARGE_BLOCKS = 64 << 11
}; /* of 512 bytes: 64 MiB */

bool ops_is_hidden_name(struct mount *m, const struct inode *parent,
			const char *name)
{
	return parent == &m->inodes.root && strcmp(name, HIDDEN_NAME) == 0;
}

bool ops_hidden(fuse_req_t req, const struct inode *parent, const char *name)
{
	return ops_is_hidden_name(mount_of(req), parent, name) &&
	       !ops_is_follower(req);
}

struct fd_name ops_fd_name(int fd)
{
	struct fd_name name;

	(void)snprintf(name.text, sizeof(name.text), "%d", fd);
	return name;
}

int ops_reopen(struct mount *m, int fd, int flags)
{
	return openat(m->proc_fd, ops_fd_name(fd).text, flags | O_CLOEXEC);
}

int ops_fill_entry(struct mount *m, struct inode *parent, const char *name,
		   int fd, struct inode **ret, struct fuse_entry_param *ret_e)
{
	int rc;

	if (fd < 0)
		fd = openat(parent->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return error_errno("opening '%s'", name);
	memset(ret_e, 0, sizeof(*ret_e));
	rc = inode_add(&m->inodes, parent, name, fd, ret, &ret_e->attr);
	if (rc < 0)
		return rc;
	ret_e->ino = inode_number(&m->inodes, *ret);
	ret_e->generation = (*ret)->generation;
	ret_e->attr_timeout = FOREVER;
	ret_e->entry_timeout = FOREVER;
	return 0;
}

void ops_reply_entry(fuse_req_t req, struct inode *parent, const char *name)
{
	struct mount *m = mount_of(req);
	struct fuse_entry_param entry;
	struct inode *inode;
	int rc = ops_fill_entry(m, parent, name, -1, &inode, &entry);

	if (rc < 0)
		reply_result(req, rc);
	else if (fuse_reply_entry(req, &entry) == -ENOENT)
		ops_forget(m, inode, 1); /* the kernel did not take it */
}

struct disposal {
	struct task task;
	struct inode *inode;
};

static void dispose(struct task *task)
{
	struct disposal *d = (struct disposal *)task;

	inode_free(d->inode);
	free(d);
}

/* Is ours the last hold on a large file? */
static bool slow_to_close(const struct inode *inode)
{
	struct stat st;

	return inode->type == S_IFREG &&
	       fstatat(inode->fd, "", &st, AT_EMPTY_PATH) == 0 &&
	       st.st_nlink == 0 && st.st_blocks > LARGE_BLOCKS;
}

static void free_inode(struct mount *m, struct inode *inode)
{
	struct disposal *d = NULL;

	if (slow_to_close(inode))
		d = calloc(1, sizeof(*d));
	if (!d) {
		inode_free(inode);
		return;
	}
	d->task.run = dispose;
	d->inode = inode;
	workers_park(&m->workers, &d->task);
}

void ops_forget(struct mount *m, struct inode *inode, uint64_t lookups)
{
	struct inode *dead = inode_forget(&m->inodes, inode, lookups);

	while (dead) {
		struct inode *next = dead->next_dead;

		free_inode(m, dead);
		dead = next;
	}
}
