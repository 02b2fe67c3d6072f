#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/io.h"

#include "capture/batch.h"

int batch_new(int dirfd, uint32_t page_size, uint32_t commit,
	      struct batch **ret)
{
	struct batch *b = calloc(1, sizeof(*b));

	if (!b)
		return error_set(-ENOMEM, "out of memory");
	b->dirfd = dirfd;
	b->fd = -1;
	b->page_size = page_size;
	b->commit = b->low_commit = commit;
	b->memory_slots = BATCH_MEMORY / page_size;
	*ret = b;
	return 0;
}

void batch_free(struct batch *b)
{
	if (!b)
		return;
	if (b->fd >= 0)
		(void)close(b->fd);
	pgmap_clear(&b->map);
	free(b->hashes);
	free(b->memory);
	free(b);
}

/* Room for one more slot. */
static int grow(struct batch *b)
{
	uint32_t capacity = b->capacity ? b->capacity * 2 : 4;
	uint64_t *hashes = realloc(b->hashes, capacity * sizeof(*hashes));

	if (!hashes)
		goto no_memory;
	b->hashes = hashes;
	if (b->capacity < b->memory_slots) {
		uint32_t n = capacity < b->memory_slots ? capacity :
							  b->memory_slots;
		uint8_t *memory =
			realloc(b->memory, (size_t)n * b->page_size);

		if (!memory)
			goto no_memory;
		b->memory = memory;
	}
	b->capacity = capacity;
	return 0;
no_memory:
	return error_set(-ENOMEM, "out of memory for a batch of %u pages",
			 capacity);
}

/* The file for what memory does not hold; unnamed, so that a crash leaves nothing. */
static int open_store(struct batch *b)
{
	if (b->fd >= 0)
		return 0;
	return io_open_unnamed(b->dirfd, &b->fd);
}

static int store(struct batch *b, uint32_t slot, const void *page)
{
	int rc;

	if (slot < b->memory_slots) {
		memcpy(b->memory + (size_t)slot * b->page_size, page,
		       b->page_size);
		return 0;
	}
	rc = open_store(b);
	if (rc < 0)
		return rc;
	rc = io_pwrite(b->fd, page, b->page_size,
		       (uint64_t)(slot - b->memory_slots) * b->page_size);
	return rc < 0 ? error_wrap(rc, "keeping a large batch") : 0;
}

int batch_put(struct batch *b, uint32_t pgno, const void *page, uint64_t hash)
{
	uint32_t slot = pgmap_get(&b->map, pgno);
	int rc = 0;

	if (slot == 0 && b->slots == b->capacity)
		rc = grow(b);
	if (rc < 0)
		return rc;
	slot = slot ? slot - 1 : b->slots;
	rc = store(b, slot, page);
	if (rc == 0)
		rc = pgmap_set(&b->map, pgno, slot + 1);
	else if (slot < b->slots)
		/* The slot may hold half of each; taking out cannot fail. */
		(void)pgmap_set(&b->map, pgno, 0);
	if (rc < 0)
		return rc;
	if (slot == b->slots)
		b->slots++;
	b->hashes[slot] = hash;
	b->changed = true;
	return 0;
}

bool batch_find(const struct batch *b, uint32_t pgno, uint64_t *ret_hash)
{
	uint32_t slot = pgmap_get(&b->map, pgno);

	if (slot == 0)
		return false;
	*ret_hash = b->hashes[slot - 1];
	return true;
}

int batch_read(const struct batch *b, uint32_t pgno, void *ret_page)
{
	uint32_t slot = pgmap_get(&b->map, pgno);
	ssize_t n;

	if (slot == 0)
		return error_set(-ENOENT, "page %u is not in the batch", pgno);
	slot--;
	if (slot < b->memory_slots) {
		memcpy(ret_page, b->memory + (size_t)slot * b->page_size,
		       b->page_size);
		return 0;
	}
	n = io_pread(b->fd, ret_page, b->page_size,
		     (uint64_t)(slot - b->memory_slots) * b->page_size);
	if (n == (ssize_t)b->page_size)
		return 0;
	return n < 0 ? error_wrap((int)n, "reading back a large batch") :
		       error_set(-EIO, "a large batch lost page %u", pgno);
}

void batch_resize(struct batch *b, uint32_t commit)
{
	for (size_t i = 0; commit < b->commit && i < b->map.capacity; i++)
		if (b->map.entries[i].pgno > commit)
			b->map.entries[i].value = 0;
	if (commit != b->commit)
		b->changed = true;
	if (commit < b->low_commit)
		b->low_commit = commit;
	b->commit = commit;
}
