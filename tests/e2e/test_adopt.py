"""What happens at a start when files, .litebucket and the bucket do not agree."""
import concurrent.futures
import contextlib
import errno
import json
import os
import pathlib
import random
import re
import shutil
import sqlite3
import subprocess
import time

import pytest

import harness
from harness import (assert_intact, assert_same_bytes, copy_at_rest, history, litebucket, objects,
                     restore, sync)

ANOTHER_BOOT = {"LITEBUCKET_BOOT": "00000000-0000-4000-8000-000000000000"}


def commit(database, *values, journal=None):
    connection = sqlite3.connect(database, isolation_level=None)
    if journal:
        connection.execute(f"PRAGMA journal_mode={journal}")
    connection.execute("CREATE TABLE IF NOT EXISTS t(x)")
    for value in values:
        connection.execute("INSERT INTO t VALUES(?)", (value,))
    connection.close()


def rows(database):
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    made = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 't'").fetchone()
    found = [x for x, in connection.execute("SELECT x FROM t ORDER BY rowid")] if made else []
    connection.close()
    return found


def status(mount, name):
    document = json.loads(litebucket("status", "--json", mount.point).stdout)
    return next(o for o in document["databases"] if o["path"] == name)


def role(mount):
    return json.loads(litebucket("status", "--json", mount.point).stdout)["role"]


def kept(mount):
    return json.loads(litebucket("status", "--json", mount.point).stdout)["aside"]


def take_away(bucket):
    """What another writer puts there only after the next start has looked."""
    content = {key: bucket.read(key) for key in bucket.keys()}
    for key in content:
        bucket.remove(key)
    return content


def put_back(bucket, content):
    for key, value in content.items():
        bucket.write(key, value)


def states(bucket, name, work):
    """Each TXID in the bucket with the rows of its restore."""
    found = {}
    for number, txid in enumerate(history(bucket, name)):
        output = work / f"state-{number}"
        restore(bucket, name, output, txid)
        assert_intact(output)
        found[txid] = rows(output)
        output.unlink()
    return found


def refuses(database):
    with pytest.raises(sqlite3.OperationalError, match="unable to open database file"):
        rows(database)


def crash_with(data, copies):
    """kill -9, and these files are what the disk has then."""
    data.kill()
    data.unmount()
    for name, content in copies.items():
        path = data.directory / name
        if content is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(content)


def files_of(data, name):
    """The database's files as they are now, for crash_with()."""
    found = {}
    for suffix in ("", "-wal", "-shm"):
        path = data / f"{name}{suffix}"
        found[f"{name}{suffix}"] = path.read_bytes() if path.exists() else None
    return found


def test_a_restored_directory_goes_on_with_its_own_history(bucket, mount, work, judges):
    with mount(bucket, name="first") as data:
        commit(data / "app.db", 1, 2, journal="wal")
        (data / "sub").mkdir()
        commit(data / "sub" / "other.db", 7)
        sync(data / "app.db")
        last = sync(data / "sub" / "other.db")
    before = objects(bucket)

    (work / "second" / "sub").mkdir(parents=True)
    restore(bucket, "app.db", work / "second" / "app.db")
    restore(bucket, "sub/other.db", work / "second" / "sub" / "other.db")
    with mount(bucket, name="second") as data:
        assert rows(data / "app.db") == [1, 2]
        commit(data / "app.db", 3)
        commit(data / "sub" / "other.db", 8)
        sync(data / "app.db")
        assert int(sync(data / "sub" / "other.db"), 16) == int(last, 16) + 1
        expected = copy_at_rest(data / "app.db", work / "expected")
        assert kept(data) == []
    assert before.items() <= objects(bucket).items()
    restore(bucket, "app.db", work / "restored")
    assert_same_bytes(work / "restored", expected)
    harness.run(judges / "litestream", "restore", "-o", work / "by-litestream",
                bucket.url_of("app.db"), env=bucket.environment())
    assert_same_bytes(work / "by-litestream", expected)


def test_nothing_is_sent_for_what_was_adopted(file_bucket, mount, work):
    with mount(file_bucket, name="first") as data:
        commit(data / "app.db", 1)
        sync(data / "app.db")
    before = objects(file_bucket)
    (work / "second").mkdir()
    restore(file_bucket, "app.db", work / "second" / "app.db")
    with mount(file_bucket, name="second") as data:
        sync(data / "app.db")
    assert objects(file_bucket) == before


def test_an_older_copy_is_rolled_forward(bucket, mount, work):
    with mount(bucket, name="first") as data:
        commit(data / "app.db", 1)
        first = sync(data / "app.db")
        commit(data / "app.db", 2)
        sync(data / "app.db")
    before = objects(bucket)
    (work / "second").mkdir()
    restore(bucket, "app.db", work / "second" / "app.db", first)
    with mount(bucket, name="second") as data:
        assert rows(data / "app.db") == [1, 2]
        commit(data / "app.db", 3)
        sync(data / "app.db")
        expected = copy_at_rest(data / "app.db", work / "expected")
        data.wait_for_log("the bucket is ahead")
        # It is in the bucket: machines that take turns do not gather copies.
        assert not kept(data)
    assert not list((work / "second" / ".litebucket").glob("aside/*"))
    assert before.items() <= objects(bucket).items()
    restore(bucket, "app.db", work / "restored")
    assert_same_bytes(work / "restored", expected)


