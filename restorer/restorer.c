#include <stdlib.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/stream.h"
#include "bucket/bucket.h"
#include "restorer/apply.h"
#include "restorer/choose.h"
#include "restorer/fetch.h"
#include "restorer/output.h"

#include "restorer/restorer.h"

enum { DEFAULT_PARALLEL = 8 };

/* One restore, over all its attempts. */
struct restore {
	const struct restorer_options *options;
	struct choice choice;
	uint64_t txid;	 /* once it is known, further attempts are for it */
	uint64_t total;	 /* bytes to fetch, with those of earlier attempts */
	uint64_t before; /* bytes fetched by earlier attempts */
};

static void restore_cleanup(struct restore *r)
{
	choice_cleanup(&r->choice);
}

static void show_progress(const struct restore *r, uint64_t bytes)
{
	if (r->options->progress)
		r->options->progress(bytes, r->total, r->options->progress_arg);
}

static void count_total(struct restore *r)
{
	r->total = r->before;
	for (size_t i = 0; i < r->choice.n_plan; i++)
		r->total += r->choice.plan[i].size;
}

/* A fetch_config's: bytes are those of the current attempt. */
static void show_fetched(uint64_t bytes, void *arg)
{
	struct restore *r = arg;

	show_progress(r, r->before + bytes);
}

static int start_fetch(struct restore *r, struct output *output,
		       struct fetch **ret)
{
	const struct fetch_config config = {
		.bucket = r->options->bucket,
		.db = r->options->db,
		.scratch = output,
		.parallel = r->options->parallel ? r->options->parallel
						 : DEFAULT_PARALLEL,
		.cancel = r->options->cancel,
		.progress = show_fetched,
		.progress_arg = r,
	};

	return fetch_start(&config, r->choice.plan, r->choice.n_plan, ret);
}

/* Only what the file says is put down to it, not a full disk. */
static int apply_one(struct apply *apply, const struct fetched *item)
{
	struct fetched_source opened;
	int rc = apply_file(apply, fetched_open(item, &opened));

	if (rc == -ERR_CORRUPT || rc == -ERR_GAP)
		return error_wrap(rc, "%s", item->key);
	return rc;
}

static int apply_all(struct fetch *fetch, struct apply *apply)
{
	for (;;) {
		AUTO(fetched) struct fetched item = { .fd = -1 };
		int rc = fetch_next(fetch, &item);

		if (rc <= 0)
			return rc;
		rc = apply_one(apply, &item);
		if (rc < 0)
			return rc;
	}
}

/* What the caller has beyond the bucket. */
static int apply_more(const struct restorer_options *o, struct apply *apply)
{
	AUTO(mem) struct fd_source *source = malloc(sizeof(*source));
	int rc = 1;

	if (!source)
		return error_set(-ENOMEM, "out of memory");
	for (unsigned i = 0; o->more && rc > 0; i++) {
		AUTO(fd) int fd = -1;

		rc = o->more(o->more_arg, i, &fd);
		if (rc <= 0)
			return rc;
		fd_source_init(source, fd, 0, UINT64_MAX);
		rc = apply_file(apply, &source->source);
		if (rc < 0)
			return error_wrap(rc, "a batch of the spool");
		rc = 1;
	}
	return 0;
}

/* Build the chosen state in the output's temporary file. */
static int build(struct restore *r, struct output *output, struct apply *apply)
{
	AUTO(fetch) struct fetch *fetch = NULL;
	int rc = start_fetch(r, output, &fetch);

	if (rc < 0)
		return rc;
	rc = apply_all(fetch, apply);
	r->before += fetch_bytes(fetch);
	if (rc < 0)
		return rc;
	return r->options->more ? 0 :
				  choose_check_header(&r->choice, &apply->last);
}

static void fill_result(const struct restore *r, const struct apply *apply,
			struct restorer_result *ret)
{
	*ret = (struct restorer_result){
		.txid = apply->last.max_txid,
		.timestamp_ms = apply->last.timestamp_ms,
		.page_size = apply->page_size,
		.commit = apply->commit,
		.dbsum = apply->dbsum,
		.bytes_fetched = r->before,
		.files = (unsigned)r->choice.n_plan,
		.proven = apply->proven,
	};
}

/*
 * What was the latest at the first attempt may have become part of a file that
 * goes on beyond it; the latest is something newer by then.
 */
static int choose_again(struct restore *r)
{
	const struct restorer_options *o = r->options;
	int rc = choose(&r->choice, r->txid, o->timestamp_ms);

	if (rc < 0 && r->txid && !o->txid && !o->timestamp_ms)
		rc = choose(&r->choice, 0, 0);
	return rc;
}

static int choose_and_build(struct restore *r, struct output *output,
			    struct apply *apply)
{
	const struct restorer_options *o = r->options;
	int rc = choose_again(r);

	if (rc == 0 && !o->more) /* what follows may bring it back */
		rc = choose_check_dropped(&r->choice);
	if (rc < 0)
		return rc;
	r->txid = r->choice.txid;
	count_total(r);
	show_progress(r, r->before);
	return build(r, output, apply);
}

static int attempt(struct restore *r, struct restorer_result *ret)
{
	const struct restorer_options *o = r->options;
	AUTO(apply) struct apply *apply = NULL;
	AUTO(output) struct output *output = NULL;
	int rc;

	/* First, because it costs nothing to find out that it cannot be. */
	rc = output_open(o->output, o->force, &output);
	if (rc < 0)
		return rc;
	rc = apply_new(output->fd, &apply);
	if (rc == 0 && !o->only_more)
		rc = choose_and_build(r, output, apply);
	if (rc == 0)
		rc = apply_more(o, apply);
	if (rc == 0)
		rc = apply_finish(apply);
	if (rc == 0 && o->accept)
		rc = o->accept(apply->last.post_dbsum != 0, o->accept_arg);
	if (rc == 0 && o->cancel && *o->cancel)
		return error_set(-ECANCELED, "stopped");
	if (rc == 0)
		rc = output_commit(output);
	if (rc < 0)
		return rc;
	show_progress(r, r->total);
	fill_result(r, apply, ret);
	return 0;
}

int restorer_restore(const struct restorer_options *options,
		     struct restorer_result *ret)
{
	AUTO(restore) struct restore r = {
		.options = options,
		.txid = options->txid,
		.choice = { .bucket = options->bucket, .db = options->db },
	};
	int rc = -ESTALE;

	for (int i = 0; i < CHOOSE_ATTEMPTS && rc == -ESTALE; i++)
		rc = attempt(&r, ret);
	if (rc == -ESTALE)
		return error_wrap(-ERR_GAP,
				  "the bucket lists what it does not have");
	return rc;
}
