#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fail.h"
#include "base/log.h"
#include "fuse/caller.h"
#include "fuse/killpriv.h"
#include "fuse/mountpoint.h"
#include "fuse/ops.h"
#include "fuse/users.h"

#include "fuse/mount.h"

/* Requests that the kernel may have under way for nobody who waits. */
enum {
	MAX_BACKGROUND = 64
};

/* The bits that differ from what libfuse would choose, and why. */
static const struct {
	uint64_t bit;
	bool on;
} wishes[] = {
	/* Pages are thrown away when we say so, not when times change. */
	{FUSE_CAP_AUTO_INVAL_DATA, false},
	{FUSE_CAP_EXPLICIT_INVAL_DATA, true},
	/* O_TRUNC comes as a request of its own, for capture to see. */
	{FUSE_CAP_ATOMIC_O_TRUNC, false},
	/* Locks are the kernel's alone. */
	{FUSE_CAP_POSIX_LOCKS, false},
	{FUSE_CAP_FLOCK_LOCKS, false},
	/* A written page must reach us before write(2) returns. */
	{FUSE_CAP_WRITEBACK_CACHE, false},
	/* The backing file system knows where a umask does not apply. */
	{FUSE_CAP_DONT_MASK, true},
	{FUSE_CAP_POSIX_ACL, true},
	{FUSE_CAP_IOCTL_DIR, true},
	{FUSE_CAP_CACHE_SYMLINKS, true},
	/* Requests of SQLite's size are faster copied than spliced. */
	{FUSE_CAP_SPLICE_READ, false},
	{FUSE_CAP_SPLICE_WRITE, false},
	{FUSE_CAP_SPLICE_MOVE, false},
	/* We clear set-user-id bits; see killpriv.h for older libfuse. */
	{FUSE_CAP_HANDLE_KILLPRIV, false},
#ifdef FUSE_CAP_HANDLE_KILLPRIV_V2
	{FUSE_CAP_HANDLE_KILLPRIV_V2, true},
#endif
};

static void set_feature(struct fuse_conn_info *conn, uint64_t bit, bool on)
{
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
	if (on)
		(void)fuse_set_feature_flag(conn, bit);
	else
		fuse_unset_feature_flag(conn, bit);
#else
	if (on)
		conn->want |= conn->capable & (unsigned)bit;
	else
		conn->want &= ~(unsigned)bit;
#endif
}

static void op_init(void *arg, struct fuse_conn_info *conn)
{
	for (size_t i = 0; i < sizeof(wishes) / sizeof(wishes[0]); i++)
		set_feature(conn, wishes[i].bit, wishes[i].on);
	conn->max_background = MAX_BACKGROUND;
}

static struct fuse_lowlevel_ops all_ops(void)
{
	struct fuse_lowlevel_ops ops = {.init = op_init};

	ops_name_fill(&ops);
	ops_create_fill(&ops);
	ops_dir_fill(&ops);
	ops_attr_fill(&ops);
	ops_xattr_fill(&ops);
	ops_file_fill(&ops);
	ops_data_fill(&ops);
	ops_control_fill(&ops);
	return ops;
}

/* What libfuse last complained of: it has no other way to give reasons. */
static _Thread_local char complaint[256];

static PRINTF_LIKE(2, 0) void take_complaint(enum fuse_log_level level,
					     const char *fmt, va_list args)
{
	(void)vsnprintf(complaint, sizeof(complaint), fmt, args);
	complaint[strcspn(complaint, "\n")] = '\0';
	if (level <= FUSE_LOG_WARNING)
		log_debug("libfuse", "said=%s", log_quote(complaint));
}

/* Each file that the kernel knows costs a descriptor. */
static void raise_descriptor_limit(void)
{
	const rlim_t enough = 1 << 20;
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= enough)
		return;
	limit.rlim_cur = limit.rlim_max < enough ? limit.rlim_max : enough;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
	/* Root may go beyond the limit that it was given. */
	limit.rlim_cur = enough;
	if (limit.rlim_max < enough)
		limit.rlim_max = enough;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
}

