#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sqlite3.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"

#include "capture/table.h"

static int keep_path(sqlite3_vfs *vfs, const char *name, int size, char *ret)
{
	(void)snprintf(ret, (size_t)size, "%s", name);
	return SQLITE_OK;
}

/*
 * SQLite's files with names as they are: it makes them absolute otherwise, and
 * the working directory may be covered by a mount, or have no name at all.
 */
static const char *vfs_beneath(void)
{
	static sqlite3_vfs vfs;
	const sqlite3_vfs *usual = sqlite3_vfs_find(NULL);

	if (!usual)
		return NULL;
	vfs = *usual;
	vfs.zName = "beneath";
	vfs.pNext = NULL;
	vfs.xFullPathname = keep_path;
	return sqlite3_vfs_register(&vfs, 0) == SQLITE_OK ? vfs.zName : NULL;
}

/* In the child: reading anything makes SQLite look for a hot journal. */
static int open_once(const char *path)
{
	char name[4200];
	sqlite3 *db = NULL;
	int rc;

	/* So that no name, like ":memory:", means anything else. */
	(void)snprintf(name, sizeof(name), "./%s", path);
	rc = sqlite3_open_v2(name, &db, SQLITE_OPEN_READWRITE,
			     vfs_beneath());

	if (rc == SQLITE_OK)
		rc = sqlite3_exec(db, "SELECT count(*) FROM sqlite_schema",
				  NULL, NULL, NULL);
	(void)sqlite3_close(db);
	/* A file that is no database has no journal worth playing. */
	return rc == SQLITE_OK || rc == SQLITE_NOTADB ? 0 : 1;
}

/* What SQLite creates or leaves must be the owner's, not root's. */
static int become(const struct stat *owner)
{
	if (geteuid() != 0)
		return 0;
	if (setgroups(0, NULL) < 0 || setgid(owner->st_gid) < 0 ||
	    setuid(owner->st_uid) < 0)
		return -1;
	return 0;
}

/*
 * The path goes through the directory's descriptor, because a mount may come
 * to lie over its name.
 */
static _Noreturn void child(struct capture *c, const char *path)
{
	struct stat st;

	if (fstatat(c->config.dirfd, path, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
	    fchdir(c->config.dirfd) < 0 || become(&st) < 0)
		_exit(1);
	_exit(open_once(path));
}

static int open_journal(struct capture *c, const char *path)
{
	char journal[4200];

	(void)snprintf(journal, sizeof(journal), "%s-journal", path);
	return openat(c->config.dirfd, journal,
		      O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
}

static bool journal_is_live(int fd)
{
	uint8_t magic[FORMAT_JOURNAL_MAGIC_SIZE] = { 0 };

	(void)io_pread(fd, magic, sizeof(magic), 0);
	return format_journal_live(magic);
}

/*
 * A journal of several databases' transaction ends in the super-journal's
 * name, and is hot only while that exists.  The name is a path as the
 * application saw it, below the mount that is not there yet: SQLite would miss
 * it here, and throw away a journal that is needed.
 */
static bool names_super_journal(int fd)
{
	uint8_t magic[FORMAT_JOURNAL_MAGIC_SIZE] = { 0 };
	int64_t size = io_size(fd);

	if (size < (int64_t)sizeof(magic) + 512)
		return false;
	(void)io_pread(fd, magic, sizeof(magic),
		       (uint64_t)size - sizeof(magic));
	return format_journal_live(magic);
}

int recover_journal(struct capture *c, const char *path)
{
	AUTO(fd) int journal = open_journal(c, path);
	int status;
	pid_t pid;

	if (journal < 0 || !journal_is_live(journal))
		return 0;
	if (names_super_journal(journal)) {
		log_debug("a transaction of several databases was interrupted",
			  "db=%s", log_quote(path));
		if (c->config.interrupted)
			c->config.interrupted(c->config.arg, path);
		return 0;
	}
	log_info("a transaction was interrupted; SQLite plays its journal back",
		 "db=%s", log_quote(path));
	pid = fork();
	if (pid < 0)
		return error_errno("starting a process for '%s'", path);
	if (pid == 0)
		child(c, path);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return error_errno("waiting for SQLite");
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	return error_set(-EIO,
			 "SQLite could not play the journal of '%s' back; "
			 "open it with sqlite3 to see why",
			 path);
}
