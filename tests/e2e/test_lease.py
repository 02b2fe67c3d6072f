"""Who writes the bucket: one mount at a time has its lease; see cli/tenure.h."""
import concurrent.futures
import contextlib
import copy
import json
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time

import pytest

import harness
import s3
from harness import OBJECT, check_restore, eventually, history_points, litebucket, objects, restore, sync

STANDING = "standing by: the databases can be read"
PROMOTED = "promoted: this node writes now"
CLOSED = "all logs are closed for older epochs"
LOST = "the lease is lost"

# For the lease itself a second or two are enough; a machine can be busy.
SOON = 20


# --- helpers

def commit(database, *values):
    connection = sqlite3.connect(database, isolation_level=None, timeout=60)
    connection.execute("CREATE TABLE IF NOT EXISTS t(x)")
    for value in values:
        connection.execute("INSERT INTO t VALUES(?)", (value,))
    connection.close()


def rows(database):
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=60)
    found = [x for x, in connection.execute("SELECT x FROM t ORDER BY rowid")]
    connection.close()
    return found


def refuses(database):
    with pytest.raises(sqlite3.OperationalError, match="unable to open database file"):
        rows(database)


def status(data):
    return json.loads(litebucket("status", "--json", data.point).stdout)


def lease(data):
    return status(data)["lease"]


def wait_for_state(data, state, seconds=60):
    return eventually(lambda: (found := lease(data))["state"] == state and found, seconds,
                      lambda: f"{lease(data)}\n{data.log_text()}")


def record(bucket):
    return json.loads(bucket.read("lock.json"))


def catalog(bucket):
    return json.loads(bucket.read("catalog.json"))


def catalog_epoch(bucket):
    """None: there is no catalog (yet)."""
    try:
        return catalog(bucket)["epoch"]
    except (FileNotFoundError, s3.S3Error):
        return None


def epochs(bucket, database="app.db"):
    """The epoch of each slot of the log, in order."""
    found = {}
    for key in bucket.keys():
        match = OBJECT.match(key)
        if match and match["db"] == database and int(match["level"]) == 0:
            found[int(match["min"], 16)] = int.from_bytes(bucket.read(key)[72:76], "big")
    assert list(found) == sorted(found)
    told = [point["epoch"] for point in history_points(bucket, database)]
    assert told == list(found.values())
    return told


def barriers(bucket, database="app.db"):
    """The epoch of each barrier in the log, in order."""
    kinds = [point["kind"] for point in history_points(bucket, database)]
    return [epoch for kind, epoch in zip(kinds, epochs(bucket, database), strict=True)
            if kind == "barrier"]


