#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

#include "fuse/held.h"
#include "fuse/ops.h"

enum {
	/* As long as anybody would look at a program that does not get on. */
	PATIENCE_MS = 30000,
	/* As long as others should wait for the directory; see held.h. */
	NAME_PATIENCE_MS = 2000
};

struct held_request {
	struct held_request *next;
	fuse_req_t req; /* NULL: it was interrupted, and answered */
	int64_t until_ms;
	bool below;
	held_run again;
	struct held_args args; /* their pointers lead to what follows */
	struct fuse_file_info fi;
	struct stat attr;
	char names[];
};

/* The path of an inode, or of a name in it; false: it has none. */
static bool find_path(struct mount *m, fuse_ino_t number, const char *name,
		      char ret[INODE_PATH_SIZE])
{
	struct inode *inode = inode_of(&m->inodes, number);

	return (name ? inode_child_path(&m->inodes, inode, name, ret)
		     : inode_path(&m->inodes, inode, ret)) == 0;
}

/* As mount_config.admit(), for both names. */
static int ask(struct mount *m, const struct held_args *args, bool below)
{
	char path[INODE_PATH_SIZE];
	int rc = 0;

	if (find_path(m, args->number, args->name, path))
		rc = m->config.admit(m->config.arg, path, below);
	if (rc == 0 && args->new_name &&
	    find_path(m, args->new_number, args->new_name, path))
		rc = m->config.admit(m->config.arg, path, below);
	return rc;
}

static size_t name_size(const char *name)
{
	return name ? strlen(name) + 1 : 0;
}

static void copy_args(struct held_request *r, const struct held_args *args)
{
	size_t size = name_size(args->name);

	r->args = *args;
	if (args->name)
		r->args.name = memcpy(r->names, args->name, size);
	if (args->new_name)
		r->args.new_name = memcpy(r->names + size, args->new_name,
					  name_size(args->new_name));
	if (args->fi) {
		r->fi = *args->fi;
		r->args.fi = &r->fi;
	}
	if (args->attr) {
		r->attr = *args->attr;
		r->args.attr = &r->attr;
	}
}

/* The caller is dying, or has a timer: it does not wait any longer. */
static void interrupted(fuse_req_t req, void *arg)
{
	struct held_requests *held = arg;

	for (struct held_request *r = held->first; r; r = r->next)
		if (r->req == req) {
			r->req = NULL;
			(void)fuse_reply_err(req, EINTR);
			return;
		}
}

static int64_t patience_ms(const struct held_args *args)
{
	return args->name || args->new_name ? NAME_PATIENCE_MS : PATIENCE_MS;
}

static void keep(fuse_req_t req, const struct held_args *args, bool below,
		 held_run again)
{
	struct mount *m = mount_of(req);
	struct held_request *r = calloc(1, sizeof(*r) + name_size(args->name) +
						   name_size(args->new_name));
	struct held_request **last = &m->held.first;

	if (!r) {
		(void)fuse_reply_err(req, ENOMEM);
		return;
	}
	copy_args(r, args);
	r->req = req;
	r->below = below;
	r->again = again;
	r->until_ms = clock_monotonic_ms() + patience_ms(args);
	while (*last)
		last = &(*last)->next;
	*last = r;
	fuse_req_interrupt_func(req, interrupted, &m->held);
}

bool held_admits(fuse_req_t req, const struct held_args *args, bool below,
		 held_run again)
{
	struct mount *m = mount_of(req);
	int rc;

	/* The follower brings about what the others wait for. */
	if (!m->config.admit || ops_is_follower(req))
		return true;
	rc = ask(m, args, below);
	/* Who waits keeps the mount busy, and at its end nobody decides. */
	if (rc == -EAGAIN && atomic_load(&m->stops))
		rc = -EBUSY;
	/* libfuse would call interrupted() at once, and then touch req. */
	if (rc == -EAGAIN && fuse_req_interrupted(req))
		rc = -EINTR;
	if (rc == -EAGAIN)
		keep(req, args, below, again);
	else if (rc < 0)
		reply_result(req, rc);
	return rc == 0;
}

/* What to answer now; -EAGAIN: nothing yet. */
static int look_again(struct mount *m, const struct held_request *r)
{
	int rc = ask(m, &r->args, r->below);

	if (rc == -EAGAIN && clock_monotonic_ms() >= r->until_ms)
		return -EBUSY;
	return rc;
}

/*
 * The request is free again: what it is answered with may come to be held anew,
 * at the end of the list.
 */
static void finish(struct held_request *r, int rc)
{
	if (r->req)
		fuse_req_interrupt_func(r->req, NULL, NULL);
	if (r->req && rc < 0)
		reply_result(r->req, rc);
	else if (r->req)
		r->again(r->req, &r->args);
	free(r);
}

void held_ask_again(struct mount *m)
{
	struct held_request *all = m->held.first;

	m->held.first = NULL;
	while (all) {
		struct held_request *r = all, **last = &m->held.first;
		int rc = r->req ? look_again(m, r) : 0;

		all = r->next;
		r->next = NULL;
		if (rc != -EAGAIN) {
			finish(r, rc);
			continue;
		}
		while (*last)
			last = &(*last)->next;
		*last = r;
	}
}

int64_t held_until_ms(const struct mount *m)
{
	int64_t until = INT64_MAX;

	for (const struct held_request *r = m->held.first; r; r = r->next)
		if (r->until_ms < until)
			until = r->until_ms;
	return until;
}

void held_dismiss(struct mount *m)
{
	while (m->held.first) {
		struct held_request *r = m->held.first;

		m->held.first = r->next;
		finish(r, -EBUSY);
	}
}
