#ifndef LITEBUCKET_CLI_DATABASE_H
#define LITEBUCKET_CLI_DATABASE_H

/*
 * BUCKET/DB on the command line: the URL of one database.
 *
 * In the bucket a database has its path below the mount, with unusual bytes
 * written =XX (bucket/archive.h).  People write that path percent-encoded, and
 * nobody can see in a URL where the bucket ends and the path begins.  So where
 * it matters, the URL is tried as it is, and then with its last component
 * escaped, its last two, and so on.
 */
#include "bucket/bucket.h"

/*
 * As bucket_open(), for the first of those that holds a database.  ret_db is
 * its part of keys below that bucket: "" where the bucket's URL is the
 * database's own, as it is unless that is too long for a bucket.
 */
int database_open(const char *url, struct bucket **ret,
		  char ret_db[BUCKET_KEY_MAX]);

/*
 * Pure: url with the last n components of its path escaped; NULL if there are
 * not so many, or no memory.  The caller's to free.
 */
char *database_escaped(const char *url, unsigned n);

/*
 * Pass on rc, the result of something asked of the database db.  If there is none
 * because the URL names a whole bucket, say which databases that has.
 */
int database_explain(struct bucket *b, const char *db, int rc);

#endif
