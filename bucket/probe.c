#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/io.h"
#include "bucket/bucket.h"

#include "bucket/probe.h"

enum outcome { DONE, REFUSED };

/*
 * One try.  Stores that lost the race or do not know the condition answer
 * with many errors (404, 409, 412, 501); whether it was kept is seen from
 * which tries succeed.
 */
static int try_put(struct bucket *b, const char *key, bool if_absent,
		   const char *if_match, char etag[BUCKET_ETAG_SIZE],
		   enum outcome *ret)
{
	struct bucket_info info = { 0 };
	struct bucket_put put = {
		.key = key,
		.data = "probe",
		.fd = -1,
		.size = 5,
		.if_absent = if_absent,
		.if_match = if_match,
	};
	int rc = bucket_put(b, &put, &info);

	switch (rc) {
	case 0:
		memcpy(etag, info.etag, BUCKET_ETAG_SIZE);
		*ret = DONE;
		return 0;
	case -ERR_PRECOND:
	case -ENOENT:
	case -EOPNOTSUPP:
		*ret = REFUSED;
		return 0;
	default:
		return rc;
	}
}

/* Some stores tell no ETag in the reply to a put. */
static int learn_etag(struct bucket *b, const char *key,
		      char etag[BUCKET_ETAG_SIZE])
{
	struct bucket_info info = { 0 };
	int rc;

	if (etag[0])
		return 0;
	rc = bucket_head(b, key, &info);
	if (rc < 0)
		return rc;
	memcpy(etag, info.etag, BUCKET_ETAG_SIZE);
	return 0;
}

/* The first put to a free key must be taken, the second refused. */
static int try_if_absent(struct bucket *b, const char *key,
			 char etag[BUCKET_ETAG_SIZE], unsigned *caps)
{
	enum outcome first, second = DONE;
	int rc = try_put(b, key, true, NULL, etag, &first);

	if (rc == 0 && first == DONE)
		rc = try_put(b, key, true, NULL, etag, &second);
	if (rc == 0 && first == DONE && second == REFUSED)
		*caps |= BUCKET_IF_ABSENT;
	if (rc == 0 && first == REFUSED)
		rc = try_put(b, key, false, NULL, etag, &first);
	return rc;
}

/* The current ETag must be taken, and refused once it is another one. */
static int try_if_match(struct bucket *b, const char *key,
			char etag[BUCKET_ETAG_SIZE], unsigned *caps)
{
	enum outcome current, stale = DONE;
	char old[BUCKET_ETAG_SIZE];
	int rc = learn_etag(b, key, etag);

	if (rc < 0 || !etag[0])
		return rc;
	memcpy(old, etag, sizeof(old));
	rc = try_put(b, key, false, old, etag, &current);
	if (rc < 0 || current == REFUSED)
		return rc;
	rc = try_put(b, key, false, "\"0123456789abcdef0123456789abcdef\"",
		     etag, &stale);
	if (rc == 0 && stale == REFUSED)
		*caps |= BUCKET_IF_MATCH;
	return rc;
}

int bucket_probe_conditions(struct bucket *b, unsigned *ret_caps)
{
	char key[64], etag[BUCKET_ETAG_SIZE] = "";
	const char *keys[] = { key };
	unsigned caps = 0;
	uint64_t nonce;
	int rc;

	io_random(&nonce, sizeof(nonce));
	(void)snprintf(key, sizeof(key), ".litebucket-probe-%016" PRIx64,
		       nonce);
	rc = try_if_absent(b, key, etag, &caps);
	if (rc == 0)
		rc = try_if_match(b, key, etag, &caps);
	if (rc < 0) {
		char why[ERROR_MESSAGE_SIZE];

		(void)snprintf(why, sizeof(why), "%s", error_message());
		/*
		 * It may not even exist; the first failure is what counts.  A
		 * store that does not answer would not answer this either.
		 */
		if (!bucket_transient(rc))
			(void)bucket_remove(b, keys, 1);
		return error_set(rc, "trying out conditional writes: %s", why);
	}
	rc = bucket_remove(b, keys, 1);
	if (rc < 0)
		return error_wrap(rc, "removing the probe object");
	*ret_caps = caps;
	return 0;
}
