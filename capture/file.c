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

/* A new header: the log starts over, what it had must be in the main file. */
static int restart_wal(struct db *db, const struct operation *op)
{
	int rc;

	file_wal_end_begin(db);
	rc = perform(op);
	file_wal_end_end(db, rc == 0);
	if (op->offset == 0 && op->size >= 12 &&
	    ltx_page_size_valid(get_be32((const char *)op->data + 8)))
		atomic_store(&db->wal_page_size,
			     get_be32((const char *)op->data + 8));
	atomic_store(&db->wal_in_use, true);
	atomic_store(&db->wal_touched, true);
	if (op->size > WAL_HEADER_SIZE) {
		/* Not SQLite's way, but that of cp: frames come with it. */
		atomic_store(&db->wal_commit_end, UINT64_MAX);
		db_notify(db);
	}
	return rc;
}

/* Does the write hold a frame header that says "commit"?  Remember its end. */
static void note_commit_frames(struct db *db, const struct operation *op)
{
	uint32_t page_size = atomic_load(&db->wal_page_size);
	uint64_t frame_size = WAL_FRAME_HEADER_SIZE + page_size;
	uint64_t end = op->offset + op->size;
	uint64_t frame;

	if (page_size == 0) {
		atomic_store(&db->wal_commit_end, UINT64_MAX);
		return;
	}
	/* The first frame that begins in the write; SQLite writes headers whole. */
	frame = (op->offset - WAL_HEADER_SIZE + frame_size - 1) / frame_size;
	for (uint64_t at = wal_frame_offset(page_size, (uint32_t)frame);
	     at + 8 <= end; at += frame_size)
		if (get_be32((const char *)op->data + (at - op->offset) + 4))
			atomic_store(&db->wal_commit_end, at + frame_size);
}

/*
 * Captured frames are written over: that commit was given up.  From here on
 * what they said may not be sealed, so this waits for the lock.
 */
static int rewind_wal(struct db *db, const struct operation *op)
{
	int rc;

	(void)pthread_mutex_lock(&db->lock);
	rc = perform(op);
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
	rc = perform(op);
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

	if (!db)
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

bool file_end_may_wait(struct db *db, enum format_role role)
{
	switch (role) {
	case FORMAT_JOURNAL:
		return atomic_load(&db->journal_live) &&
		       (is_large_transaction(db) || is_contended(db));
	case FORMAT_WAL:
		return has_wal(db);
	default:
		return true;
	}
}

bool capture_may_wait(struct capture_file *f, enum capture_op op,
		      uint64_t offset, size_t size)
{
	struct db *db = atomic_load(&f->db);

	if (!db)
		return false;
	switch (atomic_load(&f->role)) {
	case FORMAT_MAIN:
		if (op == CAPTURE_TRUNCATE)
			return true;
		return atomic_load(&db->wal_touched) ||
		       (atomic_load(&db->wal_in_use) && is_contended(db));
	case FORMAT_JOURNAL:
		if (op == CAPTURE_WRITE && offset >= FORMAT_JOURNAL_MAGIC_SIZE)
			return false;
		return file_end_may_wait(db, FORMAT_JOURNAL);
	case FORMAT_WAL:
		if (op == CAPTURE_WRITE)
			return offset < WAL_HEADER_SIZE ||
			       offset < atomic_load(&db->wal_end);
		return true;
	default:
		return false;
	}
}
