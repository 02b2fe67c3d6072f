#include <errno.h>
#include <stdlib.h>

#include "base/error.h"

#include "fuse/hash.h"

enum {
	FIRST_BUCKETS = 256
};

int hash_init(struct hash *t)
{
	t->buckets = calloc(FIRST_BUCKETS, sizeof(t->buckets[0]));
	if (!t->buckets)
		return error_set(-ENOMEM, "no memory for a table");
	t->mask = FIRST_BUCKETS - 1;
	t->count = 0;
	return 0;
}

void hash_cleanup(struct hash *t)
{
	free(t->buckets);
	t->buckets = NULL;
}

static void put_in(struct hash_node **bucket, struct hash_node *node)
{
	node->next = *bucket;
	node->link = bucket;
	if (node->next)
		node->next->link = &node->next;
	*bucket = node;
}

static void take_out(struct hash_node *node)
{
	*node->link = node->next;
	if (node->next)
		node->next->link = node->link;
}

static void grow(struct hash *t)
{
	size_t buckets = (t->mask + 1) * 2;
	struct hash_node **old = t->buckets;
	struct hash_node **new = calloc(buckets, sizeof(new[0]));

	if (!new)
		return;
	for (size_t i = 0; i <= t->mask; i++) {
		struct hash_node *node;

		while ((node = old[i])) {
			take_out(node);
			put_in(&new[node->hash & (buckets - 1)], node);
		}
	}
	free(old);
	t->buckets = new;
	t->mask = buckets - 1;
}

void hash_insert(struct hash *t, struct hash_node *node, uint64_t hash)
{
	if (t->count > t->mask)
		grow(t);
	node->hash = hash;
	put_in(&t->buckets[hash & t->mask], node);
	t->count++;
}

void hash_remove(struct hash *t, struct hash_node *node)
{
	take_out(node);
	t->count--;
}

static struct hash_node *same_hash(struct hash_node *node, uint64_t hash)
{
	while (node && node->hash != hash)
		node = node->next;
	return node;
}

struct hash_node *hash_first(const struct hash *t, uint64_t hash)
{
	return same_hash(t->buckets[hash & t->mask], hash);
}

struct hash_node *hash_next(const struct hash_node *node)
{
	return same_hash(node->next, node->hash);
}

/* FNV-1a, and a mix so that the low bits, which choose, depend on all. */
uint64_t hash_bytes(const void *data, size_t size, uint64_t seed)
{
	const unsigned char *p = data;
	uint64_t hash = UINT64_C(0xcbf29ce484222325) ^ seed;

	for (size_t i = 0; i < size; i++)
		hash = (hash ^ p[i]) * UINT64_C(0x100000001b3);
	hash ^= hash >> 32;
	return hash;
}
