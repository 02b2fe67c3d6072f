"""Names: databases that come, go, move and are replaced, and files that are none."""
import ctypes
import errno
import itertools
import os
import pathlib
import shutil
import sqlite3
import subprocess

import pytest

from every_way import TABLE, Story, cases, closed, execute, mode, rows
from harness import LITEBUCKET, STEP_SECONDS, eventually, run, sync

FILLED = f"{TABLE}; {rows(60, 200)}"


place_numbers = itertools.count(1)


@pytest.fixture
def place(table_mount, tmp_path):
    """place(name): the story of a name below a directory of this test."""
    directory = f"place-{next(place_numbers)}"
    (table_mount / directory).mkdir()
    stories = []

    def make(name):
        told = Story(table_mount, tmp_path / f"copies-{len(stories)}", f"{directory}/{name}")
        stories.append(told)
        return told

    make.directory = table_mount / directory
    yield make
    for told in stories:
        told.close_all()
    shutil.rmtree(tmp_path, ignore_errors=True)


def filled(place, name, *more):
    told = place(name)
    told.tell({"filled": FILLED})
    told.tell({step: step for step in more})
    told.close()
    return told


def kinds(told):
    return [kind for _, kind in told.points()]


def dropped(told):
    """Its log ends with a drop (soon), and what was before comes back."""
    eventually(lambda: kinds(told)[-1] == "drop", 30, lambda: f"{told.name}: {kinds(told)}")
    told.check()


# Names


NAMES = [
    "with spaces.db", "Ünï ☃ cödé.db", "a=b=3D.db", "100%41.db", "-rf", "--help",
    "n" * 200, "new\nline.db", "tab\tand\\back", "quo'te\"s.db", "lock.json", "catalog.json",
    "0001", "00ff", "ltx", "staged", "generations", "no-ending", "a#b?c&d;e.db", ".hidden",
    "name-wal", "name-shm", "name-journal", "a-journal-wal", "-wal", "x.db-", "*", "~",
    "ends with dot.", "a,b.db", "0000000000000001-0000000000000001.ltx", "position",
]


@pytest.mark.parametrize("journal, name", cases(
    itertools.product(["delete", "wal"], NAMES),
    lambda case: case[0] == "delete" or case[1] in ("Ünï ☃ cödé.db", "name-wal", "new\nline.db")),
    ids=lambda text: ascii(text[:20]))
def test_a_database_of_any_name_comes_back(place, name, journal):
    told = place(name)
    told.tell({
        "mode and table": lambda s: (mode(journal)(s), s.execute(TABLE)),
        "rows": rows(20),
        "more": closed(rows(20)),
        "again": rows(1),
    })
    told.check()


def test_names_below_names_come_back(place):
    for name in ("a/b/c/deep.db", "0000/ltx/0001", "ltx/0/x", "lock.json/catalog.json",
                 "dir with space/ünï/=.db", "x-wal/y-shm/z-journal"):
        told = place(name)
        told.path.parent.mkdir(parents=True)
        told.tell({"wal": closed(f"PRAGMA journal_mode=WAL; {FILLED}"), "more": rows(3)})
        told.check()


def test_a_name_too_long_for_a_key_is_refused_by_sync_and_named_by_status(place):
    told = place("ü" * 100)
    told.execute(FILLED)
    told.close()
    asked = run(LITEBUCKET, "sync", told.path, check=False)
    assert asked.returncode == 1 and "too long" in asked.stderr
    status = run(LITEBUCKET, "status", told.mount.point).stdout
    assert "too long" in status
    os.unlink(told.path)


# Going and coming back


@pytest.mark.parametrize("journal", ["delete", "truncate", "persist", "wal"])
def test_an_unlink_is_a_drop_and_the_name_comes_back_behind_it(place, journal):
    told = filled(place, "app.db", f"PRAGMA journal_mode={journal}", rows(5))
    for page_size in (512, 65536, 4096):
        for suffix in ("", "-wal", "-shm", "-journal"):
            pathlib.Path(f"{told.path}{suffix}").unlink(missing_ok=True)
        dropped(told)
        told.tell({
            "page size": closed(f"PRAGMA page_size={page_size}; PRAGMA journal_mode={journal};"
                                f"{FILLED}"),
            "written": rows(5),
        })
        assert told.path.read_bytes()[16:18] == (page_size % 65535).to_bytes(2, "big")
        told.close()
    told.check()
    assert kinds(told).count("drop") == 3


