/*
 * A file system that fails on demand, for tests
 * =============================================
 *
 *	faultfs [--names] DIR MOUNTPOINT
 *
 * Passes DIR through, in the foreground until it is unmounted, and does what
 * is written to the file .faultfs in its root.  A write returns when that was
 * done:
 *
 *	lose [PERCENT [SEED]]	the power goes: what was not synced is gone, but
 *				for PERCENT (0) of it.  Nothing may have a file
 *				open.
 *	fail OPS ERRNO PATTERN [SKIP [COUNT]]
 *				OPS (a list with commas: read, write, grow,
 *				fsync, truncate, unlink, rename, create, open)
 *				on paths below DIR that match the PATTERN
 *				(fnmatch(3), without FNM_PATHNAME) fail with
 *				ENOSPC, EIO or EDQUOT; the first SKIP do not,
 *				and after COUNT the fault is over
 *	heal			no more failures
 *
 * Reading the file gives "lost N" and "failed N": how many changes the last
 * loss took, and how often something was made to fail since the last heal.
 *
 * With --names, names that were made, removed or renamed are lost as well
 * unless their directory was synced.  grow is a write, truncation or fallocate
 * that makes a file longer, as on a full disk.  A failed fsync is as on Linux:
 * what it did not write will never be, though it can be read, and the next
 * fsync succeeds.
 *
 * One thread, no locks of its own: the kernel does flock and fcntl.
 */
#define FUSE_USE_VERSION 34

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "faultfs_disk.h"
#include "faultfs_rules.h"

#define CONTROL ".faultfs"

struct node {
	int fd; /* O_PATH */
	dev_t device;
	ino_t inode;
	uint64_t lookups, opens;
	struct disk_file *disk; /* NULL: nothing was changed */
	struct node *next;
};

static struct node root, control, *nodes;
static char root_path[PATH_MAX];
static unsigned lost;

static struct node *node_of(fuse_ino_t ino)
{
	return ino == FUSE_ROOT_ID ? &root : (struct node *)ino;
}

static const char *proc_path(const struct node *n)
{
	static char path[64];

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", n->fd);
	return path;
}

static void reply(fuse_req_t req, int rc)
{
	(void)fuse_reply_err(req, rc < 0 ? errno : 0);
}

/*
 * Nodes
 */
/* The node's path below the root; a removed file keeps its last one. */
static int fault_of(unsigned op, const struct node *n, const char *name)
{
	char path[PATH_MAX + NAME_MAX + 2];
	size_t prefix = strlen(root_path);
	ssize_t length;
	char *deleted;

	if (!rules_any())
		return 0;
	length = readlink(proc_path(n), path, PATH_MAX);
	if (length < (ssize_t)prefix)
		return 0;
	path[length] = '\0';
	deleted = strstr(path, " (deleted)");
	if (deleted)
		*deleted = '\0';
	if (name)
		(void)snprintf(path + strlen(path), NAME_MAX + 2, "/%s", name);
	return rules_error(op, path + prefix + (path[prefix] == '/'));
}

static void free_if_unused(struct node *n)
{
	struct stat st;
	struct node **at = &nodes;

	if (n == &root || n == &control || n->lookups || n->opens)
		return;
	if (n->disk && !disk_file_is_safe(n->disk) && fstat(n->fd, &st) == 0 &&
	    st.st_nlink > 0)
		return;
	while (*at != n)
		at = &(*at)->next;
	*at = n->next;
	if (n->disk)
		disk_file_free(n->disk);
	(void)close(n->fd);
	free(n);
}

