#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/log.h"
#include "cli/cli.h"

#include "cli/options.h"

struct settings {
	bool flag;
	const char *text;
	int64_t pause_ms;
	unsigned count;
	uint64_t size;
	uint64_t txid;
	int64_t time_ms;
	int fd;
	enum log_level level;
	unsigned mode;
	struct option_list names;
	bool danger;
};

static const struct option table[] = {
	OPTION(struct settings, flag, .name = "flag", .kind = OPTION_FLAG,
	       .help = "a flag"),
	OPTION(struct settings, text, .name = "out-put", .letter = 'o',
	       .kind = OPTION_TEXT, .value = "FILE", .help = "a text"),
	OPTION(struct settings, pause_ms, .name = "pause",
	       .kind = OPTION_DURATION, .value = "DURATION", .fallback = "1s",
	       .help = "a duration"),
	OPTION(struct settings, count, .name = "count", .kind = OPTION_COUNT,
	       .value = "N", .fallback = "8", .help = "a number"),
	OPTION(struct settings, size, .name = "size", .kind = OPTION_SIZE,
	       .value = "SIZE", .fallback = "1KiB", .help = "a size"),
	OPTION(struct settings, txid, .name = "txid", .kind = OPTION_TXID,
	       .value = "HEX", .help = "a transaction"),
	OPTION(struct settings, time_ms, .name = "time", .kind = OPTION_TIME,
	       .value = "TIME", .help = "a time"),
	OPTION(struct settings, fd, .name = "fd", .kind = OPTION_FD,
	       .value = "N", .help = "a descriptor"),
	OPTION(struct settings, level, .name = "level", .kind = OPTION_LEVEL,
	       .value = "LEVEL", .fallback = "info", .help = "a level"),
	OPTION(struct settings, mode, .name = "mode", .kind = OPTION_MODE,
	       .value = "MODE", .fallback = "0600", .help = "a mode"),
	OPTION(struct settings, names, .name = "name", .kind = OPTION_LIST,
	       .value = "NAME", .help = "names"),
	OPTION(struct settings, danger, .name = "danger", .kind = OPTION_FLAG,
	       .typed = true, .help = "a danger"),
	{0},
};

static const struct verb verb = {
	.name = "verb",
	.operands = {"ONE", "[TWO]"},
	.description = "What it does.",
	.options = table,
	.settings_size = sizeof(struct settings),
};

static char *argv[32];
static struct settings settings;

/* Parse "verb" and the words of line, which are parted by single blanks. */
static int parse(const char *line)
{
	static char words[512];
	int argc = 1;

	(void)snprintf(words, sizeof(words), "%s", line);
	memset(&settings, 0, sizeof(settings));
	argv[0] = (char *)"verb";
	for (char *w = strtok(words, " "); w; w = strtok(NULL, " "))
		argv[argc++] = w;
	argv[argc] = NULL;
	return options_parse(&verb, argv, &settings);
}

static void assert_refused(const char *line, const char *because)
{
	assert_int_equal(parse(line), -ERR_USAGE);
	if (!strstr(error_message(), because))
		fail_msg("'%s' gives \"%s\", without \"%s\"", line,
			 error_message(), because);
}

static void what_is_not_given_has_its_default(void **state)
{
	assert_int_equal(parse("x"), 0);
	assert_false(settings.flag);
	assert_null(settings.text);
	assert_int_equal(settings.pause_ms, 1000);
	assert_int_equal(settings.count, 8);
	assert_int_equal(settings.size, 1024);
	assert_int_equal(settings.txid, 0);
	assert_int_equal(settings.time_ms, 0);
	assert_int_equal(settings.fd, -1);
	assert_int_equal(settings.level, LOG_INFO);
	assert_int_equal(settings.mode, 0600);
	assert_int_equal(settings.names.n, 0);
}

static void every_kind_takes_its_value(void **state)
{
	assert_int_equal(parse("--flag --out-put f --pause 20ms --count 3 "
			       "--txid 2A --time 2006-01-02T15:04:05Z --fd 1 "
			       "--level warn --mode 640 x"),
			 0);
	assert_true(settings.flag);
	assert_string_equal(settings.text, "f");
	assert_int_equal(settings.pause_ms, 20);
	assert_int_equal(settings.count, 3);
	assert_int_equal(settings.txid, 42);
	assert_int_equal(settings.time_ms, 1136214245000);
	assert_int_equal(settings.fd, 1);
	assert_int_equal(settings.level, LOG_WARN);
	assert_int_equal(settings.mode, 0640);
}

static void a_list_has_each_that_was_said(void **state)
{
	char line[512] = "x";

	assert_int_equal(parse("--name a x --name=b"), 0);
	assert_int_equal(settings.names.n, 2);
	assert_string_equal(settings.names.items[0], "a");
	assert_string_equal(settings.names.items[1], "b");
	for (int i = 0; i < 28; i++)
		strcat(line, " --name=a");
	assert_int_equal(parse(line), 0);
	assert_int_equal(settings.names.n, 28);
}

