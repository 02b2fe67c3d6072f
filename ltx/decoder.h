#ifndef LITEBUCKET_LTX_DECODER_H
#define LITEBUCKET_LTX_DECODER_H

/*
 * Reading one LTX file
 * ====================
 *
 * Calling sequence:
 *
 *	ltx_decoder_new		->  ltx_decoder_page until it returns 0
 *				->  ltx_decoder_finish  ->  ltx_decoder_free
 *
 * Nothing that came out of a decoder is to be trusted before
 * ltx_decoder_finish() returned 0: only then the file checksum, which covers
 * every page, is known to hold.  So pages go into a temporary file, or the
 * file is read twice.
 *
 * Both page encodings are read, blocks (flag 1) and frames (flag 0), also
 * mixed.  The decoder is strict: everything that superfly/ltx v0.5.3 refuses
 * is refused, and also what it lets pass but no writer makes: a page that
 * decompresses to another length, an index that does not match the pages seen,
 * a snapshot with pages missing, bytes after the trailer.
 *
 * It streams: one page, and a running hash of the index, whatever sizes the
 * file claims.  Not thread-safe.  All errors are -ERR_CORRUPT with a sentence
 * that says what is wrong and where, or what the source gave.  After a failure
 * every later call fails with the same value.
 */
#include <stdint.h>

#include "base/cleanup.h"
#include "ltx/header.h"

struct ltx_decoder;
struct source;

struct ltx_trailer {
	uint64_t post_apply;
	uint64_t file_checksum;
};

/* Read and check the header.  in stays the caller's. */
int ltx_decoder_new(struct source *in, struct ltx_decoder **ret);

/* Valid until the decoder is freed. */
const struct ltx_header *ltx_decoder_header(const struct ltx_decoder *dec);

/*
 * The next page, into page, which has room for the header's page size.
 * 1: there was one; 0: there are no more.
 */
int ltx_decoder_page(struct ltx_decoder *dec, uint32_t *ret_pgno, void *page);

/*
 * After the last page: check index, checksums, and that nothing follows.
 * ret may be NULL.
 */
int ltx_decoder_finish(struct ltx_decoder *dec, struct ltx_trailer *ret);

/* NULL is allowed. */
void ltx_decoder_free(struct ltx_decoder *dec);
AUTO_FREE(ltx_decoder);

#endif
