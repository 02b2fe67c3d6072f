#ifndef LITEBUCKET_CLI_NODE_START_H
#define LITEBUCKET_CLI_NODE_START_H

/* Steps of a node's start that a standby takes when it is promoted. */
struct node;

/* What only the bucket has. */
int node_start_restore(struct node *n);

/* Capture knows its databases: decide about them, and serve and upload them. */
int node_start_databases(struct node *n);

/* Close capture and the decider, and open both again. */
int node_start_again(struct node *n);

#endif
