#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "capture/capture.h"
#include "cli/helper.h"
#include "cli/report.h"
#include "cli/standby.h"

#include "cli/cli.h"

extern char **environ;

static const struct verb *const verbs[] = {
	&cmd_mount,  &cmd_status, &cmd_sync, &cmd_follow,  &cmd_wait,
	&cmd_unlock, &cmd_restore, &cmd_list, &cmd_history,
};

#define N_VERBS (sizeof(verbs) / sizeof(verbs[0]))

int cli_fail(int rc)
{
	report_error("%s", error_message());
	switch (-rc) {
	case ERR_USAGE:
		return CLI_USAGE;
	case ENOENT:
	case ENODEV: /* no such bucket */
	case ENOTTY: /* no mount there */
		return CLI_NOT_FOUND;
	default:
		return CLI_FAILED;
	}
}

int cli_fail_usage(const struct verb *verb)
{
	report_error("%s: %s", verb->name, error_message());
	(void)fputs("Usage: ", stderr);
	options_usage(verb, stderr);
	return CLI_USAGE;
}

static void print_help(FILE *out)
{
	(void)fputs("Usage: litebucket VERB [OPTIONS] ARGUMENTS\n\n"
		    "SQLite, replicated through a bucket.\n\n"
		    "Verbs:\n",
		    out);
	for (size_t i = 0; i < N_VERBS; i++)
		(void)fprintf(out, "  %-10s%s\n", verbs[i]->name,
			      verbs[i]->summary);
	(void)fputs("\n'litebucket VERB --help' says more about one.\n"
		    "BUCKET is s3://NAME/PREFIX?endpoint=URL&region=R or "
		    "file:///PATH.\n"
		    "Exit status: 0 success, 1 failure, 2 wrong usage, 3 the "
		    "thing asked for\ndoes not exist.\n",
		    out);
}

static const struct verb *find_verb(const char *name)
{
	for (size_t i = 0; i < N_VERBS; i++)
		if (strcmp(verbs[i]->name, name) == 0)
			return verbs[i];
	return NULL;
}

static int unknown_verb(const char *name)
{
	const char *meant = NULL;

	for (size_t i = 0; i < N_VERBS && !meant; i++)
		if (options_similar(name, verbs[i]->name))
			meant = verbs[i]->name;
	if (meant)
		report_error("unknown verb '%s'; is it %s?", name, meant);
	else
		report_error("unknown verb '%s'; see litebucket --help", name);
	return CLI_USAGE;
}

/* entry is of the environment: NAME=VALUE. */
static bool is_entry_of(const char *entry, const char *name)
{
	size_t length = strlen(name);

	return strncmp(entry, name, length) == 0 && entry[length] == '=';
}

/* The option that a variable would be of, typed or not, or NULL. */
static const struct option *option_of(const char *entry)
{
	char name[OPTIONS_VARIABLE_SIZE];

	for (size_t i = 0; i < N_VERBS; i++)
		for (const struct option *o = verbs[i]->options; o->name; o++) {
			options_variable(o->name, name);
			if (is_entry_of(entry, name))
				return o;
		}
	return NULL;
}

/* Those that are no options; base/fail.h, capture.c, bucket/libs3.h. */
static bool is_other_variable(const char *entry)
{
	return is_entry_of(entry, "LITEBUCKET_FAILPOINT") ||
	       is_entry_of(entry, "LITEBUCKET_BOOT") ||
	       is_entry_of(entry, "LITEBUCKET_LIBS3");
}

static void warn_of_variable(const char *entry)
{
	const struct option *option = option_of(entry);
	int length = (int)strcspn(entry, "=");

	if (!option)
		report_warning("%.*s in the environment is no option of any "
			       "verb; ignoring it",
			       length, entry);
	else if (option->typed && entry[length + 1])
		report_warning("%.*s in the environment is ignored: --%s is "
			       "taken from the command line only",
			       length, entry, option->name);
}

/*
 * A variable that is nobody's is probably a misspelt option.  It is no error:
 * orchestrators set variables of their own with the names of services
 * (LITEBUCKET_PORT), and a backup must not stop for that.
 */
static void warn_of_variables(void)
{
	for (char **entry = environ; *entry; entry++)
		if (strncmp(*entry, "LITEBUCKET_", 11) == 0 &&
		    !is_other_variable(*entry))
			warn_of_variable(*entry);
}

static int run_verb(const struct verb *verb, char **argv)
{
	AUTO(mem) void *settings = calloc(1, verb->settings_size);
	int rc;

	if (!settings)
		return cli_fail(error_set(-ENOMEM, "out of memory"));
	rc = options_parse(verb, argv, settings);
	if (rc < 0)
		return cli_fail_usage(verb);
	if (rc > 0) {
		options_help(verb, stdout);
		return report_finish(CLI_OK);
	}
	warn_of_variables();
	return report_finish(verb->run(settings, argv));
}

/* "litebucket help VERB" and "litebucket --help VERB" are the verb's --help. */
static int help(const char *name)
{
	const struct verb *verb = name ? find_verb(name) : NULL;

	if (name && !verb)
		return unknown_verb(name);
	if (verb)
		options_help(verb, stdout);
	else
		print_help(stdout);
	return report_finish(CLI_OK);
}

static int version(void)
{
	(void)puts("litebucket " LITEBUCKET_VERSION);
	return report_finish(CLI_OK);
}

int cli_main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : NULL;
	const struct verb *verb;

	if (!name) {
		print_help(stderr);
		return CLI_USAGE;
	}
	if (!strcmp(name, "--help") || !strcmp(name, "-h") ||
	    !strcmp(name, "help"))
		return help(argv[2]);
	if (!strcmp(name, "--version") || !strcmp(name, "-V") ||
	    !strcmp(name, "version"))
		return version();
	if (!strcmp(name, HELPER_VERB))
		return helper_main();
	if (!strcmp(name, STANDBY_VERB) && argc == 5)
		return standby_main(argv + 2);
	if (!strcmp(name, PLAYER_VERB) && argc == 3)
		return capture_play(argv[2]);
	verb = find_verb(name);
	if (!verb)
		return unknown_verb(name);
	return run_verb(verb, argv + 1);
}
