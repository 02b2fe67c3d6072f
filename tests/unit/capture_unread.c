/* What capture may not read is told, and taken up once it may be read. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "capture/capture.h"

enum { NOBODY = 65534 };

struct world {
	char dir[64];
	int dirfd;
	struct capture *capture;
	char shown[4096]; /* by the last capture_each: "path: error\n" */
};

static int64_t on_now(void *arg)
{
	return clock_wall_ms();
}

static void path_of(struct world *w, const char *name, char ret[128])
{
	(void)snprintf(ret, 128, "%s/%s", w->dir, name);
}

static void make_db(struct world *w, const char *name, mode_t mode)
{
	char path[128];
	sqlite3 *db;

	path_of(w, name, path);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "CREATE TABLE t (x)", NULL, NULL,
				      NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	assert_int_equal(chmod(path, mode), 0);
}

/* Root may read everything, so this is somebody else's test. */
static int set_up(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	log_set_level(LOG_ERROR);
	strcpy(w->dir, "/tmp/litebucket-unread-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	if (geteuid() == 0) {
		assert_int_equal(chown(w->dir, NOBODY, NOBODY), 0);
		assert_int_equal(seteuid(NOBODY), 0);
	}
	w->dirfd = open(w->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(w->dirfd >= 0);
	*state = w;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type,
		      struct FTW *walk)
{
	return remove(path);
}

static int tear_down(void **state)
{
	struct world *w = *state;

	capture_close(w->capture);
	close(w->dirfd);
	assert_return_code(seteuid(getuid()), errno);
	nftw(w->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	free(w);
	return 0;
}

static void start(struct world *w)
{
	const struct capture_config config = {
		.dirfd = w->dirfd,
		.now_ms = on_now,
		.quiet_ms = 20,
		.arg = w,
	};

	if (capture_open(&config, &w->capture) < 0)
		fail_msg("capture_open: %s", error_message());
}

static int show(const struct capture_status *status, void *arg)
{
	struct world *w = arg;
	size_t n = strlen(w->shown);

	(void)snprintf(w->shown + n, sizeof(w->shown) - n, "%s: %s\n",
		       status->path, status->error);
	return 0;
}

static void assert_shown(struct world *w, const char *expected)
{
	w->shown[0] = '\0';
	assert_int_equal(capture_each(w->capture, show, w), 0);
	assert_string_equal(w->shown, expected);
}

#define CLOSED_FILE(path)                                                \
	path ": the file cannot be read (Permission denied), so if it "  \
	     "is a database it is not replicated\n"
#define CLOSED_DIRECTORY(path)                                           \
	path ": the directory cannot be read (Permission denied), so "   \
	     "what is in it is not replicated\n"

static void what_may_not_be_read_is_told_and_keeps_nothing_else(void **state)
{
	struct world *w = *state;

	make_db(w, "app.db", 0600);
	make_db(w, "secret.db", 0);
	assert_int_equal(mkdirat(w->dirfd, "closed", 0), 0);
	start(w);
	assert_shown(w, "app.db: \n" CLOSED_DIRECTORY("closed")
			CLOSED_FILE("secret.db"));
	/* And again, as often as somebody asks. */
	assert_shown(w, "app.db: \n" CLOSED_DIRECTORY("closed")
			CLOSED_FILE("secret.db"));
}

static void what_can_be_read_later_is_taken_up(void **state)
{
	struct world *w = *state;
	char path[128];
	uint64_t txid = 0;

	assert_int_equal(mkdirat(w->dirfd, "closed", 0700), 0);
	make_db(w, "closed/app.db", 0600);
	make_db(w, "secret.db", 0);
	path_of(w, "closed", path);
	assert_int_equal(chmod(path, 0), 0);
	start(w);
	assert_shown(w, CLOSED_DIRECTORY("closed") CLOSED_FILE("secret.db"));

	assert_int_equal(chmod(path, 0700), 0);
	path_of(w, "secret.db", path);
	assert_int_equal(chmod(path, 0600), 0);
	assert_shown(w, "");
	assert_true(capture_settle(w->capture, "secret.db", &txid) >= 0);
	assert_int_equal(txid, 1);
	assert_true(capture_settle(w->capture, "closed/app.db", &txid) >= 0);
	assert_int_equal(txid, 1);
	assert_shown(w, "closed/app.db: \nsecret.db: \n");
}

static void what_is_gone_is_forgotten(void **state)
{
	struct world *w = *state;

	make_db(w, "secret.db", 0);
	start(w);
	assert_shown(w, CLOSED_FILE("secret.db"));
	assert_int_equal(unlinkat(w->dirfd, "secret.db", 0), 0);
	assert_shown(w, "");
	make_db(w, "secret.db", 0);
	assert_shown(w, "");
}

static void what_belongs_to_a_database_is_not_told_beside_it(void **state)
{
	struct world *w = *state;

	make_db(w, "app.db", 0600);
	make_db(w, "app.db-shm", 0);
	start(w);
	assert_shown(w, "app.db: \n");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_may_not_be_read_is_told_and_keeps_nothing_else),
		TEST(what_can_be_read_later_is_taken_up),
		TEST(what_is_gone_is_forgotten),
		TEST(what_belongs_to_a_database_is_not_told_beside_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
