#ifndef LITEBUCKET_CLI_NODE_H
#define LITEBUCKET_CLI_NODE_H

/*
 * A mounted directory: where the layers meet
 * ==========================================
 *
 *	mount --writes--> capture --committed--> uploader --seal--> capture
 *	                     |                      |
 *	                     +------> spool >-------+--puts--> bucket
 *
 * No layer but this one knows both ends of an arrow.  Calling sequence:
 *
 *	node_init -> node_open -> node_serve (until stopped) -> node_close
 *
 * The way up: bucket, uploader, capture, which first waits for the lease
 * (cli/tenure.h), and has the databases restored that only the bucket has; then
 * those that it found are given to the uploader, then the mount.  The way down
 * is the reverse: nothing is written any more, so everything can be sealed; what
 * is sealed is sent while time lasts; what was not sent waits in the spool; and
 * the lease is given up.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "capture/capture.h"
#include "cli/decide.h"
#include "cli/gate.h"
#include "cli/node_standby.h"

struct bucket;
struct buf;
struct capture;
struct durability;
struct helper;
struct mount;
struct outside;
struct player;
struct spool;
struct standby;
struct tenure;
struct uploader;

/* All strings stay the caller's, and outlive the node. */
struct node_config {
	int dirfd;		/* of directory, opened before the mount */
	const char *directory;	/* absolute; for messages */
	const char *mountpoint; /* absolute; may be the directory */
	const char *bucket;	/* URL */
	bool allow_other;
	int64_t interval_ms; /* of uploads */
	unsigned connections;
	int64_t stop_timeout_ms; /* from node_stop() to the end */
	enum adopt adopt;	 /* where files and bucket differ */
	bool unmount_in_use;	 /* at the end, see fuse/mount.h */
	uint64_t spool_max; /* bytes of all spools; 0: no bound */
	uint64_t pending_byte;	 /* SQLite's first lock byte (D39) */
	int64_t lease_ttl_ms;	 /* of the lease */
	const char *advertise;	 /* where writes can be sent, or NULL */
	const struct durability *durability; /* whose commits wait; NULL: none */
	const char *log_level;	/* for processes of ours */

	/* The mount is there, and will answer.  In node_serve(). */
	void (*ready)(size_t databases, void *arg);
	void *arg;
};

struct node_db {
	char *path;
	struct spool *spool;	 /* capture's */
	uint64_t confirmed;	 /* when it appeared */
	_Atomic(char *) refused; /* why it is not uploaded, or NULL */

	/* Commits that wait for the bucket (cli/node_confirm.h); node's lock. */
	unsigned commits_waiting;
	int64_t waiting_since_ms; /* monotonic; while there are any */

	/* How far its log is closed for older epochs (R4). */
	pthread_mutex_t closing; /* guards what follows; outermost */
	uint32_t sealed_epoch;	 /* in which barrier was sealed; 0: none */
	uint32_t closed_epoch;	 /* in which it is in the bucket */
	struct capture_point barrier;
};

struct node {
	struct node_config config;
	struct gate gate; /* databases that may not be opened (now) */
	atomic_int_least64_t
		clock_offset_ms; /* the bucket's clock minus ours */
	_Atomic(enum node_role) role;
	atomic_bool told_ready;
	atomic_bool failed; /* it could not become the primary */
	atomic_bool stopping;
	volatile sig_atomic_t cancel; /* the same, for a restore */
	atomic_int_least64_t stop_at_ms; /* monotonic; while stopping */
	atomic_uint syncs;		 /* that are waiting */

	/* Set by node_open() before anybody else looks. */
	struct bucket *bucket;
	struct uploader *uploader;
	struct helper *helper;
	struct player *player;
	struct capture *capture;
	struct outside *outside;
	struct decider *decider;
	struct tenure *tenure; /* NULL: the store cannot keep a lease */
	size_t n_found; /* databases at the start */
	bool is_new;	/* the directory was never joined to a bucket */
	bool silent;	/* the bucket did not answer at the start */
	bool incomplete; /* what it has could not be found out then */
	bool settling;	 /* a standby's databases become replicas */
	char temp_dir[64]; /* on the databases' own disk */

	pthread_mutex_t lock; /* guards all below; held for calls that only wake somebody */
	struct mount *mount;
	struct standby *standby; /* NULL: it began as the primary */
	bool mounted; /* at some time; something may have been written */
	bool served; /* capture and uploader are there */
	uint32_t epoch; /* the last that was taken; 0: none */
	bool joined; /* what appears from now on goes to the uploader at once */
	struct node_db **dbs; /* only ever grows */
	size_t n_dbs;
};

void node_init(struct node *n, const struct node_config *config);

/*
 * Everything but the mount.  The errors of the layers, or -ECANCELED:
 * node_stop() came before the end.  node_close() is due in any case.
 */
int node_open(struct node *n);

/*
 * Mount and serve until node_stop() or an umount(8).  If it fails before ready
 * was called, node_close() removes the mount, as mount_free() does.
 */
int node_serve(struct node *n);

/* Make node_open() or node_serve() return soon.  Any thread, any time. */
void node_stop(struct node *n);

/*
 * After node_stop(): wait for nothing any more, neither files nor the bucket.
 * False: it is unmounted already.
 */
bool node_hurry(struct node *n);

/*
 * Unmount, seal, and send while time lasts.  An error: something stays in the
 * spool; the log says what.  What was never mounted is only closed.
 */
int node_close(struct node *n);

/*
 * What the node knows of a database, or NULL; it stays until node_close().
 */
struct node_db *node_find(struct node *n, const char *path);

/* Number i; NULL: there are not so many.  The list may grow meanwhile. */
struct node_db *node_nth(struct node *n, size_t i);

/* The wall clock as the bucket has it, as far as that is known. */
int64_t node_now_ms(struct node *n);

/* For mount_config: answers CONTROL_SYNC and CONTROL_STATUS; arg is the node. */
int node_control(void *arg, unsigned command, const char *path,
		 struct buf *ret_reply);

#endif
