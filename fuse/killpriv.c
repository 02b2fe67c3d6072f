#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 12)
#include <fuse3/fuse_lowlevel.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/error.h"

#include "fuse/killpriv.h"

#ifdef FUSE_CAP_HANDLE_KILLPRIV_V2

int killpriv_install(struct fuse_session *session)
{
	return 0;
}

#else

/* The kernel's protocol, linux/fuse.h, as far as it is needed here. */
enum {
	OPCODE_INIT = 26,
	FLAG_HANDLE_KILLPRIV_V2 = 1 << 28,
};

struct in_header {
	uint32_t size, opcode;
	uint64_t unique;
	uint64_t inode;
	uint32_t uid, gid, pid, padding;
};

struct init {
	uint32_t major, minor, max_readahead, flags;
};

struct out_header {
	uint32_t size;
	int32_t error;
	uint64_t unique;
};

/*
 * There is one INIT in the life of a mount, its first request, and it is
 * answered before the next one is read: so this belongs to one thread.
 */
static uint64_t init_unique;

static ssize_t read_request(int fd, void *data, size_t size, void *arg)
{
	ssize_t n = read(fd, data, size);
	struct in_header header;
	struct init init;

	if (n < (ssize_t)(sizeof(header) + sizeof(init)))
		return n;
	memcpy(&header, data, sizeof(header));
	memcpy(&init, (char *)data + sizeof(header), sizeof(init));
	if (header.opcode == OPCODE_INIT &&
	    init.flags & FLAG_HANDLE_KILLPRIV_V2)
		init_unique = header.unique;
	return n;
}

static void add_flag(struct iovec *reply)
{
	struct init init;

	memcpy(&init, reply->iov_base, sizeof(init));
	init.flags |= FLAG_HANDLE_KILLPRIV_V2;
	memcpy(reply->iov_base, &init, sizeof(init));
}

static ssize_t write_reply(int fd, struct iovec *parts, int count, void *arg)
{
	struct out_header header;

	if (init_unique && count >= 2 && parts[0].iov_len == sizeof(header) &&
	    parts[1].iov_len >= sizeof(struct init)) {
		memcpy(&header, parts[0].iov_base, sizeof(header));
		if (header.unique == init_unique && header.error == 0)
			add_flag(&parts[1]);
		init_unique = 0;
	}
	return writev(fd, parts, count);
}

int killpriv_install(struct fuse_session *session)
{
	static const struct fuse_custom_io io = {
		.read = read_request,
		.writev = write_reply,
	};
	int rc = fuse_session_custom_io(session, &io, fuse_session_fd(session));

	return rc < 0 ? error_set(rc, "preparing the FUSE session") : 0;
}

#endif
