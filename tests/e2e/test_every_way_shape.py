"""Shapes of databases, and all that SQLite does to them: every state comes back."""
import contextlib
import itertools
import os
import sqlite3
import subprocess

import pytest

from every_way import (TABLE, Story, cases, closed, execute, fails, mode, pragma, rows, shell,
                       unfinished)
from harness import LITEBUCKET, STEP_SECONDS, eventually, run, sync

ROLLBACK = ["delete", "truncate", "persist"]
JOURNALS = [*ROLLBACK, "wal"]


@pytest.mark.parametrize("journal, page_size", cases(
    itertools.product(["delete", "wal"], [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]),
    lambda case: case[0] == "delete" or case[1] in (512, 65536)))
def test_every_page_size_comes_back(story, journal, page_size):
    story.execute(f"PRAGMA page_size={page_size}")
    story.tell({
        "mode and table": lambda s: (mode(journal)(s), s.execute(TABLE)),
        "rows": rows(200),
        "large values": rows(4, 3 * page_size),
        "an index": "CREATE INDEX t_n ON t(n, body)",
        "rows go": "DELETE FROM t WHERE id > 20",
        "VACUUM": "VACUUM",
        "the last word": rows(1),
    })
    story.check()


# VACUUM


@pytest.mark.parametrize("journal", JOURNALS)
def test_a_vacuum_that_takes_away_hundreds_of_pages_comes_back(story, journal):
    story.execute("PRAGMA page_size=512")
    story.tell({
        "mode and table": lambda s: (mode(journal)(s), s.execute(TABLE)),
        "2,000 pages": rows(1800, 450),
        "most rows go": "DELETE FROM t WHERE id > 100",
        "VACUUM": "VACUUM",
        "grows again": rows(1500, 450),
        "all rows go": "DELETE FROM t",
        "to almost nothing": "VACUUM",
        "checkpoint": "PRAGMA wal_checkpoint(TRUNCATE)",
        "the last word": rows(1),
    })
    story.check()


@pytest.mark.parametrize("journal", ROLLBACK)
def test_a_vacuum_into_another_page_size_comes_back(story, journal):
    def into(page_size):
        return lambda s: s.execute(f"PRAGMA page_size={page_size}; VACUUM")

    def is_now(page_size):
        def take(told):
            assert told.execute("PRAGMA page_size") == (page_size,)
        return take

    story.execute("PRAGMA page_size=4096")
    story.tell({
        "mode and table": lambda s: (mode(journal)(s), s.execute(TABLE)),
        "rows": rows(300),
        "to 512": into(512), "is 512": is_now(512), "written at 512": rows(50),
        "to 65536": into(65536), "is 65536": is_now(65536), "written at 65536": rows(50),
        "to 1024": into(1024), "is 1024": is_now(1024),
        "and into WAL": mode("wal"), "rows in WAL": rows(10),
        "out of WAL": mode(journal), "rows after": rows(10),
    })
    story.check()


def test_another_page_size_has_no_effect_in_wal_mode(story):
    story.tell({
        "WAL": mode("wal"),
        "a table": TABLE,
        "rows": rows(300),
        "VACUUM": "PRAGMA page_size=512; VACUUM",
        "the last word": rows(10),
    })
    assert story.execute("PRAGMA page_size") == (4096,)
    story.check()


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_vacuum_into_a_new_file_of_the_mount_makes_a_database_of_its_own(story, table_mount,
                                                                         tmp_path, journal):
    story.tell({
        "mode and table": lambda s: (mode(journal)(s), s.execute(TABLE)),
        "rows": rows(500),
        "VACUUM INTO": lambda s: s.execute(f"VACUUM INTO '{s.path}.into'"),
        "the last word": rows(10),
    })
    into = Story(table_mount, tmp_path / "into", f"{story.name}.into")
    into.rest("VACUUM INTO")
    into.tell({"written": "DELETE FROM t WHERE id % 2 = 0", "VACUUM": "VACUUM"})
    story.check()
    into.check()


@pytest.mark.parametrize("journal", JOURNALS)
def test_auto_vacuum_comes_back(story, journal):
    story.execute("PRAGMA page_size=512; PRAGMA auto_vacuum=FULL")
    story.tell({
        "mode and table": lambda s: (mode(journal)(s), s.execute(TABLE)),
        "rows": rows(600, 400),
        "rows go": "DELETE FROM t WHERE id % 3 > 0",
        "a table goes": "CREATE TABLE u AS SELECT * FROM t; DROP TABLE t",
        "incremental": "PRAGMA auto_vacuum=INCREMENTAL; DELETE FROM u WHERE id > 20",
        "some pages": "PRAGMA incremental_vacuum(10)",
        "all pages": "PRAGMA incremental_vacuum",
        "none": "PRAGMA auto_vacuum=NONE; VACUUM",
        "the last word": "DELETE FROM u",
    })
    story.check()


