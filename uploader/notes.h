#ifndef LITEBUCKET_UPLOADER_NOTES_H
#define LITEBUCKET_UPLOADER_NOTES_H

/*
 * What the catalog is to be told: one note a database at most, the newest.  So
 * however long the bucket is away, there are no more than databases.
 */
#include <stddef.h>

#include "bucket/catalog.h"

struct note {
	char *db; /* its part of keys */
	struct catalog_entry entry;
};

/* All zero: empty. */
struct notes {
	struct note *items;
	size_t n, capacity;
};

/* note->db is ours from here, but not on failure. */
int notes_add(struct notes *notes, const struct note *note);

/* Put older ones, which are none afterwards, before what is there. */
void notes_put_back(struct notes *notes, struct notes *older);

void notes_clear(struct notes *notes);

#endif
