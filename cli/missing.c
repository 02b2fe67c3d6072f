#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/log.h"
#include "bucket/archive.h"
#include "bucket/bucket.h"
#include "bucket/catalog.h"
#include "bucket/patience.h"
#include "capture/capture.h"
#include "cli/gate.h"
#include "cli/origin.h"
#include "ltx/header.h"
#include "restorer/inherit.h"
#include "restorer/layout.h"
#include "restorer/restorer.h"
#include "sqlite/format.h"

#include "cli/missing.h"

enum {
	ASK_MS = 10000, /* for what there is; a restore takes as long as it takes */
	TELL_MS = 10000,
};

#define FETCHED "missing"

struct missing {
	const struct missing_config *config;
	int incoming_fd; /* .litebucket/incoming */

	/* Once the bucket does not answer, it is not asked for the others. */
	int silent; /* the error, or 0 */
	char error[ERROR_MESSAGE_SIZE];
};

/* One that is being restored. */
struct return_home {
	struct missing *m;
	const char *key; /* its DB part */
	const char *path;
	int64_t told_ms; /* monotonic; when the log last said how far it is */
};

/* ------------------------------------------------------------- its place */

static int put_in_place(const struct return_home *r)
{
	AUTO(fd) int file = -1, parent = -1;
	int incoming = r->m->incoming_fd;
	const char *name = NULL;
	int rc = inherit_parents(r->m->config->dirfd, r->path, &parent, &name);

	if (rc < 0)
		return rc;
	file = openat(incoming, FETCHED, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (file < 0)
		return error_errno("opening what was fetched");
	rc = inherit_owner(parent, file, 0666);
	if (rc == 0 && fsync(file) < 0)
		rc = error_errno("syncing what was fetched");
	if (rc < 0)
		return rc;
	FAILPOINT("missing-fetched");
	rc = io_rename_new(incoming, FETCHED, parent, name);
	errno = -rc;
	if (rc < 0)
		return error_errno("putting it in its place");
	FAILPOINT("missing-placed");
	return io_sync_parent(parent, name);
}

/* -------------------------------------------------------------- its state */

static void progress(uint64_t done, uint64_t total, void *arg)
{
	struct return_home *r = arg;
	int64_t now = clock_monotonic_ms();

	if (total == 0 || now - r->told_ms < TELL_MS)
		return;
	r->told_ms = now;
	log_info("restoring a database that only the bucket has",
		 "db=%s bytes=%" PRIu64 " of=%" PRIu64, log_quote(r->path),
		 done, total);
}

static int fetch(struct return_home *r, struct restorer_result *ret)
{
	char output[80];
	const struct restorer_options options = {
		.bucket = r->m->config->bucket,
		.db = r->key,
		.output = output,
		.force = true,
		.progress = progress,
		.progress_arg = r,
		.cancel = r->m->config->cancel,
	};

	(void)snprintf(output, sizeof(output), "/proc/self/fd/%d/" FETCHED,
		       r->m->incoming_fd);
	return restorer_restore(&options, ret);
}

static int bring_home(struct return_home *r)
{
	int64_t begun = clock_monotonic_ms();
	struct restorer_result result;
	int rc;

	SLOWPOINT("missing-found");
	rc = fetch(r, &result);
	if (rc == 0)
		rc = put_in_place(r);
	(void)unlinkat(r->m->incoming_fd, FETCHED, 0);
	if (rc < 0)
		return rc;
	log_info("restored a database that only the bucket had",
		 "db=%s txid=%016" PRIx64 " bytes=%" PRIu64
		 " milliseconds=%" PRId64,
		 log_quote(r->path), result.txid,
		 (uint64_t)result.page_size * result.commit,
		 clock_monotonic_ms() - begun);
	return 0;
}

/* 1: there is a file of this name, or of a side of it; 0: there is none. */
static int is_there(int dirfd, const char *path, const char *side)
{
	char name[BUCKET_KEY_MAX + 16];
	struct stat st;

	(void)snprintf(name, sizeof(name), "%s%s", path, side);
	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return 1;
	if (errno == ENOENT || errno == ENOTDIR)
		return 0;
	return error_errno("looking for '%s'", name);
}

/* What SQLite left beside a database would be played into this one. */
static int check_sides(const struct return_home *r)
{
	for (int i = 1; i < FORMAT_SIDES; i++) {
		int rc = is_there(r->m->config->dirfd, r->path,
				  format_sides[i]);

		if (rc < 0)
			return rc;
		if (rc > 0)
			return error_set(-EEXIST,
					 "'%s%s' is there without its database; "
					 "move it away and mount again",
					 r->path, format_sides[i]);
	}
	return 0;
}

/* What the name comes back with is behind the drop. */
static int note_dropped(const struct return_home *r,
			const struct restorer_point *head)
{
	const struct capture_state drop = {
		.txid = head->txid,
		.dbsum = head->dbsum,
		.timestamp_ms = head->timestamp_ms,
		.dropped = true,
	};

	return capture_note_dropped(r->m->config->dirfd, r->path, &drop);
}

/* Take what the directory does not know of. */
static int take_news(struct return_home *r)
{
	struct restorer_point head;
	uint64_t known;
	int rc = capture_known(r->m->config->dirfd, r->path, &known);

	bucket_wait_until(clock_monotonic_ms() + ASK_MS);
	if (rc == 0)
		rc = restorer_head(r->m->config->bucket, r->key, &head);
	bucket_wait_until(0);
	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	if (head.txid <= known)
		return 0;
	if (head.kind == LTX_DROP)
		return note_dropped(r, &head);
	rc = check_sides(r);
	return rc < 0 ? rc : bring_home(r);
}

static int look_at(struct return_home *r)
{
	int rc = is_there(r->m->config->dirfd, r->path, "");

	if (rc != 0)
		return rc < 0 ? rc : 0;
	if (r->m->silent)
		return error_set(r->m->silent, "%s", r->m->error);
	rc = take_news(r);
	if (bucket_transient(rc)) {
		r->m->silent = rc;
		(void)snprintf(r->m->error, sizeof(r->m->error), "%s",
			       error_message());
	}
	return rc;
}

/* The next start tries again. */
static int keep_closed(const struct return_home *r, int rc)
{
	(void)error_wrap(rc,
			 "'%s' is in the bucket and not in this directory, and "
			 "cannot be restored; it stays closed until the next "
			 "mount, so that nobody begins another one",
			 r->path);
	return gate_close(r->m->config->gate, r->path, GATE_HISTORY, -EBUSY,
			  error_message());
}

/* A database of the bucket; an archive_db_fn, arg is the struct missing. */
static int restore_one(const char *db, void *arg)
{
	struct missing *m = arg;
	char path[BUCKET_KEY_MAX];
	struct return_home r = {
		.m = m,
		.key = db,
		.path = path,
		.told_ms = clock_monotonic_ms(),
	};
	int rc;

	if (*m->config->cancel)
		return error_set(-ECANCELED, "stopped while starting");
	/* A name that no database of a mount could have. */
	if (!db[0] || archive_unescape(db, path) < 0 || layout_is_ours(path))
		return 0;
	rc = look_at(&r);
	if (rc == -ECANCELED || rc == -ENOMEM)
		return rc;
	return rc < 0 ? keep_closed(&r, rc) : 0;
}

/* ------------------------------------------------------- which there are */

/* A catalog_fn. */
static int restore_line(const char *db, const struct catalog_entry *entry,
			void *arg)
{
	(void)entry; /* the log is believed */
	return restore_one(db, arg);
}

/* 1: the catalog has told; 0: there is none, or none that can be read. */
static int by_catalog(struct missing *m)
{
	AUTO(catalog) struct catalog *catalog = NULL;
	int rc;

	bucket_wait_until(clock_monotonic_ms() + ASK_MS);
	rc = catalog_get(m->config->bucket, &catalog, NULL);
	bucket_wait_until(0);
	if (rc == -ENOENT || rc == -ENODEV || rc == -ERR_CORRUPT ||
	    rc == -EFBIG)
		return 0;
	if (rc == 0)
		rc = catalog_each(catalog, restore_line, m);
	return rc < 0 ? rc : 1;
}

static int by_list(struct missing *m)
{
	return archive_databases(m->config->bucket, restore_one, m);
}

static int look(struct missing *m)
{
	int rc = by_catalog(m);

	if (rc == 0 || (rc > 0 && m->config->is_new && !m->silent))
		rc = by_list(m);
	if (rc >= 0 || rc == -ENODEV)
		return 0;
	if (rc == -ECANCELED || rc == -ENOMEM)
		return rc;
	log_warn("which databases the bucket has is not known; what is not in "
		 "the directory is not restored",
		 "error=%s", log_quote(error_message()));
	return 1;
}

int missing_restore(const struct missing_config *config)
{
	struct missing m = { .config = config, .incoming_fd = -1 };
	int rc = origin_clear_incoming(config->dirfd, &m.incoming_fd);

	if (rc == 0)
		rc = look(&m);
	fd_cleanup(&m.incoming_fd);
	return rc;
}
