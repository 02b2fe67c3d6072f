"""What went wrong elsewhere and must not here; docs/testing.md says where from."""
import json
import os
import pathlib
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from every_way import TABLE, Story, closed, execute, mode, rows, unfinished
from harness import (LITEBUCKET, STEP_SECONDS, assert_same_bytes, eventually, litebucket, restore,
                     run, sync)

FILLED = f"{TABLE}; {rows(60, 200)}"


@pytest.fixture
def node(mount, file_bucket, work):
    """A running mount, told stories of its databases, that can be killed and started."""
    with mount(file_bucket, "--upload-interval", "50ms") as data:
        stories = {}

        def story(name):
            if name not in stories:
                stories[name] = Story(data, work / f"copies-{len(stories)}", name)
            return stories[name]

        def again():
            for told in stories.values():
                told.close_all()
            data.kill()
            data.start()

        def all_well(*names):
            """They are captured, and everything of theirs comes back."""
            for name in names or list(stories):
                stories[name].tell({f"well {time.monotonic()}": closed("UPDATE t SET n = n + 1")})
                stories[name].check()

        story.again, story.all_well, story.mount = again, all_well, data
        yield story
        for told in stories.values():
            told.close_all()


def status(mount):
    return json.loads(litebucket("status", "--json", mount.point).stdout)


# Modes and sizes


def test_leaving_wal_mode_is_a_batch_even_if_nothing_else_is_written(node):
    """The change of page 1 is captured, alone, and the log goes on behind it."""
    told = node("app.db")
    told.tell({"WAL": lambda s: (mode("wal")(s), s.execute(FILLED))})
    for journal in ("delete", "wal", "truncate", "wal", "persist"):
        before = told.txid
        told.tell({f"to {journal} after {before}": mode(journal)})
        assert told.txid != before
        assert told.states[told.txid][1].read_bytes()[18:20] == (
            b"\2\2" if journal == "wal" else b"\1\1")
    node.all_well()


def test_a_page_size_change_does_not_stop_the_node(node):
    """After it, and after a crash: reads, writes, this and all other databases."""
    told, other = node("app.db"), node("other.db")
    told.tell({"filled": FILLED})
    other.tell({"filled": FILLED})
    for page_size in (8192, 512, 65536):
        told.tell({f"VACUUM to {page_size}": f"PRAGMA page_size={page_size}; VACUUM",
                   f"written at {page_size}": rows(10)})
        node.again()
        assert told.execute("PRAGMA page_size") == (page_size,)
        node.all_well()


def test_a_copy_with_another_page_size_over_a_database_does_not_stop_the_node(node, work):
    run("sqlite3", work / "large.db", f"PRAGMA page_size=16384; {FILLED};")
    told, other = node("app.db"), node("other.db")
    told.tell({"filled": closed(FILLED)})
    other.tell({"filled": closed(FILLED)})
    told.tell({"copied over": lambda s: run("cp", work / "large.db", s.path)})
    node.again()
    node.all_well()


def test_a_dropped_database_leaves_no_page_size_behind(node):
    """The name takes another one, and a journal left beside an empty file stops nobody."""
    told, other = node("app.db"), node("other.db")
    other.tell({"filled": closed(FILLED)})
    for page_size in (1024, 32768):
        told.tell({f"made {page_size}": closed(f"PRAGMA page_size={page_size}; {FILLED}")})
        os.unlink(told.path)
        eventually(lambda: told.points()[-1][1] == "drop", 30, "not dropped")
    told.path.touch()
    journal = bytes.fromhex("d9d505f920a163d7") + bytes(504)
    pathlib.Path(f"{told.path}-journal").write_bytes(journal)
    node.again()
    node.all_well("other.db")
    told.tell({"made once more": closed(FILLED)})
    node.all_well()


def test_a_vacuum_that_shrinks_a_wal_database_far_is_captured_and_lets_go_of_its_locks(node):
    told = node("app.db")
    told.execute("PRAGMA page_size=512")
    told.tell({"WAL": lambda s: (mode("wal")(s), s.execute(TABLE)),
               "rows": rows(1500, 450), "rows go": "DELETE FROM t WHERE id > 20",
               "VACUUM": "VACUUM"})
    assert told.path.stat().st_size > 512 * 700
    node.again()
    told.tell({"checkpoint": "PRAGMA wal_checkpoint(TRUNCATE)"})
    assert told.path.stat().st_size < 512 * 100
    other = told.other("writer")
    execute(other, "BEGIN IMMEDIATE; UPDATE t SET n = 0; COMMIT")
    told.rest("written by another")
    node.all_well()


