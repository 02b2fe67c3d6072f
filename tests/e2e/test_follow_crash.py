"""Followers, and their machines, that end at any moment, with readers at work."""
import collections
import contextlib
import random
import re
import signal
import time

import faults
import harness
from following import ENOUGH_SECONDS, Follower, assert_same_state, connect
from harness import litebucket, sync
from load import QUERY, Primary, Readers, assert_intact_replica

# Points that are passed only while nobody reads: tests/unit/sqlite_replica.c
# kills there.
ALONE = {"replica-index-emptied", "replica-recovered", "replica-block-rebuilt"}
# Points that are passed once in a while only.
RARE = {"replica-joined", "replica-log-begun", "replica-log-synced", "replica-copied",
        "replica-backfilled", "replica-reset-counted", "replica-reset-marked", "replica-reset"}
SNAPSHOT_SECONDS = 1


def named_points():
    names = set()
    for layer in ("sqlite", "restorer"):
        for file in (harness.ROOT / layer).glob("*.c"):
            names.update(re.findall(r'\bFAILPOINT\("((?:replica|follow)-[^"]+)"\)',
                                    file.read_text()))
    assert names
    return names


def passes(point):
    """Which time it is killed there."""
    if point.startswith("follow-"):
        return random.randint(1, 2)
    return random.choice([1, 1, 2, 3] if point in RARE else [1, 5, 20])


def killed_at(follower, primary, point, patience=None):
    """It is killed at that point, or anywhere if it does not come there soon."""
    seconds = patience or random.uniform(0.3, 2)
    times = 1 if patience else passes(point)
    follower.launch(LITEBUCKET_FAILPOINT=f"{point}:kill:{times}")
    until = time.monotonic() + seconds
    while time.monotonic() < until and follower.process.poll() is None:
        primary.turn()
        if point.startswith(("follow-drop", "follow-restored", "follow-created")):
            primary.come_and_go()
        time.sleep(0.005)
    reached = follower.process.poll()
    follower.kill()
    assert reached in (None, -signal.SIGKILL), follower.log.read_text()
    return reached is not None


def assert_replicas_are_whole(follower, data, work):
    for name in ("app.db", "come.db"):
        txid = sync(data / name)
        litebucket("wait", "--timeout", f"{ENOUGH_SECONDS}s", follower / name, txid,
                   env={**follower.bucket.environment(), **follower.environment})
        (work / f"copies-{name}").mkdir()
        assert_intact_replica(follower / name)
        assert_same_state(follower / name, data / name, work / f"copies-{name}")
    assert not (follower / ".litebucket" / "aside").exists(), follower.log.read_text()


def test_a_killed_follower_shows_nobody_a_wrong_state(file_bucket, mount, work, anywhere, c_reader,
                                                      soak):
    rounds = soak(25, 2000)
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    follower = Follower(file_bucket, anywhere / "replica", work / "follow.log",
                        "--wal-limit", "64KiB")
    points = sorted(named_points() - ALONE)
    reached = collections.Counter()
    with contextlib.ExitStack() as stack:
        data = stack.enter_context(mount(file_bucket, "--upload-interval", "5ms",
                                         limit_seconds=7200))
        primary = Primary(data, seed, 2 * SNAPSHOT_SECONDS)
        stack.callback(primary.close)
        for name in ("app.db", "come.db"):
            sync(data / name)
        follower.start()
        with Readers(c_reader, SNAPSHOT_SECONDS) as readers:
            readers.start_all(follower.directory, restarts=True)
            follower.kill()
            for number in range(rounds):
                point = points[number % len(points)]
                reached[point] += killed_at(follower, primary, point)
            if rounds >= 10 * len(points):
                for point in set(points) - set(+reached):
                    reached[point] += killed_at(follower, primary, point, ENOUGH_SECONDS)
        print(f"{reached.total()} of {rounds} times at the point: {dict(reached)}")
        with follower:
            assert_replicas_are_whole(follower, data, work)
    assert reached.total() >= rounds / 4
    assert rounds < 10 * len(points) or set(+reached) == set(points)


def state_of(path):
    """What SQLite makes of a replica that nobody follows; the counter."""
    with contextlib.closing(connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        total, number = connection.execute(QUERY).fetchone()
        assert total == 0
        return number


def test_a_power_loss_leaves_a_state_that_was(file_bucket, mount, work, lossy, soak):
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    disk = lossy()
    follower = Follower(file_bucket, disk.path / "replica", work / "follow.log",
                        "--wal-limit", "64KiB")
    lost = 0
    with contextlib.ExitStack() as stack:
        data = stack.enter_context(mount(file_bucket, "--upload-interval", "5ms",
                                         limit_seconds=7200))
        primary = Primary(data, seed)
        stack.callback(primary.close)
        for name in ("app.db", "come.db"):
            sync(data / name)
        for number in range(soak(8, 200)):
            follower.launch(LITEBUCKET_BOOT=f"boot {number}")
            until = time.monotonic() + random.uniform(0.1, 1)
            while time.monotonic() < until:
                primary.turn()
            follower.kill()
            lost += disk.lose(0 if faults.LAZYFS else random.choice([0, 50, 95]))
            if (follower / "app.db").exists():
                assert state_of(follower / "app.db") <= primary.number
        follower.environment["LITEBUCKET_BOOT"] = "the last boot"
        with follower:
            assert_replicas_are_whole(follower, data, work)
    assert lost, "no power loss lost anything: they prove nothing"
