#ifndef LITEBUCKET_BUCKET_BUCKET_H
#define LITEBUCKET_BUCKET_BUCKET_H

/*
 * The object store
 * ================
 *
 * A bucket is a flat map from keys to byte strings, as S3 gives it and no
 * more.  The rest of the program relies on exactly these promises:
 *
 *   1. Read-after-write: once put returns 0, get, head and list see it.
 *   2. All or nothing: no reader ever sees part of an object.
 *   3. if_absent: of any number of racing writers exactly one gets 0; the
 *      others get -ERR_PRECOND (or an error that leaves it open, below).
 *   4. if_match: the object is replaced only if its ETag is still this one.
 *   5. list gives keys in ascending byte order.
 *
 * tests/unit/bucket_contract.h checks them for every implementation.
 *
 * A put whose reply was lost may have happened: after -ETIMEDOUT, -EIO and
 * their like the caller cannot know, and a retried if_absent put may answer
 * -ERR_PRECOND to its own first try.  Who needs certainty reads the object
 * back and compares.
 *
 * Implementations: bucket_file (a directory), bucket_s3 (libcurl), bucket_libs3
 * (Signature V2 only stores).  Wrappers take a bucket, own it, and are one:
 * bucket_retry.  Only bucket_retry retries.
 *
 * Keys are of [A-Za-z0-9._/=-], without "//", "./" or "../" components, not
 * beginning or ending with "/", shorter than BUCKET_KEY_MAX; anything else is
 * refused with -EINVAL before it goes anywhere.  They are relative to the
 * prefix or path of the bucket's URL (bucket/url.h).
 *
 * Errors with a meaning: -ENOENT no such object; -ERR_PRECOND; -EACCES the
 * store refuses us (wrong key, clock, permission); -ENODEV no such bucket;
 * -EOPNOTSUPP this driver or store cannot do it; -ERANGE a range beyond the
 * object's end.  -ETIMEDOUT, -ECONNREFUSED, -ECONNRESET, -EHOSTUNREACH, -EIO,
 * -EAGAIN: transient, bucket_transient() says so.
 *
 * All operations block and may be called from any thread at the same time.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct bucket;
struct sink;

enum {
	BUCKET_KEY_MAX = 1024,
	BUCKET_ETAG_SIZE = 128,
	BUCKET_META_MAX = 4,
	BUCKET_DELETE_MAX = 1000,
};

#define BUCKET_TO_END UINT64_MAX

/* User metadata: lower-case names, values of printable ASCII. */
struct bucket_meta {
	char name[32];
	char value[64];
};

/* What a reply says about an object.  file:// keeps no metadata but the time. */
struct bucket_info {
	uint64_t size;	     /* of the whole object, also for a range */
	int64_t modified_ms; /* by the store's clock */
	int64_t date_ms;     /* the store's clock at the reply; 0 unknown */
	char etag[BUCKET_ETAG_SIZE]; /* as received, quotes included */
	size_t n_meta;
	struct bucket_meta meta[BUCKET_META_MAX];
};

/* The value, or NULL. */
const char *bucket_info_meta(const struct bucket_info *info, const char *name);

/*
 * A put's body is memory (data) or, with data NULL, a file from its beginning
 * (fd, which stays the caller's and whose own offset is not used).  It is read
 * more than once: for the signature, and again for each retry.
 */
struct bucket_put {
	const char *key;
	const void *data;
	int fd;
	uint64_t size;
	const struct bucket_meta *meta;
	size_t n_meta;
	bool if_absent;
	const char *if_match; /* an ETag as received, or NULL */
};

struct bucket_object {
	const char *key; /* valid during the callback only */
	uint64_t size;
	int64_t modified_ms;
};

/* Return 0 to go on, anything else to stop and have list return it. */
typedef int (*bucket_list_fn)(const struct bucket_object *object, void *arg);

/* What a store was found to keep of promises 3 and 4. */
enum bucket_caps {
	BUCKET_IF_ABSENT = 1 << 0,
	BUCKET_IF_MATCH = 1 << 1,
};

/*
 * What a driver implements.  The functions below call these with checked keys
 * and prefixes, with a length that is not 0, with at most BUCKET_DELETE_MAX
 * keys, with after never NULL, and with a ret that is never NULL and all
 * zero.  get fills ret before the first byte goes to the sink: a get that
 * broke off has said what it was reading, which bucket_retry needs to go on.
 */
struct bucket_ops {
	const char *name; /* "file", "s3", "libs3" */
	int (*get)(struct bucket *b, const char *key, uint64_t offset,
		   uint64_t length, const char *if_match, struct sink *sink,
		   struct bucket_info *ret);
	int (*head)(struct bucket *b, const char *key, struct bucket_info *ret);
	int (*put)(struct bucket *b, const struct bucket_put *put,
		   struct bucket_info *ret);
	int (*list)(struct bucket *b, const char *prefix, const char *after,
		    size_t limit, bucket_list_fn fn, void *arg);
	int (*remove)(struct bucket *b, const char *const keys[], size_t n);
	int (*probe)(struct bucket *b, unsigned *ret_caps);
	void (*free)(struct bucket *b);
};

/* The first member of every implementation. */
struct bucket {
	const struct bucket_ops *ops;
	const char *url; /* as people know it: for messages, without secrets */
};

/*
 * Up to length bytes from offset on into sink, in order.  BUCKET_TO_END reads
 * to the end; a range that begins at or beyond the end is -ERANGE, one that
 * only ends beyond it is cut.  (From 0 to the end is no range: it reads an
 * empty object, too.)  if_match (may be NULL): only while the object's ETag is
 * this one, else -ERR_PRECOND.  ret may be NULL.
 *
 * After an error the sink may have got the beginning.
 */
int bucket_get(struct bucket *b, const char *key, uint64_t offset,
	       uint64_t length, const char *if_match, struct sink *sink,
	       struct bucket_info *ret);

int bucket_head(struct bucket *b, const char *key, struct bucket_info *ret);

/* ret (may be NULL) gets etag and date_ms. */
int bucket_put(struct bucket *b, const struct bucket_put *put,
	       struct bucket_info *ret);

/*
 * Every key that begins with prefix and is greater than after (NULL or "":
 * from the beginning), at most limit of them (0: all).
 */
int bucket_list(struct bucket *b, const char *prefix, const char *after,
		size_t limit, bucket_list_fn fn, void *arg);

/* Any number of keys; those that do not exist are no error. */
int bucket_remove(struct bucket *b, const char *const keys[], size_t n);

/*
 * Which conditions the store really keeps: tried out on a key of its own
 * (".litebucket-probe-<nonce>", removed afterwards) the first time, remembered
 * afterwards.  Many stores ignore conditions in some settings.
 */
int bucket_probe(struct bucket *b, unsigned *ret_caps);

/* Is it worth trying again? */
bool bucket_transient(int rc);

/* -EINVAL with a sentence. */
int bucket_key_check(const char *key);

/* NULL is allowed. */
void bucket_free(struct bucket *b);
AUTO_FREE(bucket);

#endif
