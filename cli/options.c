#include <assert.h>
#include <ctype.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

#include "cli/options.h"

/*
 * Values
 * ------
 * One function per kind; text is what a person wrote, dest a field of the
 * settings.  Each sentence quotes the text and shows a right one.
 */

static int parse_flag(const char *text, void *dest)
{
	static const struct {
		const char *text;
		bool value;
	} words[] = {
		{"true", true},	  {"1", true},	{"yes", true}, {"on", true},
		{"false", false}, {"0", false}, {"no", false}, {"off", false},
	};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (strcasecmp(words[i].text, text) != 0)
			continue;
		*(bool *)dest = words[i].value;
		return 0;
	}
	return error_set(-ERR_USAGE, "'%s' is neither true nor false", text);
}

static int parse_text(const char *text, void *dest)
{
	if (!*text)
		return error_set(-ERR_USAGE, "the value is empty");
	*(const char **)dest = text;
	return 0;
}

static int parse_list(const char *text, void *dest)
{
	struct option_list *list = dest;

	if (list->n == OPTIONS_LIST_MAX)
		return error_set(-ERR_USAGE, "'%s' is one too many; at most %d",
				 text, OPTIONS_LIST_MAX);
	return parse_text(text, &list->items[list->n++]);
}

static int parse_duration(const char *text, void *dest)
{
	return clock_parse_duration(text, dest);
}

/* Decimal digits and nothing else, so that " 1", "+1" and "1x" are refused. */
static int parse_number(const char *text, unsigned min, unsigned max,
			unsigned *ret)
{
	unsigned long number;

	if (!*text || strspn(text, "0123456789") != strlen(text) ||
	    strlen(text) > 9)
		return -EINVAL;
	number = strtoul(text, NULL, 10);
	if (number < min || number > max)
		return -EINVAL;
	*ret = (unsigned)number;
	return 0;
}

static int parse_count(const char *text, void *dest)
{
	if (parse_number(text, 1, OPTIONS_COUNT_MAX, dest) == 0)
		return 0;
	return error_set(-ERR_USAGE, "'%s' is not a number from 1 to %d", text,
			 OPTIONS_COUNT_MAX);
}

/* A whole number, and what it counts; powers of 1024, also if "iB" is left out. */
static int parse_size(const char *text, void *dest)
{
	static const char *const units[] = { "", "K", "M", "G", "T", "P" };
	size_t digits = strspn(text, "0123456789");
	const char *unit = text + digits;
	uint64_t number;

	if (digits == 0 || digits > 18)
		goto invalid;
	number = strtoull(text, NULL, 10);
	if (strcmp(unit, "B") == 0)
		unit = "";
	for (unsigned i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		size_t n = strlen(units[i]);

		if (strncasecmp(unit, units[i], n) != 0 ||
		    (unit[n] && (n == 0 || strcasecmp(unit + n, "iB") != 0)))
			continue;
		if (number > (uint64_t)INT64_MAX >> 10 * i)
			goto invalid;
		*(uint64_t *)dest = number << 10 * i;
		return 0;
	}
invalid:
	return error_set(-ERR_USAGE,
			 "'%s' is no size; write it like 64MiB or 10GiB", text);
}

int options_parse_txid(const char *text, uint64_t *ret)
{
	size_t length = strspn(text, "0123456789abcdefABCDEF");
	uint64_t txid;

	if (length == 0 || length > 16 || text[length])
		goto invalid;
	txid = strtoull(text, NULL, 16);
	if (txid == 0)
		goto invalid;
	*ret = txid;
	return 0;
invalid:
	return error_set(-ERR_USAGE,
			 "'%s' is no TXID; write it as 1 to 16 hex digits, "
			 "like 000000000000002a",
			 text);
}

static int parse_txid(const char *text, void *dest)
{
	return options_parse_txid(text, dest);
}

/* 0 means "not given", so the first millisecond of 1970 becomes the second. */
static int parse_time(const char *text, void *dest)
{
	int64_t wall_ms;
	int rc = clock_parse(text, &wall_ms);

	if (rc < 0)
		return rc;
	*(int64_t *)dest = wall_ms ? wall_ms : 1;
	return 0;
}

static int parse_fd(const char *text, void *dest)
{
	unsigned fd;

	if (parse_number(text, 0, INT32_MAX, &fd) < 0)
		return error_set(-ERR_USAGE, "'%s' is no file descriptor",
				 text);
	if (fcntl((int)fd, F_GETFD) < 0)
		return error_set(-ERR_USAGE, "descriptor %s is not open", text);
	*(int *)dest = (int)fd;
	return 0;
}

static int parse_offset(const char *text, void *dest)
{
	char *end;
	uint64_t offset = strtoull(text, &end, 0);

	if (!isdigit((unsigned char)*text) || *end || offset > INT64_MAX)
		return error_set(-ERR_USAGE, "'%s' is no offset", text);
	*(uint64_t *)dest = offset;
	return 0;
}

