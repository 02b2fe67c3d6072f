#ifndef LITEBUCKET_TESTS_LIB_FAULTFS_RULES_H
#define LITEBUCKET_TESTS_LIB_FAULTFS_RULES_H

/*
 * Which operations are to fail
 * ============================
 *
 * A few rules, as faultfs.c describes them; the first that matches counts.
 */
#include <stdbool.h>

enum op {
	OP_READ = 1,
	OP_WRITE = 2,
	OP_GROW = 4,
	OP_FSYNC = 8,
	OP_TRUNCATE = 16,
	OP_UNLINK = 32,
	OP_RENAME = 64,
	OP_CREATE = 128,
	OP_OPEN = 256,
};

/* "OPS ERRNO PATTERN [SKIP [COUNT]]"; 0 or an errno value. */
int rules_add(const char *arguments);
void rules_clear(void);
bool rules_any(void);

/* The error that this operation is to have, or 0. */
int rules_error(unsigned op, const char *path);

/* How often there was one since rules_clear(). */
unsigned rules_failed(void);

#endif
