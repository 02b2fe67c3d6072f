#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/error.h"
#include "ltx/decoder.h"
#include "ltx/encoder.h"

#include "ltx/compact.h"

struct input {
	struct ltx_decoder *dec;
	const struct ltx_header *header;
	uint32_t pgno; /* of the page held; 0 when there are no more */
	void *page;

	/*
	 * The smallest database any later input leaves behind.  What this one
	 * has beyond it was cut off there, and is stale.
	 */
	uint32_t smallest_after;
};

struct merge {
	struct input *inputs; /* oldest first */
	size_t n;
};

static void merge_cleanup(struct merge *m)
{
	for (size_t i = 0; m->inputs && i < m->n; i++) {
		ltx_decoder_free(m->inputs[i].dec);
		free(m->inputs[i].page);
	}
	free(m->inputs);
}

/* Say which input was meant. */
static int wrap(int rc, const struct input *in)
{
	return error_wrap(rc, "merging %016" PRIx64 "-%016" PRIx64,
			  in->header->min_txid, in->header->max_txid);
}

/* Hold the input's next page, if there is one. */
static int advance(struct input *in)
{
	uint32_t pgno = 0;
	int rc = ltx_decoder_page(in->dec, &pgno, in->page);

	if (rc < 0)
		return wrap(rc, in);
	in->pgno = rc ? pgno : 0;
	return 0;
}

static int open_input(struct input *in, struct source *source, size_t position)
{
	int rc = ltx_decoder_new(source, &in->dec);

	if (rc < 0)
		return error_wrap(rc, "merging, file %zu", position + 1);
	in->header = ltx_decoder_header(in->dec);
	in->page = malloc(in->header->page_size);
	if (!in->page)
		return error_set(-ENOMEM, "out of memory for a page");
	return 0;
}

static int open_inputs(struct merge *m, struct source *const sources[],
		       size_t n)
{
	if (n == 0)
		return error_set(-EINVAL, "there is nothing to merge");
	m->inputs = calloc(n, sizeof(*m->inputs));
	if (!m->inputs)
		return error_set(-ENOMEM, "out of memory for %zu files", n);
	m->n = n;
	for (size_t i = 0; i < n; i++) {
		int rc = open_input(&m->inputs[i], sources[i], i);

		if (rc < 0)
			return rc;
	}
	return 0;
}

/* A file says which state it changes; the one before must have left that. */
static int check_base(const struct ltx_header *before,
		      const struct ltx_header *after)
{
	if (after->min_txid != before->max_txid + 1 || !before->post_dbsum ||
	    !after->pre_dbsum || before->post_dbsum == after->pre_dbsum)
		return 0;
	return error_set(-ERR_CORRUPT,
			 "%016" PRIx64 "-%016" PRIx64
			 " was made for a database of checksum %016" PRIx64
			 ", but %016" PRIx64 "-%016" PRIx64
			 " leaves one of %016" PRIx64,
			 after->min_txid, after->max_txid, after->pre_dbsum,
			 before->min_txid, before->max_txid,
			 before->post_dbsum);
}

static int check_follows(const struct ltx_header *before,
			 const struct ltx_header *after)
{
	if (before->page_size != after->page_size)
		return error_set(-EINVAL,
				 "%016" PRIx64 "-%016" PRIx64
				 " has pages of %u bytes, those before of %u",
				 after->min_txid, after->max_txid,
				 after->page_size, before->page_size);
	if (after->min_txid - 1 > before->max_txid)
		return error_set(-ERR_GAP,
				 "transactions %016" PRIx64 " to %016" PRIx64
				 " are missing",
				 before->max_txid + 1, after->min_txid - 1);
	if (after->min_txid < before->min_txid ||
	    after->max_txid <= before->max_txid)
		return error_set(-ERR_GAP,
				 "%016" PRIx64 "-%016" PRIx64
				 " does not reach further than %016" PRIx64
				 "-%016" PRIx64,
				 after->min_txid, after->max_txid,
				 before->min_txid, before->max_txid);
	return check_base(before, after);
}

static int check_inputs(const struct merge *m)
{
	for (size_t i = 0; i < m->n; i++) {
		const struct ltx_header *h = m->inputs[i].header;
		int rc = 0;

		if (h->kind == LTX_STAGED)
			return error_set(-EINVAL,
					 "%016" PRIx64 " only names where its "
					 "pages are; merge that object",
					 h->max_txid);
		if (i > 0)
			rc = check_follows(m->inputs[i - 1].header, h);
		if (rc < 0)
			return error_wrap(rc, "merging");
	}
	return 0;
}

