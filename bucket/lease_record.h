#ifndef LITEBUCKET_BUCKET_LEASE_RECORD_H
#define LITEBUCKET_BUCKET_LEASE_RECORD_H

/*
 * lock.json: who may write
 * ========================
 *
 *	{
 *	 "acquired_at": "2006-01-02T15:04:05.000Z",
 *	 "clean": false,
 *	 "expires_at": "2006-01-02T15:04:15.000Z",
 *	 "format": 1,
 *	 "generation": 7,			the epoch; never falls
 *	 "holder": "9f8e7d6c5b4a3921",		64 random bits of one life
 *	 "owner": "host-a",			for people
 *	 "released": false,
 *	 "serial": 42,				no two writes have the same bytes
 *	 "url": "http://host-a:8080"		where writes can be sent; or ""
 *	}
 *
 * Times are the store's own (the Date of its replies).  A released record may
 * say clean: the holder had closed every log, and has nothing under way.
 *
 * This is the only place that knows the bytes; bucket/lease.h has the rules.
 * Members that are not in the table are ignored, and gone with the next write:
 * a record is one holder's alone.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bucket/bucket.h"

struct buf;

#define LEASE_KEY "lock.json"

enum {
	LEASE_FORMAT = 1,
	LEASE_RECORD_MAX = 4096,
	LEASE_HOLDER_SIZE = 17, /* 16 hex digits and NUL */
	LEASE_OWNER_SIZE = 128,
	LEASE_URL_SIZE = 512,
};

struct lease_record {
	uint64_t generation; /* 0: nobody has had it yet */
	char holder[LEASE_HOLDER_SIZE];
	uint64_t serial;
	char owner[LEASE_OWNER_SIZE], url[LEASE_URL_SIZE];
	int64_t acquired_ms, expires_ms; /* wall, of the store's clock */
	bool released, clean;
};

/* A new random one. */
void lease_holder_make(char ret[LEASE_HOLDER_SIZE]);

/*
 * -ERR_CORRUPT: not what lease_record_print() makes; the sentence says where.
 * -EOPNOTSUPP: a newer format.
 */
int lease_record_parse(const char *data, size_t size,
		       struct lease_record *ret);

/*
 * Append the text, always the same for the same record.  -EINVAL: owner or url
 * could not be read from it.
 */
int lease_record_print(const struct lease_record *r, struct buf *ret);

/* -ENOENT: there is none; else as lease_record_parse(). */
int lease_record_get(struct bucket *b, struct lease_record *ret,
		     struct bucket_info *ret_info);

/*
 * etag: of the record that this one replaces; NULL: there must be none.
 * -ERR_PRECOND: it is another one, or there is one.
 */
int lease_record_put(struct bucket *b, const struct lease_record *r,
		     const char *etag, struct bucket_info *ret_info);

#endif
