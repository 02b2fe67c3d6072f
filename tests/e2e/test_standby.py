"""A mount that waits for the lease serves replicas meanwhile; see cli/node_standby.h."""
import contextlib
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import time

import pytest

import harness
from following import NOBODY
from harness import check_restore, eventually, litebucket, restore, sync

READONLY = "attempt to write a readonly database"
STANDING = "standing by: the databases can be read"
JOURNALS = ["wal", "delete", "truncate", "persist"]
SOON = 20


def connect(path, timeout=20):
    return sqlite3.connect(path, isolation_level=None, timeout=timeout)


def fill(path, journal, *values):
    connection = connect(path)
    connection.execute(f"PRAGMA journal_mode = {journal}")
    connection.execute("CREATE TABLE IF NOT EXISTS t(n)")
    for value in values:
        connection.execute("INSERT INTO t VALUES (?)", (value,))
    connection.close()


def write(path, value):
    with contextlib.closing(connect(path)) as connection:
        connection.execute("INSERT INTO t VALUES (?)", (value,))


def rows(path):
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True,
                                                timeout=20)) as connection:
            return [n for n, in connection.execute("SELECT n FROM t ORDER BY rowid")]
    except sqlite3.OperationalError as error:
        return str(error)


def status(data):
    return json.loads(litebucket("status", "--json", data.point).stdout)


def aside(data):
    return status(data)["aside"]


def role(data):
    return status(data)["role"]


def becomes(data, wanted, seconds=60):
    eventually(lambda: role(data) == wanted, seconds, data.log_text)


def shows(path, wanted, seconds=30):
    eventually(lambda: path.exists() and rows(path) == wanted, seconds,
               lambda: f"{path} has {path.exists() and rows(path)}, not {wanted}")


def follower_of(data):
    """The pid of its process."""
    found = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(data.process.pid)],
                           capture_output=True, text=True, check=True).stdout
    pid, = [int(line.split()[0]) for line in found.splitlines() if " standby " in line]
    return pid


@pytest.fixture
def pair(mount):
    """pair(bucket): a primary that has databases, and a standby that is not started."""
    def make(bucket, *options):
        first = mount(bucket, "--lease-ttl", "2s", "--upload-interval", "50ms", *options, name="first")
        second = mount(bucket, "--lease-ttl", "2s", "--upload-interval", "50ms", *options, name="second")
        return first, second

    return make


# --- while another writes

def test_it_follows_in_step(bucket, pair):
    first, second = pair(bucket, "--advertise-url", "http://writer.example/")
    with first:
        for journal in JOURNALS:
            fill(first / f"{journal}.db", journal, 1)
            sync(first / f"{journal}.db")
        with second:
            second.wait_for_log(STANDING)
            for journal in JOURNALS:
                assert rows(second / f"{journal}.db") == [1]
                fill(first / f"{journal}.db", journal, 2)
                shows(second / f"{journal}.db", [1, 2])
            # More than is kept in memory, and more than its log takes without a checkpoint.
            connection = connect(first / "wal.db")
            connection.execute("CREATE TABLE large(body)")
            connection.execute("WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s "
                               "WHERE i < 3000) INSERT INTO large SELECT randomblob(4000) FROM s")
            connection.execute("INSERT INTO t VALUES (3)")
            connection.close()
            shows(second / "wal.db", [1, 2, 3])
            (first / "deep").mkdir()
            fill(first / "deep" / "new.db", "wal", 1)
            shows(second / "deep" / "new.db", [1])
            assert "new.db" in os.listdir(second / "deep")
            for name in ("wal.db", "delete.db"):
                (first / name).unlink()
                eventually(lambda: not (second / name).exists(), 30, second.log_text)
                assert not [left for left in os.listdir(second.point) if left.startswith(name)]
            found = status(second)
            assert found["role"] == "standby" and found["lease"]["state"] == "seeking"
            assert found["lease"]["owner"] == socket.gethostname()
            assert found["lease"]["url"] == "http://writer.example/"
            assert "http://writer.example/" in litebucket("status", second.point).stdout
            assert role(first) == "primary"
            failed = litebucket("sync", second / "truncate.db", check=False)
            assert failed.returncode == 1 and "this mount is a standby" in failed.stderr


