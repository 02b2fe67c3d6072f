/*
 * A directory of replicas: databases that come and go in a real bucket, and
 * the follower as a thread of this program.
 */
#include <pthread.h>
#include <sys/resource.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "bucket/catalog.h"
#include "restorer/follower.h"
#include "restorer_world.h"
#include "sqlite_tools.h"

enum { MAX_DATABASES = 8, PATIENCE_MS = 60 * 1000 };

/* A database somewhere else, whose states go into the bucket. */
struct original {
	char db[64], path[128];
	sqlite3 *sqlite;
	uint8_t *image; /* of the last batch */
	size_t size;
	uint64_t txid, sum;
};

struct scene {
	struct world *w;
	struct original originals[MAX_DATABASES];
	size_t n;
	char directory[96];
	struct follower_options options;
	struct follower *follower;
	pthread_t thread;
	int rc;
};

static void put_file(struct scene *s, const struct original *o,
		     const struct buf *file)
{
	char key[BUCKET_KEY_MAX];
	struct bucket_put put = {
		.key = key,
		.data = file->data,
		.size = file->size,
	};

	assert_int_equal(archive_key(o->db, 0, o->txid, o->txid, key), 0);
	assert_int_equal(bucket_put(s->w->spy.inner, &put, NULL), 0);
}

static uint64_t sum_of(const uint8_t *image, size_t size, uint32_t page_size)
{
	uint64_t sum = 0;

	for (uint32_t p = 0; p < size / page_size; p++)
		sum += ltx_dbsum_page(p + 1, image + (size_t)p * page_size,
				      page_size);
	return sum;
}

/* The state that the original is in is the next batch. */
static void batch(struct scene *s, struct original *o)
{
	AUTO(buf) struct buf now = BUF_INIT(64 << 20);
	AUTO(buf) struct buf file = BUF_INIT(64 << 20);
	AUTO(ltx_encoder) struct ltx_encoder *enc = NULL;
	struct buf_sink sink;
	struct ltx_header h = { .flags = LTX_NO_CHECKSUM };

	world_read(o->path, &now);
	h.page_size = get_be16((uint8_t *)now.data + 16);
	h.commit = (uint32_t)(now.size / h.page_size);
	h.min_txid = h.max_txid = ++o->txid;
	h.timestamp_ms = WORLD_TIME + (int64_t)o->txid * 1000;
	h.pre_dbsum = o->sum;
	h.post_dbsum = sum_of((uint8_t *)now.data, now.size, h.page_size);
	buf_sink_init(&sink, &file);
	assert_int_equal(ltx_encoder_new(&sink.sink, &h, &enc), 0);
	for (uint32_t p = 1; p <= h.commit; p++) {
		size_t at = (size_t)(p - 1) * h.page_size;

		if (at + h.page_size > o->size ||
		    memcmp(now.data + at, o->image + at, h.page_size) != 0)
			assert_int_equal(ltx_encoder_page(enc, p,
							  now.data + at), 0);
	}
	assert_int_equal(ltx_encoder_finish(enc, 0), 0);
	put_file(s, o, &file);
	free(o->image);
	o->image = malloc(now.size);
	assert_non_null(o->image);
	memcpy(o->image, now.data, now.size);
	o->size = now.size;
	o->sum = h.post_dbsum;
}

static void drop(struct scene *s, struct original *o)
{
	AUTO(buf) struct buf file = BUF_INIT(1 << 20);
	AUTO(ltx_encoder) struct ltx_encoder *enc = NULL;
	struct buf_sink sink;
	const struct ltx_header h = {
		.flags = LTX_NO_CHECKSUM,
		.page_size = 1024,
		.min_txid = o->txid + 1,
		.max_txid = o->txid + 1,
		.timestamp_ms = WORLD_TIME,
		.pre_dbsum = o->sum,
		.kind = LTX_DROP,
	};

	o->txid++;
	buf_sink_init(&sink, &file);
	assert_int_equal(ltx_encoder_new(&sink.sink, &h, &enc), 0);
	assert_int_equal(ltx_encoder_finish(enc, 0), 0);
	put_file(s, o, &file);
	o->size = 0;
	o->sum = 0;
}

static void row(struct scene *s, struct original *o)
{
	run(o->sqlite, "INSERT INTO t(x) VALUES (randomblob(300))");
	batch(s, o);
}

