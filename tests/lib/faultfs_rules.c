#include <errno.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "faultfs_rules.h"

static const char *const op_names[] = { "read",	  "write",    "grow",
					"fsync",  "truncate", "unlink",
					"rename", "create",   "open" };

static struct fault {
	unsigned ops;
	int error;
	char pattern[256];
	unsigned skip, count;
} faults[16];
static unsigned fault_count, failed;

int rules_error(unsigned op, const char *path)
{
	for (struct fault *f = faults; f < faults + fault_count; f++) {
		if (!(f->ops & op) || fnmatch(f->pattern, path, 0) != 0)
			continue;
		if (f->skip) {
			f->skip--;
			continue;
		}
		if (f->count == 0)
			continue;
		f->count--;
		failed++;
		return f->error;
	}
	return 0;
}

static unsigned ops_of(char *list)
{
	unsigned ops = 0;
	char *rest = NULL;

	for (char *word = strtok_r(list, ",", &rest); word;
	     word = strtok_r(NULL, ",", &rest))
		for (size_t i = 0; i < sizeof(op_names) / sizeof(*op_names);
		     i++)
			if (strcmp(word, op_names[i]) == 0)
				ops |= 1U << i;
	return ops;
}

int rules_add(const char *arguments)
{
	struct fault f = { .count = UINT_MAX };
	char ops[128], error[16];

	if (sscanf(arguments, "%127s %15s %255s %u %u", ops, error, f.pattern,
		   &f.skip, &f.count) < 3 ||
	    fault_count == sizeof(faults) / sizeof(*faults))
		return EINVAL;
	f.ops = ops_of(ops);
	f.error = strcmp(error, "ENOSPC") == 0	 ? ENOSPC
		  : strcmp(error, "EDQUOT") == 0 ? EDQUOT
		  : strcmp(error, "EIO") == 0	 ? EIO
						 : 0;
	if (!f.ops || !f.error)
		return EINVAL;
	faults[fault_count++] = f;
	return 0;
}

void rules_clear(void)
{
	fault_count = failed = 0;
}

bool rules_any(void)
{
	return fault_count > 0;
}

unsigned rules_failed(void)
{
	return failed;
}
