/*
 * Plans and points are pure, so each case is a row: what is listed, what is
 * wanted, what comes out.  A file is written "LEVEL:MIN-MAX" or
 * "LEVEL:MIN-MAX*SIZE", numbers in decimal; all else has size 100.
 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "restorer/plan.h"
#include "restorer/points.h"

enum { MAX_FILES = 64 };

static size_t parse(const char *text, struct archive_file *ret)
{
	size_t n = 0;

	while (*text) {
		unsigned level;
		uint64_t min, max, size = 100;
		int used;

		assert_int_equal(sscanf(text, "%u:%" SCNu64 "-%" SCNu64 "%n",
					&level, &min, &max, &used), 3);
		text += used;
		if (*text == '*')
			size = strtoull(text + 1, (char **)&text, 10);
		text += strspn(text, " ");
		assert_true(n < MAX_FILES);
		ret[n++] = (struct archive_file){
			.level = level,
			.min_txid = min,
			.max_txid = max,
			.size = size,
		};
	}
	return n;
}

static const char *show(const struct archive_file *files, size_t n)
{
	static char text[1024];
	char *p = text;

	*p = '\0';
	for (size_t i = 0; i < n; i++)
		p += sprintf(p, "%s%u:%" PRIu64 "-%" PRIu64, i ? " " : "",
			     files[i].level, files[i].min_txid,
			     files[i].max_txid);
	return text;
}

struct plan_case {
	const char *listed;
	uint64_t want;
	const char *plan; /* or NULL */
	int rc;
	const char *says; /* some of the sentence */
};

static void check_plan(const struct plan_case *c)
{
	struct archive_file listed[MAX_FILES], plan[MAX_FILES];
	size_t n = parse(c->listed, listed);
	int rc = restorer_plan(listed, n, c->want, plan);

	if (c->plan) {
		assert_true(rc >= 0);
		assert_string_equal(show(plan, (size_t)rc), c->plan);
		return;
	}
	assert_int_equal(rc, c->rc);
	if (!strstr(error_message(), c->says))
		fail_msg("'%s' does not say '%s'", error_message(), c->says);
}

static void check_plans(const struct plan_case *cases, size_t n)
{
	for (size_t i = 0; i < n; i++)
		check_plan(&cases[i]);
}
#define CHECK_PLANS(cases) check_plans(cases, sizeof(cases) / sizeof((cases)[0]))

static void the_plan_is_the_fewest_files_that_lead_there(void **state)
{
	static const struct plan_case cases[] = {
		{ "0:1-1", 1, "0:1-1", 0, NULL },
		{ "0:1-1 0:2-2 0:3-3", 3, "0:1-1 0:2-2 0:3-3", 0, NULL },
		{ "0:1-1 0:2-2 0:3-3", 2, "0:1-1 0:2-2", 0, NULL },
		/* The example of plan.h. */
		{ "9:1-4 1:1-8 2:5-6 0:7-7 0:8-8 0:9-9", 9, "1:1-8 0:9-9", 0,
		  NULL },
		{ "9:1-1 9:1-14 1:1-7 0:14-14", 14, "9:1-14", 0, NULL },
		{ "9:1-1 1:1-7 1:8-8 0:8-8 0:9-9", 9, "1:1-7 0:8-8 0:9-9", 0,
		  NULL },
		/* The order of the list does not matter. */
		{ "0:3-3 0:2-2 0:1-1", 3, "0:1-1 0:2-2 0:3-3", 0, NULL },
	};

	(void)state;
	CHECK_PLANS(cases);
}

