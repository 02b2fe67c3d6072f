#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/io.h"
#include "base/stream.h"
#include "ltx/compact.h"
#include "ltx/spool.h"

#include "ltx/merge.h"

/* What is common to all groups. */
struct merging {
	struct spool *spool;
	int dirfd;
};

/* Files open for reading, each with its source. */
struct inputs {
	int fds[MERGE_FAN_IN];
	struct fd_source *sources[MERGE_FAN_IN];
	size_t n;
};

static void inputs_cleanup(struct inputs *in)
{
	for (size_t i = 0; i < in->n; i++) {
		fd_cleanup(&in->fds[i]);
		free(in->sources[i]);
	}
}

/* fd is the inputs' from here on. */
static int add_input(struct inputs *in, int fd)
{
	struct fd_source *source = malloc(sizeof(*source));

	if (!source) {
		(void)close(fd);
		return error_set(-ENOMEM, "out of memory for merging");
	}
	fd_source_init(source, fd, 0, UINT64_MAX);
	in->fds[in->n] = fd;
	in->sources[in->n++] = source;
	return 0;
}

static int compact_inputs(const struct inputs *in,
			  const struct ltx_compact_batch *as, struct sink *out,
			  struct ltx_header *ret_header)
{
	struct source *sources[MERGE_FAN_IN];

	for (size_t i = 0; i < in->n; i++)
		sources[i] = &in->sources[i]->source;
	if (as)
		return ltx_compact_as(sources, in->n, as, out, ret_header);
	return ltx_compact(sources, in->n, out, ret_header);
}

static int compact_range(const struct merging *m, uint64_t first,
			 uint64_t last, const struct ltx_compact_batch *as,
			 struct sink *out, struct ltx_header *ret_header);

/* A group of batches as a file of its own among the inputs. */
static int add_group(const struct merging *m, uint64_t first, uint64_t last,
		     struct inputs *in)
{
	AUTO(mem) struct fd_sink *sink = malloc(sizeof(*sink));
	AUTO(fd) int fd = -1;
	int rc;

	if (!sink)
		return error_set(-ENOMEM, "out of memory for merging");
	rc = io_open_unnamed(m->dirfd, &fd);
	if (rc < 0)
		return rc;
	fd_sink_init(sink, fd, 0);
	rc = compact_range(m, first, last, NULL, &sink->sink, NULL);
	if (rc == 0)
		rc = fd_sink_flush(sink);
	return rc < 0 ? rc : add_input(in, TAKE_FD(fd));
}

static int add_batch(const struct merging *m, uint64_t txid, struct inputs *in)
{
	int fd = -1;
	int rc = spool_open_batch(m->spool, txid, &fd);

	return rc < 0 ? rc : add_input(in, fd);
}

static int compact_range(const struct merging *m, uint64_t first, uint64_t last,
			 const struct ltx_compact_batch *as, struct sink *out,
			 struct ltx_header *ret_header)
{
	uint64_t n = last - first + 1;
	uint64_t group = (n + MERGE_FAN_IN - 1) / MERGE_FAN_IN;
	AUTO(inputs) struct inputs in = { 0 };
	int rc = 0;

	for (uint64_t from = first; rc == 0 && from <= last; from += group) {
		uint64_t to = last - from < group ? last : from + group - 1;

		rc = from == to ? add_batch(m, from, &in) :
				  add_group(m, from, to, &in);
	}
	return rc < 0 ? rc : compact_inputs(&in, as, out, ret_header);
}

int merge_batches(struct spool *s, uint64_t first, uint64_t last, int dirfd,
		  const struct ltx_compact_batch *as, struct sink *out,
		  struct ltx_header *ret_header)
{
	struct merging m = { .spool = s, .dirfd = dirfd };

	return compact_range(&m, first, last, as, out, ret_header);
}