/* "-o" and what goes after it, in args; commas in source do no harm. */
static int add_options(struct fuse_args *args,
		       const struct mount_config *config)
{
	char name[4096];
	char *options = NULL;
	int rc;

	(void)snprintf(name, sizeof(name), "fsname=litebucket:%s",
		       config->source);
	rc = fuse_opt_add_opt(&options, "default_permissions,nosuid,nodev,"
					"subtype=litebucket");
	if (rc == 0 && config->allow_other)
		rc = fuse_opt_add_opt(&options, "allow_other");
	if (rc == 0)
		rc = fuse_opt_add_opt_escaped(&options, name);
	if (rc == 0)
		rc = fuse_opt_add_arg(args, "litebucket");
	if (rc == 0)
		rc = fuse_opt_add_arg(args, "-o");
	if (rc == 0)
		rc = fuse_opt_add_arg(args, options);
	free(options);
	return rc ? error_set(-ENOMEM, "no memory for mount options") : 0;
}

static int new_session(struct mount *m, const struct mount_config *config)
{
	const struct fuse_lowlevel_ops ops = all_ops();
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	int rc = add_options(&args, config);

	if (rc == 0) {
		m->session = fuse_session_new(&args, &ops, sizeof(ops), m);
		if (!m->session)
			rc = error_set(-EINVAL, "preparing the mount: %s",
				       complaint);
	}
	fuse_opt_free_args(&args);
	return rc;
}

static int not_mounted(const struct mount *m)
{
	const char *advice =
		geteuid() == 0
			? "a container needs --device /dev/fuse --cap-add "
			  "SYS_ADMIN"
			: "for users, fusermount3 must be set-user-id root";

	return error_set(-EPERM, "mounting at '%s': %s; %s", m->mountpoint,
			 complaint[0] ? complaint : "not permitted", advice);
}

/* At once in the place of a dead mount, if there is one. */
static int mount_there(struct mount *m)
{
	char place[MOUNTPOINT_PLACE_SIZE];
	int rc;

	if (mountpoint_is_dead(m->mountpoint))
		m->replaces = mountpoint_device(m->mountpoint);
	rc = mountpoint_prepare_place(m->mountpoint, place);
	if (rc < 0) {
		rc = mountpoint_remove_dead(m->mountpoint);
		if (rc < 0)
			return rc;
		return fuse_session_mount(m->session, m->mountpoint) ?
			       not_mounted(m) :
			       0;
	}
	if (fuse_session_mount(m->session, place) != 0) {
		(void)rmdir(place);
		return not_mounted(m);
	}
	m->mounted = true;
	return mountpoint_replace(m->mountpoint, place);
}

static int mount_session(struct mount *m)
{
	int fd, rc = mount_there(m);

	if (rc < 0)
		return rc;
	m->mounted = true;
	m->device = mountpoint_device(m->mountpoint);
	if (!m->device)
		return error_set(-ENOENT, "the mount at '%s' is not in "
					  "/proc/self/mountinfo",
				 m->mountpoint);
	rc = killpriv_install(m->session);
	if (rc < 0)
		return rc;
	/* The loop waits in poll(2), where mount_stop() reaches it. */
	fd = fuse_session_fd(m->session);
	if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)
		return error_errno("preparing the FUSE device");
	return 0;
}

/* The writing end of a pipe that nobody reads. */
static int open_nowhere(int *ret_fd)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
		return error_errno("making a pipe");
	(void)close(fds[0]);
	*ret_fd = fds[1];
	return 0;
}

static int open_descriptors(struct mount *m)
{
	m->proc_fd = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (m->proc_fd < 0)
		return error_errno("opening /proc/self/fd (is /proc mounted?)");
	m->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (m->wake_fd < 0)
		return error_errno("making an eventfd");
	m->own_umask = umask(077);
	(void)umask(m->own_umask);
	m->privileged = caller_privileged();
	return open_nowhere(&m->nowhere_fd);
}