@contextlib.contextmanager
def starting(data):
    """It starts meanwhile; the start's future."""
    data.directory.mkdir(exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        started = pool.submit(data.start)
        eventually(lambda: data.process or started.done(), 30, "it is not started")
        try:
            yield started
        except BaseException:
            if data.process:
                data.process.kill()
            raise


@contextlib.contextmanager
def standing_by(data):
    """It has started as a standby."""
    with data:
        data.wait_for_log(STANDING)
        assert status(data)["role"] == "standby"
        yield


def promoted(data, seconds=60):
    """It is the primary, from its start on or by now."""
    eventually(lambda: status(data)["role"] == "primary", seconds, data.log_text)


@contextlib.contextmanager
def started_already(data):
    with contextlib.ExitStack() as stack:
        stack.push(data)
        yield


def started_as(data):
    """"primary" or "standby"."""
    return status(data)["role"]


def seconds_to(action):
    begun = time.monotonic()
    action()
    return time.monotonic() - begun


def silent(proxy):
    """For who was connected as for who comes now."""
    proxy.cut()
    proxy.mend()
    proxy.lose_replies()


def answering(proxy):
    proxy.cut()
    proxy.mend()


# --- one at a time

def test_a_second_mount_waits_and_takes_over_where_the_first_ended(bucket, mount, work):
    first = mount(bucket, "--lease-ttl", "60s", name="first")
    second = mount(bucket, name="second")
    with contextlib.ExitStack() as stack:
        stack.enter_context(first)
        commit(first / "app.db", 1)
        first.wait_for_log(CLOSED)
        stack.enter_context(standing_by(second))
        time.sleep(3)
        commit(first / "app.db", 2)
        found = lease(second)
        assert (found["state"], found["owner"], found["epoch"]) == (
            "seeking", socket.gethostname(), 1)
        for part in (socket.gethostname(), "epoch 1", "whose lease lasts until"):
            assert part in found["error"]
        assert started_as(second) == "standby"
        assert first.stop() == 0
        assert seconds_to(lambda: promoted(second)) < SOON
        assert rows(second / "app.db") == [1, 2]
        assert lease(second)["epoch"] == record(bucket)["generation"] == 2
        commit(second / "app.db", 3)
        check_restore(bucket, second, work)
        assert epochs(bucket)[-1] == 2
        assert 2 not in barriers(bucket), "the first had closed the log, and said so"


@pytest.mark.parametrize("used", [False, True], ids=["empty", "used"])
def test_of_two_that_start_at_once_one_waits(bucket, mount, work, soak, used):
    """And says for whom; what both commit in turn is one log."""
    for number in range(soak(2, 50)):
        place = copy.copy(bucket)
        place.url = bucket.url_of(f"round-{number}")
        data = [mount(place, name=f"{name}-{number}") for name in ("first", "second")]
        if used:
            with mount(place, name=f"before-{number}") as before:
                commit(before / "app.db", 0)
        with starting(data[0]) as one, starting(data[1]) as other:
            for each in (one, other):
                each.result(60)
        with started_already(data[0]), started_already(data[1]):
            roles = {started_as(each): each for each in data}
            assert set(roles) == {"primary", "standby"}, [each.log_text() for each in data]
            holder, waiter = roles["primary"], roles["standby"]
            assert STANDING not in holder.log_text()
            assert lease(holder)["state"] == "held"
            assert lease(waiter)["owner"] == socket.gethostname()
            assert socket.gethostname() in lease(waiter)["error"]
            commit(holder / "app.db", 1)
            assert holder.stop() == 0
            promoted(waiter)
            assert rows(waiter / "app.db") == [0] * used + [1]
            commit(waiter / "app.db", 2)
        for name in ("first", "second", "before"):
            shutil.rmtree(work / f"{name}-{number}", ignore_errors=True)
        restored = work / "restored"
        restored.unlink(missing_ok=True)
        litebucket("restore", "-o", restored, bucket.url_of(f"round-{number}/app.db"),
                   env=bucket.environment())
        assert rows(restored) == [0] * used + [1, 2]


def test_a_killed_one_is_succeeded_when_its_lease_is_over(bucket, mount, work):
    first = mount(bucket, "--lease-ttl", "3s", name="first")
    second = mount(bucket, name="second")
    with first:
        commit(first / "app.db", 1)
        commit(first / "other.db", 1)
        sync(first / "app.db")
        sync(first / "other.db")
        with standing_by(second):
            eventually(lambda: (second / "other.db").exists(), 30, second.log_text)
            first.kill()
            assert seconds_to(lambda: promoted(second)) < 3 + 2 + SOON
            for name in ("app.db", "other.db"):
                assert rows(second / name) == [1]
                # It was there before the first who opened the database.
                assert barriers(bucket, name)[-1] == 2
                commit(second / name, 2)
                check_restore(bucket, second, work, name)
                assert sorted(epochs(bucket, name)) == epochs(bucket, name)
            eventually(lambda: catalog_epoch(bucket) == record(bucket)["generation"] == 2, 30,
                       second.log_text)
            second.wait_for_log(CLOSED)
    assert record(bucket)["clean"]


def test_a_killed_one_that_starts_again_has_it_at_once(bucket, mount, work):
    data = mount(bucket, "--lease-ttl", "60s")
    with data:
        commit(data / "app.db", 1)
        data.wait_for_log(CLOSED)
        for epoch in (2, 3):
            sync(data / "app.db")
            data.kill()
            data.unmount()
            assert seconds_to(data.start) < SOON
            assert STANDING not in data.log_text()
            assert lease(data)["state"] == "held"
            assert lease(data)["epoch"] == record(bucket)["generation"] == epoch
            commit(data / "app.db", epoch)
            check_restore(bucket, data, work)
            assert epochs(bucket)[-1] == epoch
            # It is written behind the log, the first time in this life.
            eventually(lambda: catalog_epoch(bucket) == epoch, 30, data.log_text)
        assert not {2, 3} & set(barriers(bucket)), "what it had sent was its own"


def test_a_successor_that_is_killed_leaves_the_barriers_to_its_next_life(file_bucket, mount, work):
    """That one does not wait for the lease, which is its own; the logs are still open."""
    with mount(file_bucket, "--lease-ttl", "2s", name="first") as first:
        commit(first / "app.db", 1)
        first.wait_for_log(CLOSED)
        sync(first / "app.db")
        first.kill()
    second = mount(file_bucket, "--lease-ttl", "60s", name="second",
                   environment={"LITEBUCKET_FAILPOINT": "missing-placed:kill"})
    with starting(second) as started, pytest.raises(harness.MountFailed):
        started.result(60)
    assert record(file_bucket)["generation"] == 2
    second.environment = {}
    begun = time.monotonic()
    with second:
        assert time.monotonic() - begun < SOON
        assert rows(second / "app.db") == [1]
        assert barriers(file_bucket)[-1] == 3
        commit(second / "app.db", 2)
        check_restore(file_bucket, second, work)


@pytest.mark.parametrize("point", ["lease-put", "lease-taken"])
@pytest.mark.parametrize("again", [False, True], ids=["first", "again"])
def test_killed_while_it_takes_the_lease_it_has_it_at_once(bucket, mount, work, point, again):
    data = mount(bucket, "--lease-ttl", "60s")
    if again:
        with data:
            commit(data / "app.db", 1)
            sync(data / "app.db")
            data.kill()
            data.unmount()
    data.directory.mkdir(exist_ok=True)
    data.environment = {"LITEBUCKET_FAILPOINT": f"{point}:kill"}
    with pytest.raises(harness.MountFailed) as failure:
        data.start()
    assert failure.value.status == -signal.SIGKILL, failure.value
    data.environment = {}
    begun = time.monotonic()
    with data:
        assert time.monotonic() - begun < SOON
        assert lease(data)["epoch"] == record(bucket)["generation"] == (3 if again else 2)
        commit(data / "app.db", 2)
        check_restore(bucket, data, work)
        found = epochs(bucket)
        assert found == sorted(found)


def test_killed_while_it_renews_it_has_it_at_once(file_bucket, mount, work):
    data = mount(file_bucket, "--lease-ttl", "9s",
                 environment={"LITEBUCKET_FAILPOINT": "lease-put:kill:3"})
    with data:
        commit(data / "app.db", 1)
        eventually(lambda: data.process.poll() is not None, 60, "it is not renewed")
        data.kill()
        data.unmount()
        data.environment = {}
        data.start()
        assert STANDING not in data.log_text()
        assert rows(data / "app.db") == [1]
        check_restore(file_bucket, data, work)


def test_a_stop_ends_the_waiting(bucket, mount):
    with mount(bucket, name="first") as first:
        commit(first / "app.db", 1)
        sync(first / "app.db")
        before = record(bucket)
        second = mount(bucket, name="second")
        with standing_by(second):
            begun = time.monotonic()
            assert second.stop() == 0
            assert time.monotonic() - begun < SOON
        assert record(bucket)["holder"] == before["holder"]
        commit(first / "app.db", 2)
        sync(first / "app.db")


# --- one that lost it

HOLD = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("SELECT count(*) FROM t").fetchone()
print("open", flush=True)
for statement in sys.stdin:
    try:
        print(db.execute(statement).fetchall(), flush=True)
    except sqlite3.Error as error:
        print(error, flush=True)
"""


class Holder:
    """Another process that has a database open: ours could not start any more while the
    mount stands still, because a child closes what it inherits."""

    def __init__(self, database):
        self.process = subprocess.Popen([sys.executable, "-c", HOLD, database], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == "open\n"

    def execute(self, statement):
        print(statement, file=self.process.stdin, flush=True)
        return self.process.stdout.readline().rstrip("\n")

    def end(self):
        self.process.communicate()


def set_journal(database, journal):
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute(f"PRAGMA journal_mode={journal}")
    connection.close()


def wait_until_idle(data):
    """Neither its logs nor its catalog change after this by themselves."""
    data.wait_for_log(CLOSED)
    eventually(lambda: catalog(data.bucket)["epoch"] == lease(data)["epoch"], 30, data.log_text)
    time.sleep(2)


def check_lost(old, bucket, held, journal):
    """What is seen of a mount whose lease another one has, which stays idle."""
    before, catalog_before = objects(bucket), bucket.read("catalog.json")
    old.process.send_signal(signal.SIGCONT)
    old.wait_for_log(LOST)
    found = lease(old)
    assert found["state"] == "lost"
    assert found["epoch"] == record(bucket)["generation"]
    assert "was lost to" in found["error"]
    text = litebucket("status", old.point).stdout
    assert re.search("^lease +lost: ", text, re.MULTILINE) and "was lost to" in text
    refuses(old / "app.db")
    assert litebucket("sync", old / "app.db", check=False).returncode != 0
    # Who had it open reads on.  In the WAL it writes on, too, and that stays here.
    assert held.execute("SELECT count(*) FROM t") == "[(2,)]"
    assert held.execute("INSERT INTO t VALUES('too late')") == (
        "[]" if journal == "wal" else "unable to open database file")
    time.sleep(1)
    held.end()
    assert old.stop() == 1
    assert "the next start compares" in old.log_text()
    assert objects(bucket) == before
    assert bucket.read("catalog.json") == catalog_before


def check_back(old, bucket, work, theirs, ours):
    """It starts again, in step with the other, and what was not sent is set aside."""
    before = objects(bucket)
    with old:
        assert lease(old)["state"] == "held"
        assert rows(old / "app.db") == theirs
        assert len(re.findall("level=error.* the commits that it did not get are set aside",
                              old.log_text())) == 1
        kept, = status(old)["aside"]
        assert kept["directory"].startswith("diverged-")
        assert "app.db: commits that the bucket did not get are kept in" in (
            litebucket("status", old.point).stdout)
        kept = old.directory / ".litebucket" / "aside" / kept["directory"]
        commit(old / "app.db", "again")
        check_restore(bucket, old, work)
        assert epochs(bucket) == sorted(epochs(bucket))
    assert rows(kept / "database") == ours
    assert before.items() <= objects(bucket).items()


@pytest.mark.parametrize("kind, journal", [("file", "wal"), ("file", "delete"), ("s3", "wal")])
def test_one_that_stood_still_past_its_lease_puts_nothing(request, mount, work, kind, journal):
    bucket = request.getfixturevalue(f"{kind}_bucket")
    old = mount(bucket, "--lease-ttl", "3s", "--upload-interval", "1h", name="first")
    new = mount(bucket, name="second")
    with old:
        set_journal(old / "app.db", journal)
        commit(old / "app.db", 1)
        sync(old / "app.db")
        old.wait_for_log(CLOSED)
        # Who waited for that has asked for all there is to be sent at once.
        time.sleep(1)
        commit(old / "app.db", "not sent")
        held = Holder(old / "app.db")
        old.process.send_signal(signal.SIGSTOP)
        with new:
            promoted(new)
            assert rows(new / "app.db") == [1]
            commit(new / "app.db", 2)
            sync(new / "app.db")
            wait_until_idle(new)
            check_lost(old, bucket, held, journal)
            commit(new / "app.db", 3)
            check_restore(bucket, new, work)
    check_back(old, bucket, work, [1, 2, 3], [1, "not sent"] + ["too late"] * (journal == "wal"))


def test_a_batch_that_waited_in_the_spool_comes_too_late(away, s3_bucket, mount, work):
    """Here not only the lease is past: the put itself is tried again."""
    behind, proxy = away
    old = mount(behind, "--lease-ttl", "3s", "--upload-interval", "0", name="first")
    new = mount(s3_bucket, name="second")
    with old:
        set_journal(old / "app.db", "wal")
        commit(old / "app.db", 1)
        sync(old / "app.db")
        old.wait_for_log(CLOSED)
        proxy.cut()
        commit(old / "app.db", "not sent")
        held = Holder(old / "app.db")
        old.wait_for_log("bucket does not answer")
        old.process.send_signal(signal.SIGSTOP)
        proxy.mend()
        with new:
            promoted(new)
            assert rows(new / "app.db") == [1]
            wait_until_idle(new)
            check_lost(old, s3_bucket, held, "wal")
            commit(new / "app.db", 2)
            check_restore(s3_bucket, new, work)
            assert barriers(s3_bucket)[-1] == 2
    check_back(old, s3_bucket, work, [1, 2], [1, "not sent", "too late"])


# --- lock.json is not as it should be

@pytest.mark.parametrize("content, said", [
    (b"nonsense", "lock.json is damaged"),
    (json.dumps({"format": 99}).encode(), "lock.json has format 99"),
], ids=["damaged", "newer"])
def test_a_lock_that_cannot_be_read_is_not_overwritten(bucket, mount, content, said):
    with mount(bucket) as data:
        commit(data / "app.db", 1)
        sync(data / "app.db")
    before = record(bucket), objects(bucket)
    bucket.write("lock.json", content)
    with pytest.raises(harness.MountFailed, match=said) as failure:
        mount(bucket).start()
    assert failure.value.status == 1
    assert bucket.read("lock.json") == content
    bucket.write("lock.json", json.dumps(before[0]).encode())
    with mount(bucket) as data:
        assert rows(data / "app.db") == [1]
        sync(data / "app.db")


def test_a_lock_that_was_removed_is_made_again_with_a_new_epoch(bucket, mount, work):
    with mount(bucket, "--lease-ttl", "3s") as data:
        for name in ("app.db", "other.db"):
            commit(data / name, 1)
            sync(data / name)
        data.wait_for_log(CLOSED)
        before = {name: len(epochs(bucket, name)) for name in ("app.db", "other.db")}
        bucket.remove("lock.json")
        eventually(lambda: data.log_text().count(CLOSED) == 2, 60, data.log_text)
        found = wait_for_state(data, "held")
        assert found["epoch"] == record(bucket)["generation"] == 2
        for name, slots in before.items():
            # Nobody wrote meanwhile, so it is a barrier.
            assert epochs(bucket, name)[slots:] == [2], name
            assert barriers(bucket, name)[-1] == 2
        assert LOST not in data.log_text()
        commit(data / "app.db", 2)
        check_restore(bucket, data, work)
        assert catalog(bucket)["epoch"] == 2


def test_one_that_is_damaged_while_it_is_held_stops_no_upload(bucket, mount, work):
    """Nobody else can take it, either; who mends it is told by status."""
    with mount(bucket, "--lease-ttl", "1s") as data:
        commit(data / "app.db", 1)
        sync(data / "app.db")
        bucket.write("lock.json", b"nonsense")
        eventually(lambda: "lock.json is damaged" in (lease(data)["error"] or ""), 30, data.log_text)
        assert lease(data)["state"] == "held"
        assert "lock.json is damaged" in litebucket("status", data.point).stdout
        commit(data / "app.db", 2)
        check_restore(bucket, data, work)
        bucket.remove("lock.json")
        eventually(lambda: lease(data)["error"] is None, 30, data.log_text)
        assert record(bucket)["generation"] == lease(data)["epoch"] == 2
        commit(data / "app.db", 3)
        check_restore(bucket, data, work)


@pytest.mark.parametrize("content", [b"", b"nonsense\n", b"0123456789abcdef 1 closed\nx\n", bytes(1000)],
                         ids=["empty", "text", "half", "zeros"])
def test_one_that_does_not_know_its_former_lives_waits_for_them(file_bucket, mount, work, content):
    with mount(file_bucket, "--lease-ttl", "2s") as data:
        commit(data / "app.db", 1)
        sync(data / "app.db")
        data.kill()
        data.unmount()
        (data.directory / ".litebucket" / "lease").write_bytes(content)
        data.start()
        log = data.log_text()
        assert "level=warn" in log and "does not say who held the lease here" in log
        assert "waiting for the lease" in log and STANDING not in log
        assert rows(data / "app.db") == [1]
        assert barriers(file_bucket)[-1] == record(file_bucket)["generation"] == 2
        commit(data / "app.db", 2)
        check_restore(file_bucket, data, work)


# --- a bucket that does not answer

@pytest.mark.parametrize("before", [False, True], ids=["new", "killed"])
def test_a_start_without_an_answer_takes_it_later(away, s3_bucket, mount, work, before):
    behind, proxy = away
    data = mount(behind)
    if before:
        with data:
            commit(data / "app.db", 0)
            sync(data / "app.db")
            data.kill()
            data.unmount()
    silent(proxy)
    with data:
        commit(data / "app.db", 1)
        commit(data / "new.db", 2)
        assert lease(data)["state"] == "seeking"
        assert litebucket("status", data.point).stdout.count("\nlease   seeking") == 1
        answering(proxy)
        found = wait_for_state(data, "held")
        assert found["epoch"] == record(s3_bucket)["generation"] == 1 + before
        check_restore(s3_bucket, data, work)
        check_restore(s3_bucket, data, work, "new.db")
        assert rows(work / "restored") == [2]
        assert LOST not in data.log_text()
        commit(data / "app.db", 3)
        sync(data / "app.db")
        assert epochs(s3_bucket) == sorted(epochs(s3_bucket))
        assert epochs(s3_bucket)[-1] == 1 + before


def test_a_start_without_an_answer_finds_that_another_has_it(away, s3_bucket, mount, work):
    behind, proxy = away
    with mount(s3_bucket, name="first") as first:
        commit(first / "app.db", 1)
        sync(first / "app.db")
        first.wait_for_log(CLOSED)
        before = objects(s3_bucket)
        silent(proxy)
        second = mount(behind, name="second")
        with second:
            commit(second / "app.db", 2)
            answering(proxy)
            second.wait_for_log(LOST)
            refuses(second / "app.db")
            assert lease(second)["state"] == "lost"
            assert second.stop() == 1
        assert objects(s3_bucket) == before
        assert not [path for method, path in proxy.requests if method == "PUT" and ".ltx" in path]
        commit(first / "app.db", 3)
        check_restore(s3_bucket, first, work)


def test_nobody_notices_that_the_bucket_is_silent_for_longer_than_the_lease(away, s3_bucket, mount,
                                                                           work):
    behind, proxy = away
    with mount(behind, "--lease-ttl", "2s") as data:
        commit(data / "app.db", 0)
        sync(data / "app.db")
        data.wait_for_log(CLOSED)
        silent(proxy)
        until = time.monotonic() + 6
        number = 0
        while time.monotonic() < until:
            number += 1
            assert seconds_to(lambda: commit(data / "app.db", number)) < 5
            time.sleep(0.2)
        data.wait_for_log("the lease cannot be renewed")
        assert lease(data)["state"] == "held"
        answering(proxy)
        data.wait_for_log("the lease is renewed again", 60)
        check_restore(s3_bucket, data, work)
        assert rows(work / "restored") == list(range(number + 1))
        assert record(s3_bucket)["generation"] == lease(data)["epoch"] == 1
        assert set(epochs(s3_bucket)) == {1}
        assert LOST not in data.log_text()


def test_a_bucket_directory_that_is_away_for_longer_than_the_lease(file_bucket, mount, work):
    with mount(file_bucket, "--lease-ttl", "2s") as data:
        commit(data / "app.db", 1)
        sync(data / "app.db")
        data.wait_for_log(CLOSED)
        file_bucket.directory.rename(work / "hidden")
        commit(data / "app.db", 2)
        time.sleep(5)
        commit(data / "app.db", 3)
        (work / "hidden").rename(file_bucket.directory)
        eventually(lambda: lease(data)["state"] == "held" and not lease(data)["error"], 60,
                   lambda: f"{lease(data)}\n{data.log_text()}")
        check_restore(file_bucket, data, work)
        assert rows(work / "restored") == [1, 2, 3]
        assert record(file_bucket)["generation"] == lease(data)["epoch"] == 1
        assert LOST not in data.log_text()


# --- what is told

def test_status_says_who_has_it_and_where_writes_can_be_sent(bucket, mount):
    url = "http://node-7.example:8080/"
    with mount(bucket, "--advertise-url", url) as data:
        written = record(bucket)
        assert (written["owner"], written["url"]) == (socket.gethostname(), url)
        assert not written["released"]
        found = lease(data)
        assert found["since"] == written["acquired_at"]
        assert (found["state"], found["owner"], found["url"], found["epoch"], found["error"]) == (
            "held", socket.gethostname(), url, 1, None)
        line, = re.findall("^lease .*", litebucket("status", data.point).stdout, re.MULTILINE)
        for part in ("held", f"'{socket.gethostname()}'", "epoch 1", written["acquired_at"], url):
            assert part in line
    assert record(bucket)["released"]
    with mount(bucket) as data:
        assert lease(data)["url"] is None
        assert (lease(data)["epoch"], record(bucket)["url"]) == (2, "")


def test_it_is_renewed_while_it_is_held(file_bucket, mount):
    with mount(file_bucket, "--lease-ttl", "1s") as data:
        first = record(file_bucket)
        eventually(lambda: record(file_bucket)["serial"] >= first["serial"] + 3, 30, "not renewed")
        later = record(file_bucket)
        assert later["expires_at"] > first["expires_at"]
        assert (later["holder"], later["generation"]) == (first["holder"], first["generation"])
