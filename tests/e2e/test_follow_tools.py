"""What people and scripts ask of replicas: status, wait, unlock; and follow's options."""
import contextlib
import json
import os
import re
import signal
import sqlite3
import stat
import subprocess
import time

import pytest

import harness
from following import ENOUGH_SECONDS, NOBODY, Follower, connect, count, wait_count
from harness import eventually, litebucket, reachable, sync

MAN = harness.ROOT / "docs" / "litebucket.1"


@pytest.fixture(name="scene")
def _scene(file_bucket, mount, work, anywhere):
    """A mount with app.db and table t in it; a follower that is not started yet."""
    with mount(file_bucket, "--upload-interval", "5ms") as data:
        writer = connect(data / "app.db")
        writer.execute("CREATE TABLE t(x)")
        sync(data / "app.db")
        yield data, writer, Follower(file_bucket, anywhere / "replica", work / "follow.log")
        writer.close()


def status(path):
    return json.loads(litebucket("status", "--json", path).stdout)


def only(document):
    assert len(document["databases"]) == 1, document
    return document["databases"][0]


def fails(code, *arguments):
    result = litebucket(*arguments, check=False)
    assert result.returncode == code, result
    assert re.match("litebucket: ", result.stderr), result.stderr
    return result.stderr


def test_status_tells_how_far_each_replica_is(scene, work):
    data, writer, follower = scene
    with follower:
        writer.execute("INSERT INTO t VALUES (1)")
        txid = sync(data / "app.db")
        assert litebucket("wait", follower / "app.db", txid).stdout == txid + "\n"
        document = status(follower.directory)
        assert document["running"] is True
        assert document["follower"] == str(follower.directory)
        assert document["requests_per_minute"] > 0 and document["bytes_per_minute"] > 0
        app = only(document)
        assert (app["path"], app["txid"], app["seen"]) == ("app.db", txid, txid)
        assert app["state"] == "following" and app["error"] is None
        assert 0 <= app["lag_seconds"] < ENOUGH_SECONDS
        assert app["wal_bytes"] > 0 and app["readers"] == 0 and app["held_back"] is False
        reader = connect(follower / "app.db")
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM t").fetchall()
        assert only(status(follower / "app.db"))["readers"] == 1
        reader.close()
        promised = MAN.read_text().split(".B follower\n(what")[1].split(".TP")[0]
        for name in [*document, *app]:
            assert name == "version" or re.search(rf"\b{name}\b", promised), name
        table = litebucket("status", follower / "app.db").stdout
        assert re.search(rf"^app\.db +following +{txid} +{txid} +\d+\.\d s ", table, re.MULTILINE), \
            table
    document = status(follower.directory)
    assert document["running"] is False
    assert (only(document)["txid"], only(document)["state"]) == (txid, "stopped")
    assert "(not running)" in litebucket("status", follower.directory).stdout
    assert "neither inside a litebucket mount nor" in fails(3, "status", work)


def test_a_damaged_object_shows_in_status_until_it_is_repaired(scene):
    data, writer, follower = scene
    bucket = follower.bucket.directory
    with follower:
        wait_count(follower / "app.db", 0)
        writer.execute("INSERT INTO t VALUES (1)")
        txid = sync(data / "app.db")
        litebucket("wait", follower / "app.db", txid)
        follower.stop()
        writer.execute("INSERT INTO t VALUES (2)")
        newest = sync(data / "app.db")
        (damaged,) = bucket.rglob(f"{newest}-{newest}.ltx")
        whole = damaged.read_bytes()
        damaged.write_bytes(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])
        follower.start()
        app = only(status(follower.directory))
        assert (app["state"], app["txid"], app["seen"]) == ("failed", txid, newest)
        assert damaged.name in app["error"]
        assert damaged.name in litebucket("status", follower.directory).stdout
        assert count(follower / "app.db") == 1
        damaged.write_bytes(whole)
        litebucket("wait", "--timeout", "60s", follower / "app.db", newest)
        eventually(lambda: only(status(follower.directory))["state"] == "following",
                   ENOUGH_SECONDS, "it stays failed")


def test_status_belongs_to_the_followers_user(scene):
    _, _, follower = scene
    with follower:
        result = subprocess.run([reachable(harness.LITEBUCKET), "status", follower.directory], user=NOBODY,
                                capture_output=True, text=True, timeout=ENOUGH_SECONDS, check=False)
        assert result.returncode == 1 and "another user's" in result.stderr, result


