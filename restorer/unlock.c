#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "restorer/layout.h"
#include "restorer/mark.h"
#include "sqlite/replica.h"

#include "restorer/unlock.h"

/* For readers that end by themselves. */
enum { WAIT_MS = 1000, SHORT_WAIT_MS = 20 };

static int beside(const char *state, const char *name, char **ret)
{
	if (asprintf(ret, "%s/%s", state, name) >= 0)
		return 0;
	*ret = NULL;
	return error_set(-ENOMEM, "out of memory for a path");
}

/* None, or one that cannot be read, is no reason to keep it locked. */
static int load_mark(const char *state, struct mark *ret)
{
	AUTO(mem) char *path = NULL;
	AUTO(fd) int fd = -1;
	int rc = state ? beside(state, "position", &path) : -ENOENT;

	memset(ret, 0, sizeof(*ret));
	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0 : error_errno("opening %s", path);
	if (mark_load(fd, ret) < 0)
		memset(ret, 0, sizeof(*ret));
	return 0;
}

/* 1: it is this state of the bucket's. */
static int is_state(struct replica *r, const struct mark_state *s)
{
	struct replica_mark m = { .sum = s->dbsum };

	memcpy(m.format, s->format, sizeof(m.format));
	return s->txid && !s->dropped ? replica_is(r, &m) : 0;
}

/* Whoever was killed in a commit left one of two. */
static int find_state(struct replica *r, const struct mark *m,
		      const struct mark_state **ret)
{
	int rc = is_state(r, &m->done);

	*ret = &m->done;
	if (rc == 0 && m->begun.txid != m->done.txid) {
		rc = is_state(r, &m->begun);
		if (rc > 0)
			*ret = &m->begun;
	}
	return rc;
}

static int release(struct replica *r, const struct mark *m,
		   struct unlocked *ret)
{
	const struct mark_state *s;
	uint8_t format[2] = { 2, 2 };
	int rc = find_state(r, m, &s);

	if (rc < 0) {
		replica_free(r);
		return rc;
	}
	if (s->format[0])
		memcpy(format, s->format, sizeof(format));
	*ret = (struct unlocked){
		.txid = rc > 0 ? s->txid : 0,
		.wal = format[0] == 2,
	};
	return replica_release(r, format);
}

static void forget(const char *path, const char *state)
{
	static const char *const names[] = { "position", "name" };
	AUTO(mem) char *pos = NULL;

	if (asprintf(&pos, "%s-pos", path) >= 0)
		(void)unlink(pos);
	for (size_t i = 0; state && i < sizeof(names) / sizeof(names[0]); i++) {
		AUTO(mem) char *file = NULL;

		if (beside(state, names[i], &file) == 0)
			(void)unlink(file);
	}
	if (state)
		(void)rmdir(state);
}

static int open_replica(const char *path, unsigned wait_ms,
			struct replica **ret)
{
	const struct replica_options options = { .wait_ms = wait_ms };
	int rc = replica_open(AT_FDCWD, path, &options, ret);

	if (rc == -ESTALE)
		return error_set(-EEXIST, "it is no replica, or was unlocked "
					  "before");
	if (rc == -EAGAIN)
		return error_wrap(-EBUSY, "it is in use");
	return rc;
}

int unlock_hand_over(const char *path, const char *state)
{
	struct replica *r;
	struct mark m;
	uint8_t format[2] = { 2, 2 };
	int rc = load_mark(state, &m);

	if (rc == 0)
		rc = open_replica(path, SHORT_WAIT_MS, &r);
	if (rc < 0)
		return rc;
	if (m.done.format[0])
		memcpy(format, m.done.format, sizeof(format));
	rc = replica_hand_over(r, format);
	if (rc < 0)
		return rc;
	forget(path, state);
	return 0;
}

int unlock_replica(const char *path, const char *state, struct unlocked *ret)
{
	struct replica *r;
	struct mark m;
	int rc = load_mark(state, &m);

	if (rc == 0)
		rc = open_replica(path, WAIT_MS, &r);
	if (rc == 0)
		rc = release(r, &m, ret);
	if (rc < 0)
		return rc;
	forget(path, state);
	return 0;
}

struct all {
	const char *directory;
	int failed; /* the first error */
};

/* A layout_fn.  What was dropped has a position, and no file. */
static int hand_over_one(const char *db, const char *state, void *arg)
{
	struct all *all = arg;
	AUTO(mem) char *path = NULL;
	int rc;

	if (asprintf(&path, "%s/%s", all->directory, db) < 0)
		return error_set(-ENOMEM, "out of memory for a path");
	if (access(path, F_OK) < 0 && errno == ENOENT) {
		forget(path, state);
		return 0;
	}
	rc = unlock_hand_over(path, state);
	/* It was done by one who was killed then. */
	if (rc == -EEXIST)
		forget(path, state);
	if (rc == 0 || rc == -EEXIST)
		return 0;
	log_error("replica stays one", "db=%s error=%s", log_quote(db),
		  log_quote(error_message()));
	if (all->failed == 0)
		all->failed = rc;
	return 0;
}

int unlock_all(const char *directory)
{
	struct all all = { .directory = directory };
	AUTO(mem) char *follow = NULL;
	AUTO(fd) int held = -1;
	int rc = layout_path(directory, "follow", &follow);

	if (rc == 0 && access(follow, F_OK) < 0)
		return 0;
	if (rc == 0)
		rc = layout_lock(directory, &held);
	if (rc == 0)
		rc = layout_each(directory, hand_over_one, &all);
	return rc < 0 ? rc : all.failed;
}
