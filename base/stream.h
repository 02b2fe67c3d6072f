#ifndef LITEBUCKET_BASE_STREAM_H
#define LITEBUCKET_BASE_STREAM_H

/*
 * Bytes that go somewhere, and bytes that come from somewhere
 * ===========================================================
 *
 * A sink takes bytes in order, a source gives them in order.  Codecs and
 * bucket drivers speak these two, so that the same code serves a file, a
 * buffer, and a network body.  An implementation has the struct as its first
 * member and is cast back in its function.
 *
 * Neither is thread-safe.  The object behind stays its owner's.
 */
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct buf;

struct sink {
	/* Take all of data, or fail with a negative errno. */
	int (*write)(struct sink *sink, const void *data, size_t size);
};

struct source {
	/* Up to size bytes; 0 at the end; or a negative errno. */
	ssize_t (*read)(struct source *source, void *data, size_t size);
};

static inline int sink_write(struct sink *sink, const void *data, size_t size)
{
	return sink->write(sink, data, size);
}

static inline ssize_t source_read(struct source *source, void *data,
				  size_t size)
{
	return source->read(source, data, size);
}

/* Read until data is full or the source ends; returns the count. */
ssize_t source_read_full(struct source *source, void *data, size_t size);

/* Into a buffer; fails with -EFBIG at its limit. */
struct buf_sink {
	struct sink sink;
	struct buf *buf;
};
void buf_sink_init(struct buf_sink *s, struct buf *buf);

/*
 * Into a file from offset on, through a block of memory of this struct's own.
 * What was written is in the file only after fd_sink_flush().
 */
struct fd_sink {
	struct sink sink;
	int fd;
	uint64_t offset; /* where the block will go */
	size_t filled;
	char block[1 << 16];
};
void fd_sink_init(struct fd_sink *s, int fd, uint64_t offset);
int fd_sink_flush(struct fd_sink *s);

/* From memory. */
struct mem_source {
	struct source source;
	const char *data;
	size_t left;
};
void mem_source_init(struct mem_source *s, const void *data, size_t size);

/* From a file, from offset on, at most limit bytes; fd's own offset is not used. */
struct fd_source {
	struct source source;
	int fd;
	uint64_t offset;
	uint64_t left;
	size_t begin, end; /* what of the block is still to be given */
	char block[1 << 16];
};
void fd_source_init(struct fd_source *s, int fd, uint64_t offset,
		    uint64_t limit);

#endif
