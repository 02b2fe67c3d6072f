"""Several programs at once, and many databases: nothing is lost, nothing is left."""
import os
import pathlib
import random
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from every_way import TABLE, Story, closed, execute, rows
from harness import STEP_SECONDS, assert_intact, assert_same_bytes, history, restore, run, sync

WRITER = """
import random, sqlite3, sys, time
path, mode, seed, until = sys.argv[1], sys.argv[2], int(sys.argv[3]), time.monotonic() + float(sys.argv[4])
random.seed(seed)
done = 0
while time.monotonic() < until:
    try:
        c = sqlite3.connect(path, isolation_level=None, timeout=5)
        c.execute("PRAGMA cache_size=10")
        if random.random() < 0.3:
            c.execute("PRAGMA journal_mode=" + random.choice(mode.split()))
        for _ in range(random.randrange(1, 6)):
            c.execute("BEGIN IMMEDIATE")
            c.execute("UPDATE account SET n = n - 1, body = randomblob(300) WHERE id = ?", (random.randrange(50),))
            c.execute("UPDATE account SET n = n + 1, body = randomblob(300) WHERE id = ?", (random.randrange(50),))
            if random.random() < 0.2:
                c.execute("UPDATE account SET n = n + 1, body = randomblob(900)")
                c.execute("ROLLBACK")
            else:
                c.execute("COMMIT")
                done += 1
        if random.random() < 0.1:
            c.execute("VACUUM")
        c.close()
    except sqlite3.OperationalError as error:
        if "locked" not in str(error) and "busy" not in str(error):
            raise
print(done)
"""

ACCOUNTS = ("CREATE TABLE account(id INTEGER PRIMARY KEY, n INTEGER, body BLOB);"
            "INSERT INTO account WITH RECURSIVE c(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM c "
            "WHERE i < 49) SELECT i, 0, randomblob(300) FROM c;"
            "CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER, body BLOB)")


def balance(path):
    connection = sqlite3.connect(f"file:{path}?immutable=1", uri=True)
    made = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'account'").fetchone()
    total = connection.execute("SELECT sum(n), count(*) FROM account").fetchone() if made else (0, 0)
    connection.close()
    return total[0] or 0


@pytest.mark.parametrize("modes", ["wal", "delete truncate persist", "wal delete",
                                   "delete truncate persist wal"])
