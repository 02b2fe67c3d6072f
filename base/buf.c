#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

int buf_reserve(struct buf *b, size_t size)
{
	size_t capacity = b->capacity ? b->capacity : 256;
	char *data;

	if (size > b->limit || b->size > b->limit - size)
		return error_set(-EFBIG, "more than %zu bytes", b->limit);
	while (capacity < b->size + size + 1)
		capacity *= 2;
	if (capacity == b->capacity)
		return 0;
	data = realloc(b->data, capacity);
	if (!data)
		return error_set(-ENOMEM, "out of memory for %zu bytes",
				 capacity);
	data[b->size] = '\0';
	b->data = data;
	b->capacity = capacity;
	return 0;
}

int buf_append(struct buf *b, const void *data, size_t size)
{
	int rc = buf_reserve(b, size);

	if (rc < 0)
		return rc;
	if (size)
		memcpy(b->data + b->size, data, size);
	b->size += size;
	b->data[b->size] = '\0';
	return 0;
}

int buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list args;
	int n, rc;

	va_start(args, fmt);
	n = vsnprintf(NULL, 0, fmt, args);
	va_end(args);
	if (n < 0)
		return error_set(-EINVAL, "cannot format text");
	rc = buf_reserve(b, (size_t)n);
	if (rc < 0)
		return rc;
	va_start(args, fmt);
	(void)vsnprintf(b->data + b->size, (size_t)n + 1, fmt, args);
	va_end(args);
	b->size += (size_t)n;
	return 0;
}

void buf_reset(struct buf *b)
{
	b->size = 0;
	if (b->data)
		b->data[0] = '\0';
}

void buf_cleanup(struct buf *b)
{
	free(b->data);
	b->data = NULL;
	b->size = b->capacity = 0;
}
