"""Processes that use a database past the mount, under locks nobody there sees."""
import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

import harness
from harness import MountFailed, assert_intact, eventually, litebucket, sync


def make(path, *rows):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE IF NOT EXISTS t(a)")
    connection.executemany("INSERT INTO t VALUES(?)", [(row,) for row in rows])
    connection.commit()
    connection.close()


def rows(path):
    connection = sqlite3.connect(path)
    try:
        return [a for a, in connection.execute("SELECT a FROM t ORDER BY rowid")]
    finally:
        connection.close()


CAP_SYS_PTRACE = 19

HOLD = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode=" + sys.argv[2])
db.execute("SELECT count(*) FROM t").fetchall()
print("open", flush=True)
for line in sys.stdin:
    db.execute("INSERT INTO t VALUES(?)", (line.strip(),))
    print("done", flush=True)
"""


@contextlib.contextmanager
def process(code, *arguments, **options):
    """A python process that has said its first line, ended with the block."""
    child = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)
    try:
        assert child.stdout.readline() == "open\n"
        yield child
    finally:
        child.kill()
        child.communicate()


def holder(path, journal="DELETE"):
    return process(HOLD, path, journal)


def is_refused(path):
    try:
        rows(path)
    except sqlite3.OperationalError as error:
        assert "unable to open database file" in str(error)
        return True
    return False


def state_of(data, name):
    document = json.loads(litebucket("status", "--json", data.point).stdout)
    return next(db for db in document["databases"] if db["path"] == name)


# Over a directory that is in use


SIT = "import os, sys, time; os.chdir(sys.argv[1]); print('open', flush=True); time.sleep(600)"
READ = "import sys, time; f = open(sys.argv[1]); print('open', flush=True); time.sleep(600)"


@pytest.mark.parametrize("use", ["a working directory", "an open file", "a database"])
def test_a_directory_in_use_is_not_mounted_over(file_bucket, mount, work, use):
    deep = work / "data" / "deep"
    deep.mkdir(parents=True)
    (deep / "text").write_text("x")
    make(deep / "app.db", 1)
    user = {"a working directory": process(SIT, deep), "an open file": process(READ, deep / "text"),
            "a database": holder(deep / "app.db")}[use]
    data = mount(file_bucket)
    with user as child:
        with pytest.raises(MountFailed) as failed:
            data.start()
        assert failed.value.status == 1
        said = failed.value.log.splitlines()[-1]
        assert re.search(rf"python\S* \(pid {child.pid}, .*deep", said), said
        assert "--force" in said and "cd /" in said
        assert not harness.is_mounted(data.point)
        assert list(file_bucket.directory.iterdir()) == []
        forced = mount(file_bucket, "--force")
        with forced:
            assert re.search(rf"level=warn .*pid {child.pid}", forced.log_text())
    with data:
        assert rows(data / "deep" / "app.db") == [1]


def test_a_shell_that_sits_in_the_directory_is_told_what_to_do(file_bucket, work):
    (work / "data").mkdir()
    result = subprocess.run(["sh", "-c", f"'{harness.LITEBUCKET}' mount . '{file_bucket.url}'; exit $?"],
                            cwd=work / "data", text=True, capture_output=True, check=False)
    assert result.returncode == 1
    assert re.search(r"litebucket: mounting '\.': it is in use.*'cd /'.*\(pid \d+, its working "
                     r"directory is '.*/data'\)", result.stderr), result.stderr


def test_a_process_elsewhere_is_in_nobodys_way(file_bucket, mount, work):
    (work / "data-2").mkdir()
    (work / "data").mkdir()
    with process(SIT, work / "data-2"), process(SIT, work), mount(file_bucket) as data:
        make(data / "app.db", 1)


# Databases that are in use past the mount


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
@pytest.mark.parametrize("place", ["in place", "elsewhere"])
def test_a_database_in_use_outside_is_refused_until_it_is_closed(file_bucket, mount, work, place,
                                                                 journal):
    (work / "data").mkdir()
    for name in ("app.db", "other.db"):
        make(work / "data" / name, 1)
    elsewhere = place == "elsewhere"
    data = mount(file_bucket, *([] if elsewhere else ["--force"]),
                 mountpoint=work / "point" if elsewhere else None)
    with holder(work / "data" / "app.db", journal) as outside:
        with data:
            assert is_refused(data / "app.db")
            data.wait_for_log(rf'msg="database is closed" db=app\.db .*pid {outside.pid}, has .*'
                              r"app\.db' open")
            assert state_of(data, "app.db")["state"] == "closed"
            assert str(outside.pid) in state_of(data, "app.db")["error"]
            assert is_refused(data / "app.db"), "once refused it is open"
            make(data / "other.db", 2)
            assert rows(data / "other.db") == [1, 2]
            # Over its database, its journal would be made in the mount: refused, too.
            goes_on = elsewhere or journal == "WAL"
            outside.stdin.write("outside\n")
            outside.stdin.flush()
            assert outside.stdout.readline() == ("done\n" if goes_on else "")
            outside.kill()
            outside.wait()
            eventually(lambda: not is_refused(data / "app.db"), 20, "it stays closed")
            make(data / "app.db", "inside")
            expected = ["1", "outside", "inside"] if goes_on else ["1", "inside"]
            assert [str(a) for a in rows(data / "app.db")] == expected
            sync(data / "app.db")
            assert state_of(data, "app.db")["state"] == "idle"
            assert data.log_text().count("database is closed") == 1


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_whoever_comes_from_outside_first_keeps_the_mount_out_at_any_time(file_bucket, mount, work,
                                                                          journal):
    """The mount has had it open before; no acknowledged commit is lost, nothing torn."""
    data = mount(file_bucket, mountpoint=work / "point")
    with data:
        make(data / "app.db", "first")
        assert rows(data / "app.db") == ["first"]
        with holder(work / "data" / "app.db", journal) as outside:
            for number in range(50):
                outside.stdin.write(f"outside {number}\n")
                outside.stdin.flush()
                with contextlib.suppress(sqlite3.OperationalError):
                    make(data / "app.db", f"inside {number}")
                    raise AssertionError("both write it")
                assert outside.stdout.readline() == "done\n"
        eventually(lambda: not is_refused(data / "app.db"), 20, "it stays closed")
        assert rows(data / "app.db") == ["first"] + [f"outside {n}" for n in range(50)]
        sync(data / "app.db")
        harness.restore(file_bucket, "app.db", work / "restored.db")
        assert rows(work / "restored.db") == rows(data / "app.db")
        make(data / "app.db", "last")
    assert_intact(data.directory / "app.db")


def test_a_process_that_is_about_to_end_is_waited_for(file_bucket, mount, work):
    data = mount(file_bucket, mountpoint=work / "point")
    with data:
        make(data / "app.db", 1)
        code = ("import sys, time; f = open(sys.argv[1], 'r+b'); print('open', flush=True); "
                "time.sleep(0.2)")
        with process(code, work / "data" / "app.db"):
            # In use, but then it is not: the answer comes late, and is yes or no.
            is_refused(data / "app.db")
        eventually(lambda: not is_refused(data / "app.db"), 20, "it stays closed")


def test_who_only_reads_past_the_mount_is_in_nobodys_way(file_bucket, mount, work):
    data = mount(file_bucket, mountpoint=work / "point")
    with data:
        make(data / "app.db", 1)
        with open(work / "data" / "app.db", "rb"):
            make(data / "app.db", 2)
        (data / "text").write_text("no database")
        with open(work / "data" / "text", "r+b"):
            assert (data / "text").read_text() == "no database"
        assert "database is closed" not in data.log_text()


def test_programs_in_the_mount_never_keep_each_other_out(file_bucket, mount, work, soak):
    """Killed with everything open, and opened again at once, in WAL mode."""
    data = mount(file_bucket)
    with data:
        make(data / "app.db", 0)
        for _ in range(soak(20, 400)):
            with holder(data / "app.db", "WAL"), holder(data / "app.db", "WAL") as other:
                other.stdin.write("1\n")
                other.stdin.flush()
                assert other.stdout.readline() == "done\n"
            assert not is_refused(data / "app.db")
        assert "database is closed" not in data.log_text()


def test_a_wal_that_is_open_in_the_mount_is_nobody_elses(file_bucket, mount):
    """A killed connection's files are closed one by one, the database first."""
    with mount(file_bucket) as data:
        make(data / "app.db", 0)
        with holder(data / "app.db", "WAL") as killed:
            killed.stdin.write("1\n")
            killed.stdin.flush()
            assert killed.stdout.readline() == "done\n"
        with open(data / "app.db-wal", "r+b"):
            assert [str(a) for a in rows(data / "app.db")] == ["0", "1"]