def test_status_of_one_that_was_killed_is_what_it_left(scene):
    data, _, follower = scene
    txid = sync(data / "app.db")
    with follower:
        follower.kill()
        document = status(follower.directory)
        assert document["running"] is False and only(document)["txid"] == txid
        follower.start()
        assert status(follower.directory)["running"] is True


def wait_in_background(*arguments, **more):
    return subprocess.Popen([reachable(harness.LITEBUCKET), "wait", *arguments], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, **more)


@pytest.mark.parametrize("user", [0, NOBODY], ids=["owner", "reader"])
def test_wait_ends_when_the_replica_has_it(scene, user):
    data, writer, follower = scene
    with follower:
        txid = sync(data / "app.db")
        wait_count(follower / "app.db", 0)
        follower.stop()
        following = f"{int(txid, 16) + 1:016x}"
        waiting = wait_in_background(follower / "app.db", following, user=user)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(3)
        follower.start()
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(0.5)
        writer.execute("INSERT INTO t VALUES (1)")
        out, err = waiting.communicate(timeout=ENOUGH_SECONDS)
        assert (waiting.returncode, out) == (0, following + "\n"), err
        assert f"it has {txid}, and no follower is running there" in err
        assert count(follower / "app.db") == 1


def test_wait_gives_up_in_words(scene, work):
    data, _, follower = scene
    with follower:
        txid = sync(data / "app.db")
        wait_count(follower / "app.db", 0)
        path = follower / "app.db"
        assert f"out of time: it has {txid}\n" in fails(1, "wait", "--timeout", "50ms", path, "ffff")
        assert "it has nothing" in fails(1, "wait", "--timeout", "50ms", follower / "no.db", "1")
        assert "'0' is no TXID" in fails(2, "wait", path, "0")
        assert "name a database in it" in fails(2, "wait", follower.directory, "1")
        assert "no follower was ever" in fails(3, "wait", work / "app.db", "1")
        (data / "app.db").unlink()
        eventually(lambda: not path.exists(), ENOUGH_SECONDS, "it is never dropped")
        assert "was dropped" in fails(3, "wait", "--timeout", "60s", path,
                                      f"{int(txid, 16) + 1:x}")
    result = litebucket("wait", "--timeout", "50ms", path, "ffff", check=False)
    assert "no follower is running there" in result.stderr


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_an_unlocked_replica_is_an_ordinary_database(scene, work, mode):
    data, writer, follower = scene
    writer.execute(f"PRAGMA journal_mode = {mode}")
    writer.execute("INSERT INTO t VALUES (1)")
    txid = sync(data / "app.db")
    path = follower / "app.db"
    with follower:
        litebucket("wait", path, txid)
        assert "stop the follower first" in fails(1, "unlock", path)
        follower.stop()
        reader = connect(path)
        assert reader.execute("SELECT count(*) FROM t").fetchone()[0] == 1
        assert "open in another program" in fails(1, "unlock", path)
        reader.close()
        assert litebucket("unlock", path).stdout == \
            f"txid={txid} journal_mode={mode} path={path}\n"
        assert not os.path.exists(f"{path}-wal") and not os.path.exists(f"{path}-shm")
        assert harness.copy_at_rest(path, work / "a").read_bytes() == \
            harness.copy_at_rest(data / "app.db", work / "b").read_bytes()
        database = connect(path)
        assert database.execute("PRAGMA journal_mode").fetchone()[0] == mode
        database.execute("INSERT INTO t VALUES (2)")
        database.close()
        assert "is no replica" in fails(1, "unlock", path)
        # It is somebody's now, so a follower leaves it alone and says so.
        writer.execute("INSERT INTO t VALUES (3)")
        sync(data / "app.db")
        follower.start()
        assert "ordinary database and no replica" in only(status(follower.directory))["error"]
        assert count(path) == 2
        # Away with it, and the bucket's comes.
        path.rename(work / "mine.db")
        wait_count(path, 2)
    assert follower.log.read_text().count("ordinary database") == 1


def test_unlocked_after_a_kill_it_has_all_that_readers_saw(scene):
    data, writer, follower = scene
    path = follower / "app.db"
    with follower:
        for number in range(20):
            writer.execute("INSERT INTO t VALUES (?)", (number,))
        txid = sync(data / "app.db")
        litebucket("wait", path, txid)
        follower.kill()
        result = litebucket("unlock", "--json", path)
        assert json.loads(result.stdout)["txid"] == txid
        assert count(path) == 20
        follower.start()


