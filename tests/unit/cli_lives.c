/* Who held the lease in a directory: what is noted, and what is not believed. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"

#include "cli/lives.h"

struct world {
	char dir[64];
	int dirfd;
};

static int set_up(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	log_set_level(LOG_ERROR);
	strcpy(w->dir, "/tmp/litebucket-lives.XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	w->dirfd = open(w->dir, O_RDONLY | O_DIRECTORY);
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;
	char command[128];

	(void)close(w->dirfd);
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", w->dir);
	(void)!system(command);
	free(w);
	return 0;
}

static const struct life one[LEASE_FORMERS] = {
	{ .holder = "0123456789abcdef", .epoch = 8, .closed = true },
};

/* What comes behind the first line of the file, which stays the same file. */
static void overwrite(struct world *w, const char *lines)
{
	char text[4096];
	int fd;
	ssize_t n;

	assert_int_equal(lives_write(w->dirfd, one), 0);
	fd = openat(w->dirfd, ".litebucket/lease", O_RDWR);
	n = read(fd, text, sizeof(text) - 1);
	assert_true(n > 0);
	text[n] = '\0';
	n = strchr(text, '\n') + 1 - text;
	(void)snprintf(text + n, sizeof(text) - (size_t)n, "%s", lines);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(pwrite(fd, text, strlen(text), 0), strlen(text));
	(void)close(fd);
}

static void read_lives(struct world *w, struct life ret[LEASE_FORMERS],
		       uint32_t epoch)
{
	uint32_t found;

	assert_int_equal(lives_read(w->dirfd, ret, &found), 0);
	assert_int_equal(found, epoch);
}

static void a_new_directory_has_had_none(void **state)
{
	struct world *w = *state;
	struct life lives[LEASE_FORMERS];

	read_lives(w, lives, 0);
	assert_string_equal(lives[0].holder, "");
	assert_string_equal(lives[1].holder, "");
}

static void what_is_noted_is_read_again(void **state)
{
	static const struct life noted[LEASE_FORMERS] = {
		{ .holder = "0123456789abcdef", .epoch = UINT32_MAX },
		{ .holder = "fedcba9876543210", .epoch = 7, .closed = true },
	};
	struct world *w = *state;
	struct life lives[LEASE_FORMERS];

	assert_int_equal(lives_write(w->dirfd, noted), 0);
	read_lives(w, lives, UINT32_MAX);
	for (int i = 0; i < LEASE_FORMERS; i++) {
		assert_string_equal(lives[i].holder, noted[i].holder);
		assert_int_equal(lives[i].epoch, noted[i].epoch);
		assert_int_equal(lives[i].closed, noted[i].closed);
	}
	assert_int_equal(lives_write(w->dirfd, one), 0);
	read_lives(w, lives, 8);
	assert_string_equal(lives[0].holder, one[0].holder);
	assert_string_equal(lives[1].holder, "");
}

static void what_cannot_be_read_is_nobody(void **state)
{
#define LINE "0123456789abcdef 7 closed\n"
	static const char *const bad[] = {
		"nonsense\n",
		"0123456789abcdef 7 closed",	/* no end of line */
		"0123456789abcde 7 closed\n",	/* too short */
		"0123456789abcdefa 7 closed\n", /* too long */
		"0123456789ABCDEF 7 closed\n",
		"0123456789abcdef x closed\n",
		"0123456789abcdef 7 shut\n",
		"0123456789abcdef 7 closed x\n",
		"0123456789abcdef 7 closed\n\n",
		(LINE LINE LINE), /* one too many */
		"",
	};
	struct world *w = *state;
	struct life lives[LEASE_FORMERS];
	char large[2000];

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		overwrite(w, bad[i]);
		read_lives(w, lives, 0);
		if (lives[0].holder[0] || lives[1].holder[0])
			fail_msg("believed: %s", bad[i]);
	}
	memset(large, '0', sizeof(large) - 1);
	large[sizeof(large) - 1] = '\0';
	overwrite(w, large);
	read_lives(w, lives, 0);
	assert_string_equal(lives[0].holder, "");
}

/* The original may be alive, or have sent what the copy does not have. */
static void a_copy_has_had_none_but_knows_the_epoch(void **state)
{
	struct world *w = *state;
	struct life lives[LEASE_FORMERS];
	char command[300];

	assert_int_equal(lives_write(w->dirfd, one), 0);
	(void)snprintf(command, sizeof(command),
		       "cd '%s/.litebucket' && cp -p lease copy && "
		       "mv copy lease", w->dir);
	assert_int_equal(system(command), 0);
	read_lives(w, lives, 8);
	assert_string_equal(lives[0].holder, "");
}

static void after_another_boot_there_were_none(void **state)
{
	struct world *w = *state;
	struct life lives[LEASE_FORMERS];

#ifndef LITEBUCKET_FAILPOINTS
	skip();
#endif
	(void)setenv("LITEBUCKET_BOOT", "a", 1);
	assert_int_equal(lives_write(w->dirfd, one), 0);
	read_lives(w, lives, 8);
	assert_string_equal(lives[0].holder, one[0].holder);
	(void)setenv("LITEBUCKET_BOOT", "b", 1);
	read_lives(w, lives, 8);
	assert_string_equal(lives[0].holder, "");
	/* It is not known. */
	(void)setenv("LITEBUCKET_BOOT", "", 1);
	assert_int_equal(lives_write(w->dirfd, one), 0);
	read_lives(w, lives, 8);
	assert_string_equal(lives[0].holder, "");
	(void)unsetenv("LITEBUCKET_BOOT");
}

int main(void)
{
#define LIVES_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		LIVES_TEST(a_new_directory_has_had_none),
		LIVES_TEST(what_is_noted_is_read_again),
		LIVES_TEST(what_cannot_be_read_is_nobody),
		LIVES_TEST(a_copy_has_had_none_but_knows_the_epoch),
		LIVES_TEST(after_another_boot_there_were_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
