"""Commits that wait for the bucket (mount --durability bucket)."""
import contextlib
import json
import os
import re
import select
import shutil
import signal
import sqlite3
import subprocess
import time

import harness
import pytest
from following import NOBODY
from harness import litebucket

# What a commit that does not wait is through in; and what shows that one waits.
SOON_SECONDS = 20
WAITS_SECONDS = 1.5

CLIENT = """
import json, signal, sqlite3, sys
signal.signal(signal.SIGALRM, lambda *_: None)
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0.2)
for line in sys.stdin:
    try:
        answer = connection.execute(json.loads(line)).fetchall()
    except sqlite3.Error as error:
        answer = str(error)
    print(json.dumps(answer), flush=True)
"""


class Client:
    """A process with one connection: it may have to wait inside the kernel."""

    def __init__(self, database, **options):
        self.process = subprocess.Popen(["/usr/bin/python3", "-c", CLIENT, database], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)

    def send(self, sql):
        self.process.stdin.write(json.dumps(sql) + "\n")
        self.process.stdin.flush()

    def answers(self, seconds):
        return bool(select.select([self.process.stdout], [], [], seconds)[0])

    def answer(self, seconds=SOON_SECONDS):
        assert self.answers(seconds), "no answer"
        return json.loads(self.process.stdout.readline())

    def ask(self, *statements):
        for sql in statements:
            self.send(sql)
            answer = self.answer()
            assert not isinstance(answer, str), (sql, answer)
        return answer

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind:
            self.process.kill()
        self.process.stdin.close()
        self.process.wait(SOON_SECONDS)
        self.process.stdout.close()


@contextlib.contextmanager
def clients(*databases, **options):
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Client(database, **options)) for database in databases]


class Away:
    """A bucket that can be taken away, and brought back."""

    def __init__(self, bucket, away, back):
        self.bucket, self.away, self.back = bucket, away, back


@pytest.fixture(params=["file", "s3"])
def distant(request):
    if request.param == "s3":
        bucket, proxy = request.getfixturevalue("away")
        yield Away(bucket, proxy.cut, proxy.mend)
        return
    bucket = request.getfixturevalue("file_bucket")
    hidden = bucket.directory.with_name("hidden")
    yield Away(bucket, lambda: bucket.directory.rename(hidden),
               lambda: hidden.rename(bucket.directory))


def durable(mount, bucket, *options, **keywords):
    """With an interval that shows who waits for it."""
    return mount(bucket, "--durability", "bucket", "--upload-interval", "30s", *options, **keywords)


def restored(bucket, name, output):
    output.unlink(missing_ok=True)
    harness.restore(bucket, name, output)
    with contextlib.closing(sqlite3.connect(output)) as connection:
        return [row[0] for row in connection.execute("SELECT n FROM t ORDER BY n")]


def status_of(path):
    document = json.loads(litebucket("status", "--json", path).stdout)
    return {db["path"]: db for db in document["databases"]}


MODES = {
    "wal": ["PRAGMA journal_mode = wal"],
    "wal-normal": ["PRAGMA journal_mode = wal", "PRAGMA synchronous = normal"],
    "wal-off": ["PRAGMA journal_mode = wal", "PRAGMA synchronous = off"],
    "wal-exclusive": ["PRAGMA locking_mode = exclusive", "PRAGMA journal_mode = wal"],
    "delete": ["PRAGMA journal_mode = delete"],
    "delete-exclusive": ["PRAGMA locking_mode = exclusive"],
    "truncate": ["PRAGMA journal_mode = truncate"],
    "persist": ["PRAGMA journal_mode = persist"],
}


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
@pytest.mark.parametrize("mode", MODES)
def test_what_was_committed_is_in_the_bucket(file_bucket, mount, work, mode, page_size):
    with durable(mount, file_bucket) as data, clients(data / "app.db") as (app,):
        app.ask(f"PRAGMA page_size = {page_size}", *MODES[mode], "CREATE TABLE t(n, body)")
        for number in range(6):
            app.ask(f"INSERT INTO t VALUES ({number}, randomblob(20000))")
            assert restored(file_bucket, "app.db", work / "copy.db") == list(range(number + 1))


def test_what_was_committed_is_in_an_s3_bucket(s3_bucket, mount, work):
    with durable(mount, s3_bucket) as data, clients(data / "app.db") as (app,):
        app.ask("PRAGMA journal_mode = wal", "CREATE TABLE t(n)")
        for number in range(3):
            app.ask(f"INSERT INTO t VALUES ({number})")
            assert restored(s3_bucket, "app.db", work / "copy.db") == list(range(number + 1))


