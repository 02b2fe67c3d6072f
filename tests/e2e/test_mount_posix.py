"""The mount is a file system like the one beneath, for whatever an application does."""
import contextlib
import errno
import fcntl
import mmap
import os
import pathlib
import shutil
import socket
import sqlite3
import stat
import struct
import subprocess
import sys
import time

import pytest

from harness import MountFailed, is_mounted, run

NOBODY = 65534

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def data(mount, file_bucket):
    """A mount over its own directory."""
    with mount(file_bucket) as mounted:
        yield mounted.point


@pytest.fixture
def shared(mount, file_bucket, work):
    """One that everybody may use."""
    for directory in [work, *work.parents]:
        if directory != pathlib.Path("/tmp") and str(directory).startswith("/tmp"):
            directory.chmod(0o755)
    with mount(file_bucket, "--allow-other") as mounted:
        mounted.point.chmod(0o777)
        yield mounted.point


def as_nobody(code, *arguments, groups=()):
    """Run Python as another user; its output."""
    result = subprocess.run(
        [sys.executable, "-c", "import os, sys, errno, stat\n" + code, *map(str, arguments)],
        user=NOBODY, group=NOBODY, extra_groups=groups, text=True, cwd="/", timeout=60,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert result.returncode == 0, result.stderr
    return result.stdout


def close_somehow(file):
    """The kernel may or may not tell that the file is out of reach."""
    with contextlib.suppress(OSError):
        file.close()


def refused(number, call, *arguments, **options):
    with pytest.raises(OSError) as failure:
        call(*arguments, **options)
    assert failure.value.errno == number, failure.value


# Names


def test_all_kinds_of_files_can_be_made_and_are_in_the_directory_beneath(
        mount, file_bucket, work):
    with mount(file_bucket) as mounted:
        data = mounted.point
        (data / "dir" / "sub").mkdir(parents=True)
        (data / "dir" / "file").write_bytes(b"content")
        (data / "link").symlink_to("dir/file")
        os.mkfifo(data / "fifo")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(data / "socket"))
        os.link(data / "dir" / "file", data / "second")
        assert (data / "link").read_bytes() == b"content"
        assert os.stat(data / "second").st_nlink == 2
    beneath = mounted.directory
    assert (beneath / "dir" / "sub").is_dir()
    assert (beneath / "second").read_bytes() == b"content"
    assert os.readlink(beneath / "link") == "dir/file"
    assert (beneath / "fifo").is_fifo()
    assert (beneath / "socket").is_socket()


def test_renames_replace_unless_told_not_to(data):
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)

    def renameat2(source, target, flags):
        if libc.renameat2(-100, bytes(data / source), -100, bytes(data / target), flags) < 0:
            raise OSError(ctypes.get_errno(), "renameat2")

    for name in ("a", "b", "c"):
        (data / name).write_text(name)
    os.rename(data / "a", data / "b")
    assert not (data / "a").exists()
    assert (data / "b").read_text() == "a"
    refused(errno.EEXIST, renameat2, "b", "c", 1)
    refused(errno.EINVAL, renameat2, "b", "c", 2)  # exchange: as many file systems
    (data / "dir" / "sub").mkdir(parents=True)
    (data / "dir" / "sub" / "inner").write_text("inner")
    refused(errno.ENOTEMPTY, os.rmdir, data / "dir")
    os.rename(data / "dir", data / "moved")
    assert (data / "moved" / "sub" / "inner").read_text() == "inner"
    assert sorted(os.listdir(data)) == ["b", "c", "moved"]


def test_the_state_directory_cannot_be_seen_or_made(data):
    hidden = data / ".litebucket"
    (data / "file").write_text("x")
    assert not hidden.exists()
    assert sorted(os.listdir(data)) == ["file"]
    refused(errno.ENOENT, os.rmdir, hidden)
    refused(errno.ENOENT, os.rename, hidden, data / "mine")
    refused(errno.EPERM, os.mkdir, hidden)
    refused(errno.EPERM, open, hidden, "w")
    refused(errno.EPERM, os.symlink, "file", hidden)
    refused(errno.EPERM, os.link, data / "file", hidden)
    refused(errno.EPERM, os.rename, data / "file", hidden)
    refused(errno.EPERM, os.mkfifo, hidden)
    # Elsewhere the name is a name like any other.
    (data / "sub").mkdir()
    (data / "sub" / ".litebucket").write_text("mine")
    assert os.listdir(data / "sub") == [".litebucket"]


