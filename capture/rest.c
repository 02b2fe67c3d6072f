#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

#include "capture/db.h"

/*
 * Is a file at rest?  (D10)
 * =========================
 *
 * Nothing tells from below when a write without a journal was the last one of
 * something.  But SQLite, in the modes MEMORY and OFF, holds RESERVED from
 * before the first write of a transaction until after its last one.  So if
 * nobody holds it now, no write is under way, and none came since we began to
 * ask, the file is what some transaction left, and stays it until the next
 * write begins: db_settled() checks that there was none.
 *
 * That nobody holds it does not tell a program that copies a file from SQLite
 * between two transactions.  So unless SQLite was seen in one since the file
 * was last settled, a quiet time is due as well.
 *
 *	         first write        held
 *	SETTLED ------------> ASK --------> HELD: ask every POLL ms
 *	   ^                   |              |
 *	   |                   | free, or     | free
 *	   |                   v cannot tell  v
 *	   +---- quiet time: and free --- at rest
 */
enum { POLL_MIN_MS = 10, POLL_MAX_MS = 100 };

int64_t db_quiet_ms(const struct db *db)
{
	return db->config->quiet_ms ? db->config->quiet_ms : 1000;
}

void db_write_bare(struct db *db)
{
	bool first;

	(void)pthread_mutex_lock(&db->mark);
	first = !db->rest.bare;
	db->rest.bare = true;
	(void)pthread_mutex_unlock(&db->mark);
	db_let_rest(db);
	/* SQLite is soon through; ask before it is. */
	if (first && db->config->writer)
		capture_wake(db->capture);
}

int64_t db_rest_due_ms(const struct db *db)
{
	if (db->config->writer && db->rest.bare && !db->rest.asked)
		return 0;
	if (db->rest.held || db->begun != db->done)
		return db->rest.poll_at_ms;
	return db->last_write_ms + db_quiet_ms(db);
}

/* Who asks in vain asks less often.  Mark held. */
static int not_yet(struct db *db)
{
	struct rest *r = &db->rest;

	r->poll_ms = r->poll_ms ? 2 * r->poll_ms : POLL_MIN_MS;
	if (r->poll_ms > POLL_MAX_MS)
		r->poll_ms = POLL_MAX_MS;
	r->poll_at_ms = clock_monotonic_ms() + r->poll_ms;
	return -EBUSY;
}

/* Mark held. */
static int being_written(struct db *db)
{
	return error_set(not_yet(db), "'%s' is being written", db->path);
}

/* Nothing tells when such a commit is complete. */
static void tell_undurable(struct db *db)
{
	if (!db->durable || atomic_exchange(&db->told_undurable, true))
		return;
	log_warn("commits without a journal do not wait for the bucket; use "
		 "journal_mode WAL, TRUNCATE, PERSIST or DELETE", "db=%s",
		 log_quote(db->path));
}

/* After the answer, with mark held.  begun is from before the question. */
static int judge(struct db *db, bool now, int answer, uint64_t begun)
{
	struct rest *r = &db->rest;
	int64_t time = clock_monotonic_ms();
	bool quiet = time - db->last_write_ms >= db_quiet_ms(db) ||
		     (now && db->writers == 0);

	r->asked = true;
	if (answer > 0) {
		r->held = true;
		r->held_ms = r->held_ms ? r->held_ms : time;
		return error_set(not_yet(db),
				 "a transaction without a journal has not "
				 "ended; with locking_mode=EXCLUSIVE it does "
				 "when the program closes the database");
	}
	r->held_ms = 0;
	if (db->begun != begun || db->done != begun)
		return being_written(db);
	if (!quiet && !(answer == 0 && r->held))
		return error_set(-EBUSY,
				 "'%s' was written without a journal just now",
				 db->path);
	r->rested = true;
	r->begun = begun;
	r->poll_ms = 0;
	return 0;
}

int db_check_rest(struct db *db, bool now, uint64_t *ret_begun)
{
	bool confirming = atomic_load(&db->confirming) > 0;
	int answer = -1;

	(void)pthread_mutex_lock(&db->mark);
	*ret_begun = db->begun;
	if (!db->rest.bare || (db->rest.rested && db->rest.begun == db->begun)) {
		int rc = db->begun == db->done ? 0 : being_written(db);

		(void)pthread_mutex_unlock(&db->mark);
		return rc;
	}
	(void)pthread_mutex_unlock(&db->mark);
	/* Who waits for the bucket has the lock still, and writes no more. */
	if (confirming)
		answer = 0;
	else if (db->config->writer)
		answer = db->config->writer(db->config->arg, db->path);
	if (answer > 0)
		tell_undurable(db);
	AUTO(unlock) pthread_mutex_t *held = lock(&db->mark);
	return judge(db, now, answer, *ret_begun);
}
