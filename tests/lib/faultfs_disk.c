#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "faultfs_disk.h"

enum { SECTOR = 512 };

/* A change: data of a size at offset, or zeros, or a new size of the file. */
struct change {
	enum { WRITTEN, ZEROED, RESIZED } kind;
	uint64_t offset, size;
	uint8_t *data;
};

struct disk_file {
	int fd;
	bool known; /* bytes are what is on the disk; else the file is */
	bool stale; /* a sync has failed: the file is ahead for ever */
	uint8_t *bytes;
	size_t size, room;
	struct change *changes;
	size_t count, capacity;
};

static void *need(void *memory)
{
	if (!memory) {
		(void)fprintf(stderr, "faultfs: out of memory\n");
		abort();
	}
	return memory;
}

struct disk_file *disk_file_new(int fd)
{
	struct disk_file *f = need(calloc(1, sizeof(*f)));

	f->fd = fd;
	return f;
}

static void forget_changes(struct disk_file *f)
{
	for (size_t i = 0; i < f->count; i++)
		free(f->changes[i].data);
	f->count = 0;
}

void disk_file_free(struct disk_file *f)
{
	forget_changes(f);
	free(f->changes);
	free(f->bytes);
	free(f);
}

static int reopen(const struct disk_file *f, int flags)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", f->fd);
	return open(path, flags | O_CLOEXEC);
}

static void make_room(struct disk_file *f, uint64_t size)
{
	if (size <= f->room)
		return;
	f->room = size + size / 2 + 4096;
	f->bytes = need(realloc(f->bytes, f->room));
}

static void set_size(struct disk_file *f, uint64_t size)
{
	make_room(f, size);
	if (size > f->size)
		memset(f->bytes + f->size, 0, size - f->size);
	f->size = size;
}

void disk_file_before(struct disk_file *f)
{
	struct stat st;
	int fd;

	if (f->known)
		return;
	fd = reopen(f, O_RDONLY);
	if (fd < 0 || fstat(fd, &st) < 0)
		return;
	f->size = 0;
	set_size(f, (uint64_t)st.st_size);
	if (pread(fd, f->bytes, f->size, 0) != (ssize_t)f->size)
		perror("faultfs: reading what is on the disk");
	f->known = true;
	(void)close(fd);
}

static void add(struct disk_file *f, struct change change)
{
	if (f->count == f->capacity) {
		f->capacity = f->capacity * 2 + 16;
		f->changes =
			need(realloc(f->changes, f->capacity * sizeof(change)));
	}
	f->changes[f->count++] = change;
}

void disk_file_wrote(struct disk_file *f, const void *data, size_t size,
		     uint64_t offset)
{
	uint8_t *copy = need(malloc(size + 1));

	memcpy(copy, data, size);
	add(f, (struct change){ WRITTEN, offset, size, copy });
}

void disk_file_zeroed(struct disk_file *f, uint64_t size, uint64_t offset)
{
	add(f, (struct change){ ZEROED, offset, size, NULL });
}

void disk_file_resized(struct disk_file *f, uint64_t size)
{
	add(f, (struct change){ RESIZED, 0, size, NULL });
}

static void apply(struct disk_file *f, const struct change *c)
{
	uint64_t end = c->offset + c->size;

	if (c->kind == RESIZED) {
		set_size(f, c->size);
		return;
	}
	if (end > f->size)
		set_size(f, end);
	if (c->kind == WRITTEN)
		memcpy(f->bytes + c->offset, c->data, c->size);
	else
		memset(f->bytes + c->offset, 0, c->size);
}

void disk_file_synced(struct disk_file *f)
{
	for (size_t i = 0; i < f->count; i++)
		apply(f, &f->changes[i]);
	forget_changes(f);
}

void disk_file_sync_failed(struct disk_file *f)
{
	f->stale = f->stale || f->count > 0;
	forget_changes(f);
}

bool disk_file_is_safe(const struct disk_file *f)
{
	return f->count == 0 && !f->stale;
}

/* Make the file what is on the disk. */
static void write_back(struct disk_file *f)
{
	int fd = reopen(f, O_WRONLY);

	if (fd < 0 || ftruncate(fd, 0) < 0 ||
	    pwrite(fd, f->bytes, f->size, 0) != (ssize_t)f->size)
		perror("faultfs: writing back what is on the disk");
	if (fd >= 0)
		(void)close(fd);
}

static bool survives(unsigned percent)
{
	return (unsigned)rand() % 100 < percent;
}

/* A disk writes sectors: of what one call wrote, some may be there. */
static bool apply_some(struct disk_file *f, const struct change *c,
		       unsigned percent)
{
	bool all = true;

	if (c->kind != WRITTEN) {
		all = survives(percent);
		if (all)
			apply(f, c);
		return all;
	}
	for (uint64_t at = 0; at < c->size;) {
		uint64_t end = ((c->offset + at) / SECTOR + 1) * SECTOR;
		struct change part = { WRITTEN, c->offset + at,
				       end - c->offset - at, c->data + at };

		if (part.size > c->size - at)
			part.size = c->size - at;
		if (survives(percent))
			apply(f, &part);
		else
			all = false;
		at += part.size;
	}
	return all;
}