static void files_may_overlap_but_not_reach_beyond(void **state)
{
	static const struct plan_case cases[] = {
		{ "9:1-4 1:3-9", 9, "9:1-4 1:3-9", 0, NULL },
		{ "9:1-4 1:3-9 0:5-5 0:6-6", 6, "9:1-4 0:5-5 0:6-6", 0, NULL },
		/* Contained in what is there already: of no use. */
		{ "9:1-4 1:2-3 0:5-5", 5, "9:1-4 0:5-5", 0, NULL },
		/* What starts later may reach further. */
		{ "0:1-3 1:2-5 2:4-9", 9, "0:1-3 2:4-9", 0, NULL },
		{ "0:1-3 1:2-5 2:6-9", 9, "0:1-3 1:2-5 2:6-9", 0, NULL },
		{ "9:1-8 0:1-1 0:2-2", 2, "0:1-1 0:2-2", 0, NULL },
		{ "9:1-18446744073709551615", UINT64_MAX,
		  "9:1-18446744073709551615", 0, NULL },
	};

	(void)state;
	CHECK_PLANS(cases);
}

static void of_two_that_reach_equally_far_the_smaller_is_taken(void **state)
{
	static const struct plan_case cases[] = {
		{ "9:1-3*500 1:1-3*400", 3, "1:1-3", 0, NULL },
		{ "9:1-3 1:4-5*70 2:3-5*60", 5, "9:1-3 2:3-5", 0, NULL },
		{ "9:1-3 1:1-3", 3, "1:1-3", 0, NULL },
	};

	(void)state;
	CHECK_PLANS(cases);
}

static void a_hole_is_named_by_its_first_transaction(void **state)
{
	static const struct plan_case cases[] = {
		{ "0:1-1 0:3-3", 3, NULL, -ERR_GAP,
		  "transaction 0000000000000002 is missing: no file has it, "
		  "and the next one begins at 0000000000000003" },
		{ "9:1-9 0:12-12 1:14-15", 15, NULL, -ERR_GAP,
		  "transaction 000000000000000a is missing" },
		{ "0:1-1 0:2-2", 3, NULL, -ERR_GAP,
		  "transaction 0000000000000003 is missing: no file has it" },
		/* A snapshot beyond the hole leads around it. */
		{ "0:1-1 0:3-3 9:1-3", 3, "9:1-3", 0, NULL },
	};

	(void)state;
	CHECK_PLANS(cases);
}

static void without_a_base_there_is_nothing(void **state)
{
	static const struct plan_case cases[] = {
		{ "", 1, NULL, -ENOENT, "there are no files" },
		{ "0:2-2 0:3-3", 3, NULL, -ENOENT,
		  "no file begins at transaction 1, so there is nothing to "
		  "start from (the first begins at 0000000000000002)" },
	};

	(void)state;
	CHECK_PLANS(cases);
}

static void the_inside_of_a_compaction_is_no_plan(void **state)
{
	static const struct plan_case cases[] = {
		{ "9:1-8", 5, NULL, -ENOENT,
		  "transaction 0000000000000001 is only in files that go on "
		  "beyond 0000000000000005" },
		{ "9:1-3 1:4-8 0:7-7", 7, NULL, -ENOENT,
		  "transaction 0000000000000004 is only in files" },
	};

	(void)state;
	CHECK_PLANS(cases);
}

struct points_case {
	const char *listed, *points, *ends;
};