def test_unlock_that_is_killed_can_be_done_again(scene):
    data, writer, follower = scene
    path = follower / "app.db"
    with follower:
        writer.execute("INSERT INTO t VALUES (1)")
        txid = sync(data / "app.db")
        litebucket("wait", path, txid)
    killed = litebucket("unlock", path, check=False,
                        env=os.environ | {"LITEBUCKET_FAILPOINT": "unlock-sides-removed:kill:1"})
    assert killed.returncode == -signal.SIGKILL
    # It is a replica as before, complete in one file.
    assert count(path) == 1
    with contextlib.closing(connect(path)) as database:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            database.execute("INSERT INTO t VALUES (2)")
    assert litebucket("unlock", path).stdout.startswith(f"txid={txid} journal_mode=delete ")
    connect(path).execute("INSERT INTO t VALUES (2)")


def test_a_copy_of_a_replica_can_be_unlocked(scene, work):
    data, writer, follower = scene
    with follower:
        writer.execute("INSERT INTO t VALUES (1)")
        litebucket("wait", follower / "app.db", sync(data / "app.db"))
    copy = work / "copy.db"
    copy.write_bytes((follower / "app.db").read_bytes())
    result = litebucket("unlock", copy)
    assert result.stdout == f"txid=- journal_mode=wal path={copy}\n"
    assert "nothing is known of the state" in result.stderr
    connect(copy).execute("INSERT INTO t VALUES (2)")
    (work / "text").write_text("no database")
    assert "not a database" in fails(1, "unlock", work / "text")
    assert "No such file" in fails(3, "unlock", work / "nothing.db")


def test_files_have_the_mode_that_was_asked_for(scene):
    data, writer, follower = scene
    follower.options = ("--file-mode", "0644", "--pos-files")
    pos = follower / "app.db-pos"
    with follower:
        for number in range(3):
            writer.execute("INSERT INTO t VALUES (?)", (number,))
            txid = sync(data / "app.db")
            litebucket("wait", follower / "app.db", txid)
            assert re.fullmatch(txid + "/[0-9a-f]{16}\n", pos.read_text())
        for name in ("app.db", "app.db-wal", "app.db-shm", "app.db-pos"):
            assert stat.S_IMODE((follower / name).stat().st_mode) == 0o644, name
        shell = subprocess.run(["sqlite3", follower / "app.db", "SELECT count(*) FROM t"],
                               user=NOBODY, capture_output=True, text=True, timeout=ENOUGH_SECONDS,
                               check=True)
        assert shell.stdout == "3\n"
        (data / "app.db").unlink()
        eventually(lambda: not (follower / "app.db").exists() and not pos.exists(),
                   ENOUGH_SECONDS, "something stays of what was dropped")


def test_a_log_that_a_reader_holds_stands_still_at_the_hard_limit(scene):
    data, writer, follower = scene
    follower.options = ("--wal-limit", "64KiB", "--wal-hard-limit", "256KiB")
    wal = follower / "app.db-wal"
    with follower:
        reader = connect(follower / "app.db")
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM t").fetchone()[0] == 0
        for _ in range(100):
            writer.execute("INSERT INTO t VALUES (randomblob(9000))")
        txid = sync(data / "app.db")
        eventually(lambda: only(status(follower.directory))["held_back"], ENOUGH_SECONDS,
                   "nothing is held back")
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            assert wal.stat().st_size < 2 * 256 * 1024
            time.sleep(0.1)
        app = only(status(follower.directory))
        assert app["txid"] < txid and app["wal_bytes"] >= 256 * 1024
        assert "hold its -wal back" in litebucket("status", follower.directory).stdout
        assert reader.execute("SELECT count(*) FROM t").fetchone()[0] == 0
        reader.execute("COMMIT")
        litebucket("wait", "--timeout", "60s", follower / "app.db", txid)
        assert reader.execute("SELECT count(*) FROM t").fetchone()[0] == 100
        reader.close()
    assert "smaller than" in fails(2, "follow", "--wal-limit", "2MiB", "--wal-hard-limit", "1MiB",
                                   "file:///nowhere", "/tmp/nowhere")


def test_a_stop_at_any_moment_is_in_order(scene):
    _, _, follower = scene
    for number in range(20):
        follower.start()
        time.sleep(number % 5 / 1000)
        follower.process.terminate()
        assert follower.process.wait(ENOUGH_SECONDS) == 0, follower.log.read_text()
    assert not harness.SANITIZER.search(follower.log.read_text())
    assert sqlite3.connect(follower / "app.db").execute("SELECT count(*) FROM t").fetchone() == (0,)