def test_the_last_commit_before_an_unlink_is_in_the_log(place):
    told = filled(place, "app.db", "PRAGMA journal_mode=WAL")
    told.execute(rows(7))
    expected = told.execute("SELECT count(*) FROM t")
    # Not closed, so that nothing is checkpointed; not synced.
    told.own, held = None, told.own
    os.unlink(told.path)
    dropped(told)
    held.close()
    before_drop = told.points()[-2][0]
    run(LITEBUCKET, "restore", "--txid", before_drop, "-o", told.work / "last",
        told.mount.bucket.url_of(told.name))
    last = sqlite3.connect(told.work / "last")
    assert last.execute("SELECT count(*) FROM t").fetchone() == expected
    last.close()


def hold(told, journal):
    """A connection that has written, in this mode."""
    held = told.connect()
    mode, *exclusive = journal.split()
    if exclusive:
        # Its journal stays open.
        execute(held, "PRAGMA locking_mode=EXCLUSIVE")
    execute(held, f"PRAGMA journal_mode={mode}; {rows(5)}")
    return held


def goes_on(held, script):
    """SQLite itself refuses to begin a journal where the file's name has gone."""
    try:
        execute(held, script)
        return True
    except sqlite3.OperationalError as refused:
        assert "readonly" in str(refused) or "disk I/O error" in str(refused)
        return False


GO_ON = ["memory", "off", "wal", "truncate exclusive", "persist exclusive"]
STOPS = ["delete", "truncate", "persist"]


@pytest.mark.parametrize("journal", GO_ON + STOPS)
def test_what_is_written_to_an_unlinked_database_changes_nothing(place, journal):
    told = filled(place, "app.db")
    held = hold(told, journal)
    told.rest("held open")
    os.unlink(told.path)
    dropped(told)
    points = told.points()
    assert goes_on(held, rows(5)) == (journal in GO_ON)
    goes_on(held, "PRAGMA integrity_check")
    held.close()
    assert told.points() == points
    for suffix in ("-journal", "-wal", "-shm"):
        pathlib.Path(f"{told.path}{suffix}").unlink(missing_ok=True)
    # A new one of that name has nothing of the old.
    told.tell({"new": closed(f"PRAGMA journal_mode={journal.split()[0]}; {FILLED}")})
    assert kinds(told)[:len(points)] == [kind for _, kind in points]
    told.check()


@pytest.mark.parametrize("journal", GO_ON + STOPS)
def test_two_databases_of_one_name_one_of_them_unlinked_do_not_mix(place, journal):
    told = filled(place, "app.db")
    old = hold(told, journal)
    told.rest("held open")
    execute(old, "BEGIN IMMEDIATE; UPDATE t SET n = -1")
    for suffix in ("", "-journal", "-wal", "-shm"):
        pathlib.Path(f"{told.path}{suffix}").unlink(missing_ok=True)
    told.tell({"new": closed(FILLED)})
    goes_on(old, "COMMIT")
    told.tell({"written": rows(5)})
    goes_on(old, rows(500, 300))
    told.tell({"written again": "UPDATE t SET n = n + 1"})
    old.close()
    told.check()


# Renames


def test_a_rename_drops_the_old_name_and_brings_all_under_the_new(place):
    old, new = filled(place, "old.db", rows(5)), place("new.db")
    os.rename(old.path, new.path)
    new.rest("renamed")
    dropped(old)
    new.tell({"written": rows(5), "VACUUM": "DELETE FROM t WHERE id % 2; VACUUM"})
    new.check()
    # And the old name is free for another.
    old.tell({"another": closed(f"PRAGMA page_size=1024; {FILLED}")})
    old.check()
    new.rest("unchanged")
    new.check()


