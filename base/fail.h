#ifndef LITEBUCKET_BASE_FAIL_H
#define LITEBUCKET_BASE_FAIL_H

/*
 * Points at which tests kill or fail us
 * =====================================
 *
 * FAILPOINT("spool-renamed") does nothing, unless the build has failpoints
 * (-DLITEBUCKET_FAILPOINTS=ON) and the environment names the point:
 *
 *	LITEBUCKET_FAILPOINT=spool-renamed:kill		SIGKILL at the first pass
 *	LITEBUCKET_FAILPOINT=spool-renamed:kill:3	at the third
 *
 * Names are unique and say what has just been done.
 *
 * SLOWPOINT("resync-run") likewise takes its time, so that a test can see what
 * goes on meanwhile:
 *
 *	LITEBUCKET_SLOWPOINT=resync-run:20		20 ms at each pass
 */
#ifdef LITEBUCKET_FAILPOINTS
void fail_point(const char *name);
void fail_slow_point(const char *name);
#define FAILPOINT(name) fail_point(name)
#define SLOWPOINT(name) fail_slow_point(name)
#else
#define FAILPOINT(name) ((void)0)
#define SLOWPOINT(name) ((void)0)
#endif

#endif
