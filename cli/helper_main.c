#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <sqlite3.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/io.h"
#include "cli/child.h"
#include "cli/helper_wire.h"
#include "sqlite/format.h"

#include "cli/helper.h"

/* The process itself: one thread, one request at a time. */

/* SQLite's locks are on so many bytes, from the pending byte on. */
enum { LOCK_BYTES = 512 };

/* A file of the mount.  Nothing of it is open between two requests. */
static int open_ours(const struct helper_request *request, const char *path)
{
	AUTO(fd) int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK |
					     O_NOCTTY | O_CLOEXEC);
	struct control_ours ours;

	if (fd < 0)
		return error_errno("opening '%s'", path);
	memcpy(ours.nonce, request->nonce, sizeof(ours.nonce));
	if (ioctl(fd, CONTROL_OURS, &ours) < 0)
		return error_errno("telling the mount of '%s'", path);
	return TAKE_FD(fd);
}

/*
 * Whoever is about to write has a write lock on one of SQLite's lock bytes:
 * RESERVED's, PENDING's, or all of SHARED's.  A reader has none.
 */
static int ask_writer(const struct helper_request *request)
{
	AUTO(fd) int fd = open_ours(request, request->path);
	struct flock lock = {
		.l_type = F_RDLCK,
		.l_whence = SEEK_SET,
		.l_start = (off_t)request->pending_byte,
		.l_len = LOCK_BYTES,
	};

	if (fd < 0)
		return fd;
	if (fcntl(fd, F_OFD_GETLK, &lock) < 0)
		return error_errno("looking for locks of '%s'", request->path);
	return lock.l_type != F_UNLCK;
}

/*
 * Hot journals of a transaction over several databases
 * -----------------------------------------------------
 */

enum {
	SUPER_TAIL = 16, /* length, checksum, and the magic */
	SUPER_MAX = 4096,
};

static int open_journal(const struct helper_request *request)
{
	char journal[4200];

	(void)snprintf(journal, sizeof(journal), "%s-journal", request->path);
	return open_ours(request, journal);
}

/* The journal's last bytes are name, length, sum of the name, and the magic. */
static int read_super_name(int fd, char ret[SUPER_MAX])
{
	uint8_t tail[SUPER_TAIL], head[FORMAT_JOURNAL_MAGIC_SIZE] = {0};
	int64_t size = io_size(fd);
	uint32_t length, sum;

	(void)io_pread(fd, head, sizeof(head), 0);
	if (!format_journal_live(head) || size < 512 + SUPER_TAIL ||
	    io_pread(fd, tail, sizeof(tail),
		     (uint64_t)size - SUPER_TAIL) != SUPER_TAIL ||
	    !format_journal_live(tail + 8))
		return -ENOENT;
	length = get_be32(tail);
	sum = get_be32(tail + 4);
	if (length == 0 || length >= SUPER_MAX ||
	    (int64_t)length > size - SUPER_TAIL ||
	    io_pread(fd, ret, length, (uint64_t)size - SUPER_TAIL - length) !=
		    (ssize_t)length)
		return -ENOENT;
	ret[length] = '\0';
	for (uint32_t i = 0; i < length; i++)
		sum -= (uint32_t)ret[i]; /* as SQLite does */
	return sum == 0 && strlen(ret) == length ? 0 : -ENOENT;
}

/*
 * The name is a path as the application saw it.  If that is not below this
 * mount, whether such a file exists says nothing here; SQLite would take the
 * transaction for committed.
 */
static bool names_super_here(const struct helper_request *request, int journal)
{
	size_t n = strlen(request->mountpoint);
	char name[SUPER_MAX];

	return read_super_name(journal, name) == 0 &&
	       strncmp(name, request->mountpoint, n) == 0 && name[n] == '/';
}

/* Reading anything makes SQLite look for a hot journal. */
static int open_once(const char *path)
{
	sqlite3 *db = NULL;
	int rc = sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL);

	(void)sqlite3_busy_timeout(db, 5000);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(db, "SELECT count(*) FROM sqlite_schema",
				  NULL, NULL, NULL);
	(void)sqlite3_close(db);
	return rc == SQLITE_OK || rc == SQLITE_NOTADB ? 0 : 1;
}

static int become(const struct stat *owner)
{
	if (setgroups(0, NULL) < 0 || setgid(owner->st_gid) < 0 ||
	    setuid(owner->st_uid) < 0)
		return -1;
	return 0;
}

/* In another process still, because one cannot go back to being root. */
static int play_as_owner(const struct helper_request *request)
{
	struct stat st;
	int status;
	pid_t pid;

	if (stat(request->path, &st) < 0)
		return error_errno("looking at '%s'", request->path);
	pid = fork();
	if (pid < 0)
		return error_errno("starting a process");
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (request->as_owner && geteuid() == 0 && become(&st) < 0)
			_exit(1);
		_exit(open_once(request->path));
	}
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return error_errno("waiting for SQLite");
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	return error_set(-EIO,
			 "SQLite could not play the journal of '%s' back; open "
			 "it with sqlite3 to see why",
			 request->path);
}

static int play(const struct helper_request *request)
{
	int journal = open_journal(request);
	bool here;

	if (journal == -ENOENT)
		return 0;
	if (journal < 0)
		return journal;
	here = names_super_here(request, journal);
	(void)close(journal);
	return here ? play_as_owner(request) : 1;
}

static int serve(const struct helper_request *request)
{
	switch (request->kind) {
	case HELPER_WRITER:
		return ask_writer(request);
	case HELPER_PLAY:
		return play(request);
	default:
		return error_set(-ENOSYS, "no such request");
	}
}

int helper_main(void)
{
	static struct helper_request request;
	struct helper_reply reply;

	/* The socket's end tells, too; this is for when we wait elsewhere. */
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (recv(CHILD_SOCKET, &request, sizeof(request), 0) ==
	       (ssize_t)sizeof(request)) {
		memset(&reply, 0, sizeof(reply));
		reply.number = request.number;
		reply.result = serve(&request);
		if (reply.result < 0)
			(void)snprintf(reply.text, sizeof(reply.text), "%s",
				       error_message());
		if (send(CHILD_SOCKET, &reply, sizeof(reply), MSG_NOSIGNAL) <
		    0)
			break;
	}
	return 0;
}
