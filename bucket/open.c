#include "base/cleanup.h"
#include "bucket/bucket.h"
#include "bucket/file.h"
#include "bucket/libs3.h"
#include "bucket/retry.h"
#include "bucket/s3.h"

#include "bucket/url.h"

static int open_driver(const struct bucket_url *url, bool create,
		       struct bucket **ret)
{
	if (url->scheme == BUCKET_FILE)
		return bucket_file_new(url, create, ret);
	if (url->libs3)
		return bucket_libs3_new(url, ret);
	return bucket_s3_new(url, ret);
}

int bucket_open(const char *text, bool create, struct bucket **ret)
{
	AUTO(bucket_url) struct bucket_url url = { 0 };
	struct bucket *driver;
	int rc = bucket_url_parse(text, &url);

	if (rc < 0)
		return rc;
	rc = open_driver(&url, create, &driver);
	if (rc < 0)
		return rc;
	return bucket_retry_new(driver, &bucket_retry_default, ret);
}
