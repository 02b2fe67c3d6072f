#ifndef LITEBUCKET_CLI_REPORT_H
#define LITEBUCKET_CLI_REPORT_H

/*
 * What people and scripts read
 * ============================
 *
 * Results are gathered and printed at once, so that an error in the middle
 * leaves nothing on stdout that looks like a whole answer.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* "litebucket: ..." on stderr, as one line whatever the arguments hold. */
void report_error(const char *fmt, ...) PRINTF_LIKE(1, 2);
void report_warning(const char *fmt, ...) PRINTF_LIKE(1, 2);

/*
 * The end of the program: code, or CLI_FAILED with an error line if what was
 * printed could not all be written (a full disk, a closed pipe).
 */
int report_finish(int code);

/* A flag of jansson's: so many digits that milliseconds are told, and no more. */
#define REPORT_JSON_REALS JSON_REAL_PRECISION(12)

/*
 * Print a document on stdout; takes the reference.  NULL is -ENOMEM.  All have
 * the version that report_document() gives them.
 */
json_t *report_document(void);
int report_json(json_t *document);

/*
 * Add a member; takes the reference to value.  When there is no memory, for
 * value or for the member, *object is freed and becomes NULL, so that it is
 * enough to look at the end.
 */
void report_field(json_t **object, const char *name, json_t *value);

/*
 * Strings that people chose: JSON is UTF-8, file names need not be.  Bytes
 * that are not become U+FFFD.  NULL becomes null.
 */
json_t *report_json_text(const char *text);
bool report_is_utf8(const char *text);

/* A TXID as 16 hex digits, a wall clock time as RFC 3339, or null for 0. */
json_t *report_json_txid(uint64_t txid);
json_t *report_json_time(int64_t wall_ms);

enum {
	REPORT_SIZE_TEXT = 16,
	REPORT_LAG_TEXT = 32,
};

/* "512 B", "1.5 MiB" */
void report_size(uint64_t bytes, char ret[REPORT_SIZE_TEXT]);

/* "3.2 s", "5 min", "2.5 h" */
void report_lag(double seconds, char ret[REPORT_LAG_TEXT]);

#endif
