/*
 * The shared object around libs3, for 2.0 (Debian; Signature Version 2) and
 * 4.x (Version 4).  The two differ in the middle of structs and enums, and say
 * which they are only by S3_DEFAULT_REGION, which 2.0 lacks.
 *
 * Without a request context, which is what NULL means, libs3 performs each
 * request at once on a handle of its own pool, from any thread.
 */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include <libs3.h>

#include "base/error.h"
#include "base/stream.h"

#include "bucket/libs3_plugin.h"

#ifdef S3_DEFAULT_REGION
#define LIBS3_NAME "libs3 4"
#define LIBS3_4	   1
#define TIMEOUT	   0,
#define INIT_FLAGS (S3_INIT_ALL | S3_INIT_VERIFY_PEER)
#else
#define LIBS3_NAME "libs3 2.0"
#define LIBS3_4	   0
#define TIMEOUT
#define INIT_FLAGS S3_INIT_ALL
#endif

/* What libs3's callbacks share during one request. */
struct request {
	struct libs3_reply *reply;
	S3Status status;
	bool head;
	int rc; /* of the program's own sink, source or entry function */
	struct sink *sink;
	struct source *source;
	int (*entry)(void *arg, const struct bucket_object *object);
	void *arg;
	bool truncated;
};

static S3BucketContext context(const struct libs3_target *target)
{
	return (S3BucketContext){
		.hostName = target->host,
		.bucketName = target->bucket,
		.protocol = target->https ? S3ProtocolHTTPS : S3ProtocolHTTP,
		.uriStyle = target->path_style ? S3UriStylePath
					       : S3UriStyleVirtualHost,
		.accessKeyId = target->access_key,
		.secretAccessKey = target->secret_key,
#if LIBS3_4
		.securityToken = target->session_token,
		.authRegion = target->region,
#endif
	};
}

static void read_meta(const S3ResponseProperties *properties,
		      struct bucket_info *ret)
{
	for (int i = 0; i < properties->metaDataCount; i++) {
		const S3NameValue *from = &properties->metaData[i];
		struct bucket_meta *to = &ret->meta[ret->n_meta];

		if (ret->n_meta == BUCKET_META_MAX)
			return;
		if (strlen(from->name) >= sizeof(to->name) ||
		    strlen(from->value) >= sizeof(to->value))
			continue;
		strcpy(to->name, from->name);
		strcpy(to->value, from->value);
		ret->n_meta++;
	}
}

static S3Status on_properties(const S3ResponseProperties *properties,
			      void *arg)
{
	struct bucket_info *info = &((struct request *)arg)->reply->info;

	*info = (struct bucket_info){ .size = properties->contentLength };
	(void)snprintf(info->etag, sizeof(info->etag), "%s",
		       properties->eTag ? properties->eTag : "");
	if (properties->lastModified > 0)
		info->modified_ms = properties->lastModified * 1000;
	read_meta(properties, info);
	return S3StatusOK;
}

static void on_complete(S3Status status, const S3ErrorDetails *details,
			void *arg)
{
	struct request *r = arg;

	r->status = status;
	(void)snprintf(r->reply->message, sizeof(r->reply->message),
		       "%s: %s%s%s", LIBS3_NAME, S3_get_status_name(status),
		       details && details->message ? ": " : "",
		       details && details->message ? details->message : "");
}

static const S3ResponseHandler handler = { on_properties, on_complete };

static S3Status on_data(int size, const char *data, void *arg)
{
	struct request *r = arg;

	r->rc = sink_write(r->sink, data, (size_t)size);
	return r->rc < 0 ? S3StatusAbortedByCallback : S3StatusOK;
}

static int on_body(int size, char *data, void *arg)
{
	struct request *r = arg;
	ssize_t n = source_read(r->source, data, (size_t)size);

	if (n < 0)
		r->rc = (int)n;
	return (int)n;
}

static S3Status on_list(int truncated, const char *next, int n,
			const S3ListBucketContent *contents, int n_prefixes,
			const char **prefixes, void *arg)
{
	struct request *r = arg;

	r->truncated = truncated != 0;
	for (int i = 0; i < n; i++) {
		const struct bucket_object object = {
			.key = contents[i].key,
			.size = contents[i].size,
			.modified_ms = contents[i].lastModified * 1000,
		};

		r->rc = r->entry(r->arg, &object);
		if (r->rc < 0)
			return S3StatusAbortedByCallback;
	}
	return S3StatusOK;
}

