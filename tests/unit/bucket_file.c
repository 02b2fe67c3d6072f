/*
 * The file driver: the contract, and what only a directory has: Litestream's
 * layout, other people's files, links, processes that race or die, full disks.
 */
#include "tests/unit/bucket_contract.h"

#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "bucket/file.h"
#include "bucket/file_path.h"
#include "bucket/url.h"

#define SLOT1 "0000000000000001-0000000000000001.ltx"
#define SLOT2 "0000000000000002-0000000000000002.ltx"

/* Everything is made below here; each test has a directory of its own. */
static char scratch[] = "/tmp/bucket-file-XXXXXX";
static char root[64];

static int make_scratch(void **state)
{
	return mkdtemp(scratch) ? 0 : -1;
}

static int remove_scratch(void **state)
{
	char command[64];

	(void)snprintf(command, sizeof(command), "rm -rf '%s'", scratch);
	return system(command);
}

/* The driver alone, without the wrapper that tries again. */
static struct bucket *open_at(const char *path)
{
	struct bucket_url url = { .path = (char *)path, .text = (char *)path };
	struct bucket *b;

	return bucket_file_new(&url, true, &b) == 0 ? b : NULL;
}

static struct bucket *contract_open(void)
{
	static int n;

	(void)snprintf(root, sizeof(root), "%s/%d", scratch, n++);
	return mkdir(root, 0700) == 0 ? open_at(root) : NULL;
}

static unsigned contract_keeps(void)
{
	return CONTRACT_ALL & ~CONTRACT_META;
}

/* A path in the test's directory; lives until the fourth next call. */
static const char *at(const char *path)
{
	static char paths[4][256];
	static int next;
	char *ret = paths[next++ % 4];

	(void)snprintf(ret, sizeof(paths[0]), "%s/%s", root, path);
	return ret;
}

static void make_file(const char *path, const char *text)
{
	AUTO(fd) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
			       0600);

	assert_true(fd >= 0);
	assert_int_equal(io_pwrite(fd, text, strlen(text), 0), 0);
}

