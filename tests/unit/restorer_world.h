#ifndef LITEBUCKET_TESTS_UNIT_RESTORER_WORLD_H
#define LITEBUCKET_TESTS_UNIT_RESTORER_WORLD_H

/*
 * A world in which something can be restored
 * ==========================================
 *
 * A history of database states in memory, a real file:// bucket into which
 * tests put files that span any range of it, and a directory to restore into.
 *
 *	world_commit(w, 10, 3, 2);	// state 1: 10 pages
 *	world_commit(w, 12, 5, 1);	// state 2: page 5 and two new ones
 *	world_put(w, 0, 1, 1);		// level 0, 1-1
 *	world_put(w, 1, 1, 2);		// level 1, 1-2
 *	assert_int_equal(world_restore(w, 2), 0);
 *	world_expect(w, 2);
 *
 * The bucket is behind a spy that counts requests and can act before one.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/io.h"
#include "base/stream.h"
#include "bucket/archive.h"
#include "bucket/bucket.h"
#include "bucket/url.h"
#include "ltx/dbsum.h"
#include "ltx/encoder.h"
#include "restorer/restorer.h"

enum {
	WORLD_STATES = 64,
	WORLD_PAGE_SIZE = 512,
};

/* 2026-01-01T00:00:00Z; state N is N seconds later. */
#define WORLD_TIME INT64_C(1767225600000)

struct world_state {
	uint32_t page_size, commit, kind;
	char *pages;
	uint64_t sum;
};

struct spy {
	struct bucket bucket;
	struct bucket *inner;
	atomic_uint requests, gets;
	/* Taken away by one download while the others ask for them. */
	void (*_Atomic before_get)(const char *key, void *arg);
	void (*_Atomic before_list)(const char *prefix, void *arg);
	void *arg;
};

struct world {
	char dir[64];
	char output[96];
	struct spy spy;
	struct world_state states[WORLD_STATES];
	uint64_t head;
	bool no_sums; /* write files as Litestream does */
	struct restorer_options options;
	struct restorer_result result;
};

static inline int spy_get(struct bucket *b, const char *key, uint64_t offset,
			  uint64_t length, const char *if_match,
			  struct sink *sink, struct bucket_info *ret)
{
	struct spy *s = (struct spy *)b;
	void (*before_get)(const char *, void *) = s->before_get;

	atomic_fetch_add(&s->requests, 1);
	atomic_fetch_add(&s->gets, 1);
	if (before_get)
		before_get(key, s->arg);
	return bucket_get(s->inner, key, offset, length, if_match, sink, ret);
}

static inline int spy_put(struct bucket *b, const struct bucket_put *put,
			  struct bucket_info *ret)
{
	return bucket_put(((struct spy *)b)->inner, put, ret);
}

static inline int spy_list(struct bucket *b, const char *prefix,
			   const char *after, size_t limit, bucket_list_fn fn,
			   void *arg)
{
	struct spy *s = (struct spy *)b;
	void (*before_list)(const char *, void *) = s->before_list;

	atomic_fetch_add(&s->requests, 1);
	if (before_list)
		before_list(prefix, s->arg);
	return bucket_list(s->inner, prefix, after, limit, fn, arg);
}

static const struct bucket_ops spy_ops = {
	.name = "spy",
	.get = spy_get,
	.put = spy_put,
	.list = spy_list,
};

