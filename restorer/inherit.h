#ifndef LITEBUCKET_RESTORER_INHERIT_H
#define LITEBUCKET_RESTORER_INHERIT_H

/*
 * Files that we make where applications look for theirs: they belong to whom the
 * directory belongs to, or the application could not use them.
 */
#include <sys/types.h>

/*
 * fd, a directory or file, gets the owner of the directory it lies in, and of its
 * mode what mask allows.  Who is not root keeps what is root's to give.
 */
int inherit_owner(int parent_fd, int fd, mode_t mask);

/*
 * The directory below dirfd that path lies in, and the last component of path, which
 * ret_name points into.  Directories that are missing are made, each with the
 * owner and mode of the one above.
 */
int inherit_parents(int dirfd, const char *path, int *ret_fd,
		    const char **ret_name);

#endif
