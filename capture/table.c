#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <xxhash.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/io.h"

#include "capture/table.h"

static struct db **bucket_of(struct capture *c, const char *path)
{
	return &c->buckets[XXH3_64bits(path, strlen(path)) % TABLE_BUCKETS];
}

static struct db *find_locked(struct capture *c, const char *path)
{
	struct db *db = *bucket_of(c, path);

	while (db && strcmp(db->path, path) != 0)
		db = db->next;
	if (db)
		db->refs++;
	return db;
}

struct db *capture_find(struct capture *c, const char *path)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&c->table_lock);

	return find_locked(c, path);
}

static int add(struct capture *c, const char *path, struct db **ret)
{
	struct db *db, *other;
	int rc = db_new(c, &c->config, path, &db);

	if (rc < 0)
		return rc;
	db_probe(db);
	db->refs = 1;
	(void)pthread_mutex_lock(&c->table_lock);
	atomic_store(&db->held, atomic_load(&c->standby));
	other = find_locked(c, path);
	if (!other) {
		db->next = *bucket_of(c, path);
		*bucket_of(c, path) = db;
	}
	(void)pthread_mutex_unlock(&c->table_lock);
	if (other)
		db_free(db); /* another thread was faster */
	*ret = other ? other : db;
	return 0;
}

int capture_find_or_add(struct capture *c, const char *path, struct db **ret)
{
	*ret = capture_find(c, path);
	return *ret ? 0 : add(c, path, ret);
}

void table_keep(struct db *db)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&db->capture->table_lock);

	db->refs++;
}

void capture_forget_db(struct db *db)
{
	if (db)
		capture_release(db->capture, db);
}

const char *capture_db_path(const struct db *db)
{
	return db->path;
}

/* A file that rests is kept until it is known whether it is a database. */
void capture_release(struct capture *c, struct db *db)
{
	struct db **link;

	if (!db)
		return;
	(void)pthread_mutex_lock(&c->table_lock);
	if (--db->refs > 0 || atomic_load(&db->resting)) {
		(void)pthread_mutex_unlock(&c->table_lock);
		return;
	}
	for (link = bucket_of(c, db->path); *link != db; link = &(*link)->next)
		;
	*link = db->next;
	(void)pthread_mutex_unlock(&c->table_lock);
	db_free(db);
}

int capture_attach(struct db *db)
{
	struct capture *c = db->capture;
	int rc;

	if (db->spool)
		return 0;
	rc = db_attach(db, c->state_root_fd);
	if (rc < 0)
		return rc;
	AUTO(unlock) pthread_mutex_t *held = lock(&c->table_lock);
	db->refs++;
	return 0;
}

int table_all(struct capture *c, struct db ***ret, size_t *ret_n)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&c->table_lock);
	struct db **all;
	size_t n = 0;

	for (int i = 0; i < TABLE_BUCKETS; i++)
		for (struct db *db = c->buckets[i]; db; db = db->next)
			n++;
	all = malloc((n + 1) * sizeof(struct db *));
	if (!all)
		return error_set(-ENOMEM, "out of memory for %zu databases", n);
	n = 0;
	for (int i = 0; i < TABLE_BUCKETS; i++)
		for (struct db *db = c->buckets[i]; db; db = db->next) {
			db->refs++;
			all[n++] = db;
		}
	*ret = all;
	*ret_n = n;
	return 0;
}

void table_release_all(struct capture *c, struct db **all, size_t n)
{
	for (size_t i = 0; i < n; i++)
		capture_release(c, all[i]);
	free(all);
}

/* ---------------------------------------------------------------- files */

