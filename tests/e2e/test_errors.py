"""What goes wrong is said in one clear line, and leaves nothing half-done."""
import contextlib
import copy
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import time
import urllib.parse

import pytest

import harness
from harness import (assert_intact, assert_same_bytes, copy_at_rest, eventually, litebucket,
                     restore, slot_key, sync)
from proxy import Proxy

FAILED, USAGE, NOT_FOUND = 1, 2, 3


def refused(status, pattern, *arguments, bucket=None, environment=None):
    """The command fails with this status and one line that matches."""
    result = litebucket(*arguments, check=False,
                        env=environment or (bucket.environment() if bucket else None))
    assert result.returncode == status, result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("litebucket: "), result.stderr
    assert re.search(pattern, lines[0], re.IGNORECASE), lines[0]
    assert result.stdout == ""
    return lines[0]


def commit(database, text, size=100):
    connection = sqlite3.connect(database, isolation_level=None, timeout=10)
    try:
        connection.execute("CREATE TABLE IF NOT EXISTS t(text, body)")
        connection.execute("INSERT INTO t VALUES (?, randomblob(?))", (text, size))
    finally:
        connection.close()


def texts(database):
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    found = [text for text, in connection.execute("SELECT text FROM t ORDER BY rowid")]
    connection.close()
    return found


@pytest.fixture
def filled(bucket, mount):
    """A bucket with five commits, and their TXIDs."""
    txids = []
    with mount(bucket) as data:
        commit(data / "app.db", "one")
        for text in ("two", "three", "four", "five"):
            sync(data / "app.db")
            commit(data / "app.db", text, size=20000)
            txids.append(sync(data / "app.db"))
    return bucket, txids


def nothing_left(directory, allowed=()):
    return sorted(entry.name for entry in directory.iterdir()) == sorted(allowed)


# --- restore: what was asked for is not there

def test_an_unknown_txid(filled, work):
    bucket, txids = filled
    out = work / "out"
    out.mkdir()
    line = refused(NOT_FOUND, "00000000000000ff", "restore", "--txid", "ff", "-o", out / "db",
                   bucket.url_of("app.db"), bucket=bucket)
    assert txids[-1] in line, "the range is not stated"
    assert nothing_left(out)


@pytest.mark.parametrize("when", ["2001-01-01T00:00:00Z", "2199-01-01T00:00:00Z"])
def test_a_time_out_of_range(filled, work, when):
    bucket, _ = filled
    out = work / "out"
    out.mkdir()
    line = refused(NOT_FOUND, when[:4], "restore", "--timestamp", when, "-o", out / "db",
                   bucket.url_of("app.db"), bucket=bucket)
    stated = re.findall(r"\d{4}-\d\d-\d\dT[0-9:.]+Z", line.replace(when, ""))
    assert stated, f"the range is not stated: {line}"
    assert ("without a time the last one is restored" in line) == (when > stated[-1])
    assert nothing_left(out)


def test_an_unknown_database(filled, work):
    bucket, _ = filled
    refused(NOT_FOUND, "other.db", "restore", "-o", work / "db", bucket.url_of("other.db"),
            bucket=bucket)
    assert not (work / "db").exists()


def test_a_missing_bucket_directory(work):
    refused(NOT_FOUND, "nowhere", "restore", "-o", work / "db", f"file://{work}/nowhere/app.db")
    refused(NOT_FOUND, "nowhere", "list", f"file://{work}/nowhere")


def test_mistakes_on_the_command_line(work):
    for arguments in (["restore", "file:///x"], ["restore", "-o", "x"], ["frobnicate"],
                      ["restore", "--txid", "xyz", "-o", "x", "file:///x"],
                      ["restore", "--timestamp", "noon", "-o", "x", "file:///x"],
                      ["list", "ftp://host/bucket"], ["list", "s3://bucket/?endpont=http://x"],
                      ["list", "s3://key:secret@bucket/"], ["mount", work]):
        result = litebucket(*arguments, check=False)
        assert result.returncode == USAGE, (arguments, result.stderr)
        assert result.stderr.startswith("litebucket: "), result.stderr


# --- restore: where it goes

