/* Fortified headers overload the functions that stand in for the C library's. */
#undef _FORTIFY_SOURCE

#include <dlfcn.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "capture/capture.h"
#include "ltx/spool.h"
#include "tests/lib/capture_vfs.h"
#include "tests/lib/chain.h"
#include "memory_dir.h"

/*
 * Capture's own system calls fail, one after the other
 * ====================================================
 *
 * The functions below stand before those of the C library, and fail those
 * calls that capture makes for itself: on files of its state directory, and
 * on the descriptors by which it reads the database and the WAL.  What the
 * application does is never failed.  Whatever fails, nothing may be sealed
 * that is not committed, and all is captured once nothing fails any more.
 *
 * LITEBUCKET_FAULTS_ALL=1 fails each call in turn, and not ever fewer of them;
 * LITEBUCKET_FAULT=N only that one.
 */
static struct {
	atomic_int countdown; /* fails when it gets to 0 */
	atomic_bool lasting;  /* and all further calls */
	int error;
	atomic_int failed;
} fault;

static bool strikes(void)
{
	int left = atomic_fetch_sub(&fault.countdown, 1);

	if (left > 1 || (left < 1 && !atomic_load(&fault.lasting)))
		return false;
	atomic_fetch_add(&fault.failed, 1);
	errno = fault.error;
	return true;
}

static bool is_armed(void)
{
	return atomic_load(&fault.countdown) > 0 || atomic_load(&fault.lasting);
}

