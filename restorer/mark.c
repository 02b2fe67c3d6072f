#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/io.h"
#include "ltx/crc64.h"

#include "restorer/mark.h"

enum { STATE_SIZE = 32, RECORD_SIZE = 8 + 2 * STATE_SIZE + 40 + 24 + 8 };

static const char magic[8] = "lbmark1";

static void put_state(uint8_t *p, const struct mark_state *s)
{
	put_le64(p, s->txid);
	put_le64(p + 8, s->dbsum);
	put_le64(p + 16, (uint64_t)s->timestamp_ms);
	p[24] = s->format[0];
	p[25] = s->format[1];
	p[26] = s->dropped;
}

static void get_state(const uint8_t *p, struct mark_state *ret)
{
	ret->txid = get_le64(p);
	ret->dbsum = get_le64(p + 8);
	ret->timestamp_ms = (int64_t)get_le64(p + 16);
	ret->format[0] = p[24];
	ret->format[1] = p[25];
	ret->dropped = p[26];
}

int mark_load(int fd, struct mark *ret)
{
	uint8_t data[RECORD_SIZE];
	const uint8_t *p = data + sizeof(magic);
	ssize_t n = io_pread(fd, data, sizeof(data), 0);

	if (n < 0)
		return error_wrap((int)n, "reading a replica's position");
	if (n == 0)
		return -ENOENT;
	if (n != RECORD_SIZE || memcmp(data, magic, sizeof(magic)) != 0 ||
	    ltx_crc64(0, data, RECORD_SIZE - 8) !=
		    get_le64(data + RECORD_SIZE - 8))
		return error_set(-ERR_CORRUPT,
				 "a replica's position cannot be read");
	memset(ret, 0, sizeof(*ret));
	get_state(p, &ret->done);
	get_state(p + STATE_SIZE, &ret->begun);
	p += (size_t)2 * STATE_SIZE;
	memcpy(ret->boot, p, BOOT_ID_SIZE - 1);
	p += 40;
	ret->inode = get_le64(p);
	ret->size = get_le64(p + 8);
	ret->mtime_ns = (int64_t)get_le64(p + 16);
	return 0;
}

int mark_store(int fd, const struct mark *m)
{
	uint8_t data[RECORD_SIZE] = { 0 };
	uint8_t *p = data + sizeof(magic);
	int rc;

	memcpy(data, magic, sizeof(magic));
	put_state(p, &m->done);
	put_state(p + STATE_SIZE, &m->begun);
	p += (size_t)2 * STATE_SIZE;
	memcpy(p, m->boot, BOOT_ID_SIZE - 1);
	p += 40;
	put_le64(p, m->inode);
	put_le64(p + 8, m->size);
	put_le64(p + 16, (uint64_t)m->mtime_ns);
	put_le64(data + RECORD_SIZE - 8, ltx_crc64(0, data, RECORD_SIZE - 8));
	rc = io_pwrite(fd, data, sizeof(data), 0);
	return rc < 0 ? error_wrap(rc, "writing a replica's position") : 0;
}