static int find(struct node *parent, const char *name,
		struct fuse_entry_param *e)
{
	int fd = openat(parent->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct node *n = nodes;

	if (fd < 0 || fstat(fd, &e->attr) < 0)
		return -1;
	while (n && (n->device != e->attr.st_dev || n->inode != e->attr.st_ino))
		n = n->next;
	if (n) {
		(void)close(fd);
	} else {
		n = calloc(1, sizeof(*n));
		if (!n)
			abort();
		n->fd = fd;
		n->device = e->attr.st_dev;
		n->inode = e->attr.st_ino;
		n->next = nodes;
		nodes = n;
	}
	n->lookups++;
	e->ino = (fuse_ino_t)n;
	return 0;
}

static struct stat control_stat(void)
{
	return (struct stat){ .st_mode = S_IFREG | 0600, .st_nlink = 1 };
}

/* Truncation on open comes as one of its own; caches live until the next open. */
static void op_init(void *arg, struct fuse_conn_info *connection)
{
	(void)arg;
	connection->want &=
		~(unsigned)(FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_AUTO_INVAL_DATA);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param e = { 0 };

	if (parent == FUSE_ROOT_ID && strcmp(name, CONTROL) == 0) {
		e.ino = (fuse_ino_t)&control;
		e.attr = control_stat();
		(void)fuse_reply_entry(req, &e);
	} else if (find(node_of(parent), name, &e) < 0) {
		(void)fuse_reply_err(req, errno);
	} else {
		(void)fuse_reply_entry(req, &e);
	}
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t lookups)
{
	struct node *n = node_of(ino);

	if (n != &root && n != &control) {
		n->lookups -= lookups;
		free_if_unused(n);
	}
	fuse_reply_none(req);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino,
		       struct fuse_file_info *fi)
{
	struct node *n = node_of(ino);
	struct stat st = control_stat();

	(void)fi;
	if (n != &control && fstat(n->fd, &st) < 0)
		(void)fuse_reply_err(req, errno);
	else
		(void)fuse_reply_attr(req, &st, 0);
}

static struct disk_file *disk_of(struct node *n)
{
	if (!n->disk)
		n->disk = disk_file_new(n->fd);
	disk_file_before(n->disk);
	return n->disk;
}

static uint64_t size_of(const struct node *n)
{
	struct stat st = { 0 };

	(void)fstat(n->fd, &st);
	return (uint64_t)st.st_size;
}

/* A change that makes a file end there. */
static int growth_fault(const struct node *n, uint64_t end)
{
	return rules_any() && end > size_of(n) ? fault_of(OP_GROW, n, NULL) : 0;
}

static int set_size(struct node *n, uint64_t size)
{
	struct disk_file *disk;

	errno = fault_of(OP_TRUNCATE, n, NULL);
	if (!errno)
		errno = growth_fault(n, size);
	if (errno)
		return -1;
	disk = disk_of(n);
	if (truncate(proc_path(n), (off_t)size) < 0)
		return -1;
	disk_file_resized(disk, size);
	return 0;
}

static int set_times(struct node *n, const struct stat *st, int which)
{
	struct timespec times[2] = { { 0, UTIME_OMIT }, { 0, UTIME_OMIT } };

	if (which & FUSE_SET_ATTR_ATIME)
		times[0] = st->st_atim;
	if (which & FUSE_SET_ATTR_ATIME_NOW)
		times[0].tv_nsec = UTIME_NOW;
	if (which & FUSE_SET_ATTR_MTIME)
		times[1] = st->st_mtim;
	if (which & FUSE_SET_ATTR_MTIME_NOW)
		times[1].tv_nsec = UTIME_NOW;
	return utimensat(AT_FDCWD, proc_path(n), times, 0);
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st,
		       int which, struct fuse_file_info *fi)
{
	struct node *n = node_of(ino);
	int rc = 0;

	if (n == &control) {
		op_getattr(req, ino, fi);
		return;
	}
	if (which & FUSE_SET_ATTR_MODE)
		rc = chmod(proc_path(n), st->st_mode);
	if (rc == 0 && which & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID))
		rc = fchownat(n->fd, "",
			      which & FUSE_SET_ATTR_UID ? st->st_uid
							: (uid_t)-1,
			      which & FUSE_SET_ATTR_GID ? st->st_gid
							: (gid_t)-1,
			      AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW);
	if (rc == 0 && which & FUSE_SET_ATTR_SIZE)
		rc = set_size(n, (uint64_t)st->st_size);
	if (rc == 0 && which & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW |
				FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW))
		rc = set_times(n, st, which);
	if (rc < 0)
		(void)fuse_reply_err(req, errno);
	else
		op_getattr(req, ino, fi);
}

/*
 * Names
 */
static int take_owner(fuse_req_t req, int dir, const char *name)
{
	const struct fuse_ctx *caller = fuse_req_ctx(req);

	return fchownat(dir, name, caller->uid, caller->gid,
			AT_SYMLINK_NOFOLLOW);
}

