#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/io.h"

#include "base/boot.h"

static const char *pretended(void)
{
#ifdef LITEBUCKET_FAILPOINTS
	return getenv("LITEBUCKET_BOOT");
#else
	return NULL;
#endif
}

void boot_id(char ret[BOOT_ID_SIZE])
{
	AUTO(buf) struct buf text = BUF_INIT(256);
	const char *id = pretended();

	if (!id && io_read_file(AT_FDCWD, "/proc/sys/kernel/random/boot_id",
				&text) == 0)
		id = text.data;
	(void)snprintf(ret, BOOT_ID_SIZE, "%.*s",
		       id ? (int)strcspn(id, "\n") : 0, id ? id : "");
}