/* url: of an existing bucket, or NULL for a new one. */
static inline struct world *world_open(const char *url)
{
	struct world *w = calloc(1, sizeof(*w));
	char own[96], out[96];

	assert_non_null(w);
	strcpy(w->dir, "/tmp/litebucket-restorer-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	snprintf(own, sizeof(own), "file://%s/bucket", w->dir);
	snprintf(out, sizeof(out), "%s/out", w->dir);
	assert_int_equal(mkdir(out, 0755), 0);
	snprintf(w->output, sizeof(w->output), "%s/out/app.db", w->dir);
	assert_int_equal(bucket_open(url ? url : own, !url, &w->spy.inner), 0);
	w->spy.bucket.ops = &spy_ops;
	w->spy.bucket.url = w->spy.inner->url;
	w->options = (struct restorer_options){
		.bucket = &w->spy.bucket,
		.db = "",
		.output = w->output,
	};
	return w;
}

static inline void world_close(struct world *w)
{
	char command[96];

	bucket_free(w->spy.inner);
	for (size_t i = 0; i < WORLD_STATES; i++)
		free(w->states[i].pages);
	snprintf(command, sizeof(command), "rm -rf %s", w->dir);
	assert_int_equal(system(command), 0);
	free(w);
}

/* cmocka's setup and teardown. */
static inline int world_setup(void **state)
{
	*state = world_open(NULL);
	return 0;
}

static inline int world_teardown(void **state)
{
	world_close(*state);
	return 0;
}

/* What nobody can compress or guess, the same every time. */
static inline void world_fill(char *page, uint32_t page_size, uint64_t seed)
{
	for (uint32_t i = 0; i < page_size; i += 8) {
		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		memcpy(page + i, &seed, 8);
	}
}

static inline uint64_t world_sum(const struct world_state *s)
{
	uint64_t sum = 0;

	for (uint32_t p = 0; p < s->commit; p++)
		sum += ltx_dbsum_page(p + 1,
				      s->pages + (size_t)p * s->page_size,
				      s->page_size);
	return sum;
}

/*
 * The next state: so many pages, of which n from first on changed.  Pages
 * that are new have changed anyway.
 */
static inline uint64_t world_commit(struct world *w, uint32_t commit,
				    uint32_t first, uint32_t n)
{
	const struct world_state *old = &w->states[w->head];
	struct world_state *s = &w->states[++w->head];

	assert_true(w->head < WORLD_STATES);
	if (!s->page_size)
		s->page_size = old->page_size ? old->page_size :
						WORLD_PAGE_SIZE;
	s->commit = commit;
	s->pages = calloc(commit + 1, s->page_size);
	assert_non_null(s->pages);
	for (uint32_t p = 1; p <= commit; p++) {
		size_t at = (size_t)(p - 1) * s->page_size;
		bool kept = s->page_size == old->page_size && p <= old->commit;

		if (!kept || (p >= first && p < first + n))
			world_fill(s->pages + at, s->page_size,
				   w->head * 1000003 + p);
		else
			memcpy(s->pages + at, old->pages + at, s->page_size);
	}
	s->sum = world_sum(s);
	return w->head;
}

/* The next state, with all pages in another size. */
static inline uint64_t world_commit_resized(struct world *w,
					    uint32_t page_size, uint32_t commit)
{
	w->states[w->head + 1].page_size = page_size;
	return world_commit(w, commit, 1, commit);
}

/* The next state: the same, with a kind (barrier, drop). */
static inline uint64_t world_mark(struct world *w, uint32_t kind)
{
	uint64_t txid = world_commit(w, w->states[w->head].commit, 0, 0);

	w->states[txid].kind = kind;
	return txid;
}

static inline struct ltx_header world_header(const struct world *w,
					     uint64_t min, uint64_t max)
{
	const struct world_state *to = &w->states[max];

	return (struct ltx_header){
		.flags = LTX_NO_CHECKSUM,
		.page_size = to->page_size,
		.commit = to->commit,
		.min_txid = min,
		.max_txid = max,
		.timestamp_ms = WORLD_TIME + (int64_t)max * 1000,
		.pre_dbsum = w->no_sums ? 0 : w->states[min - 1].sum,
		.post_dbsum = w->no_sums ? 0 : to->sum,
		.kind = to->kind,
	};
}

/* Does the file min-max hold this page? */
static inline bool world_holds(const struct world *w, uint64_t min,
			       uint64_t max, uint32_t pgno)
{
	const struct world_state *to = &w->states[max];
	size_t at = (size_t)(pgno - 1) * to->page_size;

	if (min == 1)
		return true;
	for (uint64_t i = min - 1; i < max; i++) {
		const struct world_state *from = &w->states[i];

		if (from->page_size != to->page_size || pgno > from->commit ||
		    memcmp(from->pages + at, to->pages + at, to->page_size))
			return true;
	}
	return false;
}

/* Write the file of a header; skip leaves a page out that belongs in. */
static inline void world_encode(const struct world *w,
				const struct ltx_header *h, uint32_t skip,
				struct buf *ret)
{
	AUTO(ltx_encoder) struct ltx_encoder *enc = NULL;
	const struct world_state *to = &w->states[h->max_txid];
	struct buf_sink sink;

	buf_sink_init(&sink, ret);
	assert_int_equal(ltx_encoder_new(&sink.sink, h, &enc), 0);
	for (uint32_t p = 1; p <= h->commit; p++)
		if (p != skip && world_holds(w, h->min_txid, h->max_txid, p))
			assert_int_equal(
				ltx_encoder_page(enc, p, to->pages +
						 (size_t)(p - 1) *
							 to->page_size),
				0);
	assert_int_equal(ltx_encoder_finish(enc, 0), 0);
}

/* These bytes under the key of level, min and max. */
static inline void world_put_bytes(struct world *w, unsigned level,
				   uint64_t min, uint64_t max,
				   const void *data, size_t size)
{
	char key[BUCKET_KEY_MAX];
	struct bucket_put put = { .key = key, .data = data, .size = size };

	assert_int_equal(archive_key("", level, min, max, key), 0);
	assert_int_equal(bucket_put(w->spy.inner, &put, NULL), 0);
}

static inline void world_put_header(struct world *w, unsigned level,
				    const struct ltx_header *h, uint32_t skip)
{
	AUTO(buf) struct buf file = BUF_INIT(64 << 20);

	world_encode(w, h, skip, &file);
	world_put_bytes(w, level, h->min_txid, h->max_txid, file.data,
			file.size);
}

static inline void world_put(struct world *w, unsigned level, uint64_t min,
			     uint64_t max)
{
	struct ltx_header h = world_header(w, min, max);

	world_put_header(w, level, &h, 0);
}

static inline void world_put_log(struct world *w, uint64_t first, uint64_t last)
{
	for (uint64_t txid = first; txid <= last; txid++)
		world_put(w, 0, txid, txid);
}

static inline void world_remove(struct world *w, unsigned level, uint64_t min,
				uint64_t max)
{
	char key[BUCKET_KEY_MAX];
	const char *keys[] = { key };

	assert_int_equal(archive_key("", level, min, max, key), 0);
	assert_int_equal(bucket_remove(w->spy.inner, keys, 1), 0);
}

/* 0: the latest. */
static inline int world_restore(struct world *w, uint64_t txid)
{
	w->options.txid = txid;
	return restorer_restore(&w->options, &w->result);
}

static inline void world_says(const char *part)
{
	if (!strstr(error_message(), part))
		fail_msg("'%s' does not say '%s'", error_message(), part);
}

/* The output directory holds just these names, in order and with spaces. */
static inline void world_expect_names(const struct world *w, const char *names)
{
	char dir[96], found[1024] = "";
	struct dirent **entries;
	int n;

	snprintf(dir, sizeof(dir), "%s/out", w->dir);
	n = scandir(dir, &entries, NULL, alphasort);
	assert_true(n >= 0);
	for (int i = 0; i < n; i++) {
		const char *name = entries[i]->d_name;

		if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0) {
			if (found[0])
				strcat(found, " ");
			strcat(found, name);
		}
		free(entries[i]);
	}
	free(entries);
	assert_string_equal(found, names);
}

