"""The daemon is killed in the middle of writing, and nothing is lost."""
import random
import re
import sqlite3
import subprocess
import time

import pytest

import harness
from harness import assert_intact, assert_same_bytes, copy_at_rest, objects, restore, sync
from workload import JOURNALS


class Writer:
    """A program that commits 1, 2, 3, ... and notes each that returned."""

    def __init__(self, c_client, database, journal, notes):
        self.notes = notes
        with open(notes, "ab") as file, open(f"{notes}.err", "ab") as errors:
            self.process = subprocess.Popen([c_client, database, journal, "loop"],
                                            stdin=subprocess.DEVNULL, stdout=file, stderr=errors)

    def committed(self):
        """The last number that a commit has returned for, or 0."""
        complete = self.notes.read_text().rpartition("\n")[0]
        return int(complete.rpartition("\n")[2] or 0)

    def wait_for(self, number):
        harness.eventually(lambda: self.committed() >= number or self.process.poll() is not None,
                           60, "the writer does not get on")
        assert self.process.poll() is None, "the writer ended too early"

    def end(self):
        """It ends by itself, as its files are gone with the daemon; or by us."""
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            # Commits into an inode that the kernel still serves go on.
            self.process.kill()
            self.process.wait()


def numbers(database):
    connection = sqlite3.connect(f"file:{database}?immutable=1", uri=True)
    found = [n for n, in connection.execute("SELECT n FROM numbers ORDER BY n")]
    connection.close()
    return found


@pytest.mark.parametrize("journal", JOURNALS)
def test_kill_in_the_middle_of_writing_loses_nothing(bucket, mount, work, soak, c_client, journal):
    data = mount(bucket, "--upload-interval", "50ms")
    data.directory.mkdir()
    seen = {}
    for round_number in range(soak(5, 20)):
        data.start()
        writer = Writer(c_client, data / "app.db", journal, work / "committed")
        writer.wait_for(writer.committed() + random.randint(1, 60))
        time.sleep(random.uniform(0, 0.3))
        seen |= objects(bucket)
        data.kill()
        writer.end()
        acknowledged = writer.committed()

        with data:
            sync(data / "app.db")
            expected = copy_at_rest(data / "app.db", work / "expected")
        data.check_log()
        restored = work / "restored"
        restore(bucket, "app.db", restored)
        assert_same_bytes(restored, expected)
        assert_intact(restored)
        found = numbers(restored)
        assert found == list(range(1, len(found) + 1))
        assert len(found) >= acknowledged, f"round {round_number}: commits are missing"
        after = objects(bucket)
        assert seen.items() <= after.items(), "an object that was in the bucket has changed"
        restored.unlink()


def failpoints():
    """Every named point in the source at which a test build can be killed."""
    names = set()
    for layer in ("ltx", "bucket", "capture", "uploader", "fuse", "cli"):
        for file in (harness.ROOT / layer).glob("*.c"):
            names.update(re.findall(r'\bFAILPOINT\("([^"]+)"\)', file.read_text()))
    return sorted(names)


@pytest.mark.parametrize("journal", ["delete", "wal"])
@pytest.mark.parametrize("point", failpoints())
def test_kill_at_a_named_point_loses_nothing(file_bucket, mount, work, c_client, point, journal):
    database = "app.db"
    deadly = {"LITEBUCKET_FAILPOINT": f"{point}:kill:2"}
    data = mount(file_bucket, "--upload-interval", "0", environment=deadly)
    data.directory.mkdir()
    try:
        data.start()
    except harness.MountFailed:
        pytest.skip(f"{point} is passed before there is a mount")
    writer = Writer(c_client, data / database, journal, work / "committed")
    try:
        data.process.wait(5)
    except subprocess.TimeoutExpired:
        pass
    reached = data.process.poll() is not None
    seen = objects(file_bucket)
    data.kill()
    writer.process.kill()
    writer.end()
    acknowledged = writer.committed()
    data.environment.clear()
    with data:
        sync(data / database)
        expected = copy_at_rest(data / database, work / "expected")
    restore(file_bucket, database, work / "restored")
    assert_same_bytes(work / "restored", expected)
    assert_intact(work / "restored")
    found = numbers(work / "restored")
    assert found == list(range(1, len(found) + 1)) and len(found) >= acknowledged
    assert seen.items() <= objects(file_bucket).items()
    if not reached:
        pytest.skip(f"{point} is not passed twice in five seconds of writing")