static struct original *add(struct scene *s, const char *db)
{
	struct original *o = &s->originals[s->n++];

	(void)snprintf(o->db, sizeof(o->db), "%s", db);
	(void)snprintf(o->path, sizeof(o->path), "%s/original-%zu", s->w->dir,
		       s->n);
	assert_int_equal(sqlite3_open(o->path, &o->sqlite), SQLITE_OK);
	run(o->sqlite, "PRAGMA page_size = 1024; PRAGMA synchronous = OFF;"
		       "CREATE TABLE t(id INTEGER PRIMARY KEY, x)");
	batch(s, o);
	return o;
}

/* catalog.json as a mount would have it. */
static void put_catalog(struct scene *s)
{
	AUTO(catalog) struct catalog *c = NULL;
	AUTO(buf) struct buf text = BUF_INIT(1 << 20);
	char id[CATALOG_ID_SIZE];
	struct bucket_put put = { .key = CATALOG_KEY };

	catalog_id_make(id);
	assert_int_equal(catalog_new(id, &c), 0);
	for (size_t i = 0; i < s->n; i++) {
		const struct catalog_entry line = {
			.page_size = 1024,
			.txid = 1,
			.time_ms = WORLD_TIME,
		};

		assert_int_equal(catalog_note(c, s->originals[i].db, &line), 1);
	}
	assert_int_equal(catalog_print(c, &text), 0);
	put.data = text.data;
	put.size = text.size;
	assert_int_equal(bucket_put(s->w->spy.inner, &put, NULL), 0);
}

static void begin(struct scene *s)
{
	memset(s, 0, sizeof(*s));
	s->w = world_open(NULL);
	(void)snprintf(s->directory, sizeof(s->directory), "%s/out", s->w->dir);
	s->options = (struct follower_options){
		.bucket = s->w->spy.inner,
		.directory = s->directory,
		.interval_ms = 5,
		.catalog_ms = 20,
		.connections = 3,
		.replica = { .wait_ms = 20 },
	};
}

static void end(struct scene *s)
{
	for (size_t i = 0; i < s->n; i++) {
		(void)sqlite3_close(s->originals[i].sqlite);
		free(s->originals[i].image);
	}
	world_close(s->w);
}

/* One run that ends by itself. */
static int catch_up(struct scene *s)
{
	int rc;

	s->options.once = true;
	assert_int_equal(follower_new(&s->options, &s->follower), 0);
	rc = follower_run(s->follower);
	follower_free(s->follower);
	return rc;
}

static void *running(void *arg)
{
	struct scene *s = arg;

	s->rc = follower_run(s->follower);
	return NULL;
}

static void start(struct scene *s)
{
	assert_int_equal(follower_new(&s->options, &s->follower), 0);
	assert_int_equal(pthread_create(&s->thread, NULL, running, s), 0);
}

static void stop(struct scene *s)
{
	follower_stop(s->follower);
	assert_int_equal(pthread_join(s->thread, NULL), 0);
	assert_int_equal(s->rc, 0);
	follower_free(s->follower);
}

static bool is_there(const struct scene *s, const char *name)
{
	char path[192];

	(void)snprintf(path, sizeof(path), "%s/%s", s->directory, name);
	return access(path, F_OK) == 0;
}

/*
 * How many rows the replica has; -1: there is none yet.  A process of its own
 * asks: a file that one thread closes takes away the locks of this process's
 * SQLite, which never happens to a follower's readers.
 */
static int rows(const struct scene *s, const char *name)
{
	char command[400];
	int n = -1;
	FILE *answer;

	(void)snprintf(command, sizeof(command),
		       "sqlite3 -cmd '.timeout 5000' 'file:%s/%s?mode=rw' "
		       "'SELECT count(*) FROM t' 2>/dev/null", s->directory,
		       name);
	answer = popen(command, "r");
	assert_non_null(answer);
	if (fscanf(answer, "%d", &n) != 1)
		n = -1;
	(void)pclose(answer);
	return n;
}

static void wait_rows(const struct scene *s, const char *name, int n)
{
	int64_t until = clock_monotonic_ms() + PATIENCE_MS;

	while (rows(s, name) != n) {
		if (clock_monotonic_ms() > until)
			fail_msg("%s has %d rows, not %d", name, rows(s, name),
				 n);
		clock_sleep_ms(2);
	}
}

