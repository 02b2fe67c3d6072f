#include <string.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/io.h"

#include "base/stream.h"

ssize_t source_read_full(struct source *source, void *data, size_t size)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = source_read(source, (char *)data + done,
					size - done);
		if (n < 0)
			return n;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static int buf_sink_write(struct sink *sink, const void *data, size_t size)
{
	return buf_append(((struct buf_sink *)sink)->buf, data, size);
}

void buf_sink_init(struct buf_sink *s, struct buf *buf)
{
	s->sink.write = buf_sink_write;
	s->buf = buf;
}

int fd_sink_flush(struct fd_sink *s)
{
	int rc = io_pwrite(s->fd, s->block, s->filled, s->offset);

	if (rc < 0)
		return rc;
	s->offset += s->filled;
	s->filled = 0;
	return 0;
}

static int fd_sink_write(struct sink *sink, const void *data, size_t size)
{
	struct fd_sink *s = (struct fd_sink *)sink;
	const char *from = data;

	while (size > 0) {
		size_t n = sizeof(s->block) - s->filled;
		int rc;

		if (n > size)
			n = size;
		memcpy(s->block + s->filled, from, n);
		s->filled += n;
		from += n;
		size -= n;
		if (s->filled < sizeof(s->block))
			break;
		rc = fd_sink_flush(s);
		if (rc < 0)
			return rc;
	}
	return 0;
}

void fd_sink_init(struct fd_sink *s, int fd, uint64_t offset)
{
	s->sink.write = fd_sink_write;
	s->fd = fd;
	s->offset = offset;
	s->filled = 0;
}

static ssize_t mem_source_read(struct source *source, void *data, size_t size)
{
	struct mem_source *s = (struct mem_source *)source;
	size_t n = size < s->left ? size : s->left;

	if (n)
		memcpy(data, s->data, n);
	s->data += n;
	s->left -= n;
	return (ssize_t)n;
}

void mem_source_init(struct mem_source *s, const void *data, size_t size)
{
	s->source.read = mem_source_read;
	s->data = data;
	s->left = size;
}

static int fd_source_fill(struct fd_source *s)
{
	size_t want = sizeof(s->block);
	ssize_t n;

	if (want > s->left)
		want = (size_t)s->left;
	n = io_pread(s->fd, s->block, want, s->offset);
	if (n < 0)
		return (int)n;
	s->offset += (uint64_t)n;
	s->left = (size_t)n < want ? 0 : s->left - (uint64_t)n;
	s->begin = 0;
	s->end = (size_t)n;
	return 0;
}

static ssize_t fd_source_read(struct source *source, void *data, size_t size)
{
	struct fd_source *s = (struct fd_source *)source;
	size_t n;

	if (s->begin == s->end) {
		int rc = fd_source_fill(s);

		if (rc < 0)
			return rc;
	}
	n = s->end - s->begin;
	if (n > size)
		n = size;
	memcpy(data, s->block + s->begin, n);
	s->begin += n;
	return (ssize_t)n;
}

void fd_source_init(struct fd_source *s, int fd, uint64_t offset,
		    uint64_t limit)
{
	s->source.read = fd_source_read;
	s->fd = fd;
	s->offset = offset;
	s->left = limit;
	s->begin = s->end = 0;
}
