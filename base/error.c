#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"

static _Thread_local char message[ERROR_MESSAGE_SIZE];

int error_set(int rc, const char *fmt, ...)
{
	va_list args;

	assert(rc < 0);
	va_start(args, fmt);
	(void)vsnprintf(message, sizeof(message), fmt, args);
	va_end(args);
	return rc;
}

int error_wrap(int rc, const char *fmt, ...)
{
	char inner[ERROR_MESSAGE_SIZE];
	va_list args;
	int n;

	assert(rc < 0);
	memcpy(inner, message, sizeof(inner));
	va_start(args, fmt);
	n = vsnprintf(message, sizeof(message), fmt, args);
	va_end(args);
	if (n >= 0 && (size_t)n < sizeof(message))
		(void)snprintf(message + n, sizeof(message) - (size_t)n, ": %s",
			       inner);
	return rc;
}

int error_errno(const char *fmt, ...)
{
	int rc = errno ? -errno : -EIO;
	char reason[128];
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(message, sizeof(message), fmt, args);
	va_end(args);
	if (n >= 0 && (size_t)n < sizeof(message))
		(void)snprintf(message + n, sizeof(message) - (size_t)n, ": %s",
			       strerror_r(-rc, reason, sizeof(reason)));
	return rc;
}

const char *error_message(void)
{
	return message;
}
