#ifndef LITEBUCKET_CLI_SIGNALS_H
#define LITEBUCKET_CLI_SIGNALS_H

/*
 * How a running mount ends
 * ========================
 *
 * SIGTERM, SIGINT and SIGHUP are taken by one thread.  The first asks for an
 * end in order, the second for haste; the third, or a deadline that passes,
 * ends the process, which is safe at any moment: it is what a crash would be.
 *
 * signals_block() comes first, before any other thread exists, so that every
 * thread inherits its mask.
 */
#include <stdint.h>

void signals_block(void);

/*
 * Both are called in the signal thread, at the first and the second signal.
 * SIGPIPE is ignored from here.
 */
int signals_start(void (*stop)(void), void (*hurry)(void));

/*
 * End the process this much later, whatever it is doing then.  Replaces an
 * earlier deadline.
 */
void signals_deadline(int64_t ms);

#endif
