#ifndef LITEBUCKET_BUCKET_CATALOG_H
#define LITEBUCKET_BUCKET_CATALOG_H

/*
 * catalog.json: which bucket this is, and which databases it has
 * ==============================================================
 *
 *	{
 *	 "bucket_id": "0f5c...",		128 random bits in hex
 *	 "databases": {
 *	  "dir/app.db": {			as in keys (bucket/archive.h)
 *	   "floor": "0000000000000001",		the lowest slot still to be left
 *	   "page_size": 4096,
 *	   "state": "live",			or "dropped"
 *	   "time": "2006-01-02T15:04:05.000Z",
 *	   "txid": "0000000000000001"
 *	  }
 *	 },
 *	 "epoch": 1,				of the last writer; never falls
 *	 "format": 1
 *	}
 *
 * A line says what held after the batch txid, whose time is beside it; for a
 * dropped database that is the drop itself.  The log is written first and the
 * catalog afterwards, so it can be behind, and whoever finds them apart
 * believes the log.  docs/format.md has the rest.
 *
 * This is the only place that knows the bytes.  What a catalog holds beyond
 * them (a newer litebucket's members) is kept through a change, unless the
 * format's number says that it must not be.
 *
 * A struct catalog is not for two threads at a time.  Memory is bounded by
 * CATALOG_SIZE_MAX, whatever the object claims.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "bucket/bucket.h"

struct buf;
struct catalog;

#define CATALOG_KEY "catalog.json"

enum {
	CATALOG_FORMAT = 1,
	CATALOG_ID_SIZE = 33,		/* 32 hex digits and NUL */
	CATALOG_SIZE_MAX = 16 << 20,	/* some 100,000 databases */
};

/* One database's line. */
struct catalog_entry {
	uint32_t page_size;
	bool dropped;
	uint64_t txid;	 /* the batch after which this held */
	int64_t time_ms; /* of that batch */
	uint64_t floor;	 /* 0 is read and written as 1 */
};

/* 32 lower-case hex digits? */
bool catalog_id_valid(const char *id);

/* A new random one. */
void catalog_id_make(char ret[CATALOG_ID_SIZE]);

/* An empty one of epoch 1. */
int catalog_new(const char *id, struct catalog **ret);

/*
 * -ERR_CORRUPT: not what catalog_print() makes; the sentence says where.
 * -EOPNOTSUPP: a newer format.  -EFBIG: larger than any of ours.
 */
int catalog_parse(const char *data, size_t size, struct catalog **ret);

/* Append the text, always the same for the same content, to ret. */
int catalog_print(const struct catalog *c, struct buf *ret);

/*
 * Fetch and parse.  ret_info (may be NULL) gets the ETag to change it with.
 * -ENOENT: the bucket has none; else as catalog_parse().
 */
int catalog_get(struct bucket *b, struct catalog **ret,
		struct bucket_info *ret_info);

/* Valid until the catalog is freed. */
const char *catalog_id(const struct catalog *c);
uint64_t catalog_epoch(const struct catalog *c);
size_t catalog_count(const struct catalog *c);

/*
 * Make it one of this epoch.  Returns 1, or 0 if it is already.  -EINVAL: the
 * epoch is lower than the one that it has, or none that one can have (1 up to
 * UINT32_MAX); nothing is changed.
 */
int catalog_set_epoch(struct catalog *c, uint64_t epoch);

/* The line of a database, by its DB part of keys; false: there is none. */
bool catalog_find(const struct catalog *c, const char *db,
		  struct catalog_entry *ret);

/*
 * Note what holds for a database after batch entry->txid; its floor stays.
 * Returns 1, or 0 if the catalog need not change: it says so already, or
 * speaks of a later batch.  -EINVAL: db is no DB part.
 */
int catalog_note(struct catalog *c, const char *db,
		 const struct catalog_entry *entry);

/* In order of db; non-zero from fn stops and is returned. */
typedef int (*catalog_fn)(const char *db, const struct catalog_entry *entry,
			  void *arg);
int catalog_each(const struct catalog *c, catalog_fn fn, void *arg);

/* NULL is allowed. */
void catalog_free(struct catalog *c);
AUTO_FREE(catalog);

#endif
