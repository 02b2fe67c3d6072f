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
 * again.  A directory with databases that were captured is no standby's: what they
 * have, and the bucket does not, has to be decided about first (R9).
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

/* May this directory be a standby's? */
bool node_standby_may(struct node *n);

/* Did it end as one, and hold replicas still? */
bool node_standby_was(struct node *n);

/* Make ordinary databases of replicas that an earlier life left. */
int node_standby_unlock(struct node *n);

/* For capture_config and mount_config; arg is the node. */
bool node_standby_is(void *arg);
bool node_standby_unlocked(void *arg, const char *path);

/* The mount is there: have it follow. */
int node_standby_start(struct node *n);

/* The lease is ours.  Returns at once; nothing if it is no standby. */
void node_standby_promote(struct node *n);

#endif
