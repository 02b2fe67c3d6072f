#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "bucket/url.h"
#include "cli/node.h"
#include "cli/paths.h"
#include "cli/ready.h"
#include "cli/report.h"
#include "cli/signals.h"
#include "fuse/control.h"
#include "fuse/mountpoint.h"

#include "cli/cli.h"

enum {
	STATUS_MAX = 16 << 20,
	/* What a thread in the middle of a request gets beyond stop-timeout. */
	STOP_GRACE_MS = 2000,
};

struct mount_settings {
	const char *mountpoint;
	bool allow_other;
	int64_t upload_interval_ms;
	unsigned upload_connections;
	int64_t stop_timeout_ms;
	enum log_level log_level;
	int ready_fd;
};

static const struct option mount_options[] = {
	OPTION(struct mount_settings, upload_interval_ms,
	       .name = "upload-interval", .kind = OPTION_DURATION,
	       .value = "DURATION", .fallback = "1s",
	       .help = "least time between a database's uploads"),
	OPTION(struct mount_settings, upload_connections,
	       .name = "upload-connections", .kind = OPTION_COUNT, .value = "N",
	       .fallback = "8", .help = "databases uploaded at a time"),
	OPTION(struct mount_settings, mountpoint, .name = "mountpoint",
	       .kind = OPTION_TEXT, .value = "M",
	       .help = "mount there instead of over DIR"),
	OPTION(struct mount_settings, allow_other, .name = "allow-other",
	       .kind = OPTION_FLAG, .help = "let other users in"),
	OPTION(struct mount_settings, stop_timeout_ms, .name = "stop-timeout",
	       .kind = OPTION_DURATION, .value = "DURATION", .fallback = "30s",
	       .help = "how long an end waits for the bucket"),
	OPTION(struct mount_settings, log_level, .name = "log-level",
	       .kind = OPTION_LEVEL, .value = "LEVEL", .fallback = "info",
	       .help = "debug, info, warn or error"),
	OPTION(struct mount_settings, ready_fd, .name = "ready-fd",
	       .kind = OPTION_FD, .value = "N",
	       .help = "write a line to this descriptor once mounted"),
	{0},
};

/*
 * What is mounted
 * ---------------
 */

/* Resolved before the mount. */
struct place {
	char *directory;
	char *mountpoint;
	int dirfd;
};

static void place_cleanup(struct place *place)
{
	free(place->directory);
	free(place->mountpoint);
	fd_cleanup(&place->dirfd);
}

static bool is_url(const char *text)
{
	return strstr(text, "://") != NULL;
}

/* The usual slips of a first try get a sentence of their own. */
static int check_operands(const char *directory, const char *url)
{
	if (is_url(directory) && !is_url(url))
		return error_set(-ERR_USAGE,
				 "the directory comes first: "
				 "litebucket mount '%s' '%s'",
				 url, directory);
	if (is_url(directory))
		return error_set(-ERR_USAGE,
				 "'%s' is a URL; DIR is a local directory",
				 directory);
	return 0;
}

/*
 * A second daemon over the same mount would write its state into the first
 * one's databases.
 */
static int check_unmounted(const char *directory)
{
	AUTO(buf) struct buf reply = BUF_INIT(STATUS_MAX);
	int rc = control_call(directory, CONTROL_STATUS, &reply);

	if (rc < 0 && rc != -EFBIG)
		return 0;
	return error_set(-EBUSY,
			 "it is in a litebucket mount already; see "
			 "'litebucket status %s'",
			 directory);
}

static int open_directory(const char *directory, int *ret_fd)
{
	AUTO(fd) int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 && errno == ENOENT)
		return error_set(-ENOENT, "there is no such directory; create "
					  "it first");
	if (fd < 0)
		return error_errno("opening it");
	if (faccessat(fd, ".", W_OK | X_OK, AT_EACCESS) < 0)
		return error_errno("writing to it");
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int check_mountpoint(const struct place *place)
{
	struct stat st;

	if (stat(place->mountpoint, &st) < 0)
		return error_errno("the mountpoint '%s'", place->mountpoint);
	if (!S_ISDIR(st.st_mode))
		return error_set(-ENOTDIR,
				 "the mountpoint '%s' is no directory",
				 place->mountpoint);
	if (strcmp(place->mountpoint, place->directory) != 0 &&
	    paths_within(place->mountpoint, place->directory))
		return error_set(-ERR_USAGE,
				 "the mountpoint '%s' lies inside '%s', and so "
				 "would contain itself; take one outside, or "
				 "leave --mountpoint out to mount over DIR",
				 place->mountpoint, place->directory);
	return 0;
}

/* A file:// bucket inside the mount would replicate itself. */
static int check_bucket_apart(const struct place *place, const char *text)
{
	AUTO(bucket_url) struct bucket_url url = {0};
	AUTO(mem) char *path = NULL;
	int rc = bucket_url_parse(text, &url);

	if (rc < 0 || url.scheme != BUCKET_FILE)
		return rc;
	rc = paths_resolve(url.path, &path);
	if (rc < 0)
		return error_wrap(rc, "the bucket '%s'", text);
	if (paths_within(path, place->directory) ||
	    paths_within(place->directory, path) ||
	    paths_within(path, place->mountpoint) ||
	    paths_within(place->mountpoint, path))
		return error_set(-ERR_USAGE,
				 "the bucket '%s' and the mounted directory "
				 "must lie apart, not one inside the other",
				 text);
	return 0;
}