def test_from_an_older_state_one_goes_on_if_one_says_so(bucket, mount, work):
    with mount(bucket, name="first") as data:
        commit(data / "app.db", 1)
        first = sync(data / "app.db")
        commit(data / "app.db", 2)
        sync(data / "app.db")
    before = objects(bucket)
    (work / "second").mkdir()
    restore(bucket, "app.db", work / "second" / "app.db", first)
    with mount(bucket, "--adopt", "local", name="second") as data:
        assert rows(data / "app.db") == [1]
        commit(data / "app.db", 3)
        sync(data / "app.db")
        assert kept(data) == []
        expected = copy_at_rest(data / "app.db", work / "expected")
    assert before.items() <= objects(bucket).items()
    restore(bucket, "app.db", work / "restored")
    assert_same_bytes(work / "restored", expected)
    found = list(states(bucket, "app.db", work).values())
    assert [1, 2] in found and found[-1] == [1, 3]
    # Said once: the next start has nothing to roll forward.
    with mount(bucket, name="second") as data:
        assert rows(data / "app.db") == [1, 3]


def in_conflict(data, name):
    """What status says of a database whose first transaction was not taken."""
    def look():
        document = json.loads(litebucket("status", "--json", data.point).stdout)
        return [o["error"] for o in document["databases"]
                if o["path"] == name and o["state"] == "conflict"]

    return harness.eventually(look, 30, f"{name} is in no conflict")[0]


def test_a_name_that_the_bucket_has_and_that_appears_while_mounted_says_so(bucket, mount, work):
    with mount(bucket, name="first") as data:
        commit(data / "app.db", 1)
        commit(data / "same.db", 7)
        sync(data / "same.db")
        last = sync(data / "app.db")
    before = objects(bucket)
    restore(bucket, "same.db", work / "same.db")
    content = take_away(bucket)
    with mount(bucket, name="second") as data:
        put_back(bucket, content)
        commit(data / "app.db", 42)
        shutil.copy(work / "same.db", data / "same.db")
        error = in_conflict(data, "app.db")
        for part in (bucket.url[:60], "'app.db' already", last, "Use another name", "--adopt"):
            assert part in error
        in_conflict(data, "same.db")
        assert data.stop() == 1
        log = data.log_text()
        assert "next mount will send it" not in log
        assert len(re.findall("level=error .*the next start compares it .* db=(?:app|same).db",
                              log)) == 2
    assert before.items() <= objects(bucket).items()
    # What the sentences say of the next start is so.
    with mount(bucket, name="second") as data:
        refuses(data / "app.db")
        assert rows(data / "same.db") == [7]
        commit(data / "same.db", 8)
        sync(data / "same.db")
    assert states(bucket, "same.db", work).popitem()[1] == [7, 8]


def put_back_old_directory(mount, bucket, work):
    """A directory of before, .litebucket included; the bucket went on."""
    with mount(bucket, name="data") as data:
        commit(data / "app.db", 1)
        sync(data / "app.db")
    shutil.copytree(work / "data", work / "old")
    with mount(bucket, name="data") as data:
        commit(data / "app.db", 2)
        sync(data / "app.db")
    return objects(bucket)


def test_a_whole_directory_of_before_is_rolled_forward(bucket, mount, work):
    before = put_back_old_directory(mount, bucket, work)
    with mount(bucket, name="old") as data:
        assert rows(data / "app.db") == [1, 2]
        commit(data / "app.db", 3)
        sync(data / "app.db")
    assert before.items() <= objects(bucket).items()
    assert list(states(bucket, "app.db", work).values())[-2:] == [[1, 2], [1, 2, 3]]


def check_goes_on(bucket, mount, work, expected, name="old"):
    """What the mount has is in the bucket, behind what was there; and decided once."""
    before = objects(bucket)
    with mount(bucket, name=name) as data:
        assert rows(data / "app.db") == expected
        commit(data / "app.db", 10)
        sync(data / "app.db")
        copy = copy_at_rest(data / "app.db", work / "expected")
    assert before.items() <= objects(bucket).items()
    restore(bucket, "app.db", work / "restored")
    assert_same_bytes(work / "restored", copy)
    found = list(states(bucket, "app.db", work).values())
    assert [1, 2] in found and found[-1] == expected + [10]


def test_a_directory_of_before_with_changes_sets_them_aside(bucket, mount, work):
    """Another life went on behind what it knows: the bucket counts, and nothing is lost."""
    before = put_back_old_directory(mount, bucket, work)
    commit(work / "old" / "app.db", 9)
    commit(work / "old" / "new.db", 5)
    with mount(bucket, name="old") as data:
        assert rows(data / "new.db") == [5]
        assert rows(data / "app.db") == [1, 2]
        assert len(re.findall("level=error.* the commits that it did not get are set aside.* "
                              "db=app.db", data.log_text())) == 1
        sync(data / "new.db")
        aside, = kept(data)
        assert aside["path"] == "app.db" and aside["directory"].startswith("diverged-")
        assert re.search("app.db: commits that the bucket did not get are kept in .*/aside/.*, "
                         "which is hidden until it is unmounted; remove",
                         litebucket("status", data.point).stdout)
    assert rows(work / "old" / ".litebucket" / "aside" / aside["directory"] / "database") == [1, 9]
    found = {key: value for key, value in objects(bucket).items() if "app.db" in key}
    assert before.items() <= found.items()
    check_goes_on(bucket, mount, work, [1, 2])


