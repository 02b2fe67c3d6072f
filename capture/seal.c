#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/log.h"
#include "base/stream.h"
#include "ltx/dbsum.h"
#include "ltx/decoder.h"
#include "ltx/encoder.h"
#include "ltx/name.h"
#include "ltx/spool.h"

#include "capture/db.h"

/*
 * Sealing, so that a crash at any point neither loses a batch nor gives its
 * TXID to another one (I5):
 *
 *	1. the LTX file, as SEALING in the state directory, synced
 *	2. pages, synced
 *	3. position, synced
 *	4. the file renamed into the spool
 *
 * db_recover_sealing() finds the file of a crash after 1: it does 2 to 4
 * again, which changes nothing that was done already.
 */
static const char SEALING[] = "sealing.ltx";

uint64_t db_node_id(const struct db *db)
{
	uint64_t epoch = capture_epoch(db->capture);
	uint32_t nonce;

	io_random(&nonce, sizeof(nonce));
	return epoch << 32 | nonce;
}

static int64_t batch_time(const struct db *db)
{
	int64_t now = db->config->now_ms(db->config->arg);
	int64_t next = db->position.timestamp_ms + 1;

	return now > next ? now : next;
}

static struct ltx_header batch_header(const struct db *db)
{
	const struct batch *b = db->sealing;

	return (struct ltx_header){
		.flags = LTX_NO_CHECKSUM,
		.page_size = b->page_size,
		.commit = b->commit,
		.min_txid = db->position.txid + 1,
		.max_txid = db->position.txid + 1,
		.timestamp_ms = batch_time(db),
		.node_id = db_node_id(db),
		.pre_dbsum = db->position.dbsum,
		.post_dbsum = b->dbsum,
		.kind = LTX_BATCH,
	};
}

/* An empty batch of this kind: the database stays as the last one left it. */
static struct ltx_header empty_header(const struct db *db, enum ltx_kind kind)
{
	return (struct ltx_header){
		.flags = LTX_NO_CHECKSUM,
		.page_size = db->position.page_size,
		.commit = db->position.commit,
		.min_txid = db->position.txid + 1,
		.max_txid = db->position.txid + 1,
		.timestamp_ms = batch_time(db),
		.node_id = db_node_id(db),
		.pre_dbsum = db->position.dbsum,
		.post_dbsum = db->position.dbsum,
		.kind = kind,
	};
}

static int encode_pages(struct ltx_encoder *encoder, const struct batch *b)
{
	AUTO(mem) uint32_t *pgnos = NULL;
	AUTO(mem) void *page = malloc(b->page_size);
	size_t n = 0;
	int rc;

	if (!page)
		return error_set(-ENOMEM, "out of memory for a page");
	rc = pgmap_sorted(&b->map, &pgnos, &n);
	for (size_t i = 0; rc == 0 && i < n; i++) {
		rc = batch_read(b, pgnos[i], page);
		if (rc == 0)
			rc = ltx_encoder_page(encoder, pgnos[i], page);
	}
	return rc;
}

