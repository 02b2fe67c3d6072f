#ifndef LITEBUCKET_BASE_BUF_H
#define LITEBUCKET_BASE_BUF_H

/*
 * A byte string that grows, up to a limit given at its creation: memory is
 * bounded by what we choose, not by what a file or a server claims.
 *
 *	AUTO(buf) struct buf body = BUF_INIT(1 << 20);
 *
 * data is always followed by a NUL that size does not count, so that text can
 * be used as a C string; it is NULL only before the first append.
 */
#include <stdarg.h>
#include <stddef.h>

#include "base/error.h"

struct buf {
	char *data;
	size_t size;
	size_t capacity;
	size_t limit;
};

#define BUF_INIT(limit_) { .limit = (limit_) }

/* -EFBIG: the limit; -ENOMEM.  On failure the content is unchanged. */
int buf_append(struct buf *b, const void *data, size_t size);
int buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Make room for size more bytes after the content. */
int buf_reserve(struct buf *b, size_t size);

/* Forget the content, keep the memory. */
void buf_reset(struct buf *b);

void buf_cleanup(struct buf *b);

#endif
