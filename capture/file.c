#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/io.h"
#include "capture/table.h"

#include "capture/file.h"

/* An operation that captured pages wait for; see finalise(). */
struct operation {
	enum { OP_WRITE, OP_TRUNCATE, OP_FALLOCATE } kind;
	int fd;
	const void *data;
	uint64_t offset, size;
	int mode;
};

/* The system call.  0, or a negative errno. */
static int perform(const struct operation *op)
{
	int rc = 0;

	switch (op->kind) {
	case OP_WRITE:
		return io_pwrite(op->fd, op->data, op->size, op->offset);
	case OP_TRUNCATE:
		rc = ftruncate(op->fd, (off_t)op->size);
		break;
	case OP_FALLOCATE:
		rc = fallocate(op->fd, op->mode, (off_t)op->offset,
			       (off_t)op->size);
		break;
	}
	return rc < 0 ? error_errno("changing a file") : 0;
}

/* ------------------------------------------------------------ main file */

/*
 * Before the main file changes: pull what the WAL has (I2).  Returns whether
 * all of the range is hidden by the WAL, as a checkpoint's writes are.  This
 * is where a checkpoint waits for capture; SQLite's writers do not.
 */
static bool barrier(struct db *db, uint64_t offset, uint64_t size)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->lock);
	uint64_t first, last;

	(void)db_pull(db);
	if (db->page_size == 0 || size == 0)
		return false;
	first = offset / db->page_size + 1;
	last = (offset + size - 1) / db->page_size + 1;
	for (uint64_t pgno = first; pgno <= last; pgno++)
		if (!pgmap_get(&db->wal_index, (uint32_t)pgno))
			return false;
	return true;
}

static bool has_wal(struct db *db)
{
	return atomic_load(&db->wal_in_use) || atomic_load(&db->wal_touched);
}

static void begin_write(struct db *db)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->mark);

	db->begun++;
}

static void end_write(struct db *db)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->mark);

	db->done++;
	db->last_write_ms = clock_monotonic_ms();
}

/* Does this change what a page holds?  Plain allocation adds zeros at the end. */
static bool changes_content(const struct operation *op)
{
	return op->kind == OP_WRITE ||
	       (op->kind == OP_FALLOCATE &&
		(op->mode & ~FALLOC_FL_KEEP_SIZE) != 0);
}

static int change_main(struct db *db, const struct operation *op)
{
	bool dirty = changes_content(op);
	int rc;

	/* What the WAL hides says nothing new, so nobody has to know (I3). */
	if (has_wal(db) && barrier(db, op->offset, op->size))
		return perform(op);
	begin_write(db);
	if (dirty && op->kind == OP_FALLOCATE)
		db_mark_all(db); /* it may move pages */
	else if (dirty)
		db_mark(db, op->offset, op->size);
	rc = perform(op);
	end_write(db);
	if (dirty && !atomic_load(&db->journal_live))
		db_write_bare(db);
	return rc;
}

/*
 * After its commit SQLite cuts the file to the size that page 1 tells.  A
 * shorter one takes pages away, and is somebody else's doing.
 */
static int truncate_main(struct db *db, const struct operation *op)
{
	uint64_t known;
	int rc;

	if (has_wal(db))
		(void)barrier(db, 0, 0);
	(void)pthread_mutex_lock(&db->lock);
	known = (uint64_t)db->commit * db->page_size;
	(void)pthread_mutex_unlock(&db->lock);
	begin_write(db);
	if (known == 0)
		db_mark_all(db);
	else if (op->size < known)
		db_mark(db, op->size, known - op->size);
	rc = perform(op);
	end_write(db);
	if ((known == 0 || op->size < known) &&
	    !atomic_load(&db->journal_live))
		db_write_bare(db);
	return rc;
}

/* -------------------------------------------------------------- journal */

