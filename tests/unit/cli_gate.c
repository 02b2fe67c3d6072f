#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"

#include "cli/gate.h"

static unsigned changes;

static void count_change(void *arg)
{
	(void)arg;
	changes++;
}

static int setup(void **state)
{
	static struct gate gate;

	log_set_level(LOG_ERROR);
	changes = 0;
	gate_init(&gate, count_change, NULL);
	*state = &gate;
	return 0;
}

static int teardown(void **state)
{
	gate_cleanup(*state);
	return 0;
}

static void what_nobody_holds_is_open(void **state)
{
	char why[GATE_WHY_SIZE];

	assert_int_equal(gate_admit(*state, "app.db", true), 0);
	assert_int_equal(gate_look(*state, "app.db", why), GATE_OPEN);
	assert_string_equal(why, "");
	gate_lift(*state, "app.db", GATE_HISTORY);
	assert_int_equal(gate_admit(*state, "app.db", true), 0);
}

static void all_files_of_a_database_are_held_and_no_others(void **state)
{
	static const char *const held[] = { "d/app.db", "d/app.db-wal",
					    "d/app.db-shm",
					    "d/app.db-journal" };
	static const char *const others[] = { "d", "d/app.db-mj123456789",
					      "d/app", "d/app.db-wal-wal",
					      "app.db", "-wal", "d/app.dbx",
					      "" };

	assert_int_equal(gate_pend(*state, "d/app.db", GATE_HISTORY), 0);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(gate_admit(*state, held[i], false), -EAGAIN);
	for (size_t i = 0; i < 8; i++)
		assert_int_equal(gate_admit(*state, others[i], false), 0);
}

static void a_directory_is_asked_about_all_below_it(void **state)
{
	assert_int_equal(gate_pend(*state, "a/b/app.db", GATE_HISTORY), 0);
	assert_int_equal(gate_pend(*state, "a-b.db", GATE_HISTORY), 0);
	assert_int_equal(gate_admit(*state, "a", true), -EAGAIN);
	assert_int_equal(gate_admit(*state, "a/b", true), -EAGAIN);
	assert_int_equal(gate_admit(*state, "", true), -EAGAIN);
	assert_int_equal(gate_admit(*state, "a", false), 0);
	gate_lift(*state, "a/b/app.db", GATE_HISTORY);
	assert_int_equal(gate_admit(*state, "a", true), 0);
	assert_int_equal(gate_admit(*state, "a-b.db", true), -EAGAIN);
}

static void closing_wins_over_waiting(void **state)
{
	char why[GATE_WHY_SIZE];

	assert_int_equal(gate_pend(*state, "app.db", GATE_HISTORY), 0);
	assert_int_equal(gate_close(*state, "app.db", GATE_IN_USE, -EBUSY,
				    "cat has it open"), 0);
	assert_int_equal(gate_admit(*state, "app.db", false), -EBUSY);
	assert_int_equal(gate_look(*state, "app.db", why), GATE_CLOSED);
	assert_string_equal(why, "cat has it open");
}

static void a_database_opens_when_its_last_reason_goes(void **state)
{
	char why[GATE_WHY_SIZE];

	assert_int_equal(gate_close(*state, "app.db", GATE_IN_USE, -EBUSY,
				    "cat has it open"), 0);
	assert_int_equal(gate_close(*state, "app.db", GATE_HISTORY, -EIO,
				    "it is another one"), 0);
	assert_int_equal(gate_look(*state, "app.db", why), GATE_CLOSED);
	assert_string_equal(why, "it is another one; cat has it open");
	gate_lift(*state, "app.db", GATE_HISTORY);
	assert_int_equal(gate_admit(*state, "app.db", false), -EBUSY);
	gate_lift(*state, "app.db", GATE_IN_USE);
	assert_int_equal(gate_admit(*state, "app.db", false), 0);
	assert_int_equal(changes, 4);
}

struct walk {
	struct gate *gate;
	char seen[256];
	int stop;
};

static int note(const char *path, void *arg)
{
	struct walk *w = arg;

	strcat(w->seen, path);
	strcat(w->seen, " ");
	/* The lock is not held: what is found may be changed. */
	gate_lift(w->gate, path, GATE_HISTORY);
	return w->stop;
}

static void they_are_listed_in_order(void **state)
{
	static const char *const paths[] = { "b", "a-x", "a/x", "a", "c/d/e" };
	struct walk walk = { .gate = *state };

	for (size_t i = 0; i < 5; i++)
		assert_int_equal(gate_pend(*state, paths[i], GATE_HISTORY), 0);
	assert_int_equal(gate_each(*state, note, &walk), 0);
	assert_string_equal(walk.seen, "a a-x a/x b c/d/e ");
	assert_int_equal(gate_admit(*state, "", true), 0);
	walk.stop = 7;
	for (size_t i = 0; i < 5; i++)
		assert_int_equal(gate_pend(*state, paths[i], GATE_HISTORY), 0);
	assert_int_equal(gate_each(*state, note, &walk), 7);
}

int main(void)
{
#define GATE_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		GATE_TEST(what_nobody_holds_is_open),
		GATE_TEST(all_files_of_a_database_are_held_and_no_others),
		GATE_TEST(a_directory_is_asked_about_all_below_it),
		GATE_TEST(closing_wins_over_waiting),
		GATE_TEST(a_database_opens_when_its_last_reason_goes),
		GATE_TEST(they_are_listed_in_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