static void reply_made(fuse_req_t req, fuse_ino_t parent, const char *name,
		       int rc, bool directory)
{
	struct fuse_entry_param e = { 0 };
	struct node *p = node_of(parent);

	if (rc >= 0) {
		(void)take_owner(req, p->fd, name);
		disk_made(p->fd, name, directory);
		rc = find(p, name, &e);
	}
	if (rc < 0)
		(void)fuse_reply_err(req, errno);
	else
		(void)fuse_reply_entry(req, &e);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name,
		     mode_t mode)
{
	errno = fault_of(OP_CREATE, node_of(parent), name);
	reply_made(req, parent, name,
		   errno ? -1 : mkdirat(node_of(parent)->fd, name, mode), true);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name,
		     mode_t mode, dev_t device)
{
	errno = fault_of(OP_CREATE, node_of(parent), name);
	reply_made(req, parent, name,
		   errno ? -1
			 : mknodat(node_of(parent)->fd, name, mode, device),
		   false);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent,
		    const char *name)
{
	int rc = -1;

	errno = fault_of(OP_CREATE, node_of(parent), name);
	if (!errno)
		rc = linkat(AT_FDCWD, proc_path(node_of(ino)),
			    node_of(parent)->fd, name, AT_SYMLINK_FOLLOW);
	reply_made(req, parent, name, rc, false);
}

/* A name goes, and with it perhaps the file: its node goes if nobody uses it. */
static int remove_name(struct node *parent, const char *name, bool directory)
{
	int rc, error = fault_of(OP_UNLINK, parent, name);

	if (error) {
		errno = error;
		return -1;
	}
	disk_removes(parent->fd, name, directory);
	rc = unlinkat(parent->fd, name, directory ? AT_REMOVEDIR : 0);
	if (rc < 0) {
		error = errno;
		disk_undo_last();
		errno = error;
	}
	return rc;
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	reply(req, remove_name(node_of(parent), name, false));
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	reply(req, remove_name(node_of(parent), name, true));
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name,
		      fuse_ino_t new_parent, const char *new_name,
		      unsigned flags)
{
	struct node *from = node_of(parent), *to = node_of(new_parent);
	int rc, error = fault_of(OP_RENAME, from, name);

	if (!error)
		error = fault_of(OP_RENAME, to, new_name);
	if (error) {
		(void)fuse_reply_err(req, error);
		return;
	}
	disk_renames(from->fd, name, to->fd, new_name);
	rc = renameat2(from->fd, name, to->fd, new_name, flags);
	error = errno;
	if (rc < 0)
		disk_undo_last();
	(void)fuse_reply_err(req, rc < 0 ? error : 0);
}

/*
 * Files
 */
struct handle {
	int fd;
	bool synced; /* O_SYNC or O_DSYNC */
};

static struct handle *handle_of(const struct fuse_file_info *fi)
{
	return (struct handle *)fi->fh; // NOLINT(performance-no-int-to-ptr)
}

static int open_node(struct node *n, struct fuse_file_info *fi)
{
	struct handle *h;
	int flags = fi->flags & ~(O_CREAT | O_EXCL | O_NOFOLLOW | O_TRUNC |
				  O_APPEND | O_SYNC | O_DIRECT);

	h = calloc(1, sizeof(*h));
	if (!h)
		abort();
	h->fd = open(proc_path(n), flags | O_CLOEXEC);
	if (h->fd < 0) {
		free(h);
		return -1;
	}
	h->synced = fi->flags & O_DSYNC;
	fi->fh = (uint64_t)h;
	n->opens++;
	return 0;
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct node *n = node_of(ino);
	int rc = 0;

	if (n == &control) {
		fi->direct_io = 1;
		(void)fuse_reply_open(req, fi);
		return;
	}
	errno = fault_of(OP_OPEN, n, NULL);
	if (errno)
		rc = -1;
	if (rc == 0)
		rc = open_node(n, fi);
	if (rc < 0)
		(void)fuse_reply_err(req, errno);
	else
		(void)fuse_reply_open(req, fi);
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name,
		      mode_t mode, struct fuse_file_info *fi)
{
	struct fuse_entry_param e = { 0 };
	struct node *p = node_of(parent);
	int fd = -1;

	errno = fault_of(OP_CREATE, p, name);
	if (!errno)
		fd = openat(p->fd, name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC,
			    mode);
	if (fd >= 0) {
		(void)close(fd);
		(void)take_owner(req, p->fd, name);
		disk_made(p->fd, name, false);
	} else if (errno != EEXIST || fi->flags & O_EXCL) {
		(void)fuse_reply_err(req, errno);
		return;
	}
	if (find(p, name, &e) < 0 || open_node(node_of(e.ino), fi) < 0)
		(void)fuse_reply_err(req, errno);
	else
		(void)fuse_reply_create(req, &e, fi);
}

