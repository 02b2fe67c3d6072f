#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/cond.h"
#include "base/error.h"
#include "bucket/bucket.h"
#include "ltx/decoder.h"
#include "restorer/output.h"

#include "restorer/fetch.h"

/* How often fetch_next() looks up while it waits. */
enum { TICK_MS = 100 };

/*
 * Files are claimed in the order of the plan.  File i waits in items[i %
 * parallel] until it is its turn; the window [taken, taken + parallel) keeps
 * two files from meeting there.
 */
struct fetch {
	struct fetch_config config;
	const struct archive_file *plan;
	size_t n;
	pthread_t *threads;
	unsigned n_threads;

	pthread_mutex_t mutex;	/* guards what follows */
	pthread_cond_t changed; /* any of it but bytes */
	size_t claimed;		/* files that a thread has begun */
	size_t taken;		/* files that the caller has got */
	bool *ready;		/* by slot: the item is there and verified */
	struct fetched *items;
	uint64_t bytes;
	bool stop;
	int failed; /* the first error, and its sentence */
	char message[ERROR_MESSAGE_SIZE];
};

void fetched_cleanup(struct fetched *item)
{
	buf_cleanup(&item->memory);
	fd_cleanup(&item->fd);
	item->fd = -1;
}

struct source *fetched_open(const struct fetched *item,
			    struct fetched_source *s)
{
	if (item->fd < 0) {
		mem_source_init(&s->mem, item->memory.data, item->memory.size);
		return &s->mem.source;
	}
	fd_source_init(&s->fd, item->fd, 0, UINT64_MAX);
	return &s->fd.source;
}

/*
 * What comes in is counted, stops when we do, and never is more than the list
 * said, by which it was decided that there is room for it.
 */
struct gate {
	struct sink sink;
	struct sink *inner;
	struct fetch *fetch;
	const char *key;
	uint64_t left;
};

/* Not the object's fault, nor the store's. */
static int not_stored(int rc)
{
	return error_wrap(rc, "keeping it beside the output");
}

static int gate_write(struct sink *sink, const void *data, size_t size)
{
	struct gate *g = (struct gate *)sink;
	bool stop;
	int rc;

	(void)pthread_mutex_lock(&g->fetch->mutex);
	g->fetch->bytes += size;
	stop = g->fetch->stop;
	(void)pthread_mutex_unlock(&g->fetch->mutex);
	if (stop)
		return error_set(-ECANCELED, "stopped");
	if (size > g->left)
		return error_set(-ERR_CORRUPT, "%s is larger than was listed",
				 g->key);
	g->left -= size;
	rc = sink_write(g->inner, data, size);
	return rc < 0 ? not_stored(rc) : 0;
}

static int download_to(struct fetch *f, struct fetched *item,
		       struct sink *inner)
{
	struct gate gate = {
		.sink = { gate_write },
		.inner = inner,
		.fetch = f,
		.key = item->key,
		.left = item->file.size,
	};

	return bucket_get(f->config.bucket, item->key, 0, BUCKET_TO_END, NULL,
			  &gate.sink, NULL);
}

static int download(struct fetch *f, struct fetched *item)
{
	struct buf_sink to_memory;
	struct fd_sink to_file;
	int rc;

	if (item->file.size <= FETCH_MEMORY_MAX) {
		buf_sink_init(&to_memory, &item->memory);
		return download_to(f, item, &to_memory.sink);
	}
	rc = output_scratch(f->config.scratch, &item->fd);
	if (rc < 0)
		return rc;
	fd_sink_init(&to_file, item->fd, 0);
	rc = download_to(f, item, &to_file.sink);
	if (rc < 0)
		return rc;
	rc = fd_sink_flush(&to_file);
	return rc < 0 ? not_stored(rc) : 0;
}

int fetched_check(const struct fetched *item, const struct ltx_header *header)
{
	if (header->min_txid != item->file.min_txid ||
	    header->max_txid != item->file.max_txid)
		return error_set(-ERR_CORRUPT,
				 "its header says transactions "
				 "%016" PRIx64 " to %016" PRIx64,
				 header->min_txid, header->max_txid);
	if (header->kind > LTX_DROP)
		return error_set(-EOPNOTSUPP,
				 "the transaction is stored in a "
				 "way that this version cannot read; use a "
				 "newer litebucket");
	return 0;
}

/* Read the whole file; 0: it is what its checksums say. */
static int verify(const struct fetched *item)
{
	AUTO(ltx_decoder) struct ltx_decoder *dec = NULL;
	AUTO(mem) void *page = malloc(LTX_MAX_PAGE_SIZE);
	struct fetched_source opened;
	uint32_t pgno;
	int rc;

	if (!page)
		return error_set(-ENOMEM, "out of memory");
	rc = ltx_decoder_new(fetched_open(item, &opened), &dec);
	if (rc < 0)
		return rc;
	rc = fetched_check(item, ltx_decoder_header(dec));
	if (rc < 0)
		return rc;
	do
		rc = ltx_decoder_page(dec, &pgno, page);
	while (rc > 0);
	return rc < 0 ? rc : ltx_decoder_finish(dec, NULL);
}

static int fetch_file(struct fetch *f, const struct archive_file *file,
		      struct fetched *ret)
{
	int rc;

