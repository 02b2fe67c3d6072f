/* Fortified headers overload the function that stands in for the C library's. */
#undef _FORTIFY_SOURCE

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "capture/capture.h"
#include "capture/pages.h"
#include "capture/position.h"
#include "ltx/spool.h"
#include "tests/lib/capture_vfs.h"
#include "tests/lib/chain.h"
#include "memory_dir.h"

/*
 * Comparing a database while it is in use
 * =======================================
 *
 * pread64() below stands before that of the C library.  It counts what capture
 * reads of the database, and calls a function of the test whenever capture has
 * just read a run of pages: whatever that does to the database, what was read
 * is then old, and no lock is held, because the function writes by SQLite.
 */
struct world;

static struct {
	_Atomic(struct world *) world;
	void (*_Atomic in_run)(struct world *);
	atomic_bool go; /* runs wait for it */
	atomic_uint runs;
	atomic_uint fail_run; /* this one cannot be read; 0: none */
	atomic_uint_least64_t pages_read; /* of capture, whole ones */
} between;

/* Held while something happens in between. */
static pthread_mutex_t between_lock = PTHREAD_MUTEX_INITIALIZER;

static _Thread_local bool is_between;
static _Thread_local bool is_app; /* the database of the run */
static _Thread_local uint64_t read_here;

struct world {
	char dir[64];
	char path[96];
	int dirfd;
	int64_t quiet_ms;
	int (*writer)(void *arg, const char *path);
	atomic_uint asked;
	atomic_bool too_early;
	int lock_fd; /* by which the hook asks */
	struct capture *capture;
	_Atomic(struct spool *) spool;
	struct chain chain;
	sqlite3 *db;
	unsigned random;
	unsigned page_size;
};

