#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sqlite3.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/stream.h"
#include "ltx/dbsum.h"
#include "ltx/decoder.h"
#include "ltx/spool.h"

#include "tests/lib/chain.h"

static bool refuse(const char *what, uint64_t txid)
{
	printf("batch %016" PRIx64 ": %s (%s)\n", txid, what, error_message());
	return false;
}

static uint64_t image_sum(const struct chain *c)
{
	uint64_t sum = 0;

	for (uint32_t pgno = 1; pgno <= c->commit; pgno++)
		if (pgno != ltx_lock_pgno(c->page_size))
			sum += ltx_dbsum_page(pgno,
					      c->image + (size_t)(pgno - 1) *
							     c->page_size,
					      c->page_size);
	return sum;
}

/* Make the image as large as the header says; what is new is filled with junk. */
static void resize(struct chain *c, const struct ltx_header *h)
{
	size_t old = (size_t)c->commit * c->page_size;
	size_t new = (size_t)h->commit * h->page_size;

	if (h->page_size != c->page_size)
		old = 0;
	c->image = realloc(c->image, new ? new : 1);
	if (new > old)
		memset(c->image + old, 0xa5, new - old);
	c->page_size = h->page_size;
	c->commit = h->commit;
}

bool chain_apply(struct chain *c, uint64_t txid, int fd)
{
	struct fd_source *source = malloc(sizeof(*source));
	AUTO(mem) void *owned = source;
	AUTO(ltx_decoder) struct ltx_decoder *decoder = NULL;
	uint8_t page[LTX_MAX_PAGE_SIZE];
	struct ltx_header h;
	uint32_t pgno;
	int rc;

	fd_source_init(source, fd, 0, UINT64_MAX);
	if (ltx_decoder_new(&source->source, &decoder) < 0)
		return refuse("does not decode", txid);
	h = *ltx_decoder_header(decoder);
	if (h.min_txid != txid || h.max_txid != txid)
		return refuse("holds another transaction", txid);
	if (txid != c->txid + 1)
		return refuse("follows a hole", txid);
	if (c->txid && h.pre_dbsum != c->dbsum)
		return refuse("has another base", txid);
	resize(c, &h);
	while ((rc = ltx_decoder_page(decoder, &pgno, page)) > 0)
		memcpy(c->image + (size_t)(pgno - 1) * h.page_size, page,
		       h.page_size);
	if (rc < 0 || ltx_decoder_finish(decoder, NULL) < 0)
		return refuse("is damaged", txid);
	c->txid = txid;
	c->dropped = h.kind == LTX_DROP;
	c->dbsum = h.post_dbsum;
	if (image_sum(c) != h.post_dbsum)
		return refuse("does not lead to its own checksum", txid);
	return true;
}

bool chain_follow(struct chain *c, struct spool *spool)
{
	AUTO(mem) uint64_t *txids = NULL;
	size_t n;

	if (spool_list(spool, &txids, &n) < 0)
		return refuse("spool", 0);
	for (size_t i = 0; i < n; i++) {
		AUTO(fd) int fd = -1;

		if (txids[i] <= c->txid)
			continue;
		if (txids[i] != c->txid + 1)
			return refuse("follows a hole", txids[i]);
		if (spool_open_batch(spool, txids[i], &fd) < 0)
			return refuse("cannot be opened", txids[i]);
		if (!chain_apply(c, txids[i], fd))
			return false;
	}
	return true;
}

void chain_clear(struct chain *c)
{
	free(c->image);
	memset(c, 0, sizeof(*c));
}

