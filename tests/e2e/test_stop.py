"""The end of a mount: nobody who uses it meets the plain files."""
import errno
import os
import re
import sqlite3
import subprocess
import sys
import time

import pytest

import harness
from harness import eventually, is_mounted, litebucket, run, sha256


def refused(call, *arguments):
    with pytest.raises(OSError) as failure:
        call(*arguments)
    assert failure.value.errno == errno.ENOTCONN


def close_somehow(file):
    try:
        file.close()
    except OSError:
        pass


def test_a_mount_that_nobody_uses_is_removed(file_bucket, mount):
    with mount(file_bucket) as data:
        (data / "file").write_text("x")
        assert data.stop() == 0
        assert not is_mounted(data.point)
        assert (data.directory / "file").read_text() == "x"


def test_a_mount_with_a_file_open_stays_and_is_dead(file_bucket, mount):
    """Fails closed; the log says who it was and how to get at the plain files."""
    with mount(file_bucket, "--stop-timeout", "1s") as data:
        file = open(data / "file", "wb", buffering=0)
        file.write(b"answered")
        directory = os.open(data.point, os.O_RDONLY)
        began = time.monotonic()
        assert data.stop() == 0
        assert time.monotonic() - began < 20
        refused(file.write, b"too late")
        refused(os.listdir, data.point)
        refused(open, data / "file")
        refused(open, data / "new", "w")
        said = data.log_text()
        assert re.search(rf"level=warn .*umount -l.*\(pid {os.getpid()}, has '.*/file' open\)",
                         said), said
        data.start()
        assert (data / "file").read_bytes() == b"answered"
        os.close(directory)
        close_somehow(file)


def test_the_plain_files_of_a_mount_left_dead_come_with_a_lazy_unmount(file_bucket, mount):
    with mount(file_bucket, "--stop-timeout", "1s") as data:
        file = open(data / "file", "wb", buffering=0)
        file.write(b"answered")
        assert data.stop() == 0
        run("umount", "-l", data.point)
        assert (data.directory / "file").read_bytes() == b"answered"
        refused(file.write, b"too late")
        close_somehow(file)


def test_who_asks_for_it_gets_the_mount_away_from_its_users(file_bucket, mount):
    with mount(file_bucket, "--stop-timeout", "1s", "--on-stop", "unmount") as data:
        file = open(data / "file", "wb", buffering=0)
        file.write(b"answered")
        assert data.stop() == 0
        assert not is_mounted(data.point)
        assert (data.directory / "file").read_bytes() == b"answered"
        refused(file.write, b"too late")
        assert re.search(rf"level=warn .*unmounted while in use.*pid {os.getpid()}", data.log_text())
        close_somehow(file)


@pytest.mark.parametrize("what", ["leave", "unmount"])
def test_a_working_directory_inside_does_not_hold_up_a_stop(file_bucket, mount, what):
    with mount(file_bucket, "--on-stop", what) as data:
        sitter = subprocess.Popen(["sleep", "600"], cwd=data.point)
        began = time.monotonic()
        assert data.stop() == 0
        assert time.monotonic() - began < 15, "it waited for one who does not go"
        assert is_mounted(data.point) == (what == "leave")
        assert re.search(rf"sleep \(pid {sitter.pid}, its working directory is '", data.log_text())
        sitter.kill()
        sitter.wait()


WRITER = """
import sqlite3, sys, time
number, failures, db = 0, 0, None
while True:
    try:
        if not db:
            db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=5)
            db.execute("PRAGMA journal_mode=" + sys.argv[2])
            db.execute("CREATE TABLE IF NOT EXISTS t(a)")
        db.execute("INSERT INTO t VALUES(?)", (number,))
        print(number, flush=True)
        number += 1
        time.sleep(0.01)
    except sqlite3.Error as error:
        print("error", error, file=sys.stderr, flush=True)
        time.sleep(0.05)
        try:
            db and db.close()
        except sqlite3.Error:
            pass
        db = None
"""


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_a_program_that_opens_its_database_again_never_writes_the_plain_file(file_bucket, mount,
                                                                            work, journal):
    with mount(file_bucket, "--stop-timeout", "1s") as data, \
            open(work / "acknowledged", "wb+") as out, open(work / "errors", "wb+") as err:
        writer = subprocess.Popen([sys.executable, "-c", WRITER, data / "app.db", journal],
                                  stdout=out, stderr=err)
        count = lambda: (work / "acknowledged").read_text().count("\n")
        failures = lambda: (work / "errors").read_text().count("\n")
        try:
            for _ in range(3):
                before = count()
                eventually(lambda: count() > before + 5, 60, "it does not write")
                data.stop()
                seen = failures()
                eventually(lambda: failures() > seen + 2, 30, "it gets no errors")
                # The plain file, beneath the dead mount, through another mount of its disk.
                beneath = work / "beneath"
                beneath.mkdir(exist_ok=True)
                run("mount", "--bind", work, beneath)
                try:
                    plain = beneath / "data" / "app.db"
                    was, seen = sha256(plain), failures()
                    eventually(lambda: failures() > seen + 2, 30, "it gets no errors")
                    assert sha256(plain) == was, "somebody writes the plain file"
                finally:
                    run("umount", beneath)
                data.start()
        finally:
            writer.kill()
            writer.wait()
        said = [int(line) for line in (work / "acknowledged").read_text().split()]
        db = sqlite3.connect(data / "app.db")
        rows = [a for a, in db.execute("SELECT a FROM t ORDER BY rowid")]
        db.close()
        # The last may have been committed and not been said.
        assert [a for a in dict.fromkeys(rows)][:len(said)] == said
        harness.sync(data / "app.db")
        harness.restore(file_bucket, "app.db", work / "restored.db")
        restored = sqlite3.connect(work / "restored.db")
        assert [a for a, in restored.execute("SELECT a FROM t ORDER BY rowid")] == rows
        restored.close()


def test_an_unknown_way_to_stop_is_a_mistake(work):
    result = litebucket("mount", "--on-stop", "explode", work, f"file://{work}-bucket", check=False)
    assert result.returncode == 2
    assert "neither leave nor unmount" in result.stderr
