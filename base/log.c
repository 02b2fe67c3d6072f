#include <ctype.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

#include "base/log.h"

static const char *const level_names[] = {
	[LOG_DEBUG] = "debug",
	[LOG_INFO] = "info",
	[LOG_WARN] = "warn",
	[LOG_ERROR] = "error",
};

static atomic_int lowest = LOG_INFO;

void log_set_level(enum log_level level)
{
	atomic_store(&lowest, (int)level);
}

const char *log_level_name(enum log_level level)
{
	return level_names[level];
}

int log_parse_level(const char *text, enum log_level *ret)
{
	for (int i = LOG_DEBUG; i <= LOG_ERROR; i++) {
		if (strcmp(text, level_names[i]) != 0)
			continue;
		*ret = (enum log_level)i;
		return 0;
	}
	return error_set(-EINVAL,
			 "'%s' is no log level; use debug, info, warn or error",
			 text);
}

static bool is_plain(const char *text)
{
	if (!*text)
		return false;
	for (const char *p = text; *p; p++)
		if (isspace((unsigned char)*p) || iscntrl((unsigned char)*p) ||
		    *p == '"' || *p == '=' || *p == '\\')
			return false;
	return true;
}

/* One character as it stands between quotes; returns its length. */
static size_t quote_char(char c, char ret[5])
{
	if (c == '"' || c == '\\')
		return (size_t)snprintf(ret, 5, "\\%c", c);
	if (iscntrl((unsigned char)c))
		return (size_t)snprintf(ret, 5, "\\x%02x", (unsigned char)c);
	ret[0] = c;
	return 1;
}

const char *log_quote(const char *text)
{
	static _Thread_local char texts[4][ERROR_MESSAGE_SIZE + 64];
	static _Thread_local unsigned turn;
	char *out = texts[turn++ % 4];
	size_t size = 0;

	if (is_plain(text) && strlen(text) < sizeof(texts[0])) {
		strcpy(out, text);
		return out;
	}
	out[size++] = '"';
	for (const char *p = text; *p && size < sizeof(texts[0]) - 8; p++)
		size += quote_char(*p, out + size);
	out[size++] = '"';
	out[size] = '\0';
	return out;
}

void log_event(enum log_level level, const char *message, const char *fields,
	       ...)
{
	char now[CLOCK_TEXT_SIZE];
	char line[4096];
	int size;
	va_list args;

	if ((int)level < atomic_load(&lowest))
		return;
	clock_format(clock_wall_ms(), now);
	size = snprintf(line, sizeof(line) - 1, "time=%s level=%s msg=%s%s",
			now, level_names[level], log_quote(message),
			fields && *fields ? " " : "");
	if (fields && *fields) {
		va_start(args, fields);
		size += vsnprintf(line + size, sizeof(line) - 1 - (size_t)size,
				  fields, args);
		va_end(args);
	}
	if (size > (int)sizeof(line) - 2)
		size = sizeof(line) - 2;
	line[size++] = '\n';
	/* One write, so that lines of several threads do not mix. */
	(void)!write(STDERR_FILENO, line, (size_t)size);
}
