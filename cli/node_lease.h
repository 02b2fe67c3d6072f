#ifndef LITEBUCKET_CLI_NODE_LEASE_H
#define LITEBUCKET_CLI_NODE_LEASE_H

/*
 * The node's part in its tenure (cli/tenure.h): the catalog of a new epoch, the
 * barriers of its logs, and what is closed once the lease is lost.
 */
#include <stdbool.h>
#include <stdint.h>

struct node;

/*
 * Seek the lease, and keep it from then on; or be a standby, if another node has
 * it.  Once the directory is ours, before anything in it is looked at.  0, also
 * if there is no lease yet or the store cannot keep one, which is logged;
 * -ECANCELED; or the errors of tenure_begin().
 */
int node_lease_seek(struct node *n);

/* For capture_config, directly afterwards. */
uint32_t node_lease_epoch(void *arg);

/* Capture and uploader know the databases: their logs can be closed. */
void node_lease_serve(struct node *n);

/* At the end, before the last batches are sent: the barriers that are owed. */
void node_lease_seal(struct node *n);

/*
 * At the end, when nothing is sent any more: is the fate of all that this
 * directory has sealed known?
 */
bool node_lease_is_clean(struct node *n);

/* For uploader_config. */
int node_lease_may_send(void *arg);

/*
 * For decider_config: wait until the log of the database at path is closed for
 * older epochs.  0 also if there is no lease (yet), or it is not uploaded for a
 * reason of its own.  -ECANCELED: the node is being stopped.  -ERR_FENCED: another
 * writer was faster, or the lease is lost.
 */
int node_lease_close_log(void *arg, const char *path);

#endif
