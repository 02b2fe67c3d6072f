"""The disk fails: SQLite gets the error that it would get without us, and none of ours.

The same program runs on a disk that fails (tests/lib/faultfs.c), directly and
through the mount, with the same faults.
"""
import json
import sqlite3
import sys

import pytest

import harness
from crash import Past
from harness import assert_intact, assert_same_bytes, copy_at_rest, litebucket, restore, sync

CLIENT = harness.ROOT / "tests" / "lib" / "faulty_client.py"

EVER = 1 << 31

# (journal, operations, error, suffix of the database's name)
DATABASE_FAULTS = [
    (journal, operations, error, suffix)
    for journal, suffixes in (("wal", ["", "-wal"]), ("delete", ["", "-journal"]),
                              ("truncate", ["", "-journal"]), ("persist", ["", "-journal"]))
    for suffix in suffixes
    for operations, error in (("write", "EIO"), ("grow", "ENOSPC"), ("fsync", "EIO"),
                              ("truncate", "EIO"), ("unlink", "EIO"), ("create", "ENOSPC"))
    # These happen to no such file in such a mode.
    if not (operations in ("unlink", "create") and (suffix != "-journal" or journal != "delete"))
    and not (operations == "truncate" and (suffix != "-journal" or journal != "truncate"))
]


def run_client(disk, database, below, journal, faults):
    """What each transaction got; below is the database as the disk knows it."""
    commands = [f"fail {operations} {error} {below}{suffix} {skip} {count}"
                for operations, error, suffix, skip, count in faults]
    result = harness.run(sys.executable, CLIENT, database, journal, disk.path / ".faultfs", *commands)
    result = json.loads(result.stdout)
    assert result["failed"], "nothing failed: this proves nothing"
    return result["outcomes"]


def transactions(database):
    """The numbers of the transactions that it has, each whole."""
    connection = sqlite3.connect(f"file:{database}?immutable=1", uri=True)
    made = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 't'").fetchone()
    rows = connection.execute("SELECT number, count(*) FROM t GROUP BY number ORDER BY number").fetchall() \
        if made else []
    connection.close()
    assert all(count == 3 for _, count in rows), f"half a transaction: {rows}"
    return [number for number, _ in rows]


def check_bucket(bucket, work, database, most=EVER):
    """The bucket has what the file has, and no TXID holds a part of a transaction."""
    sync(database)
    expected = copy_at_rest(database, work / "expected")
    assert_intact(expected)
    past = Past(bucket, work, database.name)
    assert_same_bytes(past.restored(), expected)
    past.check_states(most, lambda state: transactions(state) is not None)
    return transactions(expected)


@pytest.mark.parametrize("journal, operations, error, suffix", DATABASE_FAULTS)
def test_sqlite_gets_the_error_of_the_disk_and_no_other(
        file_bucket, mount, work, soak, disk, journal, operations, error, suffix):
    d = disk()
    (d.path / "bare").mkdir()
    data = mount(file_bucket, "--upload-interval", "0", name="disk/data")
    data.log = work / "data.log"
    with data:
        for name, skip, count in (("always", 0, EVER), ("first", 0, 1), ("third", 2, 1)):
            fault = [(operations, error, suffix, skip, count)]
            bare = run_client(d, d.path / "bare" / name, f"bare/{name}", journal, fault)
            mounted = run_client(d, data / name, f"data/{name}", journal, fault)
            assert mounted == bare
            kept = check_bucket(file_bucket, work, data / name, soak(4, EVER))
            assert kept == transactions(copy_at_rest(d.path / "bare" / name, work / "bare"))
            assert set(range(3)) | set(range(8, 11)) <= set(kept), mounted


@pytest.mark.parametrize("journal", ["wal", "delete"])
@pytest.mark.parametrize("operations, error", [
    ("write", "EIO"), ("grow", "ENOSPC"), ("fsync", "EIO"), ("create", "ENOSPC"), ("rename", "EIO"),
    ("unlink", "EIO"), ("open", "EIO"),
    ("write,grow,fsync,create,rename,unlink,open,truncate", "EIO")])
def test_a_state_directory_that_fails_is_nothing_to_the_application(
        file_bucket, mount, work, disk, journal, operations, error):
    d = disk()
    data = mount(file_bucket, "--upload-interval", "0", name="disk/data")
    data.log = work / "data.log"
    with data:
        outcomes = run_client(d, data / "app.db", "data/.litebucket/*", journal,
                              [(operations, error, "", 0, EVER)])
        assert outcomes == ["ok"] * 11
        assert check_bucket(file_bucket, work, data / "app.db") == list(range(11))
    print(data.log_text())
