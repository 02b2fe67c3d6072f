#ifndef LITEBUCKET_BUCKET_ARCHIVE_H
#define LITEBUCKET_BUCKET_ARCHIVE_H

/*
 * One database's LTX files in a bucket
 * ====================================
 *
 *	DB/0000/<min>-<max>.ltx				level 0: the log, min == max
 *	DB/0001 .. 0008/<min>-<max>.ltx			compactions
 *	DB/0009/0000000000000001-<max>.ltx		snapshots
 *
 * This is Litestream 0.5's layout, and the only place that knows it (the file
 * driver maps it to Litestream's file layout, DB/ltx/0/...).  DB is the
 * database's path below the mount, with bytes outside [A-Za-z0-9._/-] written
 * =XX, and a component that would be mistaken for one of ours (lock.json,
 * catalog.json, ltx, staged, generations, four hex digits) with its first byte
 * so escaped.  DB is "" when the bucket's URL names the database itself.
 *
 * Level 0 is a log of slots: the batch after N is at N+1 and nowhere else, put
 * if absent, so that two writers cannot both append.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bucket/bucket.h"
#include "ltx/header.h"

enum {
	ARCHIVE_SNAPSHOT_LEVEL = 9,
	ARCHIVE_LEVELS = 10,
};

/* One LTX file in the bucket. */
struct archive_file {
	unsigned level;
	uint64_t min_txid, max_txid;
	uint64_t size;
	int64_t modified_ms; /* the store's; the transaction's time is in the header */
};

struct archive_files {
	struct archive_file *items;
	size_t n;
	size_t capacity;
};
void archive_files_cleanup(struct archive_files *files);

/*
 * The DB part of keys for a database's path, which is relative and has no
 * empty, "." or ".." parts (-EINVAL).  -ENAMETOOLONG: some key, or a file's
 * name in a file bucket, would exceed what stores take.
 */
int archive_escape(const char *path, char ret[BUCKET_KEY_MAX]);

/* The path for a DB part; -EINVAL where it is not what archive_escape makes. */
int archive_unescape(const char *db, char ret[BUCKET_KEY_MAX]);

/* DB and a file's name as a key. */
int archive_key(const char *db, unsigned level, uint64_t min_txid,
		uint64_t max_txid, char ret[BUCKET_KEY_MAX]);

/*
 * A key of an LTX file: DB into ret_db, the rest into ret_file (size and time
 * untouched).  -EINVAL, without a sentence: buckets hold other keys.
 */
int archive_parse_key(const char *key, char ret_db[BUCKET_KEY_MAX],
		      struct archive_file *ret_file);

/*
 * Append the files of one level whose min_txid is greater than after (0: all)
 * to ret, in key order.
 */
int archive_list(struct bucket *b, const char *db, unsigned level,
		 uint64_t after, struct archive_files *ret);

/*
 * The last slot of a log, without listing all of it: some tens of requests for
 * any length, one for a short log.  -ENOENT: it has none.
 */
int archive_last_slot(struct bucket *b, const char *db,
		      struct archive_file *ret);

/* The same for all levels from 1 up, in as few requests as the store allows. */
int archive_list_above(struct bucket *b, const char *db,
		       struct archive_files *ret);

/*
 * Put a file's bytes (fd) under its key with the metadata that belongs to its
 * header: litestream-timestamp, litebucket-pre, litebucket-checksum.
 */
int archive_put(struct bucket *b, const char *db, unsigned level,
		const struct ltx_header *header, int fd, uint64_t size,
		bool if_absent, struct bucket_info *ret);

/* Fetch only the header of a file, by a ranged get. */
int archive_get_header(struct bucket *b, const char *db,
		       const struct archive_file *file, struct ltx_header *ret);

/*
 * Call fn with the DB part of each database that has LTX files in the bucket,
 * once, in the order of their keys (that of the DB parts with a "/" behind).
 * Costs a few requests per database, not per object.  fn returns 0 to go on,
 * anything else to stop and have this return it.
 */
typedef int (*archive_db_fn)(const char *db, void *arg);
int archive_databases(struct bucket *b, archive_db_fn fn, void *arg);

#endif
