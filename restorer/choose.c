#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "bucket/bucket.h"
#include "ltx/header.h"
#include "restorer/plan.h"
#include "restorer/points.h"

#include "restorer/choose.h"

/* A file without pages: header, end of pages, end and size of index, trailer. */
enum {
	EMPTY_FILE_SIZE = LTX_HEADER_SIZE + LTX_PAGE_HEADER_SIZE + 1 + 8 +
			  LTX_TRAILER_SIZE,
};

void choice_cleanup(struct choice *c)
{
	archive_files_cleanup(&c->listed);
	free(c->plan);
}

static struct archive_file *new_array(size_t n)
{
	struct archive_file *files = calloc(n + 1, sizeof(*files));

	if (!files)
		(void)error_set(-ENOMEM, "out of memory for %zu files", n);
	return files;
}

/* Where level 0 has to be listed from to get to txid (0: the latest). */
static int find_start(const struct choice *c, uint64_t txid, uint64_t *ret)
{
	AUTO(mem) struct archive_file *points = new_array(c->n_above);
	const struct archive_file *last;
	size_t n;

	if (!points)
		return -ENOMEM;
	n = points_find(c->listed.items, c->n_above, false, points);
	last = points_at_or_before(points, n, txid ? txid : UINT64_MAX);
	/* The slot of that point itself says whether it is a drop. */
	*ret = last ? last->max_txid - 1 : 0;
	return 0;
}

static int list_above(struct choice *c)
{
	int rc;

	c->listed.n = 0;
	rc = archive_list_above(c->bucket, c->db, &c->listed);
	c->n_above = c->listed.n;
	return rc;
}

static int list_level_0(struct choice *c, uint64_t after)
{
	c->listed.n = c->n_above;
	c->whole = after == 0;
	return archive_list(c->bucket, c->db, 0, after, &c->listed);
}

static int no_database(const struct choice *c)
{
	return error_set(-ENOENT,
			 "there is no database at %s%s%s (no LTX files)",
			 c->bucket->url, c->db[0] ? "/" : "", c->db);
}

/* A file that moves up while we list is in one level or the other. */
static int list_upwards(struct choice *c)
{
	int rc;

	c->n_above = 0;
	rc = list_level_0(c, 0);
	return rc < 0 ? rc : archive_list_above(c->bucket, c->db, &c->listed);
}

int choose_list_all(struct choice *c)
{
	int rc = list_upwards(c);

	if (rc == 0 && c->listed.n == 0)
		return no_database(c);
	return rc;
}

int choose_header(const struct choice *c, const struct archive_file *file,
		  struct ltx_header *ret)
{
	int rc = archive_get_header(c->bucket, c->db, file, ret);

	if (rc == -ENOENT)
		return error_wrap(-ESTALE, "a file was listed and is gone");
	return rc;
}

const struct archive_file *choose_slot(const struct choice *c)
{
	const struct archive_file *slot = NULL;

	for (size_t i = 0; i < c->listed.n; i++) {
		const struct archive_file *f = &c->listed.items[i];

		if (f->max_txid == c->txid && (!slot || f->level < slot->level))
			slot = f;
	}
	return slot;
}

/* From the listing to a plan for txid. */
static int make_plan(struct choice *c, uint64_t txid)
{
	AUTO(mem) struct archive_file *plan = new_array(c->listed.n);
	int n;

	if (!plan)
		return -ENOMEM;
	n = restorer_plan(c->listed.items, c->listed.n, txid, plan);
	if (n < 0)
		return n;
	free(c->plan);
	c->plan = TAKE(plan);
	c->n_plan = (size_t)n;
	c->txid = txid;
	return 0;
}

/* The points of the listing, or all its ends, in an array for the caller. */
static int find_points(const struct choice *c, bool all_ends,
		       struct archive_file **ret, size_t *ret_n)
{
	*ret = new_array(c->listed.n);
	if (!*ret)
		return -ENOMEM;
	*ret_n = points_find(c->listed.items, c->listed.n, all_ends, *ret);
	return 0;
}

/* Of all ends, in ascending order, there is at least one. */
static int choose_latest(struct choice *c)
{
	uint64_t head = 0;

	for (size_t i = 0; i < c->listed.n; i++)
		if (c->listed.items[i].max_txid > head)
			head = c->listed.items[i].max_txid;
	return make_plan(c, head);
}

static int choose_txid(struct choice *c, uint64_t txid)
{
	AUTO(mem) struct archive_file *points = NULL;
	const struct archive_file *ends;
	size_t n;
	int rc = make_plan(c, txid);

	if (rc != -ENOENT && rc != -ERR_GAP)
		return rc;
	/* A gap below what does exist is a gap; beyond it there is nothing. */
	ends = c->listed.items;
	for (size_t i = 0; rc == -ERR_GAP && i < c->listed.n; i++)
		if (ends[i].max_txid >= txid)
			return rc;
	rc = find_points(c, false, &points, &n);
	if (rc < 0)
		return rc;
	/* Without any point the plan's own sentence says more. */
	return n > 0 ? points_unknown(points, n, txid) : -ENOENT;
}

