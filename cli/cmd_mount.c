#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "bucket/lease.h"
#include "bucket/url.h"
#include "cli/durability.h"
#include "cli/node.h"
#include "cli/outside.h"
#include "cli/place.h"
#include "cli/ready.h"
#include "cli/signals.h"

#include "cli/cli.h"

/* What a thread in the middle of a request gets beyond stop-timeout. */
enum {
	STOP_GRACE_MS = 2000
};

struct mount_settings {
	const char *mountpoint;
	const char *adopt;
	bool allow_other;
	int64_t upload_interval_ms;
	unsigned upload_connections;
	int64_t stop_timeout_ms;
	uint64_t spool_max;
	enum log_level log_level;
	int ready_fd;
	uint64_t pending_byte;
	bool force;
	const char *on_stop;
	int64_t lease_ttl_ms;
	const char *advertise;
	struct option_list durability;
};

static const struct option mount_options[] = {
	OPTION(struct mount_settings, upload_interval_ms,
	       .name = "upload-interval", .kind = OPTION_DURATION,
	       .value = "DURATION", .fallback = "1s",
	       .help = "least time between a database's uploads"),
	OPTION(struct mount_settings, upload_connections,
	       .name = "upload-connections", .kind = OPTION_COUNT, .value = "N",
	       .fallback = "8", .help = "databases uploaded at a time"),
	OPTION(struct mount_settings, spool_max, .name = "spool-max-size",
	       .kind = OPTION_SIZE, .value = "SIZE", .fallback = "10GiB",
	       .help = "what may wait for the bucket"),
	OPTION(struct mount_settings, mountpoint, .name = "mountpoint",
	       .kind = OPTION_TEXT, .value = "M",
	       .help = "mount there instead of over DIR"),
	OPTION(struct mount_settings, allow_other, .name = "allow-other",
	       .kind = OPTION_FLAG, .help = "let other users in"),
	OPTION(struct mount_settings, force, .name = "force",
	       .kind = OPTION_FLAG, .typed = true,
	       .help = "also over a directory that is in use"),
	OPTION(struct mount_settings, adopt, .name = "adopt",
	       .kind = OPTION_TEXT, .value = "WHICH", .typed = true,
	       .help = "where they differ: local or bucket"),
	OPTION(struct mount_settings, stop_timeout_ms, .name = "stop-timeout",
	       .kind = OPTION_DURATION, .value = "DURATION", .fallback = "30s",
	       .help = "how long an end waits for the bucket"),
	OPTION(struct mount_settings, on_stop, .name = "on-stop",
	       .kind = OPTION_TEXT, .value = "WHAT", .fallback = "leave",
	       .help = "leave a mount in use dead, or unmount"),
	OPTION(struct mount_settings, lease_ttl_ms, .name = "lease-ttl",
	       .kind = OPTION_DURATION, .value = "DURATION", .fallback = "10s",
	       .help = "how long others wait for one that is gone"),
	OPTION(struct mount_settings, advertise, .name = "advertise-url",
	       .kind = OPTION_TEXT, .value = "URL",
	       .help = "where others can send their writes"),
	OPTION(struct mount_settings, durability, .name = "durability",
	       .kind = OPTION_LIST, .value = "WHICH[:GLOB]",
	       .help = "what a commit waits for: local or bucket"),
	OPTION(struct mount_settings, log_level, .name = "log-level",
	       .kind = OPTION_LEVEL, .value = "LEVEL", .fallback = "info",
	       .help = "debug, info, warn or error"),
	OPTION(struct mount_settings, ready_fd, .name = "ready-fd",
	       .kind = OPTION_FD, .value = "N",
	       .help = "write a line to this descriptor once mounted"),
	/* SQLite's own test programs move its lock bytes (D39). */
	OPTION(struct mount_settings, pending_byte,
	       .name = "test-pending-byte", .kind = OPTION_OFFSET,
	       .value = "OFFSET", .fallback = "0x40000000"),
	{0},
};

/* Static, because the signal thread may look at it until the very end. */
static struct node node;
static struct durability durability;

static void stop(void)
{
	signals_deadline(node.config.stop_timeout_ms + STOP_GRACE_MS);
	ready_withdraw();
	node_stop(&node);
}