def refused(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "Read-only file system" in done.stderr, (command, done)


def test_nobody_else_writes_it(file_bucket, pair, work):
    first, second = pair(file_bucket)
    with first:
        (first / "deep").mkdir()
        for name in ("app.db", "deep/app.db"):
            fill(first / name, "wal", 1)
            sync(first / name)
        with second:
            second.wait_for_log(STANDING)
            shows(second / "deep" / "app.db", [1])
            refused("mv", second / "deep", second / "other")
            app, wal = second / "app.db", second / "app.db-wal"
            connection = connect(app, 0.1)
            for sql in ("INSERT INTO t VALUES (2)", "CREATE TABLE other(n)", "VACUUM",
                        "PRAGMA user_version = 7", "DROP TABLE t"):
                with pytest.raises(sqlite3.OperationalError, match=READONLY):
                    connection.execute(sql)
            assert connection.execute("PRAGMA journal_mode = wal").fetchall() == [("wal",)]
            connection.execute("CREATE TABLE IF NOT EXISTS t(n)")
            for file in (app, wal):
                refused("dd", "if=/dev/zero", f"of={file}", "bs=1", "count=1", "conv=notrunc")
                refused("truncate", "-s", "0", file)
                refused("fallocate", "-l", "1M", file)
                refused("rm", file)
                refused("mv", file, second / "moved")
            (work / "text").write_text("text")
            refused("cp", first / "app.db", second / "copy.db")
            refused("cp", work / "text", second / "app.db-journal")
            refused("mv", work / "text", second / "app.db")
            # What is no database is as in any other directory.
            (second / "notes").write_text("hello")
            os.rename(second / "notes", second / "letters")
            assert (second / "letters").read_text() == "hello"
            (second / "letters").unlink()
            assert ".litebucket" not in os.listdir(second.point)
            assert not (second / ".litebucket").exists()
            assert not (second / ".litebucket" / "follow").exists()
            assert connection.execute("SELECT n FROM t").fetchall() == [(1,)]
            connection.close()
            fill(first / "app.db", "wal", 2)
            shows(app, [1, 2])


def test_what_it_makes_belongs_to_whom_the_directory_belongs_to(file_bucket, mount, anywhere):
    """Else the application could not read it, nor write it once it may."""
    as_nobody = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    directories = [anywhere / "first", anywhere / "second"]
    nodes = []
    for directory in directories:
        directory.mkdir()
        os.chown(directory, NOBODY, NOBODY)
        made = mount(file_bucket, "--lease-ttl", "2s", "--upload-interval", "50ms", "--allow-other")
        made.directory = made.point = directory
        made.log = made.log.with_name(f"{directory.name}.log")
        nodes.append(made)
    first, second = nodes

    def run(path, sql):
        program = ("import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None); "
                   "print(db.execute(sys.argv[2]).fetchall())")
        return subprocess.run(["/usr/bin/python3", "-c", program, path, sql], **as_nobody, text=True,
                              capture_output=True, timeout=60)

    with first, second:
        second.wait_for_log(STANDING)
        subprocess.run(["mkdir", first / "deep"], **as_nobody, check=True)
        for name in ("app.db", "deep/app.db"):
            assert run(first / name, "CREATE TABLE t(n)").returncode == 0
            sync(first / name)
            shows(second / name, [])
            done = run(second / name, "SELECT * FROM t")
            assert done.stdout == "[]\n", done.stderr
        assert first.stop() == 0
        becomes(second, "primary")
        for name in ("app.db", "deep/app.db"):
            done = run(second / name, "INSERT INTO t VALUES (1)")
            assert done.returncode == 0, done.stderr
            assert rows(second / name) == [1]


def test_another_follower_comes_for_one_that_is_killed(file_bucket, pair):
    first, second = pair(file_bucket)
    with first:
        fill(first / "app.db", "wal", 1)
        sync(first / "app.db")
        with second:
            second.wait_for_log(STANDING)
            for number in (2, 3):
                os.kill(follower_of(second), signal.SIGKILL)
                fill(first / "app.db", "wal", number)
                shows(second / "app.db", list(range(1, number + 1)))
            second.wait_for_log("the follower ended; starting another")


def test_it_starts_again_as_what_it_was(away, s3_bucket, mount, work):
    """Also where the bucket does not answer: it would be a writer unasked."""
    behind, proxy = away
    first = mount(s3_bucket, "--lease-ttl", "60s", name="first")
    second = mount(behind, name="second")
    with first:
        fill(first / "app.db", "delete", 1)
        sync(first / "app.db")
        with second:
            second.wait_for_log(STANDING)
            second.kill()
            second.unmount()
            fill(first / "app.db", "delete", 2)
            sync(first / "app.db")
            second.start()
            shows(second / "app.db", [1, 2])
            assert second.stop() == 0
            proxy.cut()
            proxy.mend()
            proxy.lose_replies()
            started = subprocess.Popen(
                [harness.LITEBUCKET, "mount", second.directory, behind.url],
                env=behind.environment(), stderr=open(work / "log", "w"))
            try:
                eventually(lambda: harness.is_mounted(second.point), 60, "it is not mounted")
                shows(second / "app.db", [1, 2])
                with pytest.raises(sqlite3.OperationalError, match=READONLY):
                    connect(second / "app.db").execute("INSERT INTO t VALUES (3)")
                proxy.cut()
                proxy.mend()
                fill(first / "app.db", "delete", 4)
                sync(first / "app.db")
                shows(second / "app.db", [1, 2, 4])
            finally:
                started.terminate()
                started.wait(60)


# --- a directory that was a primary's

@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_the_last_primary_stands_by_for_the_next(bucket, pair, work, journal):
    """And takes over again, and so on."""
    nodes = list(pair(bucket))
    with nodes[0]:
        fill(nodes[0] / "app.db", journal, 0)
        fill(nodes[0] / "gone.db", journal, 0)
        sync(nodes[0] / "app.db")
        with nodes[1]:
            nodes[1].wait_for_log(STANDING)
            expected = [0]
            for turn in range(1, 4):
                first, second = nodes
                assert first.stop() == 0
                becomes(second, "primary")
                expected.append(turn)
                write(second / "app.db", turn)
                if turn == 1:
                    (second / "gone.db").unlink()
                first.log.unlink()
                first.start()
                becomes(first, "standby")
                shows(first / "app.db", expected)
                write(second / "app.db", -turn)
                expected.append(-turn)
                shows(first / "app.db", expected)
                eventually(lambda: not (first / "gone.db").exists(), 30, first.log_text)
                with pytest.raises(sqlite3.OperationalError, match=READONLY):
                    write(first / "app.db", "x")
                nodes.reverse()
            check_restore(bucket, nodes[0], work, "app.db")
            assert not aside(nodes[0]) and not aside(nodes[1])
            fill(nodes[0] / "gone.db", journal, "again")
            check_restore(bucket, nodes[0], work, "gone.db")


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_one_that_was_killed_with_commits_of_its_own_sets_them_aside_first(file_bucket, pair, work,
                                                                           journal):
    first, second = pair(file_bucket)
    hidden = file_bucket.directory.with_name("hidden")
    with first, second:
        second.wait_for_log(STANDING)
        fill(first / "app.db", journal, 1)
        fill(first / "same.db", journal, 1)
        for name in ("app.db", "same.db"):
            sync(first / name)
            shows(second / name, [1])
        file_bucket.directory.rename(hidden)
        write(first / "app.db", "not sent")
        first.kill()
        first.unmount()
        hidden.rename(file_bucket.directory)
        becomes(second, "primary")
        write(second / "app.db", 2)
        sync(second / "app.db")
        first.start()
        becomes(first, "standby")
        shows(first / "app.db", [1, 2])
        shows(first / "same.db", [1])
        first.wait_for_log("the commits that it did not get are set aside")
        kept, = aside(first)
        assert kept["directory"].startswith("diverged-")
        write(second / "app.db", 3)
        shows(first / "app.db", [1, 2, 3])
        assert second.stop() == 0
        becomes(first, "primary")
        write(first / "app.db", 4)
        check_restore(file_bucket, first, work, "app.db")
        assert rows(first / "app.db") == [1, 2, 3, 4]
    copy = work / "aside"
    harness.run("cp", "-r", first.directory / ".litebucket" / "aside" / kept["directory"], copy)
    assert rows(copy / "database") == [1, "not sent"]


def test_killed_while_its_databases_become_replicas(file_bucket, pair, work):
    first, second = pair(file_bucket)
    with first, second:
        second.wait_for_log(STANDING)
        for name in ("app.db", "other.db"):
            fill(first / name, "wal", 1)
            sync(first / name)
            shows(second / name, [1])
        assert first.stop() == 0
        becomes(second, "primary")
        first.environment = {"LITEBUCKET_FAILPOINT": "follow-position:kill"}
        with pytest.raises(harness.MountFailed):
            first.start()
        first.environment = {}
        first.start()
        becomes(first, "standby")
        write(second / "app.db", 2)
        shows(first / "app.db", [1, 2])
        first.kill()
        first.unmount()
        # This time it is the primary at once.
        assert second.stop() == 0
        first.start()
        becomes(first, "primary")
        for name in ("app.db", "other.db"):
            write(first / name, 3)
            check_restore(file_bucket, first, work, name)
        assert rows(first / "other.db") == [1, 3]
        assert not aside(first)


# --- promotion

READER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)
for sql in sys.stdin:
    try:
        print(db.execute(sql).fetchall(), flush=True)
    except sqlite3.Error as error:
        print(error, flush=True)
