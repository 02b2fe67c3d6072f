#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/ltx_files.h"

#include "ltx/name.h"
#include "ltx/spool.h"

/* Each test has a directory of its own. */
static char root[64];
static int root_fd = -1;

static int make_root(void **state)
{
	strcpy(root, "/tmp/ltx-spool-XXXXXX");
	if (!mkdtemp(root))
		return -1;
	root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return root_fd < 0 ? -1 : 0;
}

static int remove_root(void **state)
{
	char command[128];

	(void)close(root_fd);
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", root);
	return system(command);
}

static struct spool *open_spool(void)
{
	struct spool *s = NULL;

	if (spool_open(root_fd, "state/spool", &s) < 0)
		fail_msg("%s", error_message());
	return s;
}

/* Returns the descriptor's number, which is closed. */
static int publish_batch(struct spool *s, uint64_t txid, const char *text)
{
	int fd = -1;

	assert_int_equal(spool_begin(s, txid, &fd), 0);
	assert_int_equal(io_pwrite(fd, text, strlen(text), 0), 0);
	assert_int_equal(spool_publish(s, txid, fd), 0);
	return fd;
}

static void write_batch(struct spool *s, uint64_t txid, const char *text)
{
	assert_int_equal(fcntl(publish_batch(s, txid, text), F_GETFD), -1);
}

static void check_batch(struct spool *s, uint64_t txid, const char *text)
{
	AUTO(fd) int fd = -1;
	char data[64] = "";

	assert_int_equal(spool_open_batch(s, txid, &fd), 0);
	assert_int_equal(io_pread(fd, data, sizeof(data) - 1, 0),
			 strlen(text));
	assert_string_equal(data, text);
	assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
}

static void check_list(struct spool *s, const uint64_t *expected, size_t n)
{
	AUTO(mem) uint64_t *txids = NULL;
	size_t found = 99;

	assert_int_equal(spool_list(s, &txids, &found), 0);
	assert_int_equal(found, n);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(txids[i], expected[i]);
}

static bool exists(const char *path)
{
	return faccessat(root_fd, path, F_OK, 0) == 0;
}

static void touch(const char *path)
{
	AUTO(fd) int fd = openat(root_fd, path, O_WRONLY | O_CREAT, 0600);

	assert_true(fd >= 0);
}

static int count_names(const char *path)
{
	int fd = openat(root_fd, path, O_RDONLY | O_DIRECTORY);
	DIR *dir = fdopendir(fd);
	int n = -2; /* . and .. */

	while (readdir(dir))
		n++;
	(void)closedir(dir);
	return n;
}

static void an_empty_spool_has_nothing(void **state)
{
	AUTO(spool) struct spool *s = open_spool();
	uint64_t first = 9, last = 9, bytes = 9;
	size_t n = 9;

	check_list(s, NULL, 0);
	assert_int_equal(spool_range(s, &first, &last), 0);
	assert_int_equal(first, 0);
	assert_int_equal(last, 0);
	assert_int_equal(spool_size(s, &bytes, &n), 0);
	assert_int_equal(bytes, 0);
	assert_int_equal(n, 0);
}

static void batches_are_listed_by_their_txids(void **state)
{
	static const uint64_t order[] = { 2, 9, 10, 0x100, 0xa000000000000000 };
	AUTO(spool) struct spool *s = open_spool();
	uint64_t first, last, bytes;
	size_t n;

	write_batch(s, 0xa000000000000000, "fifth");
	write_batch(s, 10, "third");
	write_batch(s, 2, "first");
	write_batch(s, 0x100, "");
	write_batch(s, 9, "second");
	check_list(s, order, 5);
	assert_int_equal(spool_range(s, &first, &last), 0);
	assert_int_equal(first, 2);
	assert_int_equal(last, 0xa000000000000000);
	assert_int_equal(spool_size(s, &bytes, &n), 0);
	assert_int_equal(bytes, 21);
	assert_int_equal(n, 5);
	check_batch(s, 9, "second");
	assert_int_equal(spool_remove(s, 2), 0);
	check_list(s, order + 1, 4);
}

