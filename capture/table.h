#ifndef LITEBUCKET_CAPTURE_TABLE_H
#define LITEBUCKET_CAPTURE_TABLE_H

/*
 * What an open directory holds: its databases by path, and its files in use.
 *
 * A database stays in the table while somebody has a reference; the table
 * keeps one of its own for those that have state, so that they stay to the end.
 * Other files that could become one are forgotten with their last reference,
 * once they have rested and turned out to be none.
 */
#include <pthread.h>
#include <stdbool.h>

#include "capture/file.h"
#include "ltx/spool.h"

enum { TABLE_BUCKETS = 1024 };

struct capture {
	struct capture_config config;
	int state_fd;	   /* .litebucket */
	int state_root_fd; /* .litebucket/db */
	int lock_fd;	   /* held: no other process works here */
	uint64_t run;	   /* names the last stop in order; 0: there was none */
	char boot[BOOT_ID_SIZE]; /* of the machine; constant */
	atomic_uint epoch;	 /* of what is sealed from now on */
	atomic_bool standby;	 /* new ones are held, too */
	atomic_bool hurried;	 /* who holds a database is to let it be */

	struct spool_budget budget; /* of all databases' spools */
	atomic_bool full;	    /* it was too small, and that was told */
	atomic_bool room_due;	    /* there is more that room can be made of */
	pthread_mutex_t room_lock;  /* outermost: who makes room in it */

	pthread_mutex_t rename_lock; /* outermost: one rename at a time */

	pthread_mutex_t table_lock; /* only a database's mark is taken under it */
	struct db *buckets[TABLE_BUCKETS];
	struct capture_file *files;
	struct unread *unread; /* capture/unread.h; with their number */
	size_t n_unread;

	pthread_mutex_t rest_lock; /* of what the settling thread sleeps on */
	pthread_cond_t rest_changed;
	bool rest_woken, stopping;
	pthread_t rest_thread;
	bool rest_running;
};

/*
 * Every database, each with a reference of the caller's; array and references
 * go back with table_release_all().
 */
int table_all(struct capture *c, struct db ***ret, size_t *ret_n);
void table_release_all(struct capture *c, struct db **all, size_t n);

/* One more reference, for who has one. */
void table_keep(struct db *db);

/* The file that was open under this name has it no more. */
void table_detach_files(struct capture *c, const char *path);

/*
 * The file open under from is known as to from now on, and is what that name
 * makes of it: a database, another one's journal, or nothing of ours.  from and
 * to may be the same, when what the name says has changed.
 */
void table_move_files(struct capture *c, const char *from, const char *to);

/* All open files below directory from, whatever they are, are now below to. */
void table_move_below(struct capture *c, const char *from, const char *to);

/*
 * Call fn for each file below path ("" for all) that begins as a database
 * does, with its path below the directory.
 */
typedef int (*table_walk_fn)(struct capture *c, const char *path, void *arg);
int table_walk(struct capture *c, const char *path, table_walk_fn fn,
	       void *arg);

/* What stands under path was not seen so far: every page of it is news. */
void table_take_up(struct capture *c, const char *path);

/*
 * The role of a path: by its name, and by whether the database it needs is there.
 * ret_base gets that database's path, and nothing for FORMAT_SUPER.
 */
enum format_role table_role(struct capture *c, const char *path,
			    char ret_base[4096]);

/*
 * Let SQLite play a hot journal of this database, in a child process, as the
 * file's owner.  0: there is none (any more), or it is for who opens the
 * database first.
 */
int recover_journal(struct capture *c, const char *path);

#endif
