#ifndef LITEBUCKET_CLI_CLI_H
#define LITEBUCKET_CLI_CLI_H

/*
 * litebucket VERB
 * ===============
 *
 * cli is the only layer that knows all others, and the only one that logs
 * results and decides exit codes.  One cmd_<verb>.c per verb; the table in
 * cli.c is what the program can do, and --help is made from it.
 */
enum cli_exit {
	CLI_OK = 0,
	CLI_FAILED = 1,
	CLI_USAGE = 2,
	CLI_NOT_FOUND = 3, /* the thing asked for does not exist */
};

/* argv[0] is the verb.  Each returns an exit code. */
int cmd_mount(int argc, char **argv);
int cmd_restore(int argc, char **argv);
int cmd_list(int argc, char **argv);
int cmd_history(int argc, char **argv);
int cmd_sync(int argc, char **argv);
int cmd_status(int argc, char **argv);

/* The whole program: main() is this and nothing else. */
int cli_main(int argc, char **argv);

#endif