def test_an_existing_output_is_kept(filled, work):
    bucket, _ = filled
    output = work / "db"
    output.write_text("precious")
    refused(FAILED, "exists.*--force", "restore", "-o", output, bucket.url_of("app.db"),
            bucket=bucket)
    assert output.read_text() == "precious"
    litebucket("restore", "--force", "-o", output, bucket.url_of("app.db"),
               env=bucket.environment())
    assert texts(output) == ["one", "two", "three", "four", "five"]


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_database_in_use_is_not_replaced(filled, work, journal):
    bucket, _ = filled
    output = work / "db"
    with contextlib.closing(sqlite3.connect(output, isolation_level=None)) as program:
        program.execute(f"PRAGMA journal_mode={journal}")
        program.execute("CREATE TABLE old(x)")
        # With a WAL an open connection is enough.
        program.execute("BEGIN IMMEDIATE" if journal == "delete" else "SELECT * FROM old")
        refused(FAILED, "a program has .* open", "restore", "--force", "-o", output,
                bucket.url_of("app.db"), bucket=bucket)
        assert program.execute("SELECT name FROM sqlite_master").fetchall() == [("old",)]
    assert [path.name for path in work.iterdir() if "db.litebucket" in path.name] == []
    litebucket("restore", "--force", "-o", output, bucket.url_of("app.db"),
               env=bucket.environment())
    assert texts(output) == ["one", "two", "three", "four", "five"]


def test_an_output_beside_a_foreign_wal_is_refused(filled, work):
    """SQLite would play that WAL into the restored file."""
    bucket, _ = filled
    (work / "db-wal").write_text("somebody else's")
    refused(FAILED, "db-wal", "restore", "-o", work / "db", bucket.url_of("app.db"), bucket=bucket)
    assert not (work / "db").exists()


def test_a_missing_output_directory(filled, work):
    bucket, _ = filled
    refused(FAILED, "nowhere", "restore", "-o", work / "nowhere" / "db", bucket.url_of("app.db"),
            bucket=bucket)


def test_a_full_disk_under_the_output(filled, work, small_disk):
    bucket, _ = filled
    disk = small_disk("small", 40)
    refused(FAILED, "no space", "restore", "-o", disk / "db", bucket.url_of("app.db"),
            bucket=bucket)
    assert nothing_left(disk)


# --- restore: objects that are not what they were

def truncate(data):
    return data[:len(data) * 2 // 3]


def flip(where):
    def flipped(data):
        at = int(len(data) * where)
        return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1:]
    flipped.__name__ = f"flip_at_{where}"
    return flipped


DAMAGES = [truncate, lambda data: b"", lambda data: data + b"x",
           flip(0), flip(0.002), flip(0.3), flip(0.6), flip(0.9), flip(0.9999)]


@pytest.mark.parametrize("damage", DAMAGES,
                         ids=["truncated", "empty", "longer", "flip-first-byte", "flip-header",
                              "flip-30", "flip-60", "flip-90", "flip-last-byte"])
def test_a_damaged_object_is_named_and_nothing_restored(filled, work, damage):
    bucket, txids = filled
    key = slot_key(bucket, "app.db", txids[1])
    bucket.write(key, damage(bucket.read(key)))
    out = work / "out"
    out.mkdir()
    refused(FAILED, f"{txids[1]}-{txids[1]}", "restore", "-o", out / "db", bucket.url_of("app.db"),
            bucket=bucket)
    assert nothing_left(out)
    # What does not need the object is not held back by it.
    restore(bucket, "app.db", out / "db", txids[0])
    assert texts(out / "db") == ["one", "two"]


def test_a_missing_object_is_named_and_nothing_restored(filled, work):
    bucket, txids = filled
    bucket.remove(slot_key(bucket, "app.db", txids[1]))
    refused(FAILED, txids[1], "restore", "-o", work / "db", bucket.url_of("app.db"), bucket=bucket)
    assert not (work / "db").exists()


def test_a_state_that_was_swapped_for_another_is_refused(filled, work):
    """Two intact objects in each other's place: only their names are wrong."""
    bucket, txids = filled
    first, second = (slot_key(bucket, "app.db", txid) for txid in txids[1:3])
    a, b = bucket.read(first), bucket.read(second)
    bucket.write(first, b)
    bucket.write(second, a)
    refused(FAILED, "|".join(txids[1:3]), "restore", "-o", work / "db", bucket.url_of("app.db"),
            bucket=bucket)
    assert not (work / "db").exists()


