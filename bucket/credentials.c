#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include "base/error.h"

#include "bucket/credentials.h"

/* They become parts of header lines: what could end a line is refused. */
static int copy_variable(const char *name, char **ret)
{
	const char *value = getenv(name);

	for (const char *p = value ? value : ""; *p; p++)
		if (*p <= ' ' || *p > '~')
			return error_set(-EACCES, "%s holds a space or another "
					 "byte that no key has; was it copied "
					 "with a line's end?", name);
	if (!value || !*value)
		return 0;
	*ret = strdup(value);
	return *ret ? 0 : error_set(-ENOMEM, "out of memory");
}

int credentials_from_env(struct credentials *ret)
{
	struct credentials c = { 0 };
	int rc = copy_variable("AWS_ACCESS_KEY_ID", &c.access_key);

	if (rc == 0)
		rc = copy_variable("AWS_SECRET_ACCESS_KEY", &c.secret_key);
	if (rc == 0)
		rc = copy_variable("AWS_SESSION_TOKEN", &c.session_token);
	if (rc == 0 && (!c.access_key || !c.secret_key))
		rc = error_set(-EACCES, "no credentials: set %s to a key of "
			       "the store",
			       c.access_key ? "AWS_SECRET_ACCESS_KEY"
					    : "AWS_ACCESS_KEY_ID");
	if (rc < 0) {
		credentials_clear(&c);
		return rc;
	}
	*ret = c;
	return 0;
}

static void clear_text(char *text)
{
	if (text)
		OPENSSL_cleanse(text, strlen(text));
	free(text);
}

void credentials_clear(struct credentials *c)
{
	clear_text(c->access_key);
	clear_text(c->secret_key);
	clear_text(c->session_token);
	*c = (struct credentials){ 0 };
}