static void op_release(fuse_req_t req, fuse_ino_t ino,
		       struct fuse_file_info *fi)
{
	struct node *n = node_of(ino);

	if (n != &control) {
		(void)close(handle_of(fi)->fd);
		free(handle_of(fi));
		n->opens--;
		free_if_unused(n);
	}
	(void)fuse_reply_err(req, 0);
}

static void reply_control(fuse_req_t req, off_t offset)
{
	char text[64];
	int n = snprintf(text, sizeof(text), "lost %u\nfailed %u\n", lost,
			 rules_failed());

	(void)fuse_reply_buf(req, text, offset ? 0 : (size_t)n);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		    struct fuse_file_info *fi)
{
	struct node *n = node_of(ino);
	char *data;
	ssize_t got = -1;

	if (n == &control) {
		reply_control(req, offset);
		return;
	}
	data = malloc(size);
	errno = fault_of(OP_READ, n, NULL);
	if (data && !errno)
		got = pread(handle_of(fi)->fd, data, size, offset);
	if (got < 0)
		(void)fuse_reply_err(req, errno);
	else
		(void)fuse_reply_buf(req, data, (size_t)got);
	free(data);
}

static void lose(const char *arguments)
{
	unsigned percent = 0, seed = 1;

	(void)sscanf(arguments, "%u %u", &percent, &seed);
	srand(seed);
	lost = 0;
	for (struct node *n = nodes; n; n = n->next)
		if (n->disk)
			lost += disk_file_lose(n->disk, percent);
	lost += disk_names_lose(percent > 0);
}

/* 0 or an errno value. */
static int command(const char *text)
{
	if (strncmp(text, "lose", 4) == 0) {
		lose(text + 4);
	} else if (strncmp(text, "fail ", 5) == 0) {
		return rules_add(text + 5);
	} else if (strncmp(text, "heal", 4) == 0) {
		rules_clear();
	} else {
		return EINVAL;
	}
	return 0;
}

static void write_control(fuse_req_t req, const char *data, size_t size)
{
	char text[512] = { 0 };
	int error;

	memcpy(text, data, size < sizeof(text) ? size : sizeof(text) - 1);
	error = command(text);
	if (error)
		(void)fuse_reply_err(req, error);
	else
		(void)fuse_reply_write(req, size);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *data,
		     size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct node *n = node_of(ino);
	struct disk_file *disk;

	if (n == &control) {
		write_control(req, data, size);
		return;
	}
	errno = fault_of(OP_WRITE, n, NULL);
	if (!errno)
		errno = growth_fault(n, (uint64_t)offset + size);
	if (errno) {
		(void)fuse_reply_err(req, errno);
		return;
	}
	disk = disk_of(n);
	if (pwrite(handle_of(fi)->fd, data, size, offset) != (ssize_t)size) {
		(void)fuse_reply_err(req, errno ? errno : EIO);
		return;
	}
	disk_file_wrote(disk, data, size, (uint64_t)offset);
	if (handle_of(fi)->synced)
		disk_file_synced(disk);
	(void)fuse_reply_write(req, size);
}

static int allocate(struct node *n, int fd, int mode, uint64_t offset,
		    uint64_t length)
{
	struct disk_file *disk = disk_of(n);
	uint64_t size = size_of(n);

	if (fallocate(fd, mode, (off_t)offset, (off_t)length) < 0)
		return -1;
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) {
		uint64_t end = offset + length;

		if (mode & FALLOC_FL_KEEP_SIZE && end > size)
			end = size;
		if (end > offset)
			disk_file_zeroed(disk, end - offset, offset);
	} else if (size_of(n) != size) {
		disk_file_resized(disk, size_of(n));
	}
	return 0;
}

static void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset,
			 off_t length, struct fuse_file_info *fi)
{
	struct node *n = node_of(ino);
	const int known = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE |
			  FALLOC_FL_KEEP_SIZE;

	errno = growth_fault(n, (uint64_t)offset + (uint64_t)length);
	if (mode & ~known)
		errno = EOPNOTSUPP;
	if (errno)
		(void)fuse_reply_err(req, errno);
	else
		reply(req, allocate(n, handle_of(fi)->fd, mode,
				    (uint64_t)offset, (uint64_t)length));
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync,
		     struct fuse_file_info *fi)
{
	struct node *n = node_of(ino);
	int error = fault_of(OP_FSYNC, n, NULL);

