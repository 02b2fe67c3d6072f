#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/report.h"

#include "cli/progress.h"

enum {
	REDRAW_MS = 100,
	BAR_MAX = 40,
	BAR_MIN = 5,
};

void progress_start(struct progress *p, bool quiet)
{
	const char *term = getenv("TERM");

	p->started_ms = clock_monotonic_ms();
	p->shown = !quiet && isatty(STDERR_FILENO) && term &&
		   strcmp(term, "dumb") != 0;
}

/* "[#####.....] " if there is room for one; returns its length. */
static size_t format_bar(double share, size_t room, char *ret)
{
	size_t cells = room < BAR_MAX + 3 ? room - 3 : BAR_MAX;

	if (room < BAR_MIN + 3)
		return 0;
	ret[0] = '[';
	for (size_t i = 0; i < cells; i++)
		ret[1 + i] = (double)i < share * (double)cells ? '#' : '.';
	memcpy(ret + 1 + cells, "] ", 2);
	return cells + 3;
}

/* "12.0 MiB of 30.1 MiB, 3.0 MiB/s" */
static void format_amounts(uint64_t done, uint64_t total, int64_t elapsed_ms,
			   char *ret, size_t size)
{
	char now[REPORT_SIZE_TEXT], all[REPORT_SIZE_TEXT];
	char speed[REPORT_SIZE_TEXT];
	double seconds = (double)(elapsed_ms > 0 ? elapsed_ms : 1) / 1000;

	report_size(done, now);
	report_size(total, all);
	report_size((uint64_t)((double)done / seconds), speed);
	if (total)
		(void)snprintf(ret, size, "%s of %s, %s/s", now, all, speed);
	else
		(void)snprintf(ret, size, "%s, %s/s", now, speed);
}

void progress_format(const char *what, uint64_t done, uint64_t total,
		     int64_t elapsed_ms, size_t width, char *ret, size_t size)
{
	/* What is announced may be an estimate; more than all is never shown. */
	uint64_t known = total && done > total ? total : done;
	double share = total ? (double)known / (double)total : 0;
	char amounts[64], head[64], bar[BAR_MAX + 4] = "";
	size_t used;

	format_amounts(known, total, elapsed_ms, amounts, sizeof(amounts));
	if (total)
		(void)snprintf(head, sizeof(head), "%s %3d%% ", what,
			       (int)(share * 100));
	else
		(void)snprintf(head, sizeof(head), "%s ", what);
	used = strlen(head) + strlen(amounts);
	if (total && used < width)
		bar[format_bar(share, width - used, bar)] = '\0';
	(void)snprintf(ret, size < width + 1 ? size : width + 1, "%s%s%s", head,
		       bar, amounts);
}

static size_t terminal_width(void)
{
	struct winsize window;

	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &window) < 0 || window.ws_col < 20)
		return 79;
	return window.ws_col - 1u;
}

void progress_update(uint64_t done, uint64_t total, void *arg)
{
	struct progress *p = arg;
	int64_t now = clock_monotonic_ms();
	char line[256];

	if (!p->shown || (p->drawn_ms && now - p->drawn_ms < REDRAW_MS))
		return;
	p->drawn_ms = now;
	progress_format(p->what, done, total, now - p->started_ms,
			terminal_width(), line, sizeof(line));
	(void)fprintf(stderr, "\r%s\033[K", line);
	(void)fflush(stderr);
}

void progress_cleanup(struct progress *p)
{
	if (p->drawn_ms)
		(void)fputs("\r\033[K", stderr);
	p->drawn_ms = 0;
}