def test_a_directory_of_before_with_changes_goes_on_with_them_if_one_says_so(bucket, mount, work):
    put_back_old_directory(mount, bucket, work)
    commit(work / "old" / "app.db", 9)
    with mount(bucket, "--adopt", "local", name="old") as data:
        assert rows(data / "app.db") == [1, 9]
        assert not kept(data)
    check_goes_on(bucket, mount, work, [1, 9])


@pytest.mark.parametrize("adopt, expected", [("local", [1, 9]), ("bucket", [1, 2])])
def test_a_copy_of_a_directory_in_use_with_changes_waits_for_a_decision(bucket, mount, work, adopt,
                                                                        expected):
    """Nobody took over from it: that it is older may be meant, or not."""
    with mount(bucket, name="first", mountpoint=work / "mountpoint") as data:
        commit(data / "app.db", 1)
        sync(data / "app.db")
        data.wait_for_log("all logs are closed")
        shutil.copytree(data.directory, work / "old")
        commit(data / "app.db", 2)
        sync(data / "app.db")
    commit(work / "old" / "app.db", 9)
    before = {key: value for key, value in objects(bucket).items() if "app.db" in key}
    with mount(bucket, name="old") as data:
        refuses(data / "app.db")
        assert status(data, "app.db")["state"] == "closed"
        assert "--adopt" in status(data, "app.db")["error"]
        assert len(re.findall("database is closed", data.log_text())) == 1
    assert rows(work / "old" / "app.db") == [1, 9]
    assert {key: value for key, value in objects(bucket).items() if "app.db" in key} == before
    with mount(bucket, "--adopt", adopt, name="old") as data:
        assert rows(data / "app.db") == expected
        if adopt == "bucket":
            old = data.directory / ".litebucket" / "aside" / kept(data)[0]["directory"]
    if adopt == "bucket":
        assert rows(old / "database") == [1, 9]
    check_goes_on(bucket, mount, work, expected)


@pytest.mark.parametrize("adopt", ["local", "bucket"])
def test_another_database_of_the_same_name_waits_for_a_decision(file_bucket, mount, work, adopt):
    with mount(file_bucket, name="first") as data:
        commit(data / "app.db", 1)
        sync(data / "app.db")
    before = objects(file_bucket)
    (work / "second").mkdir()
    connection = sqlite3.connect(work / "second" / "app.db")
    connection.execute("PRAGMA page_size=1024")
    connection.execute("CREATE TABLE t(x)")
    connection.execute("INSERT INTO t VALUES(42)")
    connection.commit()
    connection.close()
    with mount(file_bucket, name="second") as data:
        refuses(data / "app.db")
        # Its name stays, too; everything else works.
        for command in (["rm"], ["mv"], ["truncate", "-s0"]):
            words = [*command, data / "app.db", *([data / "b"] if command == ["mv"] else [])]
            failed = subprocess.run(words, capture_output=True, text=True, check=False)
            assert failed.returncode and "busy" in failed.stderr
        (data / "notes").write_text("free")
        failed = litebucket("sync", data / "app.db", check=False)
        assert failed.returncode == 1 and "'litebucket status'" in failed.stderr
    assert objects(file_bucket) == before
    with mount(file_bucket, "--adopt", adopt, name="second") as data:
        assert rows(data / "app.db") == ([42] if adopt == "local" else [1])
        sync(data / "app.db")
        expected = copy_at_rest(data / "app.db", work / "expected")
    assert before.items() <= objects(file_bucket).items()
    restore(file_bucket, "app.db", work / "restored")
    assert_same_bytes(work / "restored", expected)


def test_a_name_that_was_dropped_is_free(bucket, mount, work):
    with mount(bucket, name="first") as data:
        commit(data / "app.db", 1)
        sync(data / "app.db")
        (data / "app.db").unlink()
        harness.eventually(lambda: status(data, "app.db")["state"] == "dropped", 30, "not dropped")
    before = objects(bucket)
    (work / "second").mkdir()
    commit(work / "second" / "app.db", 5)
    with mount(bucket, name="second") as data:
        assert rows(data / "app.db") == [5]
        sync(data / "app.db")
        expected = copy_at_rest(data / "app.db", work / "expected")
    assert before.items() <= objects(bucket).items()
    restore(bucket, "app.db", work / "restored")
    assert_same_bytes(work / "restored", expected)


def test_a_bucket_that_is_away_is_not_waited_for(file_bucket, mount, work):
    with mount(file_bucket, name="first") as data:
        commit(data / "app.db", 1)
        sync(data / "app.db")
    (work / "second").mkdir()
    commit(work / "second" / "app.db", 2)
    away = harness.FileBucket(work / "away")
    away.directory.mkdir()
    with mount(away, name="second") as data:
        away.directory.rename(work / "hidden")
        commit(data / "app.db", 3)
        assert rows(data / "app.db") == [2, 3]
        (work / "hidden").rename(away.directory)


