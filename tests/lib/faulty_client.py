"""An application on a disk that fails: what each of its steps gets, and how often
something failed, as JSON.

    faulty_client.py DATABASE JOURNAL CONTROL FAULT...

Transactions of three rows, some while the FAULTs (commands of faultfs.c) hold.
Never gives up, and rolls back what failed, as a server would.
"""
import json
import sqlite3
import sys
import time

DATABASE, JOURNAL, CONTROL, *FAULTS = sys.argv[1:]
# For faults in what is done behind the application's back.
PATIENCE_SECONDS = 3


def command(text):
    with open(CONTROL, "wb", buffering=0) as control:
        control.write(text.encode())


def failures():
    with open(CONTROL, encoding="ascii") as control:
        return int(control.read().split()[3])


def transaction(connection, number):
    try:
        connection.execute("BEGIN IMMEDIATE")
        # More pages each time, so that a journal that is kept grows.
        connection.execute("UPDATE t SET body = randomblob(3000)")
        for row in range(3):
            connection.execute("INSERT INTO t VALUES (?, ?, randomblob(3000))", (number, row))
        connection.execute("COMMIT")
        return "ok"
    except sqlite3.Error as error:
        if connection.in_transaction:
            try:
                connection.execute("ROLLBACK")
            except sqlite3.Error as second:
                return f"{error.sqlite_errorname}, then {second.sqlite_errorname}"
        return error.sqlite_errorname


connection = sqlite3.connect(DATABASE, isolation_level=None, timeout=10)
connection.execute("PRAGMA synchronous=FULL")
connection.execute(f"PRAGMA journal_mode={JOURNAL}")
connection.execute("PRAGMA wal_autocheckpoint=10")
connection.execute("CREATE TABLE t(number, row, body)")
outcomes = [transaction(connection, number) for number in range(3)]
for fault in FAULTS:
    command(fault)
outcomes += [transaction(connection, number) for number in range(3, 8)]
deadline = time.monotonic() + PATIENCE_SECONDS
while not failures() and time.monotonic() < deadline:
    time.sleep(0.01)
failed = failures()
command("heal")
outcomes += [transaction(connection, number) for number in range(8, 11)]
connection.close()
print(json.dumps({"outcomes": outcomes, "failed": failed}))
