#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "bucket/http.h"
#include "bucket/s3_xml.h"

#include "bucket/s3_error.h"

enum {
	SAID_SIZE = 512,
	SKEW_MS = 10 * 60000, /* stores refuse 15 minutes */
};

struct failure {
	const struct s3_asked *asked;
	const struct http_response *response; /* NULL: a code alone */
	long status;
	struct s3_problem problem;
	char said[SAID_SIZE]; /* the store's words */
};

static int access_denied(const struct failure *f)
{
	return error_set(-EACCES, "the store refuses access (%s); does this "
			 "key have the permission, and may it list the bucket "
			 "'%s'?", f->said, f->asked->bucket);
}

static int unknown_key(const struct failure *f)
{
	return error_set(-EACCES, "the store does not know this access key "
			 "(%s); check AWS_ACCESS_KEY_ID and the endpoint",
			 f->said);
}

static int wrong_signature(const struct failure *f)
{
	return error_set(-EACCES, "the store finds the signature wrong (%s); "
			 "check AWS_SECRET_ACCESS_KEY", f->said);
}

static int bad_token(const struct failure *f)
{
	return error_set(-EACCES, "the store does not take the session token "
			 "(%s); get new credentials, or unset "
			 "AWS_SESSION_TOKEN", f->said);
}

static int clock_skew(const struct failure *f)
{
	char here[CLOCK_TEXT_SIZE], there[CLOCK_TEXT_SIZE] = "unknown";
	int64_t date = f->response
			       ? http_header_date_ms(f->response, "date")
			       : 0;

	clock_format(clock_wall_ms(), here);
	if (date)
		clock_format(date, there);
	return error_set(-EACCES, "this machine's clock differs too much from "
			 "the store's: it is %s here and %s there; set the "
			 "clock", here, there);
}

static int wrong_region(const struct failure *f)
{
	char header[64];
	const char *region = f->problem.region;

	if (!*region && f->response &&
	    http_header_text(f->response, "x-amz-bucket-region", header,
			     sizeof(header)))
		region = header;
	if (!*region)
		return error_set(-EINVAL, "the bucket '%s' is not reached with "
				 "region '%s' at %s (%s); check region and "
				 "endpoint", f->asked->bucket, f->asked->region,
				 f->asked->endpoint, f->said);
	return error_set(-EINVAL, "the bucket '%s' is in region '%s', not in "
			 "'%s'; say ?region=%s in its URL", f->asked->bucket,
			 region, f->asked->region, region);
}

static int redirected(const struct failure *f)
{
	char where[256];

	if (*f->problem.endpoint)
		(void)snprintf(where, sizeof(where), "%s",
			       f->problem.endpoint);
	else if (!f->response || !http_header_text(f->response, "location",
						   where, sizeof(where)))
		return wrong_region(f);
	return error_set(-EINVAL, "%s sends us on to %s; use that endpoint and "
			 "its region for the bucket '%s'", f->asked->endpoint,
			 where, f->asked->bucket);
}

static int no_bucket(const struct failure *f)
{
	return error_set(-ENODEV, "there is no bucket '%s' at %s",
			 f->asked->bucket, f->asked->endpoint);
}

/* A put with if_match finds nothing to match. */
static int no_object(const struct failure *f)
{
	if (f->asked->conditional)
		return error_set(-ERR_PRECOND, "there is no such object");
	if (!f->asked->object)
		return no_bucket(f);
	return error_set(-ENOENT, "there is no such object");
}

static int precondition(const struct failure *f)
{
	return error_set(-ERR_PRECOND, "there is another object");
}

static int bad_range(const struct failure *f)
{
	return error_set(-ERANGE, "the range is beyond the object's end");
}

static int transient(const struct failure *f)
{
	return error_set(-EAGAIN, "the store cannot do it now (%s)", f->said);
}

static int unsupported(const struct failure *f)
{
	return error_set(-EOPNOTSUPP, "the store cannot do that%s (%s)",
			 f->asked->conditional ? " on condition" : "",
			 f->said);
}

static int damaged(const struct failure *f)
{
	return error_set(-EIO, "the request was damaged on its way (%s)",
			 f->said);
}

typedef int (*say_fn)(const struct failure *f);