def test_a_transaction_that_was_spilled_into_the_wal(file_bucket, mount, work):
    """Its frames are written over, and their headers once more at the end."""
    with durable(mount, file_bucket) as data, clients(data / "app.db") as (app,):
        app.ask("PRAGMA journal_mode = wal", "PRAGMA cache_size = 5",
                "CREATE TABLE t(n INTEGER PRIMARY KEY, body)")
        for number in range(4):
            app.ask("BEGIN",
                    "WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 200) "
                    f"INSERT INTO t SELECT {number} * 1000 + i, randomblob(900) FROM s",
                    "UPDATE t SET body = randomblob(900)", "UPDATE t SET body = randomblob(900)",
                    "COMMIT")
            assert len(restored(file_bucket, "app.db", work / "copy.db")) == 200 * (number + 1)


def test_a_huge_transaction(file_bucket, mount, work):
    """Its pages are looked at after the journal has gone."""
    with durable(mount, file_bucket) as data, clients(data / "app.db") as (app,):
        app.ask("CREATE TABLE t(n INTEGER PRIMARY KEY, body)")
        app.ask("WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 3000) "
                "INSERT INTO t SELECT i, randomblob(4000) FROM s")
        assert len(restored(file_bucket, "app.db", work / "copy.db")) == 3000


def test_after_a_restart_the_first_commit_waits_too(file_bucket, mount, work):
    """The WAL is not empty, and what is in it has to be compared."""
    data = durable(mount, file_bucket)
    with data:
        with clients(data / "app.db") as (app,):
            app.ask("PRAGMA journal_mode = wal", "CREATE TABLE t(n)", "INSERT INTO t VALUES (0)")
            data.kill()
            app.process.kill()
        data.start()
        with clients(data / "app.db") as (app,):
            app.ask("INSERT INTO t VALUES (1)")
            assert restored(file_bucket, "app.db", work / "copy.db") == [0, 1]


def test_which_databases(file_bucket, mount):
    options = ["--durability", "bucket:*.db", "--durability", "local:log/*", "--durability",
               "bucket:log/audit.db"]
    with mount(file_bucket, "--upload-interval", "30s", *options) as data:
        (data / "log").mkdir()
        names = {"app.db": "bucket", "log/app.db": "local", "log/audit.db": "bucket",
                 "app.sqlite": "local"}
        for name in names:
            with clients(data / name) as (app,):
                app.ask("CREATE TABLE t(n)")
        found = status_of(data.point)
        assert {name: found[name]["durability"] for name in names} == names
        assert "durability" not in litebucket("status", data.point).stdout


def test_the_environment_says_it_too(file_bucket, mount):
    with mount(file_bucket, environment={"LITEBUCKET_DURABILITY": "bucket"}) as data:
        with clients(data / "app.db") as (app,):
            app.ask("CREATE TABLE t(n)")
        assert status_of(data.point)["app.db"]["durability"] == "bucket"


@pytest.mark.parametrize("value", ["disk", "bucket:", "buckets", "bucket/*.db"])
def test_a_durability_that_is_none(work, value):
    failed = litebucket("mount", "--durability", value, work, f"file://{work}/bucket", check=False)
    assert failed.returncode == 2
    assert f"--durability: '{value}' is neither local nor bucket" in failed.stderr


@pytest.fixture
def users_mount(mount, anywhere):
    """users_mount(bucket): of a directory that belongs to an ordinary user.

    Root's SQLite gives a WAL that it opens to the database's owner, and the kernel
    lets it do so only once nobody writes that WAL.
    """
    directory = anywhere / "data"
    directory.mkdir()
    os.chown(directory, NOBODY, NOBODY)

    def make(bucket):
        made = durable(mount, bucket, "--allow-other")
        made.directory = made.point = directory
        return made

    return make


@pytest.mark.parametrize("mode", ["wal", "delete", "truncate", "persist"])
def test_without_the_bucket_a_commit_waits(distant, users_mount, mode):
    with users_mount(distant.bucket) as data, \
            clients(*3 * [data / "app.db"], user=NOBODY) as (app, reader, new):
        app.ask(f"PRAGMA journal_mode = {mode}", "CREATE TABLE t(n)", "INSERT INTO t VALUES (1)")
        assert reader.ask("SELECT n FROM t") == [[1]]
        distant.away()
        app.send("INSERT INTO t VALUES (2)")
        assert not app.answers(WAITS_SECONDS)
        # Nobody sees it, and a mount that waits goes on serving.
        for other in (reader, new):
            other.send("SELECT n FROM t")
            assert other.answer() == ([[1]] if mode == "wal" else "database is locked")
        other.send("INSERT INTO t VALUES (3)")
        assert other.answer() == "database is locked"
        status = status_of(data.point)["app.db"]
        assert 1 < status["commit_waits_seconds"] < 60, status
        assert re.search(r"app\.db: a commit has waited for the bucket for \d",
                         litebucket("status", data.point).stdout)
        if mode != "delete":
            # Programs that come and go do not wait for it.
            with clients(data / "app.db", user=NOBODY) as (visitor,):
                visitor.send("SELECT n FROM t")
                visitor.answer()
        distant.back()
        assert app.answer() == []
        assert new.ask("SELECT n FROM t ORDER BY n") == [[1], [2]]
        assert status_of(data.point)["app.db"]["commit_waits_seconds"] is None
        app.ask("INSERT INTO t VALUES (4)")