static bool not_b(const char *path, void *arg)
{
	return strcmp(path, arg) != 0;
}

static void once_brings_all_up_to_date(void **state)
{
	struct scene s;

	(void)state;
	begin(&s);
	(void)add(&s, "a.db");
	(void)add(&s, "dir/sub/b.db");
	(void)add(&s, "with=20space.db");
	put_catalog(&s);
	row(&s, &s.originals[0]);
	assert_int_equal(catch_up(&s), 0);
	assert_int_equal(rows(&s, "a.db"), 1);
	assert_int_equal(rows(&s, "dir/sub/b.db"), 0);
	assert_int_equal(rows(&s, "with%20space.db"), 0);
	for (int i = 0; i < 5; i++)
		row(&s, &s.originals[1]);
	assert_int_equal(catch_up(&s), 0);
	assert_int_equal(rows(&s, "dir/sub/b.db"), 5);
	end(&s);
}

static void only_what_is_wanted(void **state)
{
	struct scene s;

	(void)state;
	begin(&s);
	(void)add(&s, "a.db");
	(void)add(&s, "b.db");
	s.options.wanted = not_b;
	s.options.wanted_arg = (void *)"b.db";
	assert_int_equal(catch_up(&s), 0);
	assert_true(is_there(&s, "a.db") && !is_there(&s, "b.db"));
	end(&s);
}

static void without_a_database_it_says_so(void **state)
{
	struct scene s;

	(void)state;
	begin(&s);
	(void)add(&s, "b.db");
	s.options.wanted = not_b;
	s.options.wanted_arg = (void *)"b.db";
	assert_int_equal(catch_up(&s), -ENOENT);
	world_says("no database");
	end(&s);
}

/* Names that would be ours, whoever put them into the bucket. */
static void our_own_directory_is_no_place_for_one(void **state)
{
	struct scene s;

	(void)state;
	begin(&s);
	(void)add(&s, "a.db");
	(void)add(&s, ".litebucket/follow/x.db");
	put_catalog(&s);
	assert_int_equal(catch_up(&s), 0);
	assert_true(is_there(&s, "a.db"));
	assert_false(is_there(&s, ".litebucket/follow/x.db"));
	end(&s);
}

static void databases_come_and_go_while_it_runs(void **state)
{
	struct scene s;
	struct original *a, *b;
	int64_t until = clock_monotonic_ms() + PATIENCE_MS;

	(void)state;
	begin(&s);
	a = add(&s, "a.db");
	put_catalog(&s);
	start(&s);
	wait_rows(&s, "a.db", 0);
	for (int i = 1; i <= 20; i++) {
		row(&s, a);
		wait_rows(&s, "a.db", i);
	}
	b = add(&s, "b.db");
	row(&s, b);
	put_catalog(&s);
	wait_rows(&s, "b.db", 1);
	drop(&s, a);
	while (is_there(&s, "a.db"))
		assert_true(clock_monotonic_ms() < until);
	row(&s, a);
	wait_rows(&s, "a.db", 21);
	row(&s, b);
	wait_rows(&s, "b.db", 2);
	stop(&s);
	end(&s);
}

/* A follower_fn: the one that has an error is a.db. */
static int look_for_error(const struct follower_database *d, void *arg)
{
	if (d->error && strcmp(d->path, "a.db") == 0 &&
	    strstr(d->error, "0000000000000002"))
		*(bool *)arg = true;
	return 0;
}

static void one_that_fails_keeps_no_other(void **state)
{
	struct scene s;
	struct original *a, *b;
	char text[] = "nonsense";
	struct buf nonsense = { .data = text, .size = 8 };
	int64_t until = clock_monotonic_ms() + PATIENCE_MS;
	bool told = false;

	(void)state;
	begin(&s);
	a = add(&s, "a.db");
	b = add(&s, "b.db");
	assert_int_equal(catch_up(&s), 0);
	a->txid++;
	put_file(&s, a, &nonsense);
	row(&s, b);
	assert_int_equal(catch_up(&s), -ERR_CORRUPT);
	world_says("1 of 2 databases: a.db");
	assert_int_equal(rows(&s, "b.db"), 1);

	s.options.once = false;
	start(&s);
	row(&s, b);
	wait_rows(&s, "b.db", 2);
	while (!told) {
		assert_true(clock_monotonic_ms() < until);
		assert_int_equal(
			follower_each(s.follower, look_for_error, &told), 0);
	}
	/* Repaired, it goes on by itself. */
	a->txid--;
	row(&s, a);
	wait_rows(&s, "a.db", 1);
	stop(&s);
	end(&s);
}

