#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/io.h"
#include "ltx/dbsum.h"
#include "ltx/decoder.h"

#include "restorer/apply.h"

/* A multiple of every page size. */
enum { RUN_BYTES = 1 << 20 };

static int flush_run(struct apply *a)
{
	uint64_t offset = ((uint64_t)a->run_pgno - 1) * a->page_size;
	int rc;

	if (a->run_pages == 0)
		return 0;
	rc = io_pwrite(a->fd, a->run, (size_t)a->run_pages * a->page_size,
		       offset);
	if (rc < 0)
		return error_wrap(rc, "writing the restored database");
	a->run_pages = 0;
	return 0;
}

/* Where the decoder may put the next page: the end of the run. */
static char *next_page(const struct apply *a)
{
	return a->run + (size_t)a->run_pages * a->page_size;
}

/* The page that is in next_page() now belongs to the file at pgno. */
static int write_page(struct apply *a, uint32_t pgno)
{
	if (a->run_pages > 0 && pgno != a->run_pgno + a->run_pages) {
		const char *page = next_page(a);
		int rc = flush_run(a);

		if (rc < 0)
			return rc;
		memmove(a->run, page, a->page_size);
	}
	if (a->run_pages == 0)
		a->run_pgno = pgno;
	a->run_pages++;
	/* The decoder needs room for one more. */
	if ((size_t)(a->run_pages + 1) * a->page_size > RUN_BYTES)
		return flush_run(a);
	return 0;
}

/* The first page beyond the end that a file would have to hold. */
static uint32_t page_after(const struct apply *a)
{
	uint32_t pgno = a->commit + 1;

	return pgno == ltx_lock_pgno(a->page_size) ? pgno + 1 : pgno;
}

static int missing_page(const struct apply *a, const struct ltx_header *h)
{
	return error_set(-ERR_CORRUPT,
			 "page %u is missing: the database grows "
			 "to %u pages, and all new ones must be there",
			 page_after(a), h->commit);
}

static int reserve_sums(struct apply *a, uint32_t pages)
{
	size_t capacity = a->sums_capacity ? a->sums_capacity : 1024;
	uint64_t *sums;

	while (capacity < pages)
		capacity *= 2;
	if (capacity == a->sums_capacity)
		return 0;
	sums = realloc(a->sums, capacity * sizeof(*sums));
	if (!sums)
		return error_set(-ENOMEM,
				 "out of memory for the checksums of "
				 "%u pages",
				 pages);
	a->sums = sums;
	a->sums_capacity = capacity;
	return 0;
}

/* Let the database end with page last; pages that are new have sum 0. */
static int grow(struct apply *a, uint32_t last)
{
	int rc = reserve_sums(a, last);

	if (rc < 0)
		return rc;
	memset(a->sums + a->commit, 0, (last - a->commit) * sizeof(*a->sums));
	a->commit = last;
	return 0;
}

static void shrink(struct apply *a, uint32_t last)
{
	for (; a->commit > last; a->commit--)
		a->dbsum -= a->sums[a->commit - 1];
}

static int take_page(struct apply *a, const struct ltx_header *h, uint32_t pgno)
{
	uint64_t sum = ltx_dbsum_page(pgno, next_page(a), a->page_size);

	if (pgno > a->commit) {
		int rc;

		if (pgno != page_after(a))
			return missing_page(a, h);
		rc = grow(a, pgno);
		if (rc < 0)
			return rc;
	}
	a->dbsum += sum - a->sums[pgno - 1];
	a->sums[pgno - 1] = sum;
	return write_page(a, pgno);
}

/* Rule 1 and the first half of rule 3; a base starts from nothing. */
static int begin_file(struct apply *a, const struct ltx_header *h)
{
	uint64_t have = a->last.max_txid;

	if (h->min_txid > have + 1)
		return error_set(-ERR_GAP,
				 "it begins at transaction %016" PRIx64
				 ", but the files before it lead to %016" PRIx64
				 " only",
				 h->min_txid, have);
	if (h->min_txid > 1 && h->min_txid == have + 1 && h->pre_dbsum &&
	    h->pre_dbsum != a->dbsum)
		return error_set(-ERR_CORRUPT,
				 "it does not follow from the "
				 "files before it: it was made for a database "
				 "with checksum %016" PRIx64 ", this one has "
				 "%016" PRIx64,
				 h->pre_dbsum, a->dbsum);
	if (!ltx_header_is_snapshot(h) && h->page_size == a->page_size)
		return 0;
	shrink(a, 0);
	a->page_size = h->page_size;
	if (ftruncate(a->fd, 0) < 0)
		return error_errno("emptying the restored database");
	return 0;
}

/* Rules 2 and 3, when all pages of the file are in. */
static int end_file(struct apply *a, const struct ltx_header *h)
{
	int rc;

	if (page_after(a) <= h->commit)
		return missing_page(a, h);
	/* A database can end with the lock page, which no file holds. */
	if (a->commit < h->commit) {
		rc = grow(a, h->commit);
		if (rc < 0)
			return rc;
	}
	shrink(a, h->commit);
	if (h->post_dbsum && h->post_dbsum != a->dbsum)
		return error_set(-ERR_CORRUPT,
				 "with it the database has "
				 "checksum %016" PRIx64 ", but should have "
				 "%016" PRIx64,
				 a->dbsum, h->post_dbsum);
	a->proven = h->post_dbsum != 0;
	a->last = *h;
	return 0;
}

int apply_file(struct apply *a, struct source *in)
{
	AUTO(ltx_decoder) struct ltx_decoder *dec = NULL;
	const struct ltx_header *h;
	uint32_t pgno;
	int rc;

	rc = ltx_decoder_new(in, &dec);
	if (rc < 0)
		return rc;
	h = ltx_decoder_header(dec);
	rc = begin_file(a, h);
	if (rc < 0)
		return rc;
	while ((rc = ltx_decoder_page(dec, &pgno, next_page(a))) > 0) {
		rc = take_page(a, h, pgno);
		if (rc < 0)
			return rc;
	}
	if (rc == 0)
		rc = flush_run(a);
	if (rc == 0)
		rc = ltx_decoder_finish(dec, NULL);
	return rc < 0 ? rc : end_file(a, h);
}

int apply_finish(struct apply *a)
{
	if (ftruncate(a->fd, (off_t)a->commit * a->page_size) < 0)
		return error_errno("setting the size of the restored database");
	return 0;
}

int apply_new(int fd, struct apply **ret)
{
	AUTO(apply) struct apply *a = calloc(1, sizeof(*a));

	if (!a)
		return error_set(-ENOMEM, "out of memory");
	a->fd = fd;
	a->run = malloc(RUN_BYTES);
	if (!a->run)
		return error_set(-ENOMEM, "out of memory");
	*ret = TAKE(a);
	return 0;
}

void apply_free(struct apply *a)
{
	if (!a)
		return;
	free(a->sums);
	free(a->run);
	free(a);
}
