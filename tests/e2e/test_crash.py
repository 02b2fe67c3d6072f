"""The daemon is killed in the middle of writing, and nothing is lost."""
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

import harness
from crash import Past, Writer, committed, numbers
from harness import assert_intact, assert_same_bytes, copy_at_rest, objects, restore, sync
from workload import JOURNALS

CHURN = harness.ROOT / "tests" / "lib" / "churn.py"


@pytest.mark.parametrize("journal", JOURNALS)
def test_kill_in_the_middle_of_writing_loses_nothing(bucket, mount, work, soak, c_client, journal):
    seen = {}
    with mount(bucket, "--upload-interval", "50ms") as data:
        for round_number in range(soak(5, 20)):
            writer = Writer(c_client, data / "app.db", journal, work / "committed")
            writer.wait_for(writer.committed() + random.randint(1, 60))
            time.sleep(random.uniform(0, 0.3))
            harness.eventually(lambda: seen or objects(bucket), 60, "nothing comes into the bucket")
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


# Points that this work never passes, and the test that does.
ELSEWHERE = dict.fromkeys(
    ("adopt-aside", "adopt-incoming", "adopt-decided", "adopt-sides", "adopt-renamed",
     "adopt-pages", "adopt-position"),
    "test_adopt.py: test_killed_while_it_rolls_forward_it_is_old_or_new",
) | dict.fromkeys(
    ("missing-fetched", "missing-placed"),
    "test_missing.py: test_killed_while_it_restores_the_next_start_does_it",
) | dict.fromkeys(
    ("room-merged", "room-cut", "room-superseded", "room-pages", "room-position"),
    "test_spool_bound.py")
# Points that no mount passes: tests/unit/sqlite_replica.c, restorer_follow.c and
# test_follow_tools.py kill there.
REPLICAS = ("replica-", "follow-", "unlock-")


def named_points():
    """Every point in the source at which a test build can be killed."""
    names = set()
    for layer in ("base", "ltx", "sqlite", "bucket", "capture", "uploader", "restorer", "fuse", "cli"):
        for file in (harness.ROOT / layer).glob("*.c"):
            names.update(re.findall(r'\bFAILPOINT\("([^"]+)"\)', file.read_text()))
    assert names
    return sorted(name for name in names - ELSEWHERE.keys()
                  if not name.startswith(REPLICAS))


# How far the work gets within a second or two: a point's first passes, and later ones.
LATEST_PASS = 20
# The catalog is written once a second at most, and the lease every three seconds.
LATEST_PASSES = {"catalog-due": 3, "catalog-put": 3, "lease-taken": 1, "lease-put": 4}


def killed_while_starting(data):
    try:
        data.start()
    except harness.MountFailed as failure:
        assert failure.status == -signal.SIGKILL, failure
        return True
    return False


def work_until_killed(data, work, c_client, journal, point, number):
    """Programs write until the daemon ends at a point; returns what was committed."""
    data.environment["LITEBUCKET_FAILPOINT"] = f"{point}:kill:{number}"
    started = not killed_while_starting(data)
    data.environment.clear()
    if started:
        writer = Writer(c_client, data / "app.db", journal, work / "committed")
        with open(work / "churn.err", "ab") as errors:
            churn = subprocess.Popen([sys.executable, CHURN, data.point], stdin=subprocess.DEVNULL,
                                     stderr=errors)
        try:
            harness.eventually(lambda: data.process.poll() is not None, 60,
                               f"{point} is not reached {number} times")
        finally:
            data.kill()
            writer.end()
            churn.kill()
            churn.wait()
    data.unmount()
    return committed(work / "committed")


