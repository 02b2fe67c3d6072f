#ifndef LITEBUCKET_CLI_CLI_H
#define LITEBUCKET_CLI_CLI_H

/*
 * litebucket VERB
 * ===============
 *
 * cli is the only layer that knows all others, and the only one that logs
 * results and decides exit codes.  One cmd_<verb>.c per verb holds one struct
 * verb: its options, the text of its --help, and what it does.  The table in
 * cli.c is what the program can do.
 *
 *	main -> cli_main -> options_parse -> cmd_<verb>.run
 *
 * Results go to stdout, everything else to stderr: one line that begins with
 * "litebucket: " for an error, or the log of a running mount.
 */
#include "cli/options.h"

enum cli_exit {
	CLI_OK = 0,
	CLI_FAILED = 1,
	CLI_USAGE = 2,
	CLI_NOT_FOUND = 3, /* the thing asked for does not exist */
};

extern const struct verb cmd_mount;
extern const struct verb cmd_follow;
extern const struct verb cmd_restore;
extern const struct verb cmd_list;
extern const struct verb cmd_history;
extern const struct verb cmd_sync;
extern const struct verb cmd_status;
extern const struct verb cmd_wait;
extern const struct verb cmd_unlock;

/* The whole program: main() is this and nothing else. */
int cli_main(int argc, char **argv);

/*
 * The end of a verb that failed with rc: print error_message() as one line,
 * and return the exit code that rc means.
 */
int cli_fail(int rc);

/* The same, for a mistake on the command line of verb: a line and a hint. */
int cli_fail_usage(const struct verb *verb);

#endif
