#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "capture/capture.h"
#include "ltx/header.h"
#include "ltx/spool.h"
#include "tests/lib/capture_vfs.h"
#include "tests/lib/chain.h"
#include "memory_dir.h"

/*
 * A directory whose spool is bounded, and a bucket that is away: a chain to
 * which batches go only when the test says so, as the uploader would send them.
 */
struct world {
	char dir[64];
	char path[96];
	int dirfd;
	struct capture *capture;
	struct spool *spool;
	bool hold;	    /* what is found at the start */
	struct chain chain; /* what the bucket has */
	sqlite3 *db;
};

enum { KIB = 1024, BOUND = 256 * KIB };

static void on_appeared(void *arg, const char *path, struct spool *spool,
			uint64_t confirmed)
{
	if (strcmp(path, "app.db") == 0)
		((struct world *)arg)->spool = spool;
}

static bool on_found(void *arg, const struct capture_found *found)
{
	return ((struct world *)arg)->hold;
}

static int64_t on_now(void *arg)
{
	return clock_wall_ms();
}

static void start(struct world *w, uint64_t bound)
{
	struct capture_config config = { .dirfd = w->dirfd,
					 .found = on_found,
					 .appeared = on_appeared,
					 .now_ms = on_now,
					 .quiet_ms = 5,
					 .spool_max = bound,
					 .arg = w };

	w->spool = NULL;
	if (capture_open(&config, &w->capture) < 0)
		fail_msg("capture_open: %s", error_message());
	capture_vfs_use(w->capture, w->dir, w->dirfd);
}

static void end(struct world *w)
{
	(void)sqlite3_close(w->db);
	w->db = NULL;
	capture_close(w->capture);
	w->capture = NULL;
}

