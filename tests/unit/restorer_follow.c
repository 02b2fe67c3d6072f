/*
 * A follower, a real bucket in a directory, and SQLite as the reader.  The
 * original goes through states; each becomes the batch that leads to it.
 */
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "restorer/follow.h"
#include "restorer/mark.h"
#include "restorer_world.h"
#include "sqlite_tools.h"

enum { PAGE = 1024, MAX_STATES = 64, PATIENCE_MS = 60 * 1000 };

struct original {
	struct world *w;
	char path[96], replica[96], state[96], aside[96];
	sqlite3 *db;
	struct follow_options options;
};

/* What the original is now becomes the world's next state, and its batch. */
static void batch(struct original *o)
{
	AUTO(buf) struct buf file = BUF_INIT(64 << 20);
	struct world *w = o->w;
	struct world_state *s = &w->states[++w->head];

	world_read(o->path, &file);
	s->page_size = get_be16((uint8_t *)file.data + 16);
	s->commit = (uint32_t)(file.size / s->page_size);
	s->pages = malloc(file.size);
	assert_non_null(s->pages);
	memcpy(s->pages, file.data, file.size);
	s->sum = world_sum(s);
	world_put(w, 0, w->head, w->head);
}

static void write_row(struct original *o)
{
	run(o->db, "INSERT INTO t(x) VALUES (randomblob(700))");
	batch(o);
}

/* It is removed; what comes after it begins with all pages. */
static void drop(struct original *o)
{
	uint64_t txid = world_mark(o->w, LTX_DROP);

	o->w->states[txid].commit = 0;
	o->w->states[txid].sum = 0;
	world_put(o->w, 0, txid, txid);
}

static void begin(struct original *o)
{
	memset(o, 0, sizeof(*o));
	o->w = world_open(NULL);
	(void)snprintf(o->path, sizeof(o->path), "%s/original", o->w->dir);
	(void)snprintf(o->replica, sizeof(o->replica), "%s/out/app.db",
		       o->w->dir);
	(void)snprintf(o->state, sizeof(o->state), "%s/state", o->w->dir);
	(void)snprintf(o->aside, sizeof(o->aside), "%s/aside", o->w->dir);
	assert_int_equal(mkdir(o->state, 0755), 0);
	assert_int_equal(sqlite3_open(o->path, &o->db), SQLITE_OK);
	run(o->db, "PRAGMA page_size = 1024; PRAGMA synchronous = OFF;"
		   "CREATE TABLE t(id INTEGER PRIMARY KEY, x)");
	batch(o);
	o->options = (struct follow_options){
		.bucket = &o->w->spy.bucket,
		.db = "",
		.path = o->replica,
		.state = o->state,
		.aside = o->aside,
		.replica = { .wait_ms = 50 },
	};
}

static void end(struct original *o)
{
	(void)sqlite3_close(o->db);
	world_close(o->w);
}

static struct follow *started(struct original *o)
{
	struct follow *f = NULL;

	assert_int_equal(follow_new(&o->options, &f), 0);
	return f;
}

/* Steps until there is nothing more to do; returns how many went forward. */
static int follow_up(struct follow *f)
{
	int n = 0, rc;

	while ((rc = follow_step(f)) > 0)
		n++;
	if (rc < 0)
		fail_msg("%s", error_message());
	return n;
}

