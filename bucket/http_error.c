#include <string.h>

#include "base/error.h"

#include "bucket/http_error.h"

/* What connect(2) said, as far as callers tell it apart. */
static int connect_error(CURL *curl, const char *text)
{
	char reason[128];
	long code = 0;
	int rc;

	(void)curl_easy_getinfo(curl, CURLINFO_OS_ERRNO, &code);
	switch (code) {
	case ETIMEDOUT:
		rc = -ETIMEDOUT;
		break;
	case ECONNREFUSED:
		rc = -ECONNREFUSED;
		break;
	default:
		rc = -EHOSTUNREACH;
		break;
	}
	if (code)
		text = strerror_r((int)code, reason, sizeof(reason));
	return error_set(rc, "cannot connect: %s; is the endpoint right, and "
			 "the store running?", text);
}

static int tls_error(int rc, const char *text, const char *advice)
{
	return error_set(rc, "%s; %s", text, advice);
}

int http_error(CURLcode code, CURL *curl, const char *text)
{
	if (!*text)
		text = curl_easy_strerror(code);
	switch (code) {
	case CURLE_COULDNT_CONNECT:
		return connect_error(curl, text);
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
		return error_set(-EHOSTUNREACH, "%s; check the endpoint's name "
				 "and this machine's DNS", text);
	case CURLE_OPERATION_TIMEDOUT:
		return error_set(-ETIMEDOUT, "the store is too slow: %s", text);
	case CURLE_SEND_FAIL_REWIND:
		return error_set(-ECONNRESET,
				 "the store had closed the connection");
	case CURLE_SEND_ERROR:
	case CURLE_RECV_ERROR:
	case CURLE_GOT_NOTHING:
	case CURLE_PARTIAL_FILE:
		return error_set(-ECONNRESET, "the connection broke: %s", text);
	case CURLE_PEER_FAILED_VERIFICATION:
		return tls_error(-EPROTO, text,
				 "where the store's certificate comes from an "
				 "authority of your own, name its file with "
				 "ca-bundle or AWS_CA_BUNDLE");
	case CURLE_SSL_CACERT_BADFILE:
		return tls_error(-EPROTO, text,
				 "check the file that ca-bundle or "
				 "AWS_CA_BUNDLE names");
	case CURLE_SSL_CONNECT_ERROR:
		return tls_error(-EIO, text,
				 "does the endpoint speak https on this port?");
	case CURLE_OUT_OF_MEMORY:
		return error_set(-ENOMEM, "out of memory");
	case CURLE_URL_MALFORMAT:
	case CURLE_UNSUPPORTED_PROTOCOL:
		return error_set(-EINVAL, "the endpoint is no address: %s",
				 text);
	default:
		return error_set(-EIO, "%s", text);
	}
}
