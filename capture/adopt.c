#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/log.h"
#include "ltx/spool.h"

#include "capture/content.h"
#include "capture/table.h"

/*
 * Adopting a state of the log, so that a crash at any point leaves the old
 * files with what was known of them, or leads to the new ones:
 *
 *	1. second names for all that goes, in a directory of their own, synced
 *	2. the new file, if there is one, as INCOMING in the state directory, synced
 *	3. the state to be, as REPLACING or ADOPTING, synced: the decision
 *	4. -shm, -wal, -journal of the old file unlinked; INCOMING renamed to it
 *	5. the spool emptied; pages made from the file; position; 3 removed
 *
 * db_recover_adopting() does 4 and 5 (again) where it finds 3.  A crash between
 * the two parts of 4 leaves an old file without its WAL, for as long as nobody
 * starts us; what it held is in 1.
 *
 * Until 3 those second names are of files that are still in use, and nobody may
 * take them for something that was kept: the directory's name begins with
 * UNDECIDED, which 3 takes away, and what comes before 3 and fails removes it.
 */
static const char INCOMING[] = "incoming.db";
static const char REPLACING[] = "replacing";
static const char ADOPTING[] = "adopting";
#define UNDECIDED "tmp-"

enum { PATH_SIZE = 4200, ASIDE_SIZE = 80 };

/* --------------------------------------------------------- finding out */

/*
 * Is the log that there is a part of the one that position ended in?  A WAL
 * that starts over counts its first salt up by one.
 */
static bool wal_is_behind(const struct content *c, const struct position *p)
{
	if (p->wal_end == 0 || c->wal_fd < 0 || c->wal.page_size == 0)
		return false;
	if (c->wal.salt[0] != p->wal_salt[0])
		return (int32_t)(c->wal.salt[0] - p->wal_salt[0]) == -1;
	return c->wal.salt[1] == p->wal_salt[1] &&
	       wal_cursor_offset(&c->wal) < p->wal_end;
}

static bool counter_is_behind(const struct content *c, const struct position *p)
{
	return p->change_counter &&
	       (int32_t)(c->change_counter - p->change_counter) < 0;
}

/* A file that was copied there, and never synced by anybody, may end anywhere. */
static bool is_cut_short(const struct content *c)
{
	int64_t size = io_size(c->main_fd);

	return size >= 0 &&
	       (uint64_t)size / c->page_size + c->wal.frames < c->commit;
}

bool db_is_behind(struct db *db)
{
	const struct position *p = &db->position;
	const char *boot = capture_boot(db->capture);
	AUTO(content) struct content c = { .main_fd = -1, .wal_fd = -1 };
	int rc;

	if (!boot[0] || !p->boot[0] || strcmp(boot, p->boot) == 0)
		return false;
	rc = content_open(db->config->dirfd, db->path, &c);
	if (rc < 0)
		return rc == -ENOENT || rc == -ERR_NO_DATABASE;
	return is_cut_short(&c) || wal_is_behind(&c, p) ||
	       counter_is_behind(&c, p);
}

/* Of the table, and held: with its own lock. */
static int find_held(struct capture *c, const char *path, struct db **ret)
{
	struct db *db = capture_find(c, path);

	if (db && atomic_load(&db->held)) {
		*ret = db;
		return 0;
	}
	capture_release(c, db);
	return error_set(-ENOENT, "'%s' is not held", path);
}

int capture_look(struct capture *c, const char *path, struct capture_state *ret)
{
	AUTO(content) struct content content = { .main_fd = -1, .wal_fd = -1 };
	int rc = content_open(c->config.dirfd, path, &content);

	if (rc == 0)
		rc = content_sum(&content, &c->hurried);
	if (rc < 0)
		return rc;
	*ret = (struct capture_state){
		.page_size = content.page_size,
		.commit = content.commit,
		.dbsum = content.dbsum,
	};
	return 0;
}

int capture_find_again(struct capture *c, const char *path,
		       struct capture_found *ret)
{
	struct db *db = NULL;
	int rc = find_held(c, path, &db);

	if (rc < 0)
		return rc;
	(void)pthread_mutex_lock(&db->lock);
	rc = capture_attach(db);
	*ret = (struct capture_found){
		.path = db->path,
		.spool = db->spool,
		.txid = db->position.txid,
		.dbsum = db->position.dbsum,
		.dropped = db->position.dropped,
		.behind = ret->behind,
	};
	(void)pthread_mutex_unlock(&db->lock);
	capture_release(c, db);
	return rc;
}