/* Step 1.  b is NULL for a batch without pages. */
static int write_sealing(struct db *db, const struct ltx_header *header,
			 const struct batch *b)
{
	AUTO(fd) int fd = openat(db->state_fd, SEALING,
				 O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	AUTO(mem) struct fd_sink *sink = malloc(sizeof(*sink));
	AUTO(ltx_encoder) struct ltx_encoder *encoder = NULL;
	int rc;

	if (fd < 0)
		return error_errno("creating '%s'", SEALING);
	if (!sink)
		return error_set(-ENOMEM, "out of memory");
	fd_sink_init(sink, fd, 0);
	rc = ltx_encoder_new(&sink->sink, header, &encoder);
	if (rc == 0 && b)
		rc = encode_pages(encoder, b);
	if (rc == 0)
		rc = ltx_encoder_finish(encoder, 0);
	if (rc == 0)
		rc = fd_sink_flush(sink);
	if (rc == 0 && fsync(fd) < 0)
		rc = error_errno("syncing '%s'", SEALING);
	FAILPOINT("seal-written");
	return rc;
}

/* Entries that the batch takes away are gone for readers at once.  Lock held. */
static int cut_pages(struct db *db, const struct ltx_header *header,
		     uint32_t low_commit)
{
	bool fresh = header->page_size != db->position.page_size ||
		     header->kind == LTX_DROP;

	return pages_truncate(db->pages, fresh ? 0 : low_commit);
}

/*
 * The entries of the batch, in runs.  Readers find its pages in sealing, so
 * they do not wait for this.
 */
static int write_pages(struct db *db, const struct batch *b)
{
	AUTO(mem) uint32_t *pgnos = NULL;
	uint64_t run[256];
	uint32_t n = 0;
	size_t count = 0;
	int rc = pgmap_sorted(&b->map, &pgnos, &count);

	for (size_t i = 0; rc == 0 && i < count; i++) {
		(void)batch_find(b, pgnos[i], &run[n++]);
		if (n < 256 && i + 1 < count && pgnos[i + 1] == pgnos[i] + 1)
			continue;
		rc = pages_write(db->pages, pgnos[i] - n + 1, run, n);
		n = 0;
	}
	return rc < 0 ? rc : pages_sync(db->pages);
}

/* Step 2, from memory.  b is NULL for a batch without pages. */
static int note_pages(struct db *db, const struct ltx_header *header,
		      const struct batch *b)
{
	int rc;

	(void)pthread_mutex_lock(&db->lock);
	rc = cut_pages(db, header, b ? b->low_commit : header->commit);
	(void)pthread_mutex_unlock(&db->lock);
	if (rc == 0 && b)
		rc = write_pages(db, b);
	FAILPOINT("seal-pages");
	if (rc < 0)
		return rc;
	AUTO(unlock) pthread_mutex_t *held = lock(&db->lock);
	return pages_extend(db->pages);
}

/* The change counter in the batch's page 1, or, without one, as it was. */
static uint32_t change_counter(const struct db *db)
{
	const struct batch *b = db->sealing;
	uint64_t hash;
	AUTO(mem) uint8_t *page = NULL;
	struct format_header header;

	if (!b || !batch_find(b, 1, &hash))
		return db->position.change_counter;
	page = malloc(b->page_size);
	if (!page || batch_read(b, 1, page) < 0 ||
	    !format_parse_header(page, &header))
		return 0;
	return header.change_counter;
}

/* By what a later life tells whether the files are older than this (D20). */
static void note_whereabouts(const struct db *db, struct position *p)
{
	const struct wal_cursor *wal = db->sealing ? &db->sealing->wal : NULL;

	(void)snprintf(p->boot, sizeof(p->boot), "%s",
		       capture_boot(db->capture));
	p->change_counter = change_counter(db);
	/* Nothing is committed behind the batch before it. */
	if (db->header.kind == LTX_BARRIER) {
		memcpy(p->wal_salt, db->position.wal_salt, sizeof(p->wal_salt));
		p->wal_end = db->position.wal_end;
	}
	if (!wal || wal->frames == 0)
		return;
	p->wal_salt[0] = wal->salt[0];
	p->wal_salt[1] = wal->salt[1];
	p->wal_end = wal_cursor_offset(wal);
}

/* The files are where position says. */
static void keep_whereabouts(const struct db *db, struct position *p)
{
	memcpy(p->boot, db->position.boot, sizeof(p->boot));
	memcpy(p->wal_salt, db->position.wal_salt, sizeof(p->wal_salt));
	p->wal_end = db->position.wal_end;
	p->change_counter = db->position.change_counter;
}

struct position db_position_after(const struct ltx_header *header)
{
	struct position p = {
		.txid = header->max_txid,
		.dbsum = header->post_dbsum,
		.known = header->post_dbsum,
		.page_size = header->page_size,
		.commit = header->commit,
		.timestamp_ms = header->timestamp_ms,
	};

	if (header->kind == LTX_DROP) {
		p.dropped = true;
		p.page_size = p.commit = 0;
	}
	return p;
}

/*
 * The batch is in position and pages: it need not be in memory any more.
 * Lock held.
 */
static void take_over(struct db *db, const struct position *position,
		      uint64_t node_id)
{
	db->position = *position;
	db->last_epoch = (uint32_t)(node_id >> 32);
	db->adopt = true;
	db->sealed = false;
	batch_free(TAKE(db->sealing));
}

/* Step 4; again after a failure, before anything else is sealed. */
static int adopt(struct db *db)
{
	int rc;

	if (!db->adopt)
		return 0;
	if (db->supersede)
		rc = spool_supersede(db->spool, db->state_fd, SEALING,
				     db->position.txid);
	else
		rc = spool_adopt(db->spool, db->state_fd, SEALING,
				 db->position.txid);
	if (rc == -ENOENT && faccessat(db->state_fd, SEALING, F_OK, 0) < 0 &&
	    errno == ENOENT)
		/* It had got its name; only the directory's sync failed. */
		rc = io_sync_parent(db->state_fd, "spool/.");
	if (rc < 0)
		return rc;
	db->adopt = db->supersede = false;
	spool_unbar(db->spool);
	return 0;
}

/*
 * Step 1.  A file that is whole is never written again: once position is on
 * its way to the disk, it is all that the TXID stands for.
 */
static int prepare(struct db *db, const struct ltx_header *header)
{
	int rc = write_sealing(db, header, db->sealing);

	if (rc < 0)
		return rc;
	db->header = *header;
	db->sealed = true;
	return 0;
}

/* Steps 2 to 4 of what is sealed; again after a failure. */
static int publish(struct db *db)
{
	struct position next = db_position_after(&db->header);
	int rc = note_pages(db, &db->header, db->sealing);

	/* What is merged ends where its last batch did. */
	if (db->supersede)
		keep_whereabouts(db, &next);
	else
		note_whereabouts(db, &next);
	if (rc == 0)
		rc = position_store(db->state_fd, "position", &next);
	if (rc < 0)
		return rc;
	FAILPOINT("seal-position");
	(void)pthread_mutex_lock(&db->lock);
	take_over(db, &next, db->header.node_id);
	(void)pthread_mutex_unlock(&db->lock);
	return adopt(db);
}

/*
 * The disk may have the position that was not gone back to, or the spool what is
 * behind the one that was.
 */
static int repeat_position(struct db *db)
{
	int rc;

	if (!db->position_unsure)
		return 0;
	rc = position_store(db->state_fd, "position", &db->position);
	if (rc == 0)
		rc = spool_cut(db->spool, db->position.txid);
	if (rc < 0)
		return rc;
	db->position_unsure = false;
	spool_unbar(db->spool);
	return 0;
}

int db_resume(struct db *db)
{
	int rc = repeat_position(db);

	if (rc == 0)
		rc = adopt(db);
	return rc == 0 && db->sealed ? publish(db) : rc;
}

int db_seal_over(struct db *db, const char *name,
		 const struct ltx_header *header)
{
	if (renameat(db->state_fd, name, db->state_fd, SEALING) < 0) {
		spool_unbar(db->spool);
		return error_errno("renaming '%s'", name);
	}
	db->header = *header;
	db->sealed = db->supersede = true;
	return publish(db);
}

/* Close what is open, so that commits gather in a new batch from here on. */
static int close_open(struct db *db)
{
	int rc;

	if (db->sealing)
		return 1;
	rc = db_pull(db);
	db->kept_back = db->in_doubt;
	if (rc < 0 || db->in_doubt || !db->open || !db->open->changed)
		return rc;
	db->sealing = TAKE(db->open);
	db->sealing->dbsum = db->dbsum;
	if (db->wal_valid)
		db->sealing->wal = db->wal;
	return 1;
}

/* One batch, with a TXID of its own.  Seal lock held. */
static int seal_open(struct db *db)
{
	struct ltx_header header;
	int rc;

	(void)pthread_mutex_lock(&db->lock);
	rc = close_open(db);
	(void)pthread_mutex_unlock(&db->lock);
	if (rc <= 0)
		return rc;
	/* Nobody changes sealing and position but who holds the seal lock. */
	header = batch_header(db);
	rc = prepare(db, &header);
	if (rc == 0)
		rc = publish(db);
	if (rc < 0)
		return error_wrap(rc, "sealing batch %016" PRIx64 " of '%s'",
				  header.max_txid, db->path);
	log_debug("batch sealed", "db=%s txid=%016" PRIx64 " commit=%u",
		  log_quote(db->path), header.max_txid, header.commit);
	return 1;
}

static bool has_spool(struct db *db)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->lock);

	return db->spool != NULL;
}