unsigned disk_file_lose(struct disk_file *f, unsigned percent)
{
	unsigned lost = 0;

	if (disk_file_is_safe(f))
		return 0;
	for (size_t i = 0; i < f->count; i++)
		if (!apply_some(f, &f->changes[i], percent))
			lost++;
	forget_changes(f);
	write_back(f);
	f->stale = false;
	return lost;
}

/*
 * Names
 */
struct naming {
	enum { MADE, REMOVED, RENAMED } kind;
	bool directory;
	int dirs[2];
	dev_t devices[2];
	ino_t inodes[2];
	char names[2][NAME_MAX + 1];
	unsigned trash; /* number of what was removed or replaced; 0: nothing */
};

static struct {
	bool on;
	int trash_fd;
	unsigned last_trash;
	struct naming *log;
	size_t count, capacity;
} names;

void disk_lose_names(int trash_fd)
{
	names.on = true;
	names.trash_fd = trash_fd;
}

static const char *trash_name(unsigned number)
{
	static char name[16];

	(void)snprintf(name, sizeof(name), "%u", number);
	return name;
}

static unsigned keep(int dir_fd, const char *name)
{
	unsigned number = ++names.last_trash;

	if (linkat(dir_fd, name, names.trash_fd, trash_name(number), 0) < 0)
		return 0;
	return number;
}

static void set_side(struct naming *n, int side, int dir_fd, const char *name)
{
	struct stat st = { 0 };

	(void)fstat(dir_fd, &st);
	n->dirs[side] = fcntl(dir_fd, F_DUPFD_CLOEXEC, 0);
	n->devices[side] = st.st_dev;
	n->inodes[side] = st.st_ino;
	(void)snprintf(n->names[side], sizeof(n->names[side]), "%s", name);
}

static struct naming *add_name(int kind, int dir_fd, const char *name)
{
	struct naming *n;

	if (names.count == names.capacity) {
		names.capacity = names.capacity * 2 + 16;
		names.log =
			need(realloc(names.log, names.capacity * sizeof(*n)));
	}
	n = &names.log[names.count++];
	memset(n, 0, sizeof(*n));
	n->kind = kind;
	n->dirs[1] = -1;
	set_side(n, 0, dir_fd, name);
	return n;
}

void disk_made(int dir_fd, const char *name, bool directory)
{
	if (names.on)
		add_name(MADE, dir_fd, name)->directory = directory;
}

void disk_removes(int dir_fd, const char *name, bool directory)
{
	struct naming *n;

	if (!names.on)
		return;
	n = add_name(REMOVED, dir_fd, name);
	n->directory = directory;
	if (!directory)
		n->trash = keep(dir_fd, name);
}

void disk_renames(int from_fd, const char *from, int to_fd, const char *to)
{
	struct naming *n;

	if (!names.on)
		return;
	n = add_name(RENAMED, from_fd, from);
	set_side(n, 1, to_fd, to);
	n->trash = keep(to_fd, to);
}

static void release(struct naming *n)
{
	if (n->trash)
		(void)unlinkat(names.trash_fd, trash_name(n->trash), 0);
	(void)close(n->dirs[0]);
	if (n->dirs[1] >= 0)
		(void)close(n->dirs[1]);
}

void disk_undo_last(void)
{
	if (names.on)
		release(&names.log[--names.count]);
}

static bool is_in(const struct naming *n, const struct stat *st)
{
	for (int side = 0; side < 2; side++)
		if (n->dirs[side] >= 0 && n->devices[side] == st->st_dev &&
		    n->inodes[side] == st->st_ino)
			return true;
	return false;
}

void disk_dir_synced(int dir_fd)
{
	struct stat st;
	size_t left = 0;

	if (!names.on || fstat(dir_fd, &st) < 0)
		return;
	for (size_t i = 0; i < names.count; i++)
		if (is_in(&names.log[i], &st))
			release(&names.log[i]);
		else
			names.log[left++] = names.log[i];
	names.count = left;
}

static void bring_back(const struct naming *n, int side)
{
	if (n->trash)
		(void)linkat(names.trash_fd, trash_name(n->trash),
			     n->dirs[side], n->names[side], 0);
}

/* A directory that cannot be found is lost with all that is in it. */
static void unmake(const struct naming *n)
{
	if (n->directory)
		(void)renameat(n->dirs[0], n->names[0], names.trash_fd,
			       trash_name(++names.last_trash));
	else
		(void)unlinkat(n->dirs[0], n->names[0], 0);
}

static void undo(const struct naming *n)
{
	switch (n->kind) {
	case MADE:
		unmake(n);
		break;
	case REMOVED:
		if (n->directory)
			(void)mkdirat(n->dirs[0], n->names[0], 0700);
		bring_back(n, 0);
		break;
	case RENAMED:
		(void)renameat(n->dirs[1], n->names[1], n->dirs[0],
			       n->names[0]);
		bring_back(n, 1);
		break;
	}
}

unsigned disk_names_lose(bool random)
{
	size_t kept =
		random && names.count ? (size_t)rand() % (names.count + 1) : 0;
	unsigned lost = (unsigned)(names.count - kept);

	for (size_t i = names.count; i > 0; i--) {
		if (i > kept)
			undo(&names.log[i - 1]);
		release(&names.log[i - 1]);
	}
	names.count = 0;
	return lost;
}