/* -------------------------------------------------- 1: second names */

static int sync_dir(int fd)
{
	return fsync(fd) < 0 ? error_errno("syncing a directory") : 0;
}

/* 1: the file got a second name; 0: there is none. */
static int set_aside(int from_fd, const char *from, int to_fd, const char *to)
{
	if (linkat(from_fd, from, to_fd, to, 0) == 0)
		return 1;
	return errno == ENOENT ? 0 : error_errno("setting '%s' aside", from);
}

static int set_files_aside(struct db *db, int aside_fd)
{
	char from[PATH_SIZE], to[80];
	int rc = set_aside(db->config->dirfd, db->path, aside_fd, "database");

	for (int i = 1; rc >= 0 && i < FORMAT_SIDES; i++) {
		(void)snprintf(from, sizeof(from), "%s%s", db->path,
			       format_sides[i]);
		(void)snprintf(to, sizeof(to), "database%s", format_sides[i]);
		rc = set_aside(db->config->dirfd, from, aside_fd, to);
	}
	return rc < 0 ? rc : 0;
}

static int set_spool_aside(struct db *db, int aside_fd)
{
	AUTO(mem) uint64_t *txids = NULL;
	size_t n = 0;
	int rc = spool_list(db->spool, &txids, &n);

	for (size_t i = 0; rc >= 0 && i < n; i++) {
		char from[80], to[80];

		(void)snprintf(to, sizeof(to),
			       "%016" PRIx64 "-%016" PRIx64 ".ltx", txids[i],
			       txids[i]);
		(void)snprintf(from, sizeof(from), "spool/%s", to);
		rc = set_aside(db->state_fd, from, aside_fd, to);
	}
	return rc < 0 ? rc : 0;
}