def test_an_intact_object_of_another_history_is_refused(filled, mount, work):
    """Only the checksums of whole databases tell that it does not belong here."""
    bucket, txids = filled
    other = harness.FileBucket(work / "other-bucket")
    with mount(other, name="other") as data:
        for text in ("a", "b", "c", "d", "e", "f"):
            commit(data / "app.db", text, size=20000)
            sync(data / "app.db")
    foreign = slot_key(other, "app.db", txids[1])
    bucket.write(slot_key(bucket, "app.db", txids[1]), other.read(foreign))
    refused(FAILED, txids[1], "restore", "--txid", txids[1], "-o", work / "db",
            bucket.url_of("app.db"), bucket=bucket)
    assert not (work / "db").exists()


# --- the store

def unused_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def mount_fails(mount, bucket, pattern, **environment):
    data = mount(bucket, environment=environment)
    data.directory.mkdir()
    started = time.monotonic()
    with pytest.raises(harness.MountFailed, match=pattern) as failure:
        data.start()
    assert failure.value.status in (FAILED, NOT_FOUND)
    assert time.monotonic() - started < 60
    assert not harness.is_mounted(data.point)
    data.check_log()
    return failure.value.log


def test_a_wrong_key(s3_bucket, mount, work):
    environment = dict(s3_bucket.environment(), AWS_SECRET_ACCESS_KEY="not-the-secret")
    for arguments in (["list", s3_bucket.url],
                      ["restore", "-o", work / "db", s3_bucket.url_of("app.db")]):
        line = refused(FAILED, "refused|denied|signature|secret", *arguments,
                       environment=environment)
        assert "not-the-secret" not in line
    assert not (work / "db").exists()
    mount_fails(mount, s3_bucket, "(?i)refused|denied|signature|secret",
                AWS_SECRET_ACCESS_KEY="not-the-secret")


def test_no_key_at_all(s3_bucket):
    environment = dict(os.environ)
    refused(FAILED, "AWS_ACCESS_KEY_ID", "list", s3_bucket.url, environment=environment)


def test_a_wrong_bucket(s3_bucket, mount, work):
    url = s3_bucket.url_of("app.db", bucket="there-is-no-such-bucket")
    refused(NOT_FOUND, "there-is-no-such-bucket", "restore", "-o", work / "db", url,
            bucket=s3_bucket)
    assert not (work / "db").exists()
    wrong = copy.copy(s3_bucket)
    wrong.url = s3_bucket.url_of("", bucket="there-is-no-such-bucket")
    mount_fails(mount, wrong, "there-is-no-such-bucket")


def test_an_unreachable_endpoint(s3_bucket, work):
    port = unused_port()
    url = s3_bucket.url_of("app.db", endpoint=f"http://127.0.0.1:{port}")
    line = refused(FAILED, "cannot connect", "restore", "-o", work / "db", url, bucket=s3_bucket)
    assert str(port) in line
    assert not (work / "db").exists()


def test_commits_go_on_while_the_bucket_is_away_and_arrive_afterwards(away, s3_bucket, mount,
                                                                      work):
    behind, proxy = away
    with mount(behind, "--upload-interval", "100ms") as data:
        database = data / "app.db"
        commit(database, "before")
        sync(database)
        proxy.cut()
        started = time.monotonic()
        for number in range(50):
            commit(database, f"away {number}")
        assert time.monotonic() - started < 20, "the application had to wait for the bucket"

        def error():
            status = json.loads(litebucket("status", "--json", data.point).stdout)
            return status["databases"][0]["error"]

        # The log may tell of the catalog first.
        data.wait_for_log("level=(warn|error)")
        eventually(error, 60, "status does not tell that the bucket is away")
        proxy.mend()
        sync(database)
        expected = copy_at_rest(database, work / "expected")
        assert not error()
    restore(s3_bucket, "app.db", work / "restored")
    assert_same_bytes(work / "restored", expected)
    assert len(texts(work / "restored")) == 51