/*
 * All that is committed.  What an earlier try left over comes first, and may
 * be less than that.  Seal lock held.
 */
static int seal_locked(struct db *db)
{
	int64_t before = db->position.timestamp_ms;
	bool left_over;
	int rc;

	if (!has_spool(db))
		return 0;
	rc = db_resume(db);
	if (rc < 0)
		return error_wrap(rc, "sealing '%s'", db->path);
	left_over = db->sealing != NULL;
	rc = seal_open(db);
	if (rc > 0 && left_over)
		rc = seal_open(db);
	return rc < 0 ? rc : db->position.timestamp_ms > before;
}

/* There is no room; but what was begun may be what the others wait for. */
static int only_resume(struct db *db, int rc)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->seal_lock);
	char error[512];

	(void)snprintf(error, sizeof(error), "%s", error_message());
	(void)db_resume(db);
	return error_set(rc, "%s", error);
}

/* The last batch sealed.  Seal lock held. */
static struct capture_point point_of(const struct db *db)
{
	return (struct capture_point){
		.txid = db->position.txid,
		.time_ms = db->position.timestamp_ms,
	};
}

static int seal(struct db *db, struct capture_point *ret, bool *ret_kept_back)
{
	uint64_t room = 0;
	int rc = db_find_room(db, true, &room);

	if (rc < 0)
		return only_resume(db, rc);
	(void)pthread_mutex_lock(&db->seal_lock);
	db->kept_back = false;
	rc = seal_locked(db);
	if (rc >= 0) {
		*ret = point_of(db);
		*ret_kept_back = db->kept_back;
	}
	(void)pthread_mutex_unlock(&db->seal_lock);
	db_leave_room(db, room);
	return rc;
}

