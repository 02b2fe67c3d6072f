#ifndef LITEBUCKET_RESTORER_CHOOSE_H
#define LITEBUCKET_RESTORER_CHOOSE_H

/*
 * Finding out what is meant, and which files it takes
 * ===================================================
 *
 * Lists what the bucket has and settles on a transaction and a plan for it.
 *
 * Listing costs requests, so level 0 is first listed only from where the
 * compactions end.  If that does not lead to the transaction, everything is
 * listed anew, from level 0 up, so that what others compact in the meantime is
 * seen before or after; and only then it counts as missing.
 *
 * An older state is never taken for the one that was asked for.  If files
 * exist beyond a hole, then asking for the latest, or for a time at which the
 * missing transaction may have been there already, is an error.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bucket/archive.h"

struct ltx_header;

/*
 * Compaction and retention go on while we read: a file that was listed may be
 * gone when its turn comes, and a larger one is in its place.  So often it is
 * looked anew.
 */
enum { CHOOSE_ATTEMPTS = 3 };

struct choice {
	struct bucket *bucket;
	const char *db;

	struct archive_files listed;
	size_t n_above; /* those above level 0, if they are first in the array */
	bool whole;	/* all of level 0 is among them */

	uint64_t txid;
	struct archive_file *plan;
	size_t n_plan;
};
void choice_cleanup(struct choice *c);

/*
 * Set c->bucket and c->db, the rest to zero, before the first call; it may be
 * called again to look anew.  txid and timestamp_ms are 0 when not asked for.
 *
 * -ENOENT, -ERR_GAP: as for restorer_restore().  -ESTALE: a file was listed and
 * is gone; worth another look.
 */
int choose(struct choice *c, uint64_t txid, int64_t timestamp_ms);

/* List everything.  -ENOENT: no database. */
int choose_list_all(struct choice *c);

/* The file of the lowest level that ends with c->txid. */
const struct archive_file *choose_slot(const struct choice *c);

/*
 * -ENOENT: there is no database after the transaction that was chosen (or that
 * header is of); the sentence tells how to get the last state before.
 */
int choose_check_dropped(struct choice *c);
int choose_check_header(struct choice *c, const struct ltx_header *header);

/* A file's header; -ESTALE if it is gone. */
int choose_header(const struct choice *c, const struct archive_file *file,
		  struct ltx_header *ret);

#endif