/* Bring the transaction's pages into open, while its journal still stands. */
static int collect_transaction(struct db *db)
{
	int rc = db_pull(db);

	db->collected_begun = db_writes_begun(db);
	if (rc == 0)
		rc = db_collect(db);
	if (rc < 0 && rc != -ERR_NO_DATABASE)
		db_fail(db, "capturing a transaction");
	return rc;
}

void file_finalise_begin(struct db *db)
{
	(void)pthread_mutex_lock(&db->lock);
	db->collected = collect_transaction(db);
}

void file_finalise_end(struct db *db, bool done)
{
	bool news = false;

	if (!done) {
		/* The journal still stands: nothing is committed yet (I1). */
		db->in_doubt = true;
	} else {
		atomic_store(&db->journal_live, false);
		if (db->collected == 0 &&
		    !db_settled(db, db->collected_begun))
			/* Somebody else writes, too: what was read is doubtful. */
			db->in_doubt = true;
		if (db->in_doubt || (db->collected < 0 && db->page_size))
			db_let_rest(db);
		news = db_has_news(db);
	}
	(void)pthread_mutex_unlock(&db->lock);
	/* It was not to be settled while the journal was live. */
	if (atomic_load(&db->resting))
		capture_wake(db->capture);
	if (news)
		db_notify(db);
}

static int finalise(struct db *db, const struct operation *op)
{
	int rc;

	file_finalise_begin(db);
	rc = perform(op);
	file_finalise_end(db, rc == 0);
	return rc;
}

/* Does the write leave a header without magic? */
static bool ends_journal(const struct operation *op)
{
	return op->offset == 0 && op->size >= FORMAT_JOURNAL_MAGIC_SIZE &&
	       !format_journal_live(op->data);
}

static int write_journal(struct db *db, const struct operation *op)
{
	bool live = atomic_load(&db->journal_live);
	bool will_live;
	int rc;

	if (op->offset >= FORMAT_JOURNAL_MAGIC_SIZE)
		return perform(op);
	if (op->offset != 0 || op->size < FORMAT_JOURNAL_MAGIC_SIZE) {
		/* SQLite does not write so; look at the result. */
		rc = perform(op);
		db_probe_journal(db);
		db_let_rest(db);
		return rc;
	}
	will_live = format_journal_live(op->data);
	if (live && !will_live)
		return finalise(db, op);
	/* From the first byte on it may be live; only a failure tells less. */
	rc = perform(op);
	if (rc == 0)
		atomic_store(&db->journal_live, will_live);
	else
		db_probe_journal(db);
	return rc;
}

static int truncate_journal(struct db *db, const struct operation *op)
{
	if (op->size < FORMAT_JOURNAL_MAGIC_SIZE &&
	    atomic_load(&db->journal_live))
		return finalise(db, op);
	return perform(op);
}

/* ------------------------------------------------------------------ WAL */

void file_wal_end_begin(struct db *db)
{
	(void)pthread_mutex_lock(&db->lock);
	(void)db_pull(db);
}

void file_wal_end_end(struct db *db, bool done)
{
	bool news;

	if (done && db_wal_gone(db) < 0)
		db_fail(db, "looking behind a WAL that went");
	/* Something may be left of it. */
	atomic_store(&db->wal_touched, true);
	news = db_has_news(db);
	(void)pthread_mutex_unlock(&db->lock);
	if (news)
		db_notify(db);
}

/* The page size that the WAL's header says; 0: none. */
static uint32_t page_size_in(const struct operation *op)
{
	uint32_t page_size;

	if (op->offset != 0 || op->size < 12)
		return 0;
	page_size = get_be32((const char *)op->data + 8);
	return ltx_page_size_valid(page_size) ? page_size : 0;
}

/*
 * The end of the last frame in the write whose header says "commit".  0: there
 * is none; UINT64_MAX: it cannot be told.
 */
