"""The power goes: what was not synced is lost below the mount, and nothing else.

Each round kills the daemon and the writers at a random moment and drops what
the disk was not told to keep: all of it, or some sectors of it at random.
"""
import os
import random
import time

import pytest

import faults
import harness
from crash import Past, Writer, numbers

# (journal, synchronous, is a commit that returned promised to survive?)
MODES = [
    ("wal", "full", True),
    ("wal", "normal", False),
    ("delete", "full", True),
    ("truncate", "full", True),
    ("persist", "full", True),
]


def power_loss(data, writer, disk, percent):
    """Everything ends at once, in some order; returns what was committed, and what was lost.

    What a commit returns after the daemon's end, and before the writer's, no
    power loss lets happen: SQLite takes a directory that it cannot open for one
    that needs no sync.
    """
    if random.random() < 0.5:
        writer.process.kill()
        writer.process.wait()
        committed = writer.committed()
        data.kill()
    else:
        committed = writer.committed()
        data.kill()
        writer.process.kill()
        writer.process.wait()
    data.unmount()
    return committed, disk.lose(percent)


def sync_directory(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def rounds(count, data, disk, past, start_writer, promised, torn):
    lost = 0
    # A few may come at moments when all is on the disk; then there are more of them.
    for number in range(count + 30):
        if number >= count and (lost or promised):
            break
        writer = start_writer()
        writer.wait_for(writer.committed() + random.randint(1, 60))
        time.sleep(random.uniform(0, 0.3))
        committed, changes = power_loss(data, writer, disk,
                                        random.choice([0, 50, 95]) if torn else 0)
        lost += changes
        past.see()
        # What is in the bucket is promised as well: it brings the disk forward (D20).
        sent = len(numbers(past.restored())) if past.has_any() else 0
        kept = max(sent, committed if promised else 0)
        data.environment["LITEBUCKET_BOOT"] = f"boot {number}"
        data.start()
        print(f"round {number}: {committed} commits returned, {sent} are in the bucket")
        try:
            writer.forget(past.check(data / "app.db", kept))
        except AssertionError:
            print(data.log_text(), harness.litebucket("status", data.point, check=False).stdout)
            raise
    assert lost or promised, "no power loss lost anything: they prove nothing"


@pytest.mark.parametrize("torn", [False, True], ids=["whole", "torn"])
@pytest.mark.parametrize("journal, synchronous, promised", MODES)
def test_a_power_loss_takes_no_commit_that_was_synced(
        file_bucket, mount, work, soak, c_client, lossy, journal, synchronous, promised, torn):
    if torn and faults.LAZYFS:
        pytest.skip("LazyFS loses all or nothing")
    disk = lossy()
    past = Past(file_bucket, work)
    data = mount(file_bucket, "--upload-interval", "20ms", "--lease-ttl", "1s", name="disk/data")
    data.log = work / "data.log"
    with data:
        def start_writer():
            return Writer(c_client, data / "app.db", f"{journal},{synchronous}", work / "committed")

        rounds(soak(2, 50), data, disk, past, start_writer, promised, torn)


@pytest.mark.parametrize("journal, synchronous, promised", [
    ("wal", "full", True), ("delete", "extra", True), ("delete", "full", False),
    ("truncate", "full", True)])
def test_a_power_loss_that_takes_names_takes_no_commit_that_was_synced(
        file_bucket, mount, work, soak, c_client, disk, journal, synchronous, promised):
    d = disk("--names")
    past = Past(file_bucket, work)
    data = mount(file_bucket, "--upload-interval", "20ms", "--lease-ttl", "1s", name="disk/data")
    data.log = work / "data.log"
    data.directory.mkdir()
    sync_directory(d.path)
    with data:
        def start_writer():
            return Writer(c_client, data / "app.db", f"{journal},{synchronous}", work / "committed")

        rounds(soak(2, 50), data, d, past, start_writer, promised, torn=True)


@pytest.mark.parametrize("point", ["seal-written", "seal-pages", "seal-position"])
def test_a_power_loss_in_the_middle_of_sealing_undoes_nothing_in_the_bucket(
        file_bucket, mount, work, c_client, disk, point):
    """The batch that is finished at the next start is of the life that ended, as the position is."""
    d = disk()
    past = Past(file_bucket, work)
    data = mount(file_bucket, "--upload-interval", "20ms", "--lease-ttl", "1s", name="disk/data",
                 environment={"LITEBUCKET_FAILPOINT": f"{point}:kill:12", "LITEBUCKET_BOOT": "one"})
    data.log = work / "data.log"
    with data:
        writer = Writer(c_client, data / "app.db", "wal,normal", work / "committed")
        harness.eventually(lambda: data.process.poll() is not None, 60, f"{point} is not reached")
        power_loss(data, writer, d, 0)
        past.see()
        sent = len(numbers(past.restored()))
        data.environment = {"LITEBUCKET_BOOT": "two"}
        data.start()
        assert sent
        past.check(data / "app.db", sent)
