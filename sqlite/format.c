#include <ctype.h>
#include <string.h>

#include "base/bytes.h"
#include "ltx/header.h"

#include "sqlite/format.h"

const char format_magic[FORMAT_MAGIC_SIZE] = "SQLite format 3";

const char *const format_sides[FORMAT_SIDES] = { "-shm", "-wal", "-journal" };

bool format_parse_header(const uint8_t *data, struct format_header *ret)
{
	uint32_t page_size = get_be16(data + 16);

	if (memcmp(data, format_magic, sizeof(format_magic)) != 0)
		return false;
	ret->page_size = page_size == 1 ? 65536 : page_size;
	ret->change_counter = get_be32(data + 24);
	ret->pages = get_be32(data + 28);
	if (get_be32(data + 92) != ret->change_counter)
		ret->pages = 0; /* a version of SQLite before 3.7 wrote last */
	ret->wal = data[18] == 2 && data[19] == 2;
	return ltx_page_size_valid(ret->page_size) && data[21] == 64 &&
	       data[22] == 32 && data[23] == 32;
}

bool format_journal_live(const uint8_t *data)
{
	static const uint8_t magic[FORMAT_JOURNAL_MAGIC_SIZE] = {
		0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7,
	};

	return memcmp(data, magic, sizeof(magic)) == 0;
}

/* "-mj" and nine hex digits, as sqlite3VdbeHalt()'s vdbeCommit() makes it. */
static bool is_super_journal(const char *name, size_t length)
{
	if (length <= 12 || memcmp(name + length - 12, "-mj", 3) != 0)
		return false;
	for (const char *p = name + length - 9; *p; p++)
		if (!isxdigit((unsigned char)*p))
			return false;
	return true;
}

enum format_role format_role(const char *name, unsigned *ret_base_length)
{
	static const struct {
		const char *suffix;
		enum format_role role;
	} suffixes[] = {
		{ "-journal", FORMAT_JOURNAL },
		{ "-wal", FORMAT_WAL },
		{ "-shm", FORMAT_SHM },
	};
	size_t length = strlen(name);

	*ret_base_length = (unsigned)length;
	for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
		size_t n = strlen(suffixes[i].suffix);

		if (length <= n || name[length - n - 1] == '/' ||
		    strcmp(name + length - n, suffixes[i].suffix) != 0)
			continue;
		*ret_base_length = (unsigned)(length - n);
		return suffixes[i].role;
	}
	return is_super_journal(name, length) ? FORMAT_SUPER : FORMAT_MAIN;
}