static inline void world_read(const char *path, struct buf *ret)
{
	assert_int_equal(io_read_file(AT_FDCWD, path, ret), 0);
}

static inline void world_write(const char *path, const char *text)
{
	AUTO(fd) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
			       0600);

	assert_true(fd >= 0);
	assert_int_equal(io_pwrite(fd, text, strlen(text), 0), 0);
}

/* The output is state txid, byte for byte, and nothing lies around. */
static inline void world_expect(const struct world *w, uint64_t txid)
{
	AUTO(buf) struct buf file = BUF_INIT(64 << 20);
	const struct world_state *s = &w->states[txid];

	world_read(w->output, &file);
	assert_int_equal(file.size, (size_t)s->commit * s->page_size);
	assert_memory_equal(file.data, s->pages, file.size);
	world_expect_names(w, "app.db");
	assert_int_equal(w->result.txid, txid);
	assert_int_equal(w->result.commit, s->commit);
	assert_int_equal(w->result.page_size, s->page_size);
}

/* Ask for txid (0: the latest), get this state; and remove the output. */
static inline void world_check_as(struct world *w, uint64_t txid,
				  uint64_t expected)
{
	int rc = world_restore(w, txid);

	if (rc < 0)
		fail_msg("restoring %" PRIu64 ": %s", txid, error_message());
	world_expect(w, expected);
	assert_int_equal(unlink(w->output), 0);
}

static inline void world_check(struct world *w, uint64_t txid)
{
	world_check_as(w, txid, txid);
}

static inline void world_check_latest(struct world *w, uint64_t expected)
{
	world_check_as(w, 0, expected);
}

/* A restore fails so, says so, and leaves nothing. */
static inline void world_refuse(struct world *w, uint64_t txid, int rc,
				const char *says)
{
	assert_int_equal(world_restore(w, txid), rc);
	world_says(says);
	world_expect_names(w, "");
}

#endif
