"""What was done to the files while nothing was mounted is right after the next mount."""
import json
import pathlib
import shutil
import sqlite3
import sys

import pytest

import harness
from crash import Past
from harness import assert_intact, assert_same_bytes, copy_at_rest, litebucket, restore, sync

# Ends in the middle of a transaction whose pages have gone to the file, or
# behind commits that only the WAL has.
ENDS_ABRUPTLY = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(f"PRAGMA journal_mode={sys.argv[2]}")
connection.execute("PRAGMA cache_size=5")
connection.execute("CREATE TABLE IF NOT EXISTS t(n, body)")
for n in range(10):
    connection.execute("INSERT INTO t VALUES (?, randomblob(3000))", (n,))
if sys.argv[3] == "hot":
    connection.execute("BEGIN")
    connection.execute("UPDATE t SET body = randomblob(5000)")
os._exit(0)
"""


def abruptly(database, journal, how="committed"):
    harness.run(sys.executable, "-c", ENDS_ABRUPTLY, database, journal, how)


def sql(database, *statements):
    connection = sqlite3.connect(database, isolation_level=None)
    for statement in statements:
        connection.execute(statement).fetchall()
    connection.close()


def siblings(database):
    return [path for path in (pathlib.Path(f"{database}{suffix}") for suffix in ("-wal", "-shm", "-journal"))
            if path.exists()]


def remove(database):
    for path in [database, *siblings(database)]:
        path.unlink()


def another(path, page_size=4096, rows=50):
    sql(path, f"PRAGMA page_size={page_size}", "CREATE TABLE other(n, body)",
        f"WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < {rows}) "
        "INSERT INTO other SELECT i, randomblob(900) FROM c")
    return path


def replace(database, **options):
    remove(database)
    another(database, **options)


def replace_by_rename(database):
    other = another(database.with_name("other.tmp"))
    for path in siblings(database):
        path.unlink()
    other.rename(database)


def overwrite(database):
    """The same inode with other bytes, as cp does it; its WAL is void."""
    other = another(database.with_name("other.tmp"), rows=500)
    for path in siblings(database):
        path.unlink()
    database.write_bytes(other.read_bytes())
    other.unlink()


def lose_wal(database):
    for path in siblings(database):
        path.unlink()


# name: (journal mode before, what is done to it, is it still there?)
CHANGES = {
    "rows": ("delete", lambda db: sql(db, "INSERT INTO t VALUES (1, randomblob(9000))"), True),
    "wal rows": ("wal", lambda db: sql(db, "INSERT INTO t VALUES (1, randomblob(9000))"), True),
    "vacuumed": ("delete", lambda db: sql(db, "DELETE FROM t WHERE n > 2", "VACUUM"), True),
    "page size": ("delete", lambda db: sql(db, "PRAGMA page_size=1024", "VACUUM"), True),
    "page size of wal": ("wal", lambda db: sql(db, "PRAGMA journal_mode=delete", "PRAGMA page_size=8192",
                                               "VACUUM", "PRAGMA journal_mode=wal"), True),
    "to wal": ("delete", lambda db: sql(db, "PRAGMA journal_mode=wal", "DELETE FROM t WHERE n = 3"), True),
    "from wal": ("wal", lambda db: sql(db, "PRAGMA journal_mode=delete"), True),
    "wal left": ("wal", lambda db: abruptly(db, "wal"), True),
    "new wal left": ("delete", lambda db: abruptly(db, "wal"), True),
    "hot journal": ("delete", lambda db: abruptly(db, "delete", "hot"), True),
    "hot persist": ("persist", lambda db: abruptly(db, "persist", "hot"), True),
    "wal half way": ("wal", lambda db: abruptly(db, "wal", "hot"), True),
    "wal lost": ("wal", lose_wal, True),
    "replaced": ("delete", replace, True),
    "replaced wal": ("wal", replace, True),
    "other page size": ("wal", lambda db: replace(db, page_size=512), True),
    "renamed over": ("wal", replace_by_rename, True),
    "overwritten": ("wal", overwrite, True),
    "deleted": ("delete", remove, False),
    "deleted wal": ("wal", remove, False),
    "emptied": ("delete", lambda db: db.write_bytes(b""), False),
    "no database": ("delete", lambda db: db.write_bytes(b"just a text\n" * 1000), False),
    "renamed": ("delete", lambda db: db.rename(db.with_name("renamed.to.db")), False),
    "nothing": ("wal", lambda db: None, True),
}


def check_live(bucket, past, work, database):
    sync(database)
    expected = copy_at_rest(database, work / "expected")
    assert_intact(expected)
    past.database = database.name
    assert_same_bytes(past.restored(), expected)


def check_every_state(past, most):
    """Each TXID restores to some committed state; which, the tables say."""
    past.checked = set()
    past.check_states(most, lambda state: True)


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_what_was_done_while_nothing_was_mounted_is_caught_up(file_bucket, mount, work, soak, end):
    past = Past(file_bucket, work)
    data = mount(file_bucket)
    with data:
        for name, (journal, _, _) in CHANGES.items():
            abruptly(data / name, journal)
            sync(data / name)
        past.see()
        data.stop() if end == "stopped" else data.kill()
        data.unmount()
        for name, (_, change, _) in CHANGES.items():
            change(data.directory / name)
        data.start()
        wrong = {}
        for name, (_, _, is_there) in CHANGES.items():
            try:
                if is_there:
                    check_live(file_bucket, past, work, data / name)
                past.database = name
                check_every_state(past, soak(3, 50))
            except AssertionError as error:
                wrong[name] = str(error)
        assert not wrong, "\n".join(f"{k}: {v[-300:]}" for k, v in wrong.items())
        check_live(file_bucket, past, work, data / "renamed.to.db")
        dropped = {name for name, (_, _, is_there) in CHANGES.items() if not is_there}
    past.see()
    for name in dropped:
        result = litebucket("restore", "-o", work / "dropped", file_bucket.url_of(name), check=False)
        assert result.returncode != 0 and not (work / "dropped").exists(), name


def state_of(directory, name):
    """Its directory below .litebucket."""
    for path in (directory / ".litebucket" / "db").iterdir():
        if (path / "name").read_text().rstrip("\n") == name:
            return path
    raise AssertionError(f"no state of {name}")


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_a_state_directory_that_is_another_databases_is_not_believed(file_bucket, mount, work, end):
    past = Past(file_bucket, work)
    data = mount(file_bucket, "--upload-interval", "20ms")
    with data:
        for name in ("one", "two", "three"):
            abruptly(data / name, "wal")
            sync(data / name)
        past.see()
        data.stop() if end == "stopped" else data.kill()
        data.unmount()
        one, two = (state_of(data.directory, name) for name in ("one", "two"))
        two.rename(work / "two.kept")
        shutil.copytree(one, two)
        data.start()
        for name in ("one", "three"):
            check_live(file_bucket, past, work, data / name)
        result = litebucket("sync", data / "two", check=False)
        assert result.returncode == 1 and "another database's" in result.stderr, result.stderr
        told = {each["path"]: each["error"]
                for each in json.loads(litebucket("status", "--json", data.point).stdout)["databases"]}
        assert "another database's" in told["two"] and not told["one"] and not told["three"], told
        data.wait_for_log("db=two .*another database's")
        # With its own it goes on.
        data.kill()
        data.unmount()
        shutil.rmtree(two)
        (work / "two.kept").rename(two)
        data.start()
        check_live(file_bucket, past, work, data / "two")
    past.see()
