#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/error.h"

#include "fuse/control.h"

/* O_NONBLOCK, because a path of the user's may be a FIFO. */
static int open_target(const char *path)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

	if (fd >= 0)
		return fd;
	if (errno == ENOTCONN)
		return error_set(-ENOTCONN,
				 "'%s' is in a mount whose litebucket has "
				 "ended; start it again",
				 path);
	if (errno == EBUSY)
		return error_set(-EBUSY,
				 "it may not be opened now; 'litebucket status' "
				 "of its directory says why");
	return error_errno("opening '%s'", path);
}

static int not_a_mount(const char *path)
{
	return error_set(-ENOTTY, "'%s' is not inside a litebucket mount",
			 path);
}

static int check_target(int fd, const char *path)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return error_errno("looking at '%s'", path);
	if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
		return not_a_mount(path);
	return 0;
}

static int exchange(int fd, const char *path, unsigned long command,
		    struct control_message *message)
{
	if (ioctl(fd, command, message) == 0)
		return 0;
	switch (errno) {
	case ENOTTY:
	case EINVAL:
	case ENOSYS:
	case EOPNOTSUPP:
		return not_a_mount(path);
	case EINTR:
		return error_set(-EINTR, "interrupted");
	case ENOTCONN:
	case ECONNABORTED:
	case ENODEV:
		return error_set(-ENOTCONN,
				 "litebucket ended before it "
				 "answered for '%s'",
				 path);
	default:
		return error_errno("asking litebucket about '%s'", path);
	}
}

/* Check the sizes that another process wrote, and take the piece. */
static int take_piece(struct control_message *message, uint64_t offset,
		      struct buf *ret)
{
	if (message->size > sizeof(message->text))
		return error_set(-EPROTO, "the mount's reply makes no sense");
	if (message->result < 0)
		return error_set(message->result, "%.*s", (int)message->size,
				 message->text);
	if (offset + message->size > message->total ||
	    (message->size == 0 && offset < message->total))
		return error_set(-EPROTO, "the mount's reply makes no sense");
	return buf_append(ret, message->text, message->size);
}

int control_call(const char *path, unsigned long command, struct buf *ret)
{
	AUTO(fd) int fd = open_target(path);
	struct control_message message = {.version = CONTROL_VERSION};
	uint64_t offset = 0;
	int rc;

	if (fd < 0)
		return fd;
	rc = check_target(fd, path);
	if (rc < 0)
		return rc;
	do {
		message.version = CONTROL_VERSION;
		message.offset = offset;
		rc = exchange(fd, path, command, &message);
		if (rc == 0)
			rc = take_piece(&message, offset, ret);
		if (rc < 0)
			return rc;
		offset += message.size;
	} while (offset < message.total);
	return 0;
}
