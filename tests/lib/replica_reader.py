"""An application that only reads, in one of several manners, until stdin ends.

    replica_reader.py MANNER DATABASE QUERY [SECONDS]

QUERY gives a sum that is zero in every committed state and a number that never
goes back.  At the end a line of JSON: how often it asked, the last number, how
often SQLite was busy, and what was wrong.
"""
import contextlib
import json
import select
import sqlite3
import subprocess
import sys
import time

MANNER, DATABASE, QUERY = sys.argv[1:4]
SECONDS = float(sys.argv[4]) if len(sys.argv) > 4 else 0

result = {"manner": MANNER, "asked": 0, "last": 0, "busy": 0, "wrong": []}


def goes_on():
    return len(result["wrong"]) < 10 and not select.select([sys.stdin], [], [], 0)[0]


def connect(timeout=5, mode="rw"):
    connection = sqlite3.connect(f"file:{DATABASE}?mode={mode}", uri=True, isolation_level=None,
                                 timeout=timeout)
    # What is in a cache is not read again.
    connection.execute("PRAGMA cache_size = 1")
    return connection


def note(what):
    result["wrong"].append(str(what))


def judge(total, number):
    result["asked"] += 1
    if total != 0:
        note(f"the sum is {total} at {number}")
    if number < result["last"]:
        note(f"{number} after {result['last']}")
    result["last"] = number


def ask(connection):
    judge(*connection.execute(QUERY).fetchone())


def forever(connection):
    while goes_on():
        ask(connection)
        time.sleep(0.001)


def mmap():
    connection = connect()
    connection.execute("PRAGMA mmap_size = 268435456")
    forever(connection)


def impatient():
    """Without any timeout: how often is SQLite busy?"""
    connection = connect(timeout=0)
    while goes_on():
        try:
            ask(connection)
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            result["busy"] += 1
        time.sleep(0.001)


def snapshot():
    """Held for a while, it stays as it was."""
    connection = connect()
    while goes_on():
        connection.execute("BEGIN")
        first = connection.execute(QUERY).fetchone()
        judge(*first)
        until = time.monotonic() + SECONDS
        while time.monotonic() < until and goes_on():
            if connection.execute(QUERY).fetchone() != first:
                note(f"a snapshot changed at {first}")
            time.sleep(0.02)
        connection.execute("COMMIT")


def slow():
    """One statement that takes its time: its rows are of one state."""
    connection = connect()
    while goes_on():
        total = number = 0
        rows = connection.execute("SELECT v, (SELECT n FROM counter) FROM a UNION ALL "
                                  "SELECT v, (SELECT n FROM counter) FROM b")
        for count, (value, now) in enumerate(rows):
            total += value
            number = number or now
            if now != number:
                note(f"a statement sees {number} and {now}")
            if count % 50 == 0:
                time.sleep(0.005)
        judge(total, number)


def reopen():
    while goes_on():
        connection = connect()
        ask(connection)
        connection.close()


def comes_and_goes():
    """The database may not be there, or not be filled yet, or go while it is being opened.

    Then SQLite, which asks for the mode that a -wal should have, finds no file.
    """
    while goes_on():
        try:
            with contextlib.closing(connect()) as connection:
                ask(connection)
        except sqlite3.OperationalError as error:
            if ("unable to open" not in str(error) and "no such table" not in str(error)
                    and error.sqlite_errorname != "SQLITE_IOERR_FSTAT"):
                raise
        time.sleep(0.005)


def integrity():
    connection = connect()
    while goes_on():
        answer = connection.execute("PRAGMA integrity_check").fetchall()
        if answer != [("ok",)]:
            note(answer)
        ask(connection)


def shell():
    while goes_on():
        text = subprocess.run(["sqlite3", "-cmd", ".timeout 5000", DATABASE, QUERY], text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if text.returncode or text.stderr:
            note(text.stderr)
        else:
            judge(*map(int, text.stdout.split("|")))


MANNERS = {
    "short": lambda: forever(connect()), "readonly": lambda: forever(connect(mode="ro")),
    "mmap": mmap, "impatient": impatient, "snapshot": snapshot, "slow": slow, "reopen": reopen,
    "comes-and-goes": comes_and_goes, "integrity": integrity, "shell": shell,
}

try:
    MANNERS[MANNER]()
except sqlite3.Error as failure:
    note(f"{type(failure).__name__}: {failure} ({failure.sqlite_errorname})")
print(json.dumps(result))