def test_who_waits_keeps_nobody_else(file_bucket, mount):
    """More of them than there are workers for other things."""
    hidden = file_bucket.directory.with_name("hidden")
    names = [f"{number}.db" for number in range(24)]
    with mount(file_bucket, "--durability", "bucket:*.db") as data:
        with clients(*(data / name for name in names), data / "local") as (*waiting, local):
            for client in waiting + [local]:
                client.ask("PRAGMA journal_mode = wal", "CREATE TABLE t(n)")
            file_bucket.directory.rename(hidden)
            for client in waiting:
                client.send("INSERT INTO t VALUES (1)")
            assert not waiting[-1].answers(WAITS_SECONDS)
            for _ in range(20):
                local.ask("INSERT INTO t VALUES (1)", "PRAGMA wal_checkpoint(truncate)")
            assert len([db for db in status_of(data.point).values()
                        if db["commit_waits_seconds"]]) == len(names)
            hidden.rename(file_bucket.directory)
            for client in waiting:
                assert client.answer() == []


@pytest.mark.parametrize("mode", ["wal", "delete", "truncate", "persist"])
def test_who_is_killed_does_not_wait(file_bucket, mount, work, mode):
    hidden = file_bucket.directory.with_name("hidden")
    with durable(mount, file_bucket) as data:
        with clients(*2 * [data / "app.db"]) as (app, other):
            app.ask(f"PRAGMA journal_mode = {mode}", "CREATE TABLE t(n)")
            file_bucket.directory.rename(hidden)
            app.send("INSERT INTO t VALUES (1)")
            assert not app.answers(WAITS_SECONDS)
            # A signal that it handles is no reason to tell it anything.
            app.process.send_signal(signal.SIGALRM)
            assert not app.answers(WAITS_SECONDS)
            app.process.kill()
            app.process.wait(SOON_SECONDS)
            # Its locks are gone, and the next commit waits for both.
            other.send("INSERT INTO t VALUES (2)")
            assert not other.answers(WAITS_SECONDS)
            hidden.rename(file_bucket.directory)
            assert other.answer() == []
            rows = [row for row, in other.ask("SELECT n FROM t ORDER BY n")]
            assert rows == [1, 2] or (mode == "wal" and rows == [2])
            assert restored(file_bucket, "app.db", work / "copy.db") == rows


@pytest.mark.parametrize("mode", ["wal", "delete", "truncate", "persist"])
def test_the_end_of_the_mount_ends_the_waiting(file_bucket, mount, work, mode):
    hidden = file_bucket.directory.with_name("hidden")
    data = durable(mount, file_bucket, "--stop-timeout", "3s")
    with data, clients(data / "app.db") as (app,):
        app.ask(f"PRAGMA journal_mode = {mode}", "CREATE TABLE t(n)", "INSERT INTO t VALUES (1)")
        file_bucket.directory.rename(hidden)
        app.send("INSERT INTO t VALUES (2)")
        assert not app.answers(WAITS_SECONDS)
        begun = time.monotonic()
        assert data.stop() == 1
        assert time.monotonic() - begun < SOON_SECONDS
        assert isinstance(app.answer(), str)
        hidden.rename(file_bucket.directory)
        data.start()
        litebucket("sync", data / "app.db")
        assert restored(file_bucket, "app.db", work / "copy.db") in ([1], [1, 2])


def take_slot(bucket, work):
    """Somebody else's batch in the slot after the last one, as far as one can see."""
    last = max(bucket.directory.glob("app.db/ltx/0/*.ltx"))
    txid = int(last.name[:16], 16) + 1
    foreign = last.with_name(f"{txid:016x}-{txid:016x}.ltx")
    shutil.copy(last, foreign)


@pytest.mark.parametrize("mode", ["wal", "truncate", "persist"])
def test_a_database_that_lost_its_name_fails_the_commit(file_bucket, mount, work, mode):
    with durable(mount, file_bucket) as data:
        with clients(data / "app.db") as (app,):
            app.ask(f"PRAGMA journal_mode = {mode}", "PRAGMA locking_mode = exclusive",
                    "CREATE TABLE t(n)", "INSERT INTO t VALUES (1)")
            os.rename(data / "app.db", data / "moved.db")
            app.send("INSERT INTO t VALUES (2)")
            assert "disk I/O error" in app.answer()
        data.wait_for_log("was renamed or removed")


