"""The end of a mount: nobody who uses it meets the plain files."""
import contextlib
import errno
import os
import pathlib
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


HOLD = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("CREATE TABLE IF NOT EXISTS t(a)")
db.execute("INSERT INTO t VALUES(1)")
print("open", flush=True)
sys.stdin.read()
"""
SIT = "import os, sys; os.chdir(sys.argv[1]); print('open', flush=True); sys.stdin.read()"


@contextlib.contextmanager
def application(code, path):
    """A process that uses something, until the end of the block."""
    child = subprocess.Popen([sys.executable, "-c", code, path], text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == "open\n"
        yield child
    finally:
        child.kill()
        child.communicate()


@pytest.fixture
def connections(work):
    """The kernel's directory of FUSE connections."""
    directory = work / "connections"
    directory.mkdir()
    run("mount", "-t", "fusectl", "connections", directory)
    yield directory
    run("umount", directory)


def cut_off(data, how, connections):
    """End the connection from outside; the mount stays as long as it is in use."""
    if how == "abort":
        number = os.minor(device_at(data.point))
        (connections / str(number) / "abort").write_text("1")
    else:
        run(*how.split(), data.point, check=False)


def device_at(point):
    """The device of the uppermost mount, without asking it."""
    found = None
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
        for line in mounts:
            _, _, device, _, at, *_ = line.split()
            if at == str(point):
                found = os.makedev(*map(int, device.split(":")))
    return found


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


@pytest.mark.parametrize("how", ["abort", "umount -f"])
@pytest.mark.parametrize("use", ["database", "working directory"])
def test_a_mount_in_use_that_is_cut_off_stays_and_is_dead(file_bucket, mount, connections, how, use):
    with mount(file_bucket) as data:
        (data / "file").write_text("answered")
        user, said = {
            "database": (application(HOLD, data / "app.db"), "has '.*/app.db' open"),
            "working directory": (application(SIT, data.point), "its working directory is '"),
        }[use]
        with user as app:
            cut_off(data, how, connections)
            assert data.wait_end() == 1  # a supervisor starts it again
            assert is_mounted(data.point)
            refused(os.listdir, data.point)
            refused(open, data / "file")
            refused(open, data / "new", "w")
            assert re.search(rf"level=warn .*umount.*\(pid {app.pid}, {said}", data.log_text())
            data.start()
            assert (data / "file").read_text() == "answered"
            assert not (data / "new").exists()


def test_a_stop_that_is_cut_off_waits_for_no_file_any_more(file_bucket, mount, connections):
    with mount(file_bucket, "--stop-timeout", "90s") as data:
        with application(HOLD, data / "app.db") as app:
            data.process.terminate()
            data.wait_for_log("msg=stopping")
            (data / "served").write_text("still")
            began = time.monotonic()
            cut_off(data, "abort", connections)
            assert data.wait_end() == 0
            assert time.monotonic() - began < 30
            refused(open, data / "app.db")
            assert re.search(rf"level=warn .*pid {app.pid}, has '.*/app.db' open", data.log_text())


def test_a_mount_that_was_cut_off_can_be_unmounted_once_its_users_are_gone(file_bucket, mount,
                                                                          connections):
    with mount(file_bucket) as data:
        with application(HOLD, data / "app.db"):
            cut_off(data, "abort", connections)
            assert data.wait_end() == 1
            assert run("umount", data.point, check=False).returncode != 0
        refused(open, data / "app.db")
        run("umount", data.point)
        assert not is_mounted(data.point)
        db = sqlite3.connect(data.directory / "app.db")
        assert db.execute("SELECT a FROM t").fetchall() == [(1,)]
        db.close()


@pytest.mark.parametrize("how", ["abort", "umount -f", "umount"])
def test_a_mount_that_nobody_uses_is_removed_when_it_is_cut_off(file_bucket, mount, connections, how):
    with mount(file_bucket) as data:
        (data / "file").write_text("x")
        (data / "directory").mkdir()  # the file's close was heard of before this
        cut_off(data, how, connections)
        assert data.wait_end() == 0
        assert not is_mounted(data.point)
        assert (data.directory / "file").read_text() == "x"
        assert "in use" not in data.log_text()


def test_what_lies_beneath_a_mount_is_not_unmounted_with_it(file_bucket, mount, small_disk):
    disk = small_disk("data", 20000)
    with mount(file_bucket) as data:
        (data / "file").write_text("x")
        run("umount", data.point)
        assert data.wait_end() == 0
        assert os.path.ismount(disk)
        assert (disk / "file").read_text() == "x"
        assert "in use" not in data.log_text()


def test_a_mount_that_somebody_takes_away_while_in_use_is_said_to_be_gone(file_bucket, mount):
    with mount(file_bucket, "--stop-timeout", "6s") as data:
        with application(HOLD, data / "app.db") as app:
            run("umount", "-l", data.point)
            assert data.stop() == 0, data.log_text()
            assert re.search(rf"level=warn .*unmounted by somebody else while in use.*pid {app.pid}",
                             data.log_text())


def test_a_stop_that_gets_no_thread_leaves_a_mount_in_use_dead(file_bucket, mount):
    """A cgroup in which nothing more may be started."""
    group = pathlib.Path(f"/sys/fs/cgroup/pids/litebucket-test-{os.getpid()}")
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup of our own here: {error}")
    try:
        # To look for leaks takes a thread, too.
        with mount(file_bucket, environment={"ASAN_OPTIONS": "detect_leaks=0"}) as data, \
                application(HOLD, data / "app.db") as app:
            (group / "cgroup.procs").write_text(str(data.process.pid))
            (group / "pids.max").write_text("1")
            data.stop()
            assert is_mounted(data.point)
            refused(os.listdir, data.point)
            assert re.search(rf"level=warn .*umount.*\(pid {app.pid}, has '.*/app.db' open",
                             data.log_text())
    finally:
        group.rmdir()


