#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"

#include "fuse/inode.h"

/* A name keeps its parent alive (children); its inode keeps the name. */
struct inode_name {
	struct hash_node node;
	struct inode *parent;
	struct inode *inode;
	struct inode_name *next; /* of the same inode */
	char text[];
};

#define CONTAINER(pointer, type, member) \
	((type *)(void *)((char *)(pointer)-offsetof(type, member)))

int inode_table_init(struct inode_table *t, int dirfd)
{
	int rc;

	memset(t, 0, sizeof(*t));
	t->root.type = S_IFDIR;
	t->root.lookups = 1; /* the mount's own: the root never goes */
	t->root.fd = openat(dirfd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (t->root.fd < 0)
		return error_errno("opening the backing directory");
	rc = hash_init(&t->inodes);
	if (rc == 0)
		rc = hash_init(&t->names);
	if (rc < 0) {
		hash_cleanup(&t->inodes);
		(void)close(t->root.fd);
		return rc;
	}
	(void)pthread_mutex_init(&t->lock, NULL);
	return 0;
}

static void free_all_names(struct hash *names)
{
	for (size_t i = 0; i <= names->mask; i++) {
		struct hash_node *node;

		while ((node = names->buckets[i])) {
			hash_remove(names, node);
			free(CONTAINER(node, struct inode_name, node));
		}
	}
}

void inode_table_cleanup(struct inode_table *t)
{
	if (!t->inodes.buckets)
		return;
	free_all_names(&t->names);
	for (size_t i = 0; i <= t->inodes.mask; i++) {
		struct hash_node *node;

		while ((node = t->inodes.buckets[i])) {
			hash_remove(&t->inodes, node);
			inode_free(CONTAINER(node, struct inode, node));
		}
	}
	hash_cleanup(&t->names);
	hash_cleanup(&t->inodes);
	(void)close(t->root.fd);
	(void)pthread_mutex_destroy(&t->lock);
}

struct inode *inode_of(struct inode_table *t, uint64_t number)
{
	return number == 1 ? &t->root : (struct inode *)(uintptr_t)number;
}

uint64_t inode_number(const struct inode_table *t, const struct inode *inode)
{
	return inode == &t->root ? 1 : (uint64_t)(uintptr_t)inode;
}

static uint64_t file_hash(dev_t dev, ino_t ino)
{
	return hash_bytes(&ino, sizeof(ino), (uint64_t)dev);
}

static struct inode *find_inode(struct inode_table *t, dev_t dev, ino_t ino)
{
	struct hash_node *node = hash_first(&t->inodes, file_hash(dev, ino));

	for (; node; node = hash_next(node)) {
		struct inode *inode = CONTAINER(node, struct inode, node);

		if (inode->dev == dev && inode->ino == ino)
			return inode;
	}
	return NULL;
}

bool inode_is_open(struct inode_table *t, dev_t dev, ino_t ino)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&t->lock);
	const struct inode *inode = find_inode(t, dev, ino);

	return inode && inode->opens > 0;
}

static uint64_t name_hash(const struct inode *parent, const char *name)
{
	return hash_bytes(name, strlen(name), (uint64_t)(uintptr_t)parent);
}

static struct inode_name *find_name(struct inode_table *t,
				    const struct inode *parent,
				    const char *name)
{
	struct hash_node *node = hash_first(&t->names, name_hash(parent, name));

	for (; node; node = hash_next(node)) {
		struct inode_name *n = CONTAINER(node, struct inode_name, node);

		if (n->parent == parent && strcmp(n->text, name) == 0)
			return n;
	}
	return NULL;
}

struct inode_name *inode_name_new(const char *name)
{
	size_t size = strlen(name) + 1;
	struct inode_name *n = calloc(1, sizeof(*n) + size);

	if (!n) {
		(void)error_set(-ENOMEM, "no memory for a file name");
		return NULL;
	}
	memcpy(n->text, name, size);
	return n;
}

void inode_name_free(struct inode_name *n)
{
	free(n);
}

static void put_on_inode(struct inode_name *n, struct inode *inode)
{
	n->inode = inode;
	n->next = inode->names;
	inode->names = n;
}