/* What SQLite reads is the state, page for page. */
static void assert_replica_is(struct original *o, uint64_t txid)
{
	const struct world_state *s = &o->w->states[txid];
	char copy[128], sql[160];
	AUTO(buf) struct buf file = BUF_INIT(64 << 20);
	sqlite3 *db, *to;
	sqlite3_backup *backup;

	(void)snprintf(copy, sizeof(copy), "%s/copy", o->w->dir);
	(void)unlink(copy);
	assert_int_equal(sqlite3_open_v2(o->replica, &db,
					 SQLITE_OPEN_READWRITE, NULL),
			 SQLITE_OK);
	sqlite3_busy_timeout(db, 5000);
	assert_int_equal(sqlite3_open(copy, &to), SQLITE_OK);
	(void)snprintf(sql, sizeof(sql), "PRAGMA page_size = %u", s->page_size);
	run(to, sql);
	backup = sqlite3_backup_init(to, "main", db, "main");
	assert_non_null(backup);
	assert_int_equal(sqlite3_backup_step(backup, -1), SQLITE_DONE);
	assert_int_equal(sqlite3_backup_finish(backup), SQLITE_OK);
	assert_int_equal(ask(db, "SELECT integrity_check = 'ok'"
				 " FROM pragma_integrity_check"), 1);
	sqlite3_close(to);
	sqlite3_close(db);
	world_read(copy, &file);
	assert_int_equal(file.size, (size_t)s->commit * s->page_size);
	/* The backup has a change counter of its own, and what goes with it. */
	memcpy(file.data + 18, s->pages + 18, 2);
	memcpy(file.data + 24, s->pages + 24, 4);
	memcpy(file.data + 40, s->pages + 40, 4);
	memcpy(file.data + 92, s->pages + 92, 8);
	assert_memory_equal(file.data, s->pages, file.size);
}

static uint64_t txid_of(const struct follow *f)
{
	struct follow_state s;

	follow_state(f, &s);
	return s.txid;
}

static void it_is_restored_and_then_follows(void **state)
{
	struct original o;
	struct follow *f;
	sqlite3 *open;

	(void)state;
	begin(&o);
	write_row(&o);
	f = started(&o);
	assert_int_equal(follow_up(f), 1);
	assert_int_equal(txid_of(f), 2);
	assert_replica_is(&o, 2);
	assert_int_equal(sqlite3_open(o.replica, &open), SQLITE_OK);
	for (int i = 0; i < 10; i++) {
		write_row(&o);
		assert_int_equal(follow_up(f), 1);
		assert_int_equal(ask(open, "SELECT count(*) FROM t"), i + 2);
	}
	assert_replica_is(&o, o.w->head);
	sqlite3_close(open);
	assert_int_equal(follow_close(f), 0);
	end(&o);
}

static void an_idle_database_costs_one_get(void **state)
{
	struct original o;
	struct follow *f;
	unsigned before;

	(void)state;
	begin(&o);
	o.options.gap_ms = 1;
	f = started(&o);
	(void)follow_up(f);
	before = o.w->spy.requests;
	for (int i = 0; i < 5; i++) {
		assert_int_equal(follow_step(f), 0);
		clock_sleep_ms(2);
	}
	assert_int_equal(o.w->spy.requests, before + 5);
	/* And one more for each that there is. */
	write_row(&o);
	before = o.w->spy.requests;
	assert_int_equal(follow_up(f), 1);
	assert_int_equal(o.w->spy.requests, before + 2);
	assert_int_equal(follow_close(f), 0);
	end(&o);
}

static void all_that_sqlite_does_comes_through(void **state)
{
	static const char *const steps[] = {
		"INSERT INTO t(x) SELECT zeroblob(3000) FROM t",
		"CREATE TABLE u(y); CREATE INDEX i ON u(y)",
		"DELETE FROM t WHERE id % 2",
		"VACUUM",
		"PRAGMA auto_vacuum = FULL; VACUUM",
		"PRAGMA page_size = 4096; VACUUM",
		"DROP TABLE u",
		"PRAGMA page_size = 512; VACUUM",
		"INSERT INTO t(x) VALUES (zeroblob(50000))",
		"PRAGMA user_version = 5",
	};
	struct original o;
	struct follow *f;

	(void)state;
	begin(&o);
	for (int i = 0; i < 40; i++)
		run(o.db, "INSERT INTO t(x) VALUES (randomblob(500))");
	batch(&o);
	f = started(&o);
	(void)follow_up(f);
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		run(o.db, steps[i]);
		batch(&o);
		assert_int_equal(follow_up(f), 1);
		assert_replica_is(&o, o.w->head);
	}
	assert_int_equal(follow_close(f), 0);
	end(&o);
}

