"""What waits on the disk for the bucket is bounded, and nothing is lost by that."""
import json
import re
import sqlite3
import subprocess
import time

import pytest

import harness
from harness import (LITEBUCKET, assert_intact, assert_same_bytes, copy_at_rest, eventually,
                     history, litebucket, objects, restore, slot_key, sync)

KIB = 1024
BOUND = 256 * KIB
CHANGE = 30_000  # bytes that a commit changes


class Writer:
    """A database whose few rows change again and again, each time as a whole."""

    def __init__(self, path, journal):
        self.connection = sqlite3.connect(path, isolation_level=None, timeout=60)
        self.connection.execute(f"PRAGMA journal_mode={journal}")
        self.connection.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, n, body)")
        self.number = self.connection.execute("SELECT coalesce(max(n), 0) FROM t").fetchone()[0]

    def commit(self, rows=4):
        started = time.monotonic()
        self.number += 1
        self.connection.execute("INSERT OR REPLACE INTO t VALUES (?, ?, randomblob(?))",
                                (self.number % rows, self.number, CHANGE))
        assert time.monotonic() - started < 20, "the application had to wait"

    def close(self):
        self.connection.close()


def status_of(data):
    return json.loads(litebucket("status", "--json", data.point).stdout)


def spooled(data):
    """Bytes in the spool of the only database, and how many files."""
    sizes = [path.stat().st_size
             for path in data.directory.glob(".litebucket/db/*/spool/*.ltx")]
    return sum(sizes), len(sizes)