def test_what_was_committed_while_the_bucket_was_away_is_decided_at_the_next_start(
        file_bucket, mount, work):
    """Slot 1 is in the spool, and is another writer's in the bucket."""
    with mount(file_bucket, name="first") as data:
        commit(data / "app.db", 1)
        sync(data / "app.db")
    before = objects(file_bucket)
    content = take_away(file_bucket)
    with mount(file_bucket, name="second") as data:
        put_back(file_bucket, content)
        commit(data / "app.db", 2)
        data.wait_for_log("the next start compares")
        assert status(data, "app.db")["state"] == "conflict"
        data.kill()
        data.unmount()
        data.start()
        refuses(data / "app.db")
        data.kill()
        data.unmount()
        data.options += ["--adopt", "local"]
        data.start()
        commit(data / "app.db", 3)
        sync(data / "app.db")
        expected = copy_at_rest(data / "app.db", work / "expected")
        # What was in the spool never got its slot.
        old = data.directory / ".litebucket" / "aside" / kept(data)[0]["directory"]
    assert list(old.glob("*.ltx"))
    assert before.items() <= objects(file_bucket).items()
    restore(file_bucket, "app.db", work / "restored")
    assert_same_bytes(work / "restored", expected)
    assert rows(work / "restored") == [2, 3]


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_after_a_loss_of_power_the_file_is_rolled_forward(bucket, mount, work, journal):
    """The disk has an older state than what was captured and sent (D20)."""
    with mount(bucket, "--lease-ttl", "1s", name="data") as data:
        commit(data / "app.db", 1, journal=journal)
        writer = sqlite3.connect(data / "app.db", isolation_level=None)
        writer.execute("INSERT INTO t VALUES(2)")
        sync(data / "app.db")
        lost = files_of(data, "app.db")
        for value in (3, 4):
            writer.execute("INSERT INTO t VALUES(?)", (value,))
            sync(data / "app.db")
        crash_with(data, lost)
        writer.close()
        before = objects(bucket)
        data.environment = ANOTHER_BOOT
        data.start()
        assert rows(data / "app.db") == [1, 2, 3, 4]
        data.wait_for_log("power was lost")
        old = data.directory / ".litebucket" / "aside" / kept(data)[0]["directory"]
        commit(data / "app.db", 5)
        sync(data / "app.db")
        expected = copy_at_rest(data / "app.db", work / "expected")
    assert rows_at(old, work) == [1, 2]
    assert before.items() <= objects(bucket).items()
    restore(bucket, "app.db", work / "restored")
    assert_same_bytes(work / "restored", expected)
    for found in states(bucket, "app.db", work).values():
        assert found == [1, 2, 3, 4, 5][:len(found)], "a commit was undone"


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_what_only_the_spool_has_is_rolled_forward_without_the_bucket(file_bucket, mount, work,
                                                                      journal):
    """Sealed, and not sent: the spool leads from nothing to the position."""
    with mount(file_bucket, "--lease-ttl", "1s", name="data", environment={
            "LITEBUCKET_FAILPOINT": "put-sent:kill:1"}) as data:
        commit_and_die(data, 1, journal)
        data.kill()
        data.unmount()
        # The slot was filled, but that reply was lost; now the bucket is, too.
        position = next((work / "data" / ".litebucket" / "db").glob("*/position"))
        assert "wal-end" in position.read_text()
        shutil.rmtree(work / "bucket")
        (work / "bucket").mkdir()
        make_older(data.directory / "app.db", position)
        data.environment = ANOTHER_BOOT
        data.start()
        assert rows(data / "app.db") in ([1], [])
        data.wait_for_log("power was lost")
        sync(data / "app.db")
        expected = copy_at_rest(data / "app.db", work / "expected")
    restore(file_bucket, "app.db", work / "restored")
    assert_same_bytes(work / "restored", expected)


