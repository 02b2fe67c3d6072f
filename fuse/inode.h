#ifndef LITEBUCKET_FUSE_INODE_H
#define LITEBUCKET_FUSE_INODE_H

/*
 * The files that the kernel knows
 * ===============================
 *
 * An inode stands for a file of the backing directory that the kernel has
 * looked up and not yet forgotten.  It holds an O_PATH descriptor, so its file
 * cannot be mistaken for another whatever happens to its name.  A name is an
 * entry of a directory that leads to an inode; a file with hard links has
 * several.
 *
 *	names	(parent, name) -> inode		found by a hash of both
 *	inodes	(device, number) -> inode	found by a hash of both
 *
 * An inode lives while the kernel counts lookups of it, or while a name below
 * it leads to an inode that lives.  So the path of a living inode is its name
 * and those of the directories above, up to the root; it has none once its
 * last name was unlinked.
 *
 * The kernel's number of an inode is its address, and that of the root is 1.
 *
 * Threads: any; lock guards the two tables, and what struct inode says.  No
 * call holds it over a system call that may wait.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "fuse/hash.h"

struct capture_file;
struct inode_name;

struct inode {
	struct hash_node node;
	int fd;	     /* O_PATH */
	mode_t type; /* the S_IFMT bits */
	dev_t dev;
	ino_t ino;
	uint64_t generation; /* tells apart inodes at the same address */

	/* Has set-user-id or set-group-id bits, which a write must clear. */
	atomic_bool setid;

	/* Its name may lead to another file: who opens it has to look. */
	atomic_bool replaced;

	/* Guarded by the table's lock. */
	uint64_t lookups;	       /* the kernel's references */
	uint64_t children;	       /* the names below this directory */
	struct inode_name *names;      /* how one gets here; NULL if no more */
	struct capture_file *captured; /* while opens > 0; may be NULL */
	unsigned opens;
	struct inode *next_dead; /* of what inode_forget() returned */
};

struct inode_table {
	pthread_mutex_t lock;
	struct hash inodes;
	struct hash names;
	uint64_t generation;
	struct inode root; /* its names stay NULL */
};

/* The root is dirfd, which stays the caller's. */
int inode_table_init(struct inode_table *t, int dirfd);

/* Nobody uses an inode any more. */
void inode_table_cleanup(struct inode_table *t);

struct inode *inode_of(struct inode_table *t, uint64_t number);
uint64_t inode_number(const struct inode_table *t, const struct inode *inode);

/*
 * The file that fd (O_PATH, taken over) has open is the one at name in parent,
 * and the kernel will be told so: one lookup is counted.
 */
int inode_add(struct inode_table *t, struct inode *parent, const char *name,
	      int fd, struct inode **ret, struct stat *ret_stat);

/* Does anybody have this file open through the mount? */
bool inode_is_open(struct inode_table *t, dev_t dev, ino_t ino);

/* The file's mode was seen or changed: is there something in setid? */
void inode_note_mode(struct inode *inode, mode_t mode);

/*
 * The kernel drops lookups of an inode.  Returns the inodes that went with it
 * (linked by next_dead, often none): out of the tables, and the caller's to
 * give to inode_free(), which closes the file and may take long for a large
 * one that has been deleted.
 */
struct inode *inode_forget(struct inode_table *t, struct inode *inode,
			   uint64_t lookups);
void inode_free(struct inode *inode);

/*
 * After the system call: a name went or moved.  A move takes the place
 * of what had the new name.  Names that the kernel has not looked up are not
 * known here, and that is fine.
 */
void inode_unlinked(struct inode_table *t, struct inode *parent,
		    const char *name);

/* spare: from inode_name_new(new_name), before the system call; taken over. */
void inode_renamed(struct inode_table *t, struct inode *old_parent,
		   const char *old_name, struct inode *new_parent,
		   struct inode_name *spare);
struct inode_name *inode_name_new(const char *name);
void inode_name_free(struct inode_name *n);

/*
 * The kernel's numbers for the file at path and for the directory it lies in,
 * each 0 if the kernel has not looked it up.  ret_name is within path.
 */
void inode_known(struct inode_table *t, const char *path, uint64_t *ret_parent,
		 const char **ret_name, uint64_t *ret_number);

/*
 * Somebody may have put another file in the place of the one at path, beneath
 * the mount.
 */
void inode_replaced(struct inode_table *t, const char *path);

/*
 * The path below the root, without a leading slash; "" is the root.  -ENOENT:
 * it has no name any more.  -ENAMETOOLONG.
 */
enum {
	INODE_PATH_SIZE = 4096
};
int inode_path(struct inode_table *t, struct inode *inode,
	       char ret[INODE_PATH_SIZE]);
int inode_child_path(struct inode_table *t, struct inode *parent,
		     const char *name, char ret[INODE_PATH_SIZE]);

#endif
