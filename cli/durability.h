#ifndef LITEBUCKET_CLI_DURABILITY_H
#define LITEBUCKET_CLI_DURABILITY_H

/*
 * Which commits wait for the bucket
 * =================================
 *
 *	mount --durability local --durability 'bucket:shop-*'
 *
 * Rules, each with a glob for paths below the mount ('*' also matches '/'; none is
 * all paths).  The last one that fits a database counts; without any its commits
 * do not wait.
 */
#include <stdbool.h>
#include <stddef.h>

#include "cli/options.h"

struct durability {
	struct durability_rule {
		bool bucket;
		const char *glob; /* the option's */
	} rules[OPTIONS_LIST_MAX];
	size_t n;
};

/* -ERR_USAGE: the sentence says what is wrong. */
int durability_parse(const struct option_list *list, struct durability *ret);

/* Do commits of the database at path wait? */
bool durability_waits(const struct durability *d, const char *path);

#endif
