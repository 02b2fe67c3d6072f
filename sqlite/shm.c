#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#include "base/error.h"
#include "base/fail.h"
#include "base/io.h"

#include "sqlite/shm.h"
#include "sqlite/wal.h"

enum {
	SHM_VERSION = 3007000,
	LOCK_OFFSET = 120,
	BLOCK_SIZE = 32768,
	BLOCK_FRAMES = 4096,
	SLOTS = 8192,
	FIRST_OFFSET = 136, /* of the first block's page numbers */
	FIRST_FRAMES = BLOCK_FRAMES - FIRST_OFFSET / 4,
};

/* What lies between the headers and the first page number. */
struct checkpoint_info {
	uint32_t backfilled;
	uint32_t mark[SHM_READERS];
	uint8_t lock[8];
	uint32_t attempted;
	uint32_t unused;
};

_Static_assert(sizeof(struct shm_header) == SHM_HEADER_SIZE, "two of them");
_Static_assert(2 * sizeof(struct shm_header) +
		       sizeof(struct checkpoint_info) == FIRST_OFFSET,
	       "page numbers follow");

struct shm {
	int fd;
	uint8_t **blocks;
	uint32_t n;
};

/* One 32 KiB block, as a table from frames to pages and back. */
struct table {
	uint32_t *pgnos; /* [0] is of frame zero + 1 */
	uint16_t *slots;
	uint32_t zero;
	uint32_t capacity;
};

static uint32_t block_of(uint32_t frame)
{
	return (frame + BLOCK_FRAMES - FIRST_FRAMES - 1) / BLOCK_FRAMES;
}

static struct table table_at(uint8_t *block, uint32_t number)
{
	size_t skip = number ? 0 : FIRST_OFFSET;

	return (struct table){
		.pgnos = (uint32_t *)(void *)(block + skip),
		.slots = (uint16_t *)(void *)(block + BLOCK_SIZE / 2),
		.zero = number ? FIRST_FRAMES + (number - 1) * BLOCK_FRAMES : 0,
		.capacity = number ? BLOCK_FRAMES : FIRST_FRAMES,
	};
}

static struct checkpoint_info *info(const struct shm *s)
{
	return (void *)(s->blocks[0] + 2 * sizeof(struct shm_header));
}

