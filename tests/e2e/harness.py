"""What the end-to-end tests are made of: the program, mounts, buckets.

Everything here runs real processes; nothing is simulated.  Paths are absolute
and below a test's own temporary directory.
"""
import atexit
import functools
import hashlib
import json
import os
import pathlib
import re
import select
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
LITEBUCKET = pathlib.Path(
    os.environ.get("LITEBUCKET", ROOT / "build" / "dev" / "litebucket")
).resolve()

OBJECT = re.compile(r"^(?P<db>.+?)/(?:ltx/)?(?P<level>[0-9]+)/(?P<min>[0-9a-f]{16})-(?P<max>[0-9a-f]{16})\.ltx$")
SANITIZER = re.compile(r"(Address|Leak|Thread|UndefinedBehavior)Sanitizer|runtime error:")

# No single step of a test takes this long, whatever machine it is.
STEP_SECONDS = 120


@functools.cache
def reachable(program):
    """A copy that every user can run: ours may be in somebody's home."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="litebucket-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    directory.chmod(0o755)
    copy = pathlib.Path(shutil.copy(program, directory))
    copy.chmod(0o755)
    return copy


def has_capability(number):
    """Do we have this one (capabilities(7))?"""
    status = pathlib.Path("/proc/self/status").read_text()
    return bool(int(re.search(r"CapEff:\s*(\w+)", status)[1], 16) >> number & 1)


def run(*command, timeout=STEP_SECONDS, check=True, **options):
    """A command's result, with its output as text."""
    command = [str(part) for part in command]
    result = subprocess.run(command, timeout=timeout, text=True,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, **options)
    assert not SANITIZER.search(result.stderr), result.stderr
    if check:
        assert result.returncode == 0, (
            f"{' '.join(command)}\nexit status {result.returncode}\n{result.stderr}")
    return result


def litebucket(*arguments, **options):
    return run(LITEBUCKET, *arguments, **options)


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sync(path):
    """Wait until what is committed is in the bucket; its TXID as text."""
    text = litebucket("sync", path).stdout
    assert re.fullmatch(r"[0-9a-f]{16}\n", text), repr(text)
    return text.strip()


def restore(bucket, database, output, txid=None):
    options = ["--txid", txid] if txid else []
    return litebucket("restore", *options, "-o", output, bucket.url_of(database),
                      env=bucket.environment())


def history_points(bucket, database):
    """What `history` says of each TXID, in order."""
    text = litebucket("history", "--json", bucket.url_of(database),
                      env=bucket.environment()).stdout
    return json.loads(text)["points"]


def history(bucket, database):
    """The TXIDs of a history, as text, in order."""
    return [point["txid"] for point in history_points(bucket, database)]


def copy_at_rest(database, output):
    """The committed state of a database that nobody writes, as one file.

    The database and its WAL are copied as they are, and SQLite merges the
    copies; the original is not opened by SQLite, so it stays as it is.  Another
    process copies, because this one may have the database open, and closing a
    file drops all locks that a process has on it.

    A follower may move a replica's WAL into the database between the two, once
    readers no longer keep it from that: then they are copied again.
    """
    output = pathlib.Path(output)
    wal = pathlib.Path(f"{database}-wal")
    for _ in range(100):
        before = [look(database), look(wal)]
        run("cp", database, output)
        if wal.exists():
            run("cp", wal, f"{output}-wal")
        if [look(database), look(wal)] == before:
            break
    else:
        raise AssertionError(f"{database} is never at rest")
    if wal.exists():
        merge(output)
    return output