	*ret = (struct fetched){
		.file = *file,
		.memory = BUF_INIT(FETCH_MEMORY_MAX),
		.fd = -1,
	};
	rc = archive_key(f->config.db, file->level, file->min_txid,
			 file->max_txid, ret->key);
	if (rc < 0)
		return rc;
	/* What the bucket says names the object already. */
	rc = download(f, ret);
	if (rc < 0)
		return rc == -ENOENT ? -ESTALE : rc;
	rc = verify(ret);
	return rc < 0 ? error_wrap(rc, "%s", ret->key) : 0;
}

/* Wait for room in the window.  False: there is nothing more to do. */
static bool claim(struct fetch *f, size_t *ret)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&f->mutex);

	while (!f->stop && f->claimed < f->n &&
	       f->claimed >= f->taken + f->config.parallel)
		(void)pthread_cond_wait(&f->changed, held);
	if (f->stop || f->claimed == f->n)
		return false;
	*ret = f->claimed++;
	return true;
}

/* Give the item to the caller, or keep the first failure for it. */
static void deliver(struct fetch *f, size_t i, int rc, struct fetched *item)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&f->mutex);

	if (rc == 0) {
		f->items[i % f->config.parallel] = *item;
		f->ready[i % f->config.parallel] = true;
	} else {
		fetched_cleanup(item);
		if (!f->failed) {
			f->failed = rc;
			(void)snprintf(f->message, sizeof(f->message), "%s",
				       error_message());
		}
		f->stop = true;
	}
	(void)pthread_cond_broadcast(&f->changed);
}

static void *worker(void *arg)
{
	struct fetch *f = arg;
	size_t i;

	while (claim(f, &i)) {
		struct fetched item;

		deliver(f, i, fetch_file(f, &f->plan[i], &item), &item);
	}
	return NULL;
}

/* Signals are for the thread that looks at config.cancel. */
static int start_threads(struct fetch *f)
{
	sigset_t all, old;
	int err = 0;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	while (!err && f->n_threads < f->config.parallel) {
		err = pthread_create(&f->threads[f->n_threads], NULL, worker,
				     f);
		if (!err)
			f->n_threads++;
	}
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	errno = err;
	return err ? error_errno("starting a thread") : 0;
}

int fetch_start(const struct fetch_config *config,
		const struct archive_file *plan, size_t n, struct fetch **ret)
{
	AUTO(mem) struct fetch *raw = calloc(1, sizeof(*raw));

	if (!raw)
		return error_set(-ENOMEM, "out of memory");
	(void)pthread_mutex_init(&raw->mutex, NULL);
	int rc = cond_init(&raw->changed);
	if (rc < 0)
		return rc;
	AUTO(fetch) struct fetch *f = TAKE(raw);
	f->config = *config;
	if (n < f->config.parallel)
		f->config.parallel = n ? (unsigned)n : 1;
	f->plan = plan;
	f->n = n;
	f->ready = calloc(f->config.parallel, sizeof(*f->ready));
	f->items = calloc(f->config.parallel, sizeof(*f->items));
	f->threads = calloc(f->config.parallel, sizeof(*f->threads));
	if (!f->ready || !f->items || !f->threads)
		return error_set(-ENOMEM, "out of memory");
	rc = start_threads(f);
	if (rc < 0)
		return rc;
	*ret = TAKE(f);
	return 0;
}

/* 1: the item is there; 0: not yet. */
static int poll_next(struct fetch *f, struct fetched *ret)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&f->mutex);
	size_t slot = f->taken % f->config.parallel;

	if (!f->ready[slot] && !f->failed)
		(void)cond_wait_until(&f->changed, held,
				      clock_monotonic_ms() + TICK_MS);
	if (f->failed)
		return error_set(f->failed, "%s", f->message);
	if (!f->ready[slot])
		return 0;
	*ret = f->items[slot];
	f->ready[slot] = false;
	f->taken++;
	(void)pthread_cond_broadcast(&f->changed);
	return 1;
}

int fetch_next(struct fetch *f, struct fetched *ret)
{
	/* taken changes in this thread only. */
	if (f->taken == f->n)
		return 0;
	for (;;) {
		int rc;

		if (f->config.cancel && *f->config.cancel)
			return error_set(-ECANCELED, "stopped");
		rc = poll_next(f, ret);
		if (f->config.progress)
			f->config.progress(fetch_bytes(f),
					   f->config.progress_arg);
		if (rc != 0)
			return rc;
	}
}

uint64_t fetch_bytes(struct fetch *f)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&f->mutex);

	return f->bytes;
}

void fetch_free(struct fetch *f)
{
	if (!f)
		return;
	(void)pthread_mutex_lock(&f->mutex);
	f->stop = true;
	(void)pthread_cond_broadcast(&f->changed);
	(void)pthread_mutex_unlock(&f->mutex);
	for (unsigned i = 0; i < f->n_threads; i++)
		(void)pthread_join(f->threads[i], NULL);
	for (unsigned i = 0; f->ready && f->items && i < f->config.parallel;
	     i++)
		if (f->ready[i])
			fetched_cleanup(&f->items[i]);
	(void)pthread_cond_destroy(&f->changed);
	(void)pthread_mutex_destroy(&f->mutex);
	free(f->ready);
	free(f->items);
	free(f->threads);
	free(f);
}