/* Is this a descriptor of capture's? */
static bool is_ours(int fd)
{
	char link[64], path[4096];
	ssize_t n;

	if (!is_armed())
		return false;
	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	if (n < 0)
		return false;
	path[n] = '\0';
	if (strstr(path, "/.litebucket"))
		return true;
	/* SQLite reads by descriptors that can write, but for a journal. */
	return strstr(path, "/app.db") && !strstr(path, "-journal") &&
	       (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t pwrite64(int fd, const void *data, size_t n, off64_t offset)
{
	return is_ours(fd) && strikes() ? -1
					: REAL(pwrite64)(fd, data, n, offset);
}

ssize_t pread64(int fd, void *data, size_t n, off64_t offset)
{
	return is_ours(fd) && strikes() ? -1
					: REAL(pread64)(fd, data, n, offset);
}

int ftruncate64(int fd, off64_t size)
{
	return is_ours(fd) && strikes() ? -1 : REAL(ftruncate64)(fd, size);
}

int fsync(int fd)
{
	return is_ours(fd) && strikes() ? -1 : REAL(fsync)(fd);
}

int fdatasync(int fd)
{
	return is_ours(fd) && strikes() ? -1 : REAL(fdatasync)(fd);
}

int openat64(int dirfd, const char *path, int flags, ...)
{
	va_list args;
	mode_t mode;

	va_start(args, flags);
	mode = va_arg(args, mode_t);
	va_end(args);
	if (is_armed() && strncmp(path, "app.db-journal", 14) != 0 && strikes())
		return -1;
	return REAL(openat64)(dirfd, path, flags, mode);
}

int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
	return is_armed() && strikes()
		       ? -1
		       : REAL(renameat)(from_dir, from, to_dir, to);
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to,
	      unsigned flags)
{
	return is_armed() && strikes()
		       ? -1
		       : REAL(renameat2)(from_dir, from, to_dir, to, flags);
}

void *mmap64(void *at, size_t n, int protection, int flags, int fd,
	     off64_t offset)
{
	return fd >= 0 && is_ours(fd) && strikes()
		       ? MAP_FAILED
		       : REAL(mmap64)(at, n, protection, flags, fd, offset);
}

static void arm(int countdown, bool lasting, int error)
{
	fault.error = error;
	atomic_store(&fault.failed, 0);
	atomic_store(&fault.lasting, lasting);
	atomic_store(&fault.countdown, countdown);
}

static void disarm(void)
{
	atomic_store(&fault.countdown, 0);
	atomic_store(&fault.lasting, false);
}

/* ------------------------------------------------------------- the world */

struct world {
	char dir[64];
	char path[96];
	int dirfd;
	struct capture *capture;
	_Atomic(struct spool *) spool;
	struct chain chain;
	sqlite3 *db;
};

static void on_appeared(void *arg, const char *path, struct spool *spool,
			uint64_t confirmed)
{
	((struct world *)arg)->spool = spool;
}

static int64_t on_now(void *arg)
{
	return clock_wall_ms();
}

static void start(struct world *w)
{
	struct capture_config config = { .dirfd = w->dirfd,
					 .appeared = on_appeared,
					 .now_ms = on_now,
					 .quiet_ms = 5,
					 .arg = w };

	w->spool = NULL;
	if (capture_open(&config, &w->capture) < 0)
		fail_msg("capture_open: %s", error_message());
	capture_vfs_use(w->capture, w->dir, w->dirfd);
}

static void begin(struct world *w)
{
	memset(w, 0, sizeof(*w));
	strcpy(w->dir, memory_is_roomy() ? "/dev/shm/faults.XXXXXX"
						     : "/tmp/faults.XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	(void)snprintf(w->path, sizeof(w->path), "%s/app.db", w->dir);
	w->dirfd = open(w->dir, O_RDONLY | O_DIRECTORY);
	start(w);
}

static void end(struct world *w)
{
	char command[128];

	capture_close(w->capture);
	chain_clear(&w->chain);
	(void)close(w->dirfd);
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", w->dir);
	(void)!system(command);
}

static void open_db(struct world *w)
{
	if (sqlite3_open_v2(w->path, &w->db,
			    SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
			    "capture") != SQLITE_OK)
		fail_msg("sqlite3_open");
}

static int see_doubt(const struct capture_status *status, void *arg)
{
	*(bool *)arg |= status->resync;
	return 0;
}

/*
 * The judge's own calls are not to fail.  While something newer is (or was) in
 * doubt, what an earlier try left over is sealed alone.
 */
static void judge(struct world *w, bool doubt)
{
	int countdown = atomic_exchange(&fault.countdown, 0);
	bool lasting = atomic_exchange(&fault.lasting, false);

	assert_int_equal(capture_each(w->capture, see_doubt, &doubt), 0);
	assert_true(chain_follow(&w->chain, w->spool));
	assert_true(doubt || chain_equals_meanwhile(&w->chain, w->path));
	atomic_store(&fault.lasting, lasting);
	atomic_store(&fault.countdown, countdown);
}

static const char *const statements[] = {
	"CREATE TABLE t (id INTEGER PRIMARY KEY, a, b)",
	"INSERT INTO t (a, b) VALUES (1, randomblob(30000))",
	"INSERT INTO t (a, b) VALUES (1, randomblob(1500000))",
	"BEGIN; UPDATE t SET b = randomblob(40000); ROLLBACK",
	"UPDATE t SET a = 2; PRAGMA wal_checkpoint",
	"DELETE FROM t WHERE id = 2",
	"VACUUM",
	"PRAGMA wal_checkpoint(TRUNCATE)",
	"INSERT INTO t (a, b) VALUES (3, randomblob(60000))",
};

static void work(struct world *w, const char *mode)
{
	char text[128];

	open_db(w);
	(void)snprintf(text, sizeof(text),
		       "PRAGMA page_size=1024; PRAGMA journal_mode=%s;"
		       "PRAGMA cache_size=20; PRAGMA wal_autocheckpoint=30",
		       mode);
	for (int i = -1; i < 9; i++) {
		char *message = NULL;
		bool doubt = false;

		/* No error of capture's ever reaches the application. */
		if (sqlite3_exec(w->db, i < 0 ? text : statements[i], NULL,
				 NULL, &message) != SQLITE_OK)
			fail_msg("%s", message);
		(void)capture_each(w->capture, see_doubt, &doubt);
		if (i % 3 != 1 && capture_seal(w->capture, "app.db", NULL) == 1)
			judge(w, doubt);
		if (i % 4 == 3)
			(void)capture_settle(w->capture, "app.db", NULL);
	}
	(void)sqlite3_close(w->db);
}

static void recover(struct world *w)
{
	int64_t until = clock_monotonic_ms() + 20000;
	int rc;

	do {
		clock_sleep_ms(1);
		rc = capture_settle(w->capture, "app.db", NULL);
	} while (rc < 0 && clock_monotonic_ms() < until);
	if (rc < 0)
		fail_msg("settle: %s", error_message());
	assert_true(chain_follow(&w->chain, w->spool));
	assert_true(chain_equals(&w->chain, w->path));
}

/* One run with the n-th call failing; false: there are not that many. */
static bool run_with_fault(const char *mode, int n, bool lasting, int error)
{
	struct world w;
	bool failed;

	begin(&w);
	arm(n, lasting, error);
	work(&w, mode);
	failed = atomic_load(&fault.failed) > 0;
	disarm();
	recover(&w);
	/* And what it left on disk fits together. */
	capture_close(w.capture);
	start(&w);
	recover(&w);
	end(&w);
	return failed;
}

static void sweep(bool lasting, int error)
{
	static const char *const modes[] = { "PERSIST", "DELETE", "WAL" };
	const char *first = getenv("LITEBUCKET_FAULT");
	bool all = getenv("LITEBUCKET_FAULTS_ALL") != NULL;

	log_set_level(LOG_ERROR + 1);
	for (size_t m = all ? 0 : 1; m < 3; m++)
		for (int n = first ? atoi(first) : 1;;
		     n += all ? 1 : 1 + n / 2) {
			if (getenv("LITEBUCKET_TRACE"))
				printf("%s fault %d\n", modes[m], n);
			if (!run_with_fault(modes[m], n, lasting, error) ||
			    first)
				break;
		}
}

static void one_failing_call_makes_nothing_wrong(void **state)
{
	sweep(false, EIO);
}

static void a_disk_that_stays_full_makes_nothing_wrong(void **state)
{
	sweep(true, ENOSPC);
}

static void files_that_are_missing_for_once_make_nothing_wrong(void **state)
{
	sweep(false, ENOENT);
}

static void a_call_that_would_block_makes_nothing_wrong(void **state)
{
	sweep(false, EAGAIN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_failing_call_makes_nothing_wrong),
		cmocka_unit_test(a_disk_that_stays_full_makes_nothing_wrong),
		cmocka_unit_test(
			files_that_are_missing_for_once_make_nothing_wrong),
		cmocka_unit_test(a_call_that_would_block_makes_nothing_wrong),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