static void a_clean_start_reads_nothing(void **state)
{
	struct original o;
	struct follow *f;
	struct mark m;

	(void)state;
	begin(&o);
	f = started(&o);
	(void)follow_up(f);
	write_row(&o);
	(void)follow_up(f);
	assert_int_equal(follow_close(f), 0);
	{
		char path[128];
		AUTO(fd) int fd = -1;

		(void)snprintf(path, sizeof(path), "%s/position", o.state);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		assert_int_equal(mark_load(fd, &m), 0);
		assert_int_equal(m.done.txid, 2);
		assert_true(m.inode != 0);
		assert_true(m.done.dbsum == o.w->states[2].sum);
	}
	f = started(&o);
	write_row(&o);
	assert_int_equal(follow_up(f), 1);
	assert_replica_is(&o, 3);
	follow_free(f);
	/* As if killed: compared, found right, and on it goes. */
	write_row(&o);
	f = started(&o);
	assert_int_equal(follow_up(f), 1);
	assert_replica_is(&o, 4);
	assert_int_equal(follow_close(f), 0);
	end(&o);
}

static void far_behind_it_jumps(void **state)
{
	struct original o;
	struct follow *f;
	sqlite3 *open;

	(void)state;
	begin(&o);
	f = started(&o);
	(void)follow_up(f);
	assert_int_equal(sqlite3_open(o.replica, &open), SQLITE_OK);
	assert_int_equal(ask(open, "SELECT count(*) FROM t"), 0);
	for (int i = 0; i < 8; i++)
		write_row(&o);
	/* Level 0 is gone, a compaction has it all. */
	world_put(o.w, 1, 1, 9);
	for (uint64_t i = 1; i <= 8; i++)
		world_remove(o.w, 0, i, i);
	follow_look(f);
	assert_int_equal(follow_up(f), 1);
	assert_int_equal(txid_of(f), 9);
	assert_int_equal(ask(open, "SELECT count(*) FROM t"), 8);
	assert_replica_is(&o, 9);
	sqlite3_close(open);
	assert_int_equal(follow_close(f), 0);
	end(&o);
}

/*
 * As Litestream leaves it that compacts while the follower is kept: what comes
 * next is in no slot, but there are others.
 */
static void a_hole_in_the_log_is_noticed(void **state)
{
	struct original o;
	struct follow *f;
	int64_t until;

	(void)state;
	begin(&o);
	o.options.gap_ms = 20;
	f = started(&o);
	follow_expect_holes(f, true);
	(void)follow_up(f);
	for (int i = 0; i < 8; i++)
		write_row(&o);
	world_put(o.w, 1, 1, 8);
	for (uint64_t i = 1; i <= 8; i++)
		world_remove(o.w, 0, i, i);
	until = clock_monotonic_ms() + PATIENCE_MS;
	while (follow_step(f) == 0 && clock_monotonic_ms() < until)
		clock_sleep_ms(1);
	assert_int_equal(txid_of(f), 9);
	assert_replica_is(&o, 9);
	/* And slot by slot it goes on. */
	write_row(&o);
	assert_int_equal(follow_up(f), 1);
	assert_replica_is(&o, 10);
	assert_int_equal(follow_close(f), 0);
	end(&o);
}

static void a_damaged_object_is_named_and_gone_around(void **state)
{
	struct original o;
	struct follow *f;

	(void)state;
	begin(&o);
	write_row(&o);
	f = started(&o);
	(void)follow_up(f);
	write_row(&o);
	world_put_bytes(o.w, 0, 3, 3, "nonsense, and not LTX at all", 28);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(follow_step(f), -ERR_CORRUPT);
		world_says("0000000000000003-0000000000000003.ltx");
		assert_replica_is(&o, 2);
	}
	/* Another level has it. */
	world_put(o.w, 1, 1, 3);
	assert_int_equal(follow_up(f), 1);
	assert_replica_is(&o, 3);
	/* And repaired, it simply goes on. */
	write_row(&o);
	world_put_bytes(o.w, 0, 4, 4, "nonsense", 8);
	assert_int_equal(follow_step(f), -ERR_CORRUPT);
	world_put(o.w, 0, 4, 4);
	assert_int_equal(follow_up(f), 1);
	assert_replica_is(&o, 4);
	assert_int_equal(follow_close(f), 0);
	end(&o);
}