static void sizes_are_powers_of_1024(void **state)
{
	static const struct {
		const char *line;
		uint64_t size;
	} all[] = {
		{ "--size 0 x", 0 },
		{ "--size 4096 x", 4096 },
		{ "--size 7B x", 7 },
		{ "--size 64MiB x", UINT64_C(64) << 20 },
		{ "--size 64M x", UINT64_C(64) << 20 },
		{ "--size 10GiB x", UINT64_C(10) << 30 },
		{ "--size 3tib x", UINT64_C(3) << 40 },
		{ "--size 8191PiB x", UINT64_C(8191) << 50 },
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		assert_int_equal(parse(all[i].line), 0);
		assert_int_equal(settings.size, all[i].size);
	}
	assert_refused("--size= x", "'' is no size; write it like 64MiB");
	assert_refused("--size MiB x", "'MiB' is no size");
	assert_refused("--size 64MB x", "'64MB' is no size");
	assert_refused("--size 64iB x", "'64iB' is no size");
	assert_refused("--size 1.5GiB x", "'1.5GiB' is no size");
	assert_refused("--size -1 x", "'-1' is no size");
	assert_refused("--size 8192PiB x", "'8192PiB' is no size");
	assert_refused("--size 9999999999999999999 x", "is no size");
}

static void options_may_stand_anywhere(void **state)
{
	assert_int_equal(parse("one --count=4 two -of"), 0);
	assert_string_equal(argv[0], "one");
	assert_string_equal(argv[1], "two");
	assert_null(argv[2]);
	assert_int_equal(settings.count, 4);
	assert_string_equal(settings.text, "f");
}

static void two_dashes_end_the_options(void **state)
{
	assert_int_equal(parse("-o f -- --count"), 0);
	assert_string_equal(argv[0], "--count");
	assert_int_equal(settings.count, 8);
}

static void a_single_dash_is_an_operand(void **state)
{
	assert_int_equal(parse("-"), 0);
	assert_string_equal(argv[0], "-");
}

static void the_last_of_two_counts(void **state)
{
	assert_int_equal(parse("x --count 3 --count 5"), 0);
	assert_int_equal(settings.count, 5);
}

static void a_forgotten_value_is_not_the_next_option(void **state)
{
	assert_refused("x -o --flag", "-o needs a value: -o FILE");
	assert_refused("x --count", "--count needs a value: --count N");
	/* Whoever means it can say it. */
	assert_int_equal(parse("x --out-put=--flag"), 0);
	assert_string_equal(settings.text, "--flag");
}

static void unknown_options_are_refused_with_a_hint(void **state)
{
	assert_refused("x --coutn 3",
		       "unknown option '--coutn'; is it --count?");
	assert_refused("x --outputt=f", "is it --out-put?");
	assert_refused("x --elephant", "unknown option '--elephant'");
	assert_null(strstr(error_message(), "is it"));
	assert_refused("x -q", "unknown option '-q'");
	assert_refused("x --coun 3", "unknown option");
}

static void values_that_make_no_sense_are_refused(void **state)
{
	assert_refused("x --count 0", "--count: '0' is not a number");
	assert_refused("x --count -1", "'-1' is not a number");
	assert_refused("x --count 1001", "'1001'");
	assert_refused("x --count 4294967297", "'4294967297'");
	assert_refused("x --count 3x", "'3x'");
	assert_refused("x --count +3", "'+3'");
	assert_refused("x --count=", "''");
	assert_refused("x --pause 1", "--pause: '1' is no duration");
	assert_refused("x --pause -1s", "'-1s'");
	assert_refused("x --txid 0", "'0' is no TXID");
	assert_refused("x --txid 0x2a", "like 000000000000002a");
	assert_refused("x --txid 00000000000000001", "'00000000000000001'");
	assert_refused("x --txid -2a", "'-2a'");
	assert_refused("x --time noon", "'noon' is no time");
	assert_refused("x --fd 999", "descriptor 999 is not open");
	assert_refused("x --fd one", "'one' is no file descriptor");
	assert_refused("x --mode 0", "'0' is no mode of a file");
	assert_refused("x --mode 1777", "'1777' is no mode");
	assert_refused("x --mode rw", "write it in octal, like 0644");
	assert_refused("x --level loud", "'loud' is no log level");
	assert_refused("x --out-put=", "--out-put: the value is empty");
	assert_refused("x --flag=maybe", "'maybe' is neither true nor false");
}

static void the_beginning_of_1970_is_a_time_too(void **state)
{
	assert_int_equal(parse("x --time 1970-01-01T00:00:00Z"), 0);
	assert_int_not_equal(settings.time_ms, 0);
}

static void operands_are_counted(void **state)
{
	assert_refused("", "ONE is missing");
	assert_int_equal(parse("one two"), 0);
	assert_refused("one two three", "'three' is one argument too many");
}

static void an_empty_operand_is_refused(void **state)
{
	char *empty[] = {(char *)"verb", (char *)"", NULL};

	assert_int_equal(options_parse(&verb, empty, &settings), -ERR_USAGE);
	assert_string_equal(error_message(), "ONE is empty");
}