"""


class Reader:
    """A process with one connection, as applications have."""

    def __init__(self, database):
        self.process = subprocess.Popen(["/usr/bin/python3", "-c", READER, str(database)], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, sql):
        print(sql, file=self.process.stdin, flush=True)
        return self.process.stdout.readline().rstrip("\n")

    def end(self):
        self.process.communicate()


@pytest.mark.parametrize("journal", JOURNALS)
@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_it_takes_over_under_its_readers(file_bucket, pair, work, journal, how):
    first, second = pair(file_bucket)
    with first:
        for name in ("app.db", "unread.db"):
            fill(first / name, journal, 1)
            sync(first / name)
        with second:
            second.wait_for_log(STANDING)
            reader, idle, snapshot = (Reader(second / "app.db") for _ in range(3))
            assert reader.ask("SELECT n FROM t") == "[(1,)]"
            assert snapshot.ask("BEGIN") == "[]" and snapshot.ask("SELECT n FROM t") == "[(1,)]"
            if how == "killed":
                first.kill()
            else:
                assert first.stop() == 0
            becomes(second, "primary")
            connection = connect(second / "app.db")
            connection.execute("INSERT INTO t VALUES (2)")
            connection.close()
            # Who had it open reads on, and writes once it opens it anew.
            assert reader.ask("SELECT n FROM t") == "[(1,), (2,)]"
            assert reader.ask("INSERT INTO t VALUES (3)") == READONLY
            assert snapshot.ask("SELECT n FROM t") == "[(1,)]"
            assert snapshot.ask("COMMIT") == "[]"
            assert snapshot.ask("SELECT n FROM t") == "[(1,), (2,)]"
            assert idle.ask("INSERT INTO t VALUES (3)") == "[]"
            assert reader.ask("SELECT n FROM t") == "[(1,), (2,), (3,)]"
            for each in (reader, idle, snapshot):
                each.end()
            for name in ("app.db", "unread.db"):
                connection = connect(second / name)
                connection.execute("INSERT INTO t VALUES (4)")
                # In the journal mode that the primary had.
                assert connection.execute("PRAGMA journal_mode").fetchone()[0] == (
                    "wal" if journal == "wal" else "delete")
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                connection.close()
                check_restore(file_bucket, second, work, name)
            assert rows(second / "app.db") == [1, 2, 3, 4]
            # What is written now is captured, and what is made is uploaded.
            fill(second / "new.db", "wal", 1)
            check_restore(file_bucket, second, work, "new.db")
            assert second.stop() == 0
        assert not list((second.directory / ".litebucket" / "follow").glob("*/position"))


def test_replicas_of_an_earlier_life_become_databases(bucket, pair, work):
    """The standby is gone when its turn comes, and starts later."""
    first, second = pair(bucket)
    with first:
        for journal in ("wal", "delete"):
            fill(first / f"{journal}.db", journal, 1)
            sync(first / f"{journal}.db")
        with second:
            second.wait_for_log(STANDING)
            second.kill()
            second.unmount()
            fill(first / "wal.db", "wal", 2)
            assert first.stop() == 0
            second.start()
            assert role(second) == "primary"
            assert rows(second / "wal.db") == [1, 2] and rows(second / "delete.db") == [1]
            for journal in ("wal", "delete"):
                connection = connect(second / f"{journal}.db")
                connection.execute("INSERT INTO t VALUES (3)")
                assert connection.execute("PRAGMA journal_mode").fetchone()[0] == journal
                connection.close()
                check_restore(bucket, second, work, f"{journal}.db")


def test_a_file_that_is_no_replica_keeps_no_other_from_being_served(file_bucket, pair, work):
    first, second = pair(file_bucket)
    with first:
        fill(first / "app.db", "wal", 1)
        sync(first / "app.db")
        with second:
            second.wait_for_log(STANDING)
            (second / "new.db").touch()
            (second / "text.db").write_text("text")
            for name in ("new.db", "text.db"):
                fill(first / name, "wal", 1)
                sync(first / name)
            second.wait_for_log("database is not followed for now", 60)
            assert first.stop() == 0
            becomes(second, "primary")
            write(second / "app.db", 2)
            check_restore(file_bucket, second, work, "app.db")
            assert (second / "text.db").read_text() == "text"


def test_a_stop_while_it_takes_over_is_no_failure(file_bucket, pair, work):
    first, second = pair(file_bucket)
    second.environment = {"LITEBUCKET_SLOWPOINT": "handed-over:1000"}
    with first:
        fill(first / "app.db", "wal", 1)
        sync(first / "app.db")
        with second:
            second.wait_for_log(STANDING)
            assert first.stop() == 0
            second.wait_for_log("taking over")
            assert second.stop() == 0
            assert "cannot be taken over" not in second.log_text()
            # What it had made of the replicas is what the next start finds.
            second.environment = {}
            second.start()
            becomes(second, "primary")
            write(second / "app.db", 2)
            check_restore(file_bucket, second, work, "app.db")


def test_its_follower_is_killed_while_it_hands_over(file_bucket, pair, work, soak):
    for number in range(soak(6, 100)):
        first, second = pair(file_bucket)
        with first:
            for name in ("app.db", "other.db"):
                fill(first / name, "wal" if number % 2 else "delete", number)
                sync(first / name)
            with second:
                second.wait_for_log(STANDING)
                reader = Reader(second / "app.db")
                reader.ask("SELECT n FROM t")
                follower = follower_of(second)
                assert first.stop() == 0
                second.wait_for_log("taking over")
                time.sleep(random.random() / 10)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(follower, signal.SIGKILL)
                becomes(second, "primary")
                for name in ("app.db", "other.db"):
                    assert rows(second / name)[-1] == number
                    check_restore(file_bucket, second, work, name)
                reader.end()
                assert second.stop() == 0
        for data in (first, second):
            harness.run("rm", "-rf", data.directory, data.log)


# --- nothing is lost

def test_commits_that_returned_survive_one_primary_after_the_other(file_bucket, mount, work, soak):
    """Each with a directory of its own; the last is killed, or stopped, at some moment."""
    options = ("--lease-ttl", "1s", "--upload-interval", "50ms", "--durability", "bucket")
    returned, unknown, number = [], [], 0
    current = mount(file_bucket, *options, name="node-0")
    current.__enter__()
    try:
        fill(current / "app.db", "wal")
        for turn in range(1, soak(4, 40)):
            following = mount(file_bucket, *options, name=f"node-{turn}")
            following.__enter__()
            following.wait_for_log(STANDING)
            connection = connect(current / "app.db")
            until = time.monotonic() + 1
            while time.monotonic() < until:
                number += 1
                unknown.append(number)
                connection.execute("INSERT INTO t VALUES (?)", (number,))
                returned.append(unknown.pop())
            connection.close()
            if turn % 2:
                current.kill()
                current.unmount()
            else:
                assert current.stop() == 0
            current = following
            becomes(current, "primary")
            found = rows(current / "app.db")
            assert found == returned
        assert current.stop() == 0
    finally:
        current.unmount()
    restore(file_bucket, "app.db", work / "restored")
    assert rows(work / "restored") == returned
