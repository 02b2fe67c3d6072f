#ifndef LITEBUCKET_BASE_ERROR_H
#define LITEBUCKET_BASE_ERROR_H

/*
 * Errors
 * ======
 *
 * A function that can fail returns an int: zero (or a count) on success, a
 * negative errno value on failure.  The number says what kind of failure it
 * is and is what callers branch on; the sentence says what happened and is
 * for people.
 *
 * The sentence lives in a fixed, thread-local buffer, so reporting an error
 * never allocates and never fails.  It is valid after a function of ours has
 * returned a negative value, until the next failure on the same thread.  A
 * result that crosses threads must carry a copy of it.
 *
 *	rc = bucket_get(b, key, ...);
 *	if (rc < 0)
 *		return error_wrap(rc, "restoring transaction %s", txid);
 *
 * A whole sentence tells what was being done, to what, why it failed, and,
 * where the reader can do something, what to do.  It never holds a secret.
 *
 * Some failures have no errno of their own.  These names borrow one:
 */
#include <errno.h>

#define ERR_CORRUPT EBADMSG    /* bytes contradict their checksum or format */
#define ERR_GAP     ENODATA    /* a transaction in the middle is missing */
#define ERR_FENCED  EOWNERDEAD /* another writer has gone on with the log */
#define ERR_PRECOND EEXIST     /* a conditional write found another object */
#define ERR_USAGE   EDOM       /* the command line or a setting makes no sense */

enum { ERROR_MESSAGE_SIZE = 1024 };

#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))

/* Record a fresh failure and return rc, which must be negative. */
int error_set(int rc, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Put a clause in front of the current sentence: "clause: sentence". */
int error_wrap(int rc, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Record a failed system call: "clause: strerror(errno)"; returns -errno. */
int error_errno(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* The current sentence of this thread; never NULL. */
const char *error_message(void);

#endif