static uint8_t *read_file(const char *path, size_t *ret_size)
{
	AUTO(fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	uint8_t *data;

	*ret_size = 0;
	if (fd < 0 || fstat(fd, &st) < 0)
		return NULL;
	data = malloc((size_t)st.st_size + 1);
	if (read(fd, data, (size_t)st.st_size) != st.st_size) {
		free(data);
		return NULL;
	}
	*ret_size = (size_t)st.st_size;
	return data;
}

static void copy_file(const char *from, const char *to)
{
	size_t size;
	AUTO(mem) uint8_t *data = read_file(from, &size);

	(void)unlink(to);
	if (!data)
		return;
	AUTO(fd) int fd = open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
}

/* Let SQLite put everything into the main file. */
static bool checkpoint(const char *path)
{
	sqlite3 *db = NULL;
	int rc = sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, "unix");

	if (rc == SQLITE_OK)
		rc = sqlite3_exec(db, "PRAGMA wal_checkpoint(TRUNCATE)", NULL,
				  NULL, NULL);
	if (rc != SQLITE_OK)
		printf("%s: %s\n", path, sqlite3_errmsg(db));
	(void)sqlite3_close(db);
	return rc == SQLITE_OK;
}

static void make_copy(const char *path, char copy[4096])
{
	static const char *const suffixes[] = { "", "-wal", "-journal" };
	char from[4200], to[4200];

	(void)snprintf(copy, 4096, "%s/litebucket-judge.%d.db",
		       access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp",
		       getpid());
	for (int i = 0; i < 3; i++) {
		(void)snprintf(from, sizeof(from), "%s%s", path, suffixes[i]);
		(void)snprintf(to, sizeof(to), "%s%s", copy, suffixes[i]);
		copy_file(from, to);
	}
	(void)snprintf(to, sizeof(to), "%s-shm", copy);
	(void)unlink(to);
}

static void remove_copy(const char *copy)
{
	static const char *const suffixes[] = { "", "-wal", "-journal", "-shm" };
	char path[4200];

	for (int i = 0; i < 4; i++) {
		(void)snprintf(path, sizeof(path), "%s%s", copy, suffixes[i]);
		(void)unlink(path);
	}
}

/* What SQLite reads at path, as one file; the caller's to free. */
static uint8_t *read_original(const struct chain *c, const char *path,
			      size_t *ret_size)
{
	char copy[4096];
	uint8_t *data = NULL;

	make_copy(path, copy);
	if (checkpoint(copy))
		data = read_file(copy, ret_size);
	else
		(void)refuse("the original cannot be read by SQLite", c->txid);
	remove_copy(copy);
	return data;
}

static bool compare(const struct chain *c, const uint8_t *data, size_t size)
{
	size_t want = (size_t)c->commit * c->page_size;
	bool equal = size == want &&
		     (size == 0 || memcmp(data, c->image, size) == 0);

	for (size_t at = 0; !equal && at < size && at < want; at++)
		if (data[at] != c->image[at]) {
			printf("txid %" PRIu64 ": page %zu differs at %zu\n",
			       c->txid, at / c->page_size + 1,
			       at % c->page_size);
			break;
		}
	if (!equal)
		printf("txid %" PRIu64 ": captured %zu bytes, SQLite has %zu\n",
		       c->txid, want, size);
	return equal;
}

bool chain_equals(const struct chain *c, const char *path)
{
	size_t size;
	AUTO(mem) uint8_t *data = read_original(c, path, &size);

	return data && compare(c, data, size);
}

/* Make the leaves of data's free list what the chain has. */
static void forgive_free_pages(const struct chain *c, uint8_t *data,
			       size_t size)
{
	uint32_t trunk = get_be32(data + 32);

	while (trunk && (size_t)trunk * c->page_size <= size) {
		const uint8_t *page = data + (size_t)(trunk - 1) * c->page_size;
		uint32_t leaves = get_be32(page + 4);

		for (uint32_t i = 0; i < leaves; i++) {
			size_t at = (size_t)(get_be32(page + 8 + 4 * i) - 1) *
				    c->page_size;

			if (at + c->page_size <= size)
				memcpy(data + at, c->image + at, c->page_size);
		}
		trunk = get_be32(page);
	}
}

bool chain_equals_meanwhile(const struct chain *c, const char *path)
{
	size_t size, counted;
	AUTO(mem) uint8_t *data = read_original(c, path, &size);

	if (!data)
		return false;
	counted = size < 100 ? 0 : (size_t)get_be32(data + 28) * c->page_size;
	if (counted < size)
		size = counted;
	if (size == (size_t)c->commit * c->page_size)
		forgive_free_pages(c, data, size);
	return compare(c, data, size);
}
