#ifndef LITEBUCKET_LTX_ENCODER_H
#define LITEBUCKET_LTX_ENCODER_H

/*
 * Writing one LTX file
 * ====================
 *
 * Calling sequence:
 *
 *	ltx_encoder_new		->  ltx_encoder_page (any number)
 *				->  ltx_encoder_finish  ->  ltx_encoder_free
 *
 * Leaving out ltx_encoder_finish() leaves a file that every decoder rejects,
 * so an encoder may simply be freed on any error.  After a failure, every
 * later call on the same encoder fails with the same value.
 *
 * Pages are written in the block encoding: page flag 1, size, one LZ4 block.
 * The encoder streams: it holds one page and what the page index needs (about
 * 3 bytes a page), never the file.  Not thread-safe; use one per thread.
 */
#include <stdint.h>

#include "base/cleanup.h"
#include "ltx/header.h"

struct ltx_encoder;
struct sink;

/*
 * Begin a file on out, which stays the caller's and must outlive the encoder.
 * The header is checked, copied, and written at once.
 *
 * -ERR_CORRUPT: the header describes no valid file (see ltx_header_check()).
 */
int ltx_encoder_new(struct sink *out, const struct ltx_header *header,
		    struct ltx_encoder **ret);

/*
 * Add page number pgno, whose content is the header's page size long.
 *
 * -EINVAL: pgno is zero, not above the previous one, beyond the commit size,
 * or the lock page; or, in a snapshot, a page was left out.
 */
int ltx_encoder_page(struct ltx_encoder *enc, uint32_t pgno, const void *page);

/*
 * Write the index and trailer.  post_apply must be 0 with LTX_NO_CHECKSUM,
 * and have bit 63 without.  The file is complete, but not yet durable: syncing
 * what is behind the sink is the caller's business.
 *
 * -EINVAL: a snapshot does not have all its pages, or post_apply is wrong.
 */
int ltx_encoder_finish(struct ltx_encoder *enc, uint64_t post_apply);

/* Bytes written so far; after ltx_encoder_finish() the size of the file. */
uint64_t ltx_encoder_size(const struct ltx_encoder *enc);

/* NULL is allowed. */
void ltx_encoder_free(struct ltx_encoder *enc);
AUTO_FREE(ltx_encoder);

#endif
