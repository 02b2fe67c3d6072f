"""A primary that does everything at once, and readers that judge what they see of it."""
import contextlib
import json
import random
import subprocess
import sys
import time

import harness
from following import ENOUGH_SECONDS, NOBODY, connect

QUERY = ("SELECT (SELECT coalesce(sum(v), 0) FROM a) + (SELECT coalesce(sum(v), 0) FROM b), n "
         "FROM counter")
READER = harness.ROOT / "tests" / "lib" / "replica_reader.py"
JOURNALS = ["delete", "truncate", "persist", "memory", "off", "wal", "wal"]


class Primary:
    """What is in two tables adds up to nothing, and a counter counts, in each transaction."""

    def __init__(self, data, seed, page_size_pause=0):
        self.data = data
        self.page_size_pause = page_size_pause
        self.page_size_changed = time.monotonic()
        self.random = random.Random(seed)
        self.number = 0
        self.app = self.create("app.db")
        self.come = self.create("come.db")

    def create(self, name):
        connection = connect(self.data / name)
        connection.execute("BEGIN")
        for table in "ab":
            connection.execute(f"CREATE TABLE {table}(id INTEGER PRIMARY KEY, v, body)")
        connection.execute("CREATE TABLE counter(n)")
        connection.execute("INSERT INTO counter VALUES (?)", (self.number,))
        connection.execute("COMMIT")
        return connection

    def close(self):
        self.app.close()
        self.come.close()

    def commit(self, connection, *statements):
        connection.execute("BEGIN IMMEDIATE")
        for statement in statements:
            connection.execute(statement)
        self.number += 1
        connection.execute("UPDATE counter SET n = ?", (self.number,))
        connection.execute("COMMIT")

    def add(self, connection, rows, size):
        pairs = "WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < {}) " \
                "INSERT INTO {}(v, body) SELECT {} * i, randomblob({}) FROM s"
        self.commit(connection, pairs.format(rows, "a", 7, size), pairs.format(rows, "b", -7, size))

    def transfer(self):
        self.add(self.app, 1, self.random.choice([10, 300, 5000]))

    def grow(self):
        self.add(self.app, 100, 900)

    def shrink(self):
        self.commit(self.app, *(f"DELETE FROM {table} WHERE id < (SELECT max(id) - 30 FROM {table})"
                                for table in "ab"))

    def update(self):
        self.commit(self.app, "UPDATE a SET v = v + 1, body = randomblob(200)",
                    "UPDATE b SET v = v - 1")

    def schema(self):
        self.commit(self.app, self.random.choice([
            "CREATE TABLE IF NOT EXISTS side AS SELECT * FROM a", "DROP TABLE IF EXISTS side",
            "CREATE INDEX IF NOT EXISTS a_v ON a(v)", "DROP INDEX IF EXISTS a_v"]))

    def vacuum(self):
        self.shrink()
        self.app.execute("VACUUM")

    def change_journal(self):
        mode = self.random.choice(JOURNALS)
        self.app.execute(f"PRAGMA journal_mode = {mode}")

    def change_page_size(self):
        """Not too often: followers wait until nobody reads in the old size."""
        if time.monotonic() - self.page_size_changed < self.page_size_pause:
            return
        self.page_size_changed = time.monotonic()
        self.shrink()
        self.app.execute("PRAGMA journal_mode = delete")
        self.app.execute(f"PRAGMA page_size = {self.random.choice([512, 1024, 4096, 16384])}")
        self.app.execute("VACUUM")

    def come_and_go(self):
        self.come.close()
        for suffix in ("", "-wal", "-shm", "-journal"):
            (self.data.point / f"come.db{suffix}").unlink(missing_ok=True)
        self.come = self.create("come.db")
        self.add(self.come, 3, 500)

    def turn(self):
        what, = self.random.choices(
            [self.transfer, self.grow, self.shrink, self.update, self.schema, self.vacuum,
             self.change_journal, self.change_page_size, self.come_and_go],
            weights=[60, 3, 4, 10, 6, 2, 3, 1, 2])
        what()


class Readers:
    """Processes that read until the block ends, which then looks at what they found."""

    def __init__(self, c_reader, snapshot_seconds):
        self.c_reader = c_reader
        self.seconds = snapshot_seconds
        self.running = []
        self.results = []

    def start(self, manner, database, **options):
        self.run([sys.executable, harness.reachable(READER), manner, database, QUERY, str(self.seconds)], **options)

    def run(self, command, **options):
        self.running.append(subprocess.Popen(command, stdin=subprocess.PIPE, text=True,
                                             stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                             **options))

    def start_all(self, directory, restarts=False):
        """Ten of them; or, where the follower is killed again and again, nine.

        Who may not write the wal-index cannot repair it, and waits for the
        follower that was killed in the middle of a change.
        """
        for manner in ("short", "mmap", "snapshot", "slow", "reopen", "integrity", "shell"):
            self.start(manner, directory / "app.db")
        if not restarts:
            self.start("readonly", directory / "app.db", user=NOBODY)
        self.start("comes-and-goes", directory / "come.db")
        self.run([self.c_reader, directory / "app.db", QUERY])

    def start_some(self, database):
        for manner in ("short", "snapshot", "slow", "reopen", "integrity"):
            self.start(manner, database)
        self.run([self.c_reader, database, QUERY])

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        for process in self.running:
            process.stdin.close()
        for process in self.running:
            process.stdin = None
            out, err = process.communicate(timeout=ENOUGH_SECONDS + self.seconds)
            if kind is None:
                assert process.returncode == 0 and not err, (process.args, err)
                self.results.append(json.loads(out))
        if kind is None:
            for result in self.results:
                if isinstance(result, dict):
                    assert not result["wrong"], result
                    assert result["asked"], result


def assert_intact_replica(path):
    with contextlib.closing(connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute(QUERY).fetchone()[0] == 0
