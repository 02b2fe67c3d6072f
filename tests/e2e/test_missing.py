"""A mount restores what is in its bucket and not in its directory, before anybody can use it."""
import concurrent.futures
import json
import os
import pathlib
import shutil
import signal
import sqlite3
import stat
import time

import pytest

import harness
from harness import (assert_intact, assert_same_bytes, copy_at_rest, history, litebucket, objects,
                     restore, sync)

RESTORED = "restored a database that only the bucket had"


def commit(database, *values, page_size=4096):
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute(f"PRAGMA page_size={page_size}")
    connection.execute("CREATE TABLE IF NOT EXISTS t(x)")
    for value in values:
        connection.execute("INSERT INTO t VALUES(?)", (value,))
    connection.close()


def rows(database):
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    found = [x for x, in connection.execute("SELECT x FROM t ORDER BY rowid")]
    connection.close()
    return found


def refuses(database):
    with pytest.raises(sqlite3.OperationalError, match="unable to open database file"):
        sqlite3.connect(database).execute("CREATE TABLE t(x)")


def write_first(mount, bucket, *names):
    """What the machine that is no more had."""
    with mount(bucket, name="first") as data:
        for number, name in enumerate(names):
            (data.point / name).parent.mkdir(parents=True, exist_ok=True)
            commit(data / name, number)
            sync(data / name)
    return objects(bucket)


@pytest.mark.parametrize("catalog", [True, False])
def test_an_empty_directory_gets_every_database_before_it_is_served(bucket, mount, work, catalog):
    names = ["app.db", "sub/deep/other.db", "with space=ü.db", "n" * 200 + ".db"]
    before = write_first(mount, bucket, "gone.db", *names)
    with mount(bucket, name="first") as data:
        os.unlink(data / "gone.db")
        harness.eventually(lambda: len(objects(bucket)) > len(before), 30, "it is not dropped")
    before = objects(bucket)
    if not catalog:
        bucket.remove("catalog.json")
    with mount(bucket, name="second") as data:
        assert data.log_text().count(RESTORED) == len(names)
        for number, name in enumerate(names, 1):
            assert rows(data / name) == [number]
            sync(data / name)
        assert objects(bucket) == before, "what was restored was sent again"
        assert not os.path.exists(data / "gone.db")
        for name in names:
            last = int(history(bucket, name)[-1], 16)
            commit(data / name, "more")
            assert int(sync(data / name), 16) == last + 1
        for number, name in enumerate(names):
            restore(bucket, name, work / f"restored-{number}")
            assert_same_bytes(work / f"restored-{number}",
                              copy_at_rest(data / name, work / f"expected-{number}"))
    assert before.items() <= objects(bucket).items()
    assert not list((data.directory / ".litebucket" / "incoming").iterdir())


def test_what_is_restored_belongs_to_whom_the_directory_belongs(file_bucket, mount, work):
    write_first(mount, file_bucket, "app.db", "sub/other.db")
    (work / "second").mkdir()
    os.chown(work / "second", 1234, 4321)
    (work / "second").chmod(0o2750)
    with mount(file_bucket, name="second") as data:
        for name, mode in (("app.db", 0o640), ("sub", 0o2750), ("sub/other.db", 0o640)):
            found = os.stat(data / name)
            assert (found.st_uid, found.st_gid) == (1234, 4321), name
            assert stat.S_IMODE(found.st_mode) & 0o777 == mode & 0o777, name


def test_one_that_was_removed_here_is_not_brought_back(file_bucket, mount):
    write_first(mount, file_bucket, "app.db")
    data = mount(file_bucket, name="first")
    (data.directory / "app.db").unlink()
    with data:
        assert RESTORED not in data.log_text()
        assert not os.path.exists(data / "app.db")
        harness.eventually(
            lambda: json.loads(litebucket("list", "--json", file_bucket.url,
                                          env=file_bucket.environment()).stdout)
            ["databases"][0]["state"] == "dropped", 30, "it is not dropped")


def test_what_another_machine_has_made_since_comes(file_bucket, mount, work):
    """A new name; and one that this directory had dropped."""
    write_first(mount, file_bucket, "app.db", "again.db")
    with mount(file_bucket, name="first") as data:
        os.unlink(data / "again.db")
        litebucket("sync", data / "again.db", check=False)
        harness.eventually(lambda: len(history(file_bucket, "again.db")) > 1, 30, "no drop")
    with mount(file_bucket, name="second") as data:
        assert sorted(os.listdir(data.point)) == ["app.db"]
        commit(data / "new.db", 7)
        commit(data / "again.db", 8, page_size=512)
        sync(data / "new.db")
        sync(data / "again.db")
    before = objects(file_bucket)
    with mount(file_bucket, name="first") as data:
        assert data.log_text().count(RESTORED) == 2
        assert rows(data / "new.db") == [7]
        assert rows(data / "again.db") == [8]
        for name in ("new.db", "again.db"):
            commit(data / name, 9)
            sync(data / name)
    assert before.items() <= objects(file_bucket).items()
    restore(file_bucket, "again.db", work / "restored")
    assert_intact(work / "restored")
    assert rows(work / "restored") == [8, 9]


