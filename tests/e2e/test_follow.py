"""Replicas that follow a bucket, read by programs that know nothing of it."""
import os
import pathlib
import re
import select
import signal
import sqlite3
import subprocess

import pytest

import harness
from harness import assert_intact, copy_at_rest, eventually, litebucket, sync

ENOUGH_SECONDS = 60


class Follower:
    """A running `litebucket follow`; leaving the block stops it in order."""

    def __init__(self, bucket, directory, log, *options):
        self.bucket = bucket
        self.directory = pathlib.Path(directory)
        self.log = pathlib.Path(log)
        self.options = options
        self.process = None

    def __truediv__(self, name):
        return self.directory / name

    def start(self):
        parent, child = os.pipe()
        try:
            with open(self.log, "ab") as log:
                self.process = subprocess.Popen(
                    [harness.LITEBUCKET, "follow", "--ready-fd", str(child), "--interval", "10ms",
                     *self.options, self.bucket.url, self.directory],
                    env=self.bucket.environment(), pass_fds=[child], stdin=subprocess.DEVNULL,
                    stdout=log, stderr=log)
            os.close(child)
            child = -1
            assert select.select([parent], [], [], ENOUGH_SECONDS)[0], "it is never up to date"
            assert os.read(parent, 10) == b"ready\n", self.log.read_text()
        finally:
            os.close(parent)
            if child >= 0:
                os.close(child)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(ENOUGH_SECONDS)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, kind, *_):
        status = self.stop() if self.process.poll() is None else self.process.returncode
        if kind is None:
            text = self.log.read_text()
            assert status == 0, text
            assert not harness.SANITIZER.search(text), text


def connect(path):
    return sqlite3.connect(path, isolation_level=None, timeout=10)


def count(path):
    connection = connect(f"{path}")
    try:
        return connection.execute("SELECT count(*) FROM t").fetchone()[0]
    except sqlite3.OperationalError as error:
        # Not there yet; an empty file that we made ourselves must not stay.
        assert re.search("no such table|unable to open", str(error)), error
        return -1
    finally:
        connection.close()


def wait_count(path, number):
    eventually(lambda: path.exists() and count(path) == number, ENOUGH_SECONDS,
               f"{path.name} never has {number} rows")


def assert_same_state(replica, original, work):
    """Page for page; of the header, what protects a replica aside."""
    actual = bytearray(copy_at_rest(replica, work / "copy-of-replica").read_bytes())
    expected = copy_at_rest(original, work / "copy-of-original").read_bytes()
    assert actual[18:20] == b"\x03\x02"
    actual[18:20] = expected[18:20]
    assert bytes(actual) == expected


def test_a_follower_has_what_the_mount_commits(bucket, mount, work):
    with mount(bucket, "--upload-interval", "5ms") as data:
        writer = connect(data / "app.db")
        writer.execute("CREATE TABLE t(x)")
        sync(data / "app.db")
        with Follower(bucket, work / "replica", work / "follow.log") as replica:
            reader = connect(replica / "app.db")
            for journal in ("delete", "wal", "truncate"):
                writer.execute(f"PRAGMA journal_mode = {journal}")
                for _ in range(10):
                    writer.execute("INSERT INTO t VALUES (randomblob(3000))")
                sync(data / "app.db")
                rows = writer.execute("SELECT count(*) FROM t").fetchone()[0]
                wait_count(replica / "app.db", rows)
                assert reader.execute("SELECT count(*) FROM t").fetchone()[0] == rows
            for change in ("CREATE INDEX i ON t(x)", "DELETE FROM t WHERE rowid % 2", "VACUUM",
                           "PRAGMA user_version = 7"):
                writer.execute(change)
            sync(data / "app.db")
            eventually(lambda: reader.execute("PRAGMA user_version").fetchone()[0] == 7,
                       ENOUGH_SECONDS, "the last change does not come")
            reader.close()
            assert_intact(replica / "app.db")
        writer.close()
        assert_same_state(work / "replica" / "app.db", data / "app.db", work)


def test_databases_come_and_go(file_bucket, mount, work):
    with mount(file_bucket, "--upload-interval", "5ms") as data:
        (data / "dir").mkdir()
        for name in ("a.db", "dir/b c.db"):
            connect(data / name).execute("CREATE TABLE t(x)")
            sync(data / name)
        with Follower(file_bucket, work / "replica", work / "follow.log") as replica:
            for name in ("a.db", "dir/b c.db"):
                wait_count(replica / name, 0)
            (data / "a.db").unlink()
            eventually(lambda: not (replica / "a.db").exists(), ENOUGH_SECONDS, "a.db stays")
            assert not (replica / "a.db-wal").exists()
            connect(data / "new.db").execute("CREATE TABLE t(x)")
            sync(data / "new.db")
            wait_count(replica / "new.db", 0)