def look(path):
    """By what one tells that a file was not written meanwhile."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def merge(database):
    """Checkpoint a WAL into its database and remove it."""
    connection = sqlite3.connect(database, isolation_level=None)
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    connection.close()
    assert not busy
    for suffix in ("-wal", "-shm"):
        pathlib.Path(f"{database}{suffix}").unlink(missing_ok=True)


def assert_intact(database):
    connection = sqlite3.connect(f"file:{database}?immutable=1", uri=True)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def assert_same_bytes(actual, expected):
    """Equal, or the first difference by page."""
    if sha256(actual) == sha256(expected):
        return
    a, b = pathlib.Path(actual).read_bytes(), pathlib.Path(expected).read_bytes()
    first = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    raise AssertionError(f"{actual} ({len(a)} bytes) and {expected} ({len(b)} bytes) "
                         f"differ first at byte {first}")


class FileBucket:
    """A directory, in Litestream's file layout."""

    name = "file"

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.url = f"file://{self.directory}"

    def url_of(self, database):
        return f"{self.url}/{urllib.parse.quote(database)}"

    def environment(self):
        return dict(os.environ)

    def keys(self):
        return sorted(str(path.relative_to(self.directory))
                      for path in self.directory.rglob("*.ltx"))

    def read(self, key):
        return (self.directory / key).read_bytes()

    def write(self, key, data):
        path = self.directory / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def remove(self, key):
        (self.directory / key).unlink()


class S3Bucket:
    """A fresh bucket of the S3 server that the run has started."""

    name = "s3"
    PREFIX = "some/prefix"

    def __init__(self, endpoint, name):
        import s3  # tests/lib, which conftest.py makes known

        self.client = s3.Client(endpoint, name)
        self.client.create()
        self.endpoint = endpoint
        self.bucket = name
        self.url = self.url_of("")

    def url_of(self, database, **changes):
        """A database's URL, or that of another bucket or endpoint."""
        query = {"endpoint": changes.get("endpoint", self.endpoint), "region": "us-east-1"}
        path = f"{self.PREFIX}/{urllib.parse.quote(database)}".rstrip("/")
        return f"s3://{changes.get('bucket', self.bucket)}/{path}?{urllib.parse.urlencode(query)}"

    def environment(self):
        return dict(os.environ, AWS_ACCESS_KEY_ID=self.client.access_key,
                    AWS_SECRET_ACCESS_KEY=self.client.secret_key)

    def keys(self):
        return [key[len(self.PREFIX) + 1:] for key, _ in self.client.list(f"{self.PREFIX}/")
                if key.endswith(".ltx")]

    def read(self, key):
        return self.client.get(f"{self.PREFIX}/{key}")

    def write(self, key, data):
        self.client.put(f"{self.PREFIX}/{key}", data)

    def remove(self, key):
        self.client.delete(f"{self.PREFIX}/{key}")


def check_restore(bucket, data, work, name="app.db"):
    """What the bucket has is what the mount has."""
    sync(data / name)
    output = work / "restored"
    output.unlink(missing_ok=True)
    restore(bucket, name, output)
    assert_same_bytes(output, copy_at_rest(data / name, work / "expected"))


def objects(bucket):
    """Every LTX file's key with the hash of its bytes."""
    return {key: hashlib.sha256(bucket.read(key)).hexdigest() for key in bucket.keys()}


def slot_key(bucket, database, txid):
    """The key of a level 0 file."""
    for key in bucket.keys():
        match = OBJECT.match(key)
        if (match and match["db"] == database and int(match["level"]) == 0
                and match["min"] == txid):
            return key
    raise AssertionError(f"no slot {txid} of {database} in {bucket.url}")


