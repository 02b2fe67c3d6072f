#include <stdbool.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "bucket/archive.h"
#include "bucket/catalog.h"
#include "ltx/header.h"

#include "bucket/epoch.h"

struct search {
	struct bucket *bucket;
	uint64_t greatest;
};

static void note(struct search *s, uint64_t epoch)
{
	if (epoch > s->greatest)
		s->greatest = epoch;
}

/*
 * Who else writes a node id means something else by it.  What is no other's:
 * the checksums, or, where there is no page to have one, the kind.
 */
static bool is_ours(const struct ltx_header *header)
{
	return header->pre_dbsum || header->post_dbsum ||
	       header->kind != LTX_BATCH;
}

/* An archive_db_fn. */
static int look_at_log(const char *db, void *arg)
{
	struct search *s = arg;
	struct archive_file slot;
	struct ltx_header header;
	int rc = archive_last_slot(s->bucket, db, &slot);

	/* Only snapshots and the like. */
	if (rc == -ENOENT)
		return 0;
	if (rc == 0)
		rc = archive_get_header(s->bucket, db, &slot, &header);
	if (rc == 0 && is_ours(&header))
		note(s, header.node_id >> 32);
	/* Whoever goes on behind it will find that out; the others can. */
	if (rc != -ERR_CORRUPT)
		return rc;
	log_warn("the epoch of a damaged log is not known", "db=%s error=%s",
		 log_quote(db), log_quote(error_message()));
	return 0;
}

/* It can be gone or damaged without keeping anybody from writing (D3). */
static int look_at_catalog(struct search *s)
{
	AUTO(catalog) struct catalog *catalog = NULL;
	int rc = catalog_get(s->bucket, &catalog, NULL);

	if (rc == -ENOENT || rc == -ERR_CORRUPT || rc == -EFBIG)
		return 0;
	if (rc == 0)
		note(s, catalog_epoch(catalog));
	return rc;
}

int epoch_greatest(struct bucket *b, uint64_t *ret)
{
	struct search s = { .bucket = b };
	int rc = look_at_catalog(&s);

	if (rc == 0)
		rc = archive_databases(b, look_at_log, &s);
	if (rc < 0)
		return error_wrap(rc, "looking for the last epoch of %s",
				  b->url);
	*ret = s.greatest;
	return 0;
}
