/*
 * The file that a restore makes: what it replaces, what it refuses, and that
 * nothing lies around afterwards.
 */
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "restorer_world.h"

static void make_one(struct world *w)
{
	world_commit(w, 5, 1, 5);
	world_put_log(w, 1, 1);
}

static const char *side(const struct world *w, const char *suffix)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s%s", w->output, suffix);
	return path;
}

static void expect_text(const char *path, const char *text)
{
	AUTO(buf) struct buf file = BUF_INIT(1 << 20);

	world_read(path, &file);
	assert_string_equal(file.data, text);
}

static void what_exists_is_not_replaced_without_force(void **state)
{
	static const char *const sides[] = { "", "-wal", "-shm", "-journal" };
	struct world *w = *state;

	make_one(w);
	for (size_t i = 0; i < 4; i++) {
		char name[32], says[64];

		snprintf(name, sizeof(name), "app.db%s", sides[i]);
		snprintf(says, sizeof(says), "app.db%s' exists; use --force",
			 sides[i]);
		world_write(side(w, sides[i]), "old");
		assert_int_equal(world_restore(w, 0), -EEXIST);
		world_says(says);
		world_expect_names(w, name);
		expect_text(side(w, sides[i]), "old");
		assert_int_equal(unlink(side(w, sides[i])), 0);
	}
}

static void nothing_is_asked_of_the_bucket_for_what_cannot_be(void **state)
{
	struct world *w = *state;

	make_one(w);
	world_write(w->output, "old");
	assert_int_equal(world_restore(w, 0), -EEXIST);
	assert_int_equal(atomic_load(&w->spy.requests), 0);
}

static void force_replaces_the_file_and_what_belongs_to_it(void **state)
{
	struct world *w = *state;

	make_one(w);
	world_write(w->output, "old");
	world_write(side(w, "-wal"), "old wal");
	world_write(side(w, "-shm"), "old shm");
	world_write(side(w, "-journal"), "old journal");
	w->options.force = true;
	assert_int_equal(world_restore(w, 0), 0);
	world_expect(w, 1);
}

static void force_needs_nothing_to_replace(void **state)
{
	struct world *w = *state;

	make_one(w);
	w->options.force = true;
	world_check_latest(w, 1);
	/* A journal alone would be played into the new file. */
	world_write(side(w, "-journal"), "old journal");
	assert_int_equal(world_restore(w, 0), 0);
	world_expect(w, 1);
}

static void a_forced_restore_that_fails_changes_nothing(void **state)
{
	struct world *w = *state;

	make_one(w);
	world_commit(w, 5, 1, 1);
	world_put_bytes(w, 0, 2, 2, "garbage", 7);
	world_write(w->output, "old");
	world_write(side(w, "-wal"), "old wal");
	w->options.force = true;
	assert_int_equal(world_restore(w, 0), -ERR_CORRUPT);
	world_expect_names(w, "app.db app.db-wal");
	expect_text(w->output, "old");
	expect_text(side(w, "-wal"), "old wal");
}

/* When the rename itself fails, the journals go back to where they were. */
static void replace_by_directory(const char *key, void *arg)
{
	struct world *w = arg;

	assert_int_equal(unlink(w->output), 0);
	assert_int_equal(mkdir(w->output, 0755), 0);
	world_write(side(w, "-wal"), "old wal");
	world_write(side(w, "-journal"), "old journal");
}

static void what_was_set_aside_comes_back_when_the_rename_fails(void **state)
{
	struct world *w = *state;

	make_one(w);
	world_write(w->output, "old");
	w->options.force = true;
	w->spy.arg = w;
	w->spy.before_get = replace_by_directory;
	assert_true(world_restore(w, 0) < 0);
	world_expect_names(w, "app.db app.db-journal app.db-wal");
	expect_text(side(w, "-wal"), "old wal");
	expect_text(side(w, "-journal"), "old journal");
}

