"""A database is compared with what was captured, while it is in use."""
import json
import os
import pathlib
import re
import sqlite3
import struct
import time

import pytest

import harness
from harness import assert_intact, assert_same_bytes, copy_at_rest, litebucket, restore, sync

ROWS = 12000  # of about 2500 bytes: some 40 runs of pages
SLOW = {"LITEBUCKET_SLOWPOINT": "resync-run:100"}


def status_of(path):
    (database,) = json.loads(litebucket("status", "--json", path).stdout)["databases"]
    return database


def connect(path):
    return sqlite3.connect(path, isolation_level=None, timeout=30)


def make(path, journal):
    connection = connect(path)
    connection.execute(f"PRAGMA journal_mode={journal}")
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, n, body)")
    connection.execute("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c "
                       f"WHERE i < {ROWS}) INSERT INTO t SELECT i, 0, randomblob(2500) FROM c")
    return connection


def killed_mount(mount, bucket, journal):
    """A mount that was killed while a large database was in use, unsynced."""
    data = mount(bucket, environment=dict(SLOW))
    data.directory.mkdir()
    data.start()
    connection = make(data / "app.db", journal)
    sync(data / "app.db")
    connection.execute("UPDATE t SET body = randomblob(2500) WHERE id % 9 = 1")
    data.kill()
    connection.close()
    return data


def assert_restores(bucket, data, work):
    restore(bucket, "app.db", work / "restored")
    assert_same_bytes(work / "restored", copy_at_rest(data / "app.db", work / "expected"))
    assert_intact(work / "restored")


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_after_a_kill_applications_go_on_while_the_database_is_compared(file_bucket, mount, work,
                                                                        journal):
    data = killed_mount(mount, file_bucket, journal)
    with data:
        connection = connect(data / "app.db")
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (ROWS,)
        for n in range(5):
            connection.execute("UPDATE t SET n = ?, body = randomblob(2500) WHERE id % 97 = ?",
                               (n, n))
        during = status_of(data / "app.db")
        assert during["state"] == "comparing", during
        assert 0 <= during["compared"] < during["pages"]
        assert re.search(r"app\.db: \d+ of \d+ pages compared\n", litebucket("status", data.point).stdout)
        # Nobody waited for the end of it; sync does.
        sync(data / "app.db")
        after = status_of(data / "app.db")
        assert after["state"] == "idle" and after["compared"] is None, after
        connection.close()
        assert_restores(file_bucket, data, work)
    log = data.log_text()
    assert len(re.findall(r'msg="comparing database" db=app.db why="it was not left by a clean', log)) == 1
    told = re.findall(r'msg="database compared" db=app.db pages=(\d+) differed=(\d+) txid=(\S+)', log)
    assert len(told) == 1, log
    # What is in the WAL is found there.
    assert journal == "wal" or 0 < int(told[0][1]) < int(told[0][0]), log


def test_a_kill_while_it_is_compared_loses_nothing(file_bucket, mount, work):
    data = killed_mount(mount, file_bucket, "delete")
    data.start()
    connection = connect(data / "app.db")
    connection.execute("UPDATE t SET n = 5 WHERE id % 7 = 3")
    harness.eventually(lambda: status_of(data / "app.db")["compared"], 30, "it is not compared")
    data.kill()
    connection.close()
    data.environment.clear()
    with data:
        sync(data / "app.db")
        assert_restores(file_bucket, data, work)


def test_a_stop_does_not_wait_for_a_long_comparison(file_bucket, mount, work):
    data = killed_mount(mount, file_bucket, "wal")
    data.environment["LITEBUCKET_SLOWPOINT"] = "resync-run:2000"
    data.options += ["--stop-timeout", "2s"]
    data.start()
    data.stop()
    data.environment.clear()
    with data:
        sync(data / "app.db")
        assert_restores(file_bucket, data, work)


def bytes_read(data):
    text = pathlib.Path(f"/proc/{data.process.pid}/io").read_text()
    return int(re.search(r"rchar: (\d+)", text)[1])


def pretend_large(data, size):
    """A sparse database of this size, as a clean stop would have left it."""
    file = data.directory / "app.db"
    os.truncate(file, size)
    (state,) = (data.directory / ".litebucket" / "db").iterdir()
    position = state / "position"
    text = position.read_text()
    old = int(re.search(r"^commit=(\d+)$", text, re.M)[1])
    page_size = int(re.search(r"^page-size=(\d+)$", text, re.M)[1])
    checksum = int(re.search(r"^checksum=(\w+)$", text, re.M)[1], 16)
    pages = size // page_size
    with open(file, "r+b") as header:
        header.seek(28)
        header.write(struct.pack(">I", pages))
    with open(state / "pages", "r+b") as hashes:
        hashes.truncate(old * 8)
        hashes.seek(old * 8)
        hashes.write(struct.pack("<Q", 1) * (pages - old))
    info = file.stat()
    checksum = f"{checksum + pages - old:016x}"
    for key, value in [("commit", pages), ("checksum", checksum), ("known", checksum),
                       ("main-size", size), ("main-mtime-ns", info.st_mtime_ns),
                       ("main-ctime-ns", info.st_ctime_ns)]:
        text = re.sub(rf"^{key}=.*$", f"{key}={value}", text, flags=re.M)
    position.write_text(text)


def test_after_a_clean_stop_no_page_of_a_large_database_is_read(file_bucket, mount, work):
    data = mount(file_bucket)
    with data:
        connection = connect(data / "app.db")
        connection.execute("CREATE TABLE t(a)")
        connection.close()
        sync(data / "app.db")
    pretend_large(data, 10 << 30)
    with data:
        time.sleep(1)
        assert status_of(data / "app.db")["state"] == "idle"
        assert status_of(data / "app.db")["pages"] == (10 << 30) // 4096
        assert bytes_read(data) < 8 << 20
