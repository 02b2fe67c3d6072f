#include <openssl/evp.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/stream.h"

#include "bucket/digest.h"

enum { BLOCK = 1 << 16 };

static void evp_cleanup(EVP_MD_CTX **context)
{
	EVP_MD_CTX_free(*context);
}

static int crypto_error(void)
{
	return error_set(-EOPNOTSUPP, "OpenSSL cannot compute SHA-256 and MD5");
}

void digest_hex(const unsigned char *bytes, size_t size, char *ret)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < size; i++) {
		*ret++ = digits[bytes[i] >> 4];
		*ret++ = digits[bytes[i] & 15];
	}
	*ret = '\0';
}

int digest_sha256(const void *data, size_t size, char ret[DIGEST_SHA256_SIZE])
{
	unsigned char hash[EVP_MAX_MD_SIZE];
	unsigned int length = 0;

	if (!EVP_Digest(data, size, hash, &length, EVP_sha256(), NULL))
		return crypto_error();
	digest_hex(hash, length, ret);
	return 0;
}

static int digest_source(struct source *source, EVP_MD_CTX *sha256,
			 EVP_MD_CTX *md5, uint64_t *ret_size)
{
	unsigned char block[BLOCK];
	ssize_t n;

	*ret_size = 0;
	while ((n = source_read(source, block, sizeof(block))) > 0) {
		if (!EVP_DigestUpdate(sha256, block, (size_t)n) ||
		    !EVP_DigestUpdate(md5, block, (size_t)n))
			return crypto_error();
		*ret_size += (uint64_t)n;
	}
	return (int)n;
}

static int finish(EVP_MD_CTX *sha256, EVP_MD_CTX *md5, struct digest *ret)
{
	unsigned char hash[EVP_MAX_MD_SIZE];
	unsigned int length = 0;

	if (!EVP_DigestFinal_ex(sha256, hash, &length))
		return crypto_error();
	digest_hex(hash, length, ret->sha256);
	if (!EVP_DigestFinal_ex(md5, hash, &length))
		return crypto_error();
	(void)EVP_EncodeBlock((unsigned char *)ret->md5, hash, (int)length);
	return 0;
}

int digest_body(const void *data, int fd, uint64_t size, struct digest *ret)
{
	AUTO(evp) EVP_MD_CTX *sha256 = EVP_MD_CTX_new();
	AUTO(evp) EVP_MD_CTX *md5 = EVP_MD_CTX_new();
	struct mem_source memory;
	struct fd_source file;
	uint64_t read;
	int rc;

	if (!sha256 || !md5 ||
	    !EVP_DigestInit_ex(sha256, EVP_sha256(), NULL) ||
	    !EVP_DigestInit_ex(md5, EVP_md5(), NULL))
		return crypto_error();
	if (data) {
		mem_source_init(&memory, data, size);
		rc = digest_source(&memory.source, sha256, md5, &read);
	} else {
		fd_source_init(&file, fd, 0, size);
		rc = digest_source(&file.source, sha256, md5, &read);
	}
	if (rc < 0)
		return error_wrap(rc, "reading what is to be sent");
	if (read != size)
		return error_set(-EINVAL, "the file to be sent is shorter than "
				 "it should be");
	return finish(sha256, md5, ret);
}
