#ifndef LITEBUCKET_BUCKET_S3_XML_H
#define LITEBUCKET_BUCKET_S3_XML_H

/*
 * The XML that S3 answers with
 * ============================
 *
 * Three documents, of which only these parts are read:
 *
 *	Error			Code, Message, Region, Endpoint
 *	ListBucketResult	Contents/{Key,Size,LastModified}, IsTruncated,
 *				NextContinuationToken, EncodingType
 *	DeleteResult		Error/{Key,Code,Message}
 *
 * What comes over the network is not trusted: a document with a DOCTYPE (and
 * with it every entity declaration), with more than 8 levels, or with a text
 * of more than 8 KiB in a part we read is refused.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct s3_problem {
	char code[64]; /* "" where the document names none */
	char message[256];
	char key[256];
	char region[64];
	char endpoint[128];
};

struct s3_entry {
	char *key; /* decoded */
	uint64_t size;
	int64_t modified_ms;
};

/* One page of a list. */
struct s3_listing {
	struct s3_entry *entries;
	size_t n;
	size_t capacity;
	bool truncated;
	bool url_encoded;
	char *token; /* for the next page; NULL where there is none */
};

/*
 * The first Error of an error document or a DeleteResult; all zero where there
 * is none.  -ERR_CORRUPT: this is no XML of that kind.
 */
int s3_xml_problem(const char *data, size_t size, struct s3_problem *ret);

/* ret is all zero before, and s3_listing_cleanup() is due in any case. */
int s3_xml_listing(const char *data, size_t size, struct s3_listing *ret);
void s3_listing_cleanup(struct s3_listing *listing);

/* A new last entry, all zero; NULL: out of memory. */
struct s3_entry *s3_listing_add(struct s3_listing *listing);

/* text between tags. */
struct buf;
int s3_xml_escape(const char *text, struct buf *ret);

#endif