@pytest.mark.parametrize("journal", ["delete", "truncate", "persist", "wal"])
def test_a_database_renamed_with_its_wal_or_journal_keeps_everything(place, journal):
    old, new = filled(place, "old.db", f"PRAGMA journal_mode={journal}"), place("new.db")
    held = old.connect()
    execute(held, f"PRAGMA journal_mode={journal}; {rows(30)}")
    old.rest("in the WAL, perhaps")
    for suffix in ("-wal", "-journal", ""):
        if pathlib.Path(f"{old.path}{suffix}").exists():
            os.rename(f"{old.path}{suffix}", f"{new.path}{suffix}")
    new.rest("renamed")
    assert sqlite_count(new) == 90
    held.close()
    pathlib.Path(f"{old.path}-shm").unlink(missing_ok=True)
    dropped(old)
    new.tell({"written": rows(5)})
    new.check()


def sqlite_count(told):
    return told.execute("SELECT count(*) FROM t")[0]


def test_a_rename_over_another_database_is_its_next_batch(place):
    source, target = filled(place, "source.db", rows(5)), filled(place, "target.db", rows(99))
    os.rename(source.path, target.path)
    target.rest("renamed over")
    dropped(source)
    assert "drop" not in kinds(target)
    target.tell({"written": rows(3)})
    target.check()


def test_a_rename_over_a_database_of_another_page_size_and_mode_comes_back(place):
    for number, (page_size, journal) in enumerate([(512, "wal"), (65536, "delete"),
                                                   (1024, "wal"), (4096, "truncate")]):
        target = place("target.db") if number == 0 else target
        source = place(f"source-{number}.db")
        source.tell({"made": closed(f"PRAGMA page_size={page_size};"
                                    f"PRAGMA journal_mode={journal}; {FILLED}")})
        os.rename(source.path, target.path)
        target.rest(f"renamed over {number}")
        target.tell({f"written {number}": closed(rows(3))})
        dropped(source)
    target.check()


@pytest.mark.parametrize("journal", ["memory", "off", "delete"])
def test_a_database_renamed_over_while_it_is_open_is_the_new_one(place, journal):
    target = filled(place, "target.db")
    held = hold(target, journal)
    target.rest("held open")
    source = filled(place, "source.db", rows(5))
    os.rename(source.path, target.path)
    target.rest("renamed over")
    goes_on(held, rows(500, 300))
    target.rest("what the old connection writes is elsewhere")
    held.close()
    target.tell({"written": rows(3)})
    assert sqlite_count(target) == 68
    target.check()
    dropped(source)


@pytest.mark.parametrize("journal", GO_ON + STOPS)
def test_a_connection_goes_on_in_a_database_that_was_renamed(place, journal):
    """With the file, and with a journal or WAL of the old name."""
    old, new = filled(place, "old.db"), place("new.db")
    held = hold(old, journal)
    old.rest("held open")
    os.rename(old.path, new.path)
    if journal == "wal":
        # The new name is no database in WAL mode with that WAL.
        held.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    # Its journal is not seen here, so whoever keeps the lock is in a transaction (D10).
    waits = "exclusive" in journal
    if not waits:
        new.rest("renamed")
    went_on = goes_on(held, rows(5))
    assert went_on == (journal in GO_ON)
    if journal == "wal":
        held.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    if not waits:
        new.rest("written by the old connection")
    held.close()
    new.rest("closed")
    assert sqlite_count(new) == (70 if went_on else 65)
    dropped(old)
    new.check()


def test_two_databases_swap_their_names_by_three_renames(place):
    one, two, between = (filled(place, "one.db"), filled(place, "two.db", rows(500)),
                         place("between.db"))
    os.rename(one.path, between.path)
    os.rename(two.path, one.path)
    os.rename(between.path, two.path)
    one.rest("swapped")
    two.rest("swapped")
    assert (sqlite_count(one), sqlite_count(two)) == (560, 60)
    for told in (one, two):
        told.tell({"written": rows(5)})
        told.check()


def renameat2(source, target, flags):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, bytes(source), -100, bytes(target), flags) < 0:
        raise OSError(ctypes.get_errno(), "renameat2")


def test_programs_that_exchange_names_find_out_that_they_cannot(place):
    """As on file systems that do not know it: nothing changes, three renames do."""
    one, two = filled(place, "one.db"), filled(place, "two.db", rows(500))
    with pytest.raises(OSError) as refused:
        renameat2(one.path, two.path, 2)
    assert refused.value.errno == errno.EINVAL
    one.rest("as before")
    two.rest("as before")
    assert (sqlite_count(one), sqlite_count(two)) == (60, 560)
    one.check()
    two.check()