/* What is left to be done without waiting is done if there is a mount. */
static void hurry(void)
{
	signals_deadline(node_hurry(&node) ? STOP_GRACE_MS : 0);
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
		log_warn("the mount was in use to the end", "reason=%s",
			 log_quote(error_message()));
		/* Nobody asked for it: who supervises us starts us again. */
		if (!atomic_load(&node.stopping))
			code = CLI_FAILED;
	} else if (rc < 0) {
		log_error("the mount failed", "error=%s",
			  log_quote(error_message()));
		code = CLI_FAILED;
	}
	if (!atomic_load(&node.stopping)) {
		log_info(rc == 0 || rc == -EBUSY ?
				 "unmounted, or cut off, by somebody else; "
				 "stopping" :
				 "stopping",
			 NULL);
		stop();
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

/* A misspelt path is seen here, and else only once one looks for the backup. */
static void tell_new_bucket(const char *text)
{
	AUTO(bucket_url) struct bucket_url url = { 0 };

	if (bucket_url_parse(text, &url) == 0 && url.scheme == BUCKET_FILE &&
	    access(url.path, F_OK) < 0 && errno == ENOENT)
		log_info("the bucket's directory does not exist, and is made",
			 "path=%s", log_quote(url.path));
}

static int serve(const struct mount_settings *s, const struct place *place,
		 const char *url, enum adopt adopt)
{
	const struct node_config config = {
		.adopt = adopt,
		.dirfd = place->dirfd,
		.directory = place->directory,
		.mountpoint = place->mountpoint,
		.bucket = url,
		.allow_other = s->allow_other,
		.interval_ms = s->upload_interval_ms,
		.connections = s->upload_connections,
		.stop_timeout_ms = s->stop_timeout_ms,
		.spool_max = s->spool_max,
		.pending_byte = s->pending_byte,
		.lease_ttl_ms = s->lease_ttl_ms,
		.advertise = s->advertise,
		.log_level = log_level_name(s->log_level),
		.durability = durability.n ? &durability : NULL,
		.unmount_in_use = strcmp(s->on_stop, "unmount") == 0,
		.ready = ready,
		.arg = (void *)s,
	};
	int rc;

	tell_new_bucket(url);
	node_init(&node, &config);
	signals_block();
	rc = signals_start(stop, hurry);
	if (rc == 0)
		rc = node_open(&node);
	if (rc < 0)
		return rc;
	rc = node_serve(&node);
	/* The bucket is there; without FUSE nothing is missing that was asked for. */
	return rc == -ENODEV ? -EIO : rc;
}

static int parse_adopt(const char *text, enum adopt *ret)
{
	*ret = ADOPT_NEITHER;
	if (!text)
		return 0;
	if (strcmp(text, "local") == 0)
		*ret = ADOPT_LOCAL;
	else if (strcmp(text, "bucket") == 0)
		*ret = ADOPT_BUCKET;
	else
		return error_set(-ERR_USAGE,
				 "--adopt: '%s' is neither local nor bucket",
				 text);
	return 0;
}

/* The store's clock has whole seconds. */
enum { LEASE_TTL_MIN_MS = 1000 };

static int check_lease(const struct mount_settings *s)
{
	if (s->lease_ttl_ms < LEASE_TTL_MIN_MS)
		return error_set(-ERR_USAGE, "--lease-ttl: at least 1s");
	if (s->advertise && strlen(s->advertise) >= LEASE_URL_SIZE)
		return error_set(-ERR_USAGE,
				 "--advertise-url: at most %d bytes",
				 LEASE_URL_SIZE - 1);
	return 0;
}

static int check_on_stop(const char *text)
{
	if (strcmp(text, "leave") == 0 || strcmp(text, "unmount") == 0)
		return 0;
	return error_set(-ERR_USAGE,
			 "--on-stop: '%s' is neither leave nor unmount", text);
}

static int run(const void *settings, char **operands)
{
	const struct mount_settings *s = settings;
	AUTO(place) struct place place = {.dirfd = -1};
	enum adopt adopt;
	int rc;

	if (check_on_stop(s->on_stop) < 0 || check_lease(s) < 0 ||
	    parse_adopt(s->adopt, &adopt) < 0 ||
	    durability_parse(&s->durability, &durability) < 0)
		return cli_fail_usage(&cmd_mount);
	log_set_level(s->log_level);
	if (s->ready_fd >= 0)
		(void)fcntl(s->ready_fd, F_SETFD, FD_CLOEXEC);
	rc = place_find(operands[0], s->mountpoint, operands[1], &place);
	if (rc == 0 && strcmp(place.directory, place.mountpoint) == 0)
		rc = outside_check(place.dirfd, s->force);
	if (rc < 0)
		return cli_fail(error_wrap(rc, "mounting '%s'", operands[0]));
	rc = serve(s, &place, operands[1], adopt);
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