static bool exists(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

/* Litestream's layout. */

static void ltx_files_lie_where_litestream_looks_for_them(void **state)
{
	struct bucket *b = *state;

	contract_assert_ok(contract_put(b, "app/db/0000/" SLOT1, "a", NULL));
	contract_assert_ok(contract_put(b, "0009/" SLOT1, "b", NULL));
	contract_assert_ok(contract_put(b, "app/db/000a/" SLOT1, "c", NULL));
	assert_true(exists(at("app/db/ltx/0/" SLOT1)));
	assert_true(exists(at("ltx/9/" SLOT1)));
	assert_true(exists(at("app/db/ltx/10/" SLOT1)));
	assert_false(exists(at("app/db/0000")));
	/* Other names stay where they are. */
	contract_assert_ok(contract_put(b, "app/db/0000/x.ltx", "d", NULL));
	assert_true(exists(at("app/db/0000/x.ltx")));
}

static void a_directory_of_litestream_reads_like_its_s3_bucket(void **state)
{
	struct bucket *b;

	assert_non_null(b = open_at(FIXTURES "/litestream/replica"));
	contract_assert_lists(b, "0001/", NULL, 0,
			      "0001/0000000000000001-0000000000000007.ltx "
			      "0001/0000000000000008-0000000000000008.ltx");
	contract_assert_lists(b, "", "0000/000000000000000d.", 3,
			      "0000/000000000000000e-000000000000000e.ltx "
			      "0001/0000000000000001-0000000000000007.ltx "
			      "0001/0000000000000008-0000000000000008.ltx");
	bucket_free(b);
}

static void a_key_in_the_place_of_another_is_refused(void **state)
{
	struct bucket *b = *state;
	AUTO(buf) struct buf got = BUF_INIT(16);
	struct bucket_info info;

	contract_assert_ok(contract_put(b, "db/0000/" SLOT1, "slot", NULL));
	contract_assert_refused(contract_put(b, "db/ltx/0/" SLOT1, "x", NULL),
				-EINVAL);
	contract_assert_refused(contract_put(b, "ltx/0/" SLOT1, "x", NULL),
				-EINVAL);
	contract_assert_refused(contract_get(b, "db/ltx/0/" SLOT1, 0, 1, &got),
				-EINVAL);
	contract_assert_refused(bucket_head(b, "db/ltx/0/" SLOT1, &info),
				-EINVAL);
	contract_assert_holds(b, "db/0000/" SLOT1, "slot");
	/* What only looks so has a place of its own. */
	contract_assert_ok(contract_put(b, "db/ltx/00/" SLOT1, "x", NULL));
	contract_assert_ok(contract_put(b, "db/ltx/0/x", "x", NULL));
	contract_assert_ok(contract_put(b, "db/nltx/0/" SLOT1, "x", NULL));
	contract_assert_lists(b, "", NULL, 0,
			      "db/0000/" SLOT1 " db/ltx/0/x db/ltx/00/" SLOT1
			      " db/nltx/0/" SLOT1);
}

static void keys_from_two_directories_are_merged_in_order(void **state)
{
	static const char *const keys[] = {
		"db/0000/" SLOT1, "db/0000/" SLOT2, "db/0000/0",
		"db/0000/1", "db/0000/000/x", "db/ltx/a", NULL
	};
	struct bucket *b = *state;

	contract_put_all(b, keys);
	/* A stray file at a place where no key has its file. */
	make_file(at("db/0000/" SLOT1), "stray");
	contract_assert_lists(b, "", NULL, 0,
			      "db/0000/0 db/0000/000/x db/0000/" SLOT1
			      " db/0000/" SLOT2 " db/0000/1 db/ltx/a");
	contract_assert_holds(b, "db/0000/" SLOT1, "x");
}

static int expect_slots_in_order(const struct bucket_object *object, void *arg)
{
	unsigned *next = arg;
	char expected[64];

	(*next)++;
	(void)snprintf(expected, sizeof(expected), "0000/%016x-%016x.ltx",
		       *next, *next);
	assert_string_equal(object->key, expected);
	return 0;
}

static void a_directory_larger_than_a_batch_is_listed_whole(void **state)
{
	enum { FILES = 9000 };
	struct bucket *b = *state;
	unsigned next = 0;

	contract_assert_ok(contract_put(b, "0000/" SLOT1, "", NULL));
	/* In an order that is not theirs. */
	for (unsigned i = 0; i < FILES; i++) {
		unsigned txid = i * 7919 % FILES + 1;
		char name[64];

		(void)snprintf(name, sizeof(name), "ltx/0/%016x-%016x.ltx",
			       txid, txid);
		make_file(at(name), "");
	}
	contract_assert_ok(bucket_list(b, "", NULL, 0, expect_slots_in_order,
				       &next));
	assert_int_equal(next, FILES);
	next = 4094;
	contract_assert_ok(bucket_list(b, "0000/", "0000/0000000000000ffe.", 4,
				       expect_slots_in_order, &next));
	assert_int_equal(next, 4098);
}

/* Times and tags. */

static void the_timestamp_becomes_the_files_time(void **state)
{
	static const struct bucket_meta meta[] = {
		{ "litestream-timestamp", "2001-02-03T04:05:06.789Z" },
	};
	struct bucket *b = *state;
	const struct bucket_put put = { .key = "k", .data = "x", .fd = -1,
					.size = 1, .meta = meta, .n_meta = 1 };
	struct bucket_info info;
	int64_t expected;

	assert_int_equal(clock_parse(meta[0].value, &expected), 0);
	contract_assert_ok(bucket_put(b, &put, &info));
	assert_int_equal(info.modified_ms, expected);
	assert_true(info.date_ms > expected + 1000);
	contract_assert_ok(bucket_head(b, "k", &info));
	assert_int_equal(info.modified_ms, expected);
}

static void the_same_bytes_at_the_same_time_have_another_etag(void **state)
{
	static const struct bucket_meta meta[] = {
		{ "litestream-timestamp", "2001-02-03T04:05:06.789Z" },
	};
	struct bucket *b = *state;
	const struct bucket_put put = { .key = "k", .data = "x", .fd = -1,
					.size = 1, .meta = meta, .n_meta = 1 };
	struct bucket_info first, info;

	/* Inodes are used again at once: the first and the third may share. */
	contract_assert_ok(bucket_put(b, &put, &first));
	for (int i = 0; i < 20; i++) {
		contract_assert_ok(bucket_put(b, &put, &info));
		assert_string_not_equal(first.etag, info.etag);
	}
}

static void files_are_for_their_owner_only(void **state)
{
	struct bucket *b = *state;
	struct stat st;

	contract_assert_ok(contract_put(b, "dir/k", "x", NULL));
	assert_int_equal(stat(at("dir/k"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(stat(at("dir"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
}

/* Other people's files. */

static void what_is_no_object_is_neither_listed_nor_read(void **state)
{
	struct bucket *b = *state;
	struct bucket_info info;

	contract_assert_ok(contract_put(b, "k", "x", NULL));
	make_file(at("with space"), "x");
	make_file(at("~0123456789abcdef"), "x");
	make_file(at("k.ltx.tmp~"), "x");
	assert_int_equal(mkdir(at("empty"), 0700), 0);
	assert_int_equal(mkfifo(at("fifo"), 0600), 0);
	assert_int_equal(symlink("k", at("link")), 0);
	contract_assert_lists(b, "", NULL, 0, "k");
	contract_assert_refused(bucket_head(b, "fifo", &info), -ENOENT);
	contract_assert_refused(bucket_head(b, "link", &info), -ENOENT);
	contract_assert_refused(bucket_head(b, "empty", &info), -ENOENT);
	/* The teardown removes objects only. */
	assert_int_equal(unlink(at("fifo")), 0);
}

static void links_do_not_lead_out_of_the_bucket(void **state)
{
	struct bucket *b = *state;
	char outside[128];
	struct bucket_info info;

	(void)snprintf(outside, sizeof(outside), "%s/outside", scratch);
	assert_int_equal(mkdir(outside, 0700), 0);
	assert_int_equal(symlink(outside, at("dir")), 0);
	(void)snprintf(outside, sizeof(outside), "%s/outside/secret", scratch);
	make_file(outside, "secret");
	assert_int_equal(symlink(outside, at("file")), 0);

	contract_assert_refused(bucket_head(b, "dir/secret", &info), -ENOENT);
	contract_assert_refused(bucket_head(b, "file", &info), -ENOENT);
	contract_assert_refused(contract_put(b, "dir/new", "x", NULL),
				-EOPNOTSUPP);
	contract_assert_lists(b, "", NULL, 0, "");
	contract_assert_lists(b, "dir/", NULL, 0, "");
	contract_assert_ok(bucket_remove(b, (const char *[]){ "dir/secret" },
					 1));
	assert_true(exists(outside));
	/* A put replaces a link instead of writing through it. */
	contract_assert_ok(contract_put(b, "file", "mine", NULL));
	contract_assert_holds(b, "file", "mine");
	assert_int_equal(unlink(outside), 0);
	(void)snprintf(outside, sizeof(outside), "%s/outside", scratch);
	assert_int_equal(rmdir(outside), 0);
}

static void a_key_above_or_below_another_is_refused(void **state)
{
	struct bucket *b = *state;

	contract_assert_ok(contract_put(b, "a/b", "x", NULL));
	contract_assert_refused(contract_put(b, "a", "x", NULL), -EOPNOTSUPP);
	contract_assert_refused(contract_put_if(b, "a", "x", true, NULL, NULL),
				-EOPNOTSUPP);
	contract_assert_refused(contract_put(b, "a/b/c", "x", NULL),
				-EOPNOTSUPP);
	contract_assert_lists(b, "", NULL, 0, "a/b");
}

/* The directory itself. */

static void a_missing_directory_is_made_only_when_asked_for(void **state)
{
	char url[128];
	struct bucket *b;

	(void)snprintf(url, sizeof(url), "file://%s/x/y/z", root);
	contract_assert_refused(bucket_open(url, false, &b), -ENODEV);
	assert_false(exists(at("x")));
	contract_assert_ok(bucket_open(url, true, &b));
	contract_assert_ok(contract_put(b, "k", "x", NULL));
	bucket_free(b);
	contract_assert_ok(bucket_open(url, false, &b));
	contract_assert_holds(b, "k", "x");
	bucket_free(b);
	(void)snprintf(url, sizeof(url), "file://%s/x/y/z/k", root);
	contract_assert_refused(bucket_open(url, true, &b), -ENODEV);
}

static void only_a_put_makes_the_directory(void **state)
{
	AUTO(buf) struct buf got = BUF_INIT(16);
	struct bucket *b = open_at(at("x/y"));
	unsigned caps = 0;

	assert_non_null(b);
	contract_assert_refused(contract_get(b, "k", 0, 1, &got), -ENOENT);
	contract_assert_lists(b, "", NULL, 0, "");
	contract_assert_ok(bucket_remove(b, (const char *[]){ "k" }, 1));
	contract_assert_ok(bucket_probe(b, &caps));
	assert_int_equal(caps, BUCKET_IF_ABSENT | BUCKET_IF_MATCH);
	assert_false(exists(at("x")));
	contract_assert_ok(contract_put(b, "k", "x", NULL));
	contract_assert_holds(b, "k", "x");
	bucket_free(b);
}

static void where_no_directory_can_be_made_a_probe_says_so(void **state)
{
	struct bucket *b = open_at(at("x/y"));
	unsigned caps;

	assert_non_null(b);
	if (geteuid() != 0)
		skip();
	/* To be seen by anybody, and written to by root. */
	assert_int_equal(chmod(scratch, 0755), 0);
	assert_int_equal(chmod(root, 0755), 0);
	assert_int_equal(seteuid(65534), 0);
	contract_assert_refused(bucket_probe(b, &caps), -EACCES);
	contract_assert_refused(contract_put(b, "k", "x", NULL), -EACCES);
	assert_int_equal(seteuid(0), 0);
	assert_int_equal(chmod(scratch, 0700), 0);
	bucket_free(b);
}

static void assert_gone(struct bucket *b)
{
	AUTO(buf) struct buf got = BUF_INIT(16);

	contract_assert_refused(contract_get(b, "k", 0, 1, &got), -ENODEV);
	contract_assert_refused(contract_put(b, "k", "x", NULL), -ENODEV);
	contract_assert_refused(bucket_list(b, "", NULL, 0, contract_join,
					    &got), -ENODEV);
	contract_assert_refused(bucket_remove(b, (const char *[]){ "k" }, 1),
				-ENODEV);
}

static void a_removed_directory_is_no_empty_bucket(void **state)
{
	struct bucket *b;

	assert_int_equal(mkdir(at("gone"), 0700), 0);
	assert_non_null(b = open_at(at("gone")));
	assert_int_equal(rmdir(at("gone")), 0);
	assert_gone(b);
	/* Nor is the one that is made anew. */
	assert_int_equal(mkdir(at("gone"), 0700), 0);
	assert_gone(b);
	bucket_free(b);
}

static void a_directory_that_was_moved_away_is_used_again_once_it_is_back(
	void **state)
{
	struct bucket *b;

	assert_int_equal(mkdir(at("here"), 0700), 0);
	assert_non_null(b = open_at(at("here")));
	assert_int_equal(rename(at("here"), at("there")), 0);
	assert_gone(b);
	assert_int_equal(mkdir(at("here"), 0700), 0);
	assert_gone(b);
	assert_int_equal(rename(at("there"), at("here")), 0);
	contract_assert_ok(contract_put(b, "k", "x", NULL));
	contract_assert_holds(b, "k", "x");
	assert_true(exists(at("here/k")));
	bucket_free(b);
}

/* Processes that race. */

enum { PROCESSES = 8, RACES = 50, INCREMENTS = 15 };

/* Run fn in several processes; each has a bucket of its own. */
static void in_processes(void (*fn)(struct bucket *b, int number))
{
	pid_t pids[PROCESSES];

	for (int i = 0; i < PROCESSES; i++) {
		pids[i] = fork();
		assert_true(pids[i] >= 0);
		if (pids[i] == 0) {
			struct bucket *b = open_at(root);

			if (!b)
				_exit(1);
			fn(b, i);
			bucket_free(b);
			_exit(0);
		}
	}
	for (int i = 0; i < PROCESSES; i++) {
		int status;

		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_int_equal(status, 0);
	}
}

/* Shared with the processes: who won which slot, and how many did. */
static struct {
	atomic_int winners[RACES];
	atomic_int winner[RACES];
} *races;

static void take_slots(struct bucket *b, int number)
{
	for (int i = 0; i < RACES; i++) {
		char key[64], text[16];
		int rc;

		(void)snprintf(key, sizeof(key), "0000/%016x-%016x.ltx", i + 1,
			       i + 1);
		(void)snprintf(text, sizeof(text), "%d", number);
		rc = contract_put_if(b, key, text, true, NULL, NULL);
		if (rc == 0) {
			atomic_fetch_add(&races->winners[i], 1);
			atomic_store(&races->winner[i], number);
		} else if (rc != -ERR_PRECOND) {
			_exit(2);
		}
	}
}

static void of_racing_processes_one_takes_each_slot(void **state)
{
	races = mmap(NULL, sizeof(*races), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(races, MAP_FAILED);
	in_processes(take_slots);
	for (int i = 0; i < RACES; i++) {
		char key[64], text[16];

		(void)snprintf(key, sizeof(key), "0000/%016x-%016x.ltx", i + 1,
			       i + 1);
		(void)snprintf(text, sizeof(text), "%d",
			       atomic_load(&races->winner[i]));
		assert_int_equal(atomic_load(&races->winners[i]), 1);
		contract_assert_holds(*state, key, text);
	}
	(void)munmap(races, sizeof(*races));
}

/* Read a number, write the next: one that is lost shows in the sum. */
static void increment(struct bucket *b, int number)
{
	for (int done = 0; done < INCREMENTS;) {
		AUTO(buf) struct buf got = BUF_INIT(16);
		struct bucket_info info;
		struct buf_sink sink;
		char text[16];
		int rc;

		buf_sink_init(&sink, &got);
		if (bucket_get(b, "count", 0, BUCKET_TO_END, NULL, &sink.sink,
			       &info) < 0)
			_exit(2);
		(void)snprintf(text, sizeof(text), "%d", atoi(got.data) + 1);
		rc = contract_put_if(b, "count", text, false, info.etag, NULL);
		if (rc < 0 && rc != -ERR_PRECOND)
			_exit(3);
		done += rc == 0;
	}
}

static void no_update_by_racing_processes_is_lost(void **state)
{
	char total[16];

	contract_assert_ok(contract_put(*state, "count", "0", NULL));
	in_processes(increment);
	(void)snprintf(total, sizeof(total), "%d", PROCESSES * INCREMENTS);
	contract_assert_holds(*state, "count", total);
}

/* Each takes the lock object away as often as it can be matched. */
static void match_or_remove(struct bucket *b, int number)
{
	static const char *const keys[] = { "lock" };

	for (int i = 0; i < INCREMENTS; i++) {
		struct bucket_info info;
		int rc;

		if (number % 2) {
			(void)contract_put_if(b, "lock", "new", true, NULL,
					      NULL);
			if (bucket_remove(b, keys, 1) < 0)
				_exit(2);
			continue;
		}
		if (bucket_head(b, "lock", &info) < 0)
			continue;
		rc = contract_put_if(b, "lock", "matched", false, info.etag,
				     NULL);
		if (rc < 0 && rc != -ERR_PRECOND)
			_exit(3);
	}
}

static void removals_and_matching_puts_do_not_break_each_other(void **state)
{
	in_processes(match_or_remove);
}

/* Processes that die, and disks that are full. */

#ifdef LITEBUCKET_FAILPOINTS
/* A process that is killed at the named point of a put. */
static void put_and_die(const char *point)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		struct bucket *b = open_at(root);

		(void)setenv("LITEBUCKET_FAILPOINT", point, 1);
		(void)contract_put_if(b, "0000/" SLOT1, "first", true, NULL,
				      NULL);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGKILL);
}

static void a_put_that_died_before_its_end_left_nothing_to_see(void **state)
{
	struct bucket *b = *state;
	struct bucket_info info;

	put_and_die("bucket-file-temporary:kill");
	contract_assert_lists(b, "", NULL, 0, "");
	contract_assert_refused(bucket_head(b, "0000/" SLOT1, &info), -ENOENT);
	contract_assert_ok(contract_put_if(b, "0000/" SLOT1, "second", true,
					   NULL, NULL));
	contract_assert_lists(b, "", NULL, 0, "0000/" SLOT1);
}

static void a_put_that_died_after_its_end_is_there(void **state)
{
	struct bucket *b = *state;

	put_and_die("bucket-file-published:kill");
	contract_assert_lists(b, "", NULL, 0, "0000/" SLOT1);
	contract_assert_holds(b, "0000/" SLOT1, "first");
	contract_assert_refused(contract_put_if(b, "0000/" SLOT1, "second",
						true, NULL, NULL),
				-ERR_PRECOND);
}
#endif

/* Number of files in the test's directory, whatever they are. */
static int count_files(void)
{
	char command[128];
	FILE *f;
	int n = -1;

	(void)snprintf(command, sizeof(command), "find '%s' -type f | wc -l",
		       root);
	f = popen(command, "r");
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%d", &n), 1);
	(void)pclose(f);
	return n;
}

static void a_write_error_leaves_nothing_and_the_old_object(void **state)
{
	struct bucket *b = *state;
	AUTO(mem) void *body = contract_big_body();
	const struct bucket_put put = {
		.key = "k", .data = body, .fd = -1, .size = CONTRACT_BIG
	};
	struct rlimit old, small;
	int rc, files;

	contract_assert_ok(contract_put(b, "k", "old", NULL));
	files = count_files();
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small = (struct rlimit){ 1 << 20, old.rlim_max };
	(void)signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	rc = bucket_put(b, &put, NULL);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	contract_assert_refused(rc, -EFBIG);
	assert_int_equal(count_files(), files);
	contract_assert_holds(b, "k", "old");
}

static void a_body_shorter_than_said_is_not_written(void **state)
{
	struct bucket *b = *state;
	AUTO(fd) int fd = memfd_create("body", MFD_CLOEXEC);
	const struct bucket_put put = { .key = "k", .fd = fd, .size = 10 };
	struct bucket_info info;

	assert_int_equal(io_pwrite(fd, "short", 5, 0), 0);
	contract_assert_refused(bucket_put(b, &put, NULL), -EINVAL);
	contract_assert_refused(bucket_head(b, "k", &info), -ENOENT);
}

/* A mount namespace of our own; who is not root needs to be root in it. */
static bool own_mounts(void)
{
	char map[64];

	(void)snprintf(map, sizeof(map), "0 %u 1", geteuid());
	if (geteuid() == 0)
		return unshare(CLONE_NEWNS) == 0;
	if (unshare(CLONE_NEWNS | CLONE_NEWUSER) < 0)
		return false;
	AUTO(fd) int fd = open("/proc/self/uid_map", O_WRONLY | O_CLOEXEC);
	return fd >= 0 && io_pwrite(fd, map, strlen(map), 0) == 0;
}

/*
 * On a file system of 256 KiB.  The child exits with 77 where it may not have
 * one.
 */
static void fill_a_disk(const char *where)
{
	AUTO(mem) void *body = contract_big_body();
	const struct bucket_put put = { .key = "big", .data = body, .fd = -1,
					.size = CONTRACT_BIG,
					.if_absent = true };
	struct bucket_info info;
	struct bucket *b;

	if (!own_mounts() ||
	    mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("none", where, "tmpfs", 0, "size=256k") < 0)
		_exit(77);
	b = open_at(where);
	if (!b || bucket_put(b, &put, NULL) != -ENOSPC ||
	    !strstr(error_message(), "'big'") ||
	    !strstr(error_message(), "No space left"))
		_exit(1);
	if (bucket_head(b, "big", &info) != -ENOENT)
		_exit(2);
	/* The room is free again. */
	if (contract_put(b, "small", "x", NULL) < 0)
		_exit(3);
	bucket_free(b);
	_exit(0);
}

static void a_full_disk_is_told_and_left_as_it_was(void **state)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0)
		fill_a_disk(root);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BUCKET_CONTRACT,
		CONTRACT_TEST(ltx_files_lie_where_litestream_looks_for_them),
		CONTRACT_TEST(
			a_directory_of_litestream_reads_like_its_s3_bucket),
		CONTRACT_TEST(a_key_in_the_place_of_another_is_refused),
		CONTRACT_TEST(keys_from_two_directories_are_merged_in_order),
		CONTRACT_TEST(a_directory_larger_than_a_batch_is_listed_whole),
		CONTRACT_TEST(the_timestamp_becomes_the_files_time),
		CONTRACT_TEST(
			the_same_bytes_at_the_same_time_have_another_etag),
		CONTRACT_TEST(files_are_for_their_owner_only),
		CONTRACT_TEST(what_is_no_object_is_neither_listed_nor_read),
		CONTRACT_TEST(links_do_not_lead_out_of_the_bucket),
		CONTRACT_TEST(a_key_above_or_below_another_is_refused),
		CONTRACT_TEST(a_missing_directory_is_made_only_when_asked_for),
		CONTRACT_TEST(only_a_put_makes_the_directory),
		CONTRACT_TEST(where_no_directory_can_be_made_a_probe_says_so),
		CONTRACT_TEST(a_removed_directory_is_no_empty_bucket),
		CONTRACT_TEST(
			a_directory_that_was_moved_away_is_used_again_once_it_is_back),
		CONTRACT_TEST(of_racing_processes_one_takes_each_slot),
		CONTRACT_TEST(no_update_by_racing_processes_is_lost),
		CONTRACT_TEST(
			removals_and_matching_puts_do_not_break_each_other),
#ifdef LITEBUCKET_FAILPOINTS
		CONTRACT_TEST(
			a_put_that_died_before_its_end_left_nothing_to_see),
		CONTRACT_TEST(a_put_that_died_after_its_end_is_there),
#endif
		CONTRACT_TEST(a_write_error_leaves_nothing_and_the_old_object),
		CONTRACT_TEST(a_body_shorter_than_said_is_not_written),
		CONTRACT_TEST(a_full_disk_is_told_and_left_as_it_was),
	};

	return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