# Sizes


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_pages_that_sqlite_never_wrote_come_back(story, journal):
    """A large zeroblob, its removal, and growth by a rollback's leftovers."""
    story.execute("PRAGMA page_size=1024")
    story.tell({
        "mode and table": lambda s: (mode(journal)(s), s.execute(TABLE)),
        "a large zeroblob": "INSERT INTO t(n, body) VALUES (1, zeroblob(2000000))",
        "goes, and a row comes": f"BEGIN; DELETE FROM t; {rows(1)}; COMMIT",
        "grown and given up": "PRAGMA cache_size=5; BEGIN;"
                              "INSERT INTO t(n, body) VALUES (2, zeroblob(4000000)); ROLLBACK",
        "grown and shrunk at once": "BEGIN; CREATE TABLE u(a); INSERT INTO u VALUES"
                                    "(zeroblob(3000000)); DROP TABLE u; COMMIT",
        "a small row": rows(1),
        "free pages used again": rows(300, 900),
        "VACUUM": "VACUUM",
    })
    story.check()


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_a_database_of_one_page_comes_back(story, page_size):
    story.execute(f"PRAGMA page_size={page_size}")
    story.tell({
        "one page": "PRAGMA user_version=1",
        "again": "PRAGMA user_version=2",
        "in WAL mode": mode("wal"),
        "in the WAL": "PRAGMA user_version=3",
        "back": mode("delete"),
        "VACUUM": "VACUUM",
    })
    assert story.path.stat().st_size == page_size
    story.check()


def test_an_empty_file_is_no_database_until_something_is_in_it(story, table_mount):
    story.execute("PRAGMA journal_mode=DELETE")
    story.path.touch()
    empty = run(LITEBUCKET, "sync", story.path, check=False)
    assert empty.returncode != 0 and "not a database" in empty.stderr
    story.tell({"a table": TABLE, "rows": rows(3)})
    story.close()
    os.truncate(story.path, 0)
    eventually(lambda: story.points()[-1][1] == "drop", 30, "an emptied database is not dropped")
    story.tell({"again": TABLE, "more rows": rows(5)})
    story.check()


@pytest.mark.parametrize("journal", JOURNALS)
def test_memory_mapped_databases_come_back(story, journal):
    story.tell({
        "mode and table": lambda s: (mode(journal)(s), s.execute(TABLE)),
        "rows": rows(500),
        "mapped": pragma("mmap_size", 1 << 28, 1 << 28),
        "read": lambda s: s.execute("SELECT sum(n) FROM t"),
        "update": "UPDATE t SET n = n + 1",
        "shrink": "DELETE FROM t WHERE id > 10; VACUUM",
        "grow": rows(1000),
        "a second connection sees": lambda s: execute(
            s.other("mapped"), "PRAGMA mmap_size=268435456; SELECT sum(n) FROM t"),
        "update again": "UPDATE t SET n = n + 1",
    })
    assert (story.other("mapped").execute("SELECT sum(n) FROM t").fetchone()
            == story.execute("SELECT sum(n) FROM t"))
    story.check()


@pytest.mark.more
def test_a_database_that_crosses_1_gib_comes_back(story, soak):
    """SQLite never uses the page at 1 GiB, where its locks are."""
    story.execute("PRAGMA page_size=65536; PRAGMA synchronous=OFF")
    story.step("a table", TABLE)
    # Most of the file is a hole below: what is there is written around 1 GiB.
    half = (1 << 29) - (20 << 16)
    story.step("almost 1 GiB", unfinished(
        f"INSERT INTO t(n, body) VALUES (0, zeroblob({half})), (0, zeroblob({half}))"))
    story.step("across", rows(60, 65000))
    assert story.path.stat().st_size > (1 << 30) + (1 << 16)
    story.tell({
        "in WAL mode": mode("wal"),
        "beyond": rows(10, 65000),
        "changed": "UPDATE t SET n = n + 1",
    })
    if soak(0, 10) == 10:
        story.tell({"back": mode("delete"), "VACUUM": "DELETE FROM t WHERE id = 1; VACUUM"})
    story.check()


# Transactions


