#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "bucket/bucket.h"
#include "bucket/url.h"
#include "cli/child.h"
#include "cli/standby_wire.h"
#include "restorer/follower.h"
#include "restorer/unlock.h"

#include "cli/standby.h"

/* The process itself: a follower, and a thread that listens to the daemon. */

static struct {
	pthread_mutex_t lock;
	struct follower *running; /* guarded by lock; to be stopped */
	bool over;		  /* likewise: the daemon has said something */
	atomic_bool hand_over;
} process = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* It ends with its run, or with the word of the daemon that came before. */
static void set_running(struct follower *f)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&process.lock);

	process.running = f;
	if (f && process.over)
		follower_stop(f);
}

static void end_run(void)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&process.lock);

	process.over = true;
	if (process.running)
		follower_stop(process.running);
}

/* A second word, or the end of the socket, is for the end. */
static void *listen_to_daemon(void *unused)
{
	struct standby_packet packet;

	(void)unused;
	while (recv(CHILD_SOCKET, &packet, sizeof(packet), 0) ==
	       (ssize_t)sizeof(packet)) {
		if (packet.word != STANDBY_HAND_OVER)
			continue;
		atomic_store(&process.hand_over, true);
		end_run();
	}
	atomic_store(&process.hand_over, false);
	end_run();
	return NULL;
}

static void ready(size_t databases, void *unused)
{
	const struct standby_packet packet = {
		.word = STANDBY_READY,
		.number = (uint32_t)databases,
	};

	(void)unused;
	(void)send(CHILD_SOCKET, &packet, sizeof(packet), MSG_NOSIGNAL);
}

/* Until the daemon says something. */
static int follow(const struct follower_options *o)
{
	AUTO(follower) struct follower *f = NULL;
	int rc = follower_new(o, &f);

	if (rc < 0)
		return rc;
	set_running(f);
	rc = follower_run(f);
	set_running(NULL);
	return rc;
}

/*
 * To the end of each log, once.  What does not get there is brought there, or
 * found not to be, by the decider.
 */
static void catch_up(const struct follower_options *options)
{
	struct follower_options o = *options;
	AUTO(follower) struct follower *f = NULL;
	int rc;

	o.once = true;
	o.ready = NULL;
	rc = follower_new(&o, &f);
	if (rc == 0)
		rc = follower_run(f);
	if (rc < 0 && rc != -ENOENT)
		log_warn("not every replica came to the end of its log",
			 "error=%s", log_quote(error_message()));
}

static int fail(const char *message)
{
	log_error(message, "error=%s", log_quote(error_message()));
	return 1;
}

int standby_main(char **arguments)
{
	AUTO(bucket) struct bucket *bucket = NULL;
	struct follower_options o = {
		.directory = arguments[0],
		.name = "database",
		.ready = ready,
		.in_mount = true,
		.replica = {.wait_ms = 20},
	};
	enum log_level level;
	pthread_t thread;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (log_parse_level(arguments[2], &level) == 0)
		log_set_level(level);
	if (bucket_open(arguments[1], false, &bucket) < 0)
		return fail("the bucket cannot be followed");
	o.bucket = bucket;
	if (pthread_create(&thread, NULL, listen_to_daemon, NULL))
		return 1;
	(void)pthread_detach(thread);
	if (follow(&o) < 0)
		return fail("the bucket cannot be followed");
	if (!atomic_load(&process.hand_over))
		return 0;
	catch_up(&o);
	/* One that stays a replica keeps no other from being served. */
	if (unlock_all(o.directory) == -EBUSY)
		return fail("the replicas are another's");
	return 0;
}
