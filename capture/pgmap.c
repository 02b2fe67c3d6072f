#include <stdlib.h>
#include <string.h>

#include "base/error.h"

#include "capture/pgmap.h"

/* Fibonacci hashing: neighbours, which pages mostly are, spread evenly. */
static size_t first_slot(const struct pgmap *m, uint32_t pgno)
{
	return (size_t)((pgno * UINT64_C(0x9e3779b97f4a7c15)) >> 32) &
	       (m->capacity - 1);
}

static struct pgmap_entry *find(const struct pgmap *m, uint32_t pgno)
{
	size_t i = first_slot(m, pgno);

	while (m->entries[i].pgno != 0 && m->entries[i].pgno != pgno)
		i = (i + 1) & (m->capacity - 1);
	return &m->entries[i];
}

uint32_t pgmap_get(const struct pgmap *m, uint32_t pgno)
{
	return m->capacity ? find(m, pgno)->value : 0;
}

static int grow(struct pgmap *m)
{
	struct pgmap bigger = { .capacity = m->capacity ? m->capacity * 2 : 64 };

	bigger.entries = calloc(bigger.capacity, sizeof(*bigger.entries));
	if (!bigger.entries)
		return error_set(-ENOMEM, "out of memory for %zu pages",
				 bigger.capacity);
	for (size_t i = 0; i < m->capacity; i++) {
		if (m->entries[i].value == 0)
			continue;
		*find(&bigger, m->entries[i].pgno) = m->entries[i];
		bigger.used++;
	}
	free(m->entries);
	*m = bigger;
	return 0;
}

int pgmap_set(struct pgmap *m, uint32_t pgno, uint32_t value)
{
	struct pgmap_entry *entry;

	if (m->used >= m->capacity - m->capacity / 4) {
		int rc = grow(m);

		if (rc < 0)
			return rc;
	}
	entry = find(m, pgno);
	if (entry->pgno == 0)
		m->used++;
	*entry = (struct pgmap_entry){ pgno, value };
	return 0;
}

void pgmap_clear(struct pgmap *m)
{
	free(m->entries);
	*m = (struct pgmap)PGMAP_INIT;
}

static int compare_pgnos(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

int pgmap_sorted(const struct pgmap *m, uint32_t **ret_pgnos, size_t *ret_n)
{
	uint32_t *pgnos = malloc((m->used + 1) * sizeof(*pgnos));
	size_t n = 0;

	if (!pgnos)
		return error_set(-ENOMEM, "out of memory for %zu pages",
				 m->used);
	for (size_t i = 0; i < m->capacity; i++)
		if (m->entries[i].value != 0)
			pgnos[n++] = m->entries[i].pgno;
	qsort(pgnos, n, sizeof(*pgnos), compare_pgnos);
	*ret_pgnos = pgnos;
	*ret_n = n;
	return 0;
}