def test_one_that_cannot_be_restored_is_closed_and_keeps_no_other(file_bucket, mount):
    write_first(mount, file_bucket, "app.db", "bad.db")
    damaged = {key: file_bucket.read(key) for key in file_bucket.keys()
               if key.startswith("bad.db/")}
    for key, content in damaged.items():
        file_bucket.write(key, content[:-40] + bytes(40))
    with mount(file_bucket, name="second") as data:
        assert rows(data / "app.db") == [0]
        refuses(data / "bad.db")
        assert not os.path.exists(data / "bad.db")
        document = json.loads(litebucket("status", "--json", data.point).stdout)
        error, = [o["error"] for o in document["databases"] if o["path"] == "bad.db"]
        for part in ("is in the bucket and not in this directory", "cannot be restored",
                     "until the next mount", ".ltx"):
            assert part in error
    for key, content in damaged.items():
        file_bucket.write(key, content)
    with mount(file_bucket, name="second") as data:
        assert rows(data / "bad.db") == [1]


def test_a_bucket_that_goes_away_meanwhile_is_not_waited_for_with_each(away, s3_bucket, mount):
    behind, proxy = away
    names = [f"{number}.db" for number in range(6)]
    write_first(mount, s3_bucket, *names)
    data = mount(behind, name="second", environment={"LITEBUCKET_SLOWPOINT": "missing-found:1500"})
    data.directory.mkdir()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        started = pool.submit(data.start)
        harness.eventually(lambda: (data.directory / "0.db").exists(), 30, "none is restored")
        proxy.cut()
        begun = time.monotonic()
        started.result()
        assert time.monotonic() - begun < 25, data.log_text()
    try:
        assert rows(data / "0.db") == [0]
        for name in names[2:]:
            refuses(data / name)
            assert not os.path.exists(data / name)
            assert f"listing the LTX files of '{name}'" not in data.log_text(), "asked again"
        proxy.mend()
    finally:
        data.stop()
    data.environment = {}
    with data:
        for number, name in enumerate(names):
            assert rows(data / name) == [number]


@pytest.mark.parametrize("side", ["-wal", "-journal"])
def test_what_is_left_of_another_database_is_not_played_into_it(file_bucket, mount, side):
    write_first(mount, file_bucket, "app.db")
    data = mount(file_bucket, name="second")
    data.directory.mkdir()
    left = data.directory / f"app.db{side}"
    left.write_bytes(b"of another one")
    with data:
        refuses(data / "app.db")
        assert f"app.db{side}' is there without its database" in data.log_text()
    assert left.read_bytes() == b"of another one"
    left.unlink()
    with data:
        assert rows(data / "app.db") == [0]


@pytest.mark.parametrize("point", ["missing-fetched", "missing-placed"])
def test_killed_while_it_restores_the_next_start_does_it(file_bucket, mount, point):
    before = write_first(mount, file_bucket, "app.db", "other.db")
    data = mount(file_bucket, name="second",
                 environment={"LITEBUCKET_FAILPOINT": f"{point}:kill:2"})
    data.directory.mkdir()
    with pytest.raises(harness.MountFailed) as failure:
        data.start()
    assert failure.value.status == -signal.SIGKILL, failure.value
    data.unmount()
    placed = sorted(path.name for path in data.directory.glob("*.db"))
    assert len(placed) == (1 if point == "missing-fetched" else 2)
    data.environment = {}
    with data:
        assert rows(data / "app.db") == [0]
        assert rows(data / "other.db") == [1]
        assert objects(file_bucket) == before
    assert not list((data.directory / ".litebucket" / "incoming").iterdir())


def test_a_stop_while_it_restores_ends_at_once(file_bucket, mount):
    write_first(mount, file_bucket, "app.db", "other.db")
    data = mount(file_bucket, name="second",
                 environment={"LITEBUCKET_SLOWPOINT": "missing-found:3000"})
    data.directory.mkdir()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        started = pool.submit(data.start)
        harness.eventually(lambda: (data.directory / ".litebucket" / "incoming").exists(), 30,
                           "it does not begin")
        time.sleep(0.2)
        begun = time.monotonic()
        data.process.terminate()
        with pytest.raises(harness.MountFailed):
            started.result()
        assert time.monotonic() - begun < 5
    data.unmount()
    assert not list(data.directory.glob("*.db"))


def test_a_name_below_our_own_directory_is_no_database(file_bucket, mount):
    write_first(mount, file_bucket, "app.db")
    for key in list(file_bucket.keys()):
        if key.startswith("app.db/"):
            file_bucket.write(key.replace("app.db/", ".litebucket/db/evil/"),
                              file_bucket.read(key))
    with mount(file_bucket, name="second") as data:
        assert rows(data / "app.db") == [0]
    assert not (data.directory / ".litebucket" / "db" / "evil").exists()


def test_a_bucket_that_litestream_wrote_is_restored_as_well(work, mount):
    replica = harness.ROOT / "tests" / "fixtures" / "litestream"
    shutil.copytree(replica / "replica", work / "bucket" / "app.db")
    bucket = harness.FileBucket(work / "bucket")
    restore(bucket, "app.db", work / "expected")
    with mount(bucket, name="data") as data:
        assert RESTORED in data.log_text()
        assert_same_bytes(pathlib.Path(data.directory / "app.db"), work / "expected")
