#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/boot.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/log.h"
#include "base/stream.h"
#include "bucket/archive.h"
#include "ltx/decoder.h"
#include "restorer/fetch.h"
#include "restorer/inherit.h"
#include "restorer/mark.h"
#include "restorer/restorer.h"
#include "sqlite/format.h"

#include "restorer/follow.h"

enum {
	/* After so long without an answer the log may have gone on and away. */
	SILENCE_MS = 60 * 1000,
	/* When nothing comes, from when on and how seldom it is looked beyond. */
	GAP_MS = 5 * 1000,
	GAP_MAX_MS = 60 * 1000,
	/* Further behind, one jump costs less than the batches one by one. */
	FAR_BEHIND = 1000,
};

struct follow {
	struct follow_options o;
	struct replica *replica;
	int mark_fd;
	struct mark mark;
	bool look; /* at the list, before the next step */
	uint64_t seen;
	/*
	 * What has been fetched, and waits for readers to make room: the next
	 * slot (in memory or in a file without a name), or the newest state
	 * (incoming.db).  A TXID of zero: nothing does.
	 */
	struct fetched waiting_slot;
	struct mark_state waiting_state;
	int64_t answered; /* monotonic ms of the last answer about the log */
	int64_t current;  /* the same, of the last that there is no more */
	bool holes;	  /* there may be some in the log */
	int64_t gap_due;  /* monotonic: when to look beyond the next slot */
	int64_t gap_pause;
	uint64_t requests, bytes;
};

static char *joined(const char *directory, const char *name)
{
	char *path;

	return asprintf(&path, "%s/%s", directory, name) < 0 ? NULL : path;
}

/* Nothing fetched yet. */
static struct fetched no_slot(void)
{
	return (struct fetched){
		.memory = BUF_INIT(FETCH_MEMORY_MAX),
		.fd = -1,
	};
}

static bool in_state(const struct mark_state *s)
{
	return s->txid != 0 && !s->dropped;
}

/* The position, before anything is done that it does not speak of yet. */
static int store_mark(struct follow *f)
{
	f->mark.inode = 0;
	return mark_store(f->mark_fd, &f->mark);
}

/*
 * The position for programs that know LiteFS's file of that name: written over
 * in place, so it is never missing; and nobody's way is blocked by it.
 */
static void write_pos(const struct follow *f)
{
	const struct mark_state *s = &f->mark.done;
	AUTO(mem) char *path = NULL;
	char text[64];

	if (!f->o.pos_file || asprintf(&path, "%s-pos", f->o.path) < 0)
		return;
	if (!in_state(s)) {
		(void)unlink(path);
		return;
	}
	AUTO(fd) int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, f->o.mode);
	int n = snprintf(text, sizeof(text), "%016" PRIx64 "/%016" PRIx64 "\n",
			 s->txid, s->dbsum);

	if (fd < 0 || io_pwrite(fd, text, (size_t)n, 0) < 0)
		log_warn("position file could not be written", "path=%s",
			 log_quote(path));
}

/* What was begun is done. */
static int end_mark(struct follow *f)
{
	f->mark.done = f->mark.begun;
	write_pos(f);
	return store_mark(f);
}

/* After this, and until somebody touches the file, nobody need compare. */
static int store_clean_mark(struct follow *f, int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return error_errno("looking at %s", f->o.path);
	f->mark.inode = st.st_ino;
	f->mark.size = (uint64_t)st.st_size;
	f->mark.mtime_ns = clock_nanoseconds(st.st_mtim);
	int rc = mark_store(f->mark_fd, &f->mark);
	if (rc == 0 && fsync(f->mark_fd) < 0)
		rc = error_errno("syncing the position of %s", f->o.path);
	return rc;
}