static int outside_range(const struct choice *c,
			 const struct archive_file *points, size_t n,
			 int64_t timestamp_ms)
{
	char asked[CLOCK_TEXT_SIZE], first[CLOCK_TEXT_SIZE],
		last[CLOCK_TEXT_SIZE];
	struct ltx_header header;
	int rc;

	if (n == 0)
		return error_set(-ENOENT, "no transaction can be restored");
	rc = choose_header(c, &points[0], &header);
	if (rc < 0)
		return rc;
	clock_format(header.timestamp_ms, first);
	rc = choose_header(c, &points[n - 1], &header);
	if (rc < 0)
		return rc;
	clock_format(header.timestamp_ms, last);
	clock_format(timestamp_ms, asked);
	return error_set(-ENOENT,
			 "%s is outside of what can be restored, %s "
			 "(transaction %016" PRIx64
			 ") to %s (transaction %016" PRIx64 ")%s",
			 asked, first, points[0].max_txid, last,
			 points[n - 1].max_txid,
			 timestamp_ms < header.timestamp_ms ? "" :
			 "; without a time the last one is restored");
}

/*
 * How many of the ends have a time at or before timestamp_ms, by a binary
 * search that fetches a few headers; and the time of the last of those.
 */
static int count_until(const struct choice *c, const struct archive_file *ends,
		       size_t n, int64_t timestamp_ms, size_t *ret_n,
		       struct ltx_header *ret_last)
{
	size_t low = 0, high = n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		struct ltx_header header;
		int rc = choose_header(c, &ends[middle], &header);

		if (rc < 0)
			return rc;
		if (header.timestamp_ms <= timestamp_ms) {
			*ret_last = header;
			low = middle + 1;
		} else {
			high = middle;
		}
	}
	*ret_n = low;
	return 0;
}

/*
 * What was there at a time?  All ends are asked, not only the points: a batch
 * that exists but cannot be reached is an error, and so is a missing one
 * between the last before the time and the first after it.  But what is only
 * within a compaction has been given up by whoever compacted; then it is the
 * last point before.
 */
static int choose_time(struct choice *c, int64_t timestamp_ms)
{
	AUTO(mem) struct archive_file *ends = NULL, *points = NULL;
	const struct archive_file *point;
	struct ltx_header last = { 0 };
	size_t n_ends, n_points, until = 0;
	int rc;

	rc = find_points(c, true, &ends, &n_ends);
	if (rc == 0)
		rc = find_points(c, false, &points, &n_points);
	if (rc == 0)
		rc = count_until(c, ends, n_ends, timestamp_ms, &until, &last);
	if (rc < 0)
		return rc;
	for (size_t i = until ? until - 1 : 0; i <= until && i < n_ends; i++) {
		rc = make_plan(c, ends[i].max_txid);
		if (rc == -ERR_GAP)
			return rc;
	}
	point = until ? points_at_or_before(points, n_points,
					    ends[until - 1].max_txid)
		      : NULL;
	if (!point || (until == n_ends && last.timestamp_ms < timestamp_ms &&
		       last.kind != LTX_DROP))
		return outside_range(c, points, n_points, timestamp_ms);
	return make_plan(c, point->max_txid);
}

int choose_check_header(struct choice *c, const struct ltx_header *header)
{
	AUTO(mem) struct archive_file *points = NULL;
	const struct archive_file *before;
	char when[CLOCK_TEXT_SIZE];
	size_t n = 0;
	int rc = 0;

	if (header->kind != LTX_DROP && header->commit > 0)
		return 0;
	if (!c->whole)
		rc = list_level_0(c, 0);
	if (rc == 0)
		rc = find_points(c, false, &points, &n);
	if (rc < 0)
		return rc;
	clock_format(header->timestamp_ms, when);
	before = points_at_or_before(points, n, header->max_txid - 1);
	if (!before)
		return error_set(-ENOENT,
				 "the database was dropped at %s, "
				 "in transaction %016" PRIx64 ", and no state "
				 "before that is left",
				 when, header->max_txid);
	return error_set(-ENOENT,
			 "the database was dropped at %s, in "
			 "transaction %016" PRIx64 "; --txid %016" PRIx64
			 " restores the last state before that",
			 when, header->max_txid, before->max_txid);
}

/* Only a file without pages can be a drop, and that is seen from its size. */
int choose_check_dropped(struct choice *c)
{
	const struct archive_file *slot = choose_slot(c);
	struct ltx_header header;
	int rc;

	if (!slot || slot->size != EMPTY_FILE_SIZE)
		return 0;
	rc = choose_header(c, slot, &header);
	return rc < 0 ? rc : choose_check_header(c, &header);
}

static int choose_listed(struct choice *c, uint64_t txid, int64_t timestamp_ms)
{
	if (c->listed.n == 0)
		return no_database(c);
	if (txid)
		return choose_txid(c, txid);
	if (timestamp_ms)
		return choose_time(c, timestamp_ms);
	return choose_latest(c);
}

int choose(struct choice *c, uint64_t txid, int64_t timestamp_ms)
{
	uint64_t start = 0;
	int rc = list_above(c);

	if (rc == 0 && (txid || !timestamp_ms))
		rc = find_start(c, txid, &start);
	if (rc == 0)
		rc = list_level_0(c, start);
	if (rc < 0)
		return rc;
	rc = choose_listed(c, txid, timestamp_ms);
	if ((rc == -ENOENT || rc == -ERR_GAP) && !c->whole) {
		rc = list_upwards(c);
		if (rc == 0)
			rc = choose_listed(c, txid, timestamp_ms);
	}
	return rc;
}