def test_a_stop_while_the_bucket_is_away_ends_and_the_next_start_uploads(away, s3_bucket, mount,
                                                                        work):
    behind, proxy = away
    data = mount(behind, "--stop-timeout", "2s")
    with data:
        commit(data / "app.db", "before")
        sync(data / "app.db")
        proxy.cut()
        commit(data / "app.db", "pending")
        started = time.monotonic()
        data.stop()
        assert time.monotonic() - started < 30
    assert not harness.is_mounted(data.point)
    proxy.mend()
    with data:
        sync(data / "app.db")
    restore(s3_bucket, "app.db", work / "restored")
    assert texts(work / "restored") == ["before", "pending"]


# --- disks

def test_a_full_disk_under_the_database(file_bucket, mount, work, small_disk):
    """SQLite is told; what it had committed is kept, and it goes on later."""
    disk = small_disk("data", 4096)
    with mount(file_bucket) as data:
        database = data / "app.db"
        commit(database, "before")
        sync(database)
        harness.fill(disk)
        with pytest.raises(sqlite3.OperationalError):
            for number in range(1000):
                commit(database, f"too much {number}", 100_000)
        (disk / "filler").unlink()
        commit(database, "after")
        sync(database)
        expected = copy_at_rest(database, work / "expected")
    restore(file_bucket, "app.db", work / "restored")
    assert_same_bytes(work / "restored", expected)
    assert_intact(work / "restored")
    assert texts(work / "restored")[0] == "before"
    assert texts(work / "restored")[-1] == "after"


def test_no_room_for_the_spool(file_bucket, mount, work, small_disk):
    """A commit for which there is still room succeeds, and is sealed later."""
    disk = small_disk("data", 4096)
    with mount(file_bucket, "--upload-interval", "100ms") as data:
        database = data / "app.db"
        connection = sqlite3.connect(database, isolation_level=None)
        connection.execute("PRAGMA journal_mode=wal")
        connection.execute("CREATE TABLE t(text, body)")
        sync(database)
        # The pages reach the database's own file only with a checkpoint, so
        # there is room for the WAL but none for the same again as LTX.
        harness.fill(disk, leave=300_000)
        connection.execute("INSERT INTO t VALUES ('big', randomblob(200000))")
        time.sleep(1)
        assert connection.execute("SELECT text FROM t").fetchall() == [("big",)]
        (disk / "filler").unlink()
        connection.execute("INSERT INTO t VALUES ('after', '')")
        sync(database)
        connection.close()
        expected = copy_at_rest(database, work / "expected")
    restore(file_bucket, "app.db", work / "restored")
    assert_same_bytes(work / "restored", expected)
    assert texts(work / "restored") == ["big", "after"]


def test_a_full_disk_under_a_file_bucket(mount, work, small_disk):
    disk = small_disk("bucket", 1024)
    bucket = harness.FileBucket(disk)
    with mount(bucket, "--upload-interval", "100ms") as data:
        database = data / "app.db"
        commit(database, "before")
        sync(database)
        harness.fill(disk)
        commit(database, "while full", 100_000)
        data.wait_for_log("(?i)no space")
        assert texts(database) == ["before", "while full"]
        (disk / "filler").unlink()
        sync(database)
    restore(bucket, "app.db", work / "restored")
    assert texts(work / "restored") == ["before", "while full"]


# --- two writers

def without_lease(first, mount):
    """A second mount, as somebody has removed the lease that the first does not renew soon."""
    first.wait_for_log("all logs are closed")
    first.bucket.remove("lock.json")
    return mount(first.bucket, name="second")


def test_the_second_of_two_mounts_on_one_database_stops_and_says_so(bucket, mount, work):
    """Both believe to have the lease; the slots keep them apart."""
    with (mount(bucket, "--lease-ttl", "600s", name="first") as first,
          without_lease(first, mount) as second):
        commit(first / "app.db", "first's")
        sync(first / "app.db")
        commit(second / "app.db", "second's")
        line = refused(FAILED, "another|other", "sync", second / "app.db")
        assert "app.db" in line
        second.wait_for_log("level=error")
        status = json.loads(litebucket("status", "--json", second.point).stdout)
        assert status["databases"][0]["state"] == "conflict", status
        # Its own applications are not disturbed, and nor is the first.
        commit(second / "app.db", "second's again")
        assert texts(second / "app.db") == ["second's", "second's again"]
        commit(first / "app.db", "first's again")
        sync(first / "app.db")
        second.stop()
    restore(bucket, "app.db", work / "restored")
    assert texts(work / "restored") == ["first's", "first's again"]