static uint64_t commit_end_in(uint32_t page_size, const struct operation *op)
{
	uint64_t frame_size = WAL_FRAME_HEADER_SIZE + page_size;
	uint64_t end = op->offset + op->size, commit_end = 0;
	uint64_t frame = 0;

	if (page_size == 0)
		return UINT64_MAX;
	/* The first frame that begins in the write; SQLite writes headers whole. */
	if (op->offset > WAL_HEADER_SIZE)
		frame = (op->offset - WAL_HEADER_SIZE + frame_size - 1) /
			frame_size;
	for (uint64_t at = wal_frame_offset(page_size, (uint32_t)frame);
	     at + 8 <= end; at += frame_size)
		if (get_be32((const char *)op->data + (at - op->offset) + 4))
			commit_end = at + frame_size;
	return commit_end;
}

static void note_commit_frames(struct db *db, const struct operation *op)
{
	uint64_t end = commit_end_in(atomic_load(&db->wal_page_size), op);

	if (end)
		atomic_store(&db->wal_commit_end, end);
}

/* Where a durable database's WAL is, once the write is done. */
struct wal_ends {
	uint32_t page_size;
	uint64_t durable, written;
};

static struct wal_ends ends_after(const struct db *db,
				  const struct operation *op)
{
	struct wal_ends ends = {
		.page_size = atomic_load(&db->wal_page_size),
		.durable = atomic_load(&db->wal_durable_end),
		.written = atomic_load(&db->wal_written_end),
	};
	uint64_t end = op->offset + op->size, commit_end;

	if (op->offset < WAL_HEADER_SIZE) {
		ends.durable = ends.written = 0;
		ends.page_size = page_size_in(op);
	}
	if (end > ends.written)
		ends.written = end;
	commit_end = end > WAL_HEADER_SIZE ?
			     commit_end_in(ends.page_size, op) :
			     0;
	if (commit_end)
		ends.durable = commit_end;
	return ends;
}

/*
 * The last piece of a commit frame completes the commit, if all before it is
 * there.  SQLite writes a frame's header first, and then its page; where a
 * transaction had been spilled into the WAL, it writes headers once more in
 * ascending order, that of the commit frame last.  A piece may be split at the
 * boundaries of sectors (sqlite3WalFrames), so the commit frame may be confirmed
 * more than once.  ends is how the WAL is after the write.
 */
static bool completes_commit(const struct wal_ends *ends,
			     const struct operation *op)
{
	if (ends->durable == UINT64_MAX)
		return true;
	return ends->durable && ends->written >= ends->durable &&
	       op->offset < ends->durable &&
	       op->offset + op->size + WAL_FRAME_HEADER_SIZE +
			       ends->page_size >
		       ends->durable;
}

/*
 * What is to be in the bucket before anybody sees it is on the disk before that,
 * so that hardly anything can make SQLite give it up afterwards (D17).
 */
static int perform_frames(struct db *db, const struct operation *op)
{
	struct wal_ends ends = ends_after(db, op);
	bool completes = db->durable && completes_commit(&ends, op);
	int rc = perform(op);

	atomic_store(&db->wal_durable_end, ends.durable);
	atomic_store(&db->wal_written_end, ends.written);
	if (rc == 0 && completes && fdatasync(op->fd) < 0)
		rc = error_errno("syncing a WAL");
	return rc;
}

/* A new header: the log starts over, what it had must be in the main file. */
static int restart_wal(struct db *db, const struct operation *op)
{
	int rc;

	file_wal_end_begin(db);
	rc = perform_frames(db, op);
	file_wal_end_end(db, rc == 0);
	if (page_size_in(op))
		atomic_store(&db->wal_page_size, page_size_in(op));
	atomic_store(&db->wal_in_use, true);
	atomic_store(&db->wal_touched, true);
	if (op->size > WAL_HEADER_SIZE) {
		/* Not SQLite's way, but that of cp: frames come with it. */
		atomic_store(&db->wal_commit_end, UINT64_MAX);
		db_notify(db);
	}
	return rc;
}

