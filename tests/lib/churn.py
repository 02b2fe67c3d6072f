"""Databases that come, are renamed and go, until that fails.

    churn.py DIRECTORY
"""
import itertools
import os
import sqlite3
import sys
import time

DIRECTORY = sys.argv[1]


def path(name):
    return os.path.join(DIRECTORY, name)


def commit(name, statement):
    connection = sqlite3.connect(path(name), isolation_level=None)
    try:
        connection.execute("CREATE TABLE IF NOT EXISTS t(n, body)")
        connection.execute(statement)
    finally:
        connection.close()


def turn(number):
    commit("side.db", f"INSERT INTO t VALUES ({number}, randomblob(2000))")
    if number % 3 == 0:
        commit("side.db", "VACUUM")
    if number % 4 == 1:
        os.rename(path("side.db"), path("moved.db"))
    if number % 4 == 3:
        os.unlink(path("moved.db"))
    # What comes and goes faster than the catalog is written is not in it.
    if number % 20 in (1, 3):
        time.sleep(1.3)


for each in itertools.count():
    try:
        turn(each)
    except FileNotFoundError:
        pass
    except (OSError, sqlite3.Error) as error:
        sys.exit(f"churn: {error}")
