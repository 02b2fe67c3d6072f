#ifndef LITEBUCKET_CLI_OPTIONS_H
#define LITEBUCKET_CLI_OPTIONS_H

/*
 * What a verb takes
 * =================
 *
 * A verb's options are one table, from which come its parser, its part of the
 * environment, and its --help; a test compares the man page with it.  Each
 * option is a field of the verb's own struct of settings:
 *
 *	struct sync_settings { bool json; };
 *
 *	static const struct option options[] = {
 *		OPTION(struct sync_settings, json, .name = "json",
 *		       .kind = OPTION_FLAG, .help = "print JSON"),
 *		{ 0 },
 *	};
 *
 * An option has its value from the command line (--name VALUE, --name=VALUE,
 * or -x VALUE where it has a letter), else from the environment
 * (LITEBUCKET_NAME, with - as _), else from its default.  An empty variable
 * counts as none, since that is how compose files leave one out.  What must be
 * meant each time it is said (--force) is never taken from the environment.  Options may
 * stand before, between and after operands, "--" ends them, and they are never
 * abbreviated: a script must not change its meaning when an option is added.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum option_kind {
	OPTION_FLAG,	 /* bool; --name, --name=true, --name=false */
	OPTION_TEXT,	 /* const char *; not empty */
	OPTION_DURATION, /* int64_t, in milliseconds */
	OPTION_COUNT,	 /* unsigned, from 1 to OPTIONS_COUNT_MAX */
	OPTION_SIZE,	 /* uint64_t, in bytes; 64MiB, 10GiB, 4096, 0 */
	OPTION_TXID,	 /* uint64_t, hex digits, not 0; 0 when not given */
	OPTION_TIME,	 /* int64_t, wall clock; 0 when not given */
	OPTION_FD,	 /* int, an open descriptor; -1 when not given */
	OPTION_OFFSET,	 /* uint64_t, decimal or 0x and hex digits */
	OPTION_MODE,	 /* unsigned, octal: permissions of a file, not 0 */
	OPTION_LEVEL,	 /* enum log_level */
	OPTION_LIST,	 /* struct option_list; each time it is said one more */
};

enum {
	OPTIONS_COUNT_MAX = 1000,
	OPTIONS_PER_VERB = 16,
	OPTIONS_LIST_MAX = 64,
};

/* From the environment there is at most one. */
struct option_list {
	const char *items[OPTIONS_LIST_MAX];
	size_t n;
};

struct option {
	const char *name; /* without dashes */
	char letter;	  /* of the short form, or 0 */
	enum option_kind kind;
	const char *value;    /* what --help calls its value */
	const char *fallback; /* the default, as people write it, or NULL */
	const char *help;     /* a clause, without a full stop; NULL: for tests */
	size_t offset;	      /* into the settings */
	bool typed;	      /* from the command line only, for what is said once */
};

#define OPTION(type, field, ...)                             \
	{                                                    \
		__VA_ARGS__, .offset = offsetof(type, field) \
	}

/* The one that every verb of results has. */
#define OPTION_JSON(type)                                       \
	OPTION(type, json, .name = "json", .kind = OPTION_FLAG, \
	       .help = "print one JSON document")

/* A TXID as OPTION_TXID takes it, where it is an operand. */
int options_parse_txid(const char *text, uint64_t *ret);

struct verb {
	const char *name;
	const char
		*operands[3]; /* their names, in order; "[DIR]" may be absent */
	const char *summary;  /* a clause, for the list of verbs */
	const char *description;      /* for --help, wrapped by its author */
	const struct option *options; /* ends with one that has no name */
	size_t settings_size;

	/* operands: as many as were given, then NULL.  Returns an exit code. */
	int (*run)(const void *settings, char **operands);
};

/*
 * Fill settings, and gather the operands at the front of argv, followed by
 * NULL.  argv[0] is the verb, the last one NULL.
 *
 * 1: --help was asked for.  -ERR_USAGE: the sentence says what is wrong, and
 * what was probably meant.
 */
int options_parse(const struct verb *verb, char **argv, void *ret_settings);

/* What --help prints for a verb. */
void options_help(const struct verb *verb, FILE *out);

/* "litebucket mount [OPTIONS] DIR BUCKET" */
void options_usage(const struct verb *verb, FILE *out);

enum {
	OPTIONS_VARIABLE_SIZE = 64
};

/* LITEBUCKET_UPLOAD_INTERVAL, for upload-interval. */
void options_variable(const char *name, char ret[OPTIONS_VARIABLE_SIZE]);

/*
 * Is one word probably a slip of the pen for the other?  At most two letters
 * wrong, missing, or too many, and not most of the word.
 */
bool options_similar(const char *typed, const char *word);

#endif
