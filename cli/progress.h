#ifndef LITEBUCKET_CLI_PROGRESS_H
#define LITEBUCKET_CLI_PROGRESS_H

/*
 * A progress bar on a terminal
 * ============================
 *
 *	AUTO(progress) struct progress p = PROGRESS("restoring");
 *	progress_start(&p, quiet);
 *	... progress_update(done, total, &p) ...
 *
 * It is on stderr, only if that is a terminal, redrawn at most ten times a
 * second, and wiped out at the end.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct progress {
	const char *what;
	bool shown;
	int64_t started_ms, drawn_ms; /* monotonic */
};

#define PROGRESS(what_)         \
	{                       \
		.what = (what_) \
	}

void progress_start(struct progress *p, bool quiet);

/* Of type restorer_progress_fn; arg is the struct progress. */
void progress_update(uint64_t done, uint64_t total, void *arg);

/* Wipe the bar, so that an error or a result begins on a clean line. */
void progress_cleanup(struct progress *p);

/*
 * Pure: the line for done of total bytes (0: not yet known) after elapsed_ms,
 * at most width characters and at most size - 1 bytes.
 */
void progress_format(const char *what, uint64_t done, uint64_t total,
		     int64_t elapsed_ms, size_t width, char *ret, size_t size);

#endif
