#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "fuse/ops.h"

#include "fuse/outside.h"

static const char *const sides[] = {"-wal", "-shm", "-journal"};

/* inodes: files that are open in the mount are ours; may be NULL. */
static enum lease_answer ask_side(int dirfd, const char *path,
				  struct inode_table *inodes)
{
	struct stat st;
	char begin[16];
	enum lease_answer answer = lease_ask(dirfd, path, &st, begin);

	/*
	 * A connection that was killed leaves its files to be closed one by
	 * one, the database first.
	 */
	if (answer == LEASE_TAKEN && inodes &&
	    inode_is_open(inodes, st.st_dev, st.st_ino))
		return LEASE_FREE;
	return answer;
}

static enum lease_answer ask(int dirfd, const char *path,
			     struct inode_table *inodes)
{
	static const char magic[16] = "SQLite format 3";
	char name[INODE_PATH_SIZE + 16], begin[16];
	enum lease_answer answer = lease_ask(dirfd, path, NULL, begin);

	if (memcmp(begin, magic, sizeof(magic)) != 0)
		return LEASE_FREE;
	for (int i = 0; answer == LEASE_FREE && i < 3; i++) {
		(void)snprintf(name, sizeof(name), "%s%s", path, sides[i]);
		answer = ask_side(dirfd, name, inodes);
	}
	return answer;
}

enum lease_answer outside_ask(int dirfd, const char *path)
{
	return ask(dirfd, path, NULL);
}

bool outside_found(struct mount *m, struct inode *inode)
{
	char path[INODE_PATH_SIZE];
	enum lease_answer answer;

	if (!m->config.in_use || inode->type != S_IFREG ||
	    inode_is_open(&m->inodes, inode->dev, inode->ino) ||
	    inode_path(&m->inodes, inode, path) < 0)
		return false;
	answer = ask(m->config.dirfd, path, &m->inodes);
	return answer != LEASE_FREE &&
	       m->config.in_use(m->config.arg, path, answer == LEASE_UNKNOWN);
}
