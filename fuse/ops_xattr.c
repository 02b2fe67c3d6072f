#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/xattr.h>

#include "base/cleanup.h"

#include "fuse/ops.h"

/*
 * O_PATH descriptors have no extended attributes, and the calls that take a
 * directory descriptor are too new: so by a path, which leads to the inode's
 * own descriptor and nowhere else.
 */
struct fd_path {
	char text[40];
};

static struct fd_path path_of(const struct inode *inode)
{
	struct fd_path path;

	(void)snprintf(path.text, sizeof(path.text), "/proc/self/fd/%d",
		       inode->fd);
	return path;
}

static void reply_value(fuse_req_t req, const char *value, size_t size,
			ssize_t n)
{
	if (n < 0)
		reply_errno(req);
	else if (size == 0)
		(void)fuse_reply_xattr(req, (size_t)n);
	else
		(void)fuse_reply_buf(req, value, (size_t)n);
}

static void op_getxattr(fuse_req_t req, fuse_ino_t number, const char *name,
			size_t size)
{
	struct fd_path path = path_of(inode_of_request(req, number));
	AUTO(mem) char *value = size ? malloc(size) : NULL;

	if (size && !value)
		(void)fuse_reply_err(req, ENOMEM);
	else
		reply_value(req, value, size,
			    getxattr(path.text, name, value, size));
}

static void op_listxattr(fuse_req_t req, fuse_ino_t number, size_t size)
{
	struct fd_path path = path_of(inode_of_request(req, number));
	AUTO(mem) char *names = size ? malloc(size) : NULL;

	if (size && !names)
		(void)fuse_reply_err(req, ENOMEM);
	else
		reply_value(req, names, size,
			    listxattr(path.text, names, size));
}

static void op_setxattr(fuse_req_t req, fuse_ino_t number, const char *name,
			const char *value, size_t size, int flags)
{
	struct fd_path path = path_of(inode_of_request(req, number));
	int rc = setxattr(path.text, name, value, size, flags);

	reply_result(req, rc < 0 ? -errno : 0);
}

static void op_removexattr(fuse_req_t req, fuse_ino_t number, const char *name)
{
	struct fd_path path = path_of(inode_of_request(req, number));
	int rc = removexattr(path.text, name);

	reply_result(req, rc < 0 ? -errno : 0);
}

void ops_xattr_fill(struct fuse_lowlevel_ops *ops)
{
	ops->getxattr = op_getxattr;
	ops->listxattr = op_listxattr;
	ops->setxattr = op_setxattr;
	ops->removexattr = op_removexattr;
}
