"""The daemon is killed in the middle of writing, and nothing is lost."""
import random
import re
import time

import pytest

import harness
from crash import Writer, numbers
from harness import assert_intact, assert_same_bytes, copy_at_rest, objects, restore, sync
from workload import JOURNALS


@pytest.mark.parametrize("journal", JOURNALS)
def test_kill_in_the_middle_of_writing_loses_nothing(bucket, mount, work, soak, c_client, journal):
    seen = {}
    with mount(bucket, "--upload-interval", "50ms") as data:
        for round_number in range(soak(5, 20)):
            writer = Writer(c_client, data / "app.db", journal, work / "committed")
            writer.wait_for(writer.committed() + random.randint(1, 60))
            time.sleep(random.uniform(0, 0.3))
            seen |= objects(bucket)
            data.kill()
            writer.end()
            acknowledged = writer.committed()
            assert acknowledged and seen

            data.start()
            sync(data / "app.db")
            restored = work / "restored"
            restore(bucket, "app.db", restored)
            assert_same_bytes(restored, copy_at_rest(data / "app.db", work / "expected"))
            assert_intact(restored)
            found = numbers(restored)
            assert found == list(range(1, len(found) + 1))
            assert len(found) >= acknowledged, f"round {round_number}: commits are missing"
            assert seen.items() <= objects(bucket).items(), "an object has changed"
            restored.unlink()


def named_kills():
    """(point, pass) of every point at which a test build can be killed."""
    names = set()
    for layer in ("ltx", "bucket", "capture", "uploader", "restorer", "fuse", "cli"):
        for file in (harness.ROOT / layer).glob("*.c"):
            names.update(re.findall(r'\bFAILPOINT\("([^"]+)"\)', file.read_text()))
    for name in sorted(names):
        # The first passes of the file driver try the bucket out, before there
        # is a mount; a base snapshot is made once.
        if not name.startswith("bucket-file-"):
            yield name, 1
        if name != "snapshot-put":
            yield name, 12


@pytest.mark.parametrize("journal", ["delete", "wal"])
@pytest.mark.parametrize("point, number", named_kills())
def test_kill_at_a_named_point_loses_nothing(file_bucket, mount, work, c_client, point, number,
                                             journal):
    deadly = {"LITEBUCKET_FAILPOINT": f"{point}:kill:{number}"}
    data = mount(file_bucket, "--upload-interval", "0", environment=deadly)
    data.directory.mkdir()
    data.start()
    writer = Writer(c_client, data / "app.db", journal, work / "committed")
    harness.eventually(lambda: data.process.poll() is not None, 30, f"{point} is not reached")
    data.kill()
    writer.end()
    seen = objects(file_bucket)
    acknowledged = writer.committed()

    data.environment.clear()
    with data:
        sync(data / "app.db")
        expected = copy_at_rest(data / "app.db", work / "expected")
    restore(file_bucket, "app.db", work / "restored")
    assert_same_bytes(work / "restored", expected)
    assert_intact(work / "restored")
    found = numbers(work / "restored")
    assert found == list(range(1, len(found) + 1)) and len(found) >= acknowledged
    assert seen.items() <= objects(file_bucket).items()
