#ifndef LITEBUCKET_UPLOADER_TURN_H
#define LITEBUCKET_UPLOADER_TURN_H

/*
 * One database's turn: at most one batch, sealed if it is time, and sent.
 */
struct uploader;
struct uploader_db;

/*
 * Have the turn and put the database back into the queue for its next one, if
 * there will be one.  No lock is held; db->running is set, and cleared here.
 */
void turn_run(struct uploader *u, struct uploader_db *db);

/* Queue an idle database for when its next seal is due.  The lock is held. */
void turn_schedule(struct uploader *u, struct uploader_db *db);

/*
 * Find out, once, whether the store keeps two writers apart.  -EOPNOTSUPP: it
 * does not; others: it did not answer.
 */
int turn_check_store(struct uploader *u);

#endif