def test_a_database_gets_no_second_name(data):
    db = sqlite3.connect(data / "app.db")
    db.execute("CREATE TABLE t(a)")
    refused(errno.EPERM, os.link, data / "app.db", data / "other.db")
    db.close()


def test_a_large_directory_lists_every_name_once(data):
    names = {f"file-{number:05}" for number in range(3000)}
    for name in names:
        (data / name).touch()
    assert sorted(os.listdir(data)) == sorted(names)
    # Removing what was just read skips nothing.
    with os.scandir(data) as entries:
        for entry in entries:
            os.unlink(entry.path)
    assert os.listdir(data) == []


# Content


def test_truncation_appending_and_holes_give_the_same_bytes(data):
    path = data / "file"
    path.write_bytes(b"x" * 10000)
    os.truncate(path, 5000)
    with open(path, "ab") as file:
        file.write(b"end")
    assert path.read_bytes() == b"x" * 5000 + b"end"
    with open(path, "r+b") as file:
        file.truncate(10)
        file.seek(1 << 20)
        file.write(b"far")
    expected = b"x" * 10 + bytes((1 << 20) - 10) + b"far"
    assert path.read_bytes() == expected
    with open(path, "rb") as file:
        hole = os.lseek(file.fileno(), 0, os.SEEK_HOLE)
        assert hole < 1 << 20
        assert os.lseek(file.fileno(), hole, os.SEEK_DATA) > hole
    with open(path, "wb"):
        pass
    assert path.stat().st_size == 0


def test_a_mapping_and_read_see_the_same_in_two_processes(data):
    path = data / "file"
    path.write_bytes(bytes(8192))
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 8192) as mapping:
        mapping[5000:5005] = b"hello"
        assert run("dd", f"if={path}", "bs=1", "skip=5000", "count=5").stdout == "hello"
        run(sys.executable, "-c", f"open({str(path)!r}, 'r+b').write(b'start')")
        assert mapping[:5] == b"start"
    assert path.read_bytes()[5000:5005] == b"hello"


def test_direct_io_reads_and_writes(data):
    path = data / "file"
    block = mmap.mmap(-1, 8192)  # aligned
    block[:] = os.urandom(8192)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    assert os.pwrite(fd, block, 4096) == 8192
    os.close(fd)
    assert path.read_bytes() == bytes(4096) + block[:]


def test_an_open_file_outlives_its_name(data):
    with open(data / "file", "w+b") as file:
        file.write(b"before")
        file.flush()
        os.unlink(data / "file")
        file.write(b" and after")
        file.flush()
        (data / "file").write_bytes(b"another")
        file.seek(0)
        assert file.read() == b"before and after"
        assert os.fstat(file.fileno()).st_nlink == 0
        file.truncate(3)
        os.fsync(file.fileno())
        assert os.fstat(file.fileno()).st_size == 3
    assert (data / "file").read_bytes() == b"another"


def test_large_files_are_copied_whole(data, work):
    original = work / "original"
    with open(original, "wb") as file:
        for _ in range(64):
            file.write(os.urandom(1 << 20))
    shutil.copyfile(original, data / "copy")
    run("cmp", original, data / "copy")
    run("cp", data / "copy", data / "again")
    run("cmp", original, data / "again")


def test_a_file_of_which_memory_has_a_part_is_read_whole(mount, file_bucket, work):
    content = os.urandom(1 << 20)
    (work / "data").mkdir()
    path = work / "data" / "file"
    path.write_bytes(content)
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    for offset in range(0, len(content), 100_000):
        os.pread(fd, 4096, offset)
    os.close(fd)
    with mount(file_bucket) as mounted:
        assert (mounted / "file").read_bytes() == content


