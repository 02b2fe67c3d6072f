#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/error.h"
#include "bucket/s3_xml.h"

#include "bucket/s3_list.h"

enum {
	PAGE_KEYS = 1000,     /* as many as S3 gives */
	NAME_MAX_SIZE = 4096, /* prefix and key, decoded */
	EMPTY_PAGES_MAX = 1000,
};

struct listing {
	const struct s3_pages *pages;
	struct buf prefix;   /* the bucket's and the caller's */
	struct buf after;    /* likewise */
	struct buf previous; /* the last key seen */
	char *token;
	size_t limit; /* 0: none */
	size_t n;     /* keys given so far */
	size_t empty_pages;
	bool done;
	bool stopped; /* by fn: what it returned is no failure of ours */
	bucket_list_fn fn;
	void *arg;
};

static void listing_cleanup(struct listing *l)
{
	buf_cleanup(&l->prefix);
	buf_cleanup(&l->after);
	buf_cleanup(&l->previous);
	free(l->token);
}

/* Also what catches a store that gives the same page again and again. */
static int check_order(struct listing *l, const char *key)
{
	if (l->prefix.size &&
	    strncmp(key, l->prefix.data, l->prefix.size) != 0)
		return error_set(-EPROTO, "the store lists '%.200s', which "
				 "does not begin with '%.200s'", key,
				 l->prefix.data);
	if (l->previous.size && strcmp(key, l->previous.data) <= 0)
		return error_set(-EPROTO, "the store lists '%.200s' after "
				 "'%.200s'; keys must come in ascending order",
				 key, l->previous.data);
	buf_reset(&l->previous);
	return buf_append(&l->previous, key, strlen(key));
}

static int give_entry(struct listing *l, const struct s3_entry *entry)
{
	struct bucket_object object = {
		.key = entry->key + strlen(l->pages->prefix),
		.size = entry->size,
		.modified_ms = entry->modified_ms,
	};
	int rc = check_order(l, entry->key);

	if (rc < 0)
		return rc;
	/* "prefix/" itself: some tools make such an object as a directory. */
	if (!*object.key)
		return 0;
	l->n++;
	rc = l->fn(&object, l->arg);
	l->stopped = rc != 0;
	return rc;
}

/* The token of the next page, unless this was the last one. */
static int next_page(struct listing *l, struct s3_listing *page)
{
	if (!page->truncated || (l->limit && l->n >= l->limit)) {
		l->done = true;
		return 0;
	}
	if (!page->token || (l->token && strcmp(page->token, l->token) == 0))
		return error_set(-EPROTO, "the store says that its list goes "
				 "on, but not where");
	l->empty_pages = page->n ? 0 : l->empty_pages + 1;
	if (l->empty_pages > EMPTY_PAGES_MAX)
		return error_set(-EPROTO, "the store's list has no end: %d "
				 "empty pages", EMPTY_PAGES_MAX);
	free(l->token);
	l->token = TAKE(page->token);
	return 0;
}

static int list_page(struct listing *l)
{
	AUTO(s3_listing) struct s3_listing page = { 0 };
	size_t left = l->limit ? l->limit - l->n : PAGE_KEYS;
	int rc = l->pages->fetch(l->pages->arg, l->prefix.data, l->after.data,
				 l->token, left < PAGE_KEYS ? left : PAGE_KEYS,
				 &page);

	for (size_t i = 0; rc == 0 && i < page.n; i++) {
		if (l->limit && l->n == l->limit)
			break;
		rc = give_entry(l, &page.entries[i]);
	}
	return rc == 0 ? next_page(l, &page) : rc;
}

int s3_list(const struct s3_pages *pages, const char *prefix,
	    const char *after, size_t limit, bucket_list_fn fn, void *arg)
{
	AUTO(listing) struct listing l = {
		.pages = pages,
		.prefix = BUF_INIT(NAME_MAX_SIZE),
		.after = BUF_INIT(NAME_MAX_SIZE),
		.previous = BUF_INIT(2 * NAME_MAX_SIZE),
		.limit = limit,
		.fn = fn,
		.arg = arg,
	};
	int rc = buf_printf(&l.prefix, "%s%s", pages->prefix, prefix);

	if (rc == 0)
		rc = buf_printf(&l.after, "%s%s", *after ? pages->prefix : "",
				after);
	if (rc == 0)
		rc = buf_append(&l.previous, l.after.data, l.after.size);
	while (rc == 0 && !l.done)
		rc = list_page(&l);
	if (rc < 0 && !l.stopped)
		return error_wrap(rc, "listing '%s' in %s", prefix, pages->url);
	return rc;
}
