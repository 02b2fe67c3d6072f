#ifndef LITEBUCKET_BUCKET_S3_H
#define LITEBUCKET_BUCKET_S3_H

/*
 * The driver for S3 and what speaks its protocol
 * ==============================================
 *
 * One operation is one request (a list: one per 1000 keys), signed by
 * Signature Version 4 (bucket/sigv4.h), sent by libcurl over a connection that
 * is kept (bucket/http.h), and answered by 0 or by a sentence that says what
 * to do (bucket/s3_error.h).  Nothing is tried twice: that is bucket_retry's.
 *
 * Stores disagree on If-Match in a put: most want the ETag as they gave it,
 * Ceph only without its quotes, some ignore the header.  To guess would mean
 * to send a put a second time.  So the first put with if_match probes the
 * bucket, on a key of its own, and the form that was found to work is used
 * from then on.
 */
struct bucket;
struct bucket_url;

/*
 * The bucket behind an s3:// URL.  Nothing is asked of it yet.  -EACCES: no
 * credentials in the environment.  url stays the caller's.
 */
int bucket_s3_new(const struct bucket_url *url, struct bucket **ret);

#endif