def test_allocating_and_punching_holes_work(data):
    path = data / "file"
    path.write_bytes(b"x" * 65536)
    run("fallocate", "--punch-hole", "--offset", "4096", "--length", "8192", path)
    assert path.read_bytes() == b"x" * 4096 + bytes(8192) + b"x" * (65536 - 12288)
    run("fallocate", "--length", "131072", path)
    assert path.stat().st_size == 131072


# Attributes


def test_times_modes_and_extended_attributes_are_kept(mount, file_bucket):
    with mount(file_bucket) as mounted:
        path = mounted / "file"
        path.write_text("x")
        os.chmod(path, 0o640)
        os.utime(path, ns=(1_000_000_001, 2_000_000_002))
        os.setxattr(path, "user.color", b"green")
        os.setxattr(path, "user.gone", b"x")
        os.removexattr(path, "user.gone")
        assert os.listxattr(path) == ["user.color"]
        refused(errno.ENODATA, os.getxattr, path, "user.gone")
        refused(errno.EEXIST, os.setxattr, path, "user.color", b"red", os.XATTR_CREATE)
    beneath = mounted.directory / "file"
    assert stat.S_IMODE(beneath.stat().st_mode) == 0o640
    assert beneath.stat().st_mtime_ns == 2_000_000_002
    assert os.getxattr(beneath, "user.color") == b"green"


def acl(*entries):
    """(tag, permissions, id) as the kernel stores them."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NO_ID = 0xffffffff


@root_only
def test_a_default_acl_decides_instead_of_the_umask(shared):
    directory = shared / "dir"
    directory.mkdir()
    rules = acl((1, 7, NO_ID), (2, 6, NOBODY), (4, 5, NO_ID), (16, 7, NO_ID), (32, 0, NO_ID))
    os.setxattr(directory, "system.posix_acl_default", rules)
    before = os.umask(0o077)
    try:
        (directory / "file").write_text("secret")
        (shared / "plain").write_text("plain")
    finally:
        os.umask(before)
    directory.chmod(0o755)
    assert stat.S_IMODE((directory / "file").stat().st_mode) == 0o660
    assert stat.S_IMODE((shared / "plain").stat().st_mode) == 0o600
    # The kernel lets in whom the ACL names, and nobody else.
    assert as_nobody("print(open(sys.argv[1]).read())", directory / "file") == "secret\n"
    as_nobody("""
try:
    open(sys.argv[1])
except PermissionError:
    sys.exit(0)
sys.exit('it could be read')""", shared / "plain")


@root_only
def test_what_a_user_makes_belongs_to_the_user(shared):
    as_nobody("""
os.chdir(sys.argv[1])
os.umask(0o027)
os.mkdir('dir')
open('file', 'w').close()
os.symlink('file', 'link')
os.mkfifo('fifo')
os.close(os.open('mode', os.O_CREAT | os.O_WRONLY, 0o4755))
""", shared)
    for name in ("dir", "file", "link", "fifo", "mode"):
        info = os.lstat(shared / name)
        assert (info.st_uid, info.st_gid) == (NOBODY, NOBODY), name
    assert stat.S_IMODE(os.stat(shared / "dir").st_mode) == 0o750
    assert stat.S_IMODE(os.stat(shared / "file").st_mode) == 0o640
    assert stat.S_IMODE(os.stat(shared / "mode").st_mode) == 0o4750


@root_only
def test_a_set_group_id_directory_gives_its_group(shared):
    (shared / "team").mkdir()
    os.chown(shared / "team", 0, 1234)
    os.chmod(shared / "team", 0o2777)
    as_nobody("os.chdir(sys.argv[1]); os.mkdir('dir'); open('file', 'w').close()",
              shared / "team")
    assert os.stat(shared / "team" / "file").st_gid == 1234
    assert os.stat(shared / "team" / "dir").st_gid == 1234
    assert os.stat(shared / "team" / "dir").st_mode & stat.S_ISGID


@root_only
def test_a_user_may_write_where_a_further_group_may(shared):
    (shared / "team").mkdir()
    os.chown(shared / "team", 0, 1234)
    os.chmod(shared / "team", 0o770)
    as_nobody("os.chdir(sys.argv[1]); os.mkdir('dir'); open('file', 'w').close()",
              shared / "team", groups=[1234])
    assert os.stat(shared / "team" / "file").st_uid == NOBODY


@root_only
def test_permissions_are_checked_for_the_caller(shared):
    (shared / "private").mkdir(mode=0o700)
    (shared / "private" / "file").write_text("x")
    (shared / "readonly").write_text("x")
    as_nobody("""
