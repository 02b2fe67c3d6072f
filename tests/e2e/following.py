"""A running follower, and how its replicas are looked at."""
import os
import pathlib
import re
import select
import signal
import sqlite3
import subprocess

import harness
from harness import copy_at_rest, eventually

ENOUGH_SECONDS = 60
NOBODY = 65534


class Follower:
    """A running `litebucket follow`; leaving the block stops it in order."""

    def __init__(self, bucket, directory, log, *options, environment=None):
        self.bucket = bucket
        self.environment = environment or {}
        self.directory = pathlib.Path(directory)
        self.log = pathlib.Path(log)
        self.options = options
        self.process = None

    def __truediv__(self, name):
        return self.directory / name

    def launch(self, *options, **environment):
        """Start, and do not wait; who wants to be told when it is ready says so."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [harness.LITEBUCKET, "follow", "--interval", "10ms", *self.options, *options,
                 self.bucket.url, self.directory],
                env={**self.bucket.environment(), **self.environment, **environment},
                pass_fds=[int(options[1])] if options else [], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log)

    def start(self):
        """Start, and wait until it is as new as the bucket."""
        parent, child = os.pipe()
        try:
            self.launch("--ready-fd", str(child))
        finally:
            os.close(child)
        try:
            assert select.select([parent], [], [], ENOUGH_SECONDS)[0], "it is never up to date"
            assert os.read(parent, 10) == b"ready\n", self.log.read_text()
        except AssertionError:
            self.kill()
            raise
        finally:
            os.close(parent)

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
