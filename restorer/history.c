#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "bucket/bucket.h"
#include "ltx/header.h"
#include "restorer/choose.h"
#include "restorer/points.h"

#include "restorer/restorer.h"

/* Another program means something else by a node id. */
static uint32_t epoch_of(const struct ltx_header *header)
{
	return header->post_dbsum ? (uint32_t)(header->node_id >> 32) : 0;
}

static int load_point(const struct choice *c, const struct archive_file *file,
		      struct restorer_point *ret)
{
	struct ltx_header header;
	int rc = choose_header(c, file, &header);

	if (rc < 0)
		return rc;
	*ret = (struct restorer_point){
		.txid = file->max_txid,
		.timestamp_ms = header.timestamp_ms,
		.level = file->level,
		.size = file->size,
		.page_size = header.page_size,
		.commit = header.commit,
		.kind = header.kind,
		.ours = header.post_dbsum != 0,
		.epoch = epoch_of(&header),
		.dbsum = header.post_dbsum,
	};
	return 0;
}

int restorer_history(struct bucket *b, const char *db, restorer_point_fn fn,
		     void *arg)
{
	AUTO(choice) struct choice c = { .bucket = b, .db = db };
	AUTO(mem) struct archive_file *points = NULL;
	size_t n;
	int rc = choose_list_all(&c);

	if (rc < 0)
		return rc;
	points = calloc(c.listed.n + 1, sizeof(*points));
	if (!points)
		return error_set(-ENOMEM, "out of memory");
	n = points_find(c.listed.items, c.listed.n, false, points);
	for (size_t i = 0; i < n; i++) {
		struct restorer_point point;

		rc = load_point(&c, &points[i], &point);
		/* Retention may remove files while we look. */
		if (rc == -ESTALE)
			continue;
		if (rc == 0)
			rc = fn(&point, arg);
		if (rc != 0)
			return rc;
	}
	return 0;
}

int restorer_head(struct bucket *b, const char *db, struct restorer_point *ret)
{
	AUTO(choice) struct choice c = { .bucket = b, .db = db };
	int rc = -ESTALE;

	for (int i = 0; i < CHOOSE_ATTEMPTS && rc == -ESTALE; i++) {
		rc = choose(&c, 0, 0);
		if (rc == 0)
			rc = load_point(&c, choose_slot(&c), ret);
	}
	if (rc == -ESTALE)
		return error_wrap(-ERR_GAP,
				  "the bucket lists what it does not have");
	return rc;
}
