#ifndef LITEBUCKET_BUCKET_DIGEST_H
#define LITEBUCKET_BUCKET_DIGEST_H

/*
 * What a request says about its body
 * ==================================
 *
 * SHA-256 is part of the signature; MD5, in base64, is what every store
 * checks.  Both come from one reading.
 */
#include <stddef.h>
#include <stdint.h>

enum {
	DIGEST_SHA256_SIZE = 65, /* in hex, and a NUL */
	DIGEST_MD5_SIZE = 25,	 /* in base64, and a NUL */
};

struct digest {
	char sha256[DIGEST_SHA256_SIZE];
	char md5[DIGEST_MD5_SIZE];
};

/* Of memory (data), or with data NULL of the first size bytes of a file. */
int digest_body(const void *data, int fd, uint64_t size, struct digest *ret);

int digest_sha256(const void *data, size_t size, char ret[DIGEST_SHA256_SIZE]);

/* 2 * size + 1 bytes into ret. */
void digest_hex(const unsigned char *bytes, size_t size, char *ret);

#endif
