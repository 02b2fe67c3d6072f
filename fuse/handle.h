#ifndef LITEBUCKET_FUSE_HANDLE_H
#define LITEBUCKET_FUSE_HANDLE_H

/*
 * Open files
 * ==========
 *
 * A handle is one open(2) of a regular file: a descriptor of the backing file,
 * and what capture knows of it, which all handles of an inode share.  It is
 * not captured (NULL) if the file had no name any more when it was opened, or
 * its path is longer than a path can be.
 *
 * All handles are in a list, so that a mount that ends with files open can
 * take leave of capture in order.
 *
 * Threads: handle_open() and handle_close() any; the kernel closes a handle
 * only after every request that uses it.
 */
#include <pthread.h>
#include <stdbool.h>

struct capture;
struct capture_file;
struct inode;
struct inode_table;

struct handle {
	int fd;
	bool writable;
	bool synchronous; /* O_SYNC or O_DSYNC: every write waits */
	bool no_nowait;	  /* RWF_NOWAIT does not work here; the loop's own */
	bool ours;	  /* our helper's, so it does not count; the loop's */
	struct inode *inode;
	struct capture_file *captured; /* the inode's; NULL: not captured */
	struct handle *next, **link;   /* guarded by handles.lock */
};

struct handles {
	struct capture *capture;
	struct inode_table *inodes;
	pthread_mutex_t lock;
	struct handle *first; /* guarded by lock, and count too */
	unsigned count;
};

void handles_init(struct handles *h, struct capture *capture,
		  struct inode_table *inodes);

/* Closes what is still open. */
void handles_cleanup(struct handles *h);

unsigned handles_count(struct handles *h);

/* This one is our own helper's: nobody has to wait for its end. */
void handle_disregard(struct handles *h, struct handle *handle);

/* flags is open(2)'s.  fd is taken over, also on failure. */
int handle_open(struct handles *h, struct inode *inode, int fd, int flags,
		struct handle **ret);
void handle_close(struct handles *h, struct handle *handle);

#endif
