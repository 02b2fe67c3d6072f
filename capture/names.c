#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"

#include "capture/table.h"

/*
 * Names that go and come
 * ======================
 *
 * What ends when a name goes depends on what it is: a live journal ends a
 * transaction, a WAL ends its hiding of pages, a database is dropped (D11).
 * All three look at the files once more, so a name goes in two halves, with
 * the system call between them.
 */
struct going {
	struct capture *capture;
	const char *path;
	enum format_role role;
	struct db *db; /* whose; NULL: nothing of ours */
	bool live;     /* the journal was live */
};

static bool is_captured(struct db *db)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->lock);

	return db->spool && db->page_size;
}

/* Open what the last look needs, while it has a name. */
static void prepare_drop(struct db *db)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->lock);

	(void)db_open_main(db);
	(void)db_open_wal(db);
	(void)db_pull(db);
}

static void going_begin(struct capture *c, const char *path, struct going *g)
{
	char base[4096];

	*g = (struct going){ .capture = c, .path = path };
	g->role = table_role(c, path, base);
	if (g->role != FORMAT_SUPER)
		g->db = capture_find(c, base);
	if (g->db && atomic_load(&g->db->held))
		capture_release(c, TAKE(g->db));
	if (!g->db)
		return;
	g->live = atomic_load(&g->db->journal_live);
	if (g->role == FORMAT_JOURNAL && g->live)
		file_finalise_begin(g->db);
	else if (g->role == FORMAT_WAL)
		file_wal_end_begin(g->db);
	else if (g->role == FORMAT_MAIN && is_captured(g->db))
		prepare_drop(g->db);
}

static void drop(struct going *g)
{
	table_detach_files(g->capture, g->path);
	if (is_captured(g->db)) {
		if (db_drop(g->db) < 0)
			log_error("drop could not be noted", "db=%s error=%s",
				  log_quote(g->path),
				  log_quote(error_message()));
		return;
	}
	AUTO(unlock) pthread_mutex_t *held = lock(&g->db->lock);
	db_close_files(g->db);
	(void)db_settled(g->db, db_writes_begun(g->db));
}

static void going_end(struct going *g, bool done)
{
	if (!g->db)
		return;
	if (g->role == FORMAT_JOURNAL && g->live)
		file_finalise_end(g->db, done);
	else if (g->role == FORMAT_WAL)
		file_wal_end_end(g->db, done);
	else if (g->role == FORMAT_MAIN && done)
		drop(g);
	capture_release(g->capture, g->db);
}

int capture_unlink(struct capture *c, int parent_fd, const char *name,
		   const char *path)
{
	struct going going;
	int rc = 0;

	going_begin(c, path, &going);
	if (unlinkat(parent_fd, name, 0) < 0)
		rc = -errno;
	going_end(&going, rc == 0);
	/* Who has it open goes on in a file that nobody else will find. */
	if (rc == 0)
		table_detach_files(c, path);
	return rc;
}

enum capture_wait capture_path_may_wait(struct capture *c, const char *path,
					enum capture_op op,
					struct db **ret_db)
{
	char base[4096];
	enum format_role role = table_role(c, path, base);
	struct db *db = role != FORMAT_SUPER ? capture_find(c, base) : NULL;
	enum capture_wait wait = CAPTURE_AT_ONCE;

	if (db && op == CAPTURE_UNLINK && !atomic_load(&db->held))
		wait = file_end_may_wait(db, role);
	if (wait == CAPTURE_CONFIRMS)
		*ret_db = db;
	else
		capture_release(c, db);
	return wait;
}

bool capture_is_magic(const void *data, size_t size)
{
	return size >= FORMAT_MAGIC_SIZE &&
	       memcmp(data, format_magic, FORMAT_MAGIC_SIZE) == 0;
}

bool capture_is_magic_in(int fd)
{
	char start[FORMAT_MAGIC_SIZE];
	ssize_t n = io_pread(fd, start, sizeof(start), 0);

	return n > 0 && capture_is_magic(start, (size_t)n);
}