/* Another database's batch, sound by itself. */
static void a_batch_of_another_history_is_refused(void **state)
{
	struct original o;
	struct follow *f;
	struct ltx_header h;

	(void)state;
	begin(&o);
	write_row(&o);
	f = started(&o);
	(void)follow_up(f);
	write_row(&o);
	h = world_header(o.w, 3, 3);
	h.pre_dbsum++;
	world_put_header(o.w, 0, &h, 0);
	assert_int_equal(follow_step(f), -ERR_CORRUPT);
	world_says("another state");
	h = world_header(o.w, 3, 3);
	h.post_dbsum++;
	world_put_header(o.w, 0, &h, 0);
	assert_int_equal(follow_step(f), -ERR_CORRUPT);
	world_says("checksum");
	assert_replica_is(&o, 2);
	world_put(o.w, 0, 3, 3);
	assert_int_equal(follow_up(f), 1);
	assert_replica_is(&o, 3);
	assert_int_equal(follow_close(f), 0);
	end(&o);
}

static void dropped_and_made_again(void **state)
{
	struct original o;
	struct follow *f;
	struct follow_state s;

	(void)state;
	begin(&o);
	write_row(&o);
	f = started(&o);
	(void)follow_up(f);
	drop(&o);
	assert_int_equal(follow_up(f), 1);
	world_expect_names(o.w, "");
	follow_state(f, &s);
	assert_true(s.dropped && s.txid == 3 && !s.has_replica);
	assert_int_equal(follow_step(f), 0);
	follow_free(f);
	f = started(&o);
	assert_int_equal(follow_step(f), 0);
	world_expect_names(o.w, "");

	/* There is one again. */
	write_row(&o);
	assert_int_equal(follow_up(f), 1);
	assert_replica_is(&o, 4);
	assert_int_equal(follow_close(f), 0);
	end(&o);
}

/* Somebody writes into the file, whatever its protection says. */
static void scribble(const struct original *o)
{
	AUTO(fd) int fd = open(o->replica, O_RDWR | O_CLOEXEC);

	assert_int_equal(pwrite(fd, "scribble", 8, 2 * PAGE + 500), 8);
}

static int count_aside(const struct original *o)
{
	struct dirent **entries;
	int n = scandir(o->aside, &entries, NULL, alphasort);

	for (int i = 0; i < n; i++)
		free(entries[i]);
	free(n < 0 ? NULL : entries);
	return n - 2;
}

static void a_changed_replica_is_kept_aside(void **state)
{
	struct original o;
	struct follow *f;

	(void)state;
	begin(&o);
	for (int i = 0; i < 5; i++)
		write_row(&o);
	f = started(&o);
	(void)follow_up(f);
	assert_int_equal(follow_close(f), 0);
	scribble(&o);
	o.options.stop_on_divergence = true;
	f = started(&o);
	assert_int_equal(follow_step(f), -ESTALE);
	world_says("changed by somebody else");
	follow_free(f);
	o.options.stop_on_divergence = false;
	f = started(&o);
	assert_int_equal(follow_up(f), 1);
	assert_replica_is(&o, 6);
	assert_int_equal(count_aside(&o), 1);
	assert_int_equal(follow_close(f), 0);
	end(&o);
}

/* Nor does it take more room each time that the bucket cannot be had. */
static void a_changed_replica_is_kept_aside_once(void **state)
{
	struct original o;
	struct follow *f;

	(void)state;
	begin(&o);
	for (int i = 0; i < 5; i++)
		write_row(&o);
	f = started(&o);
	(void)follow_up(f);
	assert_int_equal(follow_close(f), 0);
	scribble(&o);
	world_put_bytes(o.w, 0, 1, 1, "nonsense", 8);
	f = started(&o);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(follow_step(f), -ERR_CORRUPT);
		assert_int_equal(count_aside(&o), 1);
	}
	world_put(o.w, 0, 1, 1);
	assert_int_equal(follow_up(f), 1);
	assert_replica_is(&o, 6);
	assert_int_equal(count_aside(&o), 1);
	assert_int_equal(follow_close(f), 0);
	end(&o);
}

