#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"

#include "ltx/header.h"

/*
 *	 0 magic      4 flags      8 page size  12 commit
 *	16 min TXID             24 max TXID
 *	32 timestamp            40 pre-apply checksum
 *	48 WAL offset           56 WAL size
 *	64 salt 1    68 salt 2  72 node id
 *	80 sum before           88 sum after
 *	96 kind
 */
static const char magic[4] = { 'L', 'T', 'X', '1' };

/* LiteFS's: the page block is one LZ4 frame.  Its files begin as ours do. */
#define LITEFS_COMPRESSED 0x1u

bool ltx_page_size_valid(uint32_t page_size)
{
	return page_size >= LTX_MIN_PAGE_SIZE &&
	       page_size <= LTX_MAX_PAGE_SIZE &&
	       (page_size & (page_size - 1)) == 0;
}

static int check_flags(const struct ltx_header *h)
{
	if ((h->flags & ~LTX_NO_CHECKSUM) == LITEFS_COMPRESSED)
		return error_set(-ERR_CORRUPT,
				 "flags 0x%08x: this is a file of LiteFS (LTX "
				 "version 1), which has another format",
				 h->flags);
	if (h->flags & ~LTX_NO_CHECKSUM)
		return error_set(-ERR_CORRUPT,
				 "flags 0x%08x: only 0x%x is known", h->flags,
				 LTX_NO_CHECKSUM);
	return 0;
}

static int check_txids(const struct ltx_header *h)
{
	if (h->min_txid == 0)
		return error_set(-ERR_CORRUPT, "the min TXID is zero");
	if (h->min_txid > h->max_txid)
		return error_set(-ERR_CORRUPT,
				 "the min TXID %016" PRIx64
				 " is above the max TXID %016" PRIx64,
				 h->min_txid, h->max_txid);
	return 0;
}

/* They are signed in the file; what they mean matters to Litestream only. */
static int check_wal(const struct ltx_header *h)
{
	if (h->wal_offset > INT64_MAX || h->wal_size > INT64_MAX)
		return error_set(-ERR_CORRUPT,
				 "the WAL offset or size is negative");
	if (h->wal_offset == 0 && h->wal_size != 0)
		return error_set(-ERR_CORRUPT,
				 "there is a WAL size but no WAL offset");
	if (h->wal_offset == 0 && (h->wal_salt1 || h->wal_salt2))
		return error_set(-ERR_CORRUPT,
				 "there is a WAL salt but no WAL offset");
	return 0;
}

static int check_pre_apply(const struct ltx_header *h)
{
	if (h->flags & LTX_NO_CHECKSUM && h->pre_apply)
		return error_set(-ERR_CORRUPT,
				 "the pre-apply checksum is set in a file "
				 "whose flags say that it has none");
	if (h->flags & LTX_NO_CHECKSUM)
		return 0;
	if (ltx_header_is_snapshot(h) && h->pre_apply)
		return error_set(-ERR_CORRUPT,
				 "the pre-apply checksum is set in a snapshot, "
				 "before which there is nothing");
	if (!ltx_header_is_snapshot(h) && !(h->pre_apply & LTX_CHECKSUM_FLAG))
		return error_set(-ERR_CORRUPT,
				 "the pre-apply checksum is missing");
	return 0;
}

int ltx_header_check(const struct ltx_header *h)
{
	int rc = check_flags(h);

	if (rc < 0)
		return rc;
	if (!ltx_page_size_valid(h->page_size))
		return error_set(-ERR_CORRUPT,
				 "the page size %u is no power of two from %d "
				 "to %d",
				 h->page_size, LTX_MIN_PAGE_SIZE,
				 LTX_MAX_PAGE_SIZE);
	rc = check_txids(h);
	if (rc < 0)
		return rc;
	rc = check_wal(h);
	if (rc < 0)
		return rc;
	/* A kind of tomorrow must not be taken for a batch today. */
	if (h->kind > LTX_STAGED)
		return error_set(-ERR_CORRUPT,
				 "the kind %u is unknown; a newer litebucket "
				 "may know it",
				 h->kind);
	return check_pre_apply(h);
}

void ltx_header_encode(const struct ltx_header *h, uint8_t ret[LTX_HEADER_SIZE])
{
	memcpy(ret, magic, sizeof(magic));
	put_be32(ret + 4, h->flags);
	put_be32(ret + 8, h->page_size);
	put_be32(ret + 12, h->commit);
	put_be64(ret + 16, h->min_txid);
	put_be64(ret + 24, h->max_txid);
	put_be64(ret + 32, (uint64_t)h->timestamp_ms);
	put_be64(ret + 40, h->pre_apply);
	put_be64(ret + 48, h->wal_offset);
	put_be64(ret + 56, h->wal_size);
	put_be32(ret + 64, h->wal_salt1);
	put_be32(ret + 68, h->wal_salt2);
	put_be64(ret + 72, h->node_id);
	put_be64(ret + 80, h->pre_dbsum);
	put_be64(ret + 88, h->post_dbsum);
	put_be32(ret + 96, h->kind);
}

int ltx_header_decode(const uint8_t data[LTX_HEADER_SIZE],
		      struct ltx_header *ret)
{
	struct ltx_header h = {
		.flags = get_be32(data + 4),
		.page_size = get_be32(data + 8),
		.commit = get_be32(data + 12),
		.min_txid = get_be64(data + 16),
		.max_txid = get_be64(data + 24),
		.timestamp_ms = (int64_t)get_be64(data + 32),
		.pre_apply = get_be64(data + 40),
		.wal_offset = get_be64(data + 48),
		.wal_size = get_be64(data + 56),
		.wal_salt1 = get_be32(data + 64),
		.wal_salt2 = get_be32(data + 68),
		.node_id = get_be64(data + 72),
		.pre_dbsum = get_be64(data + 80),
		.post_dbsum = get_be64(data + 88),
		.kind = get_be32(data + 96),
	};
	int rc;

	if (memcmp(data, magic, sizeof(magic)) != 0)
		return error_set(-ERR_CORRUPT,
				 "this is no LTX file: it does not begin with "
				 "LTX1");
	rc = ltx_header_check(&h);
	if (rc < 0)
		return rc;
	*ret = h;
	return 0;
}
