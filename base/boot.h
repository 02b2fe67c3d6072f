#ifndef LITEBUCKET_BASE_BOOT_H
#define LITEBUCKET_BASE_BOOT_H

/*
 * Which boot of the machine this is.  State that was written without a sync and
 * names another one may be older or newer than the files beside it.
 */
enum { BOOT_ID_SIZE = 37 };

/*
 * The kernel's random id of this boot; "" if it is not known.  Tests, which
 * cannot boot the machine, say LITEBUCKET_BOOT in builds with failpoints.
 */
void boot_id(char ret[BOOT_ID_SIZE]);

#endif
