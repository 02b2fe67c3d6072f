"""What only a client of the mount can know: who is in a transaction, and what
a transaction over several databases left behind."""
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

import harness
from harness import (assert_intact, assert_same_bytes, copy_at_rest, eventually, litebucket, run,
                     sync)


# Transactions without a journal (D10)


SPILL = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode=" + sys.argv[2])
db.execute("PRAGMA cache_size=10")
db.execute("BEGIN IMMEDIATE")
for number in range(200):
    db.execute("UPDATE t SET a = a + 1, b = randomblob(2000) WHERE rowid = ?", (number + 1,))
print("open", flush=True)
time.sleep(3)
db.execute("COMMIT")
print("committed", flush=True)
time.sleep(600)
"""


def ages(path):
    """All rows, if there are any, have the same number in every committed state."""
    db = sqlite3.connect(path)
    try:
        return {a for a, in db.execute("SELECT a FROM t")}
    finally:
        db.close()


@pytest.mark.parametrize("journal", ["MEMORY", "OFF"])
def test_a_pause_in_a_transaction_without_a_journal_seals_nothing(file_bucket, mount, work, journal):
    with mount(file_bucket, "--upload-interval", "0") as data:
        db = sqlite3.connect(data / "app.db")
        db.execute("CREATE TABLE t(a, b)")
        db.executemany("INSERT INTO t VALUES(0, randomblob(2000))", [()] * 200)
        db.commit()
        db.close()
        sync(data / "app.db")
        before = harness.history(file_bucket, "app.db")
        writer = subprocess.Popen([sys.executable, "-c", SPILL, data / "app.db", journal],
                                  stdout=subprocess.PIPE, text=True)
        try:
            assert writer.stdout.readline() == "open\n"
            until = time.monotonic() + 2.4
            while time.monotonic() < until:
                assert harness.history(file_bucket, "app.db") == before, "sealed in a transaction"
                time.sleep(0.2)
            assert writer.stdout.readline() == "committed\n"
            # Soon, by itself, although the program has the database open.
            eventually(lambda: len(harness.history(file_bucket, "app.db")) > len(before), 30,
                       "the commit does not come")
        finally:
            writer.kill()
            writer.wait()
        sync(data / "app.db")
        states = []
        for txid in harness.history(file_bucket, "app.db"):
            harness.restore(file_bucket, "app.db", work / f"{txid}.db", txid)
            assert_intact(work / f"{txid}.db")
            states.append(ages(work / f"{txid}.db"))
        assert all(len(state) <= 1 for state in states), states
        assert states[-1] == {1}


@pytest.mark.parametrize("journal", ["MEMORY", "OFF"])
def test_what_is_never_at_rest_is_told(file_bucket, mount, journal):
    """A new database, and all that is known of it is that somebody has it locked."""
    with mount(file_bucket) as data:
        db = sqlite3.connect(data / "app.db", isolation_level=None)
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        db.execute(f"PRAGMA journal_mode={journal}")
        db.execute("CREATE TABLE t(a, b)")
        db.execute("BEGIN")
        db.execute("PRAGMA cache_size=10")
        db.executemany("INSERT INTO t VALUES(0, randomblob(2000))", [()] * 200)

        def waiting():
            status = json.loads(litebucket("status", "--json", data.point).stdout)
            return [found for found in status["databases"] if found["waits"]]

        found, = eventually(waiting, 20, "status does not tell")
        assert (found["path"], found["state"], found["pending"]) == ("app.db", "resync", True)
        refused = litebucket("sync", data / "app.db", check=False)
        assert refused.returncode == 1
        assert re.search("still waiting for .*app.db': .*transaction", refused.stderr)
        db.execute("COMMIT")
        db.close()
        sync(data / "app.db")
        eventually(lambda: not waiting(), 20, "status still tells")


def test_a_slow_copy_is_one_batch(file_bucket, mount, work):
    db = sqlite3.connect(work / "source.db")
    db.execute("CREATE TABLE t(b)")
    db.executemany("INSERT INTO t VALUES(randomblob(2000))", [()] * 200)
    db.commit()
    db.close()
    image = (work / "source.db").read_bytes()
    with mount(file_bucket, "--upload-interval", "0") as data:
        with open(data / "copy.db", "wb", buffering=0) as copy:
            for part in range(5):
                size = len(image) // 5 + 1
                copy.write(image[part * size:(part + 1) * size])
                time.sleep(1.1)
        sync(data / "copy.db")
        assert len(harness.history(file_bucket, "copy.db")) == 1
        harness.restore(file_bucket, "copy.db", work / "restored.db")
        assert_same_bytes(work / "restored.db", work / "source.db")


# Transactions over several databases (D21)


KILL = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int unlink(const char *path)
{
	int (*next)(const char *) = (int (*)(const char *))dlsym(RTLD_NEXT, "unlink");
	const char *armed = getenv("KILL_AT");

	if (armed && strstr(path, armed) && access(getenv("KILL_IF"), F_OK) == 0)
		raise(SIGKILL);
	return next(path);
}
"""