/* bucket/bucket.h's errnos. */
static int status_errno(const struct request *r)
{
	switch (r->status) {
	case S3StatusOK:
		return 0;
	case S3StatusErrorNoSuchKey:
		return -ENOENT;
	case S3StatusHttpErrorNotFound:
		/* Anything but a HEAD would say what was not found. */
		return r->head ? -ENOENT : -EPROTO;
	case S3StatusErrorNoSuchBucket:
		return -ENODEV;
	case S3StatusErrorPreconditionFailed:
		return -ERR_PRECOND;
	case S3StatusErrorInvalidRange:
		return -ERANGE;
	case S3StatusErrorAccessDenied:
	case S3StatusErrorAccountProblem:
	case S3StatusErrorInvalidAccessKeyId:
	case S3StatusErrorSignatureDoesNotMatch:
	case S3StatusErrorRequestTimeTooSkewed:
	case S3StatusErrorExpiredToken:
	case S3StatusErrorInvalidToken:
	case S3StatusHttpErrorForbidden:
		return -EACCES;
	case S3StatusErrorNotImplemented:
		return -EOPNOTSUPP;
	case S3StatusNameLookupError:
		return -EHOSTUNREACH;
	case S3StatusFailedToConnect:
		return -ECONNREFUSED;
	case S3StatusConnectionFailed:
		return -ECONNRESET;
	case S3StatusErrorInternalError:
	case S3StatusErrorIncompleteBody:
	case S3StatusErrorOperationAborted:
	case S3StatusErrorRequestTimeout:
	case S3StatusErrorSlowDown:
	case S3StatusHttpErrorConflict:
	case S3StatusHttpErrorUnknown:
		return -EAGAIN;
	case S3StatusInternalError:
	case S3StatusInterrupted:
	case S3StatusErrorBadDigest:
		return -EIO;
	case S3StatusOutOfMemory:
		return -ENOMEM;
	default:
		return -EPROTO;
	}
}

/* Where the program's own function failed, its sentence says why. */
static int result(const struct request *r)
{
	if (r->rc < 0) {
		r->reply->message[0] = '\0';
		return r->rc;
	}
	return status_errno(r);
}

static int init(char message[512])
{
	S3Status status = S3_initialize("litebucket", INIT_FLAGS, "localhost");

	if (status == S3StatusOK)
		return 0;
	(void)snprintf(message, 512, "%s: %s", LIBS3_NAME,
		       S3_get_status_name(status));
	return -EIO;
}

static int get(const struct libs3_target *target, const char *key,
	       uint64_t offset, uint64_t length, const char *if_match,
	       struct sink *sink, struct libs3_reply *ret)
{
	const S3BucketContext bucket = context(target);
	const S3GetConditions conditions = {
		.ifModifiedSince = -1,
		.ifNotModifiedSince = -1,
		.ifMatchETag = if_match,
	};
	const S3GetObjectHandler get_handler = { handler, on_data };
	struct request r = { .reply = ret, .sink = sink };

	S3_get_object(&bucket, key, &conditions, offset, length, NULL, TIMEOUT
		      &get_handler, &r);
	return result(&r);
}

static int head(const struct libs3_target *target, const char *key,
		struct libs3_reply *ret)
{
	const S3BucketContext bucket = context(target);
	struct request r = { .reply = ret, .head = true };

	S3_head_object(&bucket, key, NULL, TIMEOUT &handler, &r);
	return result(&r);
}

static int put(const struct libs3_target *target, const char *key,
	       struct source *source, uint64_t size, const char *md5,
	       const struct bucket_meta *meta, size_t n_meta,
	       struct libs3_reply *ret)
{
	const S3BucketContext bucket = context(target);
	S3NameValue pairs[BUCKET_META_MAX];
	const S3PutProperties properties = {
		.md5 = md5,
		.expires = -1,
		.metaDataCount = (int)n_meta,
		.metaData = pairs,
	};
	const S3PutObjectHandler put_handler = { handler, on_body };
	struct request r = { .reply = ret, .source = source };

	for (size_t i = 0; i < n_meta; i++)
		pairs[i] = (S3NameValue){ meta[i].name, meta[i].value };
	S3_put_object(&bucket, key, size, &properties, NULL, TIMEOUT
		      &put_handler, &r);
	return result(&r);
}

static int remove_key(const struct libs3_target *target, const char *key,
		      struct libs3_reply *ret)
{
	const S3BucketContext bucket = context(target);
	struct request r = { .reply = ret };

	S3_delete_object(&bucket, key, NULL, TIMEOUT &handler, &r);
	return result(&r);
}

static int list(const struct libs3_target *target, const char *prefix,
		const char *marker, int max,
		int (*entry)(void *arg, const struct bucket_object *object),
		void *arg, bool *ret_truncated, struct libs3_reply *ret)
{
	const S3BucketContext bucket = context(target);
	const S3ListBucketHandler list_handler = { handler, on_list };
	struct request r = { .reply = ret, .entry = entry, .arg = arg };

	S3_list_bucket(&bucket, *prefix ? prefix : NULL,
		       *marker ? marker : NULL, NULL, max, NULL, TIMEOUT
		       &list_handler, &r);
	*ret_truncated = r.truncated;
	return result(&r);
}

extern const struct libs3_plugin litebucket_libs3_plugin;

const struct libs3_plugin litebucket_libs3_plugin = {
	.version = LIBS3_PLUGIN_VERSION,
	.name = LIBS3_NAME,
	/* 2.0 tells libcurl not to verify the peer. */
	.verifies = LIBS3_4,
	.session_token = LIBS3_4,
	/* 2.0 stops looking at headers after the "100 Continue". */
	.put_etag = LIBS3_4,
	.init = init,
	.get = get,
	.head = head,
	.put = put,
	.remove = remove_key,
	.list = list,
};