static bool is_clean(const struct follow *f)
{
	struct stat st, wal;
	char name[4096];

	(void)snprintf(name, sizeof(name), "%s-wal", f->o.path);
	return f->mark.inode && stat(f->o.path, &st) == 0 &&
	       st.st_ino == f->mark.inode &&
	       (uint64_t)st.st_size == f->mark.size &&
	       clock_nanoseconds(st.st_mtim) == f->mark.mtime_ns &&
	       (stat(name, &wal) < 0 || wal.st_size == 0);
}

static int load_mark(struct follow *f)
{
	AUTO(mem) char *path = joined(f->o.state, "position");
	int rc;

	if (!path)
		return error_set(-ENOMEM, "out of memory for a path");
	f->mark_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (f->mark_fd < 0)
		return error_errno("opening %s", path);
	rc = mark_load(f->mark_fd, &f->mark);
	/* Torn by a power loss: as if there had never been one. */
	if (rc == -ENOENT || rc == -ERR_CORRUPT)
		memset(&f->mark, 0, sizeof(f->mark));
	return rc == -ENOENT || rc == -ERR_CORRUPT ? 0 : rc;
}

static void set_gap_due(struct follow *f, int64_t pause)
{
	f->gap_pause = pause < GAP_MAX_MS ? pause : GAP_MAX_MS;
	f->gap_due = clock_monotonic_ms() + f->gap_pause;
}

int follow_new(const struct follow_options *o, struct follow **ret)
{
	AUTO(follow) struct follow *f = calloc(1, sizeof(*f));
	int rc;

	if (!f)
		return error_set(-ENOMEM, "out of memory for a follower");
	f->mark_fd = -1;
	f->waiting_slot = no_slot();
	f->o = *o;
	f->o.db = strdup(o->db);
	f->o.path = strdup(o->path);
	f->o.state = strdup(o->state);
	f->o.aside = strdup(o->aside);
	if (!f->o.db || !f->o.path || !f->o.state || !f->o.aside)
		return error_set(-ENOMEM, "out of memory for a follower");
	if (f->o.mode == 0)
		f->o.mode = 0600;
	if (f->o.gap_ms == 0)
		f->o.gap_ms = GAP_MS;
	set_gap_due(f, f->o.gap_ms);
	rc = load_mark(f);
	if (rc < 0)
		return rc;
	f->look = true;
	*ret = TAKE(f);
	return 0;
}

void follow_free(struct follow *f)
{
	if (!f)
		return;
	replica_free(f->replica);
	fd_cleanup(&f->mark_fd);
	fetched_cleanup(&f->waiting_slot);
	free((char *)f->o.db);
	free((char *)f->o.path);
	free((char *)f->o.state);
	free((char *)f->o.aside);
	free(f);
}

void follow_look(struct follow *f)
{
	f->look = true;
}

void follow_expect_holes(struct follow *f, bool holes)
{
	f->holes = holes;
}

void follow_state(const struct follow *f, struct follow_state *ret)
{
	*ret = (struct follow_state){
		.txid = f->mark.done.txid,
		.timestamp_ms = f->mark.done.timestamp_ms,
		.dropped = f->mark.done.dropped,
		.seen = f->seen,
		.current_ms = f->current,
		.requests = f->requests,
		.bytes = f->bytes,
		.has_replica = f->replica != NULL,
	};
	if (f->replica)
		replica_state(f->replica, &ret->replica);
}

unsigned follow_readers(const struct follow *f)
{
	return f->replica ? replica_readers(f->replica) : 0;
}

/*
 * The bucket's newest state, as a file of its own
 */

static int restore(struct follow *f, const char *path,
		   struct mark_state *ret)
{
	const struct restorer_options options = {
		.bucket = f->o.bucket,
		.db = f->o.db,
		.output = path,
		.force = true,
		.cancel = f->o.cancel,
	};
	struct restorer_result result;
	int64_t begun_ms = clock_monotonic_ms();
	int rc;