static int set_up(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	log_set_level(LOG_ERROR + 1);
	strcpy(w->dir, memory_is_roomy() ?
			       "/dev/shm/litebucket-room.XXXXXX" :
			       "/tmp/litebucket-room.XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	(void)snprintf(w->path, sizeof(w->path), "%s/app.db", w->dir);
	w->dirfd = open(w->dir, O_RDONLY | O_DIRECTORY);
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;
	char command[128];

	end(w);
	chain_clear(&w->chain);
	(void)close(w->dirfd);
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", w->dir);
	(void)!system(command);
	free(w);
	return 0;
}

static void run(struct world *w, const char *text)
{
	char *message = NULL;

	if (sqlite3_exec(w->db, text, NULL, NULL, &message) != SQLITE_OK)
		fail_msg("%s: %s", text, message);
}

static void open_db(struct world *w, const char *mode)
{
	char text[256];

	if (sqlite3_open_v2(w->path, &w->db,
			    SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
			    "capture") != SQLITE_OK)
		fail_msg("sqlite3_open");
	(void)snprintf(text, sizeof(text),
		       "PRAGMA page_size=1024; PRAGMA journal_mode=%s;"
		       "PRAGMA wal_autocheckpoint=40;"
		       "CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY,"
		       " b)",
		       mode);
	run(w, text);
}

/* Change one of so many rows of 8 KiB that cannot be compressed. */
static void change(struct world *w, int i, int rows)
{
	char text[128];

	(void)snprintf(text, sizeof(text),
		       "INSERT OR REPLACE INTO t VALUES (%d, randomblob(8192))",
		       i % rows);
	run(w, text);
}

static struct capture_spool spool_now(struct world *w)
{
	struct capture_spool spool;

	capture_spool_status(w->capture, &spool);
	return spool;
}

static size_t batches(struct world *w, uint64_t *ret_bytes)
{
	size_t n = 0;

	assert_int_equal(spool_size(w->spool, ret_bytes, &n), 0);
	return n;
}

/* The uploader begins to send what comes next, and does not get far. */
static void claim_next(struct world *w)
{
	AUTO(fd) int fd = -1;

	assert_int_equal(spool_claim(w->spool, w->chain.txid + 1, &fd), 0);
}

/* The bucket takes one; false: there is no more. */
static bool send_one(struct world *w)
{
	uint64_t txid = w->chain.txid + 1;
	AUTO(fd) int fd = -1;
	int rc = spool_claim(w->spool, txid, &fd);

	/* Capture's thread is in the middle of replacing it. */
	for (int i = 0; rc == -EBUSY && i < 10000; i++) {
		clock_sleep_ms(2);
		rc = spool_claim(w->spool, txid, &fd);
	}
	if (rc == -ENOENT)
		return false;
	assert_int_equal(rc, 0);
	assert_true(chain_apply(&w->chain, txid, fd));
	assert_int_equal(spool_remove(w->spool, txid), 0);
	return true;
}

/* The bucket is back: everything arrives, in a chain, and nothing is missing. */
static void come_back(struct world *w)
{
	int64_t until = clock_monotonic_ms() + 20000;
	struct capture_point point;
	int rc;

	do {
		while (send_one(w))
			;
		rc = capture_sync(w->capture, "app.db", &point);
		if (rc < 0)
			clock_sleep_ms(2);
	} while (rc < 0 && clock_monotonic_ms() < until);
	if (rc < 0)
		fail_msg("sync: %s", error_message());
	while (send_one(w))
		;
	assert_int_equal(point.txid, w->chain.txid);
	assert_true(chain_equals(&w->chain, w->path));
	assert_int_equal(spool_now(w).used, 0);
}

static uint64_t checksum(struct world *w, uint64_t txid)
{
	AUTO(fd) int fd = -1;
	uint8_t data[LTX_HEADER_SIZE];
	struct ltx_header header;

	assert_int_equal(spool_open_batch(w->spool, txid, &fd), 0);
	assert_int_equal(io_pread(fd, data, sizeof(data), 0), sizeof(data));
	assert_int_equal(ltx_header_decode(data, &header), 0);
	return header.node_id;
}

static const char *const modes[] = { "DELETE", "WAL" };

/* Few pages change again and again: several times the bound, and it all fits. */
static void what_was_never_sent_becomes_one_batch(void **state)
{
	struct world *w = *state;

	for (int m = 0; m < 2; m++) {
		uint64_t bytes, first, merges = 0, last = 0, sent = 0;
		int64_t time_ms = 0;

		start(w, BOUND);
		open_db(w, modes[m]);
		change(w, 0, 5);
		assert_int_equal(capture_seal(w->capture, "app.db", NULL), 1);
		claim_next(w);
		sent = w->chain.txid + 1;
		first = checksum(w, sent);
		for (int i = 0; i < 150; i++) {
			struct capture_point point;

			change(w, i, 5);
			assert_true(capture_sync(w->capture, "app.db",
						 &point) == 1);
			merges += point.txid <= last;
			/* Numbers may go back, times do not. */
			assert_true(point.time_ms > time_ms);
			last = point.txid;
			time_ms = point.time_ms;
			(void)batches(w, &bytes);
			assert_true(bytes <= BOUND);
			assert_true(spool_now(w).used == bytes);
		}
		assert_true(merges > 2);
		assert_true(last < 100);
		assert_false(spool_now(w).full);
		/* The one that may have been sent is as it was (R12). */
		assert_int_equal(checksum(w, sent), first);
		come_back(w);
		end(w);
	}
}

/* All pages are new: merging makes no room, and nothing is sealed. */
static void what_does_not_fit_gathers_and_is_sealed_later(void **state)
{
	struct world *w = *state;
	uint64_t bytes;
	int refused = 0;

	start(w, BOUND);
	open_db(w, "WAL");
	assert_int_equal(capture_seal(w->capture, "app.db", NULL), 1);
	claim_next(w);
	for (int i = 0; i < 150; i++) {
		int rc;

		change(w, i, 1000);
		rc = capture_seal(w->capture, "app.db", NULL);
		assert_true(rc == 1 || rc == -EDQUOT);
		refused += rc < 0;
		(void)batches(w, &bytes);
		assert_true(bytes <= BOUND);
	}
	assert_true(refused > 100);
	assert_true(spool_now(w).full);
	assert_non_null(strstr(error_message(), "--spool-max-size"));
	come_back(w);
	assert_false(spool_now(w).full);
}

/* A bound that was lowered: what is beyond it goes, and is found again. */
static void what_is_beyond_the_bound_is_given_up(void **state)
{
	struct world *w = *state;

	for (int m = 0; m < 2; m++) {
		uint64_t bytes, sent, first;

		start(w, 0);
		open_db(w, modes[m]);
		change(w, 1000, 2000);
		assert_int_equal(capture_seal(w->capture, "app.db", NULL), 1);
		claim_next(w);
		sent = w->chain.txid + 1;
		first = checksum(w, sent);
		for (int i = 0; i < 60; i++) {
			change(w, i + 100 * m, 1000);
			assert_int_equal(
				capture_seal(w->capture, "app.db", NULL), 1);
		}
		if (m == 1)
			run(w, "DELETE FROM t WHERE id < 100; VACUUM");
		(void)batches(w, &bytes);
		assert_true(bytes > 400 * KIB);
		end(w);

		start(w, BOUND);
		for (int i = 0; i < 5000 && spool_now(w).used > BOUND; i++)
			clock_sleep_ms(2);
		(void)batches(w, &bytes);
		assert_int_equal(checksum(w, sent), first);
		assert_true(bytes <= BOUND + 512 * KIB);
		come_back(w);
		end(w);
	}
}

static void another_page_size_begins_anew(void **state)
{
	struct world *w = *state;
	uint64_t bytes;

	start(w, BOUND);
	open_db(w, "DELETE");
	assert_int_equal(capture_seal(w->capture, "app.db", NULL), 1);
	claim_next(w);
	for (int i = 0; i < 60; i++) {
		change(w, i, 5);
		if (i % 20 == 10)
			run(w, i < 30 ? "PRAGMA page_size=4096; VACUUM" :
					"PRAGMA page_size=512; VACUUM");
		assert_int_equal(capture_seal(w->capture, "app.db", NULL), 1);
		(void)batches(w, &bytes);
		assert_true(bytes <= BOUND);
	}
	come_back(w);
	assert_int_equal(w->chain.page_size, 512);
}

static void remove_db(struct world *w)
{
	(void)sqlite3_close(w->db);
	w->db = NULL;
	assert_int_equal(capture_unlink(w->capture, w->dirfd, "app.db",
					"app.db"),
			 0);
}

/* The last state before a drop is no intermediate one: it is kept. */
static void a_drop_keeps_what_was_before_it(void **state)
{
	struct world *w = *state;
	uint64_t drop;

	start(w, BOUND);
	open_db(w, "DELETE");
	assert_int_equal(capture_seal(w->capture, "app.db", NULL), 1);
	claim_next(w);
	change(w, 1, 5);
	assert_int_equal(capture_seal(w->capture, "app.db", NULL), 1);
	remove_db(w);
	drop = 3;
	open_db(w, "DELETE");
	for (int i = 0; i < 100; i++) {
		change(w, i, 5);
		assert_int_equal(capture_seal(w->capture, "app.db", NULL), 1);
	}
	while (w->chain.txid < drop - 1)
		assert_true(send_one(w));
	assert_false(w->chain.dropped);
	assert_true(w->chain.commit > 8);
	assert_true(send_one(w));
	assert_true(w->chain.dropped);
	come_back(w);
	assert_true(w->chain.txid < 60);
}

/* How a database was when it was removed: outside of the directory. */
static void copy_name(struct world *w, int life, char ret[128])
{
	(void)snprintf(ret, 128, "%s.life-%d", w->dir, life);
}

static void keep_copy(struct world *w, int life)
{
	char name[128], command[320];

	copy_name(w, life, name);
	(void)snprintf(command, sizeof(command), "cp '%s' '%s'", w->path, name);
	assert_int_equal(system(command), 0);
}

static bool next_is_drop(struct world *w)
{
	AUTO(fd) int fd = -1;
	uint8_t data[LTX_HEADER_SIZE];
	struct ltx_header header;

	if (spool_open_batch(w->spool, w->chain.txid + 1, &fd) < 0)
		return false;
	assert_int_equal(io_pread(fd, data, sizeof(data), 0), sizeof(data));
	assert_int_equal(ltx_header_decode(data, &header), 0);
	return header.kind == LTX_DROP;
}

/* Send all there is; before each drop the chain is as that life ended. */
static int send_lives(struct world *w)
{
	int life = 0;

	for (;;) {
		char name[128];

		copy_name(w, life, name);
		if (next_is_drop(w)) {
			assert_true(chain_equals(&w->chain, name));
			assert_int_equal(unlink(name), 0);
			life++;
		}
		if (!send_one(w))
			return life;
	}
}

/* A bound that is lowered afterwards: no file could tell how a life ended. */
static void how_lives_ended_is_not_given_up(void **state)
{
	struct world *w = *state;

	for (int gone = 0; gone < 2; gone++) {
		start(w, 0);
		open_db(w, "DELETE");
		change(w, 9, 20);
		assert_int_equal(capture_seal(w->capture, "app.db", NULL), 1);
		claim_next(w);
		for (int life = 0; life < 4; life++) {
			for (int i = 0; i < 20; i++)
				change(w, i, 20);
			assert_true(capture_seal(w->capture, "app.db", NULL) >=
				    0);
			keep_copy(w, life);
			remove_db(w);
			if (life < 3 || !gone)
				open_db(w, "DELETE");
		}
		if (!gone)
			change(w, 1, 5);
		end(w);

		start(w, BOUND);
		clock_sleep_ms(200);
		assert_true(spool_now(w).used > BOUND);
		assert_int_equal(send_lives(w), 4);
		if (gone)
			assert_true(w->chain.dropped);
		else
			come_back(w);
		end(w);
	}
}

static void fill_spool(struct world *w)
{
	int rc = 0;

	for (int i = 0; rc >= 0; i++) {
		change(w, i, 1000);
		rc = capture_seal(w->capture, "app.db", NULL);
	}
	assert_int_equal(rc, -EDQUOT);
}

/* There is no room for what it held at last, and there is no later look. */
static void a_removed_database_is_kept_beyond_the_bound(void **state)
{
	struct world *w = *state;

	for (int m = 0; m < 2; m++) {
		start(w, BOUND);
		open_db(w, modes[m]);
		assert_int_equal(capture_seal(w->capture, "app.db", NULL), 1);
		claim_next(w);
		fill_spool(w);
		run(w, "UPDATE t SET b = randomblob(8192) WHERE id < 3");
		if (m == 1)
			run(w, "PRAGMA wal_checkpoint(TRUNCATE)");
		keep_copy(w, 0);
		remove_db(w);
		assert_int_equal(send_lives(w), 1);
		assert_true(w->chain.dropped);
		assert_int_equal(spool_now(w).used, 0);
		end(w);
	}
}

/* However many come and go. */
static void removed_databases_do_not_fill_the_disk(void **state)
{
	struct world *w = *state;
	uint64_t bytes, most = 0;

	start(w, BOUND);
	open_db(w, "DELETE");
	assert_int_equal(capture_seal(w->capture, "app.db", NULL), 1);
	claim_next(w);
	for (int life = 0; life < 40; life++) {
		for (int i = 0; i < 10; i++)
			change(w, i, 10);
		remove_db(w);
		(void)batches(w, &bytes);
		most = bytes > most ? bytes : most;
		open_db(w, "DELETE");
	}
	assert_true(most > BOUND);
	assert_true(most < 3 * BOUND);
	come_back(w);
}

/* What was given up is back as it was: who waits for it is told nevertheless. */
static void a_difference_of_nothing_is_a_batch_too(void **state)
{
	struct world *w = *state;
	struct capture_point given_up, after;
	char command[300];
	int rc;

	start(w, 0);
	open_db(w, "DELETE");
	for (int i = 0; i < 20; i++)
		change(w, i, 40);
	assert_int_equal(capture_seal(w->capture, "app.db", NULL), 1);
	claim_next(w);
	(void)snprintf(command, sizeof(command), "cp '%s' '%s.x'", w->path,
		       w->dir);
	assert_int_equal(system(command), 0);
	for (int i = 0; i < 60; i++)
		change(w, i, 40);
	assert_int_equal(capture_sync(w->capture, "app.db", &given_up), 1);
	end(w);
	(void)snprintf(command, sizeof(command), "mv '%s.x' '%s'", w->dir,
		       w->path);
	assert_int_equal(system(command), 0);

	start(w, BOUND);
	for (int i = 0; i < 10000; i++) {
		rc = capture_sync(w->capture, "app.db", &after);
		if (rc >= 0 && spool_now(w).used <= BOUND)
			break;
		clock_sleep_ms(2);
	}
	come_back(w);
}

/* Whoever decides about a database reads its spool, and may replace all of it. */
static void what_is_held_is_no_room_yet(void **state)
{
	struct world *w = *state;

	start(w, 0);
	open_db(w, "DELETE");
	for (int i = 0; i < 60; i++) {
		change(w, i, 1000);
		assert_int_equal(capture_seal(w->capture, "app.db", NULL), 1);
	}
	assert_true(spool_now(w).used > BOUND);
	end(w);

	w->hold = true;
	start(w, BOUND);
	clock_sleep_ms(200);
	assert_true(spool_now(w).used > BOUND);
	assert_int_equal(capture_let_go(w->capture, "app.db"), 0);
	for (int i = 0; i < 5000 && spool_now(w).used > BOUND; i++)
		clock_sleep_ms(2);
	assert_true(spool_now(w).used <= BOUND);
	come_back(w);
}

/* ------------------------------------------------------- half of the way */

/* Something in the way of the file that a batch is sealed in, or no more. */
static void block_sealing(struct world *w, bool on)
{
	char command[256];

	(void)snprintf(command, sizeof(command),
		       "for d in '%s'/.litebucket/db/*; do %s "
		       "\"$d/sealing.ltx\"; done",
		       w->dir, on ? "mkdir" : "rmdir");
	assert_int_equal(system(command), 0);
}

/* What is closed, and could not be written, is not part of what is merged. */
static void a_batch_that_could_not_be_written_outlives_merging(void **state)
{
	struct world *w = *state;

	start(w, BOUND);
	open_db(w, "DELETE");
	change(w, 0, 5);
	assert_int_equal(capture_seal(w->capture, "app.db", NULL), 1);
	claim_next(w);
	for (int i = 0; i < 14; i++) {
		change(w, i, 5);
		assert_int_equal(capture_seal(w->capture, "app.db", NULL), 1);
	}
	block_sealing(w, true);
	change(w, 3, 5);
	assert_true(capture_seal(w->capture, "app.db", NULL) < 0);
	block_sealing(w, false);
	run(w, "BEGIN");
	for (int i = 10; i < 24; i++)
		change(w, i, 1000);
	run(w, "COMMIT");
	(void)capture_seal(w->capture, "app.db", NULL);
	come_back(w);
}

/* What is given up, and still there, is not sent: its TXIDs are given again. */
static void what_could_not_be_removed_is_not_sent(void **state)
{
	struct world *w = *state;
	char name[300];
	uint64_t last = 0;

	start(w, 0);
	open_db(w, "DELETE");
	for (int i = 0; i < 60; i++) {
		change(w, i, 1000);
		assert_int_equal(capture_seal(w->capture, "app.db", &last), 1);
	}
	end(w);
	/* The last batch is one that cannot be unlinked. */
	(void)snprintf(name, sizeof(name),
		       "cd '%s'/.litebucket/db/*/spool && rm %016" PRIx64
		       "-* && mkdir %016" PRIx64 "-%016" PRIx64 ".ltx",
		       w->dir, last, last, last);
	assert_int_equal(system(name), 0);

	start(w, BOUND);
	clock_sleep_ms(300);
	for (int i = 0; i < 50; i++) {
		AUTO(fd) int fd = -1;

		assert_int_equal(spool_claim(w->spool, 2, &fd), -EBUSY);
		clock_sleep_ms(2);
	}
	/* As large as it was counted. */
	(void)snprintf(name, sizeof(name),
		       "cd '%s'/.litebucket/db/*/spool && "
		       "f=%016" PRIx64 "-%016" PRIx64 ".ltx && "
		       "n=$(stat -c %%s $f) && rmdir $f && truncate -s $n $f",
		       w->dir, last, last);
	assert_int_equal(system(name), 0);
	(void)capture_seal(w->capture, "app.db", NULL);
	come_back(w);
}

/* ------------------------------------------------------------- while sent */

struct sender {
	struct world *w;
	pthread_t thread;
	_Atomic int stop;
};

static void *send_all(void *arg)
{
	struct sender *s = arg;

	while (!s->stop) {
		AUTO(fd) int fd = -1;
		uint64_t txid = s->w->chain.txid + 1;
		int rc = spool_claim(s->w->spool, txid, &fd);

		if (rc == 0) {
			assert_true(chain_apply(&s->w->chain, txid, fd));
			assert_int_equal(spool_remove(s->w->spool, txid), 0);
			clock_sleep_ms(3);
		} else {
			assert_true(rc == -ENOENT || rc == -EBUSY);
			clock_sleep_ms(1);
		}
	}
	return NULL;
}

/* The bucket is slow, not away: who is faster is decided batch by batch. */
static void sending_and_merging_do_not_meet(void **state)
{
	struct world *w = *state;
	struct sender s = { .w = w };
	uint64_t bytes;

	start(w, 64 * KIB);
	open_db(w, "WAL");
	assert_int_equal(capture_seal(w->capture, "app.db", NULL), 1);
	assert_int_equal(pthread_create(&s.thread, NULL, send_all, &s), 0);
	for (int i = 0; i < 400; i++) {
		int rc;

		change(w, i, 4);
		rc = capture_seal(w->capture, "app.db", NULL);
		assert_true(rc >= 0 || rc == -EDQUOT);
		(void)batches(w, &bytes);
		assert_true(bytes <= 64 * KIB);
	}
	s.stop = 1;
	(void)pthread_join(s.thread, NULL);
	come_back(w);
}

/* ------------------------------------------------------------------ kills */

/* In the child: merge, then give up. */
static _Noreturn void fill(struct world *w, const char *mode, uint64_t bound,
			   bool is_kept)
{
	uint64_t bytes;

	start(w, bound);
	open_db(w, mode);
	change(w, 6, 100);
	(void)capture_seal(w->capture, "app.db", NULL);
	if (!is_kept)
		claim_next(w);
	for (int i = 0; i < 60; i++) {
		change(w, i, 5);
		(void)capture_seal(w->capture, "app.db", NULL);
	}
	for (int i = 0; i < 80; i++)
		change(w, i, 80);
	(void)capture_seal(w->capture, "app.db", NULL);
	end(w);

	start(w, 64 * KIB);
	for (int i = 0; i < 5000 && batches(w, &bytes) > 1; i++)
		clock_sleep_ms(2);
	_exit(0);
}

static bool fill_until(struct world *w, const char *mode, uint64_t bound,
		       const char *point, int pass)
{
	char armed[64];
	int status;
	pid_t pid;

	(void)snprintf(armed, sizeof(armed), "%s:kill:%d", point, pass);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		(void)setenv("LITEBUCKET_FAILPOINT", armed, 1);
		fill(w, mode, bound, pass > 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status))
		assert_int_equal(WEXITSTATUS(status), 0);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

static void a_kill_at_any_point_of_making_room_loses_nothing(void **state)
{
	static const struct {
		const char *point;
		int passes;	/* how often it is certainly reached */
		uint64_t bound; /* at first */
	} points[] = {
		{ "room-merged", 2, BOUND },
		{ "seal-pages", 40, BOUND },
		{ "seal-position", 40, BOUND },
		{ "room-cut", 2, BOUND },
		{ "room-superseded", 2, BOUND },
		{ "room-pages", 1, 0 },
		{ "room-position", 1, 0 },
	};
	struct world *w = *state;

#ifndef LITEBUCKET_FAILPOINTS
	skip();
#endif
	for (size_t m = 0; m < 2; m++)
		for (size_t p = 0; p < sizeof(points) / sizeof(*points); p++)
			for (int pass = 1; pass <= points[p].passes;
			     pass += points[p].passes > 2 ? 13 : 1) {
				if (!fill_until(w, modes[m], points[p].bound,
						points[p].point, pass))
					fail_msg("%s:%d is not reached",
						 points[p].point, pass);
				start(w, BOUND);
				come_back(w);
				end(w);
			}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		/* Before there are threads: it forks. */
		TEST(a_kill_at_any_point_of_making_room_loses_nothing),
		TEST(what_was_never_sent_becomes_one_batch),
		TEST(what_does_not_fit_gathers_and_is_sealed_later),
		TEST(what_is_beyond_the_bound_is_given_up),
		TEST(another_page_size_begins_anew),
		TEST(a_drop_keeps_what_was_before_it),
		TEST(how_lives_ended_is_not_given_up),
		TEST(a_removed_database_is_kept_beyond_the_bound),
		TEST(removed_databases_do_not_fill_the_disk),
		TEST(a_difference_of_nothing_is_a_batch_too),
		TEST(sending_and_merging_do_not_meet),
		TEST(what_is_held_is_no_room_yet),
		TEST(a_batch_that_could_not_be_written_outlives_merging),
		TEST(what_could_not_be_removed_is_not_sent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