	(void)datasync;
	(void)fi;
	if (n->disk && error)
		disk_file_sync_failed(n->disk);
	else if (n->disk)
		disk_file_synced(n->disk);
	(void)fuse_reply_err(req, error);
}

/*
 * Directories
 */
static void op_opendir(fuse_req_t req, fuse_ino_t ino,
		       struct fuse_file_info *fi)
{
	DIR *directory = opendir(proc_path(node_of(ino)));

	if (!directory) {
		(void)fuse_reply_err(req, errno);
		return;
	}
	fi->fh = (uint64_t)directory;
	(void)fuse_reply_open(req, fi);
}

static DIR *directory_of(const struct fuse_file_info *fi)
{
	return (DIR *)fi->fh; // NOLINT(performance-no-int-to-ptr)
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size,
		       off_t offset, struct fuse_file_info *fi)
{
	DIR *directory = directory_of(fi);
	char *data = malloc(size);
	struct dirent *entry;
	size_t used = 0;

	(void)ino;
	if (!data)
		abort();
	seekdir(directory, offset);
	while ((entry = readdir(directory))) {
		struct stat st = { .st_ino = entry->d_ino,
				   .st_mode = (mode_t)entry->d_type << 12 };
		size_t more =
			fuse_add_direntry(req, data + used, size - used,
					  entry->d_name, &st, entry->d_off);

		if (more > size - used)
			break;
		used += more;
	}
	(void)fuse_reply_buf(req, data, used);
	free(data);
}

static void op_releasedir(fuse_req_t req, fuse_ino_t ino,
			  struct fuse_file_info *fi)
{
	(void)ino;
	(void)closedir(directory_of(fi));
	(void)fuse_reply_err(req, 0);
}

static void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync,
			struct fuse_file_info *fi)
{
	struct node *n = node_of(ino);
	int error = fault_of(OP_FSYNC, n, NULL);

	(void)datasync;
	(void)fi;
	if (!error)
		disk_dir_synced(n->fd);
	(void)fuse_reply_err(req, error);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs st;

	(void)ino;
	if (fstatvfs(root.fd, &st) < 0)
		(void)fuse_reply_err(req, errno);
	else
		(void)fuse_reply_statfs(req, &st);
}

static const struct fuse_lowlevel_ops operations = {
	.init = op_init,
	.lookup = op_lookup,
	.forget = op_forget,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.mknod = op_mknod,
	.mkdir = op_mkdir,
	.unlink = op_unlink,
	.rmdir = op_rmdir,
	.rename = op_rename,
	.link = op_link,
	.open = op_open,
	.create = op_create,
	.read = op_read,
	.write = op_write,
	.release = op_release,
	.fsync = op_fsync,
	.opendir = op_opendir,
	.readdir = op_readdir,
	.releasedir = op_releasedir,
	.fsyncdir = op_fsyncdir,
	.statfs = op_statfs,
	.fallocate = op_fallocate,
};

static int serve(const char *mountpoint)
{
	char program[] = "faultfs", option[] = "-o",
	     options[] = "allow_other,default_permissions,fsname=faultfs";
	char *argv[] = { program, option, options };
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);
	struct fuse_session *session =
		fuse_session_new(&args, &operations, sizeof(operations), NULL);
	int rc;

	if (!session || fuse_set_signal_handlers(session) != 0 ||
	    fuse_session_mount(session, mountpoint) != 0)
		return 1;
	rc = fuse_session_loop(session);
	fuse_session_unmount(session);
	fuse_session_destroy(session);
	fuse_opt_free_args(&args);
	return rc < 0;
}

int main(int argc, char **argv)
{
	bool lose_names = argc > 1 && strcmp(argv[1], "--names") == 0;
	struct rlimit limit = { 1 << 16, 1 << 16 };
	char trash[PATH_MAX + 8];

	if (argc != 3 + lose_names)
		return 2;
	argv += lose_names;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
	(void)umask(0);
	root.fd = open(argv[1], O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root.fd < 0 || !realpath(argv[1], root_path)) {
		perror(argv[1]);
		return 1;
	}
	if (lose_names) {
		(void)snprintf(trash, sizeof(trash), "%s.trash", root_path);
		if (mkdir(trash, 0700) < 0) {
			perror(trash);
			return 1;
		}
		disk_lose_names(open(trash, O_PATH | O_DIRECTORY | O_CLOEXEC));
	}
	return serve(argv[2]);
}