static uint32_t load(const uint32_t *p)
{
	return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

static void store(uint32_t *p, uint32_t v)
{
	__atomic_store_n(p, v, __ATOMIC_RELEASE);
}

void shm_barrier(void)
{
	__sync_synchronize();
}

static int set_lock(int fd, short type, unsigned first, unsigned n)
{
	int rc = io_lock(fd, type, LOCK_OFFSET + first, n);

	return rc < 0 && rc != -EAGAIN ? error_wrap(rc, "the wal-index") : rc;
}

int shm_lock(struct shm *s, enum shm_lock first, unsigned n)
{
	return set_lock(s->fd, F_WRLCK, first, n);
}

void shm_unlock(struct shm *s, enum shm_lock first, unsigned n)
{
	(void)set_lock(s->fd, F_UNLCK, first, n);
}

static short lock_of_others(int fd, unsigned byte)
{
	struct flock l = {
		.l_type = F_WRLCK,
		.l_whence = SEEK_SET,
		.l_start = LOCK_OFFSET + byte,
		.l_len = 1,
	};

	return fcntl(fd, F_OFD_GETLK, &l) == 0 ? l.l_type : F_UNLCK;
}

bool shm_is_locked(struct shm *s, enum shm_lock byte)
{
	return lock_of_others(s->fd, byte) != F_UNLCK;
}

/* As unixLockSharedMemory(): who is alone begins anew. */
static int share_switch(int fd)
{
	short others = lock_of_others(fd, SHM_SWITCH);
	int rc;

	if (others == F_WRLCK)
		return -EAGAIN;
	if (others == F_UNLCK) {
		rc = set_lock(fd, F_WRLCK, SHM_SWITCH, 1);
		if (rc < 0)
			return rc;
		/* 3, as SQLite does it: its mark of a first opener. */
		if (ftruncate(fd, 3) < 0)
			return error_errno("emptying the wal-index");
		FAILPOINT("replica-index-emptied");
	}
	return set_lock(fd, F_RDLCK, SHM_SWITCH, 1);
}

static int map_block(struct shm *s)
{
	off_t offset = (off_t)s->n * BLOCK_SIZE;
	uint8_t **blocks = realloc(s->blocks, (s->n + 1) * sizeof(*blocks));
	uint8_t *block;
	int rc;

	if (!blocks)
		return error_set(-ENOMEM, "out of memory for a wal-index");
	s->blocks = blocks;
	rc = posix_fallocate(s->fd, offset, BLOCK_SIZE);
	if (rc > 0)
		return error_set(-rc, "growing the wal-index: %s",
				 strerror(rc));
	block = mmap(NULL, BLOCK_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
		     s->fd, offset);
	if (block == MAP_FAILED)
		return error_errno("mapping the wal-index");
	/*
	 * A fault between the two copies of the header would make readers
	 * wait; a system that does not let us lock 32 KiB will do without.
	 */
	if (s->n == 0)
		(void)mlock(block, BLOCK_SIZE);
	s->blocks[s->n++] = block;
	return 0;
}

int shm_new(int fd, struct shm **ret)
{
	AUTO(shm) struct shm *s = calloc(1, sizeof(*s));
	int rc;

	if (!s) {
		(void)close(fd);
		return error_set(-ENOMEM, "out of memory for a wal-index");
	}
	s->fd = fd;
	rc = share_switch(fd);
	if (rc == 0)
		rc = map_block(s);
	if (rc < 0)
		return rc;
	*ret = TAKE(s);
	return 0;
}

void shm_free(struct shm *s)
{
	if (!s)
		return;
	for (uint32_t i = 0; i < s->n; i++)
		(void)munmap(s->blocks[i], BLOCK_SIZE);
	free(s->blocks);
	(void)close(s->fd);
	free(s);
}

int shm_fd(const struct shm *s)
{
	return s->fd;
}

static void add_up(struct shm_header *h)
{
	memset(h->checksum, 0, sizeof(h->checksum));
	wal_checksum(WAL_NATIVE_BIG_ENDIAN, (const uint8_t *)h,
		     offsetof(struct shm_header, checksum), h->checksum);
}

bool shm_read_header(const struct shm *s, struct shm_header *ret)
{
	struct shm_header copies[2], right;

	memcpy(&copies[0], s->blocks[0], sizeof(copies[0]));
	shm_barrier();
	memcpy(&copies[1], s->blocks[0] + sizeof(copies[0]), sizeof(copies[1]));
	right = copies[0];
	add_up(&right);
	if (memcmp(&copies[0], &copies[1], sizeof(copies[0])) != 0 ||
	    memcmp(right.checksum, copies[0].checksum, 8) != 0 ||
	    copies[0].version != SHM_VERSION || copies[0].is_init != 1)
		return false;
	*ret = copies[0];
	return true;
}

void shm_publish(struct shm *s, struct shm_header *header)
{
	header->version = SHM_VERSION;
	header->unused = 0;
	header->is_init = 1;
	add_up(header);
	shm_barrier();
	memcpy(s->blocks[0] + sizeof(*header), header, sizeof(*header));
	shm_barrier();
	FAILPOINT("replica-header-one");
	memcpy(s->blocks[0], header, sizeof(*header));
	shm_barrier();
}

uint32_t shm_backfilled(const struct shm *s)
{
	return load(&info(s)->backfilled);
}

void shm_set_backfilled(struct shm *s, uint32_t frames)
{
	store(&info(s)->backfilled, frames);
}

void shm_set_attempted(struct shm *s, uint32_t frames)
{
	store(&info(s)->attempted, frames);
}

uint32_t shm_mark(const struct shm *s, unsigned reader)
{
	return load(&info(s)->mark[reader]);
}

void shm_set_mark(struct shm *s, unsigned reader, uint32_t frame)
{
	store(&info(s)->mark[reader], frame);
}

int shm_reserve(struct shm *s, uint32_t frames)
{
	uint32_t last = frames ? block_of(frames) : 0;

	while (s->n <= last) {
		int rc = map_block(s);

		if (rc < 0)
			return rc;
	}
	return 0;
}

static uint32_t first_slot(uint32_t pgno)
{
	return pgno * 383 & (SLOTS - 1);
}

static uint32_t next_slot(uint32_t slot)
{
	return (slot + 1) & (SLOTS - 1);
}

/* A reader that finds the slot finds the page number. */
static void table_add(struct table *t, uint32_t i, uint32_t pgno)
{
	uint32_t slot = first_slot(pgno);

	/* There are twice as many slots as pages, unless all is garbage. */
	for (unsigned n = 0; n < SLOTS && t->slots[slot]; n++)
		slot = next_slot(slot);
	store(&t->pgnos[i], pgno);
	__atomic_store_n(&t->slots[slot], (uint16_t)(i + 1), __ATOMIC_RELEASE);
}

/* Take out what a killed writer, or one that gave up, left from i on. */
static void table_cut(struct table *t, uint32_t i)
{
	for (uint32_t slot = 0; slot < SLOTS; slot++)
		if (t->slots[slot] > i)
			t->slots[slot] = 0;
	memset(t->pgnos + i, 0, (t->capacity - i) * sizeof(*t->pgnos));
}

void shm_add(struct shm *s, uint32_t frame, uint32_t pgno)
{
	uint32_t number = block_of(frame);
	struct table t = table_at(s->blocks[number], number);
	uint32_t i = frame - t.zero - 1;

	if (i == 0 || t.pgnos[i] != 0)
		table_cut(&t, i);
	table_add(&t, i, pgno);
	FAILPOINT("replica-indexed");
}

int shm_rebuild(struct shm *s, const uint32_t *pgnos, uint32_t frames)
{
	AUTO(mem) uint8_t *block = malloc(BLOCK_SIZE);
	uint32_t last = frames ? block_of(frames) : 0;

	if (!block)
		return error_set(-ENOMEM, "out of memory for a wal-index");
	for (uint32_t number = 0; number <= last; number++) {
		struct table t = table_at(block, number);
		size_t skip = number ? 0 : FIRST_OFFSET;

		memset(block, 0, BLOCK_SIZE);
		for (uint32_t i = 0; i < t.capacity && t.zero + i < frames; i++)
			table_add(&t, i, pgnos[t.zero + i]);
		memcpy(s->blocks[number] + skip, block + skip,
		       BLOCK_SIZE - skip);
		FAILPOINT("replica-block-rebuilt");
	}
	return 0;
}

uint32_t shm_page(const struct shm *s, uint32_t frame)
{
	uint32_t number = block_of(frame);
	struct table t = table_at(s->blocks[number], number);

	return load(&t.pgnos[frame - t.zero - 1]);
}

static uint32_t table_find(const struct table *t, uint32_t pgno, uint32_t last)
{
	uint32_t best = 0, slot = first_slot(pgno), i;

	/* A table that is full of garbage still ends. */
	for (unsigned n = 0; n < SLOTS && (i = t->slots[slot]) != 0; n++) {
		uint32_t frame = t->zero + i;

		if (i <= t->capacity && frame <= last && frame > best &&
		    t->pgnos[i - 1] == pgno)
			best = frame;
		slot = next_slot(slot);
	}
	return best;
}

uint32_t shm_find(const struct shm *s, uint32_t pgno, uint32_t last)
{
	if (last == 0)
		return 0;
	for (uint32_t number = block_of(last) + 1; number-- > 0;) {
		struct table t = table_at(s->blocks[number], number);
		uint32_t frame = table_find(&t, pgno, last);

		if (frame)
			return frame;
	}
	return 0;
}
