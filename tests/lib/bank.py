"""A client that moves money in one database until it is killed, and notes what it is told.

    bank.py DATABASE NAME NOTES

Each line of NOTES is JSON: what is tried, with an id of its own, and, if COMMIT
returned, its number in the ledger.  The times are of one clock for all clients of a
machine.  Whatever fails is tried again with another id, since it may have happened.
"""
import json
import os
import random
import sqlite3
import sys
import time

ACCOUNTS = 8
SCHEMA = """
CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
CREATE TABLE ledger(seq INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, source, target, amount);
"""


def create(path, journal):
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA journal_mode = {journal}")
    connection.executescript(f"BEGIN; {SCHEMA} COMMIT;")
    connection.execute("INSERT INTO account WITH RECURSIVE s(i) AS (SELECT 0 UNION ALL SELECT i + 1 "
                       f"FROM s WHERE i < {ACCOUNTS - 1}) SELECT i, 1000 FROM s")
    connection.close()


def transfer(connection, name):
    source, target = random.sample(range(ACCOUNTS), 2)
    amount = random.randrange(1, 50)
    connection.execute("BEGIN IMMEDIATE")
    seq = connection.execute("SELECT coalesce(max(seq), 0) + 1 FROM ledger").fetchone()[0]
    connection.execute("UPDATE account SET balance = balance - ? WHERE id = ?", (amount, source))
    connection.execute("UPDATE account SET balance = balance + ? WHERE id = ?", (amount, target))
    connection.execute("INSERT INTO ledger VALUES (?, ?, ?, ?, ?)",
                       (seq, name, source, target, amount))
    connection.execute("COMMIT")
    return seq


def is_mounted(path):
    """What is open under this path is not the plain file below a mount that has ended."""
    plain = os.stat(os.path.dirname(os.path.dirname(path))).st_dev
    for fd in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{fd}") == path and os.fstat(int(fd)).st_dev == plain:
                return False
        except OSError:
            pass
    return True


def work(path, name, note):
    """Until something fails: the connection is of no use after that."""
    connection = sqlite3.connect(f"file:{path}?mode=rw", uri=True, isolation_level=None, timeout=1)
    try:
        connection.execute("SELECT count(*) FROM account").fetchone()
        if not is_mounted(path):
            raise sqlite3.OperationalError("not mounted")
        while True:
            tried = f"{name}-{time.monotonic_ns()}"
            begun = time.monotonic()
            note({"id": tried})
            seq = transfer(connection, tried)
            note({"id": tried, "seq": seq, "begun": begun, "ended": time.monotonic()})
            time.sleep(random.uniform(0, 0.02))
    finally:
        connection.close()


def main(path, name, notes):
    with open(notes, "a", buffering=1, encoding="ascii") as output:
        while True:
            try:
                work(path, name, lambda line: print(json.dumps(line), file=output, flush=True))
            except sqlite3.Error:
                time.sleep(0.05)


if __name__ == "__main__":
    main(*sys.argv[1:])
