#ifndef LITEBUCKET_CLI_SIGNALS_H
#define LITEBUCKET_CLI_SIGNALS_H

/*
 * How a running mount ends
 * ========================
 *
 * SIGTERM, SIGINT and SIGHUP are taken by one thread.  The first asks for an
 * end in order; the second, or a deadline that passes, ends the process at
 * once, which is safe at any moment: it is what a crash would be.
 *
 * signals_block() comes first, before any other thread exists, so that every
 * thread inherits its mask.
 */
#include <stdint.h>

void signals_block(void);

/* stop is called in the signal thread, once.  SIGPIPE is ignored from here. */
int signals_start(void (*stop)(void *arg), void *arg);

/* End the process this much later, whatever it is doing then. */
void signals_deadline(int64_t ms);

#endif
