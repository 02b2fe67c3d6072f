"""The file system that fails on demand does what the tests of faults believe."""
import errno
import mmap
import os
import sqlite3
import sys

import pytest

import harness

WRITER = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(f"PRAGMA journal_mode={sys.argv[2]}")
connection.execute(f"PRAGMA synchronous={sys.argv[3]}")
connection.execute("CREATE TABLE t(n)")
connection.execute("INSERT INTO t VALUES (1), (2)")
os._exit(0)
"""


def write(path, data, sync=False, flags=0):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | flags)
    try:
        os.write(fd, data)
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


def test_what_was_synced_stays_and_the_rest_is_lost(disk):
    d = disk()
    write(d.path / "synced", b"a" * 5000, sync=True)
    write(d.path / "osync", b"s" * 100, flags=os.O_SYNC)
    write(d.path / "unsynced", b"b" * 5000)
    write(d.path / "synced", b"c" * 10)
    os.truncate(d.path / "osync", 3)
    assert (d.path / "synced").read_bytes() == b"c" * 10 + b"a" * 4990
    assert d.lose() == 3
    assert (d.path / "synced").read_bytes() == b"a" * 5000
    assert (d.path / "osync").read_bytes() == b"s" * 100
    assert (d.path / "unsynced").read_bytes() == b""
    assert d.lose() == 0


def test_some_of_what_was_not_synced_may_survive(disk):
    d = disk()
    write(d.path / "file", b"a" * 51200, sync=True)
    write(d.path / "file", b"b" * 51200)
    d.lose(percent=50)
    data = (d.path / "file").read_bytes()
    sectors = {data[at:at + 512] for at in range(0, 51200, 512)}
    assert sectors == {b"a" * 512, b"b" * 512}


def test_a_mapping_sees_writes(disk):
    d = disk()
    write(d.path / "file", b"a" * 8192)
    with open(d.path / "file", "rb") as file:
        fd = os.open(d.path / "file", os.O_WRONLY)
        view = mmap.mmap(file.fileno(), 8192, mmap.MAP_SHARED, mmap.PROT_READ)
        assert view[4096:4097] == b"a"
        os.pwrite(fd, b"z", 4096)
        assert view[4096:4097] == b"z"
        view.close()
        os.close(fd)


@pytest.mark.parametrize("synced", [False, True])
def test_names_are_lost_only_if_asked_for_and_not_synced(disk, synced):
    d = disk("--names")
    write(d.path / "kept", b"1", sync=True)
    write(d.path / "gone", b"2", sync=True)
    directory = os.open(d.path, os.O_RDONLY)
    os.fsync(directory)
    write(d.path / "new", b"3", sync=True)
    os.rename(d.path / "new", d.path / "kept")
    os.unlink(d.path / "gone")
    os.mkdir(d.path / "directory")
    if synced:
        os.fsync(directory)
    os.close(directory)
    d.lose()
    found = {name: (d.path / name).read_bytes() for name in os.listdir(d.path) if name != "directory"}
    assert found == ({"kept": b"3"} if synced else {"kept": b"1", "gone": b"2"})
    assert (d.path / "directory").exists() == synced


def test_operations_fail_as_told_and_only_those(disk):
    d = disk()
    write(d.path / "a", b"1")
    d.fail("write", "EIO", "a", skip=1, count=1)
    d.fail("create,unlink", "ENOSPC", "b*")
    write(d.path / "a", b"1")
    with pytest.raises(OSError) as failure:
        write(d.path / "a", b"2")
    assert failure.value.errno == errno.EIO
    write(d.path / "a", b"3")
    with pytest.raises(OSError) as failure:
        write(d.path / "bb", b"1")
    assert failure.value.errno == errno.ENOSPC
    assert d.heal() == 2
    write(d.path / "bb", b"1")


def test_a_full_disk_takes_writes_that_need_no_room(disk):
    d = disk()
    write(d.path / "a", b"12345")
    d.fail("grow", "ENOSPC", "*")
    write(d.path / "a", b"54321")
    with pytest.raises(OSError):
        write(d.path / "a", b"123456")
    os.truncate(d.path / "a", 2)


def test_what_a_failed_fsync_did_not_write_is_never_written(disk):
    d = disk()
    write(d.path / "a", b"old", sync=True)
    d.fail("fsync", "EIO", "a", count=1)
    with pytest.raises(OSError):
        write(d.path / "a", b"new", sync=True)
    fd = os.open(d.path / "a", os.O_WRONLY)
    os.fsync(fd)
    os.close(fd)
    assert (d.path / "a").read_bytes() == b"new"
    d.lose()
    assert (d.path / "a").read_bytes() == b"old"


@pytest.mark.parametrize("journal", ["delete", "wal"])
@pytest.mark.parametrize("synchronous, kept", [("off", False), ("full", True)])
def test_sqlite_keeps_what_it_synced(disk, journal, synchronous, kept):
    d = disk()
    # It ends without closing: a WAL stays.
    harness.run(sys.executable, "-c", WRITER, d.path / "app.db", journal, synchronous)
    d.lose()
    other = sqlite3.connect(d.path / "app.db")
    try:
        if kept:
            assert other.execute("SELECT n FROM t").fetchall() == [(1,), (2,)]
            assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        else:
            with pytest.raises(sqlite3.Error):
                other.execute("SELECT n FROM t").fetchall()
    finally:
        other.close()
