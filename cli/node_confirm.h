#ifndef LITEBUCKET_CLI_NODE_CONFIRM_H
#define LITEBUCKET_CLI_NODE_CONFIRM_H

/*
 * Commits of a node that wait for the bucket (cli/durability.h)
 */
#include <stdbool.h>
#include <stdint.h>

struct db;
struct node;
struct node_db;

/* For capture_config; arg is the node. */
bool node_durable(void *arg, const char *path);

/* For mount_config; arg is the node. */
int node_confirm(void *arg, struct db *db, bool (*gone)(void *waiter),
		 void *waiter);

/* For how long one has waited that waits now, in milliseconds; 0: none does. */
int64_t node_commit_waits_ms(struct node *n, const struct node_db *db);

#endif