/* A spy's before_get; arg: so many of 0.db, 1.db and so on get no answer. */
static void keep_waiting(const char *key, void *arg)
{
	const atomic_int *slow = arg;

	while (key[0] - '0' < atomic_load(slow) && key[1] == '.')
		clock_sleep_ms(1);
}

static void write_and_wait(struct scene *s, size_t first, int n)
{
	for (size_t i = first; i < s->n; i++) {
		row(s, &s->originals[i]);
		wait_rows(s, s->originals[i].db, n);
	}
}

static void who_waits_for_the_bucket_keeps_no_other(void **state)
{
	static const unsigned threads[] = { 3, 2 * MAX_DATABASES };
	struct scene s;
	atomic_int slow = 0;

	(void)state;
	begin(&s);
	s.options.bucket = &s.w->spy.bucket;
	s.w->spy.before_get = keep_waiting;
	s.w->spy.arg = &slow;
	for (int i = 0; i < 6; i++) {
		char db[16];

		(void)snprintf(db, sizeof(db), "%d.db", i);
		(void)add(&s, db);
	}
	for (int i = 0; i < 2; i++) {
		s.options.connections = threads[i];
		start(&s);
		write_and_wait(&s, 0, 4 * i + 1);
		atomic_store(&slow, 2);
		write_and_wait(&s, 2, 4 * i + 2);
		write_and_wait(&s, 2, 4 * i + 3);
		write_and_wait(&s, 2, 4 * i + 4);
		atomic_store(&slow, 0);
		for (int n = 2; n <= 4; n++)
			for (int k = 0; k < 2; k++)
				row(&s, &s.originals[k]);
		wait_rows(&s, "0.db", 4 * i + 4);
		wait_rows(&s, "1.db", 4 * i + 4);
		stop(&s);
	}
	end(&s);
}

static long times_waited(void)
{
	struct rusage usage;

	assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
	return usage.ru_nvcsw;
}

/* Or each batch costs more in waking them than in being applied. */
static void threads_without_work_sleep_on(void **state)
{
	enum { BATCHES = 200 };
	struct scene s;
	struct original *a;
	long before;

	(void)state;
	begin(&s);
	s.options.connections = 8;
	a = add(&s, "a.db");
	assert_int_equal(catch_up(&s), 0);
	for (int i = 0; i < BATCHES; i++)
		row(&s, a);
	before = times_waited();
	assert_int_equal(catch_up(&s), 0);
	assert_true(times_waited() - before < BATCHES);
	assert_int_equal(rows(&s, "a.db"), BATCHES);
	end(&s);
}

static void one_follower_at_a_time_and_beside_no_mount(void **state)
{
	struct scene s;
	struct follower *other = NULL;
	char path[192];

	(void)state;
	begin(&s);
	assert_int_equal(follower_new(&s.options, &s.follower), 0);
	assert_int_equal(follower_new(&s.options, &other), -EBUSY);
	world_says("a follower is at work");
	follower_free(s.follower);
	(void)snprintf(path, sizeof(path), "%s/.litebucket/db", s.directory);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(follower_new(&s.options, &other), -EEXIST);
	world_says("of a mount");
	end(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(once_brings_all_up_to_date),
		cmocka_unit_test(only_what_is_wanted),
		cmocka_unit_test(without_a_database_it_says_so),
		cmocka_unit_test(our_own_directory_is_no_place_for_one),
		cmocka_unit_test(databases_come_and_go_while_it_runs),
		cmocka_unit_test(one_that_fails_keeps_no_other),
		cmocka_unit_test(who_waits_for_the_bucket_keeps_no_other),
		cmocka_unit_test(threads_without_work_sleep_on),
		cmocka_unit_test(one_follower_at_a_time_and_beside_no_mount),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
