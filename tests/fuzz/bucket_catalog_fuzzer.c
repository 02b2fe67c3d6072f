/* Whatever a bucket holds as catalog.json: what is read is printed the same. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "bucket/catalog.h"
#include "ltx/header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A catalog_fn: a line that was let in makes sense. */
static int check_line(const char *db, const struct catalog_entry *entry,
		      void *arg)
{
	if (!*db || !entry->txid || !entry->floor ||
	    !ltx_page_size_valid(entry->page_size))
		abort();
	return 0;
}

static void change(struct catalog *c)
{
	const struct catalog_entry entry = {
		.page_size = 512,
		.dropped = true,
		.txid = UINT64_MAX,
		.floor = 1,
	};
	struct catalog_entry found;

	if (catalog_note(c, "app.db", &entry) < 0 ||
	    !catalog_find(c, "app.db", &found) || !found.dropped)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	AUTO(buf) struct buf first = BUF_INIT(CATALOG_SIZE_MAX);
	AUTO(buf) struct buf second = BUF_INIT(CATALOG_SIZE_MAX);
	AUTO(catalog) struct catalog *c = NULL, *again = NULL;

	if (catalog_parse((const char *)data, size, &c) < 0)
		return 0;
	if (!catalog_id_valid(catalog_id(c)) || !catalog_epoch(c) ||
	    catalog_each(c, check_line, NULL) < 0)
		abort();
	change(c);
	if (catalog_print(c, &first) < 0 ||
	    catalog_parse(first.data, first.size, &again) < 0 ||
	    catalog_print(again, &second) < 0)
		abort();
	if (first.size != second.size ||
	    memcmp(first.data, second.data, first.size) != 0)
		abort();
	return 0;
}