def test_a_file_renamed_over_a_database_drops_it(place):
    told = filled(place, "app.db")
    (place.directory / "text").write_text("no database\n" * 1000)
    os.rename(place.directory / "text", told.path)
    dropped(told)
    os.unlink(told.path)
    told.tell({"a new one": closed(FILLED)})
    told.check()


def test_a_temporary_name_renamed_into_place_is_a_database_there(place):
    """As rsync and careful programs write."""
    told = place("app.db")
    for number in range(3):
        run("sqlite3", place.directory / ".app.db.XyZ123", f"{TABLE}; {rows(10 + number)};")
        os.rename(place.directory / ".app.db.XyZ123", told.path)
        told.rest(f"written {number}")
    told.check()


# Directories


def test_a_renamed_directory_takes_its_databases_along(place):
    names = ["a.db", "b/c.db", "b/d/e.db"]
    old = []
    for name in names:
        (place.directory / "from" / name).parent.mkdir(parents=True, exist_ok=True)
        old.append(filled(place, f"from/{name}", "PRAGMA journal_mode=WAL", rows(5)))
    (place.directory / "from" / "text").write_text("text")
    os.rename(place.directory / "from", place.directory / "to")
    new = [place(f"to/{name}") for name in names]
    for told in new:
        told.rest("moved")
        told.tell({"written": rows(5)})
        told.check()
    for told in old:
        dropped(told)
    assert (place.directory / "to" / "text").read_text() == "text"
    # Back, with a connection open in one of them.
    held = new[0].connect()
    held.execute("SELECT count(*) FROM t").fetchone()
    os.rename(place.directory / "to", place.directory / "from")
    execute(held, rows(5))
    for told in old:
        told.rest("moved back")
    assert sqlite_count(old[0]) == 75
    held.close()
    for told in old:
        told.check()
    for told in new:
        dropped(told)


def test_a_removed_directory_drops_its_databases(place):
    (place.directory / "a" / "b").mkdir(parents=True)
    told = [filled(place, "a/one.db"), filled(place, "a/b/two.db")]
    with pytest.raises(OSError) as refused:
        os.rmdir(place.directory / "a")
    assert refused.value.errno == errno.ENOTEMPTY
    run("rm", "-r", place.directory / "a")
    for each in told:
        dropped(each)
    os.mkdir(place.directory / "a")
    told[0].tell({"there again": closed(FILLED)})
    told[0].check()
    os.unlink(told[0].path)
    os.rmdir(place.directory / "a")
    dropped(told[0])


# Links


def test_a_database_reached_by_a_symbolic_link_is_the_one_it_points_to(place):
    told = filled(place, "app.db", "PRAGMA journal_mode=WAL")
    (place.directory / "sub").mkdir()
    link = place.directory / "sub" / "link.db"
    link.symlink_to("../app.db")
    linked = told.connect(link)
    execute(linked, rows(5))
    assert sync(link) == sync(told.path)
    told.rest("written through the link")
    linked.close()
    os.rename(link, place.directory / "moved.db")
    os.unlink(place.directory / "moved.db")
    told.tell({"written": rows(5)})
    assert "drop" not in kinds(told)
    told.check()


def test_only_databases_get_no_second_name(place):
    told = filled(place, "app.db")
    with pytest.raises(OSError) as refused:
        os.link(told.path, place.directory / "second.db")
    assert refused.value.errno == errno.EPERM
    assert os.stat(told.path).st_nlink == 1
    (place.directory / "app.db-journal").write_text("left over")
    for source, target in (("app.db-journal", "second"), ("app.db-journal", "app.db-wal"),
                           ("text", "app.db-wal")):
        (place.directory / "text").write_text("text")
        with pytest.raises(OSError) as refused:
            os.link(place.directory / source, place.directory / target)
        assert refused.value.errno == errno.EPERM, (source, target)
    (place.directory / "app.db-journal").unlink()
    (place.directory / "text").write_text("text")
    os.link(place.directory / "text", place.directory / "second")
    assert os.stat(place.directory / "second").st_nlink == 2
    told.tell({"written": rows(5)})
    told.check()


# Files that are no databases