/* Is this one of capture's descriptors of a main file? */
static bool is_capture_reading(int fd, size_t n)
{
	char link[64], path[4096];
	ssize_t length;

	if (!atomic_load(&between.world) || n < 512)
		return false;
	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	length = readlink(link, path, sizeof(path) - 1);
	path[length > 0 ? length : 0] = '\0';
	is_app = strstr(path, "/app.db") != NULL;
	return strstr(path, ".db") && !strstr(path, ".db-") &&
	       !strstr(path, "/.litebucket") &&
	       (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY;
}

ssize_t pread64(int fd, void *data, size_t n, off64_t offset)
{
	static ssize_t (*real)(int, void *, size_t, off64_t);
	bool capture = is_capture_reading(fd, n);
	struct world *w = atomic_load(&between.world);
	void (*in_run)(struct world *);
	ssize_t rc;

	if (!real)
		real = (__typeof__(real))dlsym(RTLD_NEXT, "pread64");
	rc = real(fd, data, n, offset);
	if (!capture || n < w->page_size)
		return rc;
	atomic_fetch_add(&between.pages_read, n / w->page_size);
	read_here += n / w->page_size;
	/* More than one page is read at a time by nobody else. */
	if (n == w->page_size || is_between)
		return rc;
	if (atomic_fetch_add(&between.runs, 1) + 1 ==
	    atomic_load(&between.fail_run)) {
		errno = EIO;
		return -1;
	}
	while (between.in_run && !atomic_load(&between.go))
		clock_sleep_ms(1);
	(void)pthread_mutex_lock(&between_lock);
	in_run = between.in_run;
	if (in_run) {
		is_between = true;
		in_run(w);
		is_between = false;
	}
	(void)pthread_mutex_unlock(&between_lock);
	return rc;
}

/* And what is under way has come to its end. */
static void nothing_in_between(void)
{
	(void)pthread_mutex_lock(&between_lock);
	between.in_run = NULL;
	(void)pthread_mutex_unlock(&between_lock);
}

/* ------------------------------------------------------------- the world */

static void on_appeared(void *arg, const char *path, struct spool *spool,
			uint64_t confirmed)
{
	struct world *w = arg;

	if (strcmp(path, "app.db") == 0)
		w->spool = spool;
}

static int64_t on_now(void *arg)
{
	return clock_wall_ms();
}

/*
 * What the mount's helper does.  Closing a descriptor would drop the locks of
 * this process, so there is one that stays.
 */
static int ask_kernel(void *arg, const char *path)
{
	struct world *w = arg;
	struct flock lock = { .l_type = F_WRLCK,
			      .l_whence = SEEK_SET,
			      .l_start = 0x40000001,
			      .l_len = 1 };

	atomic_fetch_add(&w->asked, 1);
	if (fcntl(w->lock_fd, F_OFD_GETLK, &lock) < 0)
		return -errno;
	return lock.l_type != F_UNLCK;
}

static void start(struct world *w)
{
	struct capture_config config = { .dirfd = w->dirfd,
					 .appeared = on_appeared,
					 .now_ms = on_now,
					 .writer = w->writer,
					 .quiet_ms = w->quiet_ms,
					 .arg = w };

	w->spool = NULL;
	if (capture_open(&config, &w->capture) < 0)
		fail_msg("capture_open: %s", error_message());
	capture_vfs_use(w->capture, w->dir, w->dirfd);
}

static int set_up(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	log_set_level(LOG_ERROR);
	strcpy(w->dir, memory_is_roomy() ?
			       "/dev/shm/litebucket-resync.XXXXXX" :
			       "/tmp/litebucket-resync.XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	(void)snprintf(w->path, sizeof(w->path), "%s/app.db", w->dir);
	w->dirfd = open(w->dir, O_RDONLY | O_DIRECTORY);
	w->lock_fd = -1;
	w->quiet_ms = 20;
	w->random = 1;
	w->page_size = 512;
	atomic_store(&between.runs, 0);
	atomic_store(&between.pages_read, 0);
	*state = w;
	return 0;
}

static void stop(struct world *w)
{
	(void)sqlite3_close(w->db);
	w->db = NULL;
	capture_close(w->capture);
	w->capture = NULL;
}

static int tear_down(void **state)
{
	struct world *w = *state;
	char command[128];

	nothing_in_between();
	atomic_store(&between.go, false);
	stop(w);
	atomic_store(&between.world, NULL);
	if (w->lock_fd >= 0)
		(void)close(w->lock_fd);
	chain_clear(&w->chain);
	(void)close(w->dirfd);
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", w->dir);
	(void)!system(command);
	free(w);
	return 0;
}

static sqlite3 *open_by(struct world *w, const char *vfs)
{
	sqlite3 *db;

	assert_int_equal(sqlite3_open_v2(w->path, &db,
					 SQLITE_OPEN_READWRITE |
						 SQLITE_OPEN_CREATE,
					 vfs),
			 SQLITE_OK);
	(void)sqlite3_busy_timeout(db, 10000);
	return db;
}

static void run_sql(sqlite3 *db, const char *text)
{
	char *message = NULL;

	if (sqlite3_exec(db, text, NULL, NULL, &message) != SQLITE_OK)
		fail_msg("%s: %s", text, message);
}

static void sql(struct world *w, const char *text)
{
	if (!w->db)
		w->db = open_by(w, "capture");
	run_sql(w->db, text);
}

static void settle(struct world *w)
{
	int64_t until = clock_monotonic_ms() + 60000;
	int rc;

	do {
		rc = capture_settle(w->capture, "app.db", NULL);
		if (rc == -EBUSY)
			clock_sleep_ms(1);
	} while ((rc == -EBUSY || rc == -EINPROGRESS) &&
		 clock_monotonic_ms() < until);
	if (rc < 0)
		fail_msg("settle: %s", error_message());
}

static void check(struct world *w)
{
	settle(w);
	assert_true(chain_follow(&w->chain, w->spool));
	assert_true(chain_equals(&w->chain, w->path));
}

static int get_status(const struct capture_status *status, void *arg)
{
	if (strcmp(status->path, "app.db") == 0)
		*(struct capture_status *)arg = *status;
	return 0;
}

static struct capture_status status_of(struct world *w)
{
	static struct capture_status status;

	memset(&status, 0, sizeof(status));
	(void)capture_each(w->capture, get_status, &status);
	return status;
}

/* A database of some thousand pages, captured, and then changed unseen. */
static void make_unclean(struct world *w, const char *mode)
{
	char text[128];
	sqlite3 *db;

	start(w);
	(void)snprintf(text, sizeof(text),
		       "PRAGMA page_size=%u; PRAGMA journal_mode=%s;"
		       "PRAGMA wal_autocheckpoint=20",
		       w->page_size, mode);
	sql(w, text);
	sql(w, "CREATE TABLE t (id INTEGER PRIMARY KEY, a, b);"
	       "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c "
	       "LIMIT 2000) INSERT INTO t SELECT x, 0, randomblob(600) FROM c");
	check(w);
	stop(w);
	(void)unlinkat(w->dirfd, ".litebucket/clean", 0);
	db = open_by(w, "unix");
	run_sql(db, "UPDATE t SET b = randomblob(600) WHERE id % 7 = 1");
	(void)sqlite3_close(db);
	atomic_store(&between.world, w);
	atomic_store(&between.runs, 0);
	atomic_store(&between.pages_read, 0);
}

/* --------------------------------------------- what comes in between */

static void commit_something(struct world *w)
{
	static const char *const statements[] = {
		"UPDATE t SET b = randomblob(600) WHERE id % 11 = 3",
		"UPDATE t SET a = a + 1 WHERE id < 300",
		"INSERT INTO t (a, b) VALUES (2, randomblob(5000))",
		"BEGIN; UPDATE t SET b = randomblob(600); ROLLBACK",
		"DELETE FROM t WHERE id = (SELECT max(id) FROM t)",
		"PRAGMA wal_checkpoint(TRUNCATE)",
		"PRAGMA wal_checkpoint",
	};

	sql(w, statements[rand_r(&w->random) % 7]);
	sql(w, statements[rand_r(&w->random) % 7]);
}

static void commits_in_the_middle_of_every_run_disturb_nothing(void **state)
{
	static const char *const modes[] = { "DELETE", "TRUNCATE", "PERSIST",
					     "WAL" };
	struct world *w;
	void *other;

	for (unsigned i = 0; i < 8; i++) {
		(void)set_up(&other);
		w = other;
		w->random = i + 1;
		w->page_size = i < 4 ? 512 : 4096;
		make_unclean(w, modes[i % 4]);
		between.in_run = commit_something;
		start(w);
		sql(w, "SELECT 1");
		atomic_store(&between.go, true);
		settle(w);
		nothing_in_between();
		/* What is touched is not read again. */
		assert_in_range(atomic_load(&between.runs), 1,
				status_of(w).commit / 2 + 10);
		check(w);
		(void)tear_down(&other);
	}
}

/* Something that changes all pages, in the third run and never again. */
static void (*once)(struct world *w);

static void in_third_run(struct world *w)
{
	if (atomic_load(&between.runs) == 3)
		once(w);
}

static void vacuum_to_other_size(struct world *w)
{
	sql(w, "PRAGMA page_size=1024; VACUUM");
}

static void shrink(struct world *w)
{
	sql(w, "DELETE FROM t WHERE id > 100; VACUUM");
	sql(w, "UPDATE t SET b = randomblob(600)");
}

static void shrink_and_grow(struct world *w)
{
	shrink(w);
	for (int i = 0; i < 20; i++)
		sql(w, "INSERT INTO t (a, b) VALUES (1, randomblob(60000))");
}

static void write_huge_transaction(struct world *w)
{
	sql(w, "UPDATE t SET b = randomblob(1900)");
}

/* A copy of the database, but for some rows. */
static void make_other(struct world *w)
{
	char command[400];
	sqlite3 *db;

	(void)snprintf(command, sizeof(command),
		       "PRAGMA journal_mode=DELETE; VACUUM INTO '%s/other'",
		       w->dir);
	db = open_by(w, "unix");
	run_sql(db, command);
	(void)sqlite3_close(db);
	(void)snprintf(command, sizeof(command), "%s/other", w->dir);
	assert_int_equal(sqlite3_open(command, &db), SQLITE_OK);
	run_sql(db, "UPDATE t SET b = randomblob(600) WHERE id % 3 = 0");
	(void)sqlite3_close(db);
}

static void rename_over(struct world *w)
{
	assert_int_equal(capture_rename(w->capture, w->dirfd, "other", "other",
					w->dirfd, "app.db", "app.db", 0),
			 0);
}

static void unlink_and_create(struct world *w)
{
	(void)sqlite3_close(w->db);
	w->db = NULL;
	assert_int_equal(capture_unlink(w->capture, w->dirfd, "app.db",
					"app.db"),
			 0);
	sql(w, "PRAGMA page_size=512; CREATE TABLE t (id, a, b);"
	       "INSERT INTO t VALUES (1, 2, randomblob(300000))");
}

static void what_changes_every_page_begins_it_again(void **state)
{
	static void (*const changes[])(struct world *) = {
		vacuum_to_other_size, shrink,	   shrink_and_grow,
		write_huge_transaction, rename_over, unlink_and_create,
	};
	struct world *w;
	void *other;

	for (int i = 0; i < 6; i++) {
		(void)set_up(&other);
		w = other;
		make_unclean(w, "DELETE");
		make_other(w);
		once = changes[i];
		between.in_run = in_third_run;
		start(w);
		if (changes[i] != rename_over)
			sql(w, "SELECT 1");
		atomic_store(&between.go, true);
		settle(w);
		assert_true(atomic_load(&between.runs) >= 3);
		nothing_in_between();
		check(w);
		(void)tear_down(&other);
	}
}

/* ---------------------------------------------------- a writer that goes on */

struct writer {
	struct world *world;
	pthread_t thread;
	atomic_bool end;
	atomic_uint commits;
	int64_t longest_ms;
};

static void *write_on(void *arg)
{
	struct writer *r = arg;
	struct world w = { .random = 7, .db = NULL };

	strcpy(w.path, r->world->path);
	w.db = open_by(&w, "capture");
	while (!atomic_load(&r->end)) {
		int64_t before = clock_monotonic_ms(), took;

		run_sql(w.db, "UPDATE t SET b = randomblob(600) "
			      "WHERE id % 50 = abs(random()) % 50");
		run_sql(w.db, "INSERT INTO t (a, b) VALUES (9, randomblob(900))");
		took = clock_monotonic_ms() - before;
		if (took > r->longest_ms)
			r->longest_ms = took;
		atomic_fetch_add(&r->commits, 1);
	}
	(void)sqlite3_close(w.db);
	return NULL;
}

/* Every run takes a while, so that there are commits in between. */
static void take_a_while(struct world *w)
{
	clock_sleep_ms(2);
}

static void a_writer_that_never_stops_does_not_keep_it_from_its_end(void **state)
{
	static const char *const modes[] = { "DELETE", "PERSIST", "WAL" };
	struct world *w;
	void *other;

	for (int i = 0; i < 3; i++) {
		struct writer r = { 0 };
		unsigned during;

		(void)set_up(&other);
		w = other;
		make_unclean(w, modes[i]);
		between.in_run = take_a_while;
		start(w);
		r.world = w;
		assert_int_equal(pthread_create(&r.thread, NULL, write_on, &r),
				 0);
		while (atomic_load(&r.commits) < 3)
			clock_sleep_ms(1);
		atomic_store(&between.go, true);
		/* Only the settling thread works here. */
		for (int n = 0; status_of(w).resync; n++) {
			assert_true(n < 30000);
			clock_sleep_ms(1);
		}
		during = atomic_load(&r.commits);
		while (atomic_load(&r.commits) < during + 3)
			clock_sleep_ms(1);
		assert_true(capture_seal(w->capture, "app.db", NULL) >= 0);
		assert_true(chain_follow(&w->chain, w->spool));
		atomic_store(&r.end, true);
		(void)pthread_join(r.thread, NULL);
		check(w);
		(void)tear_down(&other);
	}
}

/* -------------------------------------------------------- who reads what */

static void a_start_reads_no_page_itself(void **state)
{
	struct world *w = *state;

	make_unclean(w, "DELETE");
	read_here = 0;
	start(w);
	assert_int_equal(read_here, 0);
	check(w);
	assert_true(atomic_load(&between.pages_read) > 1000);
}

static void a_run_that_cannot_be_read_is_read_again(void **state)
{
	struct world *w = *state;

	make_unclean(w, "DELETE");
	log_set_level(LOG_ERROR + 1);
	atomic_store(&between.fail_run, 2);
	start(w);
	while (atomic_load(&between.runs) < 2)
		clock_sleep_ms(1);
	atomic_store(&between.fail_run, 0);
	check(w);
	assert_string_equal(status_of(w).error, "");
}

static void a_huge_transaction_is_not_carried_by_its_commit(void **state)
{
	struct world *w = *state;

	start(w);
	sql(w, "PRAGMA page_size=512; PRAGMA cache_size=10;"
	       "CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 2)");
	check(w);
	atomic_store(&between.world, w);
	read_here = 0;
	/* Neither one that grows it nor one that changes what there is. */
	sql(w, "INSERT INTO t VALUES (1, randomblob(3000000))");
	assert_in_range(read_here, 0, 10);
	check(w);
	assert_int_equal(status_of(w).comparing, 0);
	read_here = 0;
	sql(w, "UPDATE t SET b = randomblob(3000000) WHERE a = 1");
	assert_in_range(read_here, 0, 10);
	check(w);
	assert_true(atomic_load(&between.pages_read) > 10000);
}

static void take_long(struct world *w)
{
	clock_sleep_ms(100);
}

static void huge_transactions_without_a_pause_are_sealed(void **state)
{
	struct world *w = *state;
	int64_t until = clock_monotonic_ms() + 60000;
	bool sealed = false;

	start(w);
	sql(w, "PRAGMA page_size=512; CREATE TABLE t (a, b);"
	       "INSERT INTO t VALUES (1, randomblob(1500000))");
	check(w);
	/* It takes longer than a transaction, so it never comes to an end. */
	atomic_store(&between.world, w);
	atomic_store(&between.go, true);
	between.in_run = take_long;
	while (!sealed && clock_monotonic_ms() < until) {
		sql(w, "UPDATE t SET b = randomblob(1500000)");
		sealed = capture_seal(w->capture, "app.db", NULL) == 1;
	}
	assert_true(sealed);
	nothing_in_between();
	check(w);
}

/* Where the state of app.db is: the only database there. */
static int open_state(struct world *w)
{
	char command[200], name[200] = "";
	FILE *pipe;
	int fd;

	(void)snprintf(command, sizeof(command),
		       "echo '%s'/.litebucket/db/*/", w->dir);
	pipe = popen(command, "r");
	assert_non_null(pipe);
	assert_int_equal(fscanf(pipe, "%199s", name), 1);
	(void)pclose(pipe);
	fd = open(name, O_RDONLY | O_DIRECTORY);
	assert_true(fd >= 0);
	return fd;
}

/* The database becomes one of ten GiB that was left by a clean stop. */
static void make_large(struct world *w)
{
	enum { PAGES = 10 << 18 };
	static uint64_t ones[4096];
	int fd = openat(w->dirfd, "app.db", O_RDWR);
	int state = open_state(w);
	struct position p;
	struct pages *pages;
	struct stat st;

	assert_int_equal(ftruncate(fd, (off_t)PAGES * 4096), 0);
	assert_int_equal(fstat(fd, &st), 0);
	(void)close(fd);
	for (size_t i = 0; i < 4096; i++)
		ones[i] = 1;
	assert_int_equal(pages_open(state, "pages", &pages), 0);
	assert_int_equal(position_load(state, "position", &p), 0);
	for (uint32_t pgno = p.commit + 1; pgno <= PAGES; pgno += 4096) {
		uint32_t n = PAGES - pgno + 1 < 4096 ? PAGES - pgno + 1 : 4096;

		assert_int_equal(pages_write(pages, pgno, ones, n), 0);
	}
	assert_int_equal(pages_extend(pages), 0);
	p.commit = PAGES;
	p.dbsum = p.known = pages_sum(pages, PAGES);
	pages_free(pages);
	p.main_size = (uint64_t)st.st_size;
	p.main_mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 +
			  st.st_mtim.tv_nsec;
	p.main_ctime_ns = (int64_t)st.st_ctim.tv_sec * 1000000000 +
			  st.st_ctim.tv_nsec;
	assert_int_equal(position_store(state, "position", &p), 0);
	(void)close(state);
}

/* Bytes that this process has read(2), by any means but mappings. */
static uint64_t bytes_read(void)
{
	unsigned long long n = 0;
	FILE *io = fopen("/proc/self/io", "r");

	assert_non_null(io);
	assert_int_equal(fscanf(io, "rchar: %llu", &n), 1);
	(void)fclose(io);
	return n;
}

static void after_a_clean_stop_no_page_of_a_large_database_is_read(void **state)
{
	struct world *w = *state;
	uint64_t before;

	start(w);
	w->page_size = 4096;
	sql(w, "PRAGMA page_size=4096; CREATE TABLE t (a, b)");
	check(w);
	stop(w);
	make_large(w);
	atomic_store(&between.world, w);
	before = bytes_read();
	start(w);
	clock_sleep_ms(300);
	assert_int_equal(capture_seal(w->capture, "app.db", NULL), 0);
	assert_int_equal(status_of(w).resync, 0);
	assert_int_equal(status_of(w).commit, 10 << 18);
	stop(w);
	start(w);
	clock_sleep_ms(100);
	assert_int_equal(atomic_load(&between.pages_read), 0);
	assert_in_range(bytes_read() - before, 0, 1 << 20);
}

/* As long as a turn, so that it gets one run in each. */
static void take_a_turn(struct world *w)
{
	if (is_app)
		clock_sleep_ms(50);
}

static void one_large_database_does_not_keep_the_others(void **state)
{
	struct world *w = *state;
	int64_t until = clock_monotonic_ms() + 60000;

	make_unclean(w, "DELETE");
	{
		char command[300];

		/* "app.db" is looked at by turns with these. */
		(void)snprintf(command, sizeof(command),
			       "for i in 1 2 3 4 5; do cp '%s' '%s/new'$i.db;"
			       "done; sqlite3 '%s' 'INSERT INTO t (b) VALUES "
			       "(zeroblob(30000000))'",
			       w->path, w->dir, w->path);
		assert_int_equal(system(command), 0);
	}
	between.in_run = take_a_turn;
	atomic_store(&between.go, true);
	start(w);
	/* By the settling thread, in turns with the large one. */
	for (int i = 1; i <= 5; i++) {
		char name[16];

		(void)snprintf(name, sizeof(name), "new%d.db", i);
		while (capture_seal(w->capture, name, NULL) != 1) {
			assert_true(clock_monotonic_ms() < until);
			clock_sleep_ms(1);
		}
	}
	assert_true(status_of(w).comparing);
	assert_in_range(status_of(w).compared, 1, status_of(w).commit - 1);
	nothing_in_between();
	check(w);
}

/* --------------------------------------------------- without a journal (D10) */

static void begin_asking(struct world *w)
{
	w->writer = ask_kernel;
	w->lock_fd = openat(w->dirfd, "app.db", O_RDWR | O_CREAT | O_CLOEXEC,
			    0644);
	assert_true(w->lock_fd >= 0);
	start(w);
}

static void wait_sealed(struct world *w, int64_t limit_ms)
{
	int64_t until = clock_monotonic_ms() + limit_ms;

	while (capture_seal(w->capture, "app.db", NULL) != 1) {
		assert_true(clock_monotonic_ms() < until);
		clock_sleep_ms(2);
	}
}

static void a_transaction_without_a_journal_is_sealed_when_it_ends(void **state)
{
	static const char *const modes[] = { "MEMORY", "OFF" };
	struct world *w;
	void *other;

	for (int i = 0; i < 2; i++) {
		char text[128];

		(void)set_up(&other);
		w = other;
		/* Were it the quiet time that counted, this would fail. */
		w->quiet_ms = 600000;
		begin_asking(w);
		sql(w, "PRAGMA page_size=512; PRAGMA cache_size=10;"
		       "CREATE TABLE t (a, b);"
		       "INSERT INTO t VALUES (1, randomblob(90000))");
		check(w);
		(void)snprintf(text, sizeof(text), "PRAGMA journal_mode=%s",
			       modes[i]);
		sql(w, text);
		atomic_store(&w->asked, 0);
		sql(w, "BEGIN; UPDATE t SET b = randomblob(90000)");
		while (atomic_load(&w->asked) < 8)
			clock_sleep_ms(1);
		assert_int_equal(capture_seal(w->capture, "app.db", NULL), 0);
		assert_non_null(strstr(status_of(w).waits,
				       "transaction without a journal"));
		sql(w, "COMMIT");
		wait_sealed(w, 5000);
		assert_true(chain_follow(&w->chain, w->spool));
		assert_true(chain_equals(&w->chain, w->path));
		(void)tear_down(&other);
	}
}

static void a_transaction_that_pauses_after_a_spill_is_never_sealed_half(void **state)
{
	struct world *w = *state;
	uint64_t txid;

	/* Without the question, this pause would be taken for the end. */
	w->quiet_ms = 1;
	begin_asking(w);
	sql(w, "PRAGMA page_size=512; PRAGMA cache_size=10;"
	       "PRAGMA journal_mode=MEMORY; CREATE TABLE t (a, b);"
	       "INSERT INTO t VALUES (1, randomblob(90000))");
	settle(w);
	txid = status_of(w).txid;
	sql(w, "BEGIN; UPDATE t SET b = randomblob(90000)");
	for (int i = 0; i < 30; i++) {
		clock_sleep_ms(5);
		(void)capture_settle(w->capture, "app.db", NULL);
	}
	assert_int_equal(status_of(w).txid, txid);
	sql(w, "UPDATE t SET a = 2; COMMIT");
	check(w);
	assert_int_equal(w->chain.txid, txid + 1);
}

/*
 * First somebody is in a transaction, so that no quiet time is due after it.
 * Then it is over; but the next one begins before the answer is there.
 */
static int ask_too_early(void *arg, const char *path)
{
	struct world *w = arg;
	int answer = ask_kernel(arg, path);

	if (atomic_load(&w->asked) == 1)
		return 1;
	if (answer == 0 && !atomic_exchange(&w->too_early, true))
		sql(w, "BEGIN; UPDATE t SET b = randomblob(90000)");
	return answer;
}

static void a_write_that_begins_while_it_is_asked_counts(void **state)
{
	struct world *w = *state;
	uint64_t txid;

	w->quiet_ms = 1;
	begin_asking(w);
	sql(w, "PRAGMA page_size=512; PRAGMA cache_size=10;"
	       "CREATE TABLE t (a, b);"
	       "INSERT INTO t VALUES (1, randomblob(90000))");
	check(w);
	txid = w->chain.txid;
	stop(w);
	w->writer = ask_too_early;
	start(w);
	atomic_store(&w->asked, 0);
	sql(w, "PRAGMA journal_mode=MEMORY; PRAGMA cache_size=10");
	sql(w, "UPDATE t SET a = 2");
	for (int i = 0; i < 100 || !atomic_load(&w->too_early); i++) {
		(void)capture_seal(w->capture, "app.db", NULL);
		clock_sleep_ms(1);
	}
	assert_int_equal(status_of(w).txid, txid);
	sql(w, "COMMIT");
	check(w);
}

/* In every run's middle, a transaction that does not end before the next. */
static void transact_in_between(struct world *w)
{
	if (!sqlite3_get_autocommit(w->db))
		sql(w, "COMMIT");
	if (rand_r(&w->random) % 4)
		sql(w, "BEGIN; UPDATE t SET b = randomblob(400) WHERE id % 5 = 1");
}

static void writes_without_a_journal_in_the_middle_of_every_run_are_found(void **state)
{
	struct world *w = *state;

	make_unclean(w, "DELETE");
	w->quiet_ms = 1;
	begin_asking(w);
	sql(w, "PRAGMA journal_mode=MEMORY; PRAGMA cache_size=10");
	between.in_run = transact_in_between;
	atomic_store(&between.go, true);
	for (int i = 0; i < 200 && status_of(w).resync; i++)
		clock_sleep_ms(5);
	nothing_in_between();
	if (!sqlite3_get_autocommit(w->db))
		sql(w, "COMMIT");
	check(w);
}

/* stderr, into a file. */
static int divert_log(struct world *w)
{
	int kept = dup(STDERR_FILENO);
	int fd = openat(w->dirfd, "log", O_WRONLY | O_CREAT | O_APPEND, 0600);

	assert_true(dup2(fd, STDERR_FILENO) >= 0);
	(void)close(fd);
	return kept;
}

static unsigned count_in_log(struct world *w, const char *text)
{
	char data[20000];
	int fd = openat(w->dirfd, "log", O_RDONLY);
	ssize_t n = read(fd, data, sizeof(data) - 1);
	unsigned count = 0;

	(void)close(fd);
	data[n > 0 ? n : 0] = '\0';
	for (const char *at = data; (at = strstr(at, text)); at++)
		count++;
	return count;
}

static void a_lock_that_is_never_free_is_told_once(void **state)
{
	struct world *w = *state;
	int kept;

	w->quiet_ms = 3;
	begin_asking(w);
	kept = divert_log(w);
	log_set_level(LOG_WARN);
	sql(w, "CREATE TABLE t (a, b)");
	check(w);
	sql(w, "PRAGMA journal_mode=MEMORY; PRAGMA locking_mode=EXCLUSIVE");
	for (int i = 0; i < 60; i++) {
		sql(w, "INSERT INTO t VALUES (1, 2)");
		clock_sleep_ms(10);
	}
	assert_int_equal(count_in_log(w, "locking_mode=EXCLUSIVE"), 1);
	assert_non_null(strstr(status_of(w).waits, "locking_mode=EXCLUSIVE"));
	assert_int_equal(status_of(w).txid, 1);
	(void)sqlite3_close(w->db);
	w->db = NULL;
	check(w);
	assert_string_equal(status_of(w).waits, "");
	(void)dup2(kept, STDERR_FILENO);
	(void)close(kept);
}

static void a_comparison_is_told_with_its_reason_and_its_result(void **state)
{
	struct world *w = *state;
	int kept;

	make_unclean(w, "DELETE");
	kept = divert_log(w);
	log_set_level(LOG_INFO);
	start(w);
	check(w);
	assert_int_equal(count_in_log(w, "msg=\"comparing database\""), 1);
	assert_int_equal(count_in_log(w, "not left by a clean stop"), 1);
	assert_int_equal(count_in_log(w, "msg=\"database compared\""), 1);
	assert_int_equal(count_in_log(w, "differed=0"), 0);
	assert_int_equal(count_in_log(w, "txid=0000000000000002"), 1);
	stop(w);
	/* Nothing is compared, so nothing is told. */
	start(w);
	clock_sleep_ms(50);
	assert_int_equal(count_in_log(w, "compar"), 2);
	stop(w);
	run_sql(w->db = open_by(w, "unix"), "DELETE FROM t");
	(void)sqlite3_close(w->db);
	w->db = NULL;
	start(w);
	check(w);
	assert_int_equal(count_in_log(w, "changed while not mounted"), 1);
	log_set_level(LOG_ERROR);
	(void)dup2(kept, STDERR_FILENO);
	(void)close(kept);
}

/* ------------------------------------------------------- a copy that goes on */

static struct capture_file *copy_file;
static int copy_from, copy_to;
static uint64_t copy_at;

static void copy_a_piece(struct world *w)
{
	static char piece[16384];
	ssize_t n = pread(copy_from, piece, sizeof(piece), (off_t)copy_at);

	if (n <= 0)
		return;
	assert_int_equal(capture_write(copy_file, copy_to, piece, (size_t)n,
				       copy_at),
			 n);
	copy_at += (uint64_t)n;
}

static void a_copy_over_a_database_is_one_batch(void **state)
{
	struct world *w = *state;
	uint64_t txid;

	make_unclean(w, "DELETE");
	make_other(w);
	w->quiet_ms = 100;
	start(w);
	check(w);
	txid = w->chain.txid;
	copy_at = 0;
	copy_from = openat(w->dirfd, "other", O_RDONLY);
	copy_to = openat(w->dirfd, "app.db", O_RDWR);
	assert_int_equal(capture_file_get(w->capture, "app.db", &copy_file), 0);
	capture_opened(copy_file, true);
	/* Some of it; and while that is looked at, the rest. */
	for (int i = 0; i < 40; i++)
		copy_a_piece(w);
	between.in_run = copy_a_piece;
	atomic_store(&between.go, true);
	clock_sleep_ms(200);
	assert_int_equal(capture_seal(w->capture, "app.db", NULL), 0);
	nothing_in_between();
	for (int i = 0; i < 200; i++)
		copy_a_piece(w);
	assert_int_equal(capture_truncate(copy_file, copy_to, copy_at), 0);
	capture_closed(copy_file, true);
	capture_file_put(copy_file);
	(void)close(copy_from);
	(void)close(copy_to);
	check(w);
	assert_int_equal(w->chain.txid, txid + 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			commits_in_the_middle_of_every_run_disturb_nothing),
		cmocka_unit_test(what_changes_every_page_begins_it_again),
		cmocka_unit_test(
			a_writer_that_never_stops_does_not_keep_it_from_its_end),
		TEST(a_start_reads_no_page_itself),
		TEST(a_run_that_cannot_be_read_is_read_again),
		TEST(a_huge_transaction_is_not_carried_by_its_commit),
		TEST(huge_transactions_without_a_pause_are_sealed),
		TEST(after_a_clean_stop_no_page_of_a_large_database_is_read),
		TEST(one_large_database_does_not_keep_the_others),
		cmocka_unit_test(
			a_transaction_without_a_journal_is_sealed_when_it_ends),
		TEST(a_write_that_begins_while_it_is_asked_counts),
		TEST(a_transaction_that_pauses_after_a_spill_is_never_sealed_half),
		TEST(writes_without_a_journal_in_the_middle_of_every_run_are_found),
		TEST(a_lock_that_is_never_free_is_told_once),
		TEST(a_comparison_is_told_with_its_reason_and_its_result),
		TEST(a_copy_over_a_database_is_one_batch),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
