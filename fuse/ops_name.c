#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "capture/capture.h"

#include "fuse/ops.h"

/* A name that is not there is remembered by the kernel, too. */
static void reply_absent(fuse_req_t req)
{
	const struct fuse_entry_param absent = {.entry_timeout = FOREVER};

	(void)fuse_reply_entry(req, &absent);
}

static void op_lookup(fuse_req_t req, fuse_ino_t number, const char *name)
{
	struct mount *m = mount_of(req);
	struct inode *parent = inode_of_request(req, number);
	struct fuse_entry_param entry;
	struct inode *inode;
	int rc;

	/* The next one who asks may be the follower, or not any more. */
	if (ops_hidden(req, parent, name)) {
		(void)fuse_reply_err(req, ENOENT);
		return;
	}
	rc = ops_fill_entry(m, parent, name, -1, &inode, &entry);
	if (ops_is_hidden_name(m, parent, name))
		entry.entry_timeout = 0;
	if (rc == -ENOENT)
		reply_absent(req);
	else if (rc < 0)
		reply_result(req, rc);
	else if (fuse_reply_entry(req, &entry) == -ENOENT)
		ops_forget(m, inode, 1);
}

static void op_forget(fuse_req_t req, fuse_ino_t number, uint64_t lookups)
{
	struct mount *m = mount_of(req);
	struct inode *inode = inode_of_request(req, number);

	fuse_reply_none(req);
	ops_forget(m, inode, lookups);
}

static void op_forget_multi(fuse_req_t req, size_t count,
			    struct fuse_forget_data *forgets)
{
	struct mount *m = mount_of(req);

	for (size_t i = 0; i < count; i++)
		ops_forget(m, inode_of(&m->inodes, forgets[i].ino),
			   forgets[i].nlookup);
	fuse_reply_none(req);
}

static void op_readlink(fuse_req_t req, fuse_ino_t number)
{
	struct inode *inode = inode_of_request(req, number);
	char target[PATH_MAX + 1];
	ssize_t n = readlinkat(inode->fd, "", target, sizeof(target) - 1);

	if (n < 0) {
		reply_errno(req);
		return;
	}
	target[n] = '\0';
	(void)fuse_reply_readlink(req, target);
}

static void op_rmdir(fuse_req_t req, fuse_ino_t number, const char *name)
{
	struct mount *m = mount_of(req);
	struct inode *parent = inode_of_request(req, number);

	if (ops_hidden(req, parent, name)) {
		(void)fuse_reply_err(req, ENOENT);
		return;
	}
	if (unlinkat(parent->fd, name, AT_REMOVEDIR) < 0) {
		reply_errno(req);
		return;
	}
	inode_unlinked(&m->inodes, parent, name);
	(void)fuse_reply_err(req, 0);
}

/* An unlink or a rename: the names are in one block after the struct. */
struct name_task {
	struct task task;
	fuse_req_t req;
	struct inode *parent, *new_parent;
	const char *name, *new_name; /* new_name: "" for an unlink */
	unsigned flags;
	enum capture_wait wait;
	struct db *db; /* that an unlink commits to, to be confirmed; or NULL */
	char block[];
};

static void park(fuse_req_t req, void (*run)(struct task *task),
		 const struct name_task *args)
{
	size_t size = strlen(args->name) + 1;
	size_t new_size = strlen(args->new_name) + 1;
	struct name_task *t = malloc(sizeof(*t) + size + new_size);

	if (!t) {
		capture_forget_db(args->db);
		(void)fuse_reply_err(req, ENOMEM);
		return;
	}
	*t = *args;
	t->task.run = run;
	t->req = req;
	t->name = memcpy(t->block, args->name, size);
	t->new_name = memcpy(t->block + size, args->new_name, new_size);
	workers_park(ops_pool(mount_of(req), t->wait), &t->task);
}

/*
 * db: to be confirmed, or NULL; it is given back.  Where it is not, EINTR makes the
 * kernel look the name up again (fuse_unlink); after others it goes on believing
 * in it.
 */
static void unlink_now(fuse_req_t req, struct inode *parent, const char *name,
		       struct db *db)
{
	struct mount *m = mount_of(req);
	char path[INODE_PATH_SIZE];
	int rc;

	/* Capture has nothing to do with a path longer than a path can be. */
	if (inode_child_path(&m->inodes, parent, name, path) == 0)
		rc = capture_unlink(m->config.capture, parent->fd, name, path);
	else
		rc = unlinkat(parent->fd, name, 0) < 0 ? -errno : 0;
	if (rc < 0) {
		capture_forget_db(db);
		reply_result(req, rc);
		return;
	}
	inode_unlinked(&m->inodes, parent, name);
	reply_result(req, ops_confirm(req, db) ? 0 : -EINTR);
}

static void unlink_parked(struct task *task)
{
	struct name_task *t = (struct name_task *)task;

	unlink_now(t->req, t->parent, t->name, t->db);
	free(t);
}