def test_killed_and_started_again_it_goes_on(file_bucket, mount, work, soak):
    with mount(file_bucket, "--upload-interval", "5ms") as data:
        writer = connect(data / "app.db")
        writer.execute("CREATE TABLE t(x)")
        sync(data / "app.db")
        replica = Follower(file_bucket, work / "replica", work / "follow.log")
        with replica:
            rows = 0
            for _ in range(soak(5, 50)):
                for _ in range(20):
                    writer.execute("INSERT INTO t VALUES (randomblob(2000))")
                rows += 20
                replica.kill()
                assert 0 <= count(replica / "app.db") <= rows
                assert_intact(replica / "app.db")
                sync(data / "app.db")
                replica.start()
                wait_count(replica / "app.db", rows)
        writer.close()
        assert not (work / "replica" / ".litebucket" / "aside").exists()
        assert_same_state(work / "replica" / "app.db", data / "app.db", work)


@pytest.mark.parametrize("alive", [True, False], ids=["alive", "dead"])
def test_nobody_writes_a_replica(file_bucket, mount, work, alive):
    with mount(file_bucket, "--upload-interval", "5ms") as data:
        connect(data / "app.db").execute("CREATE TABLE t(x)")
        sync(data / "app.db")
    replica = Follower(file_bucket, work / "replica", work / "follow.log")
    with replica:
        if not alive:
            replica.stop()
        database = replica / "app.db"
        for statement in ("INSERT INTO t VALUES (1)", "CREATE TABLE u(y)", "VACUUM",
                          "PRAGMA user_version = 3"):
            with pytest.raises(sqlite3.OperationalError, match="attempt to write a readonly"):
                connect(database).execute(statement)
            shell = subprocess.run(["sqlite3", database, statement], capture_output=True, text=True,
                                   stdin=subprocess.DEVNULL, timeout=ENOUGH_SECONDS, check=False)
            assert "attempt to write a readonly database" in shell.stderr, shell
        connection = connect(database)
        assert connection.execute("PRAGMA journal_mode = wal").fetchone()[0] == "wal"
        connection.execute("CREATE TABLE IF NOT EXISTS t(x)")
        assert connection.execute("SELECT count(*) FROM t").fetchone()[0] == 0
        connection.close()


def test_once_brings_up_to_date_and_ends(bucket, mount, work):
    with mount(bucket, "--upload-interval", "5ms") as data:
        for name in ("a.db", "b.db", "other.db"):
            connect(data / name).execute("CREATE TABLE t(x)")
            sync(data / name)
        for number in range(3):
            result = litebucket("follow", "--once", "--database", "a.*", "--database", "b.db",
                                bucket.url, work / "replica", env=bucket.environment())
            assert re.findall(r"path=(\S+)$", result.stdout, re.MULTILINE) == ["a.db", "b.db"]
            assert count(work / "replica" / "a.db") == number
            connect(data / "a.db").execute("INSERT INTO t VALUES (1)")
            sync(data / "a.db")
        assert not (work / "replica" / "other.db").exists()


def test_mistakes_are_told(file_bucket, mount, work):
    with mount(file_bucket, "--upload-interval", "5ms") as data:
        connect(data / "app.db").execute("CREATE TABLE t(x)")
        sync(data / "app.db")
    (work / "mine").mkdir()
    connect(work / "mine" / "app.db").execute("CREATE TABLE t(x)")
    for status, pattern, arguments in (
            (2, "neither resync nor stop", ["--on-divergence", "no", file_bucket.url, work / "r"]),
            (3, "no database to follow", ["--once", "--database", "x*", file_bucket.url, work / "r"]),
            (3, "no bucket or database", ["--once", f"file://{work}/none", work / "r"]),
            (1, "ordinary database", ["--once", file_bucket.url, work / "mine"]),
            (1, "of a mount", ["--once", file_bucket.url, data.directory])):
        result = litebucket("follow", *arguments, check=False)
        assert result.returncode == status, result
        assert re.search(pattern, result.stderr), result
    assert count(work / "mine" / "app.db") == 0
    connect(work / "mine" / "app.db").execute("INSERT INTO t VALUES (1)")