static int allocate(const struct mount_config *config, struct mount **ret)
{
	AUTO(mem) struct mount *m = calloc(1, sizeof(*m));
	int rc;

	if (!m)
		return error_set(-ENOMEM, "no memory for a mount");
	m->read_buffer = malloc(READ_BUFFER_SIZE);
	if (!m->read_buffer)
		return error_set(-ENOMEM, "no memory for a mount");
	m->config = *config;
	m->proc_fd = m->wake_fd = m->nowhere_fd = -1;
	atomic_store(&m->guarded, config->guarded);
	rc = inode_table_init(&m->inodes, config->dirfd);
	if (rc == 0)
		rc = workers_init(&m->workers, WORKERS_MAX, 0);
	if (rc == 0)
		rc = notifier_init(&m->notifier);
	if (rc == 0)
		rc = controls_init(&m->controls);
	/* One stays: it must never be the loop that waits for the bucket. */
	if (rc == 0)
		rc = workers_init(&m->confirmers, CONFIRMERS_MAX,
				  config->confirm ? 1 : 0);
	if (rc < 0) {
		inode_table_cleanup(&m->inodes);
		free(m->read_buffer);
		return rc;
	}
	handles_init(&m->handles, config->capture, &m->inodes);
	*ret = TAKE(m);
	return 0;
}

int mount_new(const struct mount_config *config, struct mount **ret)
{
	AUTO(mount) struct mount *m = NULL;
	int rc = allocate(config, &m);

	if (rc < 0)
		return rc;
	fuse_set_log_func(take_complaint);
	raise_descriptor_limit();
	rc = mountpoint_check_rights(config->allow_other);
	if (rc == 0)
		rc = mountpoint_prepare(config->mountpoint, &m->mountpoint);
	if (rc == 0)
		rc = open_descriptors(m);
	if (rc == 0)
		rc = new_session(m, config);
	if (rc == 0)
		rc = mount_session(m);
	if (rc < 0)
		return rc;
	*ret = TAKE(m);
	return 0;
}

static void wake(struct mount *m)
{
	const uint64_t one = 1;

	/* It can only fail because the loop has many reasons to wake already. */
	if (write(m->wake_fd, &one, sizeof(one)) < 0)
		return;
}

void mount_stop(struct mount *m)
{
	int saved = errno;

	atomic_fetch_add(&m->stops, 1);
	wake(m);
	errno = saved;
}

void mount_guard(struct mount *m, bool guarded)
{
	atomic_store(&m->guarded, guarded);
}

void mount_set_follower(struct mount *m, int pid)
{
	atomic_store(&m->follower, pid);
}

void mount_ask_again(struct mount *m)
{
	wake(m);
}

/*
 * The end of a mount.  A stop has a thread of its own for this, because the
 * loop must go on serving: umount(2) itself may need it, to write pages that
 * were mapped.  Where the loop ended for another reason it comes after it.
 */
struct drain {
	struct mount *m;
	pthread_t thread;
	bool started;

	/* At the end; read after joining. */
	bool in_use;
	bool gone; /* somebody else has unmounted it */
	char users[USERS_TEXT_SIZE];
};

enum {
	DRAIN_STEP_MS = 50,
	DRAIN_BUSY_TRIES = 10
};

/* Is ours what is mounted there? */
static bool stands(const struct mount *m)
{
	return m->device && mountpoint_device(m->mountpoint) == m->device;
}

static bool patience_is_over(struct mount *m, int64_t until_ms)
{
	return clock_monotonic_ms() >= until_ms || atomic_load(&m->cut) ||
	       atomic_load(&m->stops) > 1;
}

/*
 * As long as someone has a file open the mount stays where it is, so that
 * nobody meets the directory beneath.  A working directory alone also keeps it
 * busy, but whoever sits there is not going to leave.
 */
static bool drained(struct mount *m)
{
	int64_t until_ms = clock_monotonic_ms() + m->config.stop_timeout_ms;

	for (int tries = 0; tries < DRAIN_BUSY_TRIES;) {
		if (handles_count(&m->handles) == 0) {
			/* Beneath ours may be a disk, which is not ours. */
			if (!stands(m) ||
			    mountpoint_unmount(m->mountpoint) == 0)
				return true;
			tries++;
		} else if (patience_is_over(m, until_ms)) {
			return false;
		}
		clock_sleep_ms(DRAIN_STEP_MS);
	}
	return false;
}