@pytest.mark.parametrize("journal", ["delete", "wal"])
@pytest.mark.parametrize("point", named_points())
def test_kill_at_a_named_point_loses_nothing(file_bucket, mount, work, soak, c_client, point, journal):
    past = Past(file_bucket, work)
    data = mount(file_bucket, "--upload-interval", "0")
    data.directory.mkdir()
    for round_number in range(soak(1, 50)):
        latest = LATEST_PASSES.get(point, LATEST_PASS)
        number = random.randint(1, latest) if round_number else 1
        acknowledged = work_until_killed(data, work, c_client, journal, point, number)
        print(f"round {round_number}: pass {number}, {acknowledged} commits")
        past.see()
        with data:
            for name in ("side.db", "moved.db"):
                if (data / name).exists():
                    check_side(file_bucket, work, data / name)
            if (data / "app.db").exists():
                past.check(data / "app.db", acknowledged, most=3)
            if random.random() < 0.5:
                data.kill()
                data.start()


def check_side(bucket, work, database):
    """Whatever became of it, the bucket has the same."""
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA user_version").fetchall()
    connection.close()
    if not database.stat().st_size:
        return
    sync(database)
    restored = work / "side.restored"
    restored.unlink(missing_ok=True)
    restore(bucket, database.name, restored)
    assert_same_bytes(restored, copy_at_rest(database, work / "side.expected"))


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_kill_in_the_middle_of_a_start_loses_nothing(file_bucket, mount, work, soak, c_client, journal):
    """Kills that follow each other: the next start finds what half of one has left."""
    past = Past(file_bucket, work)
    data = mount(file_bucket, "--upload-interval", "20ms")
    with data:
        for _ in range(soak(2, 50)):
            writer = Writer(c_client, data / "app.db", journal, work / "committed")
            writer.wait_for(writer.committed() + random.randint(1, 60))
            data.kill()
            writer.end()
            data.unmount()
            for _ in range(3):
                data.start_and_kill(random.uniform(0, 0.15))
            data.start()
            past.check(data / "app.db", writer.committed(), most=3)


APPLICATION_MODES = ["delete", "truncate", "persist", "wal", "wal,full,exclusive",
                     "delete,full,exclusive", "wal,off"]


@pytest.mark.parametrize("daemon_too", [False, True], ids=["alone", "with-the-daemon"])
@pytest.mark.parametrize("mode", APPLICATION_MODES)
def test_a_killed_application_leaves_whole_transactions(
        file_bucket, mount, work, soak, c_client, mode, daemon_too):
    """Hot journals, also of spilled transactions, and frames in the WAL without a commit."""
    past = Past(file_bucket, work)
    hot = 0
    with mount(file_bucket, "--upload-interval", "5ms") as data:
        for _ in range(soak(3, 50)):
            client = subprocess.Popen([c_client, data / "app.db", mode, "balance", "1000000"],
                                      stdin=subprocess.DEVNULL)
            time.sleep(random.uniform(0.1, 0.5))
            assert client.poll() is None
            if daemon_too and random.random() < 0.5:
                data.kill()
            client.kill()
            client.wait()
            if daemon_too:
                if data.process:
                    data.kill()
                data.unmount()
                hot += has_hot_journal(data.directory)
                data.start()
            else:
                hot += has_hot_journal(data.directory)
            # Whoever opens it next plays the journal back.
            assert balance(f"file:{data / 'app.db'}") == 0
            if not (data / "app.db").stat().st_size:
                continue  # killed before its first commit: no database yet
            sync(data / "app.db")
            expected = copy_at_rest(data / "app.db", work / "expected")
            assert_intact(expected)
            past.check_same(expected)
            past.see()
            past.check_states(5, lambda state: balance(f"file:{state}?immutable=1") == 0)
    print(f"{hot} hot journals or abandoned WALs")


def has_hot_journal(directory):
    journal, wal = directory / "app.db-journal", directory / "app.db-wal"
    return ((journal.exists() and journal.read_bytes()[:1] == b"\xd9")
            or (wal.exists() and wal.stat().st_size > 0))


def balance(uri):
    connection = sqlite3.connect(uri, uri=True, timeout=10)
    try:
        made = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'accounts'").fetchone()
        return connection.execute("SELECT sum(n) FROM accounts").fetchone()[0] if made else 0
    finally:
        connection.close()