static void points_are_the_ends_to_which_a_plan_leads(void **state)
{
	static const struct points_case cases[] = {
		{ "", "", "" },
		{ "0:1-1 0:2-2", "0:1-1 0:2-2", "0:1-1 0:2-2" },
		/* The example of points.h. */
		{ "0:1-3 0:4-4 1:5-8 0:7-7", "0:1-3 0:4-4 1:5-8",
		  "0:1-3 0:4-4 0:7-7 1:5-8" },
		/* The lowest level that ends there. */
		{ "9:1-3 1:1-3 0:3-3", "0:3-3", "0:3-3" },
		/* After a hole nothing, until a snapshot leads around it. */
		{ "0:1-1 0:3-3 0:4-4 9:1-4 0:5-5", "0:1-1 0:4-4 0:5-5",
		  "0:1-1 0:3-3 0:4-4 0:5-5" },
		{ "0:2-2 0:3-3", "", "0:2-2 0:3-3" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct archive_file listed[MAX_FILES], found[MAX_FILES];
		size_t n = parse(cases[i].listed, listed);

		assert_string_equal(
			show(found, points_find(listed, n, false, found)),
			cases[i].points);
		assert_string_equal(
			show(found, points_find(listed, n, true, found)),
			cases[i].ends);
	}
}

/* xorshift: the same cases every time. */
static uint64_t next_random(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* By trying everything: is there any sequence of files that ends in want? */
static bool reachable(const struct archive_file *files, size_t n,
		      uint64_t want)
{
	bool at[32] = { true };

	for (uint64_t have = 0; have < want; have++)
		for (size_t i = 0; at[have] && i < n; i++)
			if (files[i].min_txid <= have + 1 &&
			    files[i].max_txid > have &&
			    files[i].max_txid <= want)
				at[files[i].max_txid] = true;
	return at[want];
}

static bool is_point(const struct archive_file *points, size_t n, uint64_t txid)
{
	const struct archive_file *p = points_at_or_before(points, n, txid);

	return p && p->max_txid == txid;
}

/* Each file of a plan must follow from those before and add something. */
static void check_follows(const struct archive_file *plan, size_t n,
			  uint64_t want)
{
	uint64_t have = 0;

	for (size_t i = 0; i < n; i++) {
		assert_true(plan[i].min_txid <= have + 1);
		assert_true(plan[i].max_txid > have);
		have = plan[i].max_txid;
	}
	assert_true(have == want);
}

static void plans_and_points_agree_with_trying_everything(void **state)
{
	uint64_t seed = 42;

	(void)state;
	for (int round = 0; round < 20000; round++) {
		struct archive_file files[MAX_FILES], plan[MAX_FILES];
		struct archive_file points[MAX_FILES];
		size_t n = 1 + next_random(&seed) % 12, n_points;

		for (size_t i = 0; i < n; i++) {
			uint64_t min = 1 + next_random(&seed) % 16;

			files[i] = (struct archive_file){
				.min_txid = next_random(&seed) % 4 ? min : 1,
				.max_txid = min + next_random(&seed) % 6,
				.size = next_random(&seed) % 3,
			};
		}
		n_points = points_find(files, n, false, points);
		for (uint64_t want = 1; want < 24; want++) {
			int rc = restorer_plan(files, n, want, plan);
			bool can = reachable(files, n, want);

			assert_int_equal(rc >= 0, can);
			assert_int_equal(is_point(points, n_points, want), can);
			if (can)
				check_follows(plan, (size_t)rc, want);
		}
	}
}

static void an_unknown_transaction_is_told_its_neighbours(void **state)
{
	static const struct {
		uint64_t txid;
		const char *says;
	} cases[] = {
		{ 1, "there are 3 from 0000000000000003 to 0000000000000009, "
		     "nearest: 0000000000000003" },
		{ 5, "nearest: 0000000000000004 and 0000000000000009" },
		{ 12, "nearest: 0000000000000009" },
	};
	struct archive_file points[MAX_FILES];
	size_t n = parse("0:1-3 0:4-4 1:5-9", points);

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(points_unknown(points, n, cases[i].txid),
				 -ENOENT);
		assert_non_null(strstr(error_message(), cases[i].says));
	}
	assert_int_equal(points_unknown(points, 0, 1), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_plan_is_the_fewest_files_that_lead_there),
		cmocka_unit_test(files_may_overlap_but_not_reach_beyond),
		cmocka_unit_test(
			of_two_that_reach_equally_far_the_smaller_is_taken),
		cmocka_unit_test(a_hole_is_named_by_its_first_transaction),
		cmocka_unit_test(without_a_base_there_is_nothing),
		cmocka_unit_test(the_inside_of_a_compaction_is_no_plan),
		cmocka_unit_test(points_are_the_ends_to_which_a_plan_leads),
		cmocka_unit_test(plans_and_points_agree_with_trying_everything),
		cmocka_unit_test(an_unknown_transaction_is_told_its_neighbours),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
