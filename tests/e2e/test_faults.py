"""The disk fails: SQLite gets the error that it would get without us, and none of ours.

The same program runs on a disk that fails (tests/lib/faultfs.c), directly and
through the mount, with the same faults.
"""
import json
import os
import sqlite3
import subprocess
import sys

import pytest

import harness
from crash import Past
from harness import assert_intact, assert_same_bytes, copy_at_rest, litebucket, objects, sync

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
    past.see()
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
        try:
            assert check_bucket(file_bucket, work, data / "app.db") == list(range(11))
        except subprocess.TimeoutExpired:
            print(data.log_text(), litebucket("status", data.point).stdout)
            raise
    # One line when it began, one when it was over.
    lines = [line for line in data.log_text().splitlines() if "db=app.db" in line]
    assert len([line for line in lines if "level=info" not in line]) == 1, lines
    assert len(lines) == 2 and "uploading again" in lines[-1], lines


@pytest.mark.parametrize("skip", [0, 1])
def test_one_failed_sync_of_the_spool_stops_no_upload(file_bucket, mount, work, disk, skip):
    """It is synced when a batch comes and when it goes, in turns."""
    d = disk()
    data = mount(file_bucket, "--upload-interval", "0", name="disk/data")
    data.log = work / "data.log"
    with data:
        outcomes = run_client(d, data / "app.db", "data/.litebucket/db/*/spool", "wal",
                              [("fsync", "EIO", "", skip, 1)])
        assert outcomes == ["ok"] * 11
        assert check_bucket(file_bucket, work, data / "app.db") == list(range(11))


def databases_told(data):
    status = json.loads(litebucket("status", "--json", data.point).stdout)
    return {each["path"]: each["error"] for each in status["databases"]}


def make(data, *names):
    for name in names:
        connection = sqlite3.connect(data / name, isolation_level=None)
        connection.execute("CREATE TABLE t(number, row, body)")
        for number in range(3):
            connection.execute("INSERT INTO t VALUES (?1, 0, randomblob(5000)), (?1, 1, ''), (?1, 2, '')",
                               (number,))
        connection.close()
        sync(data / name)


def test_a_database_that_cannot_be_read_keeps_no_other_from_being_served(file_bucket, mount, work, disk):
    d = disk()
    data = mount(file_bucket, "--upload-interval", "20ms", name="disk/data")
    data.log = work / "data.log"
    with data:
        make(data, "bad", "good")
        data.kill()
        data.unmount()
        d.fail("read", "EIO", "data/bad")
        data.start()
        check_bucket(file_bucket, work, data / "good")
        data.wait_for_log("level=(warn|error) .*bad.*Input/output error")
        harness.eventually(lambda: databases_told(data).get("bad"), 30, "status does not tell")
        assert not databases_told(data)["good"]
        assert d.heal()
        assert check_bucket(file_bucket, work, data / "bad") == [0, 1, 2]
        harness.eventually(lambda: not databases_told(data)["bad"], 30, "status goes on telling")


def garble(path):
    path.write_bytes(b"nonsense\n" * 20)


def cut(path):
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size // 2)


# (file of the state directory, what happens to it, does the database go on by itself?)
STATE_DAMAGE = [
    ("position", garble, False),
    ("position", cut, False),
    ("pages", garble, True),
    ("pages", cut, True),
    ("sealing.ltx", garble, True),
    ("name", garble, False),
]


@pytest.mark.parametrize("file, damage, goes_on", STATE_DAMAGE)
def test_damaged_state_stops_at_most_its_own_database(file_bucket, mount, work, file, damage, goes_on):
    past = Past(file_bucket, work, "bad")
    data = mount(file_bucket, "--upload-interval", "20ms")
    with data:
        make(data, "bad", "good")
        past.see()
        data.kill()
        data.unmount()
        for path in (data.directory / ".litebucket" / "db").iterdir():
            if (path / "name").read_text() == "bad":
                damage(path / file)
        data.start()
        check_bucket(file_bucket, work, data / "good")
        if goes_on:
            check_bucket(file_bucket, work, data / "bad")
            assert not databases_told(data)["bad"]
        else:
            assert litebucket("sync", data / "bad", check=False).returncode == 1
            assert databases_told(data)["bad"] and not databases_told(data)["good"]
            data.wait_for_log("level=error .*bad")
        # The application goes on in any case.
        connection = sqlite3.connect(data / "bad", isolation_level=None)
        connection.execute("INSERT INTO t VALUES (3, 0, ''), (3, 1, ''), (3, 2, '')")
        connection.close()
    past.see()


def spool_files(directory):
    """Database to its files in the spool."""
    return {(state / "name").read_text(): sorted((state / "spool").glob("*.ltx"))
            for state in (directory / ".litebucket" / "db").iterdir()}


def test_a_torn_batch_in_the_spool_is_never_sent(mount, work, soak, disk):
    """Cut at each multiple of 512: its database stops, and says so; no other does."""
    d = disk()
    (d.path / "bucket").mkdir()
    bucket = harness.FileBucket(d.path / "bucket")
    names = [f"torn-{number}" for number in range(soak(6, 40))]
    data = mount(bucket, "--upload-interval", "0", mountpoint=work / "mnt")
    with data:
        make(data, *names, "good")
        d.fail("create,write,grow", "EIO", "bucket/*")
        for name in (*names, "good"):
            connection = sqlite3.connect(data / name, isolation_level=None)
            connection.execute("INSERT INTO t VALUES (3, 0, randomblob(15000)), (3, 1, ''), (3, 2, '')")
            connection.close()
        harness.eventually(lambda: all(spool_files(data.directory).values()), 60,
                           lambda: f"not in the spool: {spool_files(data.directory)}")
        data.kill()
        data.unmount()
        for number, name in enumerate(names):
            batch = spool_files(data.directory)[name][-1]
            os.truncate(batch, number * 512 % batch.stat().st_size)
        d.heal()
        before = objects(bucket)
        data.start()
        assert check_bucket(bucket, work, data / "good") == [0, 1, 2, 3]
        for name in names:
            assert litebucket("sync", data / name, check=False).returncode == 1
            assert databases_told(data)[name]
            data.wait_for_log(f"level=error .*{name}")
            restored = Past(bucket, work, name).restored()
            assert transactions(restored) == [0, 1, 2]
        assert before.items() <= objects(bucket).items()
        data.kill()
