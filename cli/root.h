#ifndef LITEBUCKET_CLI_ROOT_H
#define LITEBUCKET_CLI_ROOT_H

/*
 * The bucket around a database
 * ============================
 *
 * BUCKET/DB does not say where the bucket ends and the database's path begins.
 * A bucket's root is where its catalog is; so it is found by walking up from
 * the database to the first catalog.json (D6).  Litestream's buckets have none.
 */

/*
 * May this litebucket read the bucket that this database is in?  Costs a
 * request for each directory on the way up.
 *
 * -EOPNOTSUPP: its format is a newer one.  A catalog that is damaged is a
 * warning: whoever needs a backup needs it most when something is damaged, and
 * each file proves itself.
 */
int root_check(const char *database_url);

/*
 * Pure: the URL of the directory above, with the parameters; NULL above all,
 * or if there is no memory.  The caller's to free.
 */
char *root_parent(const char *url);

#endif