bool capture_is_side(struct capture *c, const char *path)
{
	char base[4096];

	switch (table_role(c, path, base)) {
	case FORMAT_JOURNAL:
	case FORMAT_WAL:
	case FORMAT_SHM:
		return true;
	default:
		return false;
	}
}

/* ---------------------------------------------------------------- rename */

/* A database now stands under this name: every page of it is news. */
static int name_appeared(struct capture *c, const char *path, void *arg)
{
	struct db *db;
	int rc = capture_find_or_add(c, path, &db);

	if (rc < 0)
		return rc;
	db_probe(db);
	db_mark_all(db);
	db_write_bare(db);
	/* It may have been resting already, and nobody told. */
	capture_wake(c);
	capture_release(c, db);
	return 0;
}

void table_take_up(struct capture *c, const char *path)
{
	(void)table_walk(c, path, name_appeared, NULL);
}

/* A whole directory went: the databases below it went with it. */
static void drop_below(struct capture *c, const char *directory)
{
	size_t length = strlen(directory), n = 0;
	struct db **all;

	if (table_all(c, &all, &n) < 0)
		return;
	for (size_t i = 0; i < n; i++) {
		struct going g = { .capture = c,
				   .path = all[i]->path,
				   .role = FORMAT_MAIN,
				   .db = all[i] };

		if (strncmp(all[i]->path, directory, length) == 0 &&
		    all[i]->path[length] == '/')
			drop(&g);
	}
	table_release_all(c, all, n);
}

static bool is_directory(struct capture *c, const char *path)
{
	struct stat st;

	return fstatat(c->config.dirfd, path, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	       S_ISDIR(st.st_mode);
}

/* The open handles of from go with the file; what was at to is replaced. */
static void follow_file(struct capture *c, const char *from, const char *to)
{
	char sibling[4096];

	table_detach_files(c, to);
	table_move_files(c, from, to);
	/* Those that are named like to's own are that from now on. */
	for (int i = 0; i < FORMAT_SIDES; i++)
		if (snprintf(sibling, sizeof(sibling), "%s%s", to,
			     format_sides[i]) < (int)sizeof(sibling))
			table_move_files(c, sibling, sibling);
}

static bool is_known(struct capture *c, const char *path)
{
	struct db *db = capture_find(c, path);
	bool known = db && is_captured(db);

	capture_release(c, db);
	return known;
}

/*
 * A journal or WAL that is renamed to belong to another database is looked
 * for there; one that is renamed away ended where it was.  What replaced a
 * database need not be one: then settling drops it (D11).
 */
static void arrived(struct capture *c, const char *to)
{
	char base[4096];
	enum format_role role = table_role(c, to, base);

	if (role == FORMAT_MAIN && is_known(c, to))
		(void)name_appeared(c, to, NULL);
	else if (role == FORMAT_MAIN)
		table_take_up(c, to);
	else if (role == FORMAT_JOURNAL || role == FORMAT_WAL)
		(void)name_appeared(c, base, NULL);
}

int capture_rename(struct capture *c, int from_fd, const char *from_name,
		   const char *from_path, int to_fd, const char *to_name,
		   const char *to_path, unsigned flags)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&c->rename_lock);
	bool directory = is_directory(c, from_path);
	struct going from;
	int rc = 0;

	if (flags & RENAME_EXCHANGE)
		return -EINVAL; /* programs fall back to two renames */
	going_begin(c, from_path, &from);
	if (renameat2(from_fd, from_name, to_fd, to_name, flags) < 0)
		rc = -errno;
	if (rc == 0 && !directory)
		follow_file(c, from_path, to_path);
	going_end(&from, rc == 0);
	if (rc < 0)
		return rc;
	if (directory) {
		table_move_below(c, from_path, to_path);
		drop_below(c, from_path);
	}
	arrived(c, to_path);
	return 0;
}