static int find_place(const struct mount_settings *s, char **operands,
		      struct place *ret)
{
	const char *mountpoint = s->mountpoint ? s->mountpoint : operands[0];
	int rc = check_operands(operands[0], operands[1]);

	if (rc == 0)
		rc = paths_resolve(operands[0], &ret->directory);
	/* What a crash left over DIR would hide the directory beneath. */
	if (rc == 0)
		rc = mountpoint_remove_dead(ret->directory);
	if (rc == 0)
		rc = check_unmounted(ret->directory);
	if (rc == 0)
		rc = open_directory(ret->directory, &ret->dirfd);
	if (rc == 0)
		rc = paths_resolve(mountpoint, &ret->mountpoint);
	if (rc == 0)
		rc = check_mountpoint(ret);
	if (rc == 0)
		rc = check_bucket_apart(ret, operands[1]);
	/* A daemon that stood inside the mount could not be unmounted. */
	if (rc == 0 && chdir("/") < 0)
		rc = error_errno("changing to /");
	return rc;
}

/*
 * The life of the mount
 * ---------------------
 */

/* Static, because the signal thread may look at it until the very end. */
static struct node node;

static void stop(void *arg)
{
	(void)arg;
	signals_deadline(node.config.stop_timeout_ms + STOP_GRACE_MS);
	ready_withdraw();
	node_stop(&node);
}

static void ready(size_t databases, void *arg)
{
	const struct mount_settings *s = arg;

	log_info("mounted", "dir=%s mountpoint=%s bucket=%s databases=%zu",
		 log_quote(node.config.directory),
		 log_quote(node.config.mountpoint),
		 log_quote(node.config.bucket), databases);
	ready_announce(s->ready_fd);
}

/* It was mounted; rc is why it is not any more. */
static int finish(int rc)
{
	int code = CLI_OK;

	if (rc == -EBUSY) {
		log_warn("files were in use; their users get errors", NULL);
	} else if (rc < 0) {
		log_error("the mount failed", "error=%s",
			  log_quote(error_message()));
		code = CLI_FAILED;
	}
	if (!atomic_load(&node.stopping)) {
		log_info("unmounted by somebody else; stopping", NULL);
		stop(NULL);
	}
	rc = node_close(&node);
	if (rc < 0) {
		log_error("not everything is in the bucket", "error=%s",
			  log_quote(error_message()));
		code = CLI_FAILED;
	}
	log_info("stopped", NULL);
	return code;
}

/* It was not; nothing was written, so nothing has to be sent. */
static int give_up(const char *directory, int rc)
{
	int code = CLI_OK;

	if (rc == -ECANCELED)
		log_info("stopped before it was mounted", NULL);
	else
		code = cli_fail(error_wrap(rc, "mounting '%s'", directory));
	(void)node_close(&node);
	return code;
}

static int serve(const struct mount_settings *s, const struct place *place,
		 const char *url)
{
	const struct node_config config = {
		.dirfd = place->dirfd,
		.directory = place->directory,
		.mountpoint = place->mountpoint,
		.bucket = url,
		.allow_other = s->allow_other,
		.interval_ms = s->upload_interval_ms,
		.connections = s->upload_connections,
		.stop_timeout_ms = s->stop_timeout_ms,
		.ready = ready,
		.arg = (void *)s,
	};
	int rc;

	node_init(&node, &config);
	signals_block();
	rc = signals_start(stop, NULL);
	if (rc == 0)
		rc = node_open(&node);
	if (rc == 0)
		rc = node_serve(&node);
	return rc;
}

static int run(const void *settings, char **operands)
{
	const struct mount_settings *s = settings;
	AUTO(place) struct place place = {.dirfd = -1};
	int rc;

	log_set_level(s->log_level);
	if (s->ready_fd >= 0)
		(void)fcntl(s->ready_fd, F_SETFD, FD_CLOEXEC);
	rc = find_place(s, operands, &place);
	if (rc < 0)
		return cli_fail(error_wrap(rc, "mounting '%s'", operands[0]));
	rc = serve(s, &place, operands[1]);
	return node.mounted ? finish(rc) : give_up(operands[0], rc);
}

const struct verb cmd_mount = {
	.name = "mount",
	.operands = {"DIR", "BUCKET"},
	.summary = "replicate the databases of a directory while it is mounted",
	.description =
		"Mount over DIR (or at --mountpoint), and send what is "
		"committed to the SQLite\n"
		"databases below it to BUCKET. Runs until SIGTERM or SIGINT, "
		"which unmounts and\n"
		"uploads the rest; a second signal ends at once. The log goes "
		"to standard error.",
	.options = mount_options,
	.settings_size = sizeof(struct mount_settings),
	.run = run,
};