static void a_batch_has_the_name_of_its_object(void **state)
{
	AUTO(spool) struct spool *s = open_spool();
	struct stat st;

	write_batch(s, 0x2a, "x");
	assert_int_equal(fstatat(root_fd,
				 "state/spool/"
				 "000000000000002a-000000000000002a.ltx",
				 &st, 0),
			 0);
	/* It holds what may be a database of mode 0600. */
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(fstatat(root_fd, "state/spool", &st, 0), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
}

static void a_batch_is_invisible_until_it_is_published(void **state)
{
	AUTO(spool) struct spool *s = open_spool();
	uint64_t one = 1;
	int fd, other;

	assert_int_equal(spool_begin(s, 1, &fd), 0);
	check_list(s, NULL, 0);
	assert_int_equal(spool_open_batch(s, 1, &other), -ENOENT);
	assert_int_equal(spool_publish(s, 1, fd), 0);
	check_list(s, &one, 1);
	assert_int_equal(count_names("state/spool"), 1);
}

static void a_batch_begun_again_is_a_new_file(void **state)
{
	AUTO(spool) struct spool *s = open_spool();
	AUTO(fd) int old = -1;
	int fd;

	assert_int_equal(spool_begin(s, 1, &old), 0);
	assert_int_equal(io_pwrite(old, "old and long", 12, 0), 0);
	assert_int_equal(spool_begin(s, 1, &fd), 0);
	assert_int_equal(io_pwrite(fd, "new", 3, 0), 0);
	assert_int_equal(spool_publish(s, 1, fd), 0);
	assert_int_equal(io_pwrite(old, "old again", 9, 0), 0);
	check_batch(s, 1, "new");
}

static void a_published_batch_is_never_replaced(void **state)
{
	AUTO(spool) struct spool *s = open_spool();
	int fd;

	write_batch(s, 7, "the first");
	assert_int_equal(spool_begin(s, 7, &fd), 0);
	assert_int_equal(io_pwrite(fd, "the second", 10, 0), 0);
	assert_int_equal(spool_publish(s, 7, fd), -EEXIST);
	assert_message("is there already");
	assert_int_equal(fcntl(fd, F_GETFD), -1);
	check_batch(s, 7, "the first");
	assert_int_equal(count_names("state/spool"), 1);
}

static void a_finished_file_can_be_taken_in(void **state)
{
	AUTO(spool) struct spool *s = open_spool();
	uint64_t seven = 7;

	assert_int_equal(io_write_atomically(root_fd, "elsewhere", "x", 1), 0);
	assert_int_equal(spool_adopt(s, root_fd, "elsewhere", 7), 0);
	assert_false(exists("elsewhere"));
	check_list(s, &seven, 1);
	assert_int_equal(io_write_atomically(root_fd, "elsewhere", "y", 1), 0);
	assert_int_equal(spool_adopt(s, root_fd, "elsewhere", 7), -EEXIST);
	check_batch(s, 7, "x");
	assert_true(exists("elsewhere"));
}

static void taking_in_goes_on_where_a_kill_has_ended_it(void **state)
{
	AUTO(spool) struct spool *s = open_spool();
	char name[128];

	/* As a file system without renameat2(2) does it: link, then unlink. */
	(void)snprintf(name, sizeof(name), "state/spool/%016x-%016x.ltx", 7, 7);
	assert_int_equal(io_write_atomically(root_fd, "elsewhere", "x", 1), 0);
	assert_int_equal(linkat(root_fd, "elsewhere", root_fd, name, 0), 0);
	assert_int_equal(spool_adopt(s, root_fd, "elsewhere", 7), 0);
	assert_false(exists("elsewhere"));
	check_batch(s, 7, "x");
}

static void what_is_not_there_is_not_there(void **state)
{
	AUTO(spool) struct spool *s = open_spool();
	int fd = 77;

	assert_int_equal(spool_open_batch(s, 3, &fd), -ENOENT);
	assert_message("0000000000000003-0000000000000003.ltx");
	assert_int_equal(fd, 77);
	write_batch(s, 3, "x");
	assert_int_equal(spool_remove(s, 3), 0);
	assert_int_equal(spool_remove(s, 3), 0);
	check_list(s, NULL, 0);
}

static void what_a_crash_left_is_removed_and_nothing_else(void **state)
{
	uint64_t one = 1;
	int fd;

	spool_free(open_spool());
	touch("state/spool/0000000000000001-0000000000000001.ltx");
	touch("state/spool/0000000000000002-0000000000000002.ltx.tmp");
	touch("state/spool/0000000000000002-0000000000000003.ltx");
	touch("state/spool/0000000000000002-0000000000000002.ltx.bak");
	touch("state/spool/notes.tmp");
	AUTO(spool) struct spool *s = open_spool();
	assert_false(exists(
		"state/spool/0000000000000002-0000000000000002.ltx.tmp"));
	check_list(s, &one, 1);
	assert_int_equal(count_names("state/spool"), 4);
	/* An open spool's own begun batch goes with the next opening. */
	assert_int_equal(spool_begin(s, 5, &fd), 0);
	(void)close(fd);
	assert_int_equal(count_names("state/spool"), 5);
	spool_free(open_spool());
	assert_int_equal(count_names("state/spool"), 4);
}

static void a_spool_that_cannot_be_made_says_where(void **state)
{
	struct spool *s = NULL;

	touch("state");
	assert_int_equal(spool_open(root_fd, "state/spool", &s), -ENOTDIR);
	assert_message("state/spool");
	assert_null(s);
}

#ifdef LITEBUCKET_FAILPOINTS
/* Publish batch 1 in a process that is killed at this point. */
static void publish_and_die(const char *failpoint)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		struct spool *s = open_spool();
		int fd;

		(void)setenv("LITEBUCKET_FAILPOINT", failpoint, 1);
		if (spool_begin(s, 1, &fd) == 0 &&
		    io_pwrite(fd, "whole", 5, 0) == 0)
			(void)spool_publish(s, 1, fd);
		_exit(1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void a_kill_leaves_the_whole_batch_or_none(void **state)
{
	uint64_t one = 1;

	publish_and_die("spool-written:kill");
	assert_int_equal(count_names("state/spool"), 1);
	AUTO(spool) struct spool *before = open_spool();
	check_list(before, NULL, 0);
	assert_int_equal(count_names("state/spool"), 0);

	publish_and_die("spool-renamed:kill");
	AUTO(spool) struct spool *after = open_spool();
	check_list(after, &one, 1);
	check_batch(after, 1, "whole");
}
#endif

enum { MANY = 1500 };

/* Takes each batch away the moment that it can be seen. */
static void *take_all(void *arg)
{
	struct spool *s = arg;

	for (uint64_t txid = 1; txid <= MANY;) {
		AUTO(fd) int fd = -1;

		if (spool_claim(s, txid, &fd) == 0)
			assert_int_equal(spool_remove(s, txid++), 0);
	}
	return NULL;
}

static void what_is_taken_away_at_once_was_counted(void **state)
{
	struct spool_budget budget = { .max = 1000 };
	AUTO(spool) struct spool *s = open_spool();
	pthread_t taker;

	assert_int_equal(spool_join(s, &budget), 0);
	assert_int_equal(pthread_create(&taker, NULL, take_all, s), 0);
	for (uint64_t txid = 1; txid <= MANY; txid++)
		(void)publish_batch(s, txid, "some bytes");
	assert_int_equal(pthread_join(taker, NULL), 0);
	assert_int_equal(atomic_load(&budget.used), 0);
}

#define WITH_ROOT(test) \
	cmocka_unit_test_setup_teardown(test, make_root, remove_root)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		WITH_ROOT(an_empty_spool_has_nothing),
		WITH_ROOT(batches_are_listed_by_their_txids),
		WITH_ROOT(a_batch_has_the_name_of_its_object),
		WITH_ROOT(a_batch_is_invisible_until_it_is_published),
		WITH_ROOT(a_batch_begun_again_is_a_new_file),
		WITH_ROOT(a_published_batch_is_never_replaced),
		WITH_ROOT(a_finished_file_can_be_taken_in),
		WITH_ROOT(taking_in_goes_on_where_a_kill_has_ended_it),
		WITH_ROOT(what_is_not_there_is_not_there),
		WITH_ROOT(what_a_crash_left_is_removed_and_nothing_else),
		WITH_ROOT(a_spool_that_cannot_be_made_says_where),
		WITH_ROOT(what_is_taken_away_at_once_was_counted),
#ifdef LITEBUCKET_FAILPOINTS
		WITH_ROOT(a_kill_leaves_the_whole_batch_or_none),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