static void the_environment_gives_what_the_command_line_does_not(void **state)
{
	setenv("LITEBUCKET_OUT_PUT", "from-environment", 1);
	setenv("LITEBUCKET_FLAG", "yes", 1);
	setenv("LITEBUCKET_PAUSE", "0", 1);
	setenv("LITEBUCKET_COUNT", "", 1);
	assert_int_equal(parse("x"), 0);
	assert_string_equal(settings.text, "from-environment");
	assert_true(settings.flag);
	assert_int_equal(settings.pause_ms, 0);
	assert_int_equal(settings.count, 8); /* empty is not given */
	assert_int_equal(parse("x --flag=false -o line --pause 2s"), 0);
	assert_string_equal(settings.text, "line");
	assert_false(settings.flag);
	assert_int_equal(settings.pause_ms, 2000);
}

static void what_must_be_typed_is_not_taken_from_the_environment(void **state)
{
	setenv("LITEBUCKET_DANGER", "yes", 1);
	assert_int_equal(parse("x"), 0);
	assert_false(settings.danger);
	assert_int_equal(parse("x --danger"), 0);
	assert_true(settings.danger);
	setenv("LITEBUCKET_DANGER", "nonsense", 1);
	assert_int_equal(parse("x"), 0);
}

static void a_bad_variable_is_named_unless_it_is_overridden(void **state)
{
	setenv("LITEBUCKET_PAUSE", "soon", 1);
	assert_refused("x", "LITEBUCKET_PAUSE: 'soon' is no duration");
	assert_int_equal(parse("x --pause 1s"), 0);
}

static int clear_environment(void **state)
{
	for (const struct option *o = table; o->name; o++) {
		char variable[OPTIONS_VARIABLE_SIZE];

		options_variable(o->name, variable);
		unsetenv(variable);
	}
	return 0;
}

static void help_wins_over_what_is_missing(void **state)
{
	assert_int_equal(parse("--help"), 1);
	assert_int_equal(parse("one two three -h"), 1);
}

static void slips_of_the_pen_are_recognised(void **state)
{
	assert_true(options_similar("mont", "mount"));
	assert_true(options_similar("mounted", "mount"));
	assert_true(options_similar("resotre", "restore"));
	assert_false(options_similar("mount", "list"));
	assert_false(options_similar("ls", "sync"));
	assert_false(options_similar("", "list"));
}

static const struct verb *const verbs[] = {
	&cmd_mount, &cmd_follow, &cmd_restore, &cmd_list,   &cmd_history,
	&cmd_sync,  &cmd_wait,	 &cmd_status,  &cmd_unlock,
};

static void every_default_of_every_verb_is_a_valid_value(void **state)
{
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
		char *line[] = {(char *)"verb", (char *)"a", (char *)"b", NULL};
		void *storage = calloc(1, verbs[i]->settings_size);

		if (!verbs[i]->operands[1])
			line[2] = NULL;
		assert_int_equal(options_parse(verbs[i], line, storage), 0);
		free(storage);
	}
}

static void the_help_of_every_verb_fits_on_a_terminal(void **state)
{
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
		char *text;
		size_t size;
		FILE *out = open_memstream(&text, &size);

		options_help(verbs[i], out);
		(void)fclose(out);
		for (char *l = strtok(text, "\n"); l; l = strtok(NULL, "\n"))
			if (strlen(l) > 80)
				fail_msg("too long: %s", l);
		free(text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_not_given_has_its_default),
		cmocka_unit_test(every_kind_takes_its_value),
		cmocka_unit_test(a_list_has_each_that_was_said),
		cmocka_unit_test(sizes_are_powers_of_1024),
		cmocka_unit_test(options_may_stand_anywhere),
		cmocka_unit_test(two_dashes_end_the_options),
		cmocka_unit_test(a_single_dash_is_an_operand),
		cmocka_unit_test(the_last_of_two_counts),
		cmocka_unit_test(a_forgotten_value_is_not_the_next_option),
		cmocka_unit_test(unknown_options_are_refused_with_a_hint),
		cmocka_unit_test(values_that_make_no_sense_are_refused),
		cmocka_unit_test(the_beginning_of_1970_is_a_time_too),
		cmocka_unit_test(operands_are_counted),
		cmocka_unit_test(an_empty_operand_is_refused),
		cmocka_unit_test_teardown(
			the_environment_gives_what_the_command_line_does_not,
			clear_environment),
		cmocka_unit_test_teardown(
			what_must_be_typed_is_not_taken_from_the_environment,
			clear_environment),
		cmocka_unit_test_teardown(
			a_bad_variable_is_named_unless_it_is_overridden,
			clear_environment),
		cmocka_unit_test(help_wins_over_what_is_missing),
		cmocka_unit_test(slips_of_the_pen_are_recognised),
		cmocka_unit_test(every_default_of_every_verb_is_a_valid_value),
		cmocka_unit_test(the_help_of_every_verb_fits_on_a_terminal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
