/* Whatever a bucket holds as lock.json: what is read is printed the same. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "bucket/lease_record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	AUTO(buf) struct buf first = BUF_INIT(4 * LEASE_RECORD_MAX);
	AUTO(buf) struct buf second = BUF_INIT(4 * LEASE_RECORD_MAX);
	struct lease_record r, again;

	if (lease_record_parse((const char *)data, size, &r) < 0)
		return 0;
	if (r.generation > UINT32_MAX ||
	    strlen(r.holder) != LEASE_HOLDER_SIZE - 1 ||
	    lease_record_print(&r, &first) < 0 ||
	    lease_record_parse(first.data, first.size, &again) < 0 ||
	    lease_record_print(&again, &second) < 0)
		abort();
	if (first.size != second.size ||
	    memcmp(first.data, second.data, first.size) != 0)
		abort();
	return 0;
}