int db_seal_all(struct db *db, struct capture_point *ret)
{
	struct capture_point point;
	bool kept_back;
	int rc = seal(db, &point, &kept_back);

	if (rc < 0)
		return rc;
	if (kept_back)
		return error_set(-EBUSY, "'%s' is not at rest", db->path);
	*ret = point;
	return rc;
}

int db_seal(struct db *db, uint64_t *ret_txid)
{
	struct capture_point point;
	bool kept_back;
	int rc = seal(db, &point, &kept_back);

	if (rc >= 0 && ret_txid)
		*ret_txid = point.txid;
	return rc;
}

/* All that is committed has been sealed.  Seal lock held. */
static int seal_empty(struct db *db, enum ltx_kind kind,
		      struct ltx_header *ret)
{
	int rc;

	*ret = empty_header(db, kind);
	rc = prepare(db, ret);
	return rc < 0 ? rc : publish(db);
}

/*
 * What an earlier try left over may be of an older epoch, so it closes nothing.
 * Seal lock held.
 */
static int close_log(struct db *db)
{
	struct ltx_header header;
	int rc = db_resume(db);

	/* No log, or one that has ended. */
	if (rc < 0 || db->position.page_size == 0)
		return rc;
	rc = seal_open(db);
	if (rc != 0)
		return rc;
	if (db->last_epoch == capture_epoch(db->capture))
		return 1;
	rc = seal_empty(db, LTX_BARRIER, &header);
	if (rc < 0)
		return error_wrap(rc, "closing the log of '%s'", db->path);
	log_debug("barrier sealed", "db=%s txid=%016" PRIx64,
		  log_quote(db->path), header.max_txid);
	return 1;
}

int db_close_log(struct db *db, struct capture_point *ret)
{
	uint64_t room = 0;
	int rc;

	if (!has_spool(db))
		return 0;
	rc = db_find_room(db, true, &room);
	if (rc < 0)
		return only_resume(db, rc);
	(void)pthread_mutex_lock(&db->seal_lock);
	rc = close_log(db);
	*ret = point_of(db);
	(void)pthread_mutex_unlock(&db->seal_lock);
	db_leave_room(db, room);
	return rc;
}

/* What is known of a database that is gone: nothing. */
static void forget_database(struct db *db)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->lock);

	batch_free(TAKE(db->open));
	db->page_size = db->commit = 0;
	db->dbsum = 0;
	db_close_files(db);
	(void)db_wal_gone(db);
	/* A journal that is left belongs to no database. */
	atomic_store(&db->journal_live, false);
	db->compare = false;
	db->late_at = db->n_late;
	(void)db_settled(db, db_writes_begun(db));
	db->in_doubt = false;
}

/* A new one may be there since somebody saw that the old one was not. */
static bool is_back(struct db *db)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->lock);

	db_close_files(db);
	return db_find_main(db) == 0;
}

/* The batch that says so, once all others are sealed. */
static int seal_drop(struct db *db)
{
	struct ltx_header header;
	int rc = seal_empty(db, LTX_DROP, &header);

	if (rc < 0)
		return rc;
	log_info("database dropped", "db=%s txid=%016" PRIx64,
		 log_quote(db->path), header.max_txid);
	db_notify(db);
	return 0;
}

/* The settling thread tries again; what comes in its place is compared. */
static int drop_later(struct db *db, int rc)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->lock);

	db_compare(db, 1, "the database before it could not be dropped");
	return error_wrap(rc, "dropping '%s'", db->path);
}

/* What was begun is ended; what is open goes with the database. */
static int seal_less(struct db *db)
{
	log_error("the last state of a removed database is lost: the spool "
		  "holds twice what it may", "db=%s", log_quote(db->path));
	return db_resume(db);
}

