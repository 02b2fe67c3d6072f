#include <string.h>

#include "base/error.h"

#include "bucket/bucket.h"

const char *bucket_info_meta(const struct bucket_info *info, const char *name)
{
	for (size_t i = 0; i < info->n_meta; i++)
		if (strcmp(info->meta[i].name, name) == 0)
			return info->meta[i].value;
	return NULL;
}

bool bucket_transient(int rc)
{
	switch (rc) {
	case -ETIMEDOUT:
	case -ECONNREFUSED:
	case -ECONNRESET:
	case -EHOSTUNREACH:
	case -EIO:
	case -EAGAIN:
		return true;
	default:
		return false;
	}
}

/*
 * Other bytes are encoded differently by different stores, or lost.  By hand,
 * because isalnum() depends on the locale.
 */
static bool key_byte(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       (c >= '0' && c <= '9') || (c && strchr("._/=-", c));
}

static bool component_is(const char *component, size_t length,
			 const char *name)
{
	return length == strlen(name) && memcmp(component, name, length) == 0;
}

/* NULL, or what is wrong.  A prefix may end anywhere in a key. */
static const char *key_fault(const char *key, bool prefix)
{
	if (strlen(key) >= BUCKET_KEY_MAX)
		return "it is too long";
	for (const char *p = key; *p; p++)
		if (!key_byte(*p))
			return "only A-Z a-z 0-9 . _ / = - are allowed";
	for (const char *p = key;;) {
		size_t length = strcspn(p, "/");
		bool last = p[length] == '\0';

		if (prefix && last)
			return NULL;
		if (length == 0)
			return "a part of it is empty";
		if (component_is(p, length, ".") ||
		    component_is(p, length, ".."))
			return "a part of it is '.' or '..'";
		if (last)
			return NULL;
		p += length + 1;
	}
}

int bucket_key_check(const char *key)
{
	const char *fault = key_fault(key, false);

	if (fault)
		return error_set(-EINVAL, "'%.200s' is no key: %s", key, fault);
	return 0;
}

int bucket_get(struct bucket *b, const char *key, uint64_t offset,
	       uint64_t length, const char *if_match, struct sink *sink,
	       struct bucket_info *ret)
{
	struct bucket_info unused;
	int rc = bucket_key_check(key);

	if (rc < 0)
		return rc;
	if (length == 0)
		return error_set(-EINVAL, "reading '%s': a range of no bytes",
				 key);
	if (!ret)
		ret = &unused;
	*ret = (struct bucket_info){ 0 };
	return b->ops->get(b, key, offset, length, if_match, sink, ret);
}

int bucket_head(struct bucket *b, const char *key, struct bucket_info *ret)
{
	int rc = bucket_key_check(key);

	if (rc < 0)
		return rc;
	*ret = (struct bucket_info){ 0 };
	return b->ops->head(b, key, ret);
}

int bucket_put(struct bucket *b, const struct bucket_put *put,
	       struct bucket_info *ret)
{
	struct bucket_info unused;
	int rc = bucket_key_check(put->key);

	if (rc < 0)
		return rc;
	if (put->if_absent && put->if_match)
		return error_set(-EINVAL, "writing '%s': it cannot be absent "
				 "and match", put->key);
	if (put->n_meta > BUCKET_META_MAX)
		return error_set(-EINVAL, "writing '%s': more than %d metadata",
				 put->key, BUCKET_META_MAX);
	if (!ret)
		ret = &unused;
	*ret = (struct bucket_info){ 0 };
	return b->ops->put(b, put, ret);
}

int bucket_list(struct bucket *b, const char *prefix, const char *after,
		size_t limit, bucket_list_fn fn, void *arg)
{
	const char *fault = key_fault(prefix, true);

	if (fault)
		return error_set(-EINVAL, "'%.200s' is no prefix of a key: %s",
				 prefix, fault);
	return b->ops->list(b, prefix, after ? after : "", limit, fn, arg);
}

int bucket_remove(struct bucket *b, const char *const keys[], size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int rc = bucket_key_check(keys[i]);

		if (rc < 0)
			return rc;
	}
	while (n > 0) {
		size_t some = n < BUCKET_DELETE_MAX ? n : BUCKET_DELETE_MAX;
		int rc = b->ops->remove(b, keys, some);

		if (rc < 0)
			return rc;
		keys += some;
		n -= some;
	}
	return 0;
}

int bucket_probe(struct bucket *b, unsigned *ret_caps)
{
	return b->ops->probe(b, ret_caps);
}

void bucket_free(struct bucket *b)
{
	if (b)
		b->ops->free(b);
}
