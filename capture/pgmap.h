#ifndef LITEBUCKET_CAPTURE_PGMAP_H
#define LITEBUCKET_CAPTURE_PGMAP_H

/*
 * A hash table from page numbers to 32-bit values, neither of them 0.  Sixteen
 * bytes a page at worst.  Not thread-safe.
 */
#include <stddef.h>
#include <stdint.h>

struct pgmap {
	struct pgmap_entry {
		uint32_t pgno, value;
	} *entries;
	size_t capacity; /* a power of two, or 0 */
	size_t used;	 /* entries with a pgno, also those with value 0 */
};

#define PGMAP_INIT { 0 }

/* 0: not there. */
uint32_t pgmap_get(const struct pgmap *m, uint32_t pgno);

/* value 0 takes the page out.  -ENOMEM: nothing changed. */
int pgmap_set(struct pgmap *m, uint32_t pgno, uint32_t value);

/* Forget everything. */
void pgmap_clear(struct pgmap *m);

/* All page numbers in ascending order; the array is the caller's to free. */
int pgmap_sorted(const struct pgmap *m, uint32_t **ret_pgnos, size_t *ret_n);

#endif