def test_another_bucket_than_before_is_not_taken_for_it(bucket, mount, work):
    (work / "other-bucket").mkdir()
    other = harness.FileBucket(work / "other-bucket")
    with mount(bucket) as data:
        commit(data / "app.db", "one")
        sync(data / "app.db")
    with pytest.raises(harness.MountFailed, match="another bucket than before") as failure:
        mount(other).start()
    assert failure.value.status == FAILED
    # Without the id (as after the version that kept none) the log tells.
    (work / "data" / ".litebucket" / "bucket").unlink()
    with mount(other) as data:
        refused(FAILED, "another bucket than before", "sync", data / "app.db")
        commit(data / "app.db", "two")
        refused(FAILED, "another bucket than before", "sync", data / "app.db")
        data.stop()
    assert not any((work / "other-bucket").rglob("*.ltx"))
    with mount(bucket) as data:
        sync(data / "app.db")
    restore(bucket, "app.db", work / "restored")
    assert texts(work / "restored") == ["one", "two"]

    # Begun anew, as the error advises.
    shutil.rmtree(work / "data" / ".litebucket")
    with mount(other) as data:
        sync(data / "app.db")
    restore(other, "app.db", work / "again")
    assert texts(work / "again") == ["one", "two"]


def test_a_bucket_directory_is_made_by_the_first_mount_and_by_nothing_else(mount, work):
    bucket = harness.FileBucket(work / "not" / "there")
    for verb in (["list"], ["history"], ["restore", "-o", work / "db"]):
        refused(NOT_FOUND, "no bucket", *verb, bucket.url_of("app.db"))
    with mount(bucket) as data:
        assert json.loads(litebucket("status", "--json", data.point).stdout)["databases"] == []
        data.wait_for_log("does not exist, and is made.* path=.*/not/there")
        commit(data / "app.db", "one")
        sync(data / "app.db")
    restore(bucket, "app.db", work / "restored")
    # Nor by a mount that is refused.
    shutil.rmtree(work / "not")
    with pytest.raises(harness.MountFailed, match="another bucket than before"):
        mount(bucket).start()
    assert not (work / "not").exists()


def test_a_bucket_directory_that_is_replaced_while_mounted_is_not_written_to(file_bucket, mount,
                                                                             work):
    def error():
        database, = json.loads(litebucket("status", "--json", data.point).stdout)["databases"]
        return database["state"] == "retrying" and database["error"]

    with mount(file_bucket) as data:
        commit(data / "app.db", "one")
        sync(data / "app.db")
        file_bucket.directory.rename(work / "away")
        file_bucket.directory.mkdir()
        commit(data / "app.db", "two")
        said = harness.eventually(error, 30, "status shows no trouble")
        assert "not at its place" in said and "put it back" in said
        assert list(file_bucket.directory.iterdir()) == []
        file_bucket.directory.rmdir()
        (work / "away").rename(file_bucket.directory)
        sync(data / "app.db")
    restore(file_bucket, "app.db", work / "restored")
    assert texts(work / "restored") == ["one", "two"]


def test_a_directory_is_mounted_once(file_bucket, mount, work):
    other = work / "other-bucket"
    other.mkdir()
    with mount(file_bucket) as data:
        commit(data / "app.db", "one")
        again = harness.Mount(harness.FileBucket(other), data.directory, work / "again.log")
        with pytest.raises(harness.MountFailed) as failure:
            again.start()
        assert failure.value.status == FAILED
        sync(data / "app.db")
    assert not any(other.rglob("*.ltx"))


# --- what is not a mount

def test_sync_and_status_outside_a_mount(work):
    (work / "plain.db").write_bytes(b"")
    refused(NOT_FOUND, "not inside a litebucket mount", "sync", work / "plain.db")
    refused(NOT_FOUND, "neither inside a litebucket mount nor a follower's", "status", work)
    refused(NOT_FOUND, "nowhere", "sync", work / "nowhere")


def test_sync_of_what_is_no_database(file_bucket, mount):
    with mount(file_bucket) as data:
        (data / "notes.txt").write_text("no database")
        refused(NOT_FOUND, "notes.txt", "sync", data / "notes.txt")