def commit_and_die(data, value, journal):
    """
    The daemon ends as soon as a batch is put.  A process of its own: a WAL's -shm is mapped,
    and who reads it when its file system is gone gets SIGBUS.
    """
    script = f"PRAGMA journal_mode={journal}; CREATE TABLE t(x); INSERT INTO t VALUES({value});"
    subprocess.run(["sqlite3", data / "app.db"], input=script, text=True, check=False,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    harness.eventually(lambda: data.process.poll() is not None, 30, "it goes on")


def make_older(database, position):
    """Of the file, something is lost that the position knows."""
    text = position.read_text()
    counter = int(re.search("change-counter=([0-9]+)", text)[1])
    position.write_text(text.replace(f"change-counter={counter}",
                                     f"change-counter={counter + 1000}"))
    # A journal would bring it back, if it was killed in a transaction.
    for suffix in ("-wal", "-journal"):
        pathlib.Path(f"{database}{suffix}").unlink(missing_ok=True)
    with open(database, "r+b") as file:
        file.seek(100)
        file.write(b"lost")


def test_in_the_same_boot_an_older_copy_is_somebodys_change(bucket, mount, work):
    with mount(bucket, name="data") as data:
        commit(data / "app.db", 1)
        sync(data / "app.db")
        older = files_of(data, "app.db")
        commit(data / "app.db", 2)
        sync(data / "app.db")
        crash_with(data, older)
        data.start()
        assert rows(data / "app.db") == [1]
        sync(data / "app.db")
        assert kept(data) == []
    assert list(states(bucket, "app.db", work).values())[-2:] == [[1, 2], [1]]


def test_after_a_clean_stop_an_older_copy_is_somebodys_change(file_bucket, mount, work):
    with mount(file_bucket, name="data") as data:
        commit(data / "app.db", 1)
        sync(data / "app.db")
        older = files_of(data, "app.db")
        commit(data / "app.db", 2)
        sync(data / "app.db")
    (work / "data" / "app.db").write_bytes(older["app.db"])
    with mount(file_bucket, name="data", environment=ANOTHER_BOOT) as data:
        assert rows(data / "app.db") == [1]
        sync(data / "app.db")
    assert list(states(file_bucket, "app.db", work).values())[-2:] == [[1, 2], [1]]


def test_in_another_boot_a_newer_file_is_what_counts(file_bucket, mount, work):
    with mount(file_bucket, "--lease-ttl", "1s", name="data") as data:
        commit(data / "app.db", 1, journal="wal")
        sync(data / "app.db")
        data.kill()
        data.unmount()
        commit(data.directory / "app.db", 2)
        data.environment = ANOTHER_BOOT
        data.start()
        assert rows(data / "app.db") == [1, 2]
        sync(data / "app.db")
        assert kept(data) == []
    assert list(states(file_bucket, "app.db", work).values())[-1] == [1, 2]


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_what_cannot_be_rolled_forward_yet_waits_and_others_do_not(file_bucket, mount, work,
                                                                   journal):
    with mount(file_bucket, "--lease-ttl", "1s", name="data") as data:
        commit(data / "app.db", 1, journal=journal)
        commit(data / "other.db", 7)
        writer = sqlite3.connect(data / "app.db", isolation_level=None)
        writer.execute("INSERT INTO t VALUES(2)")
        sync(data / "other.db")
        sync(data / "app.db")
        older = files_of(data, "app.db")
        writer.execute("INSERT INTO t VALUES(3)")
        sync(data / "app.db")
        crash_with(data, older)
        writer.close()
        slot = harness.slot_key(file_bucket, "app.db", history(file_bucket, "app.db")[-1])
        missing = file_bucket.read(slot)
        file_bucket.remove(slot)
        data.environment = ANOTHER_BOOT
        data.start()
        assert rows(data / "other.db") == [7]
        harness.eventually(lambda: status(data, "app.db")["state"] == "closed", 30, "not closed")
        refuses(data / "app.db")
        assert "loss of power" in status(data, "app.db")["error"]
        # What the kernel remembers of the old files is not what it then gets.
        assert (data / "app.db").stat().st_size == len(older["app.db"])
        assert (data / "app.db-wal").exists() == (journal == "wal")
        file_bucket.write(slot, missing)
        harness.eventually(lambda: status(data, "app.db")["state"] not in ("closed", "pending"),
                           30, "it stays closed")
        assert rows(data / "app.db") == [1, 2, 3]
        commit(data / "app.db", 4)
        sync(data / "app.db")
        expected = copy_at_rest(data / "app.db", work / "expected")
    restore(file_bucket, "app.db", work / "restored")
    assert_same_bytes(work / "restored", expected)
    assert rows(work / "restored") == [1, 2, 3, 4]


@pytest.mark.parametrize("left", ["nothing", "empty", "zeros", "half"])
def test_a_file_that_went_with_the_power_is_no_database_that_was_removed(file_bucket, mount, work,
                                                                         left):
    """One that was copied there, say, which nobody syncs."""
    with mount(file_bucket, "--lease-ttl", "1s", name="data") as data:
        commit(data / "app.db", *range(3000), journal="delete")
        sync(data / "app.db")
        content = (data / "app.db").read_bytes()
        mode = (data / "app.db").stat().st_mode
        crash_with(data, {"app.db": {"nothing": None, "empty": b"",
                                     "zeros": bytes(4096) + content[4096:],
                                     "half": content[:len(content) // 8192 * 4096]}[left]})
        before = objects(file_bucket)
        data.environment = ANOTHER_BOOT
        data.start()
        harness.eventually(lambda: (data / "app.db").exists(), 30, data.log_text)
        assert rows(data / "app.db") == list(range(3000))
        assert (data / "app.db").stat().st_mode == mode or left == "nothing"
        data.wait_for_log("power was lost")
        commit(data / "app.db", "more")
        sync(data / "app.db")
        assert before.items() <= objects(file_bucket).items()
    assert list(states(file_bucket, "app.db", work).values())[-1] == [*range(3000), "more"]


def test_a_clean_stop_before_it_could_be_rolled_forward_undoes_nothing(file_bucket, mount, work):
    with mount(file_bucket, "--lease-ttl", "1s", name="data") as data:
        commit(data / "app.db", 1, journal="delete")
        sync(data / "app.db")
        older = files_of(data, "app.db")
        for value in (2, 3):
            commit(data / "app.db", value)
            sync(data / "app.db")
        crash_with(data, older)
        slot = harness.slot_key(file_bucket, "app.db", history(file_bucket, "app.db")[-1])
        missing = file_bucket.read(slot)
        file_bucket.remove(slot)
        data.environment = ANOTHER_BOOT
        data.start()
        harness.eventually(lambda: status(data, "app.db")["state"] == "closed", 30, "not closed")
        assert data.stop() == 0
        file_bucket.write(slot, missing)
        data.start()
        assert rows(data / "app.db") == [1, 2, 3]
        commit(data / "app.db", 4)
        sync(data / "app.db")
    assert list(states(file_bucket, "app.db", work).values())[-1] == [1, 2, 3, 4]


def unsent(data, bucket, *values):
    """Each a batch in the spool of its own; then everything is killed."""
    hidden = bucket.directory.with_name("hidden")
    before = status(data, "app.db")["confirmed"]
    bucket.directory.rename(hidden)
    for value in values:
        commit(data / "app.db", value)
        asking = subprocess.Popen([harness.LITEBUCKET, "sync", data / "app.db"],
                                  stdout=subprocess.DEVNULL)
        wanted = values.index(value) + 1
        harness.eventually(lambda: status(data, "app.db")["spool_batches"] == wanted, 30,
                           data.log_text)
        asking.kill()
        asking.wait()
    data.kill()
    data.unmount()
    hidden.rename(bucket.directory)
    return sorted(path for path in data.directory.glob(".litebucket/db/*/spool/*.ltx")
                  if path.name[:16] > before)


def land(bucket, batch):
    """A put that the killed one had under way."""
    bucket.write(f"app.db/ltx/0/{batch.name}", batch.read_bytes())


def take_turn(bucket, mount, *values):
    """Another mount has the bucket meanwhile."""
    with mount(bucket, name="other") as other:
        # The other's lease has to expire.
        harness.eventually(lambda: role(other) == "primary", 60, other.log_text)
        for value in values:
            commit(other / "app.db", value)
            sync(other / "app.db")
        return rows(other / "app.db")


@pytest.mark.parametrize("spooled, theirs", [((2,), (7,)), ((2, 3), ()), ((2, 3), (7, 8, 9))])
def test_what_landed_unconfirmed_hides_no_other_writer(file_bucket, mount, work, spooled, theirs):
    """The log has the first batch of the spool, and then somebody else's (R13)."""
    with mount(file_bucket, "--lease-ttl", "1s", name="data") as data:
        commit(data / "app.db", 1, journal="wal")
        sync(data / "app.db")
        batches = unsent(data, file_bucket, *spooled)
        commit(data.directory / "app.db", "never sealed")
        land(file_bucket, batches[0])
        found = take_turn(file_bucket, mount, *theirs)
        assert found == [1, 2, *theirs]
        before = objects(file_bucket)
        data.start()
        assert rows(data / "app.db") == found
        data.wait_for_log("the commits that it did not get are set aside")
        aside, = kept(data)
        assert aside["directory"].startswith("diverged-")
        commit(data / "app.db", "again")
        sync(data / "app.db")
        assert before.items() <= objects(file_bucket).items()
    assert rows_at(work / "data" / ".litebucket" / "aside" / aside["directory"], work) == [
        1, *spooled, "never sealed"]


def test_a_damaged_spool_is_no_reason_not_to_decide(file_bucket, mount, work):
    with mount(file_bucket, "--lease-ttl", "1s", name="data") as data:
        commit(data / "app.db", 1, journal="wal")
        sync(data / "app.db")
        batch, = unsent(data, file_bucket, 2)
        batch.write_bytes(b"")
        assert take_turn(file_bucket, mount, 7) == [1, 7]
        data.start()
        # Where the two parted is known no more.
        refuses(data / "app.db")
        assert "--adopt" in status(data, "app.db")["error"]
        assert data.stop() == 0
        data.options += ["--adopt", "bucket"]
        data.start()
        assert rows(data / "app.db") == [1, 7]
        commit(data / "app.db", 8)
        sync(data / "app.db")
        aside, = kept(data)
    assert rows_at(work / "data" / ".litebucket" / "aside" / aside["directory"], work) == [1, 2]


def test_who_has_it_open_past_the_mount_keeps_it_from_being_replaced(file_bucket, mount, work):
    with mount(file_bucket, name="data", mountpoint=work / "point") as data:
        commit(data / "app.db", 1, journal="wal")
        sync(data / "app.db")
    take_turn(file_bucket, mount, 2)
    open_past = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("INSERT INTO t VALUES ('past it')")
print("open", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(["/usr/bin/python3", "-c", open_past, data.directory / "app.db"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "open\n"
        with data:
            harness.eventually(lambda: status(data, "app.db")["state"] == "closed", 30, data.log_text)
            assert "does not go through the mount" in status(data, "app.db")["error"]
            assert rows(data.directory / "app.db") == [1, "past it"]
            process.communicate()
            harness.eventually(lambda: status(data, "app.db")["state"] == "idle", 60, data.log_text)
            assert rows(data / "app.db") == [1, 2]
            aside, = kept(data)
    assert rows_at(data.directory / ".litebucket" / "aside" / aside["directory"], work) == [
        1, "past it"]


def test_on_another_file_system_below_it_is_left_as_it_is(file_bucket, mount, work):
    below = work / "data" / "below"
    below.mkdir(parents=True)
    harness.run("mount", "-t", "tmpfs", "none", below)
    try:
        with mount(file_bucket, name="data") as data:
            commit(below / "app.db", 1, journal="wal")
            sync(below / "app.db")
        with mount(file_bucket, name="other") as other:
            commit(other / "below" / "app.db", 2)
            sync(other / "below" / "app.db")
        files = {path.name: path.read_bytes() for path in below.iterdir()}
        with data:
            harness.eventually(lambda: status(data, "below/app.db")["state"] == "closed", 30,
                               data.log_text)
            assert "lies on another file system" in status(data, "below/app.db")["error"]
            assert kept(data) == []
            assert data.stop() == 0
        assert files == {path.name: path.read_bytes() for path in below.iterdir()}
        data.options += ["--adopt", "local"]
        with data:
            assert rows(below / "app.db") == [1]
            sync(below / "app.db")
    finally:
        harness.run("umount", "-l", below)


def test_killed_before_it_is_decided_nothing_is_kept_aside(file_bucket, mount, work):
    """What would be kept is still the file in use."""
    with mount(file_bucket, name="data") as data:
        commit(data / "app.db", 1)
        sync(data / "app.db")
    take_turn(file_bucket, mount, 2)
    commit(data.directory / "app.db", "own")
    data.environment = {"LITEBUCKET_FAILPOINT": "adopt-aside:kill"}
    with contextlib.suppress(harness.MountFailed):
        data.start()
        harness.eventually(lambda: data.process.poll() is not None, 30, "it is not killed")
        data.kill()
    data.unmount()
    asides = data.directory / ".litebucket" / "aside"
    assert [path.name[:4] for path in asides.iterdir()] == ["tmp-"]
    data.environment, data.options = {}, ["--adopt", "local"]
    with data:
        assert rows(data / "app.db") == [1, "own"]
        assert kept(data) == []
        assert (data / "app.db").stat().st_nlink == 1
        sync(data / "app.db")
    assert not list(asides.iterdir())
    assert list(states(file_bucket, "app.db", work).values())[-1] == [1, "own"]


def test_a_stop_does_not_wait_until_a_large_one_is_looked_at(file_bucket, mount, work):
    """What others have committed goes out meanwhile."""
    with mount(file_bucket, name="data") as data:
        commit(data / "app.db", 1)
        sync(data / "app.db")
    with contextlib.closing(
            sqlite3.connect(data.directory / "huge.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA page_size = 65536")
        connection.execute("CREATE TABLE t(x)")
    take_turn(file_bucket, mount, 2)
    with mount(file_bucket, name="third") as third:
        commit(third / "huge.db", "theirs")
        sync(third / "huge.db")
    size = 40 << 30
    with open(data.directory / "huge.db", "r+b") as file:
        file.seek(28)
        file.write((size // 65536).to_bytes(4, "big"))
        file.truncate(size)
    with data:
        assert rows(data / "app.db") == [1, 2]
        assert status(data, "huge.db")["state"] == "pending"
        commit(data / "app.db", 3)
        begun = time.monotonic()
        assert data.stop() == 0
        assert time.monotonic() - begun < 15
    (data.directory / "huge.db").unlink()
    assert list(states(file_bucket, "app.db", work).values())[-1] == [1, 2, 3]


def refused_as_busy(call, *arguments):
    with pytest.raises(OSError) as failure:
        call(*arguments)
    assert failure.value.errno == errno.EBUSY
    return True


def test_whoever_removes_a_database_that_is_decided_does_not_keep_its_directory(file_bucket, mount):
    """The kernel locks a directory while a name in it changes, and others wait for that."""
    changes = {
        "unlink": lambda at: os.unlink(at / "app.db"),
        "rename": lambda at: os.rename(at / "app.db", at / "moved.db"),
        "link": lambda at: os.link(at / "app.db", at / "second.db"),
        "create": lambda at: os.open(at / "app.db-journal", os.O_CREAT | os.O_RDWR),
    }
    with mount(file_bucket, "--lease-ttl", "1s") as data:
        for name in changes:
            (data / name).mkdir()
            commit(data / name / "app.db", 1)
            sync(data / name / "app.db")
        data.kill()
        data.unmount()
        data.environment = {**ANOTHER_BOOT, "LITEBUCKET_SLOWPOINT": "deciding:12000"}
        data.start()
        with concurrent.futures.ThreadPoolExecutor(12) as threads:
            opened = [threads.submit(open, data / name / "app.db", "rb") for name in changes]
            changed = [threads.submit(refused_as_busy, change, data / name)
                       for name, change in changes.items()]
            made = [threads.submit(os.mkdir, data / name / "new") for name in changes]
            assert all(each.result() for each in changed)
            assert not any(each.result() for each in made)
            for name in changes:
                assert status(data, f"{name}/app.db")["state"] == "pending"
            assert not any(each.done() for each in opened), "who opens does not wait"
            for each in opened:
                each.result().close()
        for name in changes:
            assert sorted(os.listdir(data / name)) == ["app.db", "new"]
            assert rows(data / name / "app.db") == [1]


POINTS = ["adopt-aside", "adopt-incoming", "adopt-decided", "adopt-sides", "adopt-renamed",
          "adopt-pages", "adopt-position"]


@pytest.mark.parametrize("point", POINTS)
def test_killed_while_it_rolls_forward_it_is_old_or_new(file_bucket, mount, work, point):
    with mount(file_bucket, "--lease-ttl", "1s", name="data") as data:
        commit(data / "app.db", 1, journal="wal")
        writer = sqlite3.connect(data / "app.db", isolation_level=None)
        writer.execute("INSERT INTO t VALUES(2)")
        sync(data / "app.db")
        older = files_of(data, "app.db")
        assert older["app.db-wal"]
        writer.execute("INSERT INTO t VALUES(3)")
        sync(data / "app.db")
        crash_with(data, older)
        writer.close()
        data.environment = {**ANOTHER_BOOT, "LITEBUCKET_FAILPOINT": f"{point}:kill:1"}
        try:
            data.start()
            harness.eventually(lambda: data.process.poll() is not None, 30, f"no {point}")
            data.kill()
        except harness.MountFailed:
            pass
        data.unmount()
        before = objects(file_bucket)
        data.environment = ANOTHER_BOOT
        data.start()
        assert rows(data / "app.db") == [1, 2, 3]
        commit(data / "app.db", 4)
        sync(data / "app.db")
        expected = copy_at_rest(data / "app.db", work / "expected")
        asides = [data.directory / ".litebucket" / "aside" / o["directory"] for o in kept(data)]
    assert not list((work / "data" / ".litebucket" / "incoming").iterdir())
    assert any(rows_at(aside, work) == [1, 2] for aside in asides)
    assert before.items() <= objects(file_bucket).items()
    restore(file_bucket, "app.db", work / "restored")
    assert_same_bytes(work / "restored", expected)
    assert_intact(work / "restored")


def rows_at(directory, work):
    target = work / directory.name
    shutil.copytree(directory, target)
    return rows(target / "database")


@pytest.mark.parametrize("point", ["adopt-decided", "adopt-pages", "adopt-position"])
def test_killed_while_it_is_adopted_it_is_adopted_at_the_next_start(file_bucket, mount, work,
                                                                    point):
    with mount(file_bucket, name="first") as data:
        commit(data / "app.db", 1)
        sync(data / "app.db")
    before = objects(file_bucket)
    (work / "second").mkdir()
    restore(file_bucket, "app.db", work / "second" / "app.db")
    data = mount(file_bucket, name="second",
                 environment={"LITEBUCKET_FAILPOINT": f"{point}:kill:1"})
    try:
        data.start()
        harness.eventually(lambda: data.process.poll() is not None, 30, f"no {point}")
        data.kill()
    except harness.MountFailed:
        pass
    data.unmount()
    data.environment = {}
    with data:
        commit(data / "app.db", 2)
        sync(data / "app.db")
    assert before.items() <= objects(file_bucket).items()
    assert list(states(file_bucket, "app.db", work).values())[-1] == [1, 2]


def test_we_go_on_behind_what_litestream_wrote(work, mount, judges):
    replica = harness.ROOT / "tests" / "fixtures" / "litestream"
    shutil.copytree(replica / "replica", work / "bucket" / "app.db")
    bucket = harness.FileBucket(work / "bucket")
    before = objects(bucket)
    (work / "data").mkdir()
    restore(bucket, "app.db", work / "data" / "app.db")
    with mount(bucket, name="data") as data:
        connection = sqlite3.connect(data / "app.db", isolation_level=None)
        connection.execute("CREATE TABLE ours(x)")
        connection.close()
        sync(data / "app.db")
        expected = copy_at_rest(data / "app.db", work / "expected")
    assert before.items() <= objects(bucket).items()
    # A barrier, because nobody handed over to us, and ours.
    assert len(objects(bucket)) == len(before) + 2
    restore(bucket, "app.db", work / "restored")
    assert_same_bytes(work / "restored", expected)
    harness.run(judges / "litestream", "restore", "-o", work / "by-litestream",
                bucket.url_of("app.db"), env=bucket.environment())
    assert_same_bytes(work / "by-litestream", expected)


def test_a_large_database_that_is_decided_about_keeps_no_other_waiting(file_bucket, mount, work):
    """Who opens one waits for it, and gets the file that came in its place."""
    names = ["a.db", "b.db", "c.db"]
    first = {}
    with mount(file_bucket, name="first") as data:
        for name in names:
            commit(data / name, 1)
            first[name] = sync(data / name)
            commit(data / name, 2, random.randbytes(8 << 20))
            sync(data / name)
    (work / "second").mkdir()
    for name in names:
        restore(file_bucket, name, work / "second" / name, first[name])
    small = (work / "second" / "a.db").stat().st_size
    with mount(file_bucket, name="second") as data:
        # Names, attributes and other files do not wait.
        assert sorted(path.name for path in data.point.iterdir()) == names
        assert (data / "a.db").stat().st_size >= small
        for name in names:
            assert rows(data / name)[:2] == [1, 2]
        (data / "notes").write_text("free")
        harness.eventually(lambda: (data / "a.db").stat().st_size > small, 10, "an old size")
