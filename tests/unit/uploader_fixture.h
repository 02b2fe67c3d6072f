#ifndef LITEBUCKET_TESTS_UPLOADER_FIXTURE_H
#define LITEBUCKET_TESTS_UPLOADER_FIXTURE_H

/*
 * A bucket in a directory, spools beside it, and batches to fill them with.
 */
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/io.h"
#include "base/stream.h"
#include "bucket/archive.h"
#include "bucket/bucket.h"
#include "bucket/url.h"
#include "ltx/encoder.h"
#include "ltx/spool.h"
#include "tests/lib/fault_bucket.h"

/* Where, and which bucket: real, and with a network in front of it. */
struct place {
	char dir[64];
	int fd;
	struct bucket *store;
	struct fault_bucket net;
};

static inline void place_open(struct place *p)
{
	char url[128];

	strcpy(p->dir, "/tmp/litebucket-uploader-XXXXXX");
	assert_non_null(mkdtemp(p->dir));
	p->fd = open(p->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(p->fd >= 0);
	snprintf(url, sizeof(url), "file://%s/bucket", p->dir);
	assert_int_equal(bucket_open(url, true, &p->store), 0);
	fault_init(&p->net, p->store);
}

static inline int place_remove_one(const char *path, const struct stat *st,
				   int type, struct FTW *walk)
{
	return remove(path);
}

static inline void place_close(struct place *p)
{
	bucket_free(&p->net.bucket);
	bucket_free(p->store);
	close(p->fd);
	nftw(p->dir, place_remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* What a batch shall be like; zero fields get a sensible value. */
struct batch_like {
	uint32_t page_size;
	uint32_t commit;
	uint32_t first, last; /* pages in it */
	uint64_t node_id;
	uint32_t kind;
};

/* Incompressible, so that files are as large as they look. */
static inline void page_fill(unsigned char *page, uint32_t size, uint64_t txid,
			     uint32_t pgno)
{
	uint64_t x = txid << 32 | pgno;

	for (uint32_t i = 0; i < size; i++) {
		x = x * UINT64_C(6364136223846793005) + 1442695040888963407;
		page[i] = (unsigned char)(x >> 56);
	}
}

/* The time in a batch's header; 0: of none. */
static inline int64_t batch_time(uint64_t txid)
{
	return txid ? 1700000000000 + (int64_t)txid : 0;
}

static inline void batch_write(int fd, uint64_t txid,
			       const struct batch_like *like)
{
	static const struct batch_like usual;
	struct batch_like l = like ? *like : usual;
	struct ltx_header header = { .flags = LTX_NO_CHECKSUM };
	struct ltx_encoder *encoder;
	struct fd_sink out;
	unsigned char *page;

	l.page_size = l.page_size ? l.page_size : 4096;
	l.commit = l.commit ? l.commit : 5;
	if (!l.first) {
		l.first = txid == 1 ? 1 : 2;
		l.last = txid == 1 ? l.commit : 2;
	}
	header.page_size = l.page_size;
	header.commit = l.commit;
	header.min_txid = header.max_txid = txid;
	header.timestamp_ms = batch_time(txid);
	header.node_id = l.node_id ? l.node_id : (UINT64_C(1) << 32 | txid);
	header.post_dbsum = txid;
	header.kind = l.kind;
	page = calloc(1, l.page_size);
	fd_sink_init(&out, fd, 0);
	assert_int_equal(ltx_encoder_new(&out.sink, &header, &encoder), 0);
	for (uint32_t pgno = l.first; pgno <= l.last; pgno++) {
		page_fill(page, l.page_size, txid, pgno);
		assert_int_equal(ltx_encoder_page(encoder, pgno, page), 0);
	}
	assert_int_equal(ltx_encoder_finish(encoder, 0), 0);
	assert_int_equal(fd_sink_flush(&out), 0);
	ltx_encoder_free(encoder);
	free(page);
}

static inline void spool_fill(struct spool *spool, uint64_t txid,
			      const struct batch_like *like)
{
	int fd;

	assert_int_equal(spool_begin(spool, txid, &fd), 0);
	batch_write(fd, txid, like);
	assert_int_equal(spool_publish(spool, txid, fd), 0);
}

/* The bytes of a file or object; free them. */
static inline char *spool_bytes(struct spool *spool, uint64_t txid,
				size_t *ret_size)
{
	char *data;
	int fd;

	assert_int_equal(spool_open_batch(spool, txid, &fd), 0);
	*ret_size = (size_t)io_size(fd);
	data = malloc(*ret_size);
	assert_int_equal(io_pread(fd, data, *ret_size, 0), *ret_size);
	close(fd);
	return data;
}

static inline int object_read(struct place *p, const char *db, unsigned level,
			      uint64_t min, uint64_t max, struct buf *ret)
{
	struct buf_sink sink;
	char key[BUCKET_KEY_MAX];

	assert_int_equal(archive_key(db, level, min, max, key), 0);
	buf_reset(ret);
	buf_sink_init(&sink, ret);
	return bucket_get(p->store, key, 0, BUCKET_TO_END, NULL, &sink.sink,
			  NULL);
}

static inline bool object_exists(struct place *p, const char *db,
				 unsigned level, uint64_t min, uint64_t max)
{
	char key[BUCKET_KEY_MAX];
	struct bucket_info info;

	assert_int_equal(archive_key(db, level, min, max, key), 0);
	return bucket_head(p->store, key, &info) == 0;
}

/* Put what another writer would have put. */
static inline void object_write(struct place *p, const char *db, uint64_t txid,
				const void *data, size_t size)
{
	char key[BUCKET_KEY_MAX];
	struct bucket_put put = { .key = key, .data = data, .size = size };

	assert_int_equal(archive_key(db, 0, txid, txid, key), 0);
	assert_int_equal(bucket_put(p->store, &put, NULL), 0);
}

#endif
