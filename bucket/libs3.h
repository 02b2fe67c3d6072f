#ifndef LITEBUCKET_BUCKET_LIBS3_H
#define LITEBUCKET_BUCKET_LIBS3_H

/*
 * The driver for stores that speak only Signature Version 2
 * =========================================================
 *
 * It goes through libs3, which brings a libcurl and a TLS library of its own.
 * So that a process has only one of each, libs3 is linked to a shared object,
 * litebucket_libs3.so, that is loaded when a bucket's URL says driver=libs3:
 * from LITEBUCKET_LIBS3 if that is set (a path), else from beside the
 * executable, else from ../lib/litebucket.
 *
 * libs3 has no conditional puts: if_absent and if_match are -EOPNOTSUPP here,
 * probe finds nothing, and who writes a log of slots must refuse this driver.
 * The store's clock is not to be had either: date_ms is 0.
 */
struct bucket;
struct bucket_url;

/*
 * -EOPNOTSUPP: this build has no shared object, or it cannot do what the URL
 * asks for.  -EACCES: no credentials.  url stays the caller's.
 */
int bucket_libs3_new(const struct bucket_url *url, struct bucket **ret);

#endif
