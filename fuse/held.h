#ifndef LITEBUCKET_FUSE_HELD_H
#define LITEBUCKET_FUSE_HELD_H

/*
 * Requests for files that may not be opened yet
 * =============================================
 *
 * mount_config.admit() says whether a file may be opened (or lose its name)
 * now.  "Not yet" keeps the request here, with its arguments copied, until
 * mount_ask_again(), the deadline, the caller's interrupt, or the end of the
 * mount.  A request that is admitted then is done as if it came now.
 *
 * While a name changes (create, link, unlink, rename) the kernel has its
 * directory locked until we answer: nobody can make or remove another name there,
 * or look up one that the kernel does not know.  So the deadline of these is
 * short (2 s), and that of an open is long (30 s); both end with -EBUSY.
 *
 * Only the loop's thread comes here, so there is no lock, and files go on being
 * opened by that thread alone.
 */
#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 12)
#include <fuse3/fuse_lowlevel.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

struct inode;
struct mount;

/* What a request came with; what it did not stays zero. */
struct held_args {
	fuse_ino_t number, new_number;
	const char *name, *new_name;
	struct fuse_file_info *fi;
	mode_t mode;
	unsigned flags;
	struct stat *attr;
	int set;
};

/* Do the operation, in the loop: it came with these arguments. */
typedef void (*held_run)(fuse_req_t req, const struct held_args *args);

struct held_request;

struct held_requests {
	struct held_request *first;
};

/*
 * May the operation go on?  False: it was answered, or will be.  The file is
 * the inode args.number, or args.name in it; and args.new_name in
 * args.new_number.  below: nor may anything below it be held.
 */
bool held_admits(fuse_req_t req, const struct held_args *args, bool below,
		 held_run again);

/* Ask again for all, and refuse those whose time is over. */
void held_ask_again(struct mount *m);

/* When the next one's time is over, monotonic ms; INT64_MAX: none waits. */
int64_t held_until_ms(const struct mount *m);

/* Refuse all that are left. */
void held_dismiss(struct mount *m);

#endif
