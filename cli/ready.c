#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"

#include "cli/ready.h"

/* An address that begins with "@" is in Linux's abstract namespace. */
static int notify_systemd(const char *address, const char *state)
{
	AUTO(fd) int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	size_t length = strlen(address);

	if (fd < 0)
		return error_errno("making a socket");
	if (length >= sizeof(to.sun_path))
		return error_set(-ENAMETOOLONG, "'%s' is too long", address);
	memcpy(to.sun_path, address, length);
	if (address[0] == '@')
		to.sun_path[0] = '\0';
	if (sendto(fd, state, strlen(state), MSG_NOSIGNAL,
		   (const struct sockaddr *)&to,
		   (socklen_t)(offsetof(struct sockaddr_un, sun_path) +
			       length)) < 0)
		return error_errno("sending to '%s'", address);
	return 0;
}

static void notify(const char *state)
{
	const char *address = getenv("NOTIFY_SOCKET");

	if (address && *address && notify_systemd(address, state) < 0)
		log_warn("cannot notify systemd", "error=%s",
			 log_quote(error_message()));
}

void ready_announce(int fd)
{
	static const char line[] = "ready\n";

	notify("READY=1");
	if (fd < 0)
		return;
	if (write(fd, line, strlen(line)) < 0)
		log_warn("cannot write to the ready descriptor", "error=%s",
			 log_quote(strerror(errno)));
	(void)close(fd);
}

void ready_withdraw(void)
{
	notify("STOPPING=1");
}