/* While the connection is there if possible: many end when it is cut. */
static void note_users(struct drain *d, dev_t device)
{
	struct users_files files = {.whole_device = true, .dev = device};
	AUTO(mem) struct users *users = calloc(1, sizeof(*users));

	d->in_use = true;
	d->gone = !stands(d->m);
	if (users && users_find(&files, users) == 0 && users->n)
		users_describe(users, d->users);
	else
		(void)snprintf(d->users, sizeof(d->users),
			       "processes that cannot be seen from here");
}

static void settle(struct drain *d)
{
	if (!drained(d->m))
		note_users(d, d->m->device);
}

static void *drain(void *arg)
{
	struct drain *d = arg;

	settle(d);
	/* Who tells the kernel may wait for somebody who waits for the bucket. */
	atomic_store(&d->m->giving_up, true);
	notifier_close(&d->m->notifier);
	atomic_store(&d->m->cut, true);
	wake(d->m);
	return NULL;
}

/* mount_stop() was called: start the drain once; false: end now. */
static bool heed_stop(struct mount *m, struct drain *d)
{
	if (atomic_load(&m->cut))
		return false;
	if (atomic_load(&m->stops) && !d->started) {
		controls_dismiss(&m->controls);
		held_dismiss(m);
		d->started = pthread_create(&d->thread, NULL, drain, d) == 0;
		return d->started;
	}
	return true;
}

/* How long the loop may sleep: until somebody has waited long enough. */
static int patience_ms(const struct mount *m)
{
	int64_t until = held_until_ms(m), left;

	if (until == INT64_MAX)
		return -1;
	left = until - clock_monotonic_ms();
	return left > 0 ? (int)left : 0;
}

/* Wait for a request, or for a reason to end: then false. */
static bool wait_for_request(struct mount *m, struct drain *d)
{
	struct pollfd fds[] = {
		{.fd = fuse_session_fd(m->session), .events = POLLIN},
		{.fd = m->wake_fd, .events = POLLIN},
	};
	uint64_t times;
	bool woken;

	if (poll(fds, 2, patience_ms(m)) < 0)
		return errno == EINTR;
	woken = fds[1].revents && read(m->wake_fd, &times, sizeof(times)) > 0;
	if (woken && !heed_stop(m, d))
		return false;
	if (woken || held_until_ms(m) <= clock_monotonic_ms())
		held_ask_again(m);
	return true;
}

static int loop(struct mount *m, struct drain *d)
{
	struct fuse_buf buffer = {.mem = NULL};
	int rc = 0;

	while (!fuse_session_exited(m->session)) {
		rc = fuse_session_receive_buf(m->session, &buffer);
		if (rc > 0)
			fuse_session_process_buf(m->session, &buffer);
		else if (rc == -EAGAIN && !wait_for_request(m, d))
			break;
		else if (rc < 0 && rc != -EAGAIN && rc != -EINTR)
			break;
	}
	free(buffer.mem);
	held_dismiss(m);
	return rc < 0 && rc != -EAGAIN && rc != -EINTR ? rc : 0;
}

static void forget_file(struct mount *m, const char *path)
{
	uint64_t parent, number;
	const char *name;

	inode_known(&m->inodes, path, &parent, &name, &number);
	if (number)
		(void)fuse_lowlevel_notify_inval_inode(m->session, number, 0,
						       0);
	/* Also that there is no such file is something the kernel knows. */
	if (parent)
		(void)fuse_lowlevel_notify_inval_entry(m->session, parent, name,
						       strlen(name));
}

static const char *const sides[] = {"", "-wal", "-shm", "-journal"};

void mount_replaced(struct mount *m, const char *path)
{
	char name[INODE_PATH_SIZE + 16];

	for (int i = 0; i < 4; i++) {
		(void)snprintf(name, sizeof(name), "%s%s", path, sides[i]);
		inode_replaced(&m->inodes, name);
	}
}

void mount_forget(struct mount *m, const char *path)
{
	char name[INODE_PATH_SIZE + 16];

	if (!notifier_begin(&m->notifier))
		return;
	for (int i = 0; i < 4; i++) {
		(void)snprintf(name, sizeof(name), "%s%s", path, sides[i]);
		forget_file(m, name);
	}
	notifier_end(&m->notifier);
}

