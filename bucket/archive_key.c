#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "ltx/name.h"

#include "bucket/archive.h"

/*
 * The longest DB part: room for "/0009/<min>-<max>.ltx" and the prefix of the
 * bucket's URL in the 1024 bytes that S3 takes.
 */
enum { DB_MAX = 767 };

/* What an error shows of a name, in bytes. */
enum { SHOWN_MAX = 200 };

static bool is_plain(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

static bool is_lower_hex(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

/* Would this path component be taken for one of ours? */
static bool is_reserved(const char *component, size_t length)
{
	static const char *const names[] = { "lock.json", "catalog.json", "ltx",
					     "staged", "generations" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strlen(names[i]) == length &&
		    memcmp(names[i], component, length) == 0)
			return true;
	return length == 4 && is_lower_hex(component[0]) &&
	       is_lower_hex(component[1]) && is_lower_hex(component[2]) &&
	       is_lower_hex(component[3]);
}

static bool is_dots(const char *component, size_t length)
{
	return (length == 1 && component[0] == '.') ||
	       (length == 2 && component[0] == '.' && component[1] == '.');
}

/* Append one component; returns its escaped length, or -ENAMETOOLONG. */
static int escape_component(const char *component, size_t length, char *out,
			    size_t room)
{
	bool reserved = is_reserved(component, length);
	size_t n = 0;

	if (room > NAME_MAX)
		room = NAME_MAX;
	for (size_t i = 0; i < length; i++) {
		bool plain = is_plain(component[i]) && !(reserved && i == 0);
		size_t more = plain ? 1 : 3;

		if (n + more > room)
			return -ENAMETOOLONG;
		if (plain)
			out[n] = component[i];
		else
			(void)snprintf(out + n, 4, "=%02X",
				       (unsigned char)component[i]);
		n += more;
	}
	return (int)n;
}

/* How much of a long name a sentence shows: no character is cut in two. */
static int shown_length(const char *path)
{
	size_t n = strlen(path);

	if (n <= SHOWN_MAX)
		return (int)n;
	n = SHOWN_MAX;
	while (n > 0 && ((unsigned char)path[n] & 0xc0) == 0x80)
		n--;
	return (int)n;
}

static int name_too_long(const char *path)
{
	return error_set(-ENAMETOOLONG,
			 "the name '%.*s%s' is too long for keys in a bucket",
			 shown_length(path), path,
			 strlen(path) > SHOWN_MAX ? "..." : "");
}

int archive_escape(const char *path, char ret[BUCKET_KEY_MAX])
{
	char db[DB_MAX + 1];
	size_t n = 0;

	for (const char *p = path;;) {
		size_t length = strcspn(p, "/");
		int used;

		if (length == 0 || is_dots(p, length))
			return error_set(-EINVAL, "'%s' is no path of a "
					 "database below a directory", path);
		used = escape_component(p, length, db + n, DB_MAX - n);
		if (used < 0)
			return name_too_long(path);
		n += (size_t)used;
		p += length;
		if (*p == '\0')
			break;
		if (n + 1 >= DB_MAX)
			return name_too_long(path);
		db[n++] = '/';
		p++;
	}
	db[n] = '\0';
	memcpy(ret, db, n + 1);
	return 0;
}

static int upper_hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static int not_escaped(const char *db)
{
	return error_set(-EINVAL, "'%.200s' is no escaped name of a database",
			 db);
}

int archive_unescape(const char *db, char ret[BUCKET_KEY_MAX])
{
	char path[BUCKET_KEY_MAX], again[BUCKET_KEY_MAX];
	size_t n = 0;

	if (strlen(db) > DB_MAX)
		return not_escaped(db);
	for (const char *p = db; *p; p++) {
		if (*p != '=') {
			path[n++] = *p;
			continue;
		}
		int high = upper_hex(p[1]);
		int low = high < 0 ? -1 : upper_hex(p[2]);

		if (low < 0 || (high == 0 && low == 0))
			return not_escaped(db);
		path[n++] = (char)(high << 4 | low);
		p += 2;
	}
	path[n] = '\0';
	/* One path has one name: what does not come back is not ours. */
	if (archive_escape(path, again) < 0 || strcmp(again, db) != 0)
		return not_escaped(db);
	memcpy(ret, path, n + 1);
	return 0;
}

int archive_key(const char *db, unsigned level, uint64_t min_txid,
		uint64_t max_txid, char ret[BUCKET_KEY_MAX])
{
	char key[BUCKET_KEY_MAX], name[LTX_NAME_SIZE];
	int n;

	ltx_name_format(min_txid, max_txid, name);
	n = snprintf(key, sizeof(key), "%s%s%04x/%s", db, *db ? "/" : "", level,
		     name);
	if (n >= (int)sizeof(key))
		return error_set(-ENAMETOOLONG, "the key of '%.200s...' is too "
				 "long", db);
	memcpy(ret, key, (size_t)n + 1);
	return 0;
}

/* "0009" at p, before the "/" that precedes the file's name. */
static int parse_level(const char *p, unsigned *ret)
{
	if (memcmp(p, "000", 3) != 0 || p[3] < '0' ||
	    p[3] >= '0' + ARCHIVE_LEVELS)
		return -EINVAL;
	*ret = (unsigned)(p[3] - '0');
	return 0;
}

int archive_parse_key(const char *key, char ret_db[BUCKET_KEY_MAX],
		      struct archive_file *ret_file)
{
	const char *slash = strrchr(key, '/');
	size_t before = slash ? (size_t)(slash - key) : 0;
	struct archive_file file = *ret_file;

	if (before < 4 || before >= BUCKET_KEY_MAX ||
	    (before > 4 && (before < 6 || key[before - 5] != '/')) ||
	    parse_level(key + before - 4, &file.level) < 0 ||
	    ltx_name_parse(slash + 1, &file.min_txid, &file.max_txid) < 0)
		return -EINVAL;
	/* DB, without the "/" that parts it from the level. */
	before -= before > 4 ? 5 : 4;
	memcpy(ret_db, key, before);
	ret_db[before] = '\0';
	*ret_file = file;
	return 0;
}
