/*
 * A replica, its writer and SQLite's readers.  An original goes through some
 * states; each is kept as an image of its file, and a commit to the replica
 * is what differs between two images.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "ltx/dbsum.h"
#include "sqlite/replica.h"
#include "sqlite/shm.h"
#include "sqlite/wal.h"
#include "sqlite_tools.h"

enum { MAX_IMAGES = 64 };

struct image {
	uint8_t *data;
	size_t size;
	uint32_t page_size, pages;
	uint64_t sum;
};

struct world {
	char dir[64], original[80], replica[80];
	sqlite3 *db;
	struct image images[MAX_IMAGES];
	unsigned n;
};

static const struct replica_options options = { .wait_ms = 50 };

/* The size of a log of n frames. */
#define FRAMES(n, page_size) (32 + (uint64_t)(n) * (24 + (page_size)))

static int open_replica(const struct world *w, const struct replica_options *o,
			struct replica **ret)
{
	return replica_open(AT_FDCWD, w->replica, o, ret);
}

static struct replica *opened(const struct world *w)
{
	struct replica *r = NULL;
	int rc = open_replica(w, &options, &r);

	if (rc < 0)
		fail_msg("%s", error_message());
	return r;
}

static uint8_t *slurp(const char *path, size_t *ret_size)
{
	struct stat st;
	AUTO(fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint8_t *data;

	assert_true(fd >= 0 && fstat(fd, &st) == 0);
	data = malloc((size_t)st.st_size + 1);
	assert_int_equal(read(fd, data, (size_t)st.st_size), st.st_size);
	*ret_size = (size_t)st.st_size;
	return data;
}

/* What the original is now. */
static void take_image(struct world *w)
{
	struct image *i = &w->images[w->n++];

	assert_true(w->n <= MAX_IMAGES);
	i->data = slurp(w->original, &i->size);
	i->page_size = get_be16(i->data + 16);
	if (i->page_size == 1)
		i->page_size = 65536;
	i->pages = (uint32_t)(i->size / i->page_size);
	for (uint32_t p = 1; p <= i->pages; p++)
		i->sum += ltx_dbsum_page(
			p, i->data + (size_t)(p - 1) * i->page_size,
			i->page_size);
}

static void step(struct world *w, const char *sql)
{
	run(w->db, sql);
	take_image(w);
}

/* A transfer between two tables, and a counter. */
static void transfer(struct world *w)
{
	step(w, "BEGIN;"
		"UPDATE counter SET n = n + 1;"
		"INSERT INTO a(v, filler) SELECT n, randomblob(100) FROM counter;"
		"INSERT INTO b(v) SELECT -n FROM counter;"
		"UPDATE a SET filler = randomblob(200)"
		" WHERE id IN (SELECT id FROM a WHERE v > 0"
		" ORDER BY random() LIMIT 5);"
		"COMMIT");
}

static void write_replica(const struct world *w, unsigned image)
{
	AUTO(fd) int fd = open(w->replica, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	uint8_t format[2];

	assert_int_equal(write(fd, w->images[image].data, w->images[image].size),
			 w->images[image].size);
	assert_int_equal(replica_protect(fd, format), 0);
	assert_int_equal(format[0], 1);
}

static void begin(struct world *w, unsigned page_size)
{
	char sql[64];

	memset(w, 0, sizeof(*w));
	strcpy(w->dir, "/tmp/replica-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	(void)snprintf(w->original, sizeof(w->original), "%s/original", w->dir);
	(void)snprintf(w->replica, sizeof(w->replica), "%s/replica", w->dir);
	assert_int_equal(sqlite3_open(w->original, &w->db), SQLITE_OK);
	(void)snprintf(sql, sizeof(sql), "PRAGMA page_size = %u", page_size);
	run(w->db, sql);
	run(w->db, "PRAGMA synchronous = OFF;"
		   "CREATE TABLE counter(n);"
		   "INSERT INTO counter VALUES (0);"
		   "CREATE TABLE a(id INTEGER PRIMARY KEY, v, filler);"
		   "CREATE TABLE b(id INTEGER PRIMARY KEY, v)");
	transfer(w);
	write_replica(w, 0);
}

static void end(struct world *w)
{
	char command[128];

	(void)sqlite3_close(w->db);
	for (unsigned i = 0; i < w->n; i++)
		free(w->images[i].data);
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", w->dir);
	assert_int_equal(system(command), 0);
}

static bool page_differs(const struct image *from, const struct image *to,
			 uint32_t pgno)
{
	size_t at = (size_t)(pgno - 1) * to->page_size;

	return !from || from->page_size != to->page_size ||
	       at + to->page_size > from->size ||
	       memcmp(from->data + at, to->data + at, to->page_size) != 0;
}

/* The commit from one image to another; all of it if from is NULL. */
static int stage(struct replica *r, const struct image *from,
		 const struct image *to)
{
	int rc = replica_begin(r, to->page_size, to->pages);

	for (uint32_t p = 1; rc == 0 && p <= to->pages; p++)
		if (page_differs(from, to, p))
			rc = replica_put(
				r, p, to->data + (size_t)(p - 1) * to->page_size);
	return rc;
}

static int finish(struct replica *r, uint64_t sum)
{
	struct replica_mark mark;
	int rc = replica_prepare(r, sum, &mark);

	if (rc < 0) {
		replica_abort(r);
		return rc;
	}
	assert_true(sum == 0 || mark.sum == 0 || mark.sum == sum);
	return replica_commit(r);
}

static int commit(struct replica *r, const struct image *from,
		  const struct image *to)
{
	int rc = stage(r, from, to);

	if (rc < 0) {
		replica_abort(r);
		return rc;
	}
	return finish(r, to->sum);
}

static void knows(struct replica *r, const struct image *i)
{
	replica_set_sum(r, i->data + 18, i->sum);
}

static void commit_all(struct world *w, struct replica *r, unsigned from)
{
	for (unsigned i = from; i < w->n; i++)
		if (commit(r, &w->images[i - 1], &w->images[i]) < 0)
			fail_msg("%u: %s", i, error_message());
}

/* The file is this image but for its protection. */
static void assert_file_is(const struct world *w, const struct image *i)
{
	size_t size;
	AUTO(mem) uint8_t *data = slurp(w->replica, &size);

	assert_int_equal(size, i->size);
	assert_int_equal(data[18], 3);
	assert_int_equal(data[19], 2);
	memcpy(data + 18, i->data + 18, 2);
	assert_memory_equal(data, i->data, size);
}

static sqlite3 *reader(const struct world *w)
{
	sqlite3 *db;

	assert_int_equal(sqlite3_open(w->replica, &db), SQLITE_OK);
	sqlite3_busy_timeout(db, 5000);
	return db;
}

/* The counter, in a state that some commit made. */
static int64_t counter(sqlite3 *db)
{
	int64_t n;

	run(db, "BEGIN");
	n = ask(db, "SELECT n FROM counter");
	assert_int_equal(
		ask(db, "SELECT (SELECT sum(v) FROM a) + (SELECT sum(v) FROM b)"),
		0);
	assert_int_equal(ask(db, "SELECT count(*) FROM b"), n);
	assert_int_equal(
		ask(db, "SELECT integrity_check = 'ok' FROM pragma_integrity_check"),
		1);
	run(db, "COMMIT");
	return n;
}

static void readers_see_each_commit_at_once(void **state)
{
	static const unsigned sizes[] = { 512, 4096, 65536 };

	(void)state;
	for (unsigned s = 0; s < 3; s++) {
		struct world w;
		struct replica *r;
		sqlite3 *open;

		begin(&w, sizes[s]);
		for (int i = 0; i < 20; i++)
			transfer(&w);
		r = opened(&w);
		knows(r, &w.images[0]);
		open = reader(&w);
		for (unsigned i = 1; i < w.n; i++) {
			sqlite3 *new = reader(&w);

			assert_int_equal(
				commit(r, &w.images[i - 1], &w.images[i]), 0);
			assert_int_equal(counter(open), i + 1);
			assert_int_equal(counter(new), i + 1);
			sqlite3_close(new);
		}
		assert_int_equal(replica_close(r), 0);
		assert_file_is(&w, &w.images[w.n - 1]);
		assert_int_equal(counter(open), w.n);
		sqlite3_close(open);
		end(&w);
	}
}

/* The reader began in the database file alone, or in the log. */
static void snapshot_stays(bool in_log)
{
	static const struct replica_options small = {
		.max_bytes = FRAMES(8, 1024),
		.wait_ms = 1,
	};
	struct world w;
	struct replica *r = NULL;
	sqlite3 *old, *new;
	struct replica_state s;
	unsigned first = in_log ? 3 : 2;

	begin(&w, 1024);
	/* Pages that only the last commit changes, and nobody has read before. */
	step(&w, "WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL"
		 " SELECT i + 1 FROM s WHERE i < 300)"
		 " INSERT INTO a(id, v, filler)"
		 " SELECT 1000 + i, 0, 'old' || zeroblob(500) FROM s");
	write_replica(&w, 1);
	for (int i = 0; i < 30; i++)
		transfer(&w);
	step(&w, "UPDATE a SET filler = 'new' WHERE id > 1000");
	assert_int_equal(open_replica(&w, &small, &r), 0);
	if (in_log)
		assert_int_equal(commit(r, &w.images[1], &w.images[2]), 0);
	old = reader(&w);
	new = reader(&w);
	run(old, "BEGIN");
	assert_int_equal(ask(old, "SELECT n FROM counter"), first - 1);
	commit_all(&w, r, first);
	/* A checkpoint does what it may, of the last commit as well. */
	usleep(1100 * 1000);
	assert_int_equal(replica_tend(r), 0);
	assert_int_equal(ask(old, "SELECT n FROM counter"), first - 1);
	assert_int_equal(ask(old, "SELECT max(v) FROM a"), first - 1);
	assert_int_equal(ask(old, "SELECT count(*) FROM a"
				  " WHERE filler LIKE 'old%' AND id > 1000"),
			 300);
	assert_int_equal(counter(new), w.n - 2);
	replica_state(r, &s);
	assert_true(s.held_back && s.frames > 8 && replica_readers(r) == 1);
	run(old, "COMMIT");
	assert_int_equal(counter(old), w.n - 2);
	usleep(1100 * 1000);
	assert_int_equal(replica_tend(r), 1);
	replica_state(r, &s);
	assert_true(!s.held_back && s.frames == 0 && replica_readers(r) == 0);
	assert_file_is(&w, &w.images[w.n - 1]);
	assert_int_equal(counter(old), w.n - 2);
	sqlite3_close(old);
	sqlite3_close(new);
	replica_free(r);
	end(&w);
}

static void a_snapshot_stays_what_it_was(void **state)
{
	(void)state;
	snapshot_stays(false);
	snapshot_stays(true);
}

static void the_log_stays_short_between_readers(void **state)
{
	struct world w;
	struct replica *r = NULL;
	struct replica_state s;
	sqlite3 *db;

	(void)state;
	begin(&w, 1024);
	for (int i = 0; i < 50; i++)
		transfer(&w);
	assert_int_equal(
		open_replica(&w,
			     &(struct replica_options){
				     .max_bytes = FRAMES(20, 1024),
				     .wait_ms = 50 }, &r), 0);
	db = reader(&w);
	for (unsigned i = 1; i < w.n; i++) {
		assert_int_equal(commit(r, &w.images[i - 1], &w.images[i]), 0);
		assert_int_equal(counter(db), i + 1);
		replica_state(r, &s);
		assert_true(s.frames < 20 + 20);
	}
	sqlite3_close(db);
	assert_int_equal(replica_close(r), 0);
	end(&w);
}

/* The last read mark, which is at this place of the -shm (wal-index). */
enum { LAST_MARK = 96 + 4 + 4 * (SHM_READERS - 1) };

static void put_last_mark(int fd, uint32_t mark)
{
	assert_int_equal(pwrite(fd, &mark, sizeof(mark), LAST_MARK),
			 sizeof(mark));
}

static void assert_low_mark(int fd)
{
	uint32_t mark;

	assert_int_equal(pread(fd, &mark, sizeof(mark), LAST_MARK),
			 sizeof(mark));
	assert_int_equal(mark, 0);
}

/* Who may not set one, and has read a header that is no longer the last. */
static void a_late_reader_always_finds_a_mark(void **state)
{
	struct replica *r = NULL;
	struct world w;
	char path[96];
	int fd;

	(void)state;
	begin(&w, 1024);
	for (int i = 0; i < 50; i++)
		transfer(&w);
	assert_int_equal(
		open_replica(&w,
			     &(struct replica_options){
				     .max_bytes = FRAMES(20, 1024),
				     .wait_ms = 50 }, &r), 0);
	(void)snprintf(path, sizeof(path), "%s-shm", w.replica);
	fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	assert_low_mark(fd);
	for (unsigned i = 1; i < w.n; i++) {
		/* As another program's checkpoint does. */
		if (i % 3 == 0)
			put_last_mark(fd, UINT32_MAX);
		assert_int_equal(commit(r, &w.images[i - 1], &w.images[i]), 0);
		assert_low_mark(fd);
	}
	(void)close(fd);
	assert_int_equal(replica_close(r), 0);
	end(&w);
}

static void it_stands_still_before_its_log_is_endless(void **state)
{
	struct world w;
	struct replica *r = NULL;
	sqlite3 *db;
	int rc = 0;

	(void)state;
	begin(&w, 1024);
	for (int i = 0; i < 40; i++)
		transfer(&w);
	assert_int_equal(
		open_replica(&w,
			     &(struct replica_options){
				     .max_bytes = FRAMES(10, 1024),
				     .hard_bytes = FRAMES(30, 1024) }, &r),
		0);
	assert_int_equal(commit(r, &w.images[0], &w.images[1]), 0);
	db = reader(&w);
	run(db, "BEGIN");
	assert_int_equal(ask(db, "SELECT n FROM counter"), 2);
	unsigned i = 2;
	while (i < w.n && rc == 0) {
		rc = commit(r, &w.images[i - 1], &w.images[i]);
		i += rc == 0;
	}
	assert_int_equal(rc, -EAGAIN);
	assert_non_null(strstr(error_message(), "stands still"));
	assert_int_equal(ask(db, "SELECT n FROM counter"), 2);
	run(db, "COMMIT");
	assert_int_equal(counter(db), i);
	usleep(1100 * 1000);
	commit_all(&w, r, i);
	assert_int_equal(counter(db), w.n);
	sqlite3_close(db);
	replica_free(r);
	end(&w);
}

static void it_shrinks_and_changes_its_page_size(void **state)
{
	struct world w;
	struct replica *r;
	sqlite3 *open;
	int64_t n;

	(void)state;
	begin(&w, 1024);
	step(&w, "INSERT INTO a(v, filler) SELECT 0, zeroblob(9000) FROM b");
	step(&w, "BEGIN; DELETE FROM a WHERE v = 0; COMMIT");
	step(&w, "VACUUM");
	step(&w, "PRAGMA page_size = 8192; VACUUM");
	transfer(&w);
	step(&w, "PRAGMA page_size = 512; VACUUM");
	transfer(&w);
	r = opened(&w);
	knows(r, &w.images[0]);
	open = reader(&w);
	assert_int_equal(counter(open), 1);
	for (unsigned i = 1; i < w.n; i++) {
		assert_int_equal(commit(r, &w.images[i - 1], &w.images[i]), 0);
		n = counter(open);
		assert_true(n >= 1);
		assert_int_equal(ask(open, "PRAGMA page_count"),
				 w.images[i].pages);
	}
	assert_int_equal(n, 3);
	assert_int_equal(replica_close(r), 0);
	assert_file_is(&w, &w.images[w.n - 1]);
	sqlite3_close(open);
	end(&w);
}

static void another_page_size_waits_for_readers(void **state)
{
	struct world w;
	struct replica *r;
	sqlite3 *db;

	(void)state;
	begin(&w, 1024);
	transfer(&w);
	step(&w, "PRAGMA page_size = 4096; VACUUM");
	r = opened(&w);
	assert_int_equal(commit(r, &w.images[0], &w.images[1]), 0);
	db = reader(&w);
	run(db, "BEGIN");
	assert_int_equal(ask(db, "SELECT n FROM counter"), 2);
	assert_int_equal(commit(r, &w.images[1], &w.images[2]), -EAGAIN);
	assert_int_equal(ask(db, "SELECT n FROM counter"), 2);
	run(db, "COMMIT");
	/* Given up half-way, the old size goes on. */
	assert_int_equal(stage(r, &w.images[1], &w.images[2]), 0);
	replica_abort(r);
	assert_int_equal(commit(r, &w.images[0], &w.images[1]), 0);
	assert_int_equal(counter(db), 2);
	assert_int_equal(commit(r, &w.images[1], &w.images[2]), 0);
	assert_int_equal(counter(db), 2);
	sqlite3_close(db);
	assert_int_equal(replica_close(r), 0);
	assert_file_is(&w, &w.images[2]);
	end(&w);
}

static void nobody_else_writes(void **state)
{
	static const char *const writes[] = {
		"INSERT INTO b(v) VALUES (1)", "CREATE TABLE x(y)", "VACUUM",
		"PRAGMA user_version = 7",     "DROP TABLE a",
	};
	struct world w;
	struct replica *r;

	(void)state;
	begin(&w, 4096);
	transfer(&w);
	r = opened(&w);
	assert_int_equal(commit(r, &w.images[0], &w.images[1]), 0);
	for (int alive = 1; alive >= 0; alive--) {
		sqlite3 *db = reader(&w);

		for (size_t i = 0; i < sizeof(writes) / sizeof(writes[0]); i++)
			assert_int_equal(
				sqlite3_exec(db, writes[i], NULL, NULL, NULL),
				SQLITE_READONLY);
		run(db, "PRAGMA journal_mode = WAL");
		run(db, "CREATE TABLE IF NOT EXISTS b(v)");
		run(db, "PRAGMA wal_checkpoint(TRUNCATE)");
		assert_int_equal(counter(db), 2);
		sqlite3_close(db);
		if (alive)
			replica_free(r);
	}
	end(&w);
}

static bool has_sides(const struct world *w)
{
	char path[128];
	bool wal, shm;

	(void)snprintf(path, sizeof(path), "%s-wal", w->replica);
	wal = access(path, F_OK) == 0;
	(void)snprintf(path, sizeof(path), "%s-shm", w->replica);
	shm = access(path, F_OK) == 0;
	assert_int_equal(wal, shm);
	return wal;
}

static void released_it_is_an_ordinary_database(void **state)
{
	for (uint8_t version = 1; version <= 2; version++) {
		const uint8_t format[] = { version, version };
		struct world w;
		struct replica *r;
		sqlite3 *db;

		(void)state;
		begin(&w, 1024);
		for (int i = 0; i < 5; i++)
			transfer(&w);
		r = opened(&w);
		commit_all(&w, r, 1);
		assert_true(has_sides(&w));
		assert_int_equal(replica_release(r, format), 0);
		assert_false(has_sides(&w));
		{
			AUTO(fd) int fd = open(w.replica, O_RDONLY | O_CLOEXEC);
			uint8_t now[2];

			assert_int_equal(pread(fd, now, 2, 18), 2);
			assert_memory_equal(now, format, 2);
		}
		db = reader(&w);
		assert_int_equal(counter(db), w.n);
		run(db, "INSERT INTO b(v) VALUES (0); PRAGMA integrity_check");
		sqlite3_close(db);
		end(&w);
	}
}

/* Also by somebody who has done nothing but open it. */
static void in_use_it_is_not_released(void **state)
{
	static const uint8_t format[] = { 1, 1 };
	struct world w;
	struct replica *r;
	sqlite3 *db;

	(void)state;
	begin(&w, 1024);
	transfer(&w);
	r = opened(&w);
	commit_all(&w, r, 1);
	db = reader(&w);
	assert_int_equal(counter(db), w.n);
	assert_int_equal(replica_release(r, format), -EBUSY);
	assert_non_null(strstr(error_message(), w.replica));
	assert_true(has_sides(&w));
	sqlite3_close(db);
	r = opened(&w);
	transfer(&w);
	commit_all(&w, r, w.n - 1);
	replica_free(r);
	end(&w);
}

static void an_unprotected_file_is_no_replica(void **state)
{
	static const uint8_t ordinary[] = { 1, 1 };
	struct world w;
	struct replica *r = NULL;
	sqlite3 *db;

	(void)state;
	begin(&w, 4096);
	assert_int_equal(replica_release(opened(&w), ordinary), 0);
	assert_int_equal(open_replica(&w, &options, &r), -ESTALE);
	assert_non_null(strstr(error_message(), w.replica));
	db = reader(&w);
	run(db, "INSERT INTO b(v) VALUES (0)");
	sqlite3_close(db);
	end(&w);
}

static void one_writer_at_a_time(void **state)
{
	struct world w;
	struct replica *r, *other = NULL;

	(void)state;
	begin(&w, 4096);
	r = opened(&w);
	assert_int_equal(open_replica(&w, &options, &other), -EAGAIN);
	replica_free(r);
	r = opened(&w);
	replica_free(r);
	end(&w);
}

static void a_wrong_commit_is_seen_by_nobody(void **state)
{
	struct world w;
	struct replica *r;
	struct image wrong;
	sqlite3 *db;
	uint64_t sum;

	(void)state;
	begin(&w, 1024);
	transfer(&w);
	step(&w, "INSERT INTO a(v, filler) VALUES (0, zeroblob(5000))");
	r = opened(&w);
	knows(r, &w.images[0]);
	db = reader(&w);
	wrong = w.images[1];
	wrong.sum++;
	assert_int_equal(commit(r, &w.images[0], &wrong), -ERR_CORRUPT);
	assert_int_equal(counter(db), 1);
	assert_int_equal(commit(r, &w.images[0], &w.images[1]), 0);

	/* Growth without a page; pages that descend. */
	assert_int_equal(replica_begin(r, 1024, w.images[2].pages), 0);
	assert_int_equal(replica_put(r, 1, w.images[2].data), 0);
	assert_int_equal(finish(r, 0), -ERR_CORRUPT);
	assert_int_equal(replica_begin(r, 1024, w.images[2].pages), 0);
	assert_int_equal(replica_put(r, 2, w.images[2].data), 0);
	assert_int_equal(replica_put(r, 1, w.images[2].data), -EINVAL);
	assert_int_equal(finish(r, 0), -EINVAL);
	assert_int_equal(replica_begin(r, 4096, 2), 0);
	assert_int_equal(finish(r, 0), -ERR_CORRUPT);
	assert_int_equal(counter(db), 2);

	/* And after all that it goes on, to the right end. */
	assert_int_equal(commit(r, &w.images[1], &w.images[2]), 0);
	assert_int_equal(counter(db), 2);
	assert_int_equal(replica_sum(r, w.images[2].data + 18, &sum), 0);
	assert_true(sum == w.images[2].sum);
	sqlite3_close(db);
	assert_int_equal(replica_close(r), 0);
	assert_file_is(&w, &w.images[2]);
	end(&w);
}

static void a_commit_without_pages_changes_nothing(void **state)
{
	struct world w;
	struct replica *r;
	sqlite3 *db;

	(void)state;
	begin(&w, 1024);
	r = opened(&w);
	knows(r, &w.images[0]);
	db = reader(&w);
	assert_int_equal(commit(r, &w.images[0], &w.images[0]), 0);
	assert_int_equal(counter(db), 1);
	sqlite3_close(db);
	assert_int_equal(replica_close(r), 0);
	assert_file_is(&w, &w.images[0]);
	end(&w);
}

static void what_is_left_of_it_is_enough_or_made_anew(void **state)
{
	static const char *const damages[] = {
		"true",
		"rm '%1$s-shm'",
		"head -c 70000 /dev/urandom >'%1$s-shm'",
		"head -c 20 /dev/zero | dd of='%1$s-shm' conv=notrunc 2>/dev/null",
		"truncate -s 0 '%1$s-shm'",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
		struct world w;
		struct replica *r;
		sqlite3 *db;
		char command[256];

		begin(&w, 512);
		for (int k = 0; k < 5; k++)
			transfer(&w);
		r = opened(&w);
		commit_all(&w, r, 1);
		replica_free(r);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		(void)snprintf(command, sizeof(command), damages[i], w.replica);
#pragma GCC diagnostic pop
		assert_int_equal(system(command), 0);
		r = opened(&w);
		db = reader(&w);
		assert_int_equal(counter(db), w.n);
		transfer(&w);
		commit_all(&w, r, w.n - 1);
		assert_int_equal(counter(db), w.n);
		sqlite3_close(db);
		assert_int_equal(replica_close(r), 0);
		assert_file_is(&w, &w.images[w.n - 1]);
		end(&w);
	}
}

static void replaced_files_are_noticed(void **state)
{
	static const char *const suffixes[] = { "", "-wal", "-shm" };

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct world w;
		struct replica *r;
		char path[96], other[96];

		begin(&w, 512);
		r = opened(&w);
		(void)snprintf(path, sizeof(path), "%s%s", w.replica,
			       suffixes[i]);
		(void)snprintf(other, sizeof(other), "%s-other", w.replica);
		assert_int_equal(replica_check_files(r), 0);
		assert_int_equal(rename(path, other), 0);
		assert_int_equal(replica_check_files(r), -ESTALE);
		assert_non_null(strstr(error_message(), "removed"));
		assert_int_equal(close(open(path, O_CREAT | O_RDWR, 0600)), 0);
		assert_int_equal(replica_check_files(r), -ESTALE);
		assert_non_null(strstr(error_message(), "replaced"));
		replica_free(r);
		end(&w);
	}
}

static void who_may_only_read_can_read(void **state)
{
	struct world w;
	struct replica *r;
	pid_t child;
	int status;

	(void)state;
	if (geteuid() != 0)
		skip();
	begin(&w, 1024);
	transfer(&w);
	assert_int_equal(chmod(w.dir, 0755), 0);
	r = opened(&w);
	commit_all(&w, r, 1);
	for (int stopped = 0; stopped < 2; stopped++) {
		child = fork();
		if (child == 0) {
			sqlite3 *db;

			/* Locks are of open files: not the child's to keep. */
			if (!stopped)
				replica_free(r);
			if (setuid(65534) != 0)
				_exit(2);
			db = reader(&w);
			_exit(counter(db) == 2 ? 0 : 1);
		}
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_int_equal(status, 0);
		if (!stopped)
			assert_int_equal(replica_close(r), 0);
	}
	end(&w);
}

#ifdef LITEBUCKET_FAILPOINTS
/*
 * Killed at a point, the state is the one before the commit under way or the
 * one after it; and who comes next goes on to the right end.
 */
static const char *const points[] = {
	"replica-index-emptied", "replica-joined",	 "replica-block-rebuilt",
	"replica-recovered",	 "replica-log-begun",	 "replica-frame",
	"replica-indexed",	 "replica-all-indexed",	 "replica-header-one",
	"replica-published",	 "replica-log-synced",	 "replica-page-copied",
	"replica-copied",	 "replica-backfilled",	 "replica-reset-counted",
	"replica-reset-marked",	 "replica-reset",
};

/* The follower: commits one image after the other, and tells how far it is. */
static void follow(const struct world *w, volatile unsigned *position)
{
	static const struct replica_options small = {
		.max_bytes = FRAMES(12, 512),
		.wait_ms = 20,
	};
	struct replica *r = NULL;

	if (replica_open(AT_FDCWD, w->replica, &small, &r) < 0)
		_exit(3);
	while (*position + 1 < w->n) {
		if (commit(r, &w->images[*position],
			   &w->images[*position + 1]) < 0)
			_exit(4);
		++*position;
	}
	_exit(replica_close(r) == 0 ? 0 : 5);
}

static bool killed_at(const struct world *w, volatile unsigned *position,
		      const char *point, unsigned pass)
{
	char failpoint[64];
	pid_t child = fork();
	int status;

	if (child == 0) {
		(void)snprintf(failpoint, sizeof(failpoint), "%s:kill:%u",
			       point, pass);
		assert_int_equal(setenv("LITEBUCKET_FAILPOINT", failpoint, 1),
				 0);
		follow(w, position);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	if (WIFSIGNALED(status))
		return WTERMSIG(status) == SIGKILL;
	assert_int_equal(WEXITSTATUS(status), 0);
	return false;
}

static void kill_at(const char *point, unsigned pass, bool with_reader,
		    bool *ret_killed)
{
	struct world w;
	volatile unsigned *position =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	sqlite3 *db = NULL;
	int64_t n;
	bool killed;

	begin(&w, 512);
	for (int i = 0; i < 15; i++)
		transfer(&w);
	if (with_reader) {
		db = reader(&w);
		assert_int_equal(counter(db), 1);
	}
	killed = killed_at(&w, position, point, pass);
	*ret_killed |= killed;
	if (!db)
		db = reader(&w);
	n = counter(db);
	if (n != *position + 1 && n != *position + 2)
		fail_msg("%s:%u: position %u, but readers see %lld", point,
			 pass, *position, (long long)n);
	if (killed)
		(void)killed_at(&w, position, "replica-none", 1);
	assert_int_equal(*position, w.n - 1);
	assert_int_equal(counter(db), w.n);
	sqlite3_close(db);
	assert_file_is(&w, &w.images[w.n - 1]);
	assert_int_equal(munmap((void *)position, 4096), 0);
	end(&w);
}

static void killed_anywhere_it_is_before_or_after_a_commit(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
		bool killed = false;

		for (unsigned pass = 1; pass <= 40; pass += 1 + pass / 2)
			for (int with = 0; with < 2; with++)
				kill_at(points[i], pass, with, &killed);
		if (!killed)
			fail_msg("%s is never passed", points[i]);
	}
}
#endif

/* A process that reads all the time while we write. */
static void read_all_the_time(const struct world *w, bool reopen)
{
	sqlite3 *db = reader(w);
	int64_t last = 0;

	while (last < w->n) {
		int64_t n = counter(db);

		if (n < last)
			_exit(7);
		last = n;
		if (reopen) {
			sqlite3_close(db);
			db = reader(w);
		}
	}
	_exit(0);
}

static void readers_beside_it_see_whole_commits(void **state)
{
	struct world w;
	struct replica *r = NULL;
	pid_t children[4];
	int status;

	(void)state;
	begin(&w, 512);
	for (int i = 0; i < 60; i++)
		transfer(&w);
	for (int i = 0; i < 4; i++) {
		children[i] = fork();
		if (children[i] == 0)
			read_all_the_time(&w, i & 1);
	}
	/* A first connection may be recovering the log. */
	while (open_replica(&w,
			    &(struct replica_options){
				    .max_bytes = FRAMES(40, 512),
				    .wait_ms = 20 }, &r) ==
	       -EAGAIN)
		usleep(1000);
	assert_non_null(r);
	for (unsigned i = 1; i < w.n; i++) {
		assert_int_equal(commit(r, &w.images[i - 1], &w.images[i]), 0);
		usleep(2000);
	}
	for (int i = 0; i < 4; i++) {
		assert_int_equal(waitpid(children[i], &status, 0), children[i]);
		assert_int_equal(status, 0);
	}
	assert_int_equal(replica_close(r), 0);
	assert_file_is(&w, &w.images[w.n - 1]);
	end(&w);
}

/* Frames enough for the index's second block, and its pages found again. */
static void a_long_log_is_indexed_in_blocks(void **state)
{
	struct world w;
	struct replica *r = NULL;
	sqlite3 *db;
	uint64_t sum;

	(void)state;
	begin(&w, 512);
	step(&w, "WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL"
		 " SELECT i + 1 FROM s WHERE i < 6000)"
		 " INSERT INTO a(v, filler) SELECT 0, randomblob(400) FROM s");
	step(&w, "UPDATE a SET filler = randomblob(400) WHERE id % 2");
	transfer(&w);
	assert_int_equal(
		open_replica(&w,
			     &(struct replica_options){ .max_bytes = 1 << 30 },
			     &r), 0);
	knows(r, &w.images[0]);
	commit_all(&w, r, 1);
	db = reader(&w);
	assert_int_equal(counter(db), 2);
	replica_free(r);
	r = opened(&w);
	assert_int_equal(replica_sum(r, w.images[0].data + 18, &sum), 0);
	assert_true(sum == w.images[w.n - 1].sum);
	sqlite3_close(db);
	replica_free(r);

	/* Nobody is there now: all that is known comes from the log. */
	r = opened(&w);
	assert_int_equal(replica_sum(r, w.images[0].data + 18, &sum), 0);
	assert_true(sum == w.images[w.n - 1].sum);
	assert_int_equal(replica_close(r), 0);
	assert_file_is(&w, &w.images[w.n - 1]);
	end(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(readers_see_each_commit_at_once),
		cmocka_unit_test(a_snapshot_stays_what_it_was),
		cmocka_unit_test(the_log_stays_short_between_readers),
		cmocka_unit_test(a_late_reader_always_finds_a_mark),
		cmocka_unit_test(it_stands_still_before_its_log_is_endless),
		cmocka_unit_test(it_shrinks_and_changes_its_page_size),
		cmocka_unit_test(another_page_size_waits_for_readers),
		cmocka_unit_test(nobody_else_writes),
		cmocka_unit_test(released_it_is_an_ordinary_database),
		cmocka_unit_test(in_use_it_is_not_released),
		cmocka_unit_test(an_unprotected_file_is_no_replica),
		cmocka_unit_test(one_writer_at_a_time),
		cmocka_unit_test(a_wrong_commit_is_seen_by_nobody),
		cmocka_unit_test(a_commit_without_pages_changes_nothing),
		cmocka_unit_test(what_is_left_of_it_is_enough_or_made_anew),
		cmocka_unit_test(replaced_files_are_noticed),
		cmocka_unit_test(who_may_only_read_can_read),
#ifdef LITEBUCKET_FAILPOINTS
		cmocka_unit_test(killed_anywhere_it_is_before_or_after_a_commit),
#endif
		cmocka_unit_test(readers_beside_it_see_whole_commits),
		cmocka_unit_test(a_long_log_is_indexed_in_blocks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