/* A new directory, named after the time. */
static int make_aside(struct db *db, enum capture_keep keep,
		      char ret_name[ASIDE_SIZE])
{
	int64_t now = db->config->now_ms(db->config->arg);
	char time[CLOCK_TEXT_SIZE];
	uint32_t random;
	int rc = io_make_dirs(db->capture->state_fd, "aside", 0700);

	io_random(&random, sizeof(random));
	clock_format(now, time);
	(void)snprintf(ret_name, ASIDE_SIZE, "aside/" UNDECIDED "%s%s-%08x",
		       keep == CAPTURE_KEEP_DIVERGED ? "diverged-" : "", time,
		       random);
	if (rc == 0)
		rc = io_make_dirs(db->capture->state_fd, ret_name, 0700);
	if (rc < 0)
		return rc;
	rc = openat(db->capture->state_fd, ret_name,
		    O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return rc < 0 ? error_errno("opening '%s'", ret_name) : rc;
}

/* What failed has changed nothing: its second names are of no use. */
static void remove_aside(struct db *db, const char *name)
{
	int fd = openat(db->capture->state_fd, name,
			O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		if (strcmp(entry->d_name, ".") != 0 &&
		    strcmp(entry->d_name, "..") != 0)
			(void)unlinkat(fd, entry->d_name, 0);
	if (dir)
		(void)closedir(dir);
	(void)unlinkat(db->capture->state_fd, name, AT_REMOVEDIR);
}

static int fill_aside(struct db *db, bool files, bool spool, int fd,
		      const char *name)
{
	int rc = 0;

	if (files)
		rc = set_files_aside(db, fd);
	if (rc == 0 && spool)
		rc = set_spool_aside(db, fd);
	if (rc == 0)
		rc = io_write_atomically(fd, "name", db->path,
					 strlen(db->path));
	if (rc == 0)
		rc = sync_dir(fd);
	if (rc == 0)
		rc = io_sync_parent(db->capture->state_fd, name);
	FAILPOINT("adopt-aside");
	return rc < 0 ? error_wrap(rc, "keeping what '%s' was", db->path) : 0;
}

static bool has_spooled(struct db *db)
{
	uint64_t first, last;

	return spool_range(db->spool, &first, &last) < 0 || first != 0;
}

/* ------------------------------------------------------ 2: the new file */

/* Its directory, which has to be there. */
static int look_above(struct db *db, struct stat *ret)
{
	char above[PATH_SIZE];
	char *slash;

	(void)snprintf(above, sizeof(above), "./%s", db->path);
	slash = strrchr(above, '/');
	*slash = '\0';
	if (fstatat(db->config->dirfd, above, ret, 0) < 0)
		return error_errno("looking at the directory of '%s'",
				   db->path);
	return 0;
}

/* What is renamed to its place does not come there from another file system. */
static int check_place(int fd, const struct stat *above, const char *path)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return error_errno("looking at the new file of '%s'", path);
	if (st.st_dev == above->st_dev)
		return 0;
	return error_set(-EXDEV,
			 "'%s' lies on another file system than the mounted "
			 "directory, so its file cannot be replaced: mount that "
			 "directory by itself, or go on with the file as it is "
			 "(--adopt local)",
			 path);
}

/*
 * As the one that it replaces, so that who could use that can use this; or as the
 * directory, if there is none.
 */
static int take_owner(struct db *db, const struct stat *above, int fd)
{
	struct stat old;

	if (fstatat(db->config->dirfd, db->path, &old, AT_SYMLINK_NOFOLLOW) <
	    0) {
		if (errno != ENOENT)
			return error_errno("looking at '%s'", db->path);
		old = *above;
		old.st_mode &= 0666;
	}
	if (fchown(fd, old.st_uid, old.st_gid) < 0 && geteuid() == 0)
		return error_errno("giving '%s' to its owner", db->path);
	if (fchmod(fd, old.st_mode & 07777) < 0)
		return error_errno("setting the mode of '%s'", db->path);
	return 0;
}

static int prepare_file(struct db *db, int dirfd, const char *name)
{
	AUTO(fd) int fd = openat(dirfd, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	struct stat above;
	int rc = fd < 0 ? error_errno("opening '%s'", name) :
			  look_above(db, &above);

	if (rc == 0)
		rc = check_place(fd, &above, db->path);
	if (rc == 0)
		rc = take_owner(db, &above, fd);
	if (rc == 0 && fsync(fd) < 0)
		rc = error_errno("syncing '%s'", name);
	return rc;
}

static int bring_in(struct db *db, int dirfd, const char *name)
{
	int rc = 0;

	if (renameat(dirfd, name, db->state_fd, INCOMING) < 0)
		rc = error_errno("renaming '%s'", name);
	if (rc == 0)
		rc = io_sync_parent(db->state_fd, INCOMING);
	FAILPOINT("adopt-incoming");
	return rc;
}

/* Step 1. */
static int keep_aside(struct db *db, bool files, bool spool,
		      enum capture_keep keep, char ret_name[ASIDE_SIZE])
{
	AUTO(fd) int fd = make_aside(db, keep, ret_name);
	int rc = fd < 0 ? fd : fill_aside(db, files, spool, fd, ret_name);

	if (rc < 0 && fd >= 0)
		remove_aside(db, ret_name);
	return rc;
}

/* Steps 1 and 2.  name is NULL if the files stay. */
static int keep_and_bring_in(struct db *db, int dirfd, const char *name,
			     bool spool, enum capture_keep keep)
{
	bool files = name && keep != CAPTURE_KEEP_SPOOL;
	char aside[ASIDE_SIZE];
	int rc = 0;

	if (files || spool)
		rc = keep_aside(db, files, spool, keep, aside);
	if (rc == 0 && name)
		rc = bring_in(db, dirfd, name);
	return rc;
}

/* Is this directory of aside one of db's that is undecided? */
static bool is_undecided(struct db *db, int aside_fd, const char *name)
{
	AUTO(buf) struct buf path = BUF_INIT(PATH_SIZE);
	char file[300];

	(void)snprintf(file, sizeof(file), "%s/name", name);
	return strncmp(name, UNDECIDED, strlen(UNDECIDED)) == 0 &&
	       io_read_file(aside_fd, file, &path) == 0 &&
	       strcmp(path.data, db->path) == 0;
}

static void keep_for_good(struct db *db, int aside_fd, const char *name)
{
	const char *kept = name + strlen(UNDECIDED);

	if (renameat(aside_fd, name, aside_fd, kept) < 0 ||
	    fsync(aside_fd) < 0) {
		(void)error_errno("renaming 'aside/%s'", name);
		log_warn("what was kept has an odd name", "error=%s",
			 log_quote(error_message()));
		return;
	}
	log_warn("what was there is kept; remove it when nobody needs it",
		 "db=%s kept=.litebucket/aside/%s", log_quote(db->path), kept);
}

/* Behind step 3, whether it was done. */
static void end_aside(struct db *db, bool decided)
{
	int fd = openat(db->capture->state_fd, "aside",
			O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	char name[300];

	while (dir && (entry = readdir(dir))) {
		if (!is_undecided(db, fd, entry->d_name))
			continue;
		if (decided)
			keep_for_good(db, fd, entry->d_name);
		else if (snprintf(name, sizeof(name), "aside/%s",
				  entry->d_name) < (int)sizeof(name))
			remove_aside(db, name);
	}
	if (dir)
		(void)closedir(dir);
}

/* ------------------------------------------------------ 4: its place */

static int remove_sides(struct db *db)
{
	char name[PATH_SIZE];

	for (int i = 0; i < FORMAT_SIDES; i++) {
		(void)snprintf(name, sizeof(name), "%s%s", db->path,
			       format_sides[i]);
		if (unlinkat(db->config->dirfd, name, 0) < 0 && errno != ENOENT)
			return error_errno("removing '%s'", name);
	}
	return io_sync_parent(db->config->dirfd, db->path);
}

static int put_in_place(struct db *db)
{
	int rc;

	if (faccessat(db->state_fd, INCOMING, F_OK, 0) < 0)
		return errno == ENOENT ? 0
				       : error_errno("finding '%s'", INCOMING);
	rc = remove_sides(db);
	if (rc < 0)
		return rc;
	FAILPOINT("adopt-sides");
	if (renameat(db->state_fd, INCOMING, db->config->dirfd, db->path) < 0)
		return error_errno("renaming the new file to '%s'", db->path);
	rc = io_sync_parent(db->config->dirfd, db->path);
	FAILPOINT("adopt-renamed");
	return rc < 0 ? rc : io_sync_parent(db->state_fd, INCOMING);
}

/* ----------------------------------------------------- 5: what is known */

static int empty_spool(struct db *db)
{
	AUTO(spool) struct spool *spool = NULL;
	AUTO(mem) uint64_t *txids = NULL;
	size_t n = 0;
	int rc = spool_open(db->state_fd, "spool", &spool);

	if (rc == 0)
		rc = spool_list(spool, &txids, &n);
	for (size_t i = 0; rc == 0 && i < n; i++)
		rc = spool_remove(spool, txids[i]);
	return rc;
}

/* Hashes of all pages if the files hold this state, and none otherwise. */
static int know_pages(struct db *db, struct position *p)
{
	AUTO(content) struct content c = { .main_fd = -1, .wal_fd = -1 };
	AUTO(pages) struct pages *pages = NULL;
	int rc = pages_open(db->state_fd, "pages", &pages);

	if (rc == 0)
		rc = pages_truncate(pages, 0);
	if (rc < 0)
		return rc;
	if (p->page_size &&
	    content_open(db->config->dirfd, db->path, &c) == 0 &&
	    c.page_size == p->page_size && c.commit == p->commit &&
	    content_sum(&c, &db->capture->hurried) == 0 &&
	    c.dbsum == p->dbsum)
		rc = pages_write(pages, 1, c.hashes, c.commit);
	p->change_counter = c.change_counter;
	return rc < 0 ? rc : pages_sync(pages);
}

static int remove_marker(struct db *db, const char *marker)
{
	if (unlinkat(db->state_fd, marker, 0) < 0 && errno != ENOENT)
		return error_errno("removing '%s'", marker);
	return io_sync_parent(db->state_fd, marker);
}

/* Is it the position that was, for which the spool holds what is not sent yet? */
static bool is_own(const struct position *was, const struct position *p)
{
	return was->txid == p->txid && was->dbsum == p->dbsum &&
	       was->timestamp_ms == p->timestamp_ms;
}

/* Steps 4 and 5, from what is on the disk; again after a crash. */
static int carry_out(struct db *db, const char *marker)
{
	struct position p, was = { 0 };
	int rc = position_load(db->state_fd, marker, &p);

	if (rc == 0 && marker == REPLACING)
		rc = put_in_place(db);
	if (rc == 0)
		(void)position_load(db->state_fd, "position", &was);
	if (rc == 0 && !is_own(&was, &p))
		rc = empty_spool(db);
	if (rc == 0)
		rc = know_pages(db, &p);
	FAILPOINT("adopt-pages");
	if (rc == 0 && unlinkat(db->state_fd, "sealing.ltx", 0) < 0 &&
	    errno != ENOENT)
		rc = error_errno("removing 'sealing.ltx'");
	if (rc == 0)
		rc = position_store(db->state_fd, "position", &p);
	FAILPOINT("adopt-position");
	return rc < 0 ? rc : remove_marker(db, marker);
}

int db_recover_adopting(struct db *db)
{
	static const char *const markers[] = { REPLACING, ADOPTING };

	for (int i = 0; i < 2; i++) {
		int rc;

		if (faccessat(db->state_fd, markers[i], F_OK, 0) < 0)
			continue;
		log_info("finishing what a crash interrupted: the state of the "
			 "log is adopted",
			 "db=%s", log_quote(db->path));
		end_aside(db, true);
		rc = carry_out(db, markers[i]);
		if (rc < 0)
			return rc;
	}
	/* Without the decision they are only files. */
	end_aside(db, false);
	(void)unlinkat(db->state_fd, INCOMING, 0);
	return 0;
}

/* ------------------------------------------------------------ all of it */

static struct position position_of(const struct db *db,
				   const struct capture_state *state)
{
	struct position p = {
		.txid = state->txid,
		.dbsum = state->dbsum,
		.known = state->dbsum,
		.page_size = state->dropped ? 0 : state->page_size,
		.commit = state->dropped ? 0 : state->commit,
		.timestamp_ms = state->timestamp_ms,
		.dropped = state->dropped,
	};

	(void)snprintf(p.boot, sizeof(p.boot), "%s", capture_boot(db->capture));
	return p;
}

/*
 * What is known of the database is on the disk alone, until it is attached
 * again: that carries out what was decided and could not be done.  Lock held.
 */
static void forget(struct db *db)
{
	db_detach(db);
	db->position = (struct position){ 0 };
	db->last_epoch = 0;
	db->page_size = db->commit = 0;
	db->dbsum = 0;
	db->compare = db->in_doubt = false;
	db_close_files(db);
	db_forget_wal(db);
	atomic_store(&db->wal_in_use, false);
	atomic_store(&db->wal_touched, false);
}

static int adopt_locked(struct db *db, int dirfd, const char *name,
			const struct capture_state *state,
			enum capture_keep keep)
{
	const char *marker = name ? REPLACING : ADOPTING;
	struct position p = position_of(db, state);
	bool spool = has_spooled(db) && !is_own(&db->position, &p);
	int rc = name ? prepare_file(db, dirfd, name) : 0;

	if (rc == 0 && (name || spool))
		rc = keep_and_bring_in(db, dirfd, name, spool, keep);
	if (rc == 0)
		rc = position_store(db->state_fd, marker, &p);
	if (rc < 0) {
		/* The disk may have it all the same, and then it counts. */
		if (faccessat(db->state_fd, marker, F_OK, 0) < 0)
			end_aside(db, false);
		return rc;
	}
	FAILPOINT("adopt-decided");
	end_aside(db, true);
	rc = carry_out(db, marker);
	forget(db);
	return rc < 0 ? rc : capture_attach(db);
}

static int adopt(struct capture *c, const char *path, int dirfd,
		 const char *name, const struct capture_state *state,
		 enum capture_keep keep)
{
	struct db *db = NULL;
	int rc = find_held(c, path, &db);

	if (rc < 0)
		return rc;
	(void)pthread_mutex_lock(&db->seal_lock);
	(void)pthread_mutex_lock(&db->lock);
	rc = adopt_locked(db, dirfd, name, state, keep);
	(void)pthread_mutex_unlock(&db->lock);
	(void)pthread_mutex_unlock(&db->seal_lock);
	if (rc == 0)
		db_probe(db);
	capture_release(c, db);
	return rc < 0 ? error_wrap(rc, "adopting a state for '%s'", path) : 0;
}

int capture_adopt(struct capture *c, const char *path,
		  const struct capture_state *state)
{
	return adopt(c, path, -1, NULL, state, CAPTURE_KEEP);
}

int capture_replace(struct capture *c, const char *path, int dirfd,
		    const char *name, const struct capture_state *state,
		    enum capture_keep keep)
{
	return adopt(c, path, dirfd, name, state, keep);
}

int capture_each_aside(struct capture *c,
		       int (*fn)(const char *name, const char *path, void *arg),
		       void *arg)
{
	int fd = openat(c->state_fd, "aside",
			O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	int rc = 0;

	while (dir && rc == 0 && (entry = readdir(dir))) {
		AUTO(buf) struct buf path = BUF_INIT(4096);
		char name[300];

		(void)snprintf(name, sizeof(name), "%s/name", entry->d_name);
		if (entry->d_name[0] != '.' &&
		    strncmp(entry->d_name, UNDECIDED, strlen(UNDECIDED)) != 0 &&
		    io_read_file(fd, name, &path) == 0 && path.size)
			rc = fn(entry->d_name, path.data, arg);
	}
	if (dir)
		(void)closedir(dir);
	return rc;
}