static void change_page_size(struct original *o, unsigned size)
{
	char sql[64];

	(void)snprintf(sql, sizeof(sql), "PRAGMA page_size = %u; VACUUM", size);
	run(o->db, sql);
	batch(o);
}

/* A reader in the old page size may stay for long. */
static void what_waits_for_readers_is_fetched_once(void **state)
{
	const bool is_jump = *state;
	struct original o;
	struct follow *f;
	unsigned before;
	sqlite3 *open;

	begin(&o);
	f = started(&o);
	(void)follow_up(f);
	/* Something in the log, which the reader is at. */
	write_row(&o);
	(void)follow_up(f);
	assert_int_equal(sqlite3_open(o.replica, &open), SQLITE_OK);
	run(open, "BEGIN");
	assert_int_equal(ask(open, "SELECT count(*) FROM t"), 1);
	change_page_size(&o, 4096);
	if (is_jump) {
		world_put(o.w, 1, 1, 3);
		for (uint64_t i = 1; i <= 3; i++)
			world_remove(o.w, 0, i, i);
		follow_look(f);
	}
	assert_int_equal(follow_step(f), -EAGAIN);
	before = o.w->spy.requests;
	for (int i = 0; i < 5; i++)
		assert_int_equal(follow_step(f), -EAGAIN);
	assert_int_equal(o.w->spy.requests, before);
	run(open, "COMMIT");
	write_row(&o);
	assert_int_equal(follow_up(f), 2);
	assert_int_equal(ask(open, "SELECT count(*) FROM t"), 2);
	assert_replica_is(&o, 4);
	sqlite3_close(open);
	assert_int_equal(follow_close(f), 0);
	end(&o);
}

#ifdef LITEBUCKET_FAILPOINTS
static void assert_position_is_of(const struct original *o, const char *boot)
{
	char path[128];
	struct mark m;

	(void)snprintf(path, sizeof(path), "%s/position", o->state);
	AUTO(fd) int fd = open(path, O_RDONLY | O_CLOEXEC);

	assert_int_equal(mark_load(fd, &m), 0);
	assert_string_equal(m.boot, boot);
}

static void after_a_power_loss_it_is_compared(void **state)
{
	struct original o;
	struct follow *f;

	(void)state;
	begin(&o);
	for (int i = 0; i < 5; i++)
		write_row(&o);
	assert_int_equal(setenv("LITEBUCKET_BOOT", "one", 1), 0);
	f = started(&o);
	(void)follow_up(f);
	write_row(&o);
	(void)follow_up(f);
	follow_free(f);
	scribble(&o);
	assert_int_equal(setenv("LITEBUCKET_BOOT", "two", 1), 0);
	f = started(&o);
	assert_int_equal(follow_up(f), 1);
	assert_replica_is(&o, 7);
	assert_int_equal(access(o.aside, F_OK), -1);
	/* What the position says is of this life now. */
	assert_position_is_of(&o, "two");
	assert_int_equal(follow_close(f), 0);
	assert_int_equal(unsetenv("LITEBUCKET_BOOT"), 0);
	end(&o);
}

#endif

static void a_database_of_others_is_left_alone(void **state)
{
	struct original o;
	struct follow *f;
	sqlite3 *db;

	(void)state;
	begin(&o);
	assert_int_equal(sqlite3_open(o.replica, &db), SQLITE_OK);
	run(db, "CREATE TABLE mine(x)");
	f = started(&o);
	assert_int_equal(follow_step(f), -EEXIST);
	world_says("left alone");
	run(db, "INSERT INTO mine VALUES (1)");
	assert_int_equal(ask(db, "SELECT count(*) FROM mine"), 1);
	sqlite3_close(db);
	follow_free(f);
	end(&o);
}

