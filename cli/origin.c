#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "bucket/archive.h"
#include "bucket/patience.h"
#include "capture/capture.h"
#include "ltx/header.h"
#include "ltx/spool.h"
#include "restorer/restorer.h"

#include "cli/origin.h"

/* A decision under way. */
struct decision {
	const struct origin_config *config;
	struct origin *o;
	struct restorer_point head;
	struct capture_state local; /* what the files hold */
};

/* ------------------------------------------------------------- the spool */

static int spooled_header(struct spool *spool, uint64_t txid,
			  struct ltx_header *ret)
{
	uint8_t bytes[LTX_HEADER_SIZE];
	AUTO(fd) int fd = -1;
	int rc = spool_open_batch(spool, txid, &fd);

	if (rc < 0)
		return rc;
	if (io_pread(fd, bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
		return error_set(-ERR_CORRUPT,
				 "batch %016" PRIx64 " of the spool is cut off",
				 txid);
	return ltx_header_decode(bytes, ret);
}

static int look_at_spool(struct origin *o)
{
	struct ltx_header header;
	uint64_t last;
	int rc = spool_range(o->spool, &o->first, &last);

	o->first_pre = 0;
	if (rc < 0 || o->first == 0)
		return rc;
	rc = spooled_header(o->spool, o->first, &header);
	/* Of one that is damaged nobody knows where it came from. */
	if (rc == -ERR_CORRUPT)
		return 0;
	if (rc == 0)
		o->first_pre = header.pre_dbsum;
	return rc;
}

static int know(struct origin *o, const struct capture_found *found)
{
	o->spool = found->spool;
	o->txid = found->txid;
	o->dbsum = found->dbsum;
	return look_at_spool(o);
}

int origin_init(struct origin *o, const struct capture_found *found)
{
	*o = (struct origin){
		.path = strdup(found->path),
		.behind = found->behind,
	};
	if (!o->path)
		return error_set(-ENOMEM, "out of memory");
	/* A name that is not replicated; the uploader says why. */
	if (archive_escape(o->path, o->key) < 0)
		o->key[0] = '\0';
	return 0;
}

/* An earlier try may have changed it, and failed then. */
static int know_again(const struct decision *d)
{
	struct capture_found found = { 0 };
	int rc = capture_find_again(d->config->capture, d->o->path, &found);

	return rc < 0 ? rc : know(d->o, &found);
}

void origin_cleanup(struct origin *o)
{
	free(o->path);
	o->path = NULL;
}

/* The last TXID known to be in the bucket. */
static uint64_t confirmed(const struct origin *o)
{
	return o->first ? o->first - 1 : o->txid;
}

/* ------------------------------------------------------ fetching a state */

/* restorer_options.more: the batches of the spool up to position. */
static int next_spooled(void *arg, unsigned i, int *ret_fd)
{
	const struct origin *o = arg;
	int rc;

	if (o->first == 0 || o->first + i > o->txid)
		return 0;
	rc = spool_open_batch(o->spool, o->first + i, ret_fd);
	return rc < 0 ? rc : 1;
}

static struct capture_state state_of(const struct restorer_result *result)
{
	return (struct capture_state){
		.txid = result->txid,
		.dbsum = result->dbsum,
		.page_size = result->page_size,
		.commit = result->commit,
		.timestamp_ms = result->timestamp_ms,
	};
}

/* The name of what is fetched for this database, in incoming. */
static void incoming_name(const struct decision *d, char ret[40])
{
	/* One thread decides about a database, and no other has its origin. */
	(void)snprintf(ret, 40, "%016" PRIxPTR, (uintptr_t)d->o);
}

/* position: with what the spool has; otherwise the head. */
static int fetch(const struct decision *d, bool position,
		 struct restorer_result *ret)
{
	char name[40], output[120];
	struct restorer_options options = {
		.bucket = d->config->bucket,
		.db = d->o->key,
		.output = output,
		.force = true,
		.cancel = d->config->cancel,
	};

	incoming_name(d, name);
	(void)snprintf(output, sizeof(output), "/proc/self/fd/%d/%s",
		       d->config->incoming_fd, name);
	if (position) {
		options.txid = confirmed(d->o);
		options.only_more = options.txid == 0;
		options.more = next_spooled;
		options.more_arg = d->o;
	} else {
		options.txid = d->head.txid;
	}
	return restorer_restore(&options, ret);
}

static void remove_fetched(const struct decision *d)
{
	char name[40];

	incoming_name(d, name);
	(void)unlinkat(d->config->incoming_fd, name, 0);
}

/* Put what was fetched in the place of the files. */
static int replace(const struct decision *d,
		   const struct restorer_result *result, enum capture_keep keep)
{
	const struct capture_state state = state_of(result);
	char name[40];
	int rc;

	/* What it writes would be in no file, and nobody would know. */
	if (d->config->in_use &&
	    d->config->in_use(d->config->arg, d->o->path))
		return error_set(-EBUSY, "'%s' is to be replaced by a newer "
					 "state, and a program still has it "
					 "open, perhaps one that does not go "
					 "through the mount; end that",
				 d->o->path);
	incoming_name(d, name);
	/* Also if it fails: the rest may be done by the next try. */
	d->o->replaced = true;
	rc = capture_replace(d->config->capture, d->o->path,
			     d->config->incoming_fd, name, &state, keep);
	return rc < 0 ? rc : know_again(d);
}

/* ------------------------------------------------ older than its position */

static int not_rolled_forward(const struct origin *o, int rc)
{
	return error_wrap(
		rc,
		"after a loss of power '%s' is older than transaction "
		"%016" PRIx64 ", which it had; it is opened once it "
		"can be rolled forward, or as it is with --adopt "
		"local",
		o->path, o->txid);
}

/* A checkpoint may have brought all of a log home that looks too short. */
static bool is_at_position(const struct decision *d)
{
	struct capture_state local;

	return capture_look(d->config->capture, d->o->path, &local) == 0 &&
	       local.dbsum == d->o->dbsum;
}

static int roll_to_position(struct decision *d)
{
	struct origin *o = d->o;
	struct restorer_result result;
	uint64_t txid = o->txid;
	int rc;

	if (is_at_position(d)) {
		o->behind = false;
		return 0;
	}
	rc = fetch(d, true, &result);

	if (rc == 0 && result.dbsum != o->dbsum)
		rc = error_set(-ERR_CORRUPT, "the bucket has another "
					     "transaction of that number");
	if (rc == 0)
		rc = replace(d, &result, CAPTURE_KEEP);
	remove_fetched(d);
	if (rc < 0)
		return not_rolled_forward(o, rc);
	log_warn("power was lost, and the file was older than what was "
		 "captured; rolled forward",
		 "db=%s txid=%016" PRIx64, log_quote(o->path), txid);
	o->behind = false;
	return 0;
}

/* -------------------------------------------------- what the bucket has */

/* 1: this slot is in the bucket; 0: it is not. */
static int get_slot(const struct decision *d, uint64_t txid,
		    struct ltx_header *ret)
{
	const struct archive_file slot = { .min_txid = txid, .max_txid = txid };
	int rc = archive_get_header(d->config->bucket, d->o->key, &slot, ret);

	if (rc == -ENOENT)
		return 0;
	return rc < 0 ? rc : 1;
}

/* Where this directory and the log part. */
struct parting {
	uint64_t base; /* the last batch that both have; 0: none */
	bool foreign;  /* the slot behind it has another than the spool */
};

/* 1: the slot has our own batch; 0: another's, or one that cannot be read here. */
static int is_own(const struct origin *o, uint64_t txid,
		  const struct ltx_header *slot)
{
	struct ltx_header mine;
	int rc = spooled_header(o->spool, txid, &mine);

	if (rc < 0)
		return rc == -ERR_CORRUPT ? 0 : rc;
	return mine.node_id == slot->node_id;
}

/*
 * Batches of our own may have reached the bucket without our knowing it (R13), so
 * the spool is held against the slots.
 */
static int find_parting(const struct decision *d, struct parting *ret)
{
	const struct origin *o = d->o;
	struct ltx_header slot;

	*ret = (struct parting){ .base = confirmed(o) };
	for (uint64_t txid = o->first; txid && txid <= o->txid; txid++) {
		int rc = get_slot(d, txid, &slot);

		if (rc > 0)
			rc = is_own(o, txid, &slot);
		else
			return rc;
		if (rc < 0)
			return rc;
		ret->foreign = rc == 0;
		if (ret->foreign)
			return 0;
		ret->base = txid;
	}
	return 0;
}

/* Has somebody gone on where this directory stopped?  1: so; 0: no. */
static int is_ahead(const struct decision *d)
{
	struct parting parting;
	struct ltx_header slot;
	int rc = find_parting(d, &parting);

	if (rc < 0 || parting.foreign)
		return rc < 0 ? rc : 1;
	/* What is not in the bucket leaves no room for another's behind it. */
	if (parting.base < d->o->txid)
		return 0;
	return get_slot(d, d->o->txid + 1, &slot);
}

/* 1: there is a log, and d->head is its end; 0: there is none. */
static int find_head(struct decision *d)
{
	int rc = restorer_head(d->config->bucket, d->o->key, &d->head);

	if (rc == -ENOENT)
		return 0;
	return rc < 0 ? rc : 1;
}

/* Does the bucket have what this directory does not know of?  1, 0. */
static int has_news(struct decision *d)
{
	int rc = d->o->txid ? is_ahead(d) : 1;

	return rc > 0 ? find_head(d) : rc;
}

enum {
	ASK_MS = 10000,	   /* whoever opens the database waits as long */
	SILENT_MS = 30000, /* until it is worth asking again */
};

/* has_news(), unless the bucket takes too long for that. */
static int ask_for_news(struct decision *d)
{
	_Atomic int64_t *silent_until = d->config->silent_until_ms;
	int64_t now = clock_monotonic_ms();
	int rc;

	if (now < atomic_load(silent_until))
		return error_set(-EAGAIN,
				 "the bucket did not answer a moment ago");
	bucket_wait_until(now + ASK_MS);
	rc = has_news(d);
	bucket_wait_until(0);
	if (bucket_transient(rc))
		atomic_store(silent_until, clock_monotonic_ms() + SILENT_MS);
	return rc;
}

static struct capture_state head_state(const struct decision *d)
{
	return (struct capture_state){
		.txid = d->head.txid,
		.dbsum = d->head.dbsum,
		.page_size = d->head.page_size,
		.commit = d->head.commit,
		.timestamp_ms = d->head.timestamp_ms,
		.dropped = d->head.kind == LTX_DROP,
	};
}

static bool is_local(const struct decision *d, uint64_t dbsum,
		     uint32_t page_size, uint32_t commit)
{
	return dbsum && d->local.dbsum == dbsum &&
	       d->local.page_size == page_size && d->local.commit == commit;
}

static int adopt(struct decision *d, const struct capture_state *state,
		 const char *message)
{
	int rc = capture_adopt(d->config->capture, d->o->path, state);

	if (rc == 0)
		log_info(message, "db=%s txid=%016" PRIx64,
			 log_quote(d->o->path), state->txid);
	return rc;
}

/* The newest slot below the head that holds what the files do; 1, 0. */
static int find_older(const struct decision *d, uint64_t *ret_txid)
{
	AUTO(archive_files) struct archive_files slots = { 0 };
	int rc = archive_list(d->config->bucket, d->o->key, 0, 0, &slots);

	for (size_t i = slots.n; rc == 0 && i-- > 0;) {
		struct ltx_header h;

		if (*d->config->cancel)
			return error_set(-ECANCELED, "stopped");
		rc = get_slot(d, slots.items[i].max_txid, &h);
		if (rc <= 0)
			continue;
		if (is_local(d, h.post_dbsum, h.page_size, h.commit)) {
			*ret_txid = h.max_txid;
			return 1;
		}
		rc = 0;
	}
	return rc;
}

/* Put the bucket's head in the place of the files. */
static int put_head(struct decision *d, enum capture_keep keep)
{
	struct restorer_result result;
	int rc = fetch(d, false, &result);

	if (rc == 0)
		rc = replace(d, &result, keep);
	remove_fetched(d);
	return rc;
}

static int roll_to_head(struct decision *d, const char *message, uint64_t from,
			enum capture_keep keep)
{
	int rc = put_head(d, keep);

	if (rc == 0)
		log_warn(message, "db=%s from=%016" PRIx64 " txid=%016" PRIx64,
			 log_quote(d->o->path), from, d->head.txid);
	return rc;
}

/* Of another program's head nobody knows the checksum without reading it. */
static int find_head_sum(struct decision *d)
{
	struct restorer_result result;
	int rc;

	if (d->head.dbsum)
		return 0;
	rc = fetch(d, false, &result);
	remove_fetched(d);
	if (rc == 0)
		d->head.dbsum = result.dbsum;
	return rc;
}

static int refuse(const struct decision *d)
{
	return error_set(
		-ENOTUNIQ,
		"'%s' in this directory is no state of the database of "
		"that name in %s, which is at transaction %016" PRIx64
		": mount with --adopt local to go on with the local "
		"file behind that, with --adopt bucket to put the "
		"bucket's in its place (the local one is kept in "
		".litebucket/aside), or with a bucket or prefix of its "
		"own",
		d->o->path, d->config->bucket->url, d->head.txid);
}

/* Is this what the directory knows of its last confirmed batch? */
static bool is_known(const struct origin *o, const struct ltx_header *at)
{
	return at->post_dbsum &&
	       at->post_dbsum == (o->first ? o->first_pre : o->dbsum);
}

/*
 * Did another epoch go on behind the very transaction that this directory knows
 * to be in the bucket?  1: so; 0: no, or it is not certain.
 */
static int was_overtaken(const struct decision *d)
{
	const struct origin *o = d->o;
	struct parting parting;
	struct ltx_header at, behind;
	int rc = find_parting(d, &parting);

	if (rc == 0 && parting.base)
		rc = get_slot(d, parting.base, &at);
	if (rc <= 0 || (parting.base == confirmed(o) && !is_known(o, &at)))
		return rc < 0 ? rc : 0;
	rc = get_slot(d, parting.base + 1, &behind);
	return rc > 0 ? behind.node_id >> 32 > at.node_id >> 32 : rc;
}

/*
 * The log went on without this directory, which has commits of its own behind
 * where they parted: they are kept, and the log counts (R5, R11).
 */
static int set_diverged_aside(struct decision *d)
{
	uint64_t base = confirmed(d->o);
	int rc = put_head(d, CAPTURE_KEEP_DIVERGED);

	if (rc == 0)
		log_error("another writer went on behind what the bucket got "
			  "from here; the commits that it did not get are set "
			  "aside",
			  "db=%s from=%016" PRIx64 " txid=%016" PRIx64,
			  log_quote(d->o->path), base, d->head.txid);
	return rc;
}

static int decide_overtaken(struct decision *d)
{
	int rc = was_overtaken(d);

	if (rc < 0)
		return rc;
	return rc > 0 ? set_diverged_aside(d) : refuse(d);
}

static int decide_different(struct decision *d)
{
	const struct capture_state head = head_state(d);

	switch (d->config->adopt) {
	case ADOPT_LOCAL:
		return adopt(d, &head,
			     "going on with the local file, as was asked for");
	case ADOPT_BUCKET:
		return roll_to_head(d,
				    "the bucket's state is put in the place "
				    "of the local file, as was asked for",
				    0, CAPTURE_KEEP);
	default:
		return decide_overtaken(d);
	}
}

/* By what the files hold. */
static int decide_by_content(struct decision *d)
{
	struct capture_state head;
	uint64_t txid = 0;
	int rc = capture_look(d->config->capture, d->o->path, &d->local);

	/* Not a database any more: capture finds that out by itself. */
	if (rc == -ENOENT || rc == -ERR_NO_DATABASE)
		return 0;
	if (rc == 0)
		rc = find_head_sum(d);
	if (rc < 0)
		return rc;
	head = head_state(d);
	if (is_local(d, head.dbsum, head.page_size, head.commit))
		return adopt(d, &head, "it is as in the bucket; going on");
	/* Who goes on from an older state on purpose says so. */
	if (d->config->adopt != ADOPT_LOCAL)
		rc = find_older(d, &txid);
	if (rc < 0)
		return rc;
	if (rc > 0)
		return roll_to_head(d, "the bucket is ahead; rolled forward",
				    txid, CAPTURE_KEEP_SPOOL);
	return decide_different(d);
}

/* What the bucket says; its silence is no reason to wait. */
static int decide_by_bucket(struct decision *d)
{
	struct capture_state head;
	int rc = d->o->key[0] ? ask_for_news(d) : 0;

	if (rc < 0 && atomic_load(d->config->insist))
		return error_wrap(rc, "what the bucket has of '%s' is not "
				      "known", d->o->path);
	if (rc < 0) {
		log_warn("what the bucket has of it is not known",
			 "db=%s error=%s", log_quote(d->o->path),
			 log_quote(error_message()));
		return 0;
	}
	if (rc == 0)
		return 0;
	head = head_state(d);
	if (head.dropped)
		return adopt(
			d, &head,
			"it was dropped in the bucket; going on behind that");
	return decide_by_content(d);
}

int origin_decide(const struct origin_config *config, struct origin *o)
{
	struct decision d = { .config = config, .o = o };
	int rc = know_again(&d);

	if (rc < 0)
		return rc;
	if (o->behind)
		rc = roll_to_position(&d);
	/* As it is: what differs from what was captured is a change. */
	if (rc < 0 && config->adopt == ADOPT_LOCAL)
		rc = know_again(&d);
	return rc < 0 ? rc : decide_by_bucket(&d);
}

static int empty_dir(int fd)
{
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *entry;

	if (!dir)
		return error_errno("reading '.litebucket/incoming'");
	while ((entry = readdir(dir)))
		(void)unlinkat(fd, entry->d_name, 0);
	(void)closedir(dir);
	return 0;
}

int origin_clear_incoming(int dirfd, int *ret_fd)
{
	AUTO(fd) int fd = -1;
	int rc = io_make_dirs(dirfd, ".litebucket/incoming", 0700);

	if (rc < 0)
		return rc;
	fd = openat(dirfd, ".litebucket/incoming",
		    O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return error_errno("opening '.litebucket/incoming'");
	rc = empty_dir(fd);
	if (rc == 0)
		*ret_fd = TAKE_FD(fd);
	return rc;
}