static int parse_mode(const char *text, void *dest)
{
	size_t length = strspn(text, "01234567");
	unsigned long mode = strtoul(text, NULL, 8);

	if (length == 0 || length > 4 || text[length] || mode == 0 ||
	    mode > 0777)
		return error_set(-ERR_USAGE,
				 "'%s' is no mode of a file; write it in "
				 "octal, like 0644", text);
	*(unsigned *)dest = (unsigned)mode;
	return 0;
}

static int parse_level(const char *text, void *dest)
{
	return log_parse_level(text, dest);
}

static int (*const parsers[])(const char *text, void *dest) = {
	[OPTION_FLAG] = parse_flag,
	[OPTION_TEXT] = parse_text,
	[OPTION_DURATION] = parse_duration,
	[OPTION_COUNT] = parse_count,
	[OPTION_SIZE] = parse_size,
	[OPTION_TXID] = parse_txid,
	[OPTION_TIME] = parse_time,
	[OPTION_FD] = parse_fd,
	[OPTION_MODE] = parse_mode,
	[OPTION_LEVEL] = parse_level,
	[OPTION_OFFSET] = parse_offset,
	[OPTION_LIST] = parse_list,
};

/* source is what the value came with: an option as typed, or a variable. */
static int take(const struct option *option, const char *source,
		const char *text, void *settings)
{
	void *dest = (char *)settings + option->offset;

	if (parsers[option->kind](text, dest) == 0)
		return 0;
	return error_wrap(-ERR_USAGE, "%s", source);
}

/*
 * The command line
 * ----------------
 */

struct parser {
	const struct verb *verb;
	char **next; /* the argument to be looked at; NULL-terminated */
	void *settings;
	bool given[OPTIONS_PER_VERB];
	bool help;
};

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

bool options_similar(const char *typed, const char *word)
{
	size_t rows = strlen(typed), columns = strlen(word);
	size_t above[64], row[64];

	if (rows >= 64 || columns >= 64)
		return false;
	for (size_t j = 0; j <= columns; j++)
		above[j] = j;
	for (size_t i = 1; i <= rows; i++) {
		row[0] = i;
		for (size_t j = 1; j <= columns; j++)
			row[j] = least(above[j - 1] +
					       (typed[i - 1] != word[j - 1]),
				       1 + least(above[j], row[j - 1]));
		memcpy(above, row, sizeof(row));
	}
	return above[columns] <= 2 && above[columns] * 2 < columns;
}

static const struct option *find_long(const struct verb *verb, const char *name,
				      size_t length)
{
	for (const struct option *o = verb->options; o->name; o++)
		if (strlen(o->name) == length &&
		    memcmp(o->name, name, length) == 0)
			return o;
	return NULL;
}

static const struct option *find_short(const struct verb *verb, char letter)
{
	for (const struct option *o = verb->options; o->name; o++)
		if (o->letter && o->letter == letter)
			return o;
	return NULL;
}

static int unknown_option(const struct verb *verb, const char *arg)
{
	const char *name = arg + strspn(arg, "-");
	char typed[64];

	(void)snprintf(typed, sizeof(typed), "%.*s", (int)strcspn(name, "="),
		       name);
	for (const struct option *o = verb->options; o->name; o++)
		if (options_similar(typed, o->name))
			return error_set(-ERR_USAGE,
					 "unknown option '%s'; is it --%s?",
					 arg, o->name);
	return error_set(-ERR_USAGE, "unknown option '%s'", arg);
}

/*
 * attached is the value in the same argument, or NULL: then it is the next
 * one, unless that is an option, which somebody forgot the value before.
 */
static int take_option(struct parser *p, const struct option *option,
		       const char *typed, const char *attached)
{
	const char *text = attached;

	if (!text && option->kind == OPTION_FLAG)
		text = "true";
	if (!text) {
		if (!*p->next || strncmp(*p->next, "--", 2) == 0)
			return error_set(-ERR_USAGE, "%s needs a value: %s %s",
					 typed, typed, option->value);
		text = *p->next++;
	}
	assert(option - p->verb->options < OPTIONS_PER_VERB);
	p->given[option - p->verb->options] = true;
	return take(option, typed, text, p->settings);
}

static int take_long(struct parser *p, const char *arg)
{
	size_t length = strcspn(arg + 2, "=");
	const struct option *option = find_long(p->verb, arg + 2, length);
	char typed[64];

	if (strcmp(arg, "--help") == 0) {
		p->help = true;
		return 0;
	}
	if (!option)
		return unknown_option(p->verb, arg);
	(void)snprintf(typed, sizeof(typed), "--%s", option->name);
	return take_option(p, option, typed,
			   arg[2 + length] ? arg + 2 + length + 1 : NULL);
}

static int take_short(struct parser *p, const char *arg)
{
	const struct option *option = find_short(p->verb, arg[1]);
	const char typed[] = {'-', arg[1], '\0'};

	if (strcmp(arg, "-h") == 0) {
		p->help = true;
		return 0;
	}
	if (!option || (option->kind == OPTION_FLAG && arg[2]))
		return unknown_option(p->verb, arg);
	return take_option(p, option, typed, arg[2] ? arg + 2 : NULL);
}