for call in (lambda: os.listdir(sys.argv[1] + '/private'),
             lambda: os.stat(sys.argv[1] + '/private/file'),
             lambda: open(sys.argv[1] + '/readonly', 'w'),
             lambda: os.chmod(sys.argv[1] + '/readonly', 0o777)):
    try:
        call()
    except PermissionError:
        continue
    sys.exit('something was allowed')
""", shared)


@root_only
def test_a_write_by_another_user_clears_set_user_id(shared):
    for name, change in (("written", "os.write(os.open(sys.argv[1], os.O_WRONLY), b'x')"),
                         ("truncated", "os.truncate(sys.argv[1], 1)"),
                         ("emptied", "open(sys.argv[1], 'w').close()")):
        path = shared / name
        path.write_text("program")
        path.chmod(0o6777)
        as_nobody(change, path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o777, name


# SQLite


INCREMENT = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
for _ in range(int(sys.argv[2])):
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE counter SET n = n + 1")
    connection.execute("INSERT INTO log(n) SELECT n FROM counter")
    connection.execute("COMMIT")
"""


@pytest.mark.parametrize("journal", ["wal", "delete", "truncate", "persist"])
def test_four_processes_lose_no_increment(data, soak, journal):
    each = soak(25, 500)
    path = data / "app.db"
    connection = sqlite3.connect(path, isolation_level=None)
    assert connection.execute(f"PRAGMA journal_mode={journal}").fetchone() == (journal,)
    connection.executescript("CREATE TABLE counter(n); INSERT INTO counter VALUES(0);"
                             "CREATE TABLE log(id INTEGER PRIMARY KEY, n)")
    writers = [subprocess.Popen([sys.executable, "-c", INCREMENT, str(path), str(each)])
               for _ in range(4)]
    assert [writer.wait(300) for writer in writers] == [0] * 4
    assert connection.execute("SELECT n FROM counter").fetchone() == (4 * each,)
    assert connection.execute("SELECT count(DISTINCT n) FROM log").fetchone() == (4 * each,)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_exclusive_locking_keeps_others_out(data):
    first = sqlite3.connect(data / "app.db", isolation_level=None)
    first.execute("PRAGMA locking_mode=EXCLUSIVE")
    first.execute("PRAGMA journal_mode=WAL")
    first.execute("CREATE TABLE t(a)")
    second = subprocess.run(
        [sys.executable, "-c", "import sqlite3, sys; "
         "sqlite3.connect(sys.argv[1], timeout=0.1).execute('SELECT * FROM t')",
         str(data / "app.db")], stderr=subprocess.PIPE, text=True, timeout=60)
    assert "database is locked" in second.stderr
    first.close()


# Programs


@pytest.mark.skipif(not shutil.which("git"), reason="no git")
def test_git_works_inside(data):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    repository = data / "repository"
    run(*git, "init", "-q", repository)
    for number in range(50):
        (repository / f"file-{number}").write_text(f"content {number}\n" * number)
    run(*git, "-C", repository, "add", ".")
    run(*git, "-C", repository, "commit", "-q", "-m", "all")
    run(*git, "clone", "-q", repository, data / "clone")
    run(*git, "-C", data / "clone", "fsck", "--strict")
    assert run(*git, "-C", data / "clone", "status", "--porcelain").stdout == ""
    shutil.rmtree(repository)