	f->waiting_state.txid = 0;
	rc = restorer_restore(&options, &result);
	if (rc < 0)
		return rc;
	f->requests += result.files + 2;
	f->bytes += result.bytes_fetched;
	*ret = (struct mark_state){
		.txid = result.txid,
		.dbsum = result.dbsum,
		.timestamp_ms = result.timestamp_ms,
	};
	f->seen = result.txid;
	f->answered = clock_monotonic_ms();
	f->current = begun_ms;
	return 0;
}

/*
 * Where there is no file yet
 */

static void remove_sides(const struct follow *f)
{
	for (int i = 0; i < FORMAT_SIDES; i++) {
		char path[4096];

		(void)snprintf(path, sizeof(path), "%s%s", f->o.path,
			       format_sides[i]);
		(void)unlink(path);
	}
}

static int inherit_from_directory(const struct follow *f, int fd)
{
	AUTO(mem) char *directory = strdup(f->o.path);
	char *slash = directory ? strrchr(directory, '/') : NULL;
	AUTO(fd) int above = -1;

	if (!directory)
		return error_set(-ENOMEM, "out of memory for a path");
	if (slash)
		*slash = '\0';
	above = open(slash ? directory : ".",
		     O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (above < 0)
		return error_errno("opening the directory of %s", f->o.path);
	return inherit_owner(above, fd, 0666);
}

/* The file is whole and protected before anybody can open it. */
static int put_in_place(struct follow *f, const char *incoming)
{
	AUTO(fd) int fd = open(incoming, O_RDWR | O_CLOEXEC);
	int rc;

	if (fd < 0)
		return error_errno("opening %s", incoming);
	rc = f->o.inherit ? inherit_from_directory(f, fd) : 0;
	if (!f->o.inherit && fchmod(fd, f->o.mode) < 0)
		rc = error_errno("setting the mode of %s", incoming);
	if (rc < 0)
		return rc;
	rc = replica_protect(fd, f->mark.begun.format);
	if (rc < 0)
		return rc;
	f->mark.done = f->mark.begun;
	rc = store_clean_mark(f, fd);
	if (rc < 0)
		return rc;
	FAILPOINT("follow-restored");
	remove_sides(f);
	rc = io_rename_new(AT_FDCWD, incoming, AT_FDCWD, f->o.path);
	if (rc < 0) {
		errno = -rc;
		return error_errno("putting %s in place", f->o.path);
	}
	FAILPOINT("follow-created");
	write_pos(f);
	return io_sync_parent(AT_FDCWD, f->o.path);
}

static int create(struct follow *f)
{
	AUTO(mem) char *incoming = joined(f->o.state, "incoming.db");
	int rc;

	if (!incoming)
		return error_set(-ENOMEM, "out of memory for a path");
	rc = io_make_dirs(AT_FDCWD, f->o.state, 0755);
	if (rc == 0)
		rc = restore(f, incoming, &f->mark.begun);
	/* Dropped meanwhile: the list will tell. */
	f->look = rc == -ENOENT;
	if (rc < 0)
		return rc == -ENOENT ? -EAGAIN : rc;
	rc = put_in_place(f, incoming);
	if (rc < 0) {
		memset(&f->mark.done, 0, sizeof(f->mark.done));
		(void)unlink(incoming);
		return rc;
	}
	log_info("replica created", "db=%s txid=%016" PRIx64,
		 log_quote(f->o.path), f->mark.done.txid);
	return 1;
}

/*
 * Commits
 */

/* The position says what is about to be before it is. */
static int commit(struct follow *f, uint64_t post_sum,
		  const struct mark_state *next)
{
	struct replica_mark after;
	int rc = replica_prepare(f->replica, post_sum, &after);

	if (rc < 0)
		return rc;
	f->mark.begun = *next;
	f->mark.begun.dbsum = after.sum;
	memcpy(f->mark.begun.format, after.format, sizeof(after.format));
	rc = store_mark(f);
	if (rc < 0)
		return rc;
	FAILPOINT("follow-begun");
	rc = replica_commit(f->replica);
	FAILPOINT("follow-committed");
	return rc < 0 ? rc : end_mark(f);
}

/* Is this page of the other state the same in the replica? */
static bool same_page(const struct follow *f, const struct replica_state *s,
		      const struct replica_mark *m, uint32_t pgno,
		      const uint8_t *page, uint8_t *mine)
{
	if (pgno > s->pages || replica_read(f->replica, pgno, mine) < 0)
		return false;
	if (pgno == 1)
		memcpy(mine + 18, m->format, sizeof(m->format));
	return memcmp(page, mine, s->page_size) == 0;
}

/* Stage what differs between the replica and the file. */
static int stage_difference(struct follow *f, int fd, uint32_t page_size,
			    uint32_t pages)
{
	AUTO(mem) uint8_t *page = malloc((size_t)2 * page_size);
	struct replica_state s;
	struct replica_mark m;
	int rc = replica_begin(f->replica, page_size, pages);

	replica_state(f->replica, &s);
	replica_mark(f->replica, &m);
	if (!page)
		rc = error_set(-ENOMEM, "out of memory for pages");
	for (uint32_t pgno = 1; rc == 0 && pgno <= pages; pgno++) {
		ssize_t n = io_pread(fd, page, page_size,
				     (uint64_t)(pgno - 1) * page_size);

		if (n != (ssize_t)page_size)
			return n < 0 ? (int)n :
				       error_set(-EIO, "reading what was restored");
		if (s.page_size != page_size ||
		    !same_page(f, &s, &m, pgno, page, page + page_size))
			rc = replica_put(f->replica, pgno, page);
	}
	return rc;
}

static int take_over(struct follow *f, const char *path,
		     const struct mark_state *next)
{
	AUTO(fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint8_t data[FORMAT_HEADER_SIZE];
	struct format_header header;
	int64_t size;
	int rc;

	if (fd < 0)
		return error_errno("opening %s", path);
	size = io_size(fd);
	if (size < 0 || io_pread(fd, data, sizeof(data), 0) != sizeof(data))
		return error_set(-EIO, "reading %s", path);
	if (!format_parse_header(data, &header))
		return error_set(-ERR_CORRUPT, "%s is not a database", path);
	rc = stage_difference(f, fd, header.page_size,
			      (uint32_t)((uint64_t)size / header.page_size));
	if (rc == 0)
		rc = commit(f, next->dbsum, next);
	if (rc < 0)
		replica_abort(f->replica);
	return rc;
}

/*
 * The newest state, in one commit.  When readers are in the way it waits where
 * it is: it may be large, and they may take their time.
 */
static int jump(struct follow *f)
{
	AUTO(mem) char *incoming = joined(f->o.state, "incoming.db");
	uint64_t from = f->mark.done.txid;
	struct mark_state next = f->waiting_state;
	int rc = 0;

	if (!incoming)
		return error_set(-ENOMEM, "out of memory for a path");
	if (next.txid <= from)
		rc = restore(f, incoming, &next);
	if (rc == 0)
		rc = take_over(f, incoming, &next);
	f->waiting_state = next;
	if (rc == -EAGAIN)
		return rc;
	f->waiting_state.txid = 0;
	(void)unlink(incoming);
	if (rc < 0)
		return rc;
	f->look = false;
	log_info("replica taken to the newest state in one commit",
		 "db=%s from=%016" PRIx64 " txid=%016" PRIx64,
		 log_quote(f->o.path), from, next.txid);
	return 1;
}

static int drop(struct follow *f, uint64_t txid, int64_t timestamp_ms)
{
	int rc;

	f->mark.begun = (struct mark_state){
		.txid = txid,
		.timestamp_ms = timestamp_ms,
		.dropped = true,
	};
	rc = store_mark(f);
	if (rc < 0)
		return rc;
	FAILPOINT("follow-drop-begun");
	if (unlink(f->o.path) < 0 && errno != ENOENT)
		return error_errno("removing %s", f->o.path);
	FAILPOINT("follow-dropped");
	remove_sides(f);
	replica_free(TAKE(f->replica));
	log_info("replica removed: its database was", "db=%s txid=%016" PRIx64,
		 log_quote(f->o.path), txid);
	rc = end_mark(f);
	return rc < 0 ? rc : 1;
}

/*
 * A replica that is there at the start: which state is it?
 */

static int copy_pages(struct follow *f, int fd)
{
	struct replica_state s;
	AUTO(mem) uint8_t *page = NULL;
	int rc = 0;

	replica_state(f->replica, &s);
	page = malloc(s.page_size);
	if (!page)
		return error_set(-ENOMEM, "out of memory for a copy");
	for (uint32_t pgno = 1; rc == 0 && pgno <= s.pages; pgno++) {
		rc = replica_read(f->replica, pgno, page);
		if (rc == 0)
			rc = io_pwrite(fd, page, s.page_size,
				       (uint64_t)(pgno - 1) * s.page_size);
	}
	return rc == 0 && fsync(fd) < 0 ? error_errno("syncing a copy") : rc;
}

/*
 * Its name tells its content, so that it is there once, however often what
 * follows fails and is tried again.
 */
static int keep_aside(struct follow *f)
{
	static const uint8_t format[] = { 1, 1 };
	const char *base = strrchr(f->o.path, '/');
	AUTO(mem) char *path = NULL, *growing = NULL;
	AUTO(fd) int fd = -1;
	uint64_t sum;
	int rc = io_make_dirs(AT_FDCWD, f->o.aside, 0700);

	if (rc == 0)
		rc = replica_sum(f->replica, format, &sum);
	if (rc < 0)
		return rc;
	if (asprintf(&path, "%s/%s-%016" PRIx64, f->o.aside,
		     base ? base + 1 : f->o.path, sum) < 0 ||
	    asprintf(&growing, "%s~", path) < 0)
		return error_set(-ENOMEM, "out of memory for a copy");
	if (access(path, F_OK) == 0)
		return 0;
	fd = open(growing, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return error_errno("making %s", growing);
	rc = copy_pages(f, fd);
	if (rc < 0 || rename(growing, path) < 0) {
		rc = rc < 0 ? rc : error_errno("naming %s", path);
		(void)unlink(growing);
		return rc;
	}
	log_error("replica was changed by somebody else: the bucket's state "
		  "takes its place; the changed one is kept until you remove it",
		  "db=%s kept=%s", log_quote(f->o.path), log_quote(path));
	return io_sync_parent(AT_FDCWD, path);
}

static int diverged(struct follow *f)
{
	int rc;

	if (f->o.stop_on_divergence)
		return error_set(-ESTALE,
				 "%s was changed by somebody else; remove it, "
				 "or follow with --on-divergence resync",
				 f->o.path);
	rc = keep_aside(f);
	return rc < 0 ? rc : jump(f);
}

/* 1: it is this state; 0: it is not. */
static int is_state(struct follow *f, const struct mark_state *s)
{
	struct replica_mark m = { .sum = s->dbsum };

	memcpy(m.format, s->format, sizeof(m.format));
	return in_state(s) ? replica_is(f->replica, &m) : 0;
}

/* No position speaks of it: whatever it is, commits go on from its sum. */
static int compare_unknown(struct follow *f)
{
	static const uint8_t format[] = { 1, 1 };
	uint64_t sum;
	int rc = replica_sum(f->replica, format, &sum);

	if (rc < 0)
		return rc;
	log_info("replica has no position: it is compared with the bucket",
		 "db=%s", log_quote(f->o.path));
	return jump(f);
}

/* All pages are read; the position says which of its two states it is. */
static int identify(struct follow *f)
{
	const struct mark *m = &f->mark;
	char boot[BOOT_ID_SIZE];
	int rc;

	if (!in_state(&m->done) && !in_state(&m->begun))
		return compare_unknown(f);
	rc = is_state(f, &m->begun);
	if (rc > 0)
		return end_mark(f);
	if (rc == 0 && m->done.txid != m->begun.txid)
		rc = is_state(f, &m->done);
	if (rc != 0)
		return rc < 0 ? rc : 0;
	boot_id(boot);
	if (strcmp(boot, m->boot) == 0)
		return diverged(f);
	log_info("replica is older or newer than its position, as after a power "
		 "loss: it is compared with the bucket", "db=%s",
		 log_quote(f->o.path));
	return jump(f);
}

static int open_replica(struct follow *f)
{
	bool clean = is_clean(f) && in_state(&f->mark.done);
	int rc = replica_open(AT_FDCWD, f->o.path, &f->o.replica, &f->replica);

	if (rc == -ESTALE)
		return error_set(-EEXIST,
				 "%s is an ordinary database and no replica; it "
				 "is left alone: move it away to have the "
				 "bucket's in its place", f->o.path);
	if (rc < 0)
		return rc;
	if (clean)
		replica_set_sum(f->replica, f->mark.done.format,
				f->mark.done.dbsum);
	else
		rc = identify(f);
	if (rc < 0) {
		replica_free(TAKE(f->replica));
		return rc;
	}
	boot_id(f->mark.boot);
	write_pos(f);
	int stored = store_mark(f);
	return stored < 0 ? stored : rc;
}

/* Is there a file?  1: a drop that was interrupted has now been done. */
static int find_file(struct follow *f, bool *ret_exists)
{
	const struct mark_state *begun = &f->mark.begun;

	*ret_exists = access(f->o.path, F_OK) == 0;
	if (!*ret_exists && errno != ENOENT)
		return error_errno("looking at %s", f->o.path);
	if (*ret_exists && begun->dropped && begun->txid > f->mark.done.txid)
		return drop(f, begun->txid, begun->timestamp_ms);
	if (*ret_exists)
		return 0;
	/* Removed by a drop, or by somebody who wants it anew. */
	if (begun->dropped) {
		remove_sides(f);
		f->mark.done = *begun;
	} else {
		memset(&f->mark.done, 0, sizeof(f->mark.done));
	}
	return 0;
}

/*
 * The next slot
 */

/* Into memory as long as it is small, then into a file without a name. */
struct slot_sink {
	struct sink sink;
	struct fetched *item;
	const char *directory;
	uint64_t size;
};

static int spill(struct slot_sink *s)
{
	struct fetched *item = s->item;

	AUTO(fd) int dirfd = open(s->directory,
				  O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rc = dirfd < 0 ? error_errno("opening %s", s->directory) :
			     io_open_unnamed(dirfd, &item->fd);

	if (rc < 0)
		return rc;
	return io_pwrite(item->fd, item->memory.data, item->memory.size, 0);
}

static int slot_write(struct sink *sink, const void *data, size_t size)
{
	struct slot_sink *s = (struct slot_sink *)sink;
	struct fetched *item = s->item;
	int rc = 0;

	if (item->fd < 0 && s->size + size <= FETCH_MEMORY_MAX)
		rc = buf_append(&item->memory, data, size);
	else if (item->fd < 0)
		rc = spill(s);
	if (rc == 0 && item->fd >= 0)
		rc = io_pwrite(item->fd, data, size, s->size);
	s->size += size;
	return rc;
}

/* 1: the slot is taken; 0: it is not yet. */
static int get_slot(struct follow *f, uint64_t txid, struct fetched *ret)
{
	struct slot_sink sink = { { slot_write }, ret, f->o.state, 0 };
	int rc = archive_key(f->o.db, 0, txid, txid, ret->key);

	if (rc < 0)
		return rc;
	f->requests++;
	rc = bucket_get(f->o.bucket, ret->key, 0, BUCKET_TO_END, NULL,
			&sink.sink, NULL);
	f->bytes += sink.size;
	if (rc < 0 && rc != -ENOENT)
		return rc;
	f->answered = clock_monotonic_ms();
	if (rc == 0 && txid > f->seen)
		f->seen = txid;
	return rc == 0;
}

/* A batch's pages into the stage; whole and right before it is prepared. */
static int stage_pages(struct follow *f, struct ltx_decoder *dec)
{
	const struct ltx_header *h = ltx_decoder_header(dec);
	AUTO(mem) void *page = malloc(LTX_MAX_PAGE_SIZE);
	bool pages = h->kind == LTX_BATCH;
	uint32_t pgno;
	int rc = page ? 0 : error_set(-ENOMEM, "out of memory for a page");

	if (rc == 0 && pages)
		rc = replica_begin(f->replica, h->page_size, h->commit);
	while (rc == 0) {
		rc = ltx_decoder_page(dec, &pgno, page);
		if (rc <= 0)
			break;
		rc = pages ? replica_put(f->replica, pgno, page) : 0;
	}
	return rc < 0 ? rc : ltx_decoder_finish(dec, NULL);
}

/* Does it begin at the state that we have? */
static int check_base(struct follow *f, const struct ltx_header *h)
{
	struct replica_mark m;

	replica_mark(f->replica, &m);
	if (!h->pre_dbsum || !m.sum || h->pre_dbsum == m.sum)
		return 0;
	return error_set(-ERR_CORRUPT, "it begins at another state");
}

/* What the batch says, once all of it has been read. */
static int finish_batch(struct follow *f, const struct ltx_header *h)
{
	const struct mark_state next = {
		.txid = h->max_txid,
		.timestamp_ms = h->timestamp_ms,
	};
	int rc;

	if (h->kind == LTX_DROP)
		return drop(f, h->max_txid, h->timestamp_ms);
	rc = check_base(f, h);
	if (rc == 0 && h->kind == LTX_BARRIER) {
		f->mark.begun = f->mark.done;
		f->mark.begun.txid = h->max_txid;
		rc = end_mark(f);
	} else if (rc == 0) {
		rc = commit(f, h->post_dbsum, &next);
	}
	return rc < 0 ? rc : 1;
}

static int apply_batch(struct follow *f, const struct fetched *item)
{
	AUTO(ltx_decoder) struct ltx_decoder *dec = NULL;
	AUTO(mem) struct fetched_source *opened = malloc(sizeof(*opened));
	int rc;

	if (!opened)
		return error_set(-ENOMEM, "out of memory for a batch");
	rc = ltx_decoder_new(fetched_open(item, opened), &dec);
	if (rc == 0)
		rc = fetched_check(item, ltx_decoder_header(dec));
	if (rc == 0)
		rc = stage_pages(f, dec);
	if (rc == 0)
		rc = finish_batch(f, ltx_decoder_header(dec));
	if (rc < 0 && f->replica)
		replica_abort(f->replica);
	return rc == -ERR_CORRUPT ? error_wrap(rc, "%s", item->key) : rc;
}

/*
 * It does not fit: because of the object, or because of us?  What else leads to
 * the newest state is tried; if nothing does, the object's fault is told.
 */
static int go_around(struct follow *f)
{
	char why[ERROR_MESSAGE_SIZE];
	int rc;

	(void)snprintf(why, sizeof(why), "%s", error_message());
	rc = is_state(f, &f->mark.done);
	if (rc == 0)
		return diverged(f);
	if (rc > 0)
		rc = jump(f);
	return rc > 0 ? rc : error_set(-ERR_CORRUPT, "%s", why);
}

/* 1: it is here; 0: it is not in the bucket yet. */
static int have_slot(struct follow *f, uint64_t txid, struct fetched *ret)
{
	if (f->waiting_slot.file.max_txid == txid) {
		*ret = f->waiting_slot;
		f->waiting_slot = no_slot();
		return 1;
	}
	ret->file.min_txid = ret->file.max_txid = txid;
	return get_slot(f, txid, ret);
}

static void keep_waiting(struct follow *f, struct fetched *item)
{
	fetched_cleanup(&f->waiting_slot);
	f->waiting_slot = *item;
	*item = no_slot();
}

static int next_slot(struct follow *f)
{
	uint64_t txid = f->mark.done.txid + 1;
	AUTO(fetched) struct fetched item = no_slot();
	int rc;

	if (f->waiting_state.txid >= txid)
		return jump(f);
	rc = have_slot(f, txid, &item);
	if (rc < 0)
		return rc;
	if (rc == 0 && f->seen >= txid)
		return jump(f);
	if (rc == 0) {
		f->current = f->answered;
		return 0;
	}
	/* Dropped, and now there is something again: all of it. */
	if (!f->replica)
		return create(f);
	rc = apply_batch(f, &item);
	if (rc == -EAGAIN)
		keep_waiting(f, &item);
	return rc == -ERR_CORRUPT ? go_around(f) : rc;
}

/* What the list says: go on slot by slot, jump, or drop. */
static int look(struct follow *f)
{
	struct restorer_point head;
	int rc = restorer_head(f->o.bucket, f->o.db, &head);

	f->requests += 2;
	if (rc < 0)
		return rc;
	f->look = false;
	f->answered = clock_monotonic_ms();
	f->seen = head.txid;
	if (head.txid <= f->mark.done.txid)
		return 0;
	if (head.kind == LTX_DROP)
		return drop(f, head.txid, head.timestamp_ms);
	if (!f->replica)
		return create(f);
	return head.txid - f->mark.done.txid > FAR_BEHIND ? jump(f) : 0;
}

/*
 * Nothing has come for a while.  That the next slot is not there does not mean
 * that the log ends here: who compacts removes it, while we were kept.
 */
static int look_beyond(struct follow *f)
{
	AUTO(archive_files) struct archive_files beyond = { 0 };
	uint64_t txid = f->mark.done.txid;
	int rc;

	if (!f->holes || txid == 0 || clock_monotonic_ms() < f->gap_due)
		return 0;
	f->requests++;
	rc = archive_list(f->o.bucket, f->o.db, 0, txid, &beyond);
	if (rc < 0)
		return rc;
	set_gap_due(f, 2 * f->gap_pause);
	if (beyond.n > 0 && beyond.items[0].min_txid > txid + 1)
		f->look = true;
	return 0;
}

/* Files that were removed or replaced under us are a start from the beginning. */
static int check_files(struct follow *f)
{
	int rc = f->replica ? replica_check_files(f->replica) : 0;

	if (rc != -ESTALE)
		return rc;
	log_warn("replica is looked at anew", "db=%s because=%s",
		 log_quote(f->o.path), log_quote(error_message()));
	replica_free(TAKE(f->replica));
	return 0;
}

static int step(struct follow *f)
{
	bool exists;
	int rc = check_files(f);

	if (rc == 0 && !f->replica) {
		rc = find_file(f, &exists);
		if (rc == 0 && exists)
			rc = open_replica(f);
	}
	if (rc != 0)
		return rc;
	if (f->answered &&
	    clock_monotonic_ms() - f->answered > SILENCE_MS)
		f->look = true;
	if (!f->look)
		rc = look_beyond(f);
	if (rc == 0 && f->look)
		rc = look(f);
	if (rc != 0)
		return rc;
	rc = f->mark.done.txid || f->replica ? next_slot(f) : create(f);
	if (rc == 0 && f->replica)
		(void)replica_tend(f->replica);
	return rc;
}

int follow_step(struct follow *f)
{
	int rc = step(f);

	if (rc > 0)
		set_gap_due(f, f->o.gap_ms);
	return rc;
}

int follow_close(struct follow *f)
{
	int rc = 0;

	if (f->replica) {
		rc = replica_close(TAKE(f->replica));
		AUTO(fd) int fd = open(f->o.path, O_RDONLY | O_CLOEXEC);

		/* Only an empty log leaves nothing to compare. */
		if (rc == 0 && fd >= 0)
			rc = store_clean_mark(f, fd);
	}
	follow_free(f);
	return rc;
}
