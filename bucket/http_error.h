#ifndef LITEBUCKET_BUCKET_HTTP_ERROR_H
#define LITEBUCKET_BUCKET_HTTP_ERROR_H

/*
 * libcurl's failures as errnos of bucket/bucket.h and sentences that say what
 * to do.
 */
#include <curl/curl.h>

/* text is what CURLOPT_ERRORBUFFER got; curl the handle that failed. */
int http_error(CURLcode code, CURL *curl, const char *text);

#endif