def test_tar_packs_and_unpacks_inside(data, work):
    source = data / "tree"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "deep" / "er" / "file").write_bytes(os.urandom(100000))
    (source / "link").symlink_to("deep/er/file")
    os.link(source / "deep" / "er" / "file", source / "hard")
    run("tar", "-C", source, "-cf", data / "tree.tar", ".")
    (data / "copy").mkdir()
    run("tar", "-C", data / "copy", "-xf", data / "tree.tar")
    run("diff", "-r", source, data / "copy")


# The life of the mount


def test_the_mount_says_what_it_is(data):
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        line = next(line for line in mounts if line.split()[1] == str(data))
    source, _, kind, options = line.split()[:4]
    assert kind == "fuse.litebucket"
    assert source == f"litebucket:{data}"
    assert {"nosuid", "nodev", "default_permissions"} <= set(options.split(","))


def test_mounting_twice_is_refused(mount, file_bucket):
    with mount(file_bucket) as mounted:
        (mounted / "file").write_text("x")
        with pytest.raises(MountFailed, match="mount"):
            with mount(file_bucket):
                pass
        assert (mounted / "file").read_text() == "x"


@pytest.mark.parametrize("place", ["in place", "elsewhere"])
def test_after_a_crash_files_are_out_of_reach_and_the_next_start_brings_them_back(
        mount, file_bucket, work, place):
    mounted = mount(file_bucket, name="files",
                    mountpoint=work / "point" if place == "elsewhere" else None)
    with mounted:
        (mounted / "file").write_text("x")
        held = open(mounted / "file", "rb")
        mounted.kill()
        refused(errno.ENOTCONN, os.listdir, mounted.point)
        refused(errno.ENOTCONN, open, mounted / "file", "a")
        refused(errno.ENOTCONN, open, mounted / "new", "w")
        mounted.start()
        assert (mounted / "file").read_text() == "x"
        refused(errno.ENOTCONN, os.fsync, held.fileno())
        close_somehow(held)


def test_a_stop_waits_for_a_transaction_to_end(mount, file_bucket):
    mounted = mount(file_bucket, "--stop-timeout", "20s")
    with mounted:
        connection = sqlite3.connect(mounted / "app.db", isolation_level=None)
        connection.executescript("CREATE TABLE t(a); BEGIN; INSERT INTO t VALUES(1)")
        process = mounted.forget_process()
        process.terminate()
        time.sleep(0.5)
        assert process.poll() is None
        connection.execute("COMMIT")
        connection.close()
        assert process.wait(15) == 0
    assert not is_mounted(mounted.point)
    beneath = sqlite3.connect(mounted.directory / "app.db")
    assert beneath.execute("SELECT a FROM t").fetchall() == [(1,)]


def test_an_unmount_from_outside_ends_the_program(mount, file_bucket):
    mounted = mount(file_bucket)
    with mounted:
        process = mounted.forget_process()
        run("umount", mounted.point)
        assert process.wait(30) == 0


def test_many_programs_at_once_are_all_served(data):
    """More that wait (fsync) than there are workers, and others go on."""
    code = """
import os, sys
fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
for number in range(20):
    os.write(fd, b'x' * 4096)
    os.fsync(fd)
"""
    writers = [subprocess.Popen([sys.executable, "-c", code, str(data / f"file-{number}")])
               for number in range(24)]
    for _ in range(100):
        os.listdir(data)
    assert [writer.wait(120) for writer in writers] == [0] * 24
    assert {os.stat(data / f"file-{n}").st_size for n in range(24)} == {20 * 4096}


def test_a_lock_of_one_process_is_seen_by_another(data):
    path = data / "file"
    path.touch()
    with open(path, "r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        other = run(sys.executable, "-c",
                    f"import fcntl; fcntl.lockf(open({str(path)!r}, 'r+b'), "
                    "fcntl.LOCK_EX | fcntl.LOCK_NB)", check=False)
        assert other.returncode == 1 and "BlockingIOError" in other.stderr