def test_writers_that_switch_modes_beside_each_other_keep_every_batch_whole(
        story, soak, c_client, modes):
    """Python, the shell and a C program; what each transaction keeps holds in each batch."""
    seconds = soak(4, 60)
    story.tell({"accounts": closed(ACCOUNTS)})
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, story.path, modes, str(seed),
                                 str(seconds)], stdout=subprocess.PIPE, text=True)
               for seed in range(2)]
    until = time.monotonic() + seconds
    number = 0
    while time.monotonic() < until:
        number += 1
        journal = modes.split()[number % len(modes.split())]
        run("sqlite3", "-cmd", ".timeout 3000", story.path,
            f"PRAGMA journal_mode={journal}; INSERT INTO t(n) VALUES ({number});", check=False)
        run(c_client, story.path, journal, "rows", 20, check=False)
        sync(story.path)
    assert sum(int(writer.communicate(timeout=STEP_SECONDS)[0]) for writer in writers) > 0
    assert [writer.returncode for writer in writers] == [0, 0]
    story.rest("the end")
    story.close_all()
    points = history(story.mount.bucket, story.name)
    assert len(points) > 3
    for txid in points[::-(len(points) // soak(15, 200) + 1)]:
        output = story.work / txid
        restore(story.mount.bucket, story.name, output, txid)
        assert_intact(output)
        assert balance(output) == 0, f"{txid} holds half a transaction"
        output.unlink()
    restore(story.mount.bucket, story.name, story.work / "last")
    assert_same_bytes(story.work / "last", story.states[story.txid][1])


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_readers_beside_a_vacuum_see_one_state_or_the_other(story, journal):
    story.tell({"filled": closed(f"PRAGMA page_size=1024; PRAGMA journal_mode={journal};"
                                 f"{TABLE}; {rows(1500, 400)}")})
    stop, seen, errors = threading.Event(), set(), []

    def read():
        while not stop.is_set():
            try:
                reader = story.connect()
                # One statement is one state: rows and their sum fit together.
                seen.add(reader.execute("SELECT count(*), sum(n) FROM t").fetchone())
                if reader.execute("PRAGMA quick_check").fetchone() != ("ok",):
                    errors.append("a reader saw a damaged database")
                reader.close()
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    errors.append(str(error))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        story.tell({
            "rows go": "DELETE FROM t WHERE id % 2 = 0",
            "VACUUM": "VACUUM",
            "more go": "DELETE FROM t WHERE id > 100",
            "VACUUM again": "VACUUM",
            "grows": rows(500, 400),
            "VACUUM once more": "VACUUM",
        })
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert not errors
    assert len(seen) > 1
    story.check()


def descriptors(mounted):
    return len(os.listdir(f"/proc/{mounted.process.pid}/fd"))


def memory_kb(mounted):
    status = pathlib.Path(f"/proc/{mounted.process.pid}/status").read_text()
    return int(next(line for line in status.splitlines()
                    if line.startswith("VmRSS")).split()[1])


def test_databases_that_come_and_go_leave_no_descriptor_and_no_memory(mount, file_bucket, work,
                                                                      soak):
    """Hundreds of short lives under a few names, and under names of their own."""
    # Of the sanitizer's own memory, little: what it sets aside of freed pieces, and
    # (where the compiler asks for them by default) the frames of functions.
    options = {"ASAN_OPTIONS": "quarantine_size_mb=1:detect_leaks=0:"
                               "detect_stack_use_after_return=0"}
    with mount(file_bucket, "--upload-interval", "20ms", environment=options) as mounted:
        def lives(count, name):
            for number in range(count):
                path = mounted / name(number)
                connection = sqlite3.connect(path, isolation_level=None)
                journal = random.choice(["wal", "delete", "persist", "truncate"])
                execute(connection, f"PRAGMA journal_mode={journal}; {TABLE}; {rows(5)}")
                if number % 3 == 0:
                    # Removed while it is open, as tests of applications do.
                    path.unlink()
                connection.close()
                for suffix in ("", "-wal", "-shm", "-journal"):
                    pathlib.Path(f"{path}{suffix}").unlink(missing_ok=True)

        keep = Story(mounted, work / "copies", "keep.db")
        keep.tell({"filled": closed(f"{TABLE}; {rows(5)}")})
        lives(20, lambda number: f"few-{number % 10}.db")
        keep.tell({"settled": closed(rows(5))})
        before, memory = descriptors(mounted), memory_kb(mounted)
        for turn in range(3):
            lives(soak(100, 1000), lambda number: f"few-{number % 10}.db")
            keep.tell({f"turn {turn}": closed(rows(5))})
        assert descriptors(mounted) <= before + 5
        assert memory_kb(mounted) < memory + 20_000
        # A name that was a database keeps its state, and what holds it, to the end.
        count = soak(100, 1000)
        lives(count, lambda number: f"own-{number}.db")
        keep.tell({"own names": closed(rows(5))})
        assert descriptors(mounted) <= before + 3 * count + 5
        keep.check()


def test_hundreds_of_databases_at_once_are_all_captured(mount, file_bucket, work, soak):
    count = soak(100, 500)
    with mount(file_bucket, "--upload-interval", "200ms") as mounted:
        before = descriptors(mounted)
        for turn in range(2):
            for number in range(count):
                connection = sqlite3.connect(mounted / f"{number}.db", isolation_level=None)
                if turn == 0:
                    execute(connection, f"PRAGMA journal_mode={'wal' if number % 2 else 'delete'};"
                                        f"{TABLE}")
                execute(connection, rows(3))
                connection.close()
        for number in range(count):
            sync(mounted / f"{number}.db")
        each = (descriptors(mounted) - before) / count
        assert each <= 5.1, f"{each} descriptors for each database that nobody uses"
        for number in random.sample(range(count), 10):
            restore(file_bucket, f"{number}.db", work / "out")
            assert_same_bytes(work / "out", mounted / f"{number}.db")
            (work / "out").unlink()