COMMIT = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1] + "/one.db", isolation_level=None)
db.execute("ATTACH ? AS two", (sys.argv[1] + "/two.db",))
db.execute("PRAGMA cache_size=5")
db.execute("BEGIN")
for table in ("main.t", "two.t"):
    db.execute(f"UPDATE {table} SET a = a + 1, b = randomblob(3000)")
db.execute("COMMIT")
"""


@pytest.fixture(scope="session")
def killer(tmp_path_factory):
    directory = tmp_path_factory.mktemp("killer")
    (directory / "kill.c").write_text(KILL)
    run("cc", "-shared", "-fPIC", "-o", directory / "kill.so", directory / "kill.c", "-ldl")
    return directory / "kill.so"


@pytest.mark.parametrize("place", ["in place", "elsewhere"])
@pytest.mark.parametrize("at, expected", [("-mj", {0}), ("-journal", {1})],
                         ids=["before the commit", "after the commit"])
def test_a_commit_over_two_databases_is_whole_after_a_crash(file_bucket, mount, work, killer, at,
                                                            expected, place):
    data = mount(file_bucket, mountpoint=work / "point" if place == "elsewhere" else None)
    with data:
        for name in ("one.db", "two.db"):
            db = sqlite3.connect(data / name)
            db.execute("CREATE TABLE t(a, b)")
            db.executemany("INSERT INTO t VALUES(0, randomblob(3000))", [()] * 50)
            db.commit()
            db.close()
            sync(data / name)
        (work / "armed").touch()
        result = run(sys.executable, "-c", COMMIT, data.point, check=False,
                     env=dict(os.environ, LD_PRELOAD=str(killer), KILL_AT=at,
                              KILL_IF=str(work / "armed")))
        assert result.returncode == -signal.SIGKILL
        journals = {"one.db-journal", "two.db-journal"}
        assert journals <= set(os.listdir(data.point))
        data.kill()
        # The helper that plays them back may be there only after the mount is.
        data.environment["LITEBUCKET_SLOWPOINT"] = "helper-due:1000"
        data.start()
        eventually(lambda: not [name for name in os.listdir(data.point) if "journal" in name
                                or "-mj" in name], 60,
                   lambda: f"nobody plays them back: {os.listdir(data.point)}\n{data.log_text()}")
        for name in ("one.db", "two.db"):
            sync(data / name)
            harness.restore(file_bucket, name, work / f"restored-{name}")
            copy = copy_at_rest(data / name, work / f"copy-{name}")
            assert_same_bytes(work / f"restored-{name}", copy)
            assert_intact(copy)
            assert ages(copy) == expected
            for txid in harness.history(file_bucket, name):
                harness.restore(file_bucket, name, work / f"{name}-{txid}", txid)
                assert_intact(work / f"{name}-{txid}")
                assert len(ages(work / f"{name}-{txid}")) <= 1
