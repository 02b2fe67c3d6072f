#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"

#include "ltx/name.h"

enum {
	TXID_LENGTH = LTX_TXID_TEXT_SIZE - 1,
	SUFFIX_AT = 2 * TXID_LENGTH + 1,
};

void ltx_txid_format(uint64_t txid, char ret[LTX_TXID_TEXT_SIZE])
{
	(void)snprintf(ret, LTX_TXID_TEXT_SIZE, "%016" PRIx64, txid);
}

/*
 * The TXID at the beginning of text; 0 when there is none.  strtoull() would
 * also take spaces, a sign, "0x", and capitals.
 */
static uint64_t leading_txid(const char *text)
{
	uint64_t txid = 0;

	for (int i = 0; i < TXID_LENGTH; i++) {
		char c = text[i];

		if (c >= '0' && c <= '9')
			txid = txid << 4 | (uint64_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			txid = txid << 4 | (uint64_t)(c - 'a' + 10);
		else
			return 0;
	}
	return txid;
}

int ltx_txid_parse(const char *text, uint64_t *ret)
{
	uint64_t txid = leading_txid(text);

	if (txid == 0 || text[TXID_LENGTH] != '\0')
		return error_set(-EINVAL,
				 "'%s' is no transaction id, which is 16 "
				 "lower-case hex digits and not zero",
				 text);
	*ret = txid;
	return 0;
}

void ltx_name_format(uint64_t min_txid, uint64_t max_txid,
		     char ret[LTX_NAME_SIZE])
{
	(void)snprintf(ret, LTX_NAME_SIZE, "%016" PRIx64 "-%016" PRIx64 ".ltx",
		       min_txid, max_txid);
}

int ltx_name_parse(const char *name, uint64_t *ret_min, uint64_t *ret_max)
{
	uint64_t min, max;

	if (strlen(name) != LTX_NAME_SIZE - 1 || name[TXID_LENGTH] != '-' ||
	    strcmp(name + SUFFIX_AT, ".ltx") != 0)
		return -EINVAL;
	min = leading_txid(name);
	max = leading_txid(name + TXID_LENGTH + 1);
	if (min == 0 || max < min)
		return -EINVAL;
	*ret_min = min;
	*ret_max = max;
	return 0;
}
