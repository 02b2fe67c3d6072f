#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sqlite3.h>

#include "base/error.h"
#include "base/io.h"
#include "base/log.h"

#include "capture/table.h"

/* In the child: reading anything makes SQLite look for a hot journal. */
static int open_once(const char *path)
{
	sqlite3 *db = NULL;
	int rc = sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL);

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

static bool journal_is_live(struct capture *c, const char *path)
{
	uint8_t magic[FORMAT_JOURNAL_MAGIC_SIZE] = { 0 };
	char journal[4200];
	int fd;

	(void)snprintf(journal, sizeof(journal), "%s-journal", path);
	fd = openat(c->config.dirfd, journal,
		    O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return false;
	(void)io_pread(fd, magic, sizeof(magic), 0);
	(void)close(fd);
	return format_journal_live(magic);
}

int recover_journal(struct capture *c, const char *path)
{
	int status;
	pid_t pid;

	if (!journal_is_live(c, path))
		return 0;
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