/*
 * Captured frames are written over: that commit was given up.  From here on
 * what they said may not be sealed, so this waits for the lock.
 */
static int rewind_wal(struct db *db, const struct operation *op)
{
	int rc;

	(void)pthread_mutex_lock(&db->lock);
	rc = perform_frames(db, op);
	db->wal_rewound = true;
	atomic_store(&db->wal_touched, true);
	(void)pthread_mutex_unlock(&db->lock);
	db_notify(db);
	return rc;
}

static int write_wal(struct db *db, const struct operation *op)
{
	int rc;

	if (op->offset < WAL_HEADER_SIZE)
		return restart_wal(db, op);
	if (op->offset < atomic_load(&db->wal_end))
		return rewind_wal(db, op);
	rc = perform_frames(db, op);
	note_commit_frames(db, op);
	atomic_store(&db->wal_in_use, true);
	atomic_store(&db->wal_touched, true);
	if (atomic_load(&db->wal_commit_end) > atomic_load(&db->wal_end))
		db_notify(db);
	return rc;
}

static int truncate_wal(struct db *db, const struct operation *op)
{
	int rc;

	if (op->size >= WAL_HEADER_SIZE &&
	    op->size >= atomic_load(&db->wal_end))
		return perform(op);
	file_wal_end_begin(db);
	rc = perform(op);
	file_wal_end_end(db, rc == 0);
	return rc;
}

/* ------------------------------------------------------- what is exported */

static int change(struct capture_file *f, const struct operation *op)
{
	struct db *db = atomic_load(&f->db);

	if (!db || atomic_load(&db->held))
		return perform(op);
	switch (atomic_load(&f->role)) {
	case FORMAT_MAIN:
		return op->kind == OP_TRUNCATE ? truncate_main(db, op) :
						 change_main(db, op);
	case FORMAT_JOURNAL:
		return op->kind == OP_WRITE    ? write_journal(db, op) :
		       op->kind == OP_TRUNCATE ? truncate_journal(db, op) :
						 perform(op);
	case FORMAT_WAL:
		return op->kind == OP_WRITE    ? write_wal(db, op) :
		       op->kind == OP_TRUNCATE ? truncate_wal(db, op) :
						 perform(op);
	default:
		return perform(op);
	}
}

ssize_t capture_write(struct capture_file *f, int fd, const void *data,
		      size_t size, uint64_t offset)
{
	struct operation op = { .kind = OP_WRITE,
				.fd = fd,
				.data = data,
				.size = size,
				.offset = offset };
	int rc = change(f, &op);

	return rc < 0 ? rc : (ssize_t)size;
}

int capture_truncate(struct capture_file *f, int fd, uint64_t size)
{
	struct operation op = { .kind = OP_TRUNCATE, .fd = fd, .size = size };

	return change(f, &op);
}

int capture_fallocate(struct capture_file *f, int fd, int mode,
		      uint64_t offset, uint64_t size)
{
	struct operation op = { .kind = OP_FALLOCATE,
				.fd = fd,
				.mode = mode,
				.offset = offset,
				.size = size };

	return change(f, &op);
}

/* A rename may move the file to another database meanwhile. */
static void count_writers(struct capture_file *f, int change_by)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&f->capture->table_lock);
	struct db *db = atomic_load(&f->db);

	if (!db || atomic_load(&f->role) != FORMAT_MAIN)
		return;
	(void)pthread_mutex_lock(&db->mark);
	/* A handle from before the file got its name was never counted. */
	if (change_by > 0 || f->writers > 0) {
		db->writers += (unsigned)change_by;
		f->writers += (unsigned)change_by;
	}
	(void)pthread_mutex_unlock(&db->mark);
}

void capture_opened(struct capture_file *f, bool writable)
{
	if (writable)
		count_writers(f, 1);
}

void capture_closed(struct capture_file *f, bool writable)
{
	if (writable)
		count_writers(f, -1);
}

