"""Followers of a primary that does everything at once, with readers at work all the while."""
import contextlib
import random
import time

from following import ENOUGH_SECONDS, Follower, assert_same_state
from harness import litebucket, sync
from load import Primary, Readers, assert_intact_replica


def caught_up(data, follower, name, snapshot_seconds=0):
    """Readers of a snapshot may be in the way of it."""
    txid = sync(data / name)
    seconds = ENOUGH_SECONDS + 2 * snapshot_seconds
    litebucket("wait", "--timeout", f"{seconds}s", follower / name, txid, timeout=2 * seconds)


def test_readers_see_whole_states_whatever_the_primary_does(bucket, mount, work, anywhere, c_reader,
                                                            soak):
    seconds, snapshot_seconds = soak(12, 600), soak(2, 90)
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    followers = [Follower(bucket, anywhere / f"replica-{number}", work / f"follow-{number}.log",
                          "--file-mode", "0644", "--wal-limit", "256KiB") for number in range(2)]
    with contextlib.ExitStack() as stack:
        data = stack.enter_context(mount(bucket, "--upload-interval", "20ms",
                                         limit_seconds=600 + 2 * seconds))
        primary = Primary(data, seed, 2 * snapshot_seconds)
        stack.callback(primary.close)
        for name in ("app.db", "come.db"):
            sync(data / name)
        for follower in followers:
            stack.enter_context(follower)
        with Readers(c_reader, snapshot_seconds) as readers:
            readers.start_all(followers[0].directory)
            readers.start_all(followers[1].directory)
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                primary.turn()
                time.sleep(0.01)
            for follower in followers:
                caught_up(data, follower, "app.db")
        assert len(readers.results) == 20
        for follower in followers:
            caught_up(data, follower, "app.db")
            caught_up(data, follower, "come.db")
        primary.close()
        for number, follower in enumerate(followers):
            for name in ("app.db", "come.db"):
                (work / f"{number}-{name}").mkdir()
                assert_intact_replica(follower / name)
                assert_same_state(follower / name, data / name, work / f"{number}-{name}")
            assert not (follower / ".litebucket" / "aside").exists()
    for number in range(2):
        text = (work / f"follow-{number}.log").read_text()
        assert "level=error" not in text, text


def busy_of_plain_sqlite(path, seconds):
    """How often three readers find a database busy that SQLite itself writes."""
    primary = Primary.__new__(Primary)
    primary.number = 0
    primary.data = path.parent
    writer = primary.create(path.name)
    writer.execute("PRAGMA journal_mode = wal")
    return busy_while(path, seconds, lambda: primary.add(writer, 1, 300))


def busy_while(path, seconds, commit):
    with Readers(None, 0) as readers:
        for _ in range(3):
            readers.start("impatient", path)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            commit()
            time.sleep(0.005)
    return sum(result["busy"] for result in readers.results)


def test_readers_find_a_replica_busy_no_more_often_than_sqlites_own(file_bucket, mount, work, soak):
    seconds = soak(5, 120)
    plain = busy_of_plain_sqlite(work / "plain.db", seconds)
    follower = Follower(file_bucket, work / "replica", work / "follow.log",
                        "--wal-limit", "128KiB")
    with mount(file_bucket, "--upload-interval", "5ms") as data:
        primary = Primary(data, 0)
        sync(data / "app.db")
        with follower:
            ours = busy_while(follower / "app.db", seconds, primary.transfer)
        primary.close()
    print(f"busy: {ours} times, with SQLite as the writer {plain} times")
    assert ours <= plain