static void appear_before_get(const char *key, void *arg)
{
	world_write(((struct world *)arg)->output, "newcomer");
}

static void what_appears_meanwhile_is_not_replaced(void **state)
{
	struct world *w = *state;

	make_one(w);
	w->spy.arg = w;
	w->spy.before_get = appear_before_get;
	assert_int_equal(world_restore(w, 0), -EEXIST);
	world_expect_names(w, "app.db");
	expect_text(w->output, "newcomer");
}

static void a_new_file_is_private_and_an_old_one_keeps_its_mode(void **state)
{
	struct world *w = *state;
	mode_t mask = umask(0);
	struct stat st;

	make_one(w);
	assert_int_equal(world_restore(w, 0), 0);
	assert_int_equal(stat(w->output, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);

	assert_int_equal(chmod(w->output, 0664), 0);
	if (geteuid() == 0)
		assert_int_equal(chown(w->output, 4321, 1234), 0);
	w->options.force = true;
	assert_int_equal(world_restore(w, 0), 0);
	assert_int_equal(stat(w->output, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0664);
	if (geteuid() == 0) {
		assert_int_equal(st.st_uid, 4321);
		assert_int_equal(st.st_gid, 1234);
	}
	(void)umask(mask);
}

static void what_is_no_file_is_never_replaced(void **state)
{
	struct world *w = *state;
	char target[128];

	make_one(w);
	w->options.force = true;
	assert_int_equal(mkdir(w->output, 0755), 0);
	assert_int_equal(world_restore(w, 0), -EEXIST);
	world_says("is not a regular file");
	assert_int_equal(rmdir(w->output), 0);

	snprintf(target, sizeof(target), "%s/precious", w->dir);
	world_write(target, "old");
	assert_int_equal(symlink(target, w->output), 0);
	assert_int_equal(world_restore(w, 0), -EEXIST);
	expect_text(target, "old");
}

static void names_that_cannot_be_are_refused(void **state)
{
	static const struct {
		const char *path;
		int rc;
	} cases[] = {
		{ "", -EISDIR },
		{ "/", -EISDIR },
		{ "/tmp/", -EISDIR },
		{ "/tmp/..", -EISDIR },
		{ "/nonexistent-litebucket/app.db", -ENOTDIR },
		{ "/dev/null/app.db", -ENOTDIR },
	};
	struct world *w = *state;
	char name[300];

	make_one(w);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		w->options.output = cases[i].path;
		assert_int_equal(world_restore(w, 0), cases[i].rc);
		assert_non_null(strstr(error_message(), "'"));
	}
	memset(name, 'x', sizeof(name));
	name[299] = '\0';
	w->options.output = name;
	assert_int_equal(world_restore(w, 0), -ENAMETOOLONG);
}

/* The longest names there can be leave no room for what is added to them. */
static void the_longest_names_work(void **state)
{
	static const int lengths[] = { 255, 251, 247 };
	struct world *w = *state;
	char path[400], journal[400];
	int n = snprintf(path, sizeof(path), "%s/out/", w->dir);

	make_one(w);
	w->options.output = path;
	memset(path + n, 'x', 255);
	for (size_t i = 0; i < 3; i++) {
		path[n + lengths[i]] = '\0';
		w->options.force = false;
		assert_int_equal(world_restore(w, 0), 0);
		snprintf(journal, sizeof(journal), "%s-journal", path);
		if (lengths[i] == 247)
			world_write(journal, "old journal");
		w->options.force = true;
		assert_int_equal(world_restore(w, 0), 0);
		world_expect_names(w, path + n);
		assert_int_equal(unlink(path), 0);
	}
}

static void a_relative_path_is_below_the_working_directory(void **state)
{
	struct world *w = *state;
	AUTO(fd) int here = open(".", O_RDONLY | O_DIRECTORY);
	char dir[96];

	make_one(w);
	snprintf(dir, sizeof(dir), "%s/out", w->dir);
	assert_int_equal(chdir(dir), 0);
	w->options.output = "app.db";
	assert_int_equal(world_restore(w, 0), 0);
	assert_int_equal(fchdir(here), 0);
	world_expect(w, 1);
}

/* In a child, which is nobody and whose exit status says what came out. */
static int restore_as_nobody(struct world *w)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		if (geteuid() == 0 && setuid(65534) < 0)
			_exit(100);
		_exit(-world_restore(w, 0) & 0x7f);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return -WEXITSTATUS(status);
}

