#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "fuse/caller.h"

#include "fuse/ops.h"

static struct caller assume(fuse_req_t req)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct mount *m = mount_of(req);

	return caller_assume(m->privileged, ctx->uid, ctx->gid, ctx->umask,
			     m->own_umask);
}

/* Answer a creation that returned done: the new entry, or errno. */
static void reply_created(fuse_req_t req, struct inode *parent,
			  const char *name, int done)
{
	if (done < 0)
		reply_errno(req);
	else
		ops_reply_entry(req, parent, name);
}

/* True, and answered, if this name may not be made. */
static bool refused(fuse_req_t req, struct inode *parent, const char *name)
{
	if (ops_hidden(req, parent, name))
		(void)fuse_reply_err(req, EPERM);
	else if (ops_guards_new(req, parent, name))
		(void)fuse_reply_err(req, EROFS);
	else
		return false;
	return true;
}

static int make_node(fuse_req_t req, struct inode *parent, const char *name,
		     mode_t mode, dev_t device)
{
	AUTO(caller) struct caller as = assume(req);

	return mknodat(parent->fd, name, mode, device);
}

static void op_mknod(fuse_req_t req, fuse_ino_t number, const char *name,
		     mode_t mode, dev_t device)
{
	struct inode *parent = inode_of_request(req, number);

	if (!refused(req, parent, name))
		reply_created(req, parent, name,
			      make_node(req, parent, name, mode, device));
}

static int make_directory(fuse_req_t req, struct inode *parent,
			  const char *name, mode_t mode)
{
	AUTO(caller) struct caller as = assume(req);

	return mkdirat(parent->fd, name, mode);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t number, const char *name,
		     mode_t mode)
{
	struct inode *parent = inode_of_request(req, number);

	if (!refused(req, parent, name))
		reply_created(req, parent, name,
			      make_directory(req, parent, name, mode));
}

static int make_symlink(fuse_req_t req, struct inode *parent, const char *name,
			const char *target)
{
	AUTO(caller) struct caller as = assume(req);

	return symlinkat(target, parent->fd, name);
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t number,
		       const char *name)
{
	struct inode *parent = inode_of_request(req, number);

	if (!refused(req, parent, name))
		reply_created(req, parent, name,
			      make_symlink(req, parent, name, target));
}

/*
 * The kernel believes that the name is free.  If it is not, somebody has
 * worked in the backing directory; -ESTALE makes the kernel look again.
 */
static int create_file(fuse_req_t req, struct inode *parent, const char *name,
		       mode_t mode, int flags)
{
	AUTO(caller) struct caller as = assume(req);
	int keep = flags & (O_ACCMODE | O_SYNC);
	int fd = openat(parent->fd, name,
			keep | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);

	if (fd < 0 && errno == EEXIST && !(flags & O_EXCL))
		return -ESTALE;
	return fd < 0 ? -errno : fd;
}

/* The new file as an entry and as a handle; takes fd over. */
static int enter_file(struct mount *m, struct inode *parent, const char *name,
		      int fd, struct fuse_file_info *fi,
		      struct fuse_entry_param *ret_entry)
{
	AUTO(fd) int owned = fd;
	int path_fd = ops_reopen(m, fd, O_PATH);
	struct handle *handle;
	struct inode *inode;
	int rc;

	if (path_fd < 0)
		return -errno;
	rc = ops_fill_entry(m, parent, name, path_fd, &inode, ret_entry);
	if (rc < 0)
		return rc;
	rc = handle_open(&m->handles, inode, TAKE_FD(owned), fi->flags,
			 &handle);
	if (rc < 0) {
		ops_forget(m, inode, 1);
		return rc;
	}
	ops_describe_handle(handle, fi);
	return 0;
}

static void op_create(fuse_req_t req, fuse_ino_t number, const char *name,
		      mode_t mode, struct fuse_file_info *fi);

static void create_again(fuse_req_t req, const struct held_args *args)
{
	op_create(req, args->number, args->name, args->mode, args->fi);
}

static void op_create(fuse_req_t req, fuse_ino_t number, const char *name,
		      mode_t mode, struct fuse_file_info *fi)
{
	const struct held_args args = {
		.number = number,
		.name = name,
		.mode = mode,
		.fi = fi,
	};
	struct mount *m = mount_of(req);
	struct inode *parent = inode_of_request(req, number);
	struct fuse_entry_param entry;
	int fd, rc;

	if (refused(req, parent, name) ||
	    !held_admits(req, &args, false, create_again))
		return;
	fd = create_file(req, parent, name, mode, fi->flags);
	if (fd < 0) {
		reply_result(req, fd);
		return;
	}
	rc = enter_file(m, parent, name, fd, fi, &entry);
	if (rc < 0) {
		/* The caller is told that there is no file. */
		(void)unlinkat(parent->fd, name, 0);
		reply_result(req, rc);
	} else if (fuse_reply_create(req, &entry, fi) == -ENOENT) {
		struct inode *inode = handle_of(fi)->inode;

		handle_close(&m->handles, handle_of(fi));
		ops_forget(m, inode, 1);
	}
}

/*
 * A second name of a database, or of its journal or WAL, would be a second way to
 * write to it (D11).
 */
static bool has_one_name(struct mount *m, struct inode *inode,
			 struct inode *new_parent, const char *new_name)
{
	struct capture *c = m->config.capture;
	char path[INODE_PATH_SIZE];

	if (ops_is_database(m, inode))
		return true;
	if (inode_path(&m->inodes, inode, path) == 0 &&
	    capture_is_side(c, path))
		return true;
	return inode_child_path(&m->inodes, new_parent, new_name, path) == 0 &&
	       capture_is_side(c, path);
}

static void op_link(fuse_req_t req, fuse_ino_t number, fuse_ino_t new_parent,
		    const char *name);

static void link_again(fuse_req_t req, const struct held_args *args)
{
	op_link(req, args->number, args->new_number, args->new_name);
}

static void op_link(fuse_req_t req, fuse_ino_t number, fuse_ino_t new_parent,
		    const char *name)
{
	const struct held_args args = {
		.number = number,
		.new_number = new_parent,
		.new_name = name,
	};
	struct mount *m = mount_of(req);
	struct inode *inode = inode_of_request(req, number);
	struct inode *parent = inode_of_request(req, new_parent);

	if (refused(req, parent, name) ||
	    !held_admits(req, &args, false, link_again))
		return;
	if (has_one_name(m, inode, parent, name)) {
		(void)fuse_reply_err(req, EPERM);
		return;
	}
	reply_created(req, parent, name,
		      linkat(m->proc_fd, ops_fd_name(inode->fd).text,
			     parent->fd, name, AT_SYMLINK_FOLLOW));
}

void ops_create_fill(struct fuse_lowlevel_ops *ops)
{
	ops->mknod = op_mknod;
	ops->mkdir = op_mkdir;
	ops->symlink = op_symlink;
	ops->create = op_create;
	ops->link = op_link;
}