/*
 * Cut the connection: whoever waits for an answer gets an error, and so does
 * everybody from now on.  The descriptor stays, with something else behind it,
 * because another thread may just be telling the kernel something.  That is a
 * pipe nobody reads, which poll(2) reports as an error; libfuse takes that for
 * a connection that somebody else has cut, and leaves the mount alone.
 */
static void sever(struct mount *m)
{
	(void)dup3(m->nowhere_fd, fuse_session_fd(m->session), O_CLOEXEC);
	notifier_close(&m->notifier);
}

/*
 * End the connection, and leave the mount.  No worker may be about to reply,
 * because the descriptor it would write to is closed.
 */
static void disconnect(struct mount *m)
{
	atomic_store(&m->giving_up, true);
	controls_dismiss(&m->controls);
	workers_finish(&m->confirmers);
	workers_finish(&m->workers);
	sever(m);
	fuse_session_unmount(m->session);
	m->mounted = false;
}

/* It is in use: what becomes of it now that it is dead, as an error. */
static int leave(const struct drain *d)
{
	const struct mount *m = d->m;

	if (!d->gone && m->config.unmount_in_use &&
	    mountpoint_remove_dead(m->mountpoint) < 0)
		log_debug("the mount stays behind", "reason=%s",
			  log_quote(error_message()));
	if (d->gone || m->config.unmount_in_use)
		return error_set(-EBUSY,
				 "'%s' was unmounted %swhile in use; these get "
				 "errors, and see the plain files when they "
				 "open them again: %s",
				 m->mountpoint,
				 d->gone ? "by somebody else " : "", d->users);
	return error_set(-EBUSY,
			 "'%s' is in use, and so stays mounted, but dead: its "
			 "users get errors, and nobody writes the plain files "
			 "unseen; the next 'litebucket mount' goes on, and "
			 "'umount' once they are gone, or 'umount -l' now, "
			 "gives access to the files: %s",
			 m->mountpoint, d->users);
}

/* Why the loop ended, unless it was to, and who is left. */
static int conclude(const struct drain *d, int rc)
{
	int left = d->in_use ? leave(d) : 0;

	if (rc == 0)
		return left;
	if (left < 0)
		return error_wrap(rc, "reading from the FUSE device: %s",
				  strerror(-rc));
	return error_set(rc, "reading from the FUSE device: %s", strerror(-rc));
}

int mount_serve(struct mount *m)
{
	struct drain d = {.m = m};
	int rc;

	caller_own_thread();
	notifier_open(&m->notifier);
	rc = loop(m, &d);
	SLOWPOINT("loop-ended");
	/* No file will be closed any more. */
	atomic_store(&m->cut, true);
	disconnect(m);
	if (d.started)
		(void)pthread_join(d.thread, NULL);
	else
		settle(&d);
	return conclude(&d, rc);
}

/*
 * It was never served.  Whoever used the dead mount that it came in place of
 * waits for another to come.
 */
static void abandon(struct mount *m)
{
	struct drain d = {.m = m};

	atomic_store(&m->cut, true);
	disconnect(m);
	if (!m->device)
		return;
	if (m->replaces)
		note_users(&d, m->replaces);
	else
		settle(&d);
	if (d.in_use && leave(&d) < 0)
		log_warn("the mount was not served", "reason=%s",
			 log_quote(error_message()));
}

void mount_free(struct mount *m)
{
	if (!m)
		return;
	if (m->mounted)
		abandon(m);
	workers_cleanup(&m->confirmers);
	workers_cleanup(&m->workers);
	controls_cleanup(&m->controls);
	if (m->session)
		fuse_session_destroy(m->session);
	ops_dir_cleanup(m);
	handles_cleanup(&m->handles);
	inode_table_cleanup(&m->inodes);
	notifier_cleanup(&m->notifier);
	fd_cleanup(&m->proc_fd);
	fd_cleanup(&m->wake_fd);
	fd_cleanup(&m->nowhere_fd);
	free(m->mountpoint);
	free(m->read_buffer);
	free(m);
}