static bool is_regular(struct capture *c, const char *path)
{
	struct stat st;

	return fstatat(c->config.dirfd, path, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	       S_ISREG(st.st_mode);
}

/* In .litebucket; a standby's follower works there through the mount. */
static bool is_state(const char *path)
{
	static const char state[] = ".litebucket/";

	return strncmp(path, state, sizeof(state) - 1) == 0;
}

enum format_role table_role(struct capture *c, const char *path,
			    char ret_base[4096])
{
	unsigned length;
	enum format_role role = format_role(path, &length);

	if (length >= 4096 || is_state(path))
		return FORMAT_SUPER; /* too long to be replicated, or ours */
	memcpy(ret_base, path, length);
	ret_base[length] = '\0';
	if (role == FORMAT_MAIN || role == FORMAT_SUPER)
		return role;
	if (is_regular(c, ret_base))
		return role;
	/* Only named like one (D9). */
	if (strlen(path) >= 4096)
		return FORMAT_SUPER;
	strcpy(ret_base, path);
	return FORMAT_MAIN;
}

static bool has_database(enum format_role role)
{
	return role != FORMAT_SHM && role != FORMAT_SUPER;
}

int capture_file_get(struct capture *c, const char *path,
		     struct capture_file **ret)
{
	struct capture_file *f = calloc(1, sizeof(*f));
	enum format_role role;
	struct db *db = NULL;
	char base[4096];
	int rc = 0;

	if (f)
		f->path = strdup(path);
	if (!f || !f->path) {
		free(f);
		return error_set(-ENOMEM, "out of memory");
	}
	f->capture = c;
	role = table_role(c, path, base);
	atomic_store(&f->role, role);
	if (has_database(role))
		rc = capture_find_or_add(c, base, &db);
	if (rc < 0) {
		free(f->path);
		free(f);
		return rc;
	}
	atomic_store(&f->db, db);
	AUTO(unlock) pthread_mutex_t *held = lock(&c->table_lock);
	f->next = c->files;
	c->files = f;
	*ret = f;
	return 0;
}

void capture_file_put(struct capture_file *f)
{
	struct capture *c = f->capture;
	struct capture_file **link;
	struct db *db;

	/* Taken out first: from here on nobody else changes it. */
	(void)pthread_mutex_lock(&c->table_lock);
	for (link = &c->files; *link != f; link = &(*link)->next)
		;
	*link = f->next;
	(void)pthread_mutex_unlock(&c->table_lock);
	db = atomic_load(&f->db);
	if (db && atomic_load(&db->resting))
		capture_wake(c);
	capture_release(c, db);
	for (size_t i = 0; i < f->n_former; i++)
		capture_release(c, f->former[i]);
	free(f->former);
	free(f->path);
	free(f);
}

/*
 * A write that is under way keeps using the old database, so its reference
 * is kept until the end; only the bookkeeping moves.  to may be NULL.
 */
static void move_writers(struct capture_file *f, struct db *from, struct db *to)
{
	unsigned writers;

	if (!from)
		return; /* there they were not counted */
	(void)pthread_mutex_lock(&from->mark);
	writers = f->writers;
	from->writers -= writers;
	if (!to)
		f->writers = 0;
	(void)pthread_mutex_unlock(&from->mark);
	if (!to)
		return;
	(void)pthread_mutex_lock(&to->mark);
	to->writers += writers;
	(void)pthread_mutex_unlock(&to->mark);
}

/*
 * Its reference of the old database goes with the file.  Without memory to
 * note it, that database stays to the end.
 */
static void keep_former(struct capture_file *f, struct db *db)
{
	struct db **former =
		reallocarray(f->former, f->n_former + 1, sizeof(*former));

	if (!former)
		return;
	f->former = former;
	f->former[f->n_former++] = db;
}

/*
 * The file is now known as to, with this role in to_db (NULL: none of ours);
 * to is NULL when its name is gone.  A write that sees a part of this is of the
 * time of the rename, after which what arrived is compared.
 */
static void move_file(struct capture_file *f, const char *to,
		      enum format_role role, struct db *to_db)
{
	struct db *old = atomic_load(&f->db);
	char *path = to ? strdup(to) : NULL;

	if (!path)
		to_db = NULL;
	move_writers(f, old, role == FORMAT_MAIN ? to_db : NULL);
	if (old)
		keep_former(f, old);
	if (to_db)
		to_db->refs++;
	atomic_store(&f->role, role);
	atomic_store(&f->db, to_db);
	if (path) {
		free(f->path);
		f->path = path;
	} else {
		f->path[0] = '\0';
	}
}

static bool is_open(struct capture *c, const char *path)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&c->table_lock);

	for (struct capture_file *f = c->files; f; f = f->next)
		if (strcmp(f->path, path) == 0)
			return true;
	return false;
}

void table_detach_files(struct capture *c, const char *path)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&c->table_lock);

	for (struct capture_file *f = c->files; f; f = f->next)
		if (strcmp(f->path, path) == 0)
			move_file(f, NULL, FORMAT_SUPER, NULL);
}

void table_move_files(struct capture *c, const char *from, const char *to)
{
	struct db *db = NULL;
	enum format_role role;
	char base[4096];

	if (!is_open(c, from))
		return;
	role = table_role(c, to, base);
	if (has_database(role) && capture_find_or_add(c, base, &db) < 0)
		db = NULL;
	(void)pthread_mutex_lock(&c->table_lock);
	for (struct capture_file *f = c->files; f; f = f->next)
		if (strcmp(f->path, from) == 0)
			move_file(f, to, role, db);
	(void)pthread_mutex_unlock(&c->table_lock);
	capture_release(c, db);
}

/* The path below directory from of a file of ours, as it is below to. */
static struct capture_file *find_below(struct capture *c, const char *from,
				       const char *to, char ret_path[4096])
{
	size_t length = strlen(from);

	for (struct capture_file *f = c->files; f; f = f->next) {
		if (strncmp(f->path, from, length) != 0 ||
		    f->path[length] != '/')
			continue;
		if (snprintf(ret_path, 4096, "%s%s", to, f->path + length) >=
		    4096)
			ret_path[0] = '\0'; /* too long to be replicated */
		return f;
	}
	return NULL;
}

/* One of them; false when there is none left.  Renames come one at a time. */
static bool move_one_below(struct capture *c, const char *from, const char *to)
{
	char path[4096], base[4096], now[4096];
	struct capture_file *f;
	struct db *db = NULL;
	enum format_role role;

	(void)pthread_mutex_lock(&c->table_lock);
	f = find_below(c, from, to, path);
	(void)pthread_mutex_unlock(&c->table_lock);
	if (!f)
		return false;
	role = table_role(c, path, base);
	if (path[0] && has_database(role) &&
	    capture_find_or_add(c, base, &db) < 0)
		db = NULL;
	(void)pthread_mutex_lock(&c->table_lock);
	/* Another is the first if this one was closed meanwhile. */
	if (find_below(c, from, to, now) == f && strcmp(now, path) == 0)
		move_file(f, path[0] ? path : NULL, role, db);
	(void)pthread_mutex_unlock(&c->table_lock);
	capture_release(c, db);
	return true;
}

void table_move_below(struct capture *c, const char *from, const char *to)
{
	while (move_one_below(c, from, to))
		;
}
