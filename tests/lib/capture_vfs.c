#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sqlite3.h>

#include "capture/capture.h"

#include "tests/lib/capture_vfs.h"

static struct {
	struct capture *capture;
	char directory[4096];
	int dirfd;
	capture_vfs_hook hook;
	void *hook_arg;
	capture_vfs_confirm confirm;
	void *confirm_arg;
	sqlite3_vfs *real;
} vfs_state;

struct file {
	sqlite3_file base;
	struct capture_file *capture; /* NULL: not in the directory */
	int fd;
	char path[1024]; /* below the directory */
	sqlite3_file real[];
};

static struct file *file_of(sqlite3_file *f)
{
	return (struct file *)f;
}

static sqlite3_file *real_of(sqlite3_file *f)
{
	return file_of(f)->real;
}

static bool hooked(const char *what, const char *path, uint64_t offset)
{
	if (!vfs_state.hook)
		return false;
	return vfs_state.hook(what, path, offset, vfs_state.hook_arg) != 0;
}

/* After a call; done: it was.  The database, if any, is given back. */
static bool confirmed(bool done, struct db *db)
{
	if (done && db && vfs_state.confirm)
		done = vfs_state.confirm(db, vfs_state.confirm_arg) == 0;
	capture_forget_db(db);
	return done;
}

static int vfs_close(sqlite3_file *f)
{
	struct file *file = file_of(f);
	int rc = file->real->pMethods ? real_of(f)->pMethods->xClose(real_of(f))
				      : SQLITE_OK;

	if (file->capture) {
		capture_closed(file->capture, true);
		capture_file_put(file->capture);
		(void)close(file->fd);
	}
	return rc;
}

static int vfs_read(sqlite3_file *f, void *data, int n, sqlite3_int64 offset)
{
	return real_of(f)->pMethods->xRead(real_of(f), data, n, offset);
}

static int vfs_write(sqlite3_file *f, const void *data, int n,
		     sqlite3_int64 offset)
{
	struct file *file = file_of(f);
	struct db *db = NULL;
	bool fails;
	ssize_t rc;

	if (!file->capture)
		return real_of(f)->pMethods->xWrite(real_of(f), data, n, offset);
	(void)capture_may_wait(file->capture, CAPTURE_WRITE, data, (size_t)n,
			       (uint64_t)offset, &db);
	fails = hooked("write", file->path, (uint64_t)offset);
	rc = capture_write(file->capture, fails ? -1 : file->fd, data,
			   (size_t)n, (uint64_t)offset);
	return confirmed(rc == n, db) ? SQLITE_OK : SQLITE_IOERR_WRITE;
}

static int vfs_truncate(sqlite3_file *f, sqlite3_int64 size)
{
	struct file *file = file_of(f);
	struct db *db = NULL;
	bool fails;
	int rc;

	if (!file->capture)
		return real_of(f)->pMethods->xTruncate(real_of(f), size);
	(void)capture_may_wait(file->capture, CAPTURE_TRUNCATE, NULL, 0,
			       (uint64_t)size, &db);
	fails = hooked("truncate", file->path, (uint64_t)size);
	rc = capture_truncate(file->capture, fails ? -1 : file->fd,
			      (uint64_t)size);
	return confirmed(rc == 0, db) ? SQLITE_OK : SQLITE_IOERR_TRUNCATE;
}

static int vfs_sync(sqlite3_file *f, int flags)
{
	if (file_of(f)->capture && hooked("sync", file_of(f)->path, 0))
		return SQLITE_IOERR_FSYNC;
	return real_of(f)->pMethods->xSync(real_of(f), flags);
}

static int vfs_size(sqlite3_file *f, sqlite3_int64 *ret)
{
	return real_of(f)->pMethods->xFileSize(real_of(f), ret);
}

static int vfs_lock(sqlite3_file *f, int level)
{
	return real_of(f)->pMethods->xLock(real_of(f), level);
}

static int vfs_unlock(sqlite3_file *f, int level)
{
	return real_of(f)->pMethods->xUnlock(real_of(f), level);
}

static int vfs_check(sqlite3_file *f, int *ret)
{
	return real_of(f)->pMethods->xCheckReservedLock(real_of(f), ret);
}

static int vfs_control(sqlite3_file *f, int op, void *arg)
{
	/* These would write behind our back. */
	if (op == SQLITE_FCNTL_SIZE_HINT || op == SQLITE_FCNTL_CHUNK_SIZE)
		return SQLITE_OK;
	return real_of(f)->pMethods->xFileControl(real_of(f), op, arg);
}

static int vfs_sector(sqlite3_file *f)
{
	return real_of(f)->pMethods->xSectorSize(real_of(f));
}

static int vfs_device(sqlite3_file *f)
{
	return real_of(f)->pMethods->xDeviceCharacteristics(real_of(f));
}

