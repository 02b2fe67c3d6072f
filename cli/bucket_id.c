#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/io.h"

#include "cli/bucket_id.h"

#define FILE_NAME ".litebucket/bucket"

int bucket_id_read(int dirfd, char ret[CATALOG_ID_SIZE])
{
	AUTO(buf) struct buf text = BUF_INIT(256);
	int rc = io_read_file(dirfd, FILE_NAME, &text);

	if (rc == -ENOENT) {
		ret[0] = '\0';
		return 0;
	}
	if (rc < 0 && rc != -EFBIG)
		return error_wrap(rc, "reading which bucket it belongs to");
	if (text.size == CATALOG_ID_SIZE && text.data[text.size - 1] == '\n')
		text.data[text.size - 1] = '\0';
	if (rc < 0 || !text.data || !catalog_id_valid(text.data))
		return error_set(-ERR_CORRUPT,
				 "'" FILE_NAME "' holds no bucket's id; if the "
				 "bucket is the right one, remove that file");
	memcpy(ret, text.data, CATALOG_ID_SIZE);
	return 0;
}

int bucket_id_write(int dirfd, const char *id)
{
	char line[CATALOG_ID_SIZE];
	int rc = io_make_dirs(dirfd, ".litebucket", 0700);

	memcpy(line, id, CATALOG_ID_SIZE - 1);
	line[CATALOG_ID_SIZE - 1] = '\n';
	if (rc == 0)
		rc = io_write_atomically(dirfd, FILE_NAME, line, sizeof(line));
	return rc < 0 ? error_wrap(rc, "noting which bucket it belongs to") : 0;
}
