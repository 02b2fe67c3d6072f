"""Journal modes, lock modes, and the switches between them: every state comes back."""
import itertools
import os
import sqlite3

import pytest

from every_way import TABLE, Story, cases, closed, mode, pragma, rows, shell
from harness import eventually

MODES = ["delete", "truncate", "persist", "limit", "memory", "off", "wal"]
# No journal tells when these have committed: somebody who never lets go of the
# lock is in a transaction for all that others know (D10).
SILENT = {"memory", "off"}

WORK = {
    "some rows": rows(20),
    "a large transaction": f"BEGIN; {rows(300, 400)}; UPDATE t SET n = n + 1; COMMIT",
    "a small change": "UPDATE t SET body = 'changed' WHERE id = 7",
    "rows go": "DELETE FROM t WHERE id % 3 = 0",
    "a large value": "INSERT INTO t(n, body) VALUES (0, zeroblob(50000))",
    "the schema": "CREATE INDEX t_n ON t(n)",
    "VACUUM": "VACUUM",
    "the last word": "INSERT INTO t(n, body) VALUES (1, 'last')",
}


def to(journal):
    """A switch; "limit" is PERSIST with a journal_size_limit."""
    return mode("persist", 2000) if journal == "limit" else mode(journal)


def locking(how):
    return pragma("locking_mode", how, how)


def each_closed(steps):
    """Open, do, close, for each of them."""
    return {name: closed(step) for name, step in steps.items()}


def in_mode(journal, how, step):
    """Opens, sets the modes, does it, and closes."""
    def take(story):
        locking(how)(story)
        to(journal)(story)
        story.execute(step)
        story.close()
    return take


@pytest.mark.parametrize("how", ["normal", "exclusive"])
@pytest.mark.parametrize("journal", MODES)
def test_every_commit_of_a_connection_that_stays_open_comes_back(story, journal, how):
    steps = {"modes": lambda s: (locking(how)(s), to(journal)(s)), "a table": TABLE, **WORK}
    if journal in SILENT and how == "exclusive":
        del steps["modes"]
        steps = {name: in_mode(journal, how, step) for name, step in steps.items()}
    elif journal != "wal":
        # Such a mode is the connection's own, and there is no file yet.
        steps["modes"](story)
        del steps["modes"]
    story.tell(steps)
    story.check()


@pytest.mark.parametrize("how", ["normal", "exclusive"])
@pytest.mark.parametrize("journal", MODES)
def test_every_commit_of_connections_that_come_and_go_comes_back(story, journal, how):
    story.tell({name: in_mode(journal, how, step)
                for name, step in {"a table": TABLE, **WORK}.items()})
    story.check()


def test_a_wal_without_shm_is_captured_before_and_after_it_has_one(story):
    def has_shm(expected):
        def take(told):
            assert (told.mount / f"{told.name}-shm").exists() == expected
        return take

    story.tell({
        "exclusive first": lambda s: (locking("exclusive")(s), mode("wal")(s)),
        "a table": TABLE,
        "no shm": has_shm(False),
        **WORK,
        "checkpoint": "PRAGMA wal_checkpoint(RESTART)",
        "the WAL starts over": rows(5),
        "still no shm": has_shm(False),
        "shared": closed(rows(5)),
        "with shm": rows(50),
        "one": has_shm(True),
        "exclusive with shm": lambda s: (locking("exclusive")(s), s.execute(rows(5))),
        "more": rows(50),
        "truncated": "PRAGMA wal_checkpoint(TRUNCATE)",
        "after": rows(5),
    })
    story.check()


@pytest.mark.parametrize("journal, synchronous", cases(
    itertools.product(["delete", "truncate", "persist", "memory", "wal"],
                      ["OFF", "NORMAL", "FULL", "EXTRA"]),
    lambda case: case[0] == "wal" or case in [
        ("delete", "OFF"), ("delete", "EXTRA"), ("persist", "NORMAL"), ("truncate", "OFF")]))
def test_every_synchronous_comes_back(story, journal, synchronous):
    to(journal)(story)
    story.tell({
        "a table": TABLE,
        "synchronous": f"PRAGMA synchronous={synchronous}",
        "rows": rows(100),
        "update": "UPDATE t SET n = -n",
        "spilled": f"PRAGMA cache_size=5; BEGIN; {rows(400, 500)}; COMMIT",
        "more rows": rows(3),
    })
    story.check()


# Switches