@pytest.mark.parametrize("journal", JOURNALS)
def test_savepoints_and_spilled_caches_come_back(story, journal):
    spill = f"PRAGMA cache_size=5; BEGIN; {rows(500, 300)}; UPDATE t SET n = n + 1;"
    story.execute("PRAGMA page_size=1024")
    story.tell({
        "mode and table": lambda s: (mode(journal)(s), s.execute(TABLE)),
        "rows": rows(50),
        "rolled back to": f"SAVEPOINT a; {rows(30)}; SAVEPOINT b; DELETE FROM t; ROLLBACK TO b;"
                          "UPDATE t SET n = 3 WHERE id = 3; RELEASE a",
        "all rolled back": "SAVEPOINT a; DELETE FROM t; ROLLBACK TO a; RELEASE a",
        "spilled": f"{spill} COMMIT",
        "spilled and rolled back": f"{spill} ROLLBACK",
        "spilled and rolled back to":
            f"{spill} SAVEPOINT a; DELETE FROM t; {rows(900, 300)}; ROLLBACK TO a; COMMIT",
        "a statement fails": fails(
            "INSERT INTO t(id, n) SELECT 100000 + id, n FROM t UNION ALL SELECT 1, 1",
            "UNIQUE constraint"),
        "the last word": rows(2),
    })
    story.check()


@pytest.mark.parametrize("journal", JOURNALS)
def test_what_is_committed_comes_back_while_the_next_transaction_is_open(story, journal):
    story.execute("PRAGMA page_size=1024")
    story.tell({
        "mode and table": lambda s: (mode(journal)(s), s.execute(TABLE)),
        "rows": rows(50),
        "half a transaction": unfinished(
            f"PRAGMA cache_size=5; BEGIN IMMEDIATE; {rows(500, 300)}"),
    })
    before = story.txid
    assert sync(story.path) == before, "a part of a transaction got a TXID"
    story.step("its end", "COMMIT")
    assert story.txid != before
    story.check()


def attached(story, table_mount, tmp_path, journals):
    """The story's database and others, in one connection."""
    others = []
    for number, journal in enumerate(journals[1:]):
        name = f"{story.name}-{number}.db"
        other = Story(table_mount, tmp_path / name, name)
        story.execute(f"ATTACH '{other.path}' AS a{number}")
        others.append(other)
    for schema, journal in zip(["main", "a0", "a1"], journals):
        story.execute(f"PRAGMA {schema}.journal_mode={journal}")
        story.execute(f"CREATE TABLE {schema}.{'t' if schema == 'main' else schema}_"
                      "(id INTEGER PRIMARY KEY, n, body)")
    return others


@pytest.mark.parametrize("journals", [
    ("delete", "delete"), ("truncate", "truncate", "persist"), ("persist", "delete", "truncate"),
    ("wal", "wal", "wal"), ("delete", "wal", "persist"), ("memory", "delete", "delete"),
], ids="-".join)
def test_a_transaction_over_several_databases_comes_back_in_each(story, table_mount, tmp_path,
                                                                 journals):
    others = attached(story, table_mount, tmp_path, journals)
    tables = ["t_", "a0_", "a1_"][:len(journals)]
    insert = ";".join(rows(30, 200, table) for table in tables)
    for number, end in enumerate(["COMMIT", "ROLLBACK", "COMMIT"]):
        story.execute(f"BEGIN; {insert}; UPDATE t_ SET n = n + 1; {end}")
        for told in (story, *others):
            told.rest(f"{end} {number}")
    story.execute(f"PRAGMA cache_size=5; PRAGMA a0.cache_size=5; BEGIN; "
                  f"{';'.join(rows(900, 300, table) for table in tables)}; COMMIT")
    for told in (story, *others):
        told.rest("spilled")
    story.close()
    for told in (story, *others):
        told.check()
        assert {kind for _, kind in told.points()} == {"batch"}
    # The super-journal is no database.
    assert not list(table_mount.bucket.directory.glob("*-mj*"))


# Copies


@pytest.mark.parametrize("over", ["nothing", "a smaller one", "a larger one", "one in WAL mode",
                                  "another page size"])
def test_the_backup_api_into_the_mount_comes_back(story, tmp_path, over):
    source = sqlite3.connect(tmp_path / "source.db", isolation_level=None)
    execute(source, f"{TABLE}; {rows(400, 300)}")
    before = {"a smaller one": rows(10), "a larger one": rows(2000, 300),
              "one in WAL mode": f"PRAGMA journal_mode=WAL; {rows(100)}",
              "another page size": rows(100)}
    if over != "nothing":
        size = 1024 if over == "another page size" else 4096
        story.step("before", f"PRAGMA page_size={size}; {TABLE}; {before[over]}")

    def backup(told):
        # SQLite refuses another page size where there is a WAL.
        source.backup(told.connection, pages=20)

    story.tell({
        "backup": closed(backup),
        "written": rows(20),
        "backup again": lambda s: (execute(source, "UPDATE t SET n = n + 1"), backup(s)),
        "the last word": rows(1),
    })
    source.close()
    story.check()


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_the_shells_restore_backup_clone_and_dump_come_back(story, table_mount, tmp_path, journal):
    outside = tmp_path / "outside.db"
    run("sqlite3", outside, f"{TABLE}; {rows(300)};")
    story.tell({
        "mode and table": lambda s: (mode(journal)(s), s.execute(TABLE)),
        "rows": rows(20),
        "restored": closed(lambda s: run("sqlite3", "-bail", s.path, f".restore {outside}")),
        "written": rows(20),
    })
    copies = []
    for verb in ("backup", "clone"):
        name = f"{story.name}.{verb}"
        run("sqlite3", "-bail", story.path, f".{verb} {table_mount / name}")
        copies.append(Story(table_mount, tmp_path / name, name))
    name = f"{story.name}.dump"
    dump = run("sqlite3", "-bail", story.path, ".dump").stdout
    subprocess.run(["sqlite3", "-bail", table_mount / name], input=dump, text=True, check=True,
                   timeout=STEP_SECONDS)
    copies.append(Story(table_mount, tmp_path / name, name))
    for told in copies:
        told.rest("made")
        told.tell({"written": "UPDATE t SET n = n + 1"})
        told.check()
    story.check()


