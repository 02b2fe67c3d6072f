#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"

#include "bucket/archive.h"

/*
 * Where does a log end?  A list of all its slots would be long, so the end is
 * approached first: from a slot that is there, by steps that double until nothing
 * follows, and then by halves.  What was found missing only says where not to
 * look; the slots after the last one that was found are listed in any case.
 */
enum { PAGE = 1000 }; /* keys in a reply, of most stores */

struct tail {
	struct bucket *bucket;
	const char *db;
	char prefix[BUCKET_KEY_MAX];

	/* Of the list that is under way. */
	size_t n;
	char after[BUCKET_KEY_MAX]; /* its last key */
	bool got;		    /* a slot was in it */

	struct archive_file last; /* of all that were found; min_txid 0: none */
};

static int look_at(const struct bucket_object *object, void *arg)
{
	struct archive_file file = {
		.size = object->size,
		.modified_ms = object->modified_ms,
	};
	struct tail *t = arg;
	char db[BUCKET_KEY_MAX];

	t->n++;
	(void)snprintf(t->after, sizeof(t->after), "%s", object->key);
	if (archive_parse_key(object->key, db, &file) < 0 ||
	    strcmp(db, t->db) != 0 || file.level != 0)
		return 0;
	t->got = true;
	if (file.max_txid > t->last.max_txid)
		t->last = file;
	return 0;
}

static int list_after(struct tail *t, size_t limit)
{
	char after[BUCKET_KEY_MAX];

	memcpy(after, t->after, sizeof(after));
	t->n = 0;
	t->got = false;
	return bucket_list(t->bucket, t->prefix, after, limit, look_at, t);
}

/* '.' follows '-': beyond the slot of this TXID. */
static int begin_after(struct tail *t, uint64_t txid)
{
	if (snprintf(t->after, sizeof(t->after), "%s%016" PRIx64 ".",
		     t->prefix, txid) >= (int)sizeof(t->after))
		return error_set(-ENAMETOOLONG, "the key is too long");
	return 0;
}

/*
 * Is there a slot after this one?  "No" may be wrong, where another program's
 * object comes first; then more is listed in the end.
 */
static int follows(struct tail *t, uint64_t txid)
{
	int rc = begin_after(t, txid);

	if (rc == 0)
		rc = list_after(t, 1);
	return rc < 0 ? rc : t->got;
}

/* All that follow. */
static int walk(struct tail *t, uint64_t txid)
{
	int rc = begin_after(t, txid);

	do
		rc = rc < 0 ? rc : list_after(t, PAGE);
	while (rc == 0 && t->n == PAGE);
	return rc;
}

/* Bring the last slot that is known to at most PAGE before the end. */
static int approach(struct tail *t)
{
	uint64_t step = PAGE, end;
	int rc;

	do {
		end = t->last.max_txid > UINT64_MAX - step
			      ? UINT64_MAX
			      : t->last.max_txid + step;
		step = step > UINT64_MAX / 2 ? UINT64_MAX : 2 * step;
		rc = follows(t, end);
	} while (rc > 0);
	while (rc >= 0 && end - t->last.max_txid > PAGE) {
		uint64_t middle = t->last.max_txid +
				  (end - t->last.max_txid) / 2;

		rc = follows(t, middle);
		if (rc == 0)
			end = middle;
	}
	return rc < 0 ? rc : 0;
}

static int find_last(struct tail *t)
{
	int rc = begin_after(t, 0);

	if (rc == 0)
		rc = list_after(t, PAGE);
	if (rc < 0 || t->n < PAGE)
		return rc;
	if (t->last.min_txid)
		rc = approach(t);
	return rc < 0 ? rc : walk(t, t->last.max_txid);
}

int archive_last_slot(struct bucket *b, const char *db,
		      struct archive_file *ret)
{
	struct tail t = { .bucket = b, .db = db };
	int rc = 0;

	if (snprintf(t.prefix, sizeof(t.prefix), "%s%s0000/", db,
		     *db ? "/" : "") >= (int)sizeof(t.prefix))
		rc = error_set(-ENAMETOOLONG, "the key is too long");
	if (rc == 0)
		rc = find_last(&t);
	if (rc == 0 && !t.last.min_txid)
		rc = error_set(-ENOENT, "its log has no slots");
	if (rc < 0)
		return error_wrap(rc, "looking for the end of '%s' in %s", db,
				  b->url);
	*ret = t.last;
	return 0;
}