def sync_in_background(path):
    return subprocess.Popen([LITEBUCKET, "sync", path], text=True, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def is_taken(data):
    """Is all that is committed sealed, or is there no room for it?"""
    status = status_of(data)
    return status["spool"]["full"] or not status["databases"][0]["pending"]


def fill(data, writer, count, rows=4):
    """Commits, each followed by somebody who waits for it; those who wait."""
    waiting = []
    for _ in range(count):
        writer.commit(rows)
        waiting.append(sync_in_background(data / "app.db"))
        eventually(lambda: is_taken(data), 30, "a commit is neither sealed nor refused")
        # While batches are put together, both they and what they became are there.
        eventually(lambda: spooled(data)[0] <= BOUND, 30, "the spool is above its bound")
    return waiting


def answers(waiting):
    """What each of them was told."""
    return [process.communicate(timeout=60) for process in waiting]


def check(bucket, data, work, writer, judges=None):
    """The newest state is in the bucket, at the end of a whole chain."""
    txid = sync(data / "app.db")
    expected = copy_at_rest(data / "app.db", work / "expected")
    restore(bucket, "app.db", work / "restored")
    assert_same_bytes(work / "restored", expected)
    assert_intact(work / "restored")
    restored = sqlite3.connect(work / "restored")
    assert restored.execute("SELECT max(n) FROM t").fetchone() == (writer.number,)
    restored.close()
    points = history(bucket, "app.db")
    assert [int(point, 16) for point in points] == list(range(1, int(txid, 16) + 1))
    if judges:
        files = []
        for number, key in enumerate(bucket.keys()):
            files.append(work / f"object-{number}.ltx")
            files[-1].write_bytes(bucket.read(key))
        harness.run(judges / "ltx", "verify", *files)


def mounted(mount, bucket, work, bound="256KiB"):
    return mount(bucket, "--upload-interval", "50ms", "--spool-max-size", bound,
                 "--stop-timeout", "5s", mountpoint=work / "mnt")


def settled(data, writer):
    """Its first batch is in the bucket, and the snapshot that follows it; its TXID."""
    writer.commit()
    txid = sync(data / "app.db")
    eventually(lambda: not list(data.directory.glob(".litebucket/db/*/spool/*")), 30,
               "the uploader does not come to rest")
    return int(txid, 16)


def begin(data, proxy, writer):
    """One batch is in the bucket, and the next one's fate is open."""
    settled(data, writer)
    proxy.cut()
    writer.commit()
    data.wait_for_log("level=warn .*db=app.db")


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_a_bucket_away_for_several_times_the_bound(away, s3_bucket, mount, work, judges, journal):
    behind, proxy = away
    with mounted(mount, behind, work) as data:
        writer = Writer(data / "app.db", journal)
        begin(data, proxy, writer)
        waiting = fill(data, writer, 24)
        assert spooled(data)[1] < 12
        assert "batches merged" in data.log_text()
        assert not any(process.poll() is not None for process in waiting)
        assert not status_of(data)["spool"]["full"]
        proxy.mend()
        told = answers(waiting)
        points = history(s3_bucket, "app.db")
        for out, err in told:
            assert out.strip() in points, err
        check(s3_bucket, data, work, writer, judges)
        writer.close()


def test_pages_that_cannot_be_merged_gather(away, s3_bucket, mount, work):
    behind, proxy = away
    with mounted(mount, behind, work) as data:
        writer = Writer(data / "app.db", "wal")
        begin(data, proxy, writer)
        waiting = fill(data, writer, 20, rows=1000)
        status = status_of(data)
        assert status["spool"]["full"] and status["spool"]["max_bytes"] == BOUND
        assert len(re.findall("level=error .*spool is full", data.log_text())) == 1
        assert "full" in litebucket("status", data.point).stdout
        proxy.mend()
        points = [out.strip() for out, _ in answers(waiting)]
        assert set(points) <= set(history(s3_bucket, "app.db"))
        check(s3_bucket, data, work, writer)
        assert not status_of(data)["spool"]["full"]
        assert "room in the spool again" in data.log_text()
        writer.close()


@pytest.mark.parametrize("bound", ["256KiB", "64KiB"])
@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_kill_while_the_bucket_is_away(away, s3_bucket, mount, work, journal, bound):
    """A lower bound afterwards: what is beyond it is found again by comparing."""
    behind, proxy = away
    with mounted(mount, behind, work) as data:
        writer = Writer(data / "app.db", journal)
        begin(data, proxy, writer)
        waiting = fill(data, writer, 14)
        data.kill()
        for _, err in answers(waiting):
            assert err
        writer.close()

        data.options[3] = bound
        data.start()
        limit = int(bound[:-3]) * KIB
        eventually(lambda: spooled(data)[0] <= limit, 30, "the spool stays above its bound")
        writer = Writer(data / "app.db", journal)
        writer.commit()
        late = sync_in_background(data / "app.db")
        proxy.mend()
        (out, err), = answers([late])
        assert out.strip() in history(s3_bucket, "app.db"), err
        check(s3_bucket, data, work, writer)
        if bound == "64KiB":
            assert "given up" in data.log_text()
        writer.close()


@pytest.mark.parametrize("killed", [False, True])
def test_a_lost_reply_and_then_a_bucket_that_is_away(away, s3_bucket, mount, work, killed):
    """What had arrived stays as it arrived, whatever is merged behind it."""
    behind, proxy = away
    with mounted(mount, behind, work) as data:
        writer = Writer(data / "app.db", "wal")
        last = settled(data, writer)
        proxy.lose_replies()
        writer.commit()
        eventually(lambda: any(f"0000/{last + 1:016x}" in key for key in s3_bucket.keys()), 30,
                   "the batch does not arrive")
        proxy.cut()
        seen = objects(s3_bucket)
        waiting = fill(data, writer, 14)
        if killed:
            data.kill()
            answers(waiting)
            waiting = []
            writer.close()
            data.start()
            writer = Writer(data / "app.db", "wal")
            waiting = fill(data, writer, 10)
        assert "batches merged" in data.log_text()
        proxy.mend()
        points = [out.strip() for out, _ in answers(waiting)]
        assert set(points) <= set(history(s3_bucket, "app.db"))
        check(s3_bucket, data, work, writer)
        assert slot_key(s3_bucket, "app.db", f"{last + 1:016x}")
        assert seen.items() <= objects(s3_bucket).items()
        writer.close()


def named_kills():
    """Every point of making room at which a test build can be killed."""
    names = set()
    for layer in ("ltx", "capture"):
        for file in (harness.ROOT / layer).glob("*.c"):
            names.update(re.findall(r'\bFAILPOINT\("(room-[^"]+)"\)', file.read_text()))
    return sorted(names)


@pytest.mark.parametrize("point", named_kills())
def test_kill_at_a_named_point_of_making_room(away, s3_bucket, mount, work, point):
    behind, proxy = away
    with mounted(mount, behind, work, "1MiB") as data:
        writer = Writer(data / "app.db", "wal")
        begin(data, proxy, writer)
        waiting = []
        for _ in range(12):
            writer.commit(50)
            waiting.append(sync_in_background(data / "app.db"))
            eventually(lambda: is_taken(data), 30, "a commit is not sealed")
        writer.close()
        data.kill()
        answers(waiting)

        # At its start there is too much: it is merged, and then given up.
        data.options[3] = "128KiB"
        data.environment["LITEBUCKET_FAILPOINT"] = f"{point}:kill"
        try:
            data.start()
            process = data.process
            eventually(lambda: process.poll() is not None, 30, f"{point} is not reached")
            data.kill()
        except harness.MountFailed as failed:
            assert failed.status == -9
        data.environment.clear()
        data.start()
        writer = Writer(data / "app.db", "wal")
        proxy.mend()
        check(s3_bucket, data, work, writer)
        writer.close()


# --- disks

@pytest.fixture
def apart(work):
    """apart(directory): that directory is the mount's state directory."""
    points = []

    def make(directory):
        point = work / "data" / ".litebucket"
        point.mkdir(mode=0o700, parents=True)
        made = subprocess.run(["mount", "--bind", directory, point], stderr=subprocess.PIPE,
                              text=True, check=False)
        if made.returncode != 0:
            pytest.skip(f"nothing can be mounted here: {made.stderr.strip()}")
        points.append(point)

    yield make
    for point in points:
        subprocess.run(["umount", "-l", point], check=True)


def said_once(log):
    """No complaint is repeated; numbers in it do not make it another."""
    messages = [re.sub(r"^time=\S+ |[0-9]+", "", line) for line in log.splitlines()
                if "level=warn" in line or "level=error" in line]
    return len(messages) == len(set(messages))


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_a_full_disk_under_the_state_alone(file_bucket, mount, work, small_disk, apart, journal):
    """Applications have room, and capture has none: they notice nothing."""
    state = small_disk("state", 2048)
    apart(state)
    with mount(file_bucket, "--upload-interval", "50ms", mountpoint=work / "mnt") as data:
        writer = Writer(data / "app.db", journal)
        writer.commit()
        sync(data / "app.db")
        harness.fill(state)
        for _ in range(100):
            writer.commit(100)
        data.wait_for_log("No space left on device")
        time.sleep(4)
        assert said_once(data.log_text()), data.log_text()
        database, = status_of(data)["databases"]
        assert "No space left on device" in database["error"], database
        (state / "filler").unlink()
        subprocess.run(["mount", "-o", "remount,size=64m", state], check=True)
        writer.commit(100)
        check(file_bucket, data, work, writer)
        database, = status_of(data)["databases"]
        assert not database["error"], database
        writer.close()


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_a_full_disk_under_the_databases_alone(file_bucket, mount, work, small_disk, apart,
                                               journal):
    """SQLite gets its error, and what it had committed before is kept."""
    disk = small_disk("data", 2048)
    (work / "state").mkdir()
    apart(work / "state")
    with mount(file_bucket, "--upload-interval", "50ms", mountpoint=work / "mnt") as data:
        writer = Writer(data / "app.db", journal)
        writer.commit(1000)
        sync(data / "app.db")
        harness.fill(disk, leave=400_000)
        with pytest.raises(sqlite3.OperationalError, match="full"):
            while True:
                writer.commit(1000)
        writer.number -= 1
        check(file_bucket, data, work, writer)
        (work / "restored").unlink()
        (disk / "filler").unlink()
        writer.commit(1000)
        check(file_bucket, data, work, writer)
        assert "level=error" not in data.log_text()
        writer.close()