static void without_a_position_it_is_compared(void **state)
{
	struct original o;
	struct follow *f;
	char path[128];

	(void)state;
	begin(&o);
	write_row(&o);
	f = started(&o);
	(void)follow_up(f);
	assert_int_equal(follow_close(f), 0);
	(void)snprintf(path, sizeof(path), "%s/position", o.state);
	world_write(path, "torn");
	write_row(&o);
	f = started(&o);
	assert_int_equal(follow_up(f), 1);
	assert_int_equal(txid_of(f), 3);
	assert_replica_is(&o, 3);
	follow_free(f);
	/* And has one then: after a kill it is found right. */
	f = started(&o);
	assert_int_equal(follow_up(f), 0);
	assert_int_equal(access(o.aside, F_OK), -1);
	assert_int_equal(follow_close(f), 0);
	end(&o);
}

static void files_that_are_removed_come_back(void **state)
{
	struct original o;
	struct follow *f;
	char path[128];

	(void)state;
	begin(&o);
	write_row(&o);
	f = started(&o);
	(void)follow_up(f);
	(void)snprintf(path, sizeof(path), "%s-wal", o.replica);
	assert_int_equal(unlink(path), 0);
	write_row(&o);
	assert_int_equal(follow_up(f), 1);
	assert_replica_is(&o, 3);
	assert_int_equal(unlink(o.replica), 0);
	write_row(&o);
	assert_int_equal(follow_up(f), 1);
	assert_replica_is(&o, 4);
	assert_int_equal(follow_close(f), 0);
	end(&o);
}

/* Between two looks it was made again, and dropped once more. */
static void dropped_twice_it_stays_away(void **state)
{
	struct original o;
	struct follow *f;
	int rc;

	(void)state;
	begin(&o);
	f = started(&o);
	(void)follow_up(f);
	drop(&o);
	assert_int_equal(follow_up(f), 1);
	write_row(&o);
	drop(&o);
	while ((rc = follow_step(f)) != 0)
		assert_true(rc == -EAGAIN || rc == 1);
	assert_int_equal(txid_of(f), 4);
	world_expect_names(o.w, "");
	assert_int_equal(follow_close(f), 0);
	end(&o);
}

/* Litestream's files: no checksums of ours. */
static void a_log_without_checksums_is_followed(void **state)
{
	struct original o;
	struct follow *f;

	(void)state;
	begin(&o);
	o.w->no_sums = true;
	for (int i = 0; i < 3; i++)
		write_row(&o);
	f = started(&o);
	(void)follow_up(f);
	write_row(&o);
	assert_int_equal(follow_up(f), 1);
	follow_free(f);
	write_row(&o);
	f = started(&o);
	assert_int_equal(follow_up(f), 1);
	assert_replica_is(&o, o.w->head);
	/* No checksum tells that an object is another's: its header does. */
	write_row(&o);
	{
		AUTO(buf) struct buf file = BUF_INIT(1 << 20);
		struct ltx_header h = world_header(o.w, 6, 6);

		world_encode(o.w, &h, 0, &file);
		world_put_bytes(o.w, 0, 7, 7, file.data, file.size);
		assert_int_equal(follow_step(f), -ERR_CORRUPT);
		world_says("its header says transactions 0000000000000006");
		/* Nor that pages are not what was written: the file's does. */
		h = world_header(o.w, 7, 7);
		buf_reset(&file);
		world_encode(o.w, &h, 0, &file);
		file.data[file.size - 1] ^= 1;
		world_put_bytes(o.w, 0, 7, 7, file.data, file.size);
		assert_int_equal(follow_step(f), -ERR_CORRUPT);
	}
	assert_replica_is(&o, 6);
	assert_int_equal(follow_close(f), 0);
	end(&o);
}

static void a_large_batch_goes_through_a_file(void **state)
{
	struct original o;
	struct follow *f;
	unsigned before;

	(void)state;
	begin(&o);
	f = started(&o);
	(void)follow_up(f);
	run(o.db, "INSERT INTO t(x) VALUES (randomblob(3000000))");
	batch(&o);
	before = o.w->spy.requests;
	assert_int_equal(follow_up(f), 1);
	/* Not by a way around. */
	assert_int_equal(o.w->spy.requests, before + 2);
	assert_replica_is(&o, 2);
	assert_int_equal(follow_close(f), 0);
	end(&o);
}