static void a_directory_without_permission_is_refused(void **state)
{
	struct world *w = *state;
	char dir[96];

	make_one(w);
	snprintf(dir, sizeof(dir), "%s/out", w->dir);
	assert_int_equal(chmod(w->dir, 0755), 0);
	assert_int_equal(chmod(dir, 0555), 0);
	assert_int_equal(restore_as_nobody(w), -EACCES);
	world_expect_names(w, "");
}

static void somebody_elses_file_is_not_replaced(void **state)
{
	struct world *w = *state;
	char dir[96];

	if (geteuid() != 0)
		skip();
	make_one(w);
	snprintf(dir, sizeof(dir), "%s/out", w->dir);
	assert_int_equal(chmod(w->dir, 0755), 0);
	assert_int_equal(chmod(dir, 0777), 0);
	world_write(w->output, "root's");
	w->options.force = true;
	assert_int_equal(restore_as_nobody(w), -EPERM);
	world_expect_names(w, "app.db");
	expect_text(w->output, "root's");
}

/* A limit on the size of files fails writes in the middle, as a full disk. */
static void a_write_that_fails_leaves_nothing(void **state)
{
	struct world *w = *state;
	struct rlimit old, limit;
	void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);

	world_commit(w, 9000, 1, 9000);
	world_put_log(w, 1, 1);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	/* Below the fetched file, below the database, at its last pages. */
	for (rlim_t size = 1 << 20; size < 9000 * 512; size += 1 << 20) {
		int rc;

		limit = (struct rlimit){ size, old.rlim_max };
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
		rc = world_restore(w, 0);
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
		assert_int_equal(rc, -EFBIG);
		world_says("File too large");
		world_expect_names(w, "");
	}
	(void)signal(SIGXFSZ, handler);
	world_check_latest(w, 1);
}

static void a_large_file_passes_through_the_disk(void **state)
{
	struct world *w = *state;

	world_commit(w, 9000, 1, 9000);
	world_commit(w, 9000, 1, 5000);
	world_commit(w, 9001, 4000, 4500);
	world_put_log(w, 1, 3);
	world_check_latest(w, 3);
	w->options.parallel = 1;
	world_check_latest(w, 3);
}

struct seen {
	uint64_t done, total;
	unsigned calls;
};

static void note_progress(uint64_t done, uint64_t total, void *arg)
{
	struct seen *seen = arg;

	assert_true(done >= seen->done);
	assert_true(done <= total);
	seen->done = done;
	seen->total = total;
	seen->calls++;
}

static void progress_only_grows_and_ends_at_the_total(void **state)
{
	struct world *w = *state;
	struct seen seen = { 0 };

	for (int i = 0; i < 20; i++)
		world_commit(w, 50, 1, 30);
	world_put_log(w, 1, 20);
	w->options.progress = note_progress;
	w->options.progress_arg = &seen;
	assert_int_equal(world_restore(w, 0), 0);
	assert_int_equal(seen.done, seen.total);
	assert_int_equal(seen.total, w->result.bytes_fetched);
	assert_true(seen.calls > 2);
}

static volatile sig_atomic_t cancel_now;
static unsigned calls_until_cancel;

static void cancel_in_progress(uint64_t done, uint64_t total, void *arg)
{
	if (calls_until_cancel-- == 0)
		cancel_now = 1;
}