/* Would somebody have to wait for the lock? */
static bool is_contended(struct db *db)
{
	if (pthread_mutex_trylock(&db->lock) != 0)
		return true;
	(void)pthread_mutex_unlock(&db->lock);
	return false;
}

/* More pages than a few: reading and hashing them takes noticeable time. */
static bool is_large_transaction(struct db *db)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->mark);

	return db->dirty.all || db->dirty.pages.used > 64;
}

static enum capture_wait wait_if(bool may_wait)
{
	return may_wait ? CAPTURE_MAY_WAIT : CAPTURE_AT_ONCE;
}

enum capture_wait file_end_may_wait(struct db *db, enum format_role role)
{
	switch (role) {
	case FORMAT_JOURNAL:
		if (!atomic_load(&db->journal_live))
			return CAPTURE_AT_ONCE;
		if (db->durable)
			return CAPTURE_CONFIRMS;
		return wait_if(is_large_transaction(db) || is_contended(db));
	case FORMAT_WAL:
		return wait_if(has_wal(db));
	default:
		return CAPTURE_MAY_WAIT;
	}
}

static enum capture_wait journal_write_may_wait(struct db *db,
						const struct operation *op)
{
	enum capture_wait wait = CAPTURE_AT_ONCE;

	if (op->offset < FORMAT_JOURNAL_MAGIC_SIZE)
		wait = file_end_may_wait(db, FORMAT_JOURNAL);
	/* Only what takes the magic away ends a transaction. */
	if (wait == CAPTURE_CONFIRMS && !ends_journal(op))
		wait = wait_if(is_contended(db));
	return wait;
}

static enum capture_wait wal_write_may_wait(struct db *db,
					    const struct operation *op)
{
	struct wal_ends ends = ends_after(db, op);

	if (db->durable && completes_commit(&ends, op))
		return CAPTURE_CONFIRMS;
	return wait_if(op->offset < WAL_HEADER_SIZE ||
		       op->offset < atomic_load(&db->wal_end));
}

static enum capture_wait truncate_may_wait(struct db *db,
					   enum format_role role, uint64_t size)
{
	switch (role) {
	case FORMAT_MAIN:
	case FORMAT_WAL:
		return CAPTURE_MAY_WAIT;
	case FORMAT_JOURNAL:
		return size < FORMAT_JOURNAL_MAGIC_SIZE ?
			       file_end_may_wait(db, FORMAT_JOURNAL) :
			       CAPTURE_AT_ONCE;
	default:
		return CAPTURE_AT_ONCE;
	}
}

static enum capture_wait write_may_wait(struct db *db, enum format_role role,
					const struct operation *op)
{
	switch (role) {
	case FORMAT_MAIN:
		return wait_if(atomic_load(&db->wal_touched) ||
			       (atomic_load(&db->wal_in_use) &&
				is_contended(db)));
	case FORMAT_JOURNAL:
		return journal_write_may_wait(db, op);
	case FORMAT_WAL:
		return wal_write_may_wait(db, op);
	default:
		return CAPTURE_AT_ONCE;
	}
}

enum capture_wait capture_may_wait(struct capture_file *f, enum capture_op op,
				   const void *data, size_t size,
				   uint64_t offset, struct db **ret_db)
{
	const struct operation write = {
		.kind = OP_WRITE,
		.data = data,
		.size = size,
		.offset = offset,
	};
	struct db *db = atomic_load(&f->db);
	enum format_role role = atomic_load(&f->role);
	enum capture_wait wait;

	if (!db || atomic_load(&db->held))
		return CAPTURE_AT_ONCE;
	wait = op == CAPTURE_TRUNCATE ? truncate_may_wait(db, role, offset) :
					write_may_wait(db, role, &write);
	if (wait == CAPTURE_CONFIRMS) {
		table_keep(db);
		*ret_db = db;
	}
	return wait;
}