/* keep: its last state.  Seal lock held. */
static int drop_locked(struct db *db, bool keep)
{
	int rc = keep ? seal_locked(db) : seal_less(db);

	if (rc < 0)
		return is_back(db) ? rc : drop_later(db, rc);
	if (is_back(db))
		return 0;
	forget_database(db);
	if (db->position.page_size == 0)
		return 0;
	rc = seal_drop(db);
	return rc < 0 ? drop_later(db, rc) : 0;
}

/*
 * Nobody can look later at what is removed: its last state is sealed even where
 * there is no room for it, within reason.  Room is made afterwards, because
 * somebody waits who removes a file.
 */
int db_drop(struct db *db)
{
	uint64_t room = 0;
	bool full = db_find_room(db, false, &room) < 0;
	int rc;

	(void)pthread_mutex_lock(&db->seal_lock);
	rc = drop_locked(db, !full || room_may_exceed(db->capture));
	(void)pthread_mutex_unlock(&db->seal_lock);
	db_leave_room(db, room);
	if (full)
		room_is_due(db->capture);
	return rc;
}

/* Called for each page of a file; may be NULL. */
typedef int (*page_fn)(struct db *db, uint32_t pgno, const void *page,
		       uint32_t page_size);

/* Read the whole file, and verify it. */
static int read_sealing(struct db *db, int fd, page_fn fn,
			struct ltx_header *ret_header)
{
	AUTO(mem) struct fd_source *source = malloc(sizeof(*source));
	AUTO(ltx_decoder) struct ltx_decoder *decoder = NULL;
	AUTO(mem) void *page = NULL;
	uint32_t pgno;
	int rc;

	if (!source)
		return error_set(-ENOMEM, "out of memory");
	fd_source_init(source, fd, 0, UINT64_MAX);
	rc = ltx_decoder_new(&source->source, &decoder);
	if (rc < 0)
		return rc;
	*ret_header = *ltx_decoder_header(decoder);
	page = malloc(ret_header->page_size);
	if (!page)
		return error_set(-ENOMEM, "out of memory for a page");
	do {
		rc = ltx_decoder_page(decoder, &pgno, page);
		if (rc > 0 && fn && fn(db, pgno, page, ret_header->page_size))
			return -EIO;
	} while (rc > 0);
	return rc < 0 ? rc : ltx_decoder_finish(decoder, NULL);
}

static int note_page(struct db *db, uint32_t pgno, const void *page,
		     uint32_t page_size)
{
	uint64_t hash = ltx_dbsum_page(pgno, page, page_size);

	return pages_write(db->pages, pgno, &hash, 1);
}

/* Step 2, from the file. */
static int note_file(struct db *db, int fd, struct ltx_header *header)
{
	int rc = cut_pages(db, header, header->commit);

	if (rc == 0)
		rc = read_sealing(db, fd, note_page, header);
	return rc < 0 ? rc : pages_sync(db->pages);
}

/* Steps 2 to 4, of a file that a crash left after step 1. */
static int finish_sealing(struct db *db, int fd, struct ltx_header *header)
{
	struct position next = db_position_after(header);
	int rc = note_file(db, fd, header);

	/*
	 * Of the life that ended, not of this one: what the disk lost is judged
	 * by it (D20).  Where the files were at the batch itself nobody knows
	 * any more.
	 */
	keep_whereabouts(db, &next);
	if (rc == 0)
		rc = pages_extend(db->pages);
	if (rc == 0)
		rc = position_store(db->state_fd, "position", &next);
	if (rc < 0)
		return rc;
	take_over(db, &next, header->node_id);
	db->supersede = true;
	return adopt(db);
}

int db_recover_sealing(struct db *db)
{
	AUTO(fd) int fd = openat(db->state_fd, SEALING, O_RDONLY | O_CLOEXEC);
	struct ltx_header header;
	int rc;

	if (fd < 0)
		return errno == ENOENT ? 0 : error_errno("opening '%s'", SEALING);
	rc = read_sealing(db, fd, NULL, &header);
	if (rc == -ENOMEM || rc == -EIO)
		return rc;
	/* Not whole, or of another time: sealing it had not got anywhere. */
	if (rc < 0 || header.max_txid < db->position.txid ||
	    header.max_txid > db->position.txid + 1) {
		(void)unlinkat(db->state_fd, SEALING, 0);
		return 0;
	}
	log_info("finishing a batch that a crash interrupted",
		 "db=%s txid=%016" PRIx64, log_quote(db->path),
		 header.max_txid);
	return finish_sealing(db, fd, &header);
}
