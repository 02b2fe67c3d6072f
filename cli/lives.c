#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/boot.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"

#include "cli/lives.h"

#define FILE_NAME ".litebucket/lease"
#define TEMPORARY FILE_NAME ".tmp"

enum { FILE_MAX = 512 };

/* ------------------------------------------------------------- the place */

/* Which file this is, in which boot; as the first line has it. */
static int print_place(int fd, char *ret, size_t size)
{
	char boot[BOOT_ID_SIZE];
	struct stat st;

	if (fstat(fd, &st) < 0)
		return error_errno("looking at '%s'", FILE_NAME);
	boot_id(boot);
	(void)snprintf(ret, size, "%s %ju %ju", boot, (uintmax_t)st.st_dev,
		       (uintmax_t)st.st_ino);
	return 0;
}

/* A boot that is not known is another one each time. */
static bool is_here(int dirfd, const char *place)
{
	AUTO(fd) int fd = openat(dirfd, FILE_NAME, O_RDONLY | O_CLOEXEC);
	char here[FILE_MAX];

	return fd >= 0 && print_place(fd, here, sizeof(here)) == 0 &&
	       here[0] != ' ' && strcmp(here, place) == 0;
}

/* ---------------------------------------------------------------- reading */

static bool parse_line(const char *line, struct life *ret)
{
	struct life life = { .epoch = 0 };
	char state[8];
	int end = 0;

	if (sscanf(line, "%16[0-9a-f] %" SCNu32 " %7[a-z]%n", life.holder,
		   &life.epoch, state, &end) != 3 || line[end] != '\0' ||
	    strlen(life.holder) != LEASE_HOLDER_SIZE - 1)
		return false;
	life.closed = strcmp(state, "closed") == 0;
	if (!life.closed && strcmp(state, "open") != 0)
		return false;
	*ret = life;
	return true;
}

/* rest: the lines behind the first. */
static bool parse_lives(char *rest, struct life ret[LEASE_FORMERS])
{
	char *line;
	int n = 0;

	while ((line = strsep(&rest, "\n")) && *line)
		if (n == LEASE_FORMERS || !parse_line(line, &ret[n++]))
			return false;
	return n > 0 && line && !rest;
}

static void forget(struct life lives[LEASE_FORMERS])
{
	memset(lives, 0, sizeof(*lives) * LEASE_FORMERS);
}

static void take_text(int dirfd, char *text, struct life ret[LEASE_FORMERS],
		      uint32_t *ret_epoch)
{
	char *rest = text, *place = strsep(&rest, "\n");

	if (!rest || !parse_lives(rest, ret)) {
		forget(ret);
		log_warn("'" FILE_NAME "' does not say who held the lease "
			 "here, so one that is left has to expire", NULL);
		return;
	}
	for (int i = 0; i < LEASE_FORMERS; i++)
		if (ret[i].epoch > *ret_epoch)
			*ret_epoch = ret[i].epoch;
	if (!is_here(dirfd, place))
		forget(ret);
}

int lives_read(int dirfd, struct life ret[LEASE_FORMERS], uint32_t *ret_epoch)
{
	AUTO(buf) struct buf text = BUF_INIT(FILE_MAX);
	char nothing[] = "";
	int rc = io_read_file(dirfd, FILE_NAME, &text);

	forget(ret);
	*ret_epoch = 0;
	if (rc == -ENOENT)
		return 0;
	if (rc == 0)
		rc = buf_append(&text, "", 1);
	if (rc < 0 && rc != -EFBIG)
		return error_wrap(rc, "reading who held the lease here");
	take_text(dirfd, rc == 0 ? text.data : nothing, ret, ret_epoch);
	return 0;
}

/* ---------------------------------------------------------------- writing */

static int print_lives(int fd, const struct life lives[LEASE_FORMERS],
		       char *text, size_t size)
{
	int rc = print_place(fd, text, size);
	size_t n;

	if (rc < 0)
		return rc;
	n = strlen(text);
	n += (size_t)snprintf(text + n, size - n, "\n");
	for (int i = 0; i < LEASE_FORMERS; i++)
		if (lives[i].holder[0])
			n += (size_t)snprintf(text + n, size - n,
					      "%s %" PRIu32 " %s\n",
					      lives[i].holder, lives[i].epoch,
					      lives[i].closed ? "closed" :
								"open");
	return 0;
}

static int write_temporary(int dirfd, const struct life lives[LEASE_FORMERS])
{
	AUTO(fd) int fd = openat(dirfd, TEMPORARY,
				 O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
				 0600);
	char text[FILE_MAX];
	int rc;

	if (fd < 0)
		return error_errno("creating '%s'", TEMPORARY);
	rc = print_lives(fd, lives, text, sizeof(text));
	if (rc == 0)
		rc = io_pwrite(fd, text, strlen(text), 0);
	if (rc == 0 && fsync(fd) < 0)
		rc = error_errno("syncing '%s'", TEMPORARY);
	return rc;
}

int lives_write(int dirfd, const struct life lives[LEASE_FORMERS])
{
	int rc = io_make_dirs(dirfd, ".litebucket", 0700);

	if (rc == 0)
		rc = write_temporary(dirfd, lives);
	if (rc == 0 && renameat(dirfd, TEMPORARY, dirfd, FILE_NAME) < 0)
		rc = error_errno("renaming '%s'", TEMPORARY);
	if (rc == 0)
		rc = io_sync_parent(dirfd, FILE_NAME);
	return rc < 0 ? error_wrap(rc, "noting who holds the lease here") : 0;
}
