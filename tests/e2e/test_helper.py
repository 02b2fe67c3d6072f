"""The daemon's helper: a process that is a client of the daemon's own mount."""
import errno
import os
import pathlib
import signal
import sqlite3
import subprocess

import pytest

import harness
from harness import eventually


def helper_of(process):
    """The pid of a daemon's helper, or None."""
    try:
        children = pathlib.Path(f"/proc/{process.pid}/task").glob("*/children")
        pids = [int(pid) for path in children for pid in path.read_text().split()]
        for pid in pids:
            if b"\0helper\0" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
    except OSError:
        pass
    return None


def wait_for_helper(process, other_than=None):
    def there():
        pid = helper_of(process)
        return pid if pid != other_than else None
    return eventually(there, 30, "there is no helper")


def is_alive(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        return state != "Z"
    except OSError:
        return False


def descriptors(pid):
    return {os.readlink(path) for path in pathlib.Path(f"/proc/{pid}/fd").iterdir()}


@pytest.mark.parametrize("helper", ["the first", "its successor"])
@pytest.mark.parametrize("place", ["in place", "elsewhere"])
def test_a_killed_daemon_leaves_a_dead_mount_and_no_helper(file_bucket, mount, work, place,
                                                           helper):
    """Also when the helper was started while /dev/fuse was open already."""
    data = mount(file_bucket, mountpoint=work / "point" if place == "elsewhere" else None)
    with data:
        (data / "file").write_text("x")
        successor = helper == "its successor"
        helper = wait_for_helper(data.process)
        if successor:
            os.kill(helper, signal.SIGKILL)
            helper = wait_for_helper(data.process, other_than=helper)
        data.kill()
        with pytest.raises(OSError) as failure:
            os.statvfs(data.point)
        assert failure.value.errno == errno.ENOTCONN
        eventually(lambda: not is_alive(helper), 10, "the helper outlives the daemon")


def test_the_helper_has_nothing_of_the_daemons_but_a_socket(s3_bucket, mount):
    with mount(s3_bucket) as data:
        helper = wait_for_helper(data.process)
        held = descriptors(helper)
        assert not [name for name in held if "fuse" in name or f"{data.point}/" in name], held
        assert sum(name.startswith("socket:") for name in held) == 1
        environment = pathlib.Path(f"/proc/{helper}/environ").read_bytes()
        assert s3_bucket.client.secret_key.encode() not in environment
        assert len(list(pathlib.Path(f"/proc/{helper}/task").iterdir())) == 1


def test_a_helper_that_dies_is_replaced(file_bucket, mount):
    with mount(file_bucket) as data:
        first = wait_for_helper(data.process)
        os.kill(first, signal.SIGKILL)
        second = wait_for_helper(data.process, other_than=first)
        assert is_alive(second)
        assert "the helper ended" in data.log_text()


def test_a_stop_does_not_wait_for_a_helper_that_hangs(file_bucket, mount):
    data = mount(file_bucket)
    with data:
        connection = sqlite3.connect(data / "app.db")
        connection.execute("CREATE TABLE t(a)")
        connection.commit()
        connection.close()
        helper = wait_for_helper(data.process)
        os.kill(helper, signal.SIGSTOP)
        process = data.forget_process()
        process.terminate()
        assert process.wait(20) == 0
        assert not is_alive(helper)
    assert not harness.is_mounted(data.point)


def test_signals_to_a_whole_group_leave_the_end_to_the_daemon(file_bucket, mount):
    with mount(file_bucket) as data:
        helper = wait_for_helper(data.process)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(helper, number)
        result = subprocess.run(["sleep", "0.3"], check=True)
        assert result.returncode == 0 and helper_of(data.process) == helper
