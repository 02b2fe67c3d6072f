#ifndef LITEBUCKET_FUSE_HASH_H
#define LITEBUCKET_FUSE_HASH_H

/*
 * A hash table of structs that bring their own links: nothing is allocated
 * for an entry, and an entry is removed without a search.
 *
 * The table knows hashes and not keys.  To look something up, walk the
 * entries of its hash and compare:
 *
 *	for (n = hash_first(t, hash); n; n = hash_next(n))
 *		if (equal(container(n), key)) ...
 *
 * Not thread-safe.
 */
#include <stddef.h>
#include <stdint.h>

struct hash_node {
	struct hash_node *next;
	struct hash_node **link; /* what points to this node */
	uint64_t hash;
};

struct hash {
	struct hash_node **buckets;
	size_t mask; /* their number, a power of two, less one */
	size_t count;
};

int hash_init(struct hash *t);

/* The entries are their owners'. */
void hash_cleanup(struct hash *t);

/* When there is no memory to grow, chains get longer and nothing fails. */
void hash_insert(struct hash *t, struct hash_node *node, uint64_t hash);
void hash_remove(struct hash *t, struct hash_node *node);

struct hash_node *hash_first(const struct hash *t, uint64_t hash);
struct hash_node *hash_next(const struct hash_node *node);

/* The bytes of a key, on top of seed. */
uint64_t hash_bytes(const void *data, size_t size, uint64_t seed);

#endif
