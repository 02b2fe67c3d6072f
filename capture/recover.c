#include <fcntl.h>
#include <grp.h>
#include <spawn.h>
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

int capture_play(const char *path)
{
	struct stat st;

	if (lstat(path, &st) < 0 || become(&st) < 0)
		return 1;
	return open_once(path);
}

/* The path goes through the directory's descriptor: a mount may lie over it. */
static int prepare(posix_spawn_file_actions_t *actions, int dirfd)
{
	int rc = posix_spawn_file_actions_addfchdir_np(actions, dirfd);

	return rc ? rc : posix_spawn_file_actions_addclosefrom_np(actions, 3);
}

/* No environment goes with it: it needs none, and may not see what ours has. */
static int start_player(struct capture *c, const char *path, pid_t *ret)
{
	char *argv[] = { (char *)"litebucket", (char *)c->config.player,
			 (char *)path, NULL };
	char *environment[] = { NULL };
	posix_spawn_file_actions_t actions;
	int rc = posix_spawn_file_actions_init(&actions);

	if (rc == 0)
		rc = prepare(&actions, c->config.dirfd);
	if (rc == 0)
		rc = posix_spawn(ret, "/proc/self/exe", &actions, NULL, argv,
				 environment);
	(void)posix_spawn_file_actions_destroy(&actions);
	return rc ? error_set(-rc, "starting a process for '%s': %s", path,
			      strerror(rc)) :
		    0;
}

/* Of a process with one thread only, as tests are. */
static int fork_player(struct capture *c, const char *path, pid_t *ret)
{
	*ret = fork();
	if (*ret < 0)
		return error_errno("starting a process for '%s'", path);
	if (*ret == 0)
		_exit(fchdir(c->config.dirfd) < 0 ? 1 : capture_play(path));
	return 0;
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
	int status, rc;
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
	rc = c->config.player ? start_player(c, path, &pid) :
				fork_player(c, path, &pid);
	if (rc < 0)
		return rc;
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