/* Would capture make us wait before this name may go? */
static enum capture_wait may_wait(struct mount *m, struct inode *parent,
				  const char *name, struct db **ret_db)
{
	char path[INODE_PATH_SIZE];

	if (inode_child_path(&m->inodes, parent, name, path) < 0)
		return CAPTURE_AT_ONCE;
	return capture_path_may_wait(m->config.capture, path, CAPTURE_UNLINK,
				     ret_db);
}

/* A rename ends no transaction of anybody's who waits for the bucket. */
static bool rename_may_wait(struct mount *m, struct inode *parent,
			    const char *name)
{
	struct db *db = NULL;
	enum capture_wait wait = may_wait(m, parent, name, &db);

	capture_forget_db(db);
	return wait != CAPTURE_AT_ONCE;
}

static void op_unlink(fuse_req_t req, fuse_ino_t number, const char *name);

static void unlink_again(fuse_req_t req, const struct held_args *args)
{
	op_unlink(req, args->number, args->name);
}

static void op_unlink(fuse_req_t req, fuse_ino_t number, const char *name)
{
	const struct held_args held = { .number = number, .name = name };
	struct mount *m = mount_of(req);
	struct name_task args = {
		.parent = inode_of_request(req, number),
		.name = name,
		.new_name = "",
	};

	if (ops_hidden(req, args.parent, name))
		(void)fuse_reply_err(req, ENOENT);
	else if (!held_admits(req, &held, false, unlink_again))
		return;
	else if (ops_guards_name(req, args.parent, name))
		(void)fuse_reply_err(req, EROFS);
	else if ((args.wait = may_wait(m, args.parent, name, &args.db)))
		park(req, unlink_parked, &args);
	else
		unlink_now(req, args.parent, name, NULL);
}

/* The system call and both tables; spare is taken over. */
static int rename_captured(struct mount *m, const struct name_task *t,
			   struct inode_name *spare)
{
	AUTO(mem) struct inode_name *owned = spare;
	char path[INODE_PATH_SIZE], new_path[INODE_PATH_SIZE];
	int rc;

	if (inode_child_path(&m->inodes, t->parent, t->name, path) == 0 &&
	    inode_child_path(&m->inodes, t->new_parent, t->new_name,
			     new_path) == 0)
		rc = capture_rename(m->config.capture, t->parent->fd, t->name,
				    path, t->new_parent->fd, t->new_name,
				    new_path, t->flags);
	else
		rc = renameat2(t->parent->fd, t->name, t->new_parent->fd,
			       t->new_name, t->flags) < 0
			     ? -errno
			     : 0;
	if (rc < 0)
		return rc;
	inode_renamed(&m->inodes, t->parent, t->name, t->new_parent,
		      TAKE(owned));
	return 0;
}

static void rename_now(fuse_req_t req, const struct name_task *t)
{
	/* What may fail for want of memory comes before what cannot be undone. */
	struct inode_name *spare = inode_name_new(t->new_name);

	if (spare)
		reply_result(req, rename_captured(mount_of(req), t, spare));
	else
		(void)fuse_reply_err(req, ENOMEM);
}

static void rename_parked(struct task *task)
{
	struct name_task *t = (struct name_task *)task;

	rename_now(t->req, t);
	free(t);
}

static void op_rename(fuse_req_t req, fuse_ino_t number, const char *name,
		      fuse_ino_t new_number, const char *new_name,
		      unsigned flags);

static void rename_again(fuse_req_t req, const struct held_args *args)
{
	op_rename(req, args->number, args->name, args->new_number,
		  args->new_name, args->flags);
}

static void op_rename(fuse_req_t req, fuse_ino_t number, const char *name,
		      fuse_ino_t new_number, const char *new_name,
		      unsigned flags)
{
	const struct held_args held = {
		.number = number,
		.name = name,
		.new_number = new_number,
		.new_name = new_name,
		.flags = flags,
	};
	struct mount *m = mount_of(req);
	const struct name_task args = {
		.parent = inode_of_request(req, number),
		.new_parent = inode_of_request(req, new_number),
		.name = name,
		.new_name = new_name,
		.flags = flags,
	};

	if (ops_hidden(req, args.parent, name))
		(void)fuse_reply_err(req, ENOENT);
	else if (ops_hidden(req, args.new_parent, new_name))
		(void)fuse_reply_err(req, EPERM);
	else if (flags & ~(unsigned)RENAME_NOREPLACE)
		(void)fuse_reply_err(req, EINVAL); /* two renames do, too */
	else if (!held_admits(req, &held, true, rename_again))
		return;
	else if (ops_guards_name(req, args.parent, name) ||
		 ops_guards_name(req, args.new_parent, new_name))
		(void)fuse_reply_err(req, EROFS);
	else if (rename_may_wait(m, args.parent, name) ||
		 rename_may_wait(m, args.new_parent, new_name))
		park(req, rename_parked, &args);
	else
		rename_now(req, &args);
}

void ops_name_fill(struct fuse_lowlevel_ops *ops)
{
	ops->lookup = op_lookup;
	ops->forget = op_forget;
	ops->forget_multi = op_forget_multi;
	ops->readlink = op_readlink;
	ops->rmdir = op_rmdir;
	ops->unlink = op_unlink;
	ops->rename = op_rename;
}