static int vfs_shm_map(sqlite3_file *f, int page, int size, int extend,
		       void volatile **ret)
{
	return real_of(f)->pMethods->xShmMap(real_of(f), page, size, extend,
					     ret);
}

static int vfs_shm_lock(sqlite3_file *f, int offset, int n, int flags)
{
	return real_of(f)->pMethods->xShmLock(real_of(f), offset, n, flags);
}

static void vfs_shm_barrier(sqlite3_file *f)
{
	real_of(f)->pMethods->xShmBarrier(real_of(f));
}

static int vfs_shm_unmap(sqlite3_file *f, int delete)
{
	return real_of(f)->pMethods->xShmUnmap(real_of(f), delete);
}

static const sqlite3_io_methods methods = {
	.iVersion = 2,
	.xClose = vfs_close,
	.xRead = vfs_read,
	.xWrite = vfs_write,
	.xTruncate = vfs_truncate,
	.xSync = vfs_sync,
	.xFileSize = vfs_size,
	.xLock = vfs_lock,
	.xUnlock = vfs_unlock,
	.xCheckReservedLock = vfs_check,
	.xFileControl = vfs_control,
	.xSectorSize = vfs_sector,
	.xDeviceCharacteristics = vfs_device,
	.xShmMap = vfs_shm_map,
	.xShmLock = vfs_shm_lock,
	.xShmBarrier = vfs_shm_barrier,
	.xShmUnmap = vfs_shm_unmap,
};

/* The path below the directory, or NULL. */
static const char *below(const char *path)
{
	size_t length = strlen(vfs_state.directory);

	if (!path || strncmp(path, vfs_state.directory, length) != 0 ||
	    path[length] != '/')
		return NULL;
	return path + length + 1;
}

static int vfs_open(sqlite3_vfs *vfs, const char *path, sqlite3_file *f,
		    int flags, int *ret_flags)
{
	struct file *file = file_of(f);
	const char *name = below(path);
	int rc;

	memset(file, 0, sizeof(*file));
	file->base.pMethods = NULL;
	file->real->pMethods = NULL;
	rc = vfs_state.real->xOpen(vfs_state.real, path, file->real, flags,
				   ret_flags);
	if (rc != SQLITE_OK)
		return rc;
	file->base.pMethods = &methods;
	if (!name)
		return SQLITE_OK;
	(void)snprintf(file->path, sizeof(file->path), "%s", name);
	file->fd = open(path, O_RDWR | O_CLOEXEC);
	if (file->fd < 0 ||
	    capture_file_get(vfs_state.capture, name, &file->capture) < 0)
		return SQLITE_CANTOPEN;
	capture_opened(file->capture, true);
	return SQLITE_OK;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *path, int sync_dir)
{
	const char *name = below(path);
	struct db *db = NULL;
	bool fails;
	int rc;

	if (!name)
		return vfs_state.real->xDelete(vfs_state.real, path, sync_dir);
	(void)capture_path_may_wait(vfs_state.capture, name, CAPTURE_UNLINK,
				    &db);
	fails = hooked("unlink", name, 0);
	rc = capture_unlink(vfs_state.capture, fails ? -1 : vfs_state.dirfd,
			    name, name);
	if (confirmed(rc == 0, db))
		return SQLITE_OK;
	return rc == -ENOENT ? SQLITE_IOERR_DELETE_NOENT : SQLITE_IOERR_DELETE;
}

void capture_vfs_use(struct capture *c, const char *directory, int dirfd)
{
	static sqlite3_vfs vfs;

	vfs_state.capture = c;
	(void)snprintf(vfs_state.directory, sizeof(vfs_state.directory), "%s",
		       directory);
	vfs_state.dirfd = dirfd;
	if (vfs_state.real)
		return;
	vfs_state.real = sqlite3_vfs_find("unix");
	vfs = *vfs_state.real;
	vfs.pNext = NULL;
	vfs.zName = "capture";
	vfs.szOsFile = (int)sizeof(struct file) + vfs_state.real->szOsFile;
	vfs.xOpen = vfs_open;
	vfs.xDelete = vfs_delete;
	(void)sqlite3_vfs_register(&vfs, 0);
}

void capture_vfs_set_hook(capture_vfs_hook hook, void *arg)
{
	vfs_state.hook = hook;
	vfs_state.hook_arg = arg;
}

void capture_vfs_set_confirm(capture_vfs_confirm confirm, void *arg)
{
	vfs_state.confirm = confirm;
	vfs_state.confirm_arg = arg;
}

int capture_vfs_settle(struct capture *c, const char *path, uint64_t *ret_txid)
{
	int rc;

	do {
		rc = capture_settle(c, path, ret_txid);
	} while (rc == -EINPROGRESS);
	return rc;
}
