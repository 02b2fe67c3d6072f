#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/io.h"
#include "ltx/header.h"

#include "capture/position.h"

enum { POSITION_FORMAT = 1, POSITION_SIZE_MAX = 4096 };

/* The value of "key=" in text, as an unsigned number of this base. */
static int field(const char *text, const char *key, int base, uint64_t *ret)
{
	size_t length = strlen(key);
	char *end;

	for (const char *line = text; line && *line;
	     line = strchr(line, '\n'), line = line ? line + 1 : NULL) {
		if (strncmp(line, key, length) != 0 || line[length] != '=')
			continue;
		errno = 0;
		*ret = strtoull(line + length + 1, &end, base);
		if (errno || end == line + length + 1 || *end != '\n')
			break;
		return 0;
	}
	return error_set(-ERR_CORRUPT, "no valid '%s' in it", key);
}

/* As field(), for what earlier versions did not write. */
static int field_or(const char *text, const char *key, int base,
		    uint64_t fallback, uint64_t *ret)
{
	char line[64];
	size_t length = strlen(key);

	(void)snprintf(line, sizeof(line), "\n%s=", key);
	if (!strstr(text, line) && strncmp(text, line + 1, length + 1) != 0) {
		*ret = fallback;
		return 0;
	}
	return field(text, key, base, ret);
}

/* Before anything else: what else there is depends on it. */
static int check_format(const char *text)
{
	uint64_t format;
	int rc = field(text, "format", 10, &format);

	if (rc < 0 || format == POSITION_FORMAT)
		return rc;
	return error_set(-ERR_CORRUPT,
			 "format %" PRIu64
			 " is of a newer litebucket; use that one",
			 format);
}

/* A commit of 32 bits, and a page size that a database can have, or none. */
static int check_size(uint64_t page_size, uint64_t commit)
{
	if (page_size > UINT32_MAX ||
	    (page_size && !ltx_page_size_valid((uint32_t)page_size)))
		return error_set(-ERR_CORRUPT, "no valid 'page-size' in it");
	if (commit > UINT32_MAX)
		return error_set(-ERR_CORRUPT, "no valid 'commit' in it");
	return 0;
}

/* Of a key that earlier versions did not write: value stays as it is. */
static void optional(const char *text, const char *key, uint64_t *value)
{
	(void)field(text, key, 10, value);
}

/* The text behind "key=", up to the end of the line, if it fits. */
static void word(const char *text, const char *key, char *ret, size_t size)
{
	size_t length = strlen(key);

	for (const char *line = text; line && *line;
	     line = strchr(line, '\n'), line = line ? line + 1 : NULL) {
		size_t n;

		if (strncmp(line, key, length) != 0 || line[length] != '=')
			continue;
		line += length + 1;
		n = strcspn(line, "\n");
		if (n < size)
			(void)snprintf(ret, size, "%.*s", (int)n, line);
		return;
	}
}

static void parse_whereabouts(const char *text, struct position *ret)
{
	uint64_t counter = 0, salt1 = 0, salt2 = 0;

	word(text, "boot", ret->boot, sizeof(ret->boot));
	optional(text, "change-counter", &counter);
	optional(text, "wal-salt-1", &salt1);
	optional(text, "wal-salt-2", &salt2);
	optional(text, "wal-end", &ret->wal_end);
	ret->change_counter = (uint32_t)counter;
	ret->wal_salt[0] = (uint32_t)salt1;
	ret->wal_salt[1] = (uint32_t)salt2;
}

static int parse(const char *text, struct position *ret)
{
	uint64_t page_size, commit, dropped, time, mtime, ctime,
		wal_mtime;
	const struct {
		const char *key;
		int base;
		uint64_t *value;
	} fields[] = {
		{ "txid", 16, &ret->txid },
		{ "checksum", 16, &ret->dbsum },
		{ "page-size", 10, &page_size },
		{ "commit", 10, &commit },
		{ "timestamp-ms", 10, &time },
		{ "dropped", 10, &dropped },
		{ "clean", 16, &ret->clean },
		{ "main-size", 10, &ret->main_size },
		{ "main-mtime-ns", 10, &mtime },
		{ "main-ctime-ns", 10, &ctime },
		{ "wal-size", 10, &ret->wal_size },
		{ "wal-mtime-ns", 10, &wal_mtime },
	};

	int rc = check_format(text);

	for (size_t i = 0; rc == 0 && i < sizeof(fields) / sizeof(fields[0]);
	     i++)
		rc = field(text, fields[i].key, fields[i].base,
			   fields[i].value);
	if (rc == 0)
		rc = field_or(text, "known", 16, ret->dbsum, &ret->known);
	if (rc == 0)
		rc = check_size(page_size, commit);
	if (rc < 0)
		return rc;
	ret->page_size = (uint32_t)page_size;
	ret->commit = (uint32_t)commit;
	ret->timestamp_ms = (int64_t)time;
	ret->dropped = dropped != 0;
	ret->main_mtime_ns = (int64_t)mtime;
	ret->main_ctime_ns = (int64_t)ctime;
	ret->wal_mtime_ns = (int64_t)wal_mtime;
	parse_whereabouts(text, ret);
	return 0;
}

int position_load(int dirfd, const char *path, struct position *ret)
{
	AUTO(buf) struct buf text = BUF_INIT(POSITION_SIZE_MAX);
	struct position p = { 0 };
	int rc = io_read_file(dirfd, path, &text);

	if (rc < 0)
		return rc;
	rc = parse(text.data ? text.data : "", &p);
	if (rc < 0)
		return error_wrap(rc, "reading '%s'", path);
	*ret = p;
	return 0;
}

int position_store(int dirfd, const char *path, const struct position *p)
{
	char text[POSITION_SIZE_MAX];
	int n = snprintf(text, sizeof(text),
			 "format=%d\n"
			 "txid=%016" PRIx64 "\n"
			 "checksum=%016" PRIx64 "\n"
			 "known=%016" PRIx64 "\n"
			 "page-size=%u\n"
			 "commit=%u\n"
			 "timestamp-ms=%" PRId64 "\n"
			 "dropped=%d\n"
			 "clean=%016" PRIx64 "\n"
			 "main-size=%" PRIu64 "\n"
			 "main-mtime-ns=%" PRId64 "\n"
			 "main-ctime-ns=%" PRId64 "\n"
			 "wal-size=%" PRIu64 "\n"
			 "wal-mtime-ns=%" PRId64 "\n"
			 "boot=%s\n"
			 "change-counter=%u\n"
			 "wal-salt-1=%u\n"
			 "wal-salt-2=%u\n"
			 "wal-end=%" PRIu64 "\n",
			 POSITION_FORMAT, p->txid, p->dbsum, p->known,
			 p->page_size,
			 p->commit, p->timestamp_ms, p->dropped, p->clean,
			 p->main_size, p->main_mtime_ns, p->main_ctime_ns,
			 p->wal_size, p->wal_mtime_ns, p->boot,
			 p->change_counter, p->wal_salt[0], p->wal_salt[1],
			 p->wal_end);

	return io_write_atomically(dirfd, path, text, (size_t)n);
}