/* Options are taken out of the arguments; what is left are the operands. */
static int take_arguments(struct parser *p, char **ret_operands)
{
	bool ended = false;
	int rc = 0;

	while (rc == 0 && *p->next && !p->help) {
		char *arg = *p->next++;

		if (ended || arg[0] != '-' || !arg[1])
			*ret_operands++ = arg;
		else if (strcmp(arg, "--") == 0)
			ended = true;
		else if (arg[1] == '-')
			rc = take_long(p, arg);
		else
			rc = take_short(p, arg);
	}
	*ret_operands = NULL;
	return rc;
}

static int check_operands(const struct verb *verb, char **operands)
{
	size_t n = 0, most = sizeof(verb->operands) / sizeof(*verb->operands);

	while (n < most && verb->operands[n] && operands[n]) {
		if (!*operands[n])
			return error_set(-ERR_USAGE, "%s is empty",
					 verb->operands[n]);
		n++;
	}
	if (operands[n])
		return error_set(-ERR_USAGE, "'%s' is one argument too many",
				 operands[n]);
	if (n < most && verb->operands[n] && verb->operands[n][0] != '[')
		return error_set(-ERR_USAGE, "%s is missing",
				 verb->operands[n]);
	return 0;
}

/*
 * The environment, and defaults
 * -----------------------------
 */

void options_variable(const char *name, char ret[OPTIONS_VARIABLE_SIZE])
{
	(void)snprintf(ret, OPTIONS_VARIABLE_SIZE, "LITEBUCKET_%s", name);
	for (char *c = ret; *c; c++)
		*c = *c == '-' ? '_' : (char)toupper((unsigned char)*c);
}

static int take_rest(struct parser *p)
{
	for (const struct option *o = p->verb->options; o->name; o++) {
		char variable[OPTIONS_VARIABLE_SIZE];
		const char *text;
		int rc = 0;

		if (p->given[o - p->verb->options])
			continue;
		options_variable(o->name, variable);
		text = o->typed ? NULL : getenv(variable);
		if (text && *text)
			rc = take(o, variable, text, p->settings);
		else if (o->fallback)
			rc = take(o, o->name, o->fallback, p->settings);
		else if (o->kind == OPTION_FD)
			*(int *)((char *)p->settings + o->offset) = -1;
		if (rc < 0)
			return rc;
	}
	return 0;
}

int options_parse(const struct verb *verb, char **argv, void *ret_settings)
{
	struct parser p = {
		.verb = verb,
		.next = argv + 1,
		.settings = ret_settings,
	};
	int rc = take_arguments(&p, argv);

	if (p.help)
		return 1;
	if (rc == 0)
		rc = check_operands(verb, argv);
	if (rc == 0)
		rc = take_rest(&p);
	return rc;
}

/*
 * --help
 * ------
 */

void options_usage(const struct verb *verb, FILE *out)
{
	(void)fprintf(out, "litebucket %s [OPTIONS]", verb->name);
	for (size_t i = 0; i < 3 && verb->operands[i]; i++)
		(void)fprintf(out, " %s", verb->operands[i]);
	(void)fputc('\n', out);
}

static void print_option(const struct option *o, FILE *out)
{
	enum {
		COLUMN = 32
	}; /* where the clauses begin */
	char letter[8] = "    ";
	char head[80];

	if (o->letter)
		(void)snprintf(letter, sizeof(letter), "-%c, ", o->letter);
	(void)snprintf(head, sizeof(head), "  %s--%s%s%s", letter, o->name,
		       o->value ? " " : "", o->value ? o->value : "");
	(void)fprintf(out, "%-*s %s", COLUMN, head, o->help);
	if (o->fallback)
		(void)fprintf(out, " (%s)", o->fallback);
	(void)fputc('\n', out);
}

static void print_environment(const struct verb *verb, FILE *out)
{
	char variable[OPTIONS_VARIABLE_SIZE];
	const char *before = " but";

	(void)fputs("\nEvery option", out);
	for (const struct option *o = verb->options; o->name; o++) {
		if (!o->typed)
			continue;
		(void)fprintf(out, "%s --%s", before, o->name);
		before = " and";
	}
	options_variable(verb->options[0].name, variable);
	(void)fprintf(out,
		      " can also come from the environment, like\n%s; the "
		      "command line wins.\n",
		      variable);
}

void options_help(const struct verb *verb, FILE *out)
{
	static const struct option help = {
		.name = "help",
		.letter = 'h',
		.help = "print this text",
	};
	(void)fputs("Usage: ", out);
	options_usage(verb, out);
	(void)fprintf(out, "\n%s\n\nOptions (defaults in parentheses):\n",
		      verb->description);
	for (const struct option *o = verb->options; o->name; o++)
		if (o->help)
			print_option(o, out);
	print_option(&help, out);
	print_environment(verb, out);
}
