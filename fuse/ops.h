#ifndef LITEBUCKET_FUSE_OPS_H
#define LITEBUCKET_FUSE_OPS_H

/*
 * What the operations of the mount share.  Each ops_<group>.c answers one
 * group of requests and exports one function, which enters its operations in
 * libfuse's table.
 *
 * An operation is a shell: it decides whether the request may wait, and runs
 * the same plain function either at once or in a worker.  The function replies.
 * No lock of ours is held while capture is called or the kernel answered.
 */
#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 12)
#include <fuse3/fuse_lowlevel.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "capture/capture.h"
#include "fuse/controls.h"
#include "fuse/handle.h"
#include "fuse/held.h"
#include "fuse/inode.h"
#include "fuse/mount.h"
#include "fuse/notifier.h"
#include "fuse/worker.h"

/* Capture's own directory, in the root of the mount: nobody sees it. */
#define HIDDEN_NAME ".litebucket"

/* Seconds that the kernel may keep what we tell it: only it makes changes. */
#define FOREVER 1e9

struct mount {
	struct mount_config config; /* strings: not after mount_new() */
	char *mountpoint;	    /* canonical */
	struct fuse_session *session;
	struct inode_table inodes;
	struct handles handles;
	struct workers workers;
	struct workers confirmers; /* for what waits for the bucket */
	struct controls controls;
	struct held_requests held; /* the loop thread's */
	struct directory *directories; /* open ones; the loop thread's */
	int proc_fd;	    /* /proc/self/fd, to open an inode again */
	bool privileged;    /* we may create files as the caller */
	bool mounted;	    /* the session has a connection to end */
	dev_t device;	    /* of our mount */
	dev_t replaces;	    /* of the dead one in whose place it came; or 0 */
	unsigned own_umask; /* what it was when we started */
	char *read_buffer;  /* the loop thread's, READ_BUFFER_SIZE */
	int nowhere_fd;	    /* takes the connection's place when it is cut */
	int wake_fd;	    /* an eventfd: makes the loop look at these: */
	atomic_uint stops;  /* calls of mount_stop() */
	atomic_bool cut;    /* the loop should end now */
	atomic_bool giving_up; /* nobody waits for the bucket any longer */
	atomic_bool guarded;   /* databases are replicas (mount_guard()) */
	atomic_int follower;   /* the process that keeps them; 0: none */
	struct notifier notifier;
};

enum {
	READ_BUFFER_SIZE = 1 << 20,
	WORKERS_MAX = 16,
	/* Each is a database whose writers all wait for the same. */
	CONFIRMERS_MAX = 1024,
};

void ops_name_fill(struct fuse_lowlevel_ops *ops);
void ops_create_fill(struct fuse_lowlevel_ops *ops);
void ops_dir_fill(struct fuse_lowlevel_ops *ops);

/* Close what was open when the connection was cut. */
void ops_dir_cleanup(struct mount *m);
void ops_attr_fill(struct fuse_lowlevel_ops *ops);
void ops_xattr_fill(struct fuse_lowlevel_ops *ops);
void ops_file_fill(struct fuse_lowlevel_ops *ops);
void ops_data_fill(struct fuse_lowlevel_ops *ops);
void ops_control_fill(struct fuse_lowlevel_ops *ops);

static inline struct mount *mount_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

static inline struct inode *inode_of_request(fuse_req_t req, fuse_ino_t number)
{
	return inode_of(&mount_of(req)->inodes, number);
}

static inline struct handle *handle_of(const struct fuse_file_info *fi)
{
	return (struct handle *)(uintptr_t)fi->fh;
}

/* rc is what a function of ours returned: 0 or a negative errno. */
static inline void reply_result(fuse_req_t req, int rc)
{
	(void)fuse_reply_err(req, rc < 0 ? -rc : 0);
}

/* Answer with what errno says. */
static inline void reply_errno(fuse_req_t req)
{
	(void)fuse_reply_err(req, errno);
}

/* Is this name in this directory the one that nobody sees, but for the follower? */
bool ops_hidden(fuse_req_t req, const struct inode *parent, const char *name);
bool ops_is_hidden_name(struct mount *m, const struct inode *parent,
			const char *name);

/* mount_set_follower()'s process. */
bool ops_is_follower(fuse_req_t req);

/* Does the file begin as an SQLite database does? */
bool ops_is_database(struct mount *m, const struct inode *inode);

/*
 * Is the mount guarded, and this not for the caller to change (EROFS)?  The file,
 * by what it is or what is to be written at offset (data may be NULL); a name that
 * is to go, or to be another's; a name that is to be made.
 */
bool ops_guards_file(fuse_req_t req, struct inode *inode, const void *data,
		     size_t size, off_t offset);
bool ops_guards_name(fuse_req_t req, struct inode *parent, const char *name);
bool ops_guards_new(fuse_req_t req, struct inode *parent, const char *name);

/* "N" below proc_fd: the path that opens an O_PATH descriptor again. */
struct fd_name {
	char text[16];
};
struct fd_name ops_fd_name(int fd);

/* As openat(2), on the file itself.  flags without what belongs to names. */
int ops_reopen(struct mount *m, int fd, int flags);

/*
 * The file at parent and name, opened as fd (O_PATH, taken over) if that is
 * not -1: count a lookup and answer with it.
 */
void ops_reply_entry(fuse_req_t req, struct inode *parent, const char *name);
int ops_fill_entry(struct mount *m, struct inode *parent, const char *name,
		   int fd, struct inode **ret, struct fuse_entry_param *ret_e);

/*
 * The file was replaced beneath the mount: ESTALE makes the kernel look its name
 * up again, and come back with what it is now.
 */
bool ops_is_stale(struct mount *m, struct inode *inode);

/* Who runs a request that may wait so. */
struct workers *ops_pool(struct mount *m, enum capture_wait wait);

/*
 * It was done, and may have completed a commit of db: wait for the bucket, as
 * mount_config.confirm() does.  Not for the loop thread.  False: it is not known
 * to be there.  db, which is given back, may be NULL: true.
 */
bool ops_confirm(fuse_req_t req, struct db *db);

/*
 * The kernel takes what is answered with an error for not done.  So where it was,
 * it is told to look at the file again.
 */
void ops_look_again(struct mount *m, fuse_ino_t number);

/* What the kernel is to know of an open file. */
void ops_describe_handle(struct handle *handle, struct fuse_file_info *fi);

/* The file was written: what a write by this caller takes away goes. */
void ops_clear_setid(fuse_req_t req, struct inode *inode);

/* Drop lookups; what is then unused is closed, in a worker if that is long. */
void ops_forget(struct mount *m, struct inode *inode, uint64_t lookups);

#endif
