#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "restorer/mark.h"
#include "sqlite/replica.h"

#include "restorer/unlock.h"

enum { WAIT_MS = 1000 }; /* for readers that end by themselves */

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

int unlock_replica(const char *path, const char *state, struct unlocked *ret)
{
	static const struct replica_options options = { .wait_ms = WAIT_MS };
	struct replica *r;
	struct mark m;
	int rc = load_mark(state, &m);

	if (rc == 0)
		rc = replica_open(AT_FDCWD, path, &options, &r);
	if (rc == -ESTALE)
		return error_set(-EEXIST, "it is no replica, or was unlocked "
					  "before");
	if (rc == -EAGAIN)
		return error_wrap(-EBUSY, "it is in use");
	if (rc == 0)
		rc = release(r, &m, ret);
	if (rc < 0)
		return rc;
	forget(path, state);
	return 0;
}