@pytest.mark.parametrize("mode", ["wal", "delete", "truncate", "persist"])
def test_another_writer_in_the_slot_fails_the_commit(file_bucket, mount, work, mode):
    point = work / "point"
    data = durable(mount, file_bucket, mountpoint=point)
    with data, clients(*2 * [data / "app.db"]) as (app, reader):
        app.ask(f"PRAGMA journal_mode = {mode}", "CREATE TABLE t(n)", "INSERT INTO t VALUES (1)")
        take_slot(file_bucket, work)
        for number in (2, 3):
            app.send(f"INSERT INTO t VALUES ({number})")
            assert "disk I/O error" in app.answer()
            assert not (data / "app.db-journal").exists() or mode in ("truncate", "persist")
        # The others go on reading, and meet the files as they are.
        if mode == "wal":
            assert reader.ask("SELECT n FROM t") == [[1]]
        else:
            assert reader.ask("SELECT n FROM t")[0] == [1]
        # What the kernel knows of them is what there is.
        names = sorted(path.name for path in data.directory.iterdir() if path.name[0] != ".")
        assert names == sorted(path.name for path in data.point.iterdir())
        for name in names:
            assert (data / name).exists()
            if not name.endswith("-shm"):
                assert (data / name).read_bytes() == (data.directory / name).read_bytes()
        data.wait_for_log("a commit failed: it cannot get into the bucket")
        for client in (app, reader):
            client.process.kill()
        assert data.stop() == 1


def test_commits_without_a_journal_do_not_wait(file_bucket, mount):
    hidden = file_bucket.directory.with_name("hidden")
    with durable(mount, file_bucket) as data, clients(data / "app.db") as (app,):
        app.ask("CREATE TABLE t(n)", "PRAGMA journal_mode = memory", "INSERT INTO t VALUES (0)")
        file_bucket.directory.rename(hidden)
        # Its pages are written while its lock can be seen.
        app.ask("PRAGMA cache_size = 5", "BEGIN IMMEDIATE",
                "WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 200) "
                "INSERT INTO t SELECT randomblob(4000) FROM s")
        data.wait_for_log("commits without a journal do not wait for the bucket")
        app.ask("COMMIT")
        hidden.rename(file_bucket.directory)
        data.wait_for_log("commits without a journal do not wait for the bucket")


def test_a_commit_waits_for_what_was_written_without_a_journal(file_bucket, mount, work):
    """Who waits has the lock that would tell that somebody is in such a transaction."""
    with durable(mount, file_bucket) as data, clients(*2 * [data / "app.db"]) as (app, other):
        app.ask("CREATE TABLE t(n)")
        for number in range(10):
            other.ask("PRAGMA journal_mode = memory", f"INSERT INTO t VALUES ({2 * number})")
            app.ask(f"INSERT INTO t VALUES ({2 * number + 1})")
            assert restored(file_bucket, "app.db", work / "copy.db") == list(range(2 * number + 2))


def test_other_changes_do_not_wait(file_bucket, mount):
    """Removing, renaming, copying: no commits."""
    hidden = file_bucket.directory.with_name("hidden")
    with durable(mount, file_bucket) as data:
        with clients(data / "app.db", data / "old.db") as (app, old):
            for client in (app, old):
                client.ask("PRAGMA journal_mode = wal", "CREATE TABLE t(n)")
            file_bucket.directory.rename(hidden)
            assert app.ask("PRAGMA wal_checkpoint(truncate)") == [[0, 0, 0]]
        for command in (["mv", data / "old.db", data / "new.db"], ["rm", data / "new.db"],
                        ["cp", data / "app.db", data / "copy.db"]):
            harness.run(*command, timeout=SOON_SECONDS)
        hidden.rename(file_bucket.directory)


def test_writers_take_turns(file_bucket, mount):
    """The next one of a database waits for the one before, and nobody for ever."""
    with durable(mount, file_bucket) as data, clients(*4 * [data / "app.db"]) as writers:
        writers[0].ask("PRAGMA journal_mode = wal", "CREATE TABLE t(n)")
        for writer in writers:
            writer.ask("PRAGMA busy_timeout = 20000")
        for number in range(5):
            for writer in writers:
                writer.send("INSERT INTO t VALUES (1)")
            for writer in writers:
                assert writer.answer() == []
        assert writers[0].ask("SELECT count(*) FROM t") == [[20]]
        status = status_of(data.point)["app.db"]
        assert status["txid"] == status["confirmed"]
