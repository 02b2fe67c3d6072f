#ifndef LITEBUCKET_CLI_NODE_STANDBY_H
#define LITEBUCKET_CLI_NODE_STANDBY_H

/*
 * A node that waits for the lease, and serves replicas meanwhile
 * ==============================================================
 *
 *	          another has the lease             it is ours: node_standby_promote()
 *	start ------------------------> STANDBY ---------------------> CHANGING
 *	  |                                                               |
 *	  +------------------------ the lease is ours ----------> PRIMARY <
 *
 *   STANDBY	Databases are replicas that a follower keeps (cli/standby.h).  The
 *		mount is guarded; capture holds every database (capture_config.
 *		standby), and the uploader knows none.
 *   CHANGING	The follower has handed over.  As at any start: what only the
 *		bucket has is restored, every database is decided about, and served
 *		once its log is closed (R4, cli/decide.h).  Who opens one waits for
 *		that; who has one open, and writes to it before, gets EROFS.
 *   PRIMARY	The guard goes when every database is served.
 *
 * It never goes back: a node that loses the lease ends, and the next start seeks
 * again.
 *
 * A directory that was a primary's has databases that were captured.  What they
 * have, and the bucket does not, is decided about first (R9), as at any start; one
 * that then has nothing of its own becomes a replica, before anybody is served.
 * The others stay closed until the next start.  What .litebucket knew of them stays,
 * and is compared with the log again when the node is promoted.
 */
#include <stdbool.h>

struct mount_config;
struct node;

enum node_role {
	NODE_PRIMARY,
	NODE_STANDBY,
	NODE_CHANGING,
};

/* "primary", "standby", "changing" */
const char *node_role_name(enum node_role role);

/* Were databases captured in this directory? */
bool node_standby_has_own(struct node *n);

/* Is it a database, or one's journal, WAL or wal-index, as far as one can see? */
bool node_standby_is_database(struct node *n, const char *path);

/* Is it a replica by its header? */
bool node_standby_is_replica(struct node *n, const char *path);

/* Did it end as one, and hold replicas still? */
bool node_standby_was(struct node *n);

/* Make ordinary databases of replicas that an earlier life left. */
int node_standby_unlock(struct node *n);

bool node_standby_is(const struct node *n);

/* For capture_config, mount_config and decider_config; arg is the node. */
bool node_standby_holds(void *arg);
bool node_standby_settles(void *arg);
bool node_standby_unlocked(void *arg, const char *path);
int node_standby_keep(void *arg, const char *path);

/*
 * Capture has been opened for n->settling: decide, and make replicas.  After that
 * it is open as a standby's.  -ECANCELED.
 */
int node_standby_settle(struct node *n);

/* The mount is there: have it follow. */
int node_standby_start(struct node *n);

/* The lease is ours.  Returns at once; nothing if it is no standby. */
void node_standby_promote(struct node *n);

#endif
