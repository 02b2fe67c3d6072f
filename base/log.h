#ifndef LITEBUCKET_BASE_LOG_H
#define LITEBUCKET_BASE_LOG_H

/*
 * One line per event, on stderr:
 *
 *	time=2026-11-23T06:33:13.000Z level=info msg="batch confirmed" db=app.db txid=000000000000002a
 *
 * A call gives the message and then the fields as one format that yields
 * key=value pairs.  Values that people chose (names, error sentences) go
 * through log_quote(), which quotes what needs it and makes control
 * characters visible.  Secrets never come here.
 *
 * Programs log; libraries do so only at debug level, and where a background
 * thread has nobody to return an error to.  Any thread; lines never mix.
 */
#include "base/error.h"

enum log_level {
	LOG_DEBUG,
	LOG_INFO,
	LOG_WARN,
	LOG_ERROR,
};

void log_set_level(enum log_level level);

/* "debug", "info", "warn", "error"; -EINVAL. */
int log_parse_level(const char *text, enum log_level *ret);

const char *log_level_name(enum log_level level);

/* fields may be NULL or "". */
void log_event(enum log_level level, const char *message, const char *fields,
	       ...) PRINTF_LIKE(3, 4);

/*
 * text as a value; lives until the fourth next call on this thread, so that
 * one log_event() can use several.
 */
const char *log_quote(const char *text);

#define log_debug(...) log_event(LOG_DEBUG, __VA_ARGS__)
#define log_info(...)  log_event(LOG_INFO, __VA_ARGS__)
#define log_warn(...)  log_event(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_event(LOG_ERROR, __VA_ARGS__)

#endif