static say_fn by_code(const char *code)
{
	static const struct {
		const char *code;
		say_fn say;
	} codes[] = {
		{ "AccessDenied", access_denied },
		{ "AllAccessDisabled", access_denied },
		{ "AccountProblem", access_denied },
		{ "InvalidAccessKeyId", unknown_key },
		{ "XAdminUserNotFound", unknown_key }, /* versitygw */
		{ "SignatureDoesNotMatch", wrong_signature },
		{ "ExpiredToken", bad_token },
		{ "InvalidToken", bad_token },
		{ "RequestTimeTooSkewed", clock_skew },
		{ "RequestExpired", clock_skew },
		{ "AuthorizationHeaderMalformed", wrong_region },
		{ "IllegalLocationConstraintException", wrong_region },
		{ "PermanentRedirect", redirected },
		{ "TemporaryRedirect", redirected },
		{ "NoSuchBucket", no_bucket },
		{ "NoSuchKey", no_object },
		{ "PreconditionFailed", precondition },
		{ "InvalidRange", bad_range },
		{ "NotImplemented", unsupported },
		{ "BadDigest", damaged },
		{ "XAmzContentSHA256Mismatch", damaged },
		{ "IncompleteBody", transient },
		{ "RequestTimeout", transient },
		{ "SlowDown", transient },
		{ "InternalError", transient },
		{ "ServiceUnavailable", transient },
		/* Two conditional puts at the same time; neither is told
		 * here whether it was done. */
		{ "ConditionalRequestConflict", transient },
		{ "OperationAborted", transient },
	};

	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
		if (strcmp(codes[i].code, code) == 0)
			return codes[i].say;
	return NULL;
}

static int unexpected(const struct failure *f)
{
	if (*f->problem.code)
		return error_set(-EPROTO, "the store refuses the request (%s)",
				 f->said);
	return error_set(-EPROTO, "unexpected answer (%s); is %s the endpoint "
			 "of an S3 store?", f->said, f->asked->endpoint);
}

bool s3_error_is_of_clock(const struct http_response *response,
			  int64_t signed_ms, int64_t *ret_date_ms)
{
	int64_t date = http_header_date_ms(response, "date");

	if ((response->status != 403 && response->status != 401) || !date ||
	    llabs(date - signed_ms) <= SKEW_MS)
		return false;
	*ret_date_ms = date;
	return true;
}

/* A HEAD is refused without a reason; the clocks may be one. */
static say_fn refused(const struct failure *f)
{
	int64_t date = http_header_date_ms(f->response, "date");

	return date && llabs(date - clock_wall_ms()) > SKEW_MS ? clock_skew
							       : access_denied;
}

static say_fn by_status(const struct failure *f)
{
	switch (f->status) {
	case 301:
	case 302:
	case 307:
	case 308:
		return redirected;
	case 401:
	case 403:
		return refused(f);
	case 404:
		return f->asked->head && f->asked->object ? no_object
							  : unexpected;
	case 412:
		return precondition;
	case 416:
		return bad_range;
	case 501:
		return unsupported;
	case 408:
	case 409:
	case 425:
	case 429:
		return transient;
	default:
		return f->status >= 500 ? transient : unexpected;
	}
}

/* Bytes that could play tricks on a terminal are shown as '?'. */
static void make_printable(char *text)
{
	for (; *text; text++)
		if (*text < ' ' || *text > '~')
			*text = '?';
}

static int explain(struct failure *f)
{
	say_fn say = by_code(f->problem.code);

	make_printable(f->said);
	make_printable(f->problem.region);
	make_printable(f->problem.endpoint);
	if (!say)
		say = by_status(f);
	return say(f);
}

int s3_error(const struct s3_asked *asked, const struct http_response *response)
{
	struct failure f = {
		.asked = asked,
		.response = response,
		.status = response->status,
	};

	/* No XML, no code: the status has to do. */
	if (s3_xml_problem(response->body.data, response->body.size,
			   &f.problem) < 0)
		f.problem = (struct s3_problem){ 0 };
	(void)snprintf(f.said, sizeof(f.said), "HTTP status %ld%s%s%s%s",
		       f.status, *f.problem.code ? ", " : "", f.problem.code,
		       *f.problem.message ? ": " : "", f.problem.message);
	return explain(&f);
}

int s3_code_error(const struct s3_asked *asked, const char *code,
		  const char *message)
{
	struct failure f = { .asked = asked };

	(void)snprintf(f.problem.code, sizeof(f.problem.code), "%s", code);
	(void)snprintf(f.said, sizeof(f.said), "%s%s%s", code,
		       *message ? ": " : "", message);
	return explain(&f);
}
