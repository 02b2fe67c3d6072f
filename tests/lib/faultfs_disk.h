#ifndef LITEBUCKET_TESTS_LIB_FAULTFS_DISK_H
#define LITEBUCKET_TESTS_LIB_FAULTFS_DISK_H

/*
 * What a disk would have after the power went
 * ===========================================
 *
 * The files below hold what programs see.  For each file with changes that
 * were not synced, struct disk_file holds what is on the disk: its bytes as of
 * the last sync, and the changes since, in order.  Losing power writes these
 * bytes back, with none of the changes or with some of them.
 *
 * Names are another matter: those made, removed and renamed are on the disk
 * at once, unless disk_lose_names() was called; then they are undone, from the
 * latest on, if their directory was not synced since.  A removed file is kept
 * under a name in the trash until then.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct disk_file;

/* The changes of a file that the descriptor (of any kind) is of. */
struct disk_file *disk_file_new(int fd);
void disk_file_free(struct disk_file *f);

/*
 * Before the first of them: remember what the file is.  Then each change, once
 * it was made.
 */
void disk_file_before(struct disk_file *f);
void disk_file_wrote(struct disk_file *f, const void *data, size_t size,
		     uint64_t offset);
void disk_file_zeroed(struct disk_file *f, uint64_t size, uint64_t offset);
void disk_file_resized(struct disk_file *f, uint64_t size);

/* It is all on the disk now; or will never be, for the sync failed. */
void disk_file_synced(struct disk_file *f);
void disk_file_sync_failed(struct disk_file *f);

/* Nothing would be lost. */
bool disk_file_is_safe(const struct disk_file *f);

/*
 * The power goes.  Each sector that was written, and each other change, survives
 * with this probability (0 to 100), by rand().  Returns how many changes lost
 * something.
 */
unsigned disk_file_lose(struct disk_file *f, unsigned percent);

/* Names can be lost from now on; the trash is a directory of the same disk. */
void disk_lose_names(int trash_fd);

/* A name was made, is about to be removed, or to be renamed over another. */
void disk_made(int dir_fd, const char *name, bool directory);
void disk_removes(int dir_fd, const char *name, bool directory);
void disk_renames(int from_fd, const char *from, int to_fd, const char *to);

/* The last disk_removes() or disk_renames() has failed: it did not happen. */
void disk_undo_last(void);

/* A directory was synced: what happened to names in it is on the disk. */
void disk_dir_synced(int dir_fd);

/* The power goes: undo all, or with random from some random moment on. */
unsigned disk_names_lose(bool random);

#endif
