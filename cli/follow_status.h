#ifndef LITEBUCKET_CLI_FOLLOW_STATUS_H
#define LITEBUCKET_CLI_FOLLOW_STATUS_H

/*
 * How a follower is
 * =================
 *
 * A running one tells it to whoever connects to the socket in its directory
 * (restorer/layout.h): one JSON document, and the end.  No word is asked, so a
 * client can do nothing but read, and only the follower's own user and root can
 * be one.  Where none is running, the positions that were left tell how far the
 * replicas are.
 *
 *	follow_status_start -> follow_status_free	in the follower
 *	follow_status_ask				anywhere else
 */
#include <jansson.h>

#include "base/cleanup.h"

struct follow_status;
struct follower;

/* Tell it from now on.  The follower and the strings must outlive ret. */
int follow_status_start(struct follower *f, const char *directory,
			const char *bucket, struct follow_status **ret);
void follow_status_free(struct follow_status *s);
AUTO_FREE(follow_status);

/* The document for db, a path below the directory; "" for all. */
int follow_status_ask(const char *directory, const char *db, json_t **ret);

/* The same for people. */
int follow_status_print(const json_t *status);

#endif
