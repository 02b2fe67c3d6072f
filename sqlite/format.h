#ifndef LITEBUCKET_SQLITE_FORMAT_H
#define LITEBUCKET_SQLITE_FORMAT_H

/*
 * What we need to know of SQLite's file formats
 * =============================================
 *
 * Database, first hundred bytes (sqlite.org/fileformat2.html, section 1.3):
 *
 *	 0 "SQLite format 3\0"		16 page size, 1 means 65536
 *	18 write version, 19 read version: 1 rollback journal, 2 WAL
 *	24 change counter		28 size in pages
 *	92 the change counter for which the size at 28 is right
 *
 * Rollback journal: the first eight bytes are the magic while it could be
 * played back.  SQLite finishes a transaction by taking them away: unlink,
 * truncate to nothing, or zeros over the header.
 */
#include <stdbool.h>
#include <stdint.h>

enum {
	FORMAT_HEADER_SIZE = 100,
	FORMAT_MAGIC_SIZE = 16,
	FORMAT_JOURNAL_MAGIC_SIZE = 8,
};

extern const char format_magic[FORMAT_MAGIC_SIZE];

struct format_header {
	uint32_t page_size;
	uint32_t pages;		 /* the size the header claims; 0: it does not know */
	uint32_t change_counter;
	bool wal;
};

/*
 * What SQLite appends to a database's name for the files that belong to it, in
 * the order in which they go: never a -shm without the -wal it describes.
 */
enum { FORMAT_SIDES = 3 };
extern const char *const format_sides[FORMAT_SIDES];

/* Is this the beginning of a database? */
bool format_parse_header(const uint8_t *data, struct format_header *ret);

/* Do these eight bytes begin a journal that could be played back? */
bool format_journal_live(const uint8_t *data);

/*
 * What a file is by its name alone.  The base is name without what the role
 * appends: the database that a journal, WAL or shm belongs to, if that exists.
 */
enum format_role {
	FORMAT_MAIN,
	FORMAT_JOURNAL,
	FORMAT_WAL,
	FORMAT_SHM,
	FORMAT_SUPER, /* a super-journal, name-mjXXXXXXXXX: of several databases */
};
enum format_role format_role(const char *name, unsigned *ret_base_length);

#endif
