#include <fnmatch.h>
#include <string.h>

#include "base/error.h"

#include "cli/durability.h"

/* "bucket", or "bucket:" and a glob; NULL: it is not of this kind. */
static const char *glob_of(const char *text, const char *kind)
{
	size_t n = strlen(kind);

	if (strncmp(text, kind, n) != 0)
		return NULL;
	if (text[n] == '\0')
		return "*";
	return text[n] == ':' && text[n + 1] ? text + n + 1 : NULL;
}

static int parse_rule(const char *text, struct durability_rule *ret)
{
	const char *bucket = glob_of(text, "bucket");
	const char *local = glob_of(text, "local");

	if (!bucket && !local)
		return error_set(-ERR_USAGE,
				 "--durability: '%s' is neither local nor "
				 "bucket, nor one of these with a ':' and a "
				 "glob",
				 text);
	ret->bucket = bucket != NULL;
	ret->glob = bucket ? bucket : local;
	return 0;
}

int durability_parse(const struct option_list *list, struct durability *ret)
{
	ret->n = 0;
	for (size_t i = 0; i < list->n; i++) {
		int rc = parse_rule(list->items[i], &ret->rules[ret->n++]);

		if (rc < 0)
			return rc;
	}
	return 0;
}

bool durability_waits(const struct durability *d, const char *path)
{
	for (size_t i = d->n; i > 0; i--)
		if (fnmatch(d->rules[i - 1].glob, path, 0) == 0)
			return d->rules[i - 1].bucket;
	return false;
}
