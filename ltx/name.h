#ifndef LITEBUCKET_LTX_NAME_H
#define LITEBUCKET_LTX_NAME_H

/*
 * Names: a transaction id (TXID) is 16 lower-case hex digits; a file is
 * <min>-<max>.ltx.
 */
#include <stdint.h>

enum {
	LTX_TXID_TEXT_SIZE = 17,
	LTX_NAME_SIZE = 38, /* 16 + 1 + 16 + 4 + NUL */
};

void ltx_txid_format(uint64_t txid, char ret[LTX_TXID_TEXT_SIZE]);

/* Exactly 16 lower-case hex digits, not zero; -EINVAL. */
int ltx_txid_parse(const char *text, uint64_t *ret);

void ltx_name_format(uint64_t min_txid, uint64_t max_txid,
		     char ret[LTX_NAME_SIZE]);

/* -EINVAL, without a sentence: directories and buckets hold other names. */
int ltx_name_parse(const char *name, uint64_t *ret_min, uint64_t *ret_max);

#endif