/*
 * Killed at any point of its work, with readers or alone: what a reader sees
 * is a state of the log, and the next run goes on to the newest.
 */
#ifdef LITEBUCKET_FAILPOINTS
static const char *const points[] = {
	"follow-restored",  "follow-created",	   "follow-begun",
	"follow-committed", "replica-frame",	   "replica-header-one",
	"replica-published", "replica-recovered",  "replica-backfilled",
	"replica-reset",    "replica-page-copied", "replica-reset-counted",
	"follow-drop-begun", "follow-dropped",
};

static bool killed_at(struct original *o, const char *point, unsigned pass)
{
	char failpoint[64];
	pid_t child = fork();
	int status;

	if (child == 0) {
		struct follow *f;
		int rc;

		(void)snprintf(failpoint, sizeof(failpoint), "%s:kill:%u",
			       point, pass);
		(void)setenv("LITEBUCKET_FAILPOINT", failpoint, 1);
		f = started(o);
		while ((rc = follow_step(f)) > 0)
			;
		_exit(rc == 0 && follow_close(f) == 0 ? 0 : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	if (WIFSIGNALED(status))
		return WTERMSIG(status) == SIGKILL;
	assert_int_equal(WEXITSTATUS(status), 0);
	return false;
}

static bool kill_once(const char *point, unsigned pass)
{
	bool dropped = strncmp(point, "follow-drop", 11) == 0;
	struct original o;
	struct follow *f;
	bool killed;

	begin(&o);
	o.options.replica.max_bytes = 10 * 1024;
	f = started(&o);
	if (pass > 1) {
		(void)follow_up(f);
		for (int i = 0; i < 12; i++)
			write_row(&o);
	}
	follow_free(f);
	if (dropped)
		drop(&o);
	killed = killed_at(&o, point, dropped ? 1 : pass);
	f = started(&o);
	(void)follow_up(f);
	assert_int_equal(txid_of(f), o.w->head);
	if (dropped)
		world_expect_names(o.w, "");
	else
		assert_replica_is(&o, o.w->head);
	assert_int_equal(access(o.aside, F_OK), -1);
	assert_int_equal(follow_close(f), 0);
	end(&o);
	return killed;
}

static void killed_anywhere_it_goes_on(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
		bool killed = false;

		for (unsigned pass = 1; pass <= 9; pass += pass)
			killed |= kill_once(points[i], pass);
		if (!killed)
			fail_msg("%s is never passed", points[i]);
	}
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_is_restored_and_then_follows),
		cmocka_unit_test(an_idle_database_costs_one_get),
		cmocka_unit_test(all_that_sqlite_does_comes_through),
		cmocka_unit_test(a_clean_start_reads_nothing),
		cmocka_unit_test(far_behind_it_jumps),
		cmocka_unit_test(a_hole_in_the_log_is_noticed),
		cmocka_unit_test(a_damaged_object_is_named_and_gone_around),
		cmocka_unit_test(a_batch_of_another_history_is_refused),
		cmocka_unit_test(dropped_and_made_again),
		cmocka_unit_test(a_changed_replica_is_kept_aside),
		cmocka_unit_test(a_changed_replica_is_kept_aside_once),
		cmocka_unit_test(what_waits_for_readers_is_fetched_once),
		cmocka_unit_test_prestate(what_waits_for_readers_is_fetched_once,
					  (void *)"a jump"),
		cmocka_unit_test(a_database_of_others_is_left_alone),
		cmocka_unit_test(without_a_position_it_is_compared),
		cmocka_unit_test(files_that_are_removed_come_back),
		cmocka_unit_test(dropped_twice_it_stays_away),
		cmocka_unit_test(a_log_without_checksums_is_followed),
		cmocka_unit_test(a_large_batch_goes_through_a_file),
#ifdef LITEBUCKET_FAILPOINTS
		cmocka_unit_test(after_a_power_loss_it_is_compared),
		cmocka_unit_test(killed_anywhere_it_goes_on),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