/* Progress is reported before the first file and after each of the 20. */
static void a_cancelled_restore_leaves_nothing(void **state)
{
	struct world *w = *state;

	for (int i = 0; i < 20; i++)
		world_commit(w, 50, 1, 30);
	world_put_log(w, 1, 20);
	w->options.cancel = &cancel_now;
	w->options.progress = cancel_in_progress;
	for (unsigned calls = 0; calls <= 20; calls++) {
		calls_until_cancel = calls;
		cancel_now = 0;
		world_refuse(w, 0, -ECANCELED, "stopped");
	}
	cancel_now = 0;
	calls_until_cancel = UINT32_MAX;
	world_check_latest(w, 20);
}

static void cancel_at_total(uint64_t done, uint64_t total, void *arg)
{
	cancel_now = done == total;
}

/* When all is fetched but not yet in place, it is not too late. */
static void a_restore_can_be_cancelled_until_it_is_in_place(void **state)
{
	struct world *w = *state;

	make_one(w);
	cancel_now = 0;
	w->options.cancel = &cancel_now;
	w->options.progress = cancel_at_total;
	world_refuse(w, 0, -ECANCELED, "stopped");
}

static void interrupt_before_get(const char *key, void *arg)
{
	sigset_t blocked;

	(void)pthread_sigmask(SIG_SETMASK, NULL, &blocked);
	if (!sigismember(&blocked, SIGUSR1))
		*(atomic_bool *)arg = true;
	if (strstr(key, "0000/000000000000000a"))
		(void)kill(getpid(), SIGUSR1);
}

static void note_signal(int signal)
{
	cancel_now = 1;
}

static void a_signal_while_files_are_fetched_stops_the_restore(void **state)
{
	struct world *w = *state;
	void (*handler)(int) = signal(SIGUSR1, note_signal);
	atomic_bool open_to_signals = false;

	for (int i = 0; i < 60; i++)
		world_commit(w, 50, 1, 30);
	world_put_log(w, 1, 60);
	w->options.cancel = &cancel_now;
	w->spy.before_get = interrupt_before_get;
	w->spy.arg = &open_to_signals;
	cancel_now = 0;
	world_refuse(w, 0, -ECANCELED, "stopped");
	assert_false(open_to_signals);
	(void)signal(SIGUSR1, handler);
}

#define WORLD_TEST(f) cmocka_unit_test_setup_teardown(f, world_setup, world_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD_TEST(what_exists_is_not_replaced_without_force),
		WORLD_TEST(nothing_is_asked_of_the_bucket_for_what_cannot_be),
		WORLD_TEST(force_replaces_the_file_and_what_belongs_to_it),
		WORLD_TEST(force_needs_nothing_to_replace),
		WORLD_TEST(a_forced_restore_that_fails_changes_nothing),
		WORLD_TEST(
			what_was_set_aside_comes_back_when_the_rename_fails),
		WORLD_TEST(what_appears_meanwhile_is_not_replaced),
		WORLD_TEST(a_new_file_is_private_and_an_old_one_keeps_its_mode),
		WORLD_TEST(what_is_no_file_is_never_replaced),
		WORLD_TEST(names_that_cannot_be_are_refused),
		WORLD_TEST(the_longest_names_work),
		WORLD_TEST(a_relative_path_is_below_the_working_directory),
		WORLD_TEST(a_directory_without_permission_is_refused),
		WORLD_TEST(somebody_elses_file_is_not_replaced),
		WORLD_TEST(a_write_that_fails_leaves_nothing),
		WORLD_TEST(a_large_file_passes_through_the_disk),
		WORLD_TEST(progress_only_grows_and_ends_at_the_total),
		WORLD_TEST(a_cancelled_restore_leaves_nothing),
		WORLD_TEST(a_restore_can_be_cancelled_until_it_is_in_place),
		WORLD_TEST(
			a_signal_while_files_are_fetched_stops_the_restore),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