FOREIGN = """
exec 2>&1
LC_ALL=C; export LC_ALL
umask 022
try() { "$@"; echo "[$?] $*"; }
try touch a; try touch -d 2001-02-03T04:05:06Z a; try stat -c '%F %a %h %s %Y' a
try rm a; try rm a; try ls
echo hi >text; try cat text; echo more >>text; try cat text; try wc -c text
try mv text moved; try cat moved; try cp moved copy; try cmp moved copy
try ln moved hard; try stat -c '%h' moved; try rm moved; try cat hard
try ln -s hard soft; try cat soft; try readlink soft; try rm hard; try cat soft
try ln -s missing soft; try ln -sf missing soft; try stat -c %F soft
try mkfifo pipe; try stat -c '%F %a' pipe; (echo through >pipe &); try cat pipe
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'; try stat -c %F socket
try mv socket socket2; try rm socket2
try mkdir -p d/e/f; try touch d/e/f/x; try rmdir d/e; try mv d g; try find g; try mkdir g
try mv g/e/f/x g; try rmdir g/e/f g/e; try ls -A g; try mkdir h; try mv -T g h; try mv -T h i
try rm -r i; try ls
echo 'SQLite format 3' >fake; try stat -c %s fake; try ln fake fake2; try truncate -s 0 fake
try truncate -s 100 fake; try stat -c %s fake; try rm -f fake fake2
echo x >log-wal; echo y >log-shm; echo z >log-journal; try cat log-wal log-shm log-journal
try ln log-wal log2-wal; try mv log-wal log; try cat log log2-wal; try rm log log-shm log-journal
try chmod 600 log2-wal; try stat -c '%a' log2-wal; try chmod 444 log2-wal; try test -w log2-wal
try dd if=/dev/zero of=sparse bs=1 count=1 seek=100000 status=none; try stat -c '%s' sparse
try cp --sparse=always sparse sparse2; try cmp sparse sparse2; try split -b 30000 sparse part
try ls; try cat part* | cmp - sparse; try fallocate -l 300000 sparse; try stat -c %s sparse
try tar -cf all.tar sparse pipe soft; try tar -tf all.tar; try mkdir x; try tar -C x -xf all.tar
try ls -A x; try install -m 640 sparse installed; try stat -c %a installed; try sed -i s/y/z/ log2-wal
try cat log2-wal; try flock lockfile echo locked; try rm -r x; mkdir .dot; try ls -A; try rmdir .dot
exec 3<>open; echo 1 >&3; rm open; echo 2 >&3; try cat <&3; exec 3>&-; try cat open
try sqlite3 file.db 'CREATE TABLE t(a); INSERT INTO t VALUES(1); SELECT * FROM t'; try ls
try ln -s file.db link.db; try sqlite3 link.db 'INSERT INTO t VALUES(2); SELECT count(*) FROM t'
try mv file.db file2.db; try sqlite3 file2.db 'SELECT count(*) FROM t'; try ls; try rm file2.db
"""


def test_commands_on_other_files_do_what_they_do_on_the_bare_file_system(place, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    outputs = []
    for directory in (bare, place.directory):
        done = subprocess.run(["bash", "-c", FOREIGN], cwd=directory, text=True, timeout=STEP_SECONDS,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
        listing = run("find", ".", "-printf", r"%P %y %m %n %s %l\n", cwd=directory).stdout
        files = [line for line in sorted(listing.splitlines()) if " d " not in line]
        outputs.append((done.stdout, files))
    assert outputs[0][0] == outputs[1][0]
    assert outputs[0][1] == outputs[1][1]


def test_files_that_are_no_databases_do_not_reach_the_bucket(table_mount, place):
    for name in ("text", "log-wal", "log-journal", "log-shm", "file.db"):
        (place.directory / name).write_text("SQLite format 3 is a format\n" * 400)
    (place.directory / "almost").write_bytes(b"SQLite format 3\0" + bytes(5000))
    (place.directory / "short.db").write_bytes(b"SQLite format 3\0")
    told = filled(place, "app.db")
    told.check()
    for name in os.listdir(place.directory):
        asked = run(LITEBUCKET, "sync", place.directory / name, check=False)
        assert (asked.returncode == 0) == (name == "app.db"), name
    keys = {key.split("/")[1] for key in table_mount.bucket.keys()
            if key.startswith(place.directory.name)}
    assert keys == {"app.db"}
