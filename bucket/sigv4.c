#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "bucket/digest.h"

#include "bucket/sigv4.h"

enum {
	HASH_SIZE = 32,
	DAY_SIZE = 8,		/* of the time, 20130524 */
	CANONICAL_MAX = 1 << 16,
};

/* By hand, because isalnum() depends on the locale. */
static bool unreserved(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       (c >= '0' && c <= '9') || (c && strchr("-._~", c));
}

int sigv4_encode(const char *text, const char *keep, struct buf *ret)
{
	int rc = 0;

	for (; rc == 0 && *text; text++)
		if (unreserved(*text) || strchr(keep, *text))
			rc = buf_append(ret, text, 1);
		else
			rc = buf_printf(ret, "%%%02X", (unsigned char)*text);
	return rc;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(((const struct sigv4_pair *)a)->name,
		      ((const struct sigv4_pair *)b)->name);
}

void sigv4_sort(struct sigv4_pair *pairs, size_t n)
{
	qsort(pairs, n, sizeof(*pairs), compare_names);
}

int sigv4_query(const struct sigv4_pair *params, size_t n, struct buf *ret)
{
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < n; i++) {
		if (i > 0)
			rc = buf_append(ret, "&", 1);
		if (rc == 0)
			rc = sigv4_encode(params[i].name, "", ret);
		if (rc == 0)
			rc = buf_append(ret, "=", 1);
		if (rc == 0)
			rc = sigv4_encode(params[i].value, "", ret);
	}
	return rc;
}

void sigv4_time(int64_t wall_ms, char ret[SIGV4_TIME_SIZE])
{
	time_t seconds = (time_t)(wall_ms / 1000);
	struct tm tm = { 0 };

	(void)gmtime_r(&seconds, &tm);
	(void)strftime(ret, SIGV4_TIME_SIZE, "%Y%m%dT%H%M%SZ", &tm);
}

/* name;name;name */
static int signed_names(const struct sigv4_request *request, struct buf *ret)
{
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < request->n_headers; i++)
		rc = buf_printf(ret, "%s%s", i ? ";" : "",
				request->headers[i].name);
	return rc;
}

int sigv4_canonical(const struct sigv4_request *request, struct buf *ret)
{
	int rc = buf_printf(ret, "%s\n%s\n%s\n", request->method, request->path,
			    request->query);

	for (size_t i = 0; rc == 0 && i < request->n_headers; i++)
		rc = buf_printf(ret, "%s:%s\n", request->headers[i].name,
				request->headers[i].value);
	if (rc == 0)
		rc = buf_append(ret, "\n", 1);
	if (rc == 0)
		rc = signed_names(request, ret);
	if (rc == 0)
		rc = buf_printf(ret, "\n%s", request->body_sha256);
	return rc;
}

static int hmac(const void *key, size_t key_size, const void *data,
		size_t size, unsigned char ret[HASH_SIZE])
{
	unsigned int length = 0;

	if (!HMAC(EVP_sha256(), key, (int)key_size, data, size, ret, &length) ||
	    length != HASH_SIZE)
		return error_set(-EOPNOTSUPP, "OpenSSL cannot compute HMAC-SHA256");
	return 0;
}

static int signing_key(const struct sigv4_key *key, const char *time,
		       unsigned char ret[HASH_SIZE])
{
	AUTO(buf) struct buf secret = BUF_INIT(1024);
	int rc = buf_printf(&secret, "AWS4%s", key->secret_key);

	if (rc == 0)
		rc = hmac(secret.data, secret.size, time, DAY_SIZE, ret);
	if (rc == 0)
		rc = hmac(ret, HASH_SIZE, key->region, strlen(key->region),
			  ret);
	if (rc == 0)
		rc = hmac(ret, HASH_SIZE, key->service, strlen(key->service),
			  ret);
	if (rc == 0)
		rc = hmac(ret, HASH_SIZE, "aws4_request", 12, ret);
	if (secret.data)
		OPENSSL_cleanse(secret.data, secret.size);
	return rc;
}

static int string_to_sign(const struct sigv4_request *request,
			  const char *scope, const char *time, struct buf *ret)
{
	AUTO(buf) struct buf canonical = BUF_INIT(CANONICAL_MAX);
	char hash[SIGV4_HEX_SIZE];
	int rc = sigv4_canonical(request, &canonical);

	if (rc == 0)
		rc = digest_sha256(canonical.data, canonical.size, hash);
	if (rc == 0)
		rc = buf_printf(ret, "AWS4-HMAC-SHA256\n%s\n%s\n%s", time,
				scope, hash);
	return rc;
}

int sigv4_authorize(const struct sigv4_request *request,
		    const struct sigv4_key *key, const char *time,
		    struct buf *ret)
{
	AUTO(buf) struct buf scope = BUF_INIT(1024);
	AUTO(buf) struct buf text = BUF_INIT(2048);
	unsigned char k[HASH_SIZE], signature[HASH_SIZE];
	char hex[SIGV4_HEX_SIZE];
	int rc = buf_printf(&scope, "%.*s/%s/%s/aws4_request", DAY_SIZE, time,
			    key->region, key->service);

	if (rc == 0)
		rc = string_to_sign(request, scope.data, time, &text);
	if (rc == 0)
		rc = signing_key(key, time, k);
	if (rc == 0)
		rc = hmac(k, HASH_SIZE, text.data, text.size, signature);
	OPENSSL_cleanse(k, sizeof(k));
	if (rc == 0)
		rc = buf_printf(ret, "AWS4-HMAC-SHA256 Credential=%s/%s, "
				"SignedHeaders=", key->access_key, scope.data);
	if (rc == 0)
		rc = signed_names(request, ret);
	if (rc < 0)
		return error_wrap(rc, "signing a request");
	digest_hex(signature, HASH_SIZE, hex);
	return buf_printf(ret, ", Signature=%s", hex);
}