SWITCHES = list(itertools.combinations(MODES, 2))
FEW_SWITCHES = cases(SWITCHES, lambda case: "wal" in case or case in [
    ("delete", "persist"), ("truncate", "limit"), ("persist", "off"), ("delete", "memory")])


@pytest.mark.parametrize("one, other", SWITCHES)
def test_a_switch_and_the_way_back_keep_every_commit(story, one, other):
    story.execute("PRAGMA page_size=1024")
    to(one)(story)
    story.tell({
        "a table": TABLE,
        "rows": rows(60),
        "there": to(other),
        "written there": "UPDATE t SET n = n + 1; " + rows(5),
        "back": to(one),
        "written again": "DELETE FROM t WHERE id % 2 = 0",
        "there once more": to(other),
        "by the shell": shell("INSERT INTO t(n, body) VALUES (1, 'shell')"),
        "and back": to(one),
        "the last word": "UPDATE t SET n = n + 1",
    })
    story.check()


@pytest.mark.parametrize("one, other", FEW_SWITCHES)
def test_a_switch_under_an_exclusive_lock_keeps_every_commit(story, one, other):
    def under(*steps):
        def take(told):
            locking("exclusive")(told)
            for step in steps:
                told.execute(step) if isinstance(step, str) else step(told)
            told.close()
        return take

    story.execute("PRAGMA page_size=1024")
    story.tell({
        "a table": under(to(one), TABLE, rows(60)),
        "there": under(to(one), "UPDATE t SET n = n + 1", to(other), "UPDATE t SET n = n + 1"),
        "back": under(to(other), rows(5), to(one), rows(5)),
        "there, written before": under(rows(5), to(other)),
        "and back, written after": under(to(one), rows(5)),
    })
    if {one, other} & SILENT:
        story.check()
        return
    locking("exclusive")(story)
    story.tell({
        "held": rows(5),
        "held there": to(other),
        "written there": rows(5),
        "held back": to(one),
        "written again": rows(5),
    })
    story.check()


@pytest.mark.parametrize("one, other", FEW_SWITCHES)
def test_a_switch_with_a_reader_open_keeps_every_commit(story, one, other):
    """SQLite may refuse the switch or the write; what it does not refuse is captured."""
    def attempt(step):
        def take(told):
            told.connection.execute("PRAGMA busy_timeout=50")
            try:
                told.execute(step) if isinstance(step, str) else step(told)
            except (AssertionError, sqlite3.OperationalError):
                if told.connection.in_transaction:
                    told.connection.rollback()
        return take

    def reads(told):
        told.other("reader").execute("BEGIN")
        told.other("reader").execute("SELECT count(*) FROM t").fetchall()

    def there_and_back(number):
        return {
            f"reader {number}": reads,
            f"there {number}": attempt(to(other)),
            f"written {number}": attempt(rows(5)),
            f"no reader {number}": lambda told: told.other("reader").rollback(),
            f"written alone {number}": rows(5),
            f"gone {number}": lambda told: told.close("reader"),
            f"there for sure {number}": to(other),
            f"reader there {number}": reads,
            f"back {number}": attempt(to(one)),
            f"written again {number}": attempt("UPDATE t SET n = n + 1"),
            f"gone again {number}": lambda told: told.close("reader"),
            f"back for sure {number}": to(one),
            f"the last word {number}": rows(5),
        }

    to(one)(story)
    story.tell({"a table": TABLE, "rows": rows(60), **there_and_back(1)})
    story.check()


def test_a_walk_through_all_modes_comes_back_from_s3(s3_bucket, mount, work):
    walk = ["delete", "wal", "truncate", "persist", "wal", "delete", "limit", "truncate", "wal"]
    with mount(s3_bucket, "--upload-interval", "50ms") as data:
        told = Story(data, work / "copies")
        told.tell({"a table": TABLE})
        for number, journal in enumerate(walk):
            told.tell({f"to {journal} {number}": to(journal), f"rows {number}": rows(30),
                       f"change {number}": "UPDATE t SET n = n + 1 WHERE id % 3 = 0"})
        told.tell({"VACUUM": "DELETE FROM t WHERE id % 2; VACUUM"})
        told.close()
        os.unlink(told.path)
        eventually(lambda: told.points()[-1][1] == "drop", 30, "not dropped")
        told.tell({"again": f"PRAGMA page_size=1024; {TABLE}", "the last word": rows(5)})
        told.check(every=5)
