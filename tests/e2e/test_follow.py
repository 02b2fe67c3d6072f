"""Replicas that follow a bucket, read by programs that know nothing of it."""
import re
import shutil
import subprocess
import sys

import pytest

from following import ENOUGH_SECONDS, NOBODY, Follower, assert_same_state, connect, count, wait_count
from harness import assert_intact, eventually, litebucket, sync


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


PYTHON = """
import sqlite3, sys
try:
    sqlite3.connect(sys.argv[1], isolation_level=None).execute(sys.argv[2])
except sqlite3.OperationalError as error:
    sys.exit(str(error))
"""


def run_as(user, *command):
    return subprocess.run([str(part) for part in command], user=user, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=ENOUGH_SECONDS, check=False)


@pytest.mark.parametrize("alive", [True, False], ids=["alive", "dead"])
@pytest.mark.parametrize("user", [0, NOBODY], ids=["owner", "reader"])
def test_nobody_writes_a_replica(file_bucket, mount, work, anywhere, c_client, user, alive):
    with mount(file_bucket, "--upload-interval", "5ms") as data:
        connect(data / "app.db").execute("CREATE TABLE t(id INTEGER PRIMARY KEY, n, body)")
        sync(data / "app.db")
    # Another user runs it, too.
    client = anywhere / "client"
    shutil.copy(c_client, client)
    replica = Follower(file_bucket, anywhere / "replica", work / "follow.log", "--file-mode", "0644")
    with replica:
        if not alive:
            replica.kill()
        database = replica / "app.db"
        for statement in ("INSERT INTO t(n) VALUES (1)", "CREATE TABLE u(y)", "VACUUM",
                          "PRAGMA user_version = 3"):
            for command in ((sys.executable, "-c", PYTHON, database, statement),
                            ("sqlite3", database, statement)):
                result = run_as(user, *command)
                assert "attempt to write a readonly database" in result.stderr, result
        result = run_as(user, client, database, "wal,full", "rows", "1")
        assert "attempt to write a readonly database" in result.stderr, result
        for statement, answer in (("PRAGMA journal_mode = wal", "wal\n"),
                                  ("CREATE TABLE IF NOT EXISTS t(x)", ""),
                                  ("SELECT count(*) FROM t", "0\n")):
            result = run_as(user, "sqlite3", database, statement)
            assert (result.returncode, result.stdout, result.stderr) == (0, answer, ""), result
        if not alive:
            replica.start()


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