static void take_off_inode(struct inode_name *n)
{
	struct inode_name **link = &n->inode->names;

	while (*link != n)
		link = &(*link)->next;
	*link = n->next;
	n->inode = NULL;
}

/* Make a name that is in no table lead from parent to inode. */
static void attach_name(struct inode_table *t, struct inode_name *n,
			struct inode *parent, struct inode *inode)
{
	n->parent = parent;
	parent->children++;
	hash_insert(&t->names, &n->node, name_hash(parent, n->text));
	put_on_inode(n, inode);
}

static struct inode *drop_if_unused(struct inode_table *t, struct inode *inode,
				    struct inode *dead);

/* The name goes, and perhaps its parent with it: returns the longer list. */
static struct inode *detach_name(struct inode_table *t, struct inode_name *n,
				 struct inode *dead)
{
	struct inode *parent = n->parent;

	take_off_inode(n);
	hash_remove(&t->names, &n->node);
	free(n);
	parent->children--;
	return drop_if_unused(t, parent, dead);
}

/* Recursion is as deep as directories that live by one name only. */
static struct inode *drop_if_unused(struct inode_table *t, struct inode *inode,
				    struct inode *dead)
{
	if (inode->lookups || inode->children || inode == &t->root)
		return dead;
	hash_remove(&t->inodes, &inode->node);
	inode->next_dead = dead;
	dead = inode;
	while (inode->names)
		dead = detach_name(t, inode->names, dead);
	return dead;
}

/* The kernel holds a reference to the parent: it cannot go with its name. */
static void remove_name(struct inode_table *t, struct inode_name *n)
{
	struct inode *dead = detach_name(t, n, NULL);

	assert(!dead);
	(void)dead;
}

static void insert_inode(struct inode_table *t, struct inode *inode, int fd,
			 const struct stat *st)
{
	inode->fd = fd;
	inode->dev = st->st_dev;
	inode->ino = st->st_ino;
	inode->type = st->st_mode & S_IFMT;
	inode->generation = ++t->generation;
	hash_insert(&t->inodes, &inode->node,
		    file_hash(st->st_dev, st->st_ino));
}

void inode_note_mode(struct inode *inode, mode_t mode)
{
	atomic_store_explicit(&inode->setid,
			      S_ISREG(mode) && (mode & (S_ISUID | S_ISGID)),
			      memory_order_relaxed);
}

/* parent and name lead to inode, whatever they led to before. */
static void set_name(struct inode_table *t, struct inode *parent,
		     struct inode_name **spare, struct inode *inode)
{
	struct inode_name *n = find_name(t, parent, (*spare)->text);

	if (!n) {
		attach_name(t, TAKE(*spare), parent, inode);
	} else if (n->inode != inode) {
		take_off_inode(n);
		put_on_inode(n, inode);
	}
}

int inode_add(struct inode_table *t, struct inode *parent, const char *name,
	      int fd, struct inode **ret, struct stat *ret_stat)
{
	AUTO(fd) int owned = fd;
	AUTO(mem) struct inode_name *spare = inode_name_new(name);
	AUTO(mem) struct inode *fresh = calloc(1, sizeof(*fresh));
	struct inode *inode;

	if (!spare || !fresh)
		return error_set(-ENOMEM, "no memory for a file");
	if (fstatat(fd, "", ret_stat, AT_EMPTY_PATH) < 0)
		return error_errno("looking at '%s'", name);
	AUTO(unlock) pthread_mutex_t *held = lock(&t->lock);
	inode = find_inode(t, ret_stat->st_dev, ret_stat->st_ino);
	if (!inode) {
		inode = TAKE(fresh);
		insert_inode(t, inode, TAKE_FD(owned), ret_stat);
	}
	inode->lookups++;
	inode_note_mode(inode, ret_stat->st_mode);
	set_name(t, parent, &spare, inode);
	*ret = inode;
	return 0;
}

struct inode *inode_forget(struct inode_table *t, struct inode *inode,
			   uint64_t lookups)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&t->lock);

	if (inode == &t->root)
		return NULL;
	assert(inode->lookups >= lookups);
	inode->lookups -= lookups;
	return drop_if_unused(t, inode, NULL);
}

void inode_free(struct inode *inode)
{
	(void)close(inode->fd);
	free(inode);
}

