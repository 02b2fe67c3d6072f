#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"

#include "cli/paths.h"

/* The parent is resolved in the same way, and the last component appended. */
static int resolve_missing(const char *path, char **ret)
{
	size_t end = strlen(path), begin, above;
	AUTO(mem) char *parent = NULL;
	AUTO(mem) char *real = NULL;
	int rc;

	while (end > 1 && path[end - 1] == '/')
		end--;
	for (begin = end; begin > 0 && path[begin - 1] != '/'; begin--)
		;
	for (above = begin; above > 1 && path[above - 1] == '/'; above--)
		;
	parent = above ? strndup(path, above) : strdup(".");
	if (!parent)
		return error_set(-ENOMEM, "out of memory");
	rc = paths_resolve(parent, &real);
	if (rc < 0)
		return rc;
	if (asprintf(ret, "%s/%.*s", real[1] ? real : "", (int)(end - begin),
		     path + begin) < 0)
		return error_set(-ENOMEM, "out of memory");
	return 0;
}

int paths_resolve(const char *path, char **ret)
{
	char *real = realpath(path, NULL);

	if (real) {
		*ret = real;
		return 0;
	}
	if (errno == ENOENT && *path)
		return resolve_missing(path, ret);
	return error_errno("'%s'", path);
}

bool paths_within(const char *inner, const char *outer)
{
	size_t n = strlen(outer);

	if (!outer[1])
		return true;
	return strncmp(inner, outer, n) == 0 &&
	       (inner[n] == '/' || inner[n] == '\0');
}
