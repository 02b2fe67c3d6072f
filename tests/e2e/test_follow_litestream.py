"""Followers of a bucket that `litestream replicate` v0.5.18 writes while they follow it."""
import contextlib
import copy
import pathlib
import random
import signal
import time

import pytest

from following import ENOUGH_SECONDS, Follower, assert_same_state
from harness import OBJECT, eventually, litebucket
from litestream import SHORT, Litestream
from load import Primary, Readers, assert_intact_replica

NAME = "dir/app.db"


class Source(Primary):
    """In WAL mode, which is all that Litestream knows."""

    def __init__(self, path, seed, page_size):
        self.data = path.parent
        self.random = random.Random(seed)
        self.number = 0
        self.app = self.create(path.name)
        self.app.execute(f"PRAGMA page_size = {page_size}")
        self.app.execute("VACUUM")
        self.app.execute("PRAGMA journal_mode = wal")

    def close(self):
        self.app.close()

    def turn(self):
        what, = self.random.choices(
            [self.transfer, self.grow, self.shrink, self.update, self.schema, self.vacuum],
            weights=[60, 3, 4, 10, 6, 2])
        what()

    def burst(self, turns=50):
        for _ in range(turns):
            self.turn()
            time.sleep(0.01)

    def while_it_is_not_replicated(self):
        """Nobody holds the WAL back: it begins again, and what was in it is only in the file."""
        self.burst(10)
        self.app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.burst(10)


def levels(bucket):
    """{level: [(min, max)]} of what is in the bucket."""
    found = {}
    for key in bucket.keys():
        match = OBJECT.match(key)
        found.setdefault(int(match["level"]), []).append((int(match["min"], 16),
                                                          int(match["max"], 16)))
    return found


class Replica(Follower):
    """Of a bucket with this database, or, with itself, of a URL that names the database."""

    def __init__(self, bucket, number, anywhere, work, itself=False):
        if itself:
            bucket, url = copy.copy(bucket), bucket.url_of(NAME)
            bucket.url = url
        super().__init__(bucket, anywhere / f"replica-{number}", work / f"follow-{number}.log",
                         "--pos-files", "--wal-limit", "256KiB")
        self.file = self / (pathlib.Path(NAME).name if itself else NAME)

    def position(self):
        """The TXID that it has come to, as its -pos file tells."""
        return int(pathlib.Path(f"{self.file}-pos").read_text().split("/")[0], 16)

    def wait(self, txid):
        litebucket("wait", "--timeout", f"{ENOUGH_SECONDS}s", self.file, f"{txid:016x}")

    def log_text(self):
        return self.log.read_text()


def assert_caught_up(litestream, followers, work):
    """All have the source's state; Litestream itself writes now and then, so until it did not."""
    while True:
        txid = litestream.sync()
        for follower in followers:
            follower.wait(txid)
        try:
            for follower in followers:
                assert_same_state(follower.file, litestream.database, work)
            return
        except AssertionError:
            if litestream.sync() == txid:
                raise


def leave_behind(source, bucket, follower):
    """Go on until the log no longer has what would come next for a follower that stands still."""
    def is_behind():
        source.burst(5)
        return min(levels(bucket)[0])[0] > follower.position() + 2
    eventually(is_behind, ENOUGH_SECONDS, "level 0 is never cleaned up")


@pytest.mark.parametrize("compacted, page_size", [(False, 4096), (True, 1024)],
                         ids=["log", "compacted"])
def test_a_follower_keeps_up_with_litestream(bucket, judges, work, anywhere, c_reader, soak,
                                             compacted, page_size):
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    (work / "source").mkdir()
    source = Source(work / "source" / "app.db", seed, page_size)
    before, during, after = (Replica(bucket, number, anywhere, work, itself=number == 1)
                             for number in range(3))
    litestream = Litestream(judges / "litestream", source.data / "app.db", bucket, NAME, anywhere,
                            SHORT if compacted else "")
    with contextlib.ExitStack() as stack:
        stack.callback(source.close)
        stack.enter_context(before)
        stack.enter_context(litestream)
        before.wait(litestream.sync())
        readers = stack.enter_context(Readers(c_reader, soak(1, 30)))
        readers.start_some(before.file)
        source.burst()
        stack.enter_context(during)
        for _ in range(soak(1, 50)):
            for change in (source.grow, source.vacuum, source.schema, source.shrink):
                source.burst(20)
                change()
                assert_caught_up(litestream, [before, during], work)

            # Killed, and what would come next is gone when it is started again.
            during.kill()
            source.burst()
            if compacted:
                leave_behind(source, bucket, during)
            during.start()
            assert_caught_up(litestream, [before, during], work)

            # Kept, and the same when it goes on, with all that it remembers.
            before.process.send_signal(signal.SIGSTOP)
            source.burst()
            if compacted:
                leave_behind(source, bucket, before)
            before.process.send_signal(signal.SIGCONT)
            assert_caught_up(litestream, [before, during], work)

            # What follows is a file of level 0 with the whole database.
            litestream.kill()
            source.while_it_is_not_replicated()
            litestream.start()
            source.burst()
            assert_caught_up(litestream, [before, during], work)
            litestream.stop()
            litestream.start()
            assert_caught_up(litestream, [before, during], work)
        litestream.stop()
        last = max(levels(bucket)[0])[1]
        stack.enter_context(after)
        for follower in (before, during, after):
            follower.wait(last)
            assert_same_state(follower.file, litestream.database, work)
            assert_intact_replica(follower.file)
        assert not compacted or {0, 1, 2, 3, 9} <= set(levels(bucket))
    for follower in (before, during, after):
        text = follower.log_text()
        assert "level=error" not in text and "level=warn" not in text, text
        assert not (follower / ".litebucket" / "aside").exists()
    for follower in (before, during):
        assert ("in one commit" in follower.log_text()) == compacted, follower.log_text()
