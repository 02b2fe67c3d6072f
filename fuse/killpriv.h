#ifndef LITEBUCKET_FUSE_KILLPRIV_H
#define LITEBUCKET_FUSE_KILLPRIV_H

/*
 * FUSE_HANDLE_KILLPRIV_V2 tells the kernel that we clear set-user-id bits when
 * a file is written.  Without it the kernel asks for an extended attribute
 * before every single write(2), which halves the rate of commits.
 *
 * libfuse can say so since 3.17.  For older ones the bit is added to the
 * answer to INIT on its way out.
 */
struct fuse_session;

/* After the mount, before the first request.  Nothing to do: 0. */
int killpriv_install(struct fuse_session *session);

#endif