@pytest.mark.parametrize("target, how", cases(
    itertools.product(["new", "rollback", "wal"],
                      ["cp", "cat", "dd", "rsync", "rsync --inplace", "mv", "install",
                       "rsync --inplace --no-whole-file", "cp --remove-destination"]),
    lambda case: case[0] == "wal" or case[1] in ("cp", "rsync")))
def test_a_database_that_is_copied_in_comes_back(story, tmp_path, how, target):
    """Also over a live one, whose connections are closed, as the program's manual asks."""
    source = tmp_path / "source.db"
    run("sqlite3", source, f"PRAGMA page_size=1024; {TABLE}; {rows(700, 500)};")

    def copy(told):
        words = how.split()
        if how == "cat":
            run("sh", "-c", f"cat '{source}' > '{told.path}'")
        elif how == "dd":
            run("dd", f"if={source}", f"of={told.path}", "bs=3000")
        elif how == "mv":
            run("cp", source, f"{source}2")
            run("mv", f"{source}2", told.path)
        else:
            run(*words, source, told.path)

    if target != "new":
        story.tell({
            "before": closed(f"PRAGMA journal_mode={'wal' if target == 'wal' else 'delete'};"
                             f"{TABLE}; {rows(1200, 500)}"),
        })
    story.tell({
        "copied": copy,
        "written": rows(10),
        "closed": closed("UPDATE t SET n = n + 1"),
        "source changes": lambda s: run("sqlite3", source, "UPDATE t SET n = 8 WHERE id = 600"),
        "copied again": copy,
        "the last word": rows(10),
    })
    story.check()


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_pages_that_are_edited_from_outside_come_back(story, tmp_path, journal):
    """dd, truncate and a hole: the copy is what the file says, sound or not."""
    def edit(page):
        def take(told):
            run("dd", "if=/dev/urandom", f"of={told.path}", "bs=1024", f"seek={page - 1}",
                "count=1", "conv=notrunc")
        return take

    story.execute("PRAGMA page_size=1024")
    story.tell({
        "a table": closed(f"PRAGMA journal_mode={journal}; {TABLE}; {rows(400, 300)}"),
        "free pages": closed("DELETE FROM t WHERE id > 100"),
        # A leaf of the free list holds nothing that SQLite looks at.
        "dd on a free page": lambda s: edit(free_leaf(s.path))(s),
        "written": closed(rows(3)),
        "truncated and back": closed(lambda s: None),
        "VACUUM": closed("VACUUM"),
    })
    story.check()


def free_leaf(path):
    """The number of a leaf page of the free list."""
    with open(path, "rb") as file:
        data = file.read()
    size = int.from_bytes(data[16:18], "big")
    trunk = int.from_bytes(data[32:36], "big")
    at = (trunk - 1) * size
    assert trunk and int.from_bytes(data[at + 4:at + 8], "big"), "no free leaf"
    return int.from_bytes(data[at + 8:at + 12], "big")


def test_truncate_1_cuts_and_lengthens_and_what_is_sound_comes_back(story):
    story.execute("PRAGMA page_size=1024")
    story.tell({"a table": closed(f"{TABLE}; {rows(400, 300)}")})
    whole = story.path.read_bytes()
    size = len(whole)
    run("truncate", "-s", f"+{10 * 1024}", story.path)
    # What is behind the end that the header tells is no part of the database.
    assert sync(story.path) == story.txid
    run("truncate", "-s", str(size), story.path)
    story.rest("as long as it says")
    run("truncate", "-s", str(size // 2), story.path)
    with open(story.path, "r+b") as file:
        file.seek(size // 2)
        file.write(whole[size // 2:])
    story.rest("cut and mended")
    story.tell({"the last word": closed(rows(3))})
    with contextlib.suppress(sqlite3.Error):
        story.connection.execute("PRAGMA integrity_check")
    story.check()
