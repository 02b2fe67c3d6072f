#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/io.h"

#include "capture/pages.h"

struct pages {
	int fd;
	uint64_t size;	/* of the file, a multiple of 8 */
	char *map;	/* NULL while nothing is mapped */
	size_t mapped;
};

enum { MAP_STEP = 1 << 20, RUN_MAX = 512 };

/*
 * Map the file with room to grow.  Beyond the end of the file the mapping is
 * never read: pages_get() looks at size first.
 */
static int remap(struct pages *p, uint64_t size)
{
	size_t mapped = (size_t)(size / MAP_STEP + 1) * MAP_STEP;
	char *map;

	if (p->map && mapped <= p->mapped)
		return 0;
	map = mmap(NULL, mapped, PROT_READ, MAP_SHARED, p->fd, 0);
	if (map == MAP_FAILED)
		return error_errno("mapping %zu bytes of page hashes", mapped);
	if (p->map)
		(void)munmap(p->map, p->mapped);
	p->map = map;
	p->mapped = mapped;
	return 0;
}

int pages_open(int dirfd, const char *path, struct pages **ret)
{
	AUTO(pages) struct pages *p = calloc(1, sizeof(*p));
	int rc;

	if (!p)
		return error_set(-ENOMEM, "out of memory");
	p->fd = openat(dirfd, path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (p->fd < 0)
		return error_errno("opening '%s'", path);
	rc = pages_extend(p);
	if (rc < 0)
		return rc;
	*ret = TAKE(p);
	return 0;
}

uint32_t pages_count(const struct pages *p)
{
	return (uint32_t)(p->size / 8);
}

uint64_t pages_get(const struct pages *p, uint32_t pgno)
{
	uint64_t offset = (uint64_t)(pgno - 1) * 8;

	return offset < p->size ? get_le64(p->map + offset) : 0;
}

int pages_write(struct pages *p, uint32_t pgno, const uint64_t *hashes,
		uint32_t n)
{
	uint8_t block[RUN_MAX * 8];

	for (uint32_t done = 0; done < n;) {
		uint32_t run = n - done < RUN_MAX ? n - done : RUN_MAX;
		int rc;

		for (uint32_t i = 0; i < run; i++)
			put_le64(block + (size_t)i * 8, hashes[done + i]);
		rc = io_pwrite(p->fd, block, (size_t)run * 8,
			       ((uint64_t)pgno - 1 + done) * 8);
		if (rc < 0)
			return error_wrap(rc, "writing page hashes");
		done += run;
	}
	return 0;
}

int pages_extend(struct pages *p)
{
	int64_t size = io_size(p->fd);
	int rc;

	if (size < 0)
		return (int)size;
	rc = remap(p, (uint64_t)size);
	if (rc == 0)
		p->size = (uint64_t)size & ~UINT64_C(7);
	return rc;
}

int pages_truncate(struct pages *p, uint32_t count)
{
	if (count >= pages_count(p))
		return 0;
	if (ftruncate(p->fd, (off_t)count * 8) < 0)
		return error_errno("truncating page hashes");
	p->size = (uint64_t)count * 8;
	return 0;
}

uint64_t pages_sum(const struct pages *p, uint32_t count)
{
	uint64_t sum = 0;

	for (uint32_t pgno = 1; pgno <= count; pgno++)
		sum += pages_get(p, pgno);
	return sum;
}

int pages_sync(struct pages *p)
{
	return fdatasync(p->fd) < 0 ? error_errno("syncing page hashes") : 0;
}

void pages_free(struct pages *p)
{
	if (!p)
		return;
	if (p->map)
		(void)munmap(p->map, p->mapped);
	if (p->fd >= 0)
		(void)close(p->fd);
	free(p);
}
