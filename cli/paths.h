#ifndef LITEBUCKET_CLI_PATHS_H
#define LITEBUCKET_CLI_PATHS_H

/*
 * Where a path really is.  A daemon that opened one of its own files through
 * its own mount would wait for itself for ever, so what must lie apart is
 * compared before anything is mounted.
 */
#include <stdbool.h>

/*
 * realpath(3), but the end of the path need not exist.  The result is the
 * caller's to free.
 */
int paths_resolve(const char *path, char **ret);

/* Is inner outer itself or below it?  Both as paths_resolve() gives them. */
bool paths_within(const char *inner, const char *outer);

#endif