static void find_smallest_after(struct merge *m)
{
	uint32_t smallest = UINT32_MAX;

	for (size_t i = m->n; i-- > 0;) {
		m->inputs[i].smallest_after = smallest;
		if (m->inputs[i].header->commit < smallest)
			smallest = m->inputs[i].header->commit;
	}
}

static struct ltx_header merged_header(const struct merge *m)
{
	const struct ltx_header *first = m->inputs[0].header;
	const struct ltx_header *last = m->inputs[m->n - 1].header;

	return (struct ltx_header){
		.flags = LTX_NO_CHECKSUM,
		.page_size = last->page_size,
		.commit = last->commit,
		.min_txid = first->min_txid,
		.max_txid = last->max_txid,
		.timestamp_ms = last->timestamp_ms,
		.pre_dbsum = first->pre_dbsum,
		.post_dbsum = last->post_dbsum,
		.kind = last->kind == LTX_DROP ? LTX_DROP : LTX_BATCH,
	};
}

/* Of those that hold the lowest page, the latest; NULL when all are done. */
static struct input *find_lowest(struct merge *m)
{
	struct input *lowest = NULL;

	for (size_t i = 0; i < m->n; i++) {
		struct input *in = &m->inputs[i];

		if (in->pgno && (!lowest || in->pgno <= lowest->pgno))
			lowest = in;
	}
	return lowest;
}

/*
 * The encoder holds us to the rules of a file.  Where the inputs were each in
 * order, what it misses is missing among them.
 */
static int blame_inputs(int rc)
{
	if (rc == -EINVAL)
		rc = -ERR_CORRUPT;
	return rc < 0 ? error_wrap(rc, "merging") : rc;
}

static int merge_page(struct merge *m, const struct input *from,
		      uint32_t commit, struct ltx_encoder *enc)
{
	uint32_t pgno = from->pgno;
	int rc;

	if (pgno <= commit && pgno > from->smallest_after)
		return error_set(-ERR_CORRUPT,
				 "merging %016" PRIx64 "-%016" PRIx64
				 ": page %u was cut off by a later file, and "
				 "none that grew the database again has it",
				 from->header->min_txid, from->header->max_txid,
				 pgno);
	if (pgno <= commit) {
		rc = blame_inputs(ltx_encoder_page(enc, pgno, from->page));
		if (rc < 0)
			return rc;
	}
	for (size_t i = 0; i < m->n; i++) {
		if (m->inputs[i].pgno != pgno)
			continue;
		rc = advance(&m->inputs[i]);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int merge_pages(struct merge *m, uint32_t commit,
		       struct ltx_encoder *enc)
{
	struct input *lowest;
	int rc;

	for (size_t i = 0; i < m->n; i++) {
		rc = advance(&m->inputs[i]);
		if (rc < 0)
			return rc;
	}
	while ((lowest = find_lowest(m))) {
		rc = merge_page(m, lowest, commit, enc);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int finish_inputs(struct merge *m)
{
	for (size_t i = 0; i < m->n; i++) {
		int rc = ltx_decoder_finish(m->inputs[i].dec, NULL);

		if (rc < 0)
			return wrap(rc, &m->inputs[i]);
	}
	return 0;
}

static int compact(struct source *const inputs[], size_t n,
		   const struct ltx_compact_batch *as, struct sink *out,
		   struct ltx_header *ret_header)
{
	AUTO(merge) struct merge m = { 0 };
	AUTO(ltx_encoder) struct ltx_encoder *enc = NULL;
	struct ltx_header header;
	int rc = open_inputs(&m, inputs, n);

	if (rc < 0)
		return rc;
	rc = check_inputs(&m);
	if (rc < 0)
		return rc;
	find_smallest_after(&m);
	header = merged_header(&m);
	if (as) {
		header.min_txid = header.max_txid = as->txid;
		header.node_id = as->node_id;
		header.pre_dbsum = as->pre_dbsum;
	}
	rc = ltx_encoder_new(out, &header, &enc);
	if (rc < 0)
		return rc;
	rc = merge_pages(&m, header.commit, enc);
	if (rc < 0)
		return rc;
	/* Before the end is written: a bad input leaves no good output. */
	rc = finish_inputs(&m);
	if (rc < 0)
		return rc;
	rc = blame_inputs(ltx_encoder_finish(enc, 0));
	if (rc == 0 && ret_header)
		*ret_header = header;
	return rc;
}

int ltx_compact(struct source *const inputs[], size_t n, struct sink *out,
		struct ltx_header *ret_header)
{
	return compact(inputs, n, NULL, out, ret_header);
}

int ltx_compact_as(struct source *const inputs[], size_t n,
		   const struct ltx_compact_batch *as, struct sink *out,
		   struct ltx_header *ret_header)
{
	return compact(inputs, n, as, out, ret_header);
}