void inode_unlinked(struct inode_table *t, struct inode *parent,
		    const char *name)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&t->lock);
	struct inode_name *n = find_name(t, parent, name);

	if (n)
		remove_name(t, n);
}

void inode_renamed(struct inode_table *t, struct inode *old_parent,
		   const char *old_name, struct inode *new_parent,
		   struct inode_name *spare)
{
	AUTO(mem) struct inode_name *owned = spare;
	AUTO(unlock) pthread_mutex_t *held = lock(&t->lock);
	struct inode_name *old = find_name(t, old_parent, old_name);
	struct inode_name *victim = find_name(t, new_parent, owned->text);

	/* rename(2) does nothing if both are links to the same file. */
	if (old && victim && old->inode == victim->inode)
		return;
	if (old) {
		set_name(t, new_parent, &owned, old->inode);
		remove_name(t, old);
	} else if (victim) {
		remove_name(t, victim);
	}
}

/* Write text and a slash before the path that starts at ret + at. */
static int prepend(char *ret, size_t *at, const char *text)
{
	size_t length = strlen(text);
	bool slash = *at < INODE_PATH_SIZE - 1;

	if (length + slash > *at)
		return error_set(-ENAMETOOLONG, "the path of '%s' is too long",
				 text);
	if (slash)
		ret[--*at] = '/';
	*at -= length;
	memcpy(ret + *at, text, length);
	return 0;
}

/* The path grows from its end, which is at the end of ret, upwards. */
static int prepend_parents(struct inode_table *t, const struct inode *inode,
			   char *ret, size_t *at)
{
	while (inode != &t->root) {
		int rc;

		if (!inode->names)
			return error_set(-ENOENT,
					 "the file has no name any more");
		rc = prepend(ret, at, inode->names->text);
		if (rc < 0)
			return rc;
		inode = inode->names->parent;
	}
	return 0;
}

int inode_path(struct inode_table *t, struct inode *inode,
	       char ret[INODE_PATH_SIZE])
{
	AUTO(unlock) pthread_mutex_t *held = lock(&t->lock);
	size_t at = INODE_PATH_SIZE - 1;
	int rc;

	ret[at] = '\0';
	rc = prepend_parents(t, inode, ret, &at);
	if (rc == 0)
		memmove(ret, ret + at, INODE_PATH_SIZE - at);
	return rc;
}

int inode_child_path(struct inode_table *t, struct inode *parent,
		     const char *name, char ret[INODE_PATH_SIZE])
{
	AUTO(unlock) pthread_mutex_t *held = lock(&t->lock);
	size_t at = INODE_PATH_SIZE - 1;
	int rc;

	ret[at] = '\0';
	rc = prepend(ret, &at, name);
	if (rc == 0)
		rc = prepend_parents(t, parent, ret, &at);
	if (rc == 0)
		memmove(ret, ret + at, INODE_PATH_SIZE - at);
	return rc;
}

void inode_known(struct inode_table *t, const char *path, uint64_t *ret_parent,
		 const char **ret_name, uint64_t *ret_number)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&t->lock);
	const struct inode *parent = &t->root;
	char part[NAME_MAX + 1];

	for (;;) {
		size_t size = strcspn(path, "/");
		const struct inode_name *n = NULL;

		if (parent && size < sizeof(part)) {
			memcpy(part, path, size);
			part[size] = '\0';
			n = find_name(t, parent, part);
		}
		if (!path[size]) {
			*ret_parent = parent ? inode_number(t, parent) : 0;
			*ret_number = n ? inode_number(t, n->inode) : 0;
			*ret_name = path;
			return;
		}
		parent = n ? n->inode : NULL;
		path += size + 1;
	}
}

void inode_replaced(struct inode_table *t, const char *path)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&t->lock);
	struct inode *inode = &t->root;

	while (*path) {
		char part[NAME_MAX + 1];
		size_t size = strcspn(path, "/");
		struct inode_name *n;

		(void)snprintf(part, sizeof(part), "%.*s", (int)size, path);
		n = find_name(t, inode, part);
		if (!n)
			return; /* the kernel does not know it */
		inode = n->inode;
		path += size + (path[size] == '/');
	}
	atomic_store(&inode->replaced, true);
}