def test_who_has_a_database_open_when_it_is_mounted_elsewhere_is_logged(file_bucket, mount, work):
    (work / "data").mkdir()
    make(work / "data" / "app.db", 1)
    data = mount(file_bucket, mountpoint=work / "point")
    with holder(work / "data" / "app.db") as outside, data:
        data.wait_for_log(rf"level=error .*past the mount.*pid {outside.pid}")


def test_without_leases_proc_tells_who_it_is(file_bucket, mount, work, monkeypatch):
    """Files of somebody else's, and no right to leases on them (CAP_LEASE)."""
    if not shutil.which("setpriv"):
        pytest.skip("no setpriv")
    if not harness.has_capability(CAP_SYS_PTRACE):
        pytest.skip("without CAP_SYS_PTRACE /proc hides the files of who has more rights")
    wrapper = work / "litebucket"
    wrapper.write_text(f"#!/bin/sh\nexec setpriv --bounding-set=-lease '{harness.LITEBUCKET}' \"$@\"\n")
    wrapper.chmod(0o755)
    (work / "data").mkdir()
    make(work / "data" / "app.db", 1)
    os.chown(work / "data" / "app.db", 1234, 1234)
    data = mount(file_bucket, mountpoint=work / "point")
    with holder(work / "data" / "app.db") as outside:
        monkeypatch.setattr(harness, "LITEBUCKET", wrapper)
        data.__enter__()
        try:
            assert is_refused(data / "app.db")
            data.wait_for_log(rf'msg="database is closed" db=app\.db .*pid {outside.pid}')
            outside.send_signal(signal.SIGKILL)
            outside.wait()
            eventually(lambda: not is_refused(data / "app.db"), 20, "it stays closed")
            began = time.monotonic()
            assert rows(data / "app.db") == [1]
            assert time.monotonic() - began < 30
        finally:
            data.__exit__(*sys.exc_info())