class Mount:
    """A running `litebucket mount`.

        with Mount(bucket, directory, log) as mount:
            sqlite3.connect(mount / "app.db")

    Leaving the block stops it in order, and fails if it did not end well.
    """

    def __init__(self, bucket, directory, log, *options, mountpoint=None,
                 environment=None, limit_seconds=600):
        self.bucket = bucket
        self.directory = pathlib.Path(directory)
        self.point = pathlib.Path(mountpoint or directory)
        self.log = pathlib.Path(log)
        self.options = list(options)
        self.environment = environment or {}
        self.limit_seconds = limit_seconds
        self.process = None
        self.watchdog = None

    def __truediv__(self, name):
        return self.point / name

    def __enter__(self):
        # Not through a dead mount of an earlier life, which start() clears.
        if not is_mounted(self.point):
            self.directory.mkdir(parents=True, exist_ok=True)
            self.point.mkdir(parents=True, exist_ok=True)
        self.start()
        return self

    def __exit__(self, kind, *_):
        try:
            if self.process:
                status = self.stop()
                if kind is None:
                    assert status == 0, f"mount ended with {status}:\n{self.log_text()}"
        finally:
            self.unmount()
        if kind is None:
            self.check_log()

    def spawn(self, ready_child):
        """The process, which writes to a descriptor once it serves."""
        command = [LITEBUCKET, "mount", "--ready-fd", ready_child, *self.options]
        if self.point != self.directory:
            command += ["--mountpoint", self.point]
        command += [self.directory, self.bucket.url]
        with open(self.log, "ab") as log:
            return subprocess.Popen(
                [str(part) for part in command], pass_fds=[ready_child], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, env={**self.bucket.environment(), **self.environment})

    def start_and_kill(self, seconds):
        """Start, and SIGKILL so much later, wherever it is then."""
        ready, ready_child = os.pipe()
        process = self.spawn(ready_child)
        os.close(ready_child)
        time.sleep(seconds)
        process.kill()
        process.wait(STEP_SECONDS)
        os.close(ready)
        self.unmount()

    def start(self):
        """Start and wait until it serves; raises MountFailed if it ended."""
        ready, ready_child = os.pipe()
        self.process = self.spawn(ready_child)
        os.close(ready_child)
        try:
            self.wait_ready(ready)
        finally:
            os.close(ready)
        # A daemon that hangs would hang this process inside the kernel, where
        # nothing but the daemon's end gets it out.
        self.watchdog = threading.Timer(self.limit_seconds, self.process.kill)
        self.watchdog.daemon = True
        self.watchdog.start()

    def wait_ready(self, ready):
        readable, _, _ = select.select([ready], [], [], STEP_SECONDS)
        if readable and os.read(ready, 64):
            return
        if not readable:
            self.process.kill()
        status = self.process.wait(STEP_SECONDS)
        self.process = None
        raise MountFailed(status, self.log_text())

    def forget_process(self):
        self.watchdog.cancel()
        process, self.process = self.process, None
        return process

    def stop(self):
        """SIGTERM; the exit status."""
        self.process.terminate()
        return self.wait_end()

    def wait_end(self):
        """It ends for a reason of its own; the exit status."""
        process = self.forget_process()
        try:
            return process.wait(STEP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def kill(self):
        """SIGKILL: the mount stays behind, dead."""
        process = self.forget_process()
        process.send_signal(signal.SIGKILL)
        process.wait(STEP_SECONDS)

    def unmount(self):
        """Whatever happened, leave nothing mounted."""
        if self.process:
            self.kill()
        while is_mounted(self.point):
            subprocess.run(["umount", "-l", self.point], check=True)

    def log_text(self):
        return self.log.read_text(errors="replace")

    def check_log(self):
        assert not SANITIZER.search(self.log_text()), self.log_text()

    def wait_for_log(self, pattern, seconds=30):
        eventually(lambda: re.search(pattern, self.log_text()), seconds,
                   lambda: f"no /{pattern}/ in the log:\n{self.log_text()}")


class MountFailed(Exception):
    def __init__(self, status, log):
        super().__init__(f"mount ended with {status}:\n{log}")
        self.status = status
        self.log = log


def fill(directory, leave=0):
    """Use up a file system, but for some bytes."""
    with open(directory / "filler", "ab") as filler:
        for size in (65536, 4096):
            try:
                while os.statvfs(directory).f_bavail * 4096 > leave:
                    filler.write(bytes(size))
                    filler.flush()
            except OSError:
                pass


def is_mounted(point):
    """Is there a FUSE mount?  A disk may be mounted at the same place."""
    with open("/proc/self/mounts", encoding="utf-8", errors="replace") as mounts:
        fields = [line.split() for line in mounts]
    return any(at == str(point) and kind.startswith("fuse") for _, at, kind, *_ in fields)


def eventually(condition, seconds, describe):
    """Wait for a condition, and return what it gave."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, describe() if callable(describe) else describe
        time.sleep(0.05)