OUTSIDE = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("SELECT count(*) FROM t").fetchall()
print("open", flush=True)
sys.stdin.read()
"""
MAKE = """
import itertools, os, sys
print("open", flush=True)
for number in itertools.count():
    os.mkdir(sys.argv[1])
    os.rmdir(sys.argv[1])
    os.pwrite(1, b"%d" % number, 0)
"""


def test_what_the_kernel_is_told_during_a_stop_does_not_hold_it_up(file_bucket, mount, work,
                                                                  connections):
    """It is told under the lock of a directory, which somebody has who waits for us."""
    (work / "data").mkdir()
    db = sqlite3.connect(work / "data" / "app.db")
    db.execute("CREATE TABLE t(a)")
    db.close()
    with mount(file_bucket, "--stop-timeout", "15s", mountpoint=work / "point",
               environment={"LITEBUCKET_SLOWPOINT": "loop-ended:5000"}) as data, \
            open(work / "made", "wb+") as out:
        # Once this one closes its files, the kernel is to forget them.
        with application(OUTSIDE, work / "data" / "app.db") as outside:
            with pytest.raises(OSError):
                open(data / "app.db", "rb")
            number = os.minor(device_at(data.point))
            maker = subprocess.Popen([sys.executable, "-c", MAKE, data / "made"], stdout=out,
                                     stderr=subprocess.DEVNULL, cwd=data.point)
            made = lambda: os.pread(out.fileno(), 32, 0)
            eventually(made, 30, "it makes nothing")
            process = data.forget_process()
            began = time.monotonic()
            process.terminate()

            def stands_still():
                before = made()
                time.sleep(0.5)
                return made() == before

            eventually(stands_still, 10, "the loop does not end")
            assert process.poll() is None
            outside.kill()
        try:
            assert process.wait(30) == 0
            assert time.monotonic() - began < 14
        finally:
            # Who waits in the kernel for a lock there cannot be killed.
            with contextlib.suppress(FileNotFoundError):
                (connections / str(number) / "abort").write_text("1")
            process.kill()
            process.wait(harness.STEP_SECONDS)
            maker.wait(harness.STEP_SECONDS)


def start_slowly(data):
    """The process, once it has mounted; it takes its time before it serves."""
    before = device_at(data.point)
    data.environment = {"LITEBUCKET_SLOWPOINT": "mounted:3000"}
    ready, ready_child = os.pipe()
    process = data.spawn(ready_child)
    os.close(ready_child)
    os.close(ready)
    data.environment = {}
    eventually(lambda: device_at(data.point) not in (None, before), 30, "it does not mount")
    return process


def test_a_start_that_is_stopped_leaves_no_mount(file_bucket, mount):
    data = mount(file_bucket)
    data.point.mkdir()
    process = start_slowly(data)
    process.terminate()
    assert process.wait(harness.STEP_SECONDS) == 0
    assert not is_mounted(data.point)
    assert "stopped before it was mounted" in data.log_text()


def test_a_start_that_is_stopped_does_not_uncover_what_a_dead_mount_covered(file_bucket, mount):
    with mount(file_bucket) as data:
        with application(HOLD, data / "app.db") as app:
            data.kill()
            process = start_slowly(data)
            process.terminate()
            assert process.wait(harness.STEP_SECONDS) == 0
            assert is_mounted(data.point)
            refused(open, data / "app.db")
            assert re.search(rf"level=warn .*stays mounted.*pid {app.pid}", data.log_text())
            data.start()
        db = sqlite3.connect(data / "app.db")
        assert db.execute("SELECT a FROM t").fetchall() == [(1,)]
        db.close()


SHARED = """
import ctypes, pathlib, struct, sys
sys.path.insert(0, sys.argv[1])
import harness

def refuse_beneath():
    # As before Linux 6.5: move_mount(2), which is 429, knows no MOVE_MOUNT_BENEATH.
    code = [(0x20, 0, 0, 0), (0x15, 0, 3, 429), (0x20, 0, 0, 48), (0x45, 0, 1, 0x200),
            (0x06, 0, 0, 0x00050016), (0x06, 0, 0, 0x7fff0000)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in code))
    program = struct.pack("HxxxxxxP", 6, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0

work = pathlib.Path(sys.argv[2])
if sys.argv[3] == "older":
    refuse_beneath()
with harness.Mount(harness.FileBucket(work / "bucket"), work / "data", work / "log") as data:
    (data / "file").write_text("x")
    file = open(data / "file")
    data.kill()
    data.start()
    assert (data / "file").read_text() == "x"
    assert "litebucket-mount-" not in pathlib.Path("/proc/self/mounts").read_text()
assert not harness.is_mounted(data.point)
"""


@pytest.mark.parametrize("kernel", ["this", "older"])
def test_a_dead_mount_is_replaced_where_mounts_are_shared(file_bucket, work, kernel):
    """As with systemd: what is below a shared mount cannot be moved away from it."""
    run("unshare", "--mount", "--propagation", "shared", sys.executable, "-c", SHARED,
        harness.ROOT / "tests" / "e2e", work, kernel)


def test_an_unknown_way_to_stop_is_a_mistake(work):
    result = litebucket("mount", "--on-stop", "explode", work, f"file://{work}-bucket", check=False)
    assert result.returncode == 2
    assert "neither leave nor unmount" in result.stderr