def test_one_bad_database_keeps_no_other_from_mounting(node):
    """Damaged files, damaged state: the rest is served and captured, and `status` tells."""
    bad = {name: node(f"{name}.db")
           for name in ("position", "pages", "header", "half", "wal", "journal", "random")}
    good = node("good.db")
    for told in (*bad.values(), good):
        told.tell({"filled": closed(FILLED)})
    for told in bad.values():
        told.close_all()
    data = node.mount
    assert data.stop() == 0
    for name in ("position", "pages"):
        state = next(path.parent for path in data.directory.glob(".litebucket/db/*/name")
                     if path.read_text() == f"{name}.db")
        (state / name).write_bytes(os.urandom(1000))
    beneath = {name: data.directory / f"{name}.db" for name in bad}
    whole = {name: path.read_bytes() for name, path in beneath.items()}
    beneath["header"].write_bytes(bytes(100) + whole["header"][100:])
    beneath["half"].write_bytes(whole["half"][:len(whole["half"]) // 2])
    beneath["random"].write_bytes(whole["random"][:100] + os.urandom(len(whole["random"]) - 100))
    pathlib.Path(f"{beneath['wal']}-wal").write_bytes(os.urandom(10000))
    pathlib.Path(f"{beneath['journal']}-journal").write_bytes(
        bytes.fromhex("d9d505f920a163d7") + os.urandom(10000))
    data.start()
    node.all_well("good.db")
    assert node("new.db").tell({"filled": closed(FILLED)}) is None
    node.all_well("new.db")
    for name in ("pages", "wal"):
        node.all_well(f"{name}.db")
    # Where its own log ends is not known any more, so nobody goes on with it.
    asked = run(LITEBUCKET, "sync", bad["position"].path, check=False)
    assert asked.returncode == 1 and "position" in asked.stderr
    errors = {database["path"]: database.get("error") for database in
              status(data)["databases"]}
    assert "position" in errors["position.db"]
    # What was there is there, and is mended by who knows how.
    for name in ("header", "half", "random", "journal"):
        (data / f"{name}.db-journal").unlink(missing_ok=True)
        (data / f"{name}.db").write_bytes(whole[name])
        bad[name].sound = False
        node.all_well(f"{name}.db")


def test_a_reader_that_never_ends_holds_up_no_sync(node):
    told, other = node("app.db"), node("other.db")
    told.tell({"WAL": lambda s: (mode("wal")(s), s.execute(FILLED))})
    execute(told.other("reader"), "BEGIN; SELECT count(*) FROM t")
    for number in range(3):
        told.tell({f"beside the reader {number}": rows(5)})
        told.execute("PRAGMA wal_checkpoint")
        other.tell({f"another {number}": FILLED if number == 0 else rows(5)})
    assert told.other("reader").execute("SELECT count(*) FROM t").fetchone() == (60,)
    node.all_well()


# Commits


def test_a_persistent_journal_with_a_size_limit_gives_no_error_after_its_commit(node):
    """SQLite cuts such a journal after it has zeroed it; the commit is one batch, once."""
    told = node("app.db")
    told.tell({"a table": FILLED})
    for limit in (1000, 5000, 0, 100000):
        mode("persist", limit)(told)
        before = int(told.txid, 16)
        told.tell({f"limit {limit}": f"BEGIN; {rows(300, 300)}; UPDATE t SET n = n + 1; COMMIT"})
        assert int(told.txid, 16) == before + 1
    node.all_well()


def test_a_transaction_over_two_databases_succeeds_and_leaves_no_phantom(node):
    one, two = node("one.db"), node("two.db")
    one.tell({"filled": FILLED})
    two.tell({"filled": FILLED})
    one.execute(f"ATTACH '{two.path}' AS two")
    one.execute("BEGIN; UPDATE main.t SET n = 5; UPDATE two.t SET n = 6; COMMIT")
    one.rest("both")
    two.rest("both")
    assert {name for name in os.listdir(node.mount.point)} == {"one.db", "two.db"}
    node.again()
    assert [database["path"] for database in status(node.mount)["databases"]] == [
        "one.db", "two.db"]
    node.all_well()


@pytest.mark.parametrize("journal", ["memory", "off"])
def test_commits_without_a_journal_are_batches_of_their_own(node, journal):
    """They are not carried by the next commit that has one."""
    told = node("app.db")
    told.tell({"filled": FILLED})
    mode(journal)(told)
    before = told.txid
    told.tell({"without": closed("UPDATE t SET n = 77")})
    assert told.txid != before
    restore(node.mount.bucket, "app.db", told.work / "out", told.txid)
    restored = sqlite3.connect(told.work / "out")
    assert restored.execute("SELECT DISTINCT n FROM t").fetchall() == [(77,)]
    restored.close()
    node.all_well()


@pytest.mark.more
def test_sync_says_why_it_cannot_have_a_transaction_without_a_journal(node):
    """It gives up after a while, with the reason, and nothing is lost by that."""
    told = node("app.db")
    told.tell({"filled": FILLED})
    mode("memory")(told)
    told.execute("PRAGMA locking_mode=EXCLUSIVE; UPDATE t SET n = 5")
    asked = run(LITEBUCKET, "sync", told.path, check=False)
    assert asked.returncode == 1
    assert "locking_mode=EXCLUSIVE" in asked.stderr
    assert "opened" not in asked.stderr
    told.close()
    told.rest("closed")
    node.all_well()


def test_files_that_come_and_go_are_no_databases(node):
    told = node("app.db")
    told.tell({"filled": FILLED})
    for name in ("touched", "app.db-lock", "app.db-pos", ".primary"):
        (node.mount / name).touch()
        (node.mount / name).unlink()
        (node.mount / name).write_text("hi")
    assert [database["path"] for database in status(node.mount)["databases"]] == ["app.db"]
    node.again()
    assert [database["path"] for database in status(node.mount)["databases"]] == ["app.db"]
    listed = json.loads(litebucket("list", "--json", node.mount.bucket.url).stdout)
    assert [database["path"] for database in listed["databases"]] == ["app.db"]
    node.all_well()


@pytest.mark.parametrize("journal", ["delete", "truncate", "persist", "wal"])
def test_what_changes_nothing_takes_no_txid(node, journal):
    """Reading, empty transactions, rollbacks that never reached the file."""
    told = node("app.db")
    told.tell({"mode and table": lambda s: (mode(journal)(s), s.execute(FILLED))})
    before = told.txid
    for step in ("SELECT sum(n) FROM t", "BEGIN IMMEDIATE; COMMIT", "BEGIN EXCLUSIVE; ROLLBACK",
                 "BEGIN; UPDATE t SET n = n + 1; ROLLBACK", "PRAGMA wal_checkpoint(PASSIVE)",
                 "PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA optimize", "PRAGMA integrity_check"):
        told.tell({step: step})
    assert told.txid == before
    told.close()
    told.rest("closed")
    assert told.txid == before
    node.all_well()


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_a_drop_beside_a_writer_leaves_a_sound_log(node, journal):
    told = node("app.db")
    script = (
        "import sqlite3, sys\n"
        "while True:\n"
        "    try:\n"
        "        c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=1)\n"
        f"        c.execute('PRAGMA journal_mode={journal}')\n"
        "        c.execute('CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, n, body)')\n"
        "        for i in range(50):\n"
        "            c.execute('INSERT INTO t(n, body) VALUES (?, randomblob(900))', (i,))\n"
        "        c.close()\n"
        "    except sqlite3.Error:\n"
        "        pass\n")
    writer = subprocess.Popen([sys.executable, "-c", script, told.path])
    try:
        for _ in range(15):
            eventually(lambda: os.path.exists(told.path), 60, "nobody writes")
            time.sleep(0.15)
            # As people do it: not at once, and not in the best order.
            for suffix in ("", "-wal", "-shm", "-journal"):
                pathlib.Path(f"{told.path}{suffix}").unlink(missing_ok=True)
    finally:
        writer.kill()
        writer.wait()
    for suffix in ("", "-wal", "-shm", "-journal"):
        pathlib.Path(f"{told.path}{suffix}").unlink(missing_ok=True)
    told.tell({"a new one": closed(FILLED)})
    points = told.points()
    assert [int(txid, 16) for txid, _ in points] == list(range(1, len(points) + 1))
    assert [kind for _, kind in points].count("drop") > 5
    restore(node.mount.bucket, "app.db", told.work / "last")
    assert_same_bytes(told.work / "last", told.states[told.txid][1])
    node.again()
    told.tell({"after a crash": closed(rows(5))})
    restore(node.mount.bucket, "app.db", told.work / "after")
    assert_same_bytes(told.work / "after", told.states[told.txid][1])


# Starts


@pytest.mark.parametrize("damage", ["short", "no magic", "empty", "gone"])
def test_a_damaged_header_at_the_start_deletes_nothing(node, damage):
    """The file stays as it is, the history stays, and a mended file goes on behind it."""
    told, other = node("app.db"), node("other.db")
    told.tell({"filled": closed(FILLED)})
    other.tell({"filled": closed(FILLED)})
    assert node.mount.stop() == 0
    beneath = node.mount.directory / "app.db"
    whole = beneath.read_bytes()
    damaged = {"short": whole[:60], "no magic": b"x" + whole[1:], "empty": b""}.get(damage)
    if damaged is None:
        beneath.unlink()
    else:
        beneath.write_bytes(damaged)
    node.mount.start()
    assert (node.mount / "app.db").exists() == (damaged is not None)
    if damaged is not None:
        assert (node.mount / "app.db").read_bytes() == damaged
    # Nothing is brought back from the bucket unasked either.
    eventually(lambda: told.points()[-1][1] == "drop", 30, "not dropped")
    node.all_well("other.db")
    told.check()
    (node.mount / "app.db").write_bytes(whole)
    told.tell({"mended": closed("UPDATE t SET n = n + 1")})
    node.all_well()


def test_a_database_that_was_never_finished_holds_up_no_start(node):
    """Killed in its first transaction: an empty file, and perhaps a journal."""
    other = node("other.db")
    other.tell({"filled": closed(FILLED)})
    told = node("app.db")
    kill_in("delete", told.path, f"PRAGMA cache_size=5; BEGIN; {TABLE}; {rows(500, 500)}")
    assert told.path.exists()
    node.again()
    node.all_well("other.db")
    told.tell({"filled": closed(FILLED)})
    node.all_well()


# Locks


def test_a_lock_query_tells_who_holds_what(node):
    """As programs beside SQLite's ask: the type and the process, exactly."""
    told = node("app.db")
    told.tell({"filled": closed(FILLED)})
    script = ("import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
              "c.execute('BEGIN IMMEDIATE'); print('held', flush=True); sys.stdin.read()")
    with subprocess.Popen([sys.executable, "-c", script, told.path], text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == "held\n"
        assert query(told.path, 0x40000001) == (1, holder.pid)  # F_WRLCK: RESERVED
        assert query(told.path, 0x40000002) == (0, holder.pid)  # F_RDLCK: SHARED
        assert query(told.path, 0x40000000)[0] == 2  # F_UNLCK: PENDING
        holder.stdin.close()
    assert query(told.path, 0x40000001)[0] == 2


def query(path, offset):
    """F_GETLK for a write lock on a byte: (type, process)."""
    script = ("import fcntl, struct, sys\n"
              "lock = struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, int(sys.argv[2]), 1, 0)\n"
              "answer = struct.unpack('hhqqi4x', fcntl.fcntl(open(sys.argv[1], 'r+b'),"
              " fcntl.F_GETLK, lock))\n"
              "print(answer[0], answer[4])")
    kind, pid = run(sys.executable, "-c", script, path, offset).stdout.split()
    return int(kind), int(pid)


# The WAL


def test_a_small_commit_is_a_small_batch_however_long_the_wal_is(node):
    told = node("app.db")
    told.tell({"WAL": lambda s: (mode("wal")(s), s.execute(f"PRAGMA wal_autocheckpoint=0; {TABLE}")),
               "4,000 pages": rows(8000, 1900), "all again": "UPDATE t SET n = n + 1",
               "one row": "UPDATE t SET n = -1 WHERE id = 4000"})
    text = litebucket("history", "--json", node.mount.bucket.url_of("app.db")).stdout
    last = json.loads(text)["points"][-1]
    assert last["txid"] == told.txid and last["object_size"] < 3 * 4096
    told.check()


def test_checkpoints_keep_the_wal_short_beside_a_writer_that_never_pauses(node):
    told = node("app.db")
    told.tell({"WAL": lambda s: (mode("wal")(s), s.execute(f"PRAGMA wal_autocheckpoint=20; {TABLE}"))})
    longest = 0
    for _ in range(400):
        told.execute("INSERT INTO t(n, body) VALUES (1, randomblob(2000))")
        longest = max(longest, pathlib.Path(f"{told.path}-wal").stat().st_size)
    assert longest < 60 * 4120
    told.rest("400 commits")
    node.all_well()


def test_a_partial_checkpoint_and_a_shrink_and_growth_lose_no_page(node):
    told = node("app.db")
    told.execute("PRAGMA page_size=1024")
    told.tell({"WAL": lambda s: (mode("wal")(s), s.execute(TABLE)), "rows": rows(800, 500)})
    for number in range(3):
        execute(told.other("reader"), "BEGIN; SELECT count(*) FROM t")
        told.tell({
            f"rows go {number}": "DELETE FROM t WHERE id % 8 > 0",
            f"VACUUM {number}": "VACUUM",
            f"partial {number}": "PRAGMA wal_checkpoint(PASSIVE)",
            f"grows {number}": rows(900, 500),
        })
        told.other("reader").execute("COMMIT")
        told.tell({f"whole {number}": "PRAGMA wal_checkpoint(RESTART)",
                   f"small {number}": rows(1)})
    node.all_well()


def test_frames_that_sqlite_repeats_to_fill_a_sector_are_captured(node):
    told = node("app.db")
    told.own = sqlite3.connect(f"file:{told.path}?psow=0", uri=True, isolation_level=None)
    told.execute("PRAGMA page_size=512; PRAGMA synchronous=FULL")
    told.tell({"WAL": lambda s: (mode("wal")(s), s.execute(TABLE))})
    told.tell({f"row {number}": rows(1 + number % 3, 30) for number in range(12)})
    node.all_well()


# Applications that die


def kill_in(journal, path, script):
    """An application that is killed with this transaction open."""
    code = ("import os, signal, sqlite3, sys\n"
            "c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)\n"
            "c.execute('PRAGMA journal_mode=' + sys.argv[2]).fetchall()\n"
            "for statement in sys.argv[3].split(';'):\n"
            "    c.execute(statement).fetchall()\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n")
    done = subprocess.run([sys.executable, "-c", code, str(path), journal, script],
                          timeout=STEP_SECONDS, check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("journal", ["delete", "truncate", "persist", "wal"])
def test_an_application_killed_in_a_spilled_transaction_takes_nothing_with_it(node, journal):
    told = node("app.db")
    told.tell({"mode and table": closed(f"PRAGMA journal_mode={journal}; {FILLED}")})
    for number in range(3):
        kill_in(journal, told.path, f"PRAGMA cache_size=5; BEGIN; UPDATE t SET n = -5;"
                                    f"{rows(500, 300)}; DELETE FROM t WHERE id < 30")
        before = told.txid
        assert sync(told.path) == before, "half a transaction got a TXID"
        # The next one who opens it rolls back, or writes over what was left.
        assert told.execute("SELECT min(n), count(*) FROM t") == (1, 60 + 5 * number)
        told.tell({f"rolled back {number}": "SELECT 1", f"goes on {number}": closed(rows(5))})
    node.all_well()


@pytest.mark.parametrize("journal", ["delete", "truncate", "persist"])
def test_a_hot_journal_is_played_back_before_anything_is_captured(node, journal):
    """The application and the daemon died together."""
    told = node("app.db")
    told.tell({"mode and table": closed(f"PRAGMA journal_mode={journal}; {FILLED}")})
    kill_in(journal, told.path,
            f"PRAGMA cache_size=5; BEGIN; UPDATE t SET n = -5; {rows(500, 300)}")
    node.again()
    told.rest("after both")
    assert told.execute("SELECT min(n), count(*) FROM t") == (1, 60)
    node.all_well()
