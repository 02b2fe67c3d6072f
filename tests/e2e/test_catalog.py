"""catalog.json: what the bucket says of itself, and who believes it when."""
import json
import pathlib
import re
import sqlite3
import time
import urllib.parse

import pytest

import harness
from harness import (assert_same_bytes, copy_at_rest, eventually, history, litebucket, restore,
                     run, sync)
from proxy import Proxy

FAILED, NOT_FOUND = 1, 3


# --- helpers

def catalog_of(bucket):
    """The catalog as it is now, or None."""
    try:
        return json.loads(bucket.read("catalog.json"))
    except Exception:  # each kind of bucket has its own way to say that there is none
        return None


def line_of(bucket, database):
    return ((catalog_of(bucket) or {}).get("databases") or {}).get(database)


def wait_for_line(bucket, database, **expected):
    def matches():
        line = line_of(bucket, database)
        return line and all(line[name] == value for name, value in expected.items()) and line
    return eventually(matches, 30, lambda: f"{database}: {expected}, but {catalog_of(bucket)}")


def listed(bucket, *options):
    result = litebucket("list", "--json", *options, bucket.url, env=bucket.environment())
    document = json.loads(result.stdout)
    return document, {db["path"]: db for db in document["databases"]}


def write(database, text, page_size=None):
    """One commit, in a database that is made if need be."""
    connection = sqlite3.connect(database, isolation_level=None)
    if page_size:
        connection.execute(f"PRAGMA page_size = {page_size}")
    connection.execute("BEGIN")
    connection.execute("CREATE TABLE IF NOT EXISTS t (x)")
    connection.execute("INSERT INTO t VALUES (?)", (text,))
    connection.execute("COMMIT")
    connection.close()


def texts(database):
    connection = sqlite3.connect(f"file:{database}?immutable=1", uri=True)
    found = [x for x, in connection.execute("SELECT x FROM t ORDER BY rowid")]
    connection.close()
    return found


def refused(status, pattern, *arguments, **options):
    result = litebucket(*arguments, check=False, **options)
    assert result.returncode == status, (result.returncode, result.stderr)
    assert re.search(pattern, result.stderr), result.stderr
    assert result.stdout == ""
    return result.stderr


def put_catalog(bucket, document):
    bucket.write("catalog.json", json.dumps(document).encode())


# --- what is written

def test_the_catalog_names_what_the_bucket_has(bucket, mount):
    with mount(bucket) as data:
        assert catalog_of(bucket) is None
        write(data / "app.db", "one")
        (data / "dir").mkdir()
        write(data / "dir" / "größe.db", "two", 512)
        sync(data / "app.db")
        sync(data / "dir" / "größe.db")
        line = wait_for_line(bucket, "app.db", state="live", page_size=4096)
        wait_for_line(bucket, "dir/gr=C3=B6=C3=9Fe.db", state="live", page_size=512)
        assert line["txid"] == line["floor"] == "0000000000000001"
        document = catalog_of(bucket)
        assert document["format"] == 1 and document["epoch"] == 1
        assert re.fullmatch("[0-9a-f]{32}", document["bucket_id"])
        id_file = pathlib.Path(data.directory, ".litebucket", "bucket")
    assert id_file.read_text() == document["bucket_id"] + "\n"
    shown, databases = listed(bucket)
    assert shown["bucket_id"] == document["bucket_id"]
    assert {path: db["state"] for path, db in databases.items()} == {
        "app.db": "live", "dir/größe.db": "live"}


def test_an_idle_mount_and_its_restart_leave_the_catalog_alone(file_bucket, mount):
    with mount(file_bucket) as data:
        write(data / "app.db", "one")
        sync(data / "app.db")
        wait_for_line(file_bucket, "app.db")
        before = file_bucket.read("catalog.json")
        write(data / "app.db", "two")
        sync(data / "app.db")
        time.sleep(2)
        assert file_bucket.read("catalog.json") == before
    with mount(file_bucket) as data:
        write(data / "app.db", "three")
        sync(data / "app.db")
    # But for the epoch, which begins with the mount.
    after = catalog_of(file_bucket)
    assert (after.pop("epoch"), after) == (2, {name: value for name, value in json.loads(before).items()
                                               if name != "epoch"})


def test_two_mounts_that_follow_each_other_keep_each_others_lines(bucket, mount):
    with mount(bucket, name="first") as first:
        for i in range(4):
            write(first / f"a{i}.db", "x")
        for i in range(4):
            sync(first / f"a{i}.db")
    with mount(bucket, name="second") as second:
        for i in range(4):
            write(second / f"b{i}.db", "x")
        for i in range(4):
            sync(second / f"b{i}.db")
    assert set(catalog_of(bucket)["databases"]) == {f"{c}{i}.db" for c in "ab" for i in range(4)}
    first_id, second_id = (pathlib.Path(m.directory, ".litebucket", "bucket").read_text()
                           for m in (first, second))
    assert first_id == second_id == catalog_of(bucket)["bucket_id"] + "\n"


# --- a drop, and a name that comes back

def test_a_dropped_database_is_shown_refused_and_restorable(bucket, mount, work):
    with mount(bucket) as data:
        write(data / "kept.db", "kept")
        for i in range(3):
            write(data / "app.db", str(i))
            last = sync(data / "app.db")
        sync(data / "kept.db")
        copy_at_rest(data / "app.db", work / "copy")
        (data / "app.db").unlink()
        line = wait_for_line(bucket, "app.db", state="dropped")
    drop = line["txid"]
    assert int(drop, 16) == int(last, 16) + 1
    _, databases = listed(bucket)
    shown = databases["app.db"]
    assert (shown["state"], shown["txid"], shown["time"]) == ("dropped", drop, line["time"])
    assert databases["kept.db"]["state"] == "live"
    table = litebucket("list", bucket.url, env=bucket.environment()).stdout
    assert re.search(rf"^app\.db +dropped .* {drop} +{re.escape(line['time'])}$", table, re.M), table

    points = json.loads(litebucket("history", "--json", bucket.url_of("app.db"),
                                   env=bucket.environment()).stdout)["points"]
    assert (points[-1]["txid"], points[-1]["kind"]) == (drop, "drop")
    table = litebucket("history", bucket.url_of("app.db"), env=bucket.environment()).stdout
    assert re.search(rf"^{drop}  {re.escape(line['time'])} +- +0 +131 B  drop$", table, re.M), table

    sentence = refused(NOT_FOUND, "dropped at", "restore", "-o", work / "out",
                       bucket.url_of("app.db"), env=bucket.environment())
    assert f"--txid {last} restores the last state before that" in sentence
    assert not (work / "out").exists()
    restore(bucket, "app.db", work / "out", last)
    assert_same_bytes(work / "out", work / "copy")


@pytest.mark.parametrize("kind, page_size",
                         [("file", 4096), ("file", 8192), ("file", 512), ("s3", 8192)])
def test_a_name_that_comes_back_goes_on_behind_the_drop(request, mount, work, judges, kind,
                                                        page_size):
    bucket = request.getfixturevalue(f"{kind}_bucket")
    copies = {}
    with mount(bucket) as data:
        for text in ("one", "two"):
            write(data / "app.db", text)
            copies[sync(data / "app.db")] = copy_at_rest(data / "app.db", work / text)
        (data / "app.db").unlink()
        drop = wait_for_line(bucket, "app.db", state="dropped")["txid"]
        write(data / "app.db", "again", page_size)
        back = sync(data / "app.db")
        copies[back] = copy_at_rest(data / "app.db", work / "again")
        write(data / "app.db", "and again")
        head = sync(data / "app.db")
        copies[head] = copy_at_rest(data / "app.db", work / "and-again")
        line = wait_for_line(bucket, "app.db", state="live", page_size=page_size)
    assert int(back, 16) == int(drop, 16) + 1
    assert line["txid"] == back
    for txid, copy in copies.items():
        restore(bucket, "app.db", work / f"at-{txid}", txid)
        assert_same_bytes(work / f"at-{txid}", copy)
    refused(NOT_FOUND, "dropped", "restore", "-o", work / "out", "--txid", drop,
            bucket.url_of("app.db"), env=bucket.environment())
    assert listed(bucket)[1]["app.db"]["state"] == "live"
    # The public judge: what came back has a snapshot of its own as its base.
    run(judges / "litestream", "restore", "-o", work / "judged", bucket.url_of("app.db"),
        env=bucket.environment())
    assert_same_bytes(work / "judged", copies[head])


def test_a_database_dropped_while_nothing_was_mounted(file_bucket, mount):
    with mount(file_bucket) as data:
        write(data / "app.db", "one")
        last = sync(data / "app.db")
        wait_for_line(file_bucket, "app.db", state="live")
    pathlib.Path(data.directory, "app.db").unlink()
    with mount(file_bucket):
        line = wait_for_line(file_bucket, "app.db", state="dropped")
    assert int(line["txid"], 16) == int(last, 16) + 1


def test_vacuum_into_another_page_size_is_in_the_catalog(file_bucket, mount, work):
    with mount(file_bucket) as data:
        write(data / "app.db", "one")
        sync(data / "app.db")
        wait_for_line(file_bucket, "app.db", page_size=4096)
        connection = sqlite3.connect(data / "app.db", isolation_level=None)
        connection.execute("PRAGMA page_size = 1024")
        connection.execute("VACUUM")
        connection.close()
        txid = sync(data / "app.db")
        line = wait_for_line(file_bucket, "app.db", page_size=1024)
        assert line["txid"] == txid and line["state"] == "live"


def test_a_rename_drops_one_name_and_makes_the_other(file_bucket, mount, work):
    with mount(file_bucket) as data:
        write(data / "old.db", "one")
        sync(data / "old.db")
        (data / "old.db").rename(data / "new.db")
        sync(data / "new.db")
        wait_for_line(file_bucket, "old.db", state="dropped")
        wait_for_line(file_bucket, "new.db", state="live")
    restore(file_bucket, "new.db", work / "out")
    assert texts(work / "out") == ["one"]


# --- a crash between the log and the catalog

@pytest.mark.parametrize("kind, point", [("file", "catalog-due"), ("file", "catalog-put"),
                                         ("file", "slot-confirmed"), ("s3", "catalog-put")])
def test_a_kill_between_log_and_catalog_is_mended(request, mount, work, kind, point):
    bucket = request.getfixturevalue(f"{kind}_bucket")
    with mount(bucket) as data:
        write(data / "kept.db", "kept")
        sync(data / "kept.db")
        wait_for_line(bucket, "kept.db")
    (work / "data" / "kept.db").unlink()
    write(work / "data" / "app.db", "one")
    data = mount(bucket, environment={"LITEBUCKET_FAILPOINT": f"{point}:kill"})
    try:
        data.start()
    except harness.MountFailed as failure:
        assert failure.status == -9
    else:
        eventually(lambda: data.process.poll() is not None, 30, "it was not killed")
        data.kill()
    data.unmount()
    # The log is believed meanwhile.
    for database in listed(bucket)[1].values():
        assert database["error"] is None
    with mount(bucket) as data:
        wait_for_line(bucket, "app.db", state="live")
        wait_for_line(bucket, "kept.db", state="dropped")


# --- whose bucket it is

def test_another_bucket_is_refused_and_nothing_is_sent(bucket, mount, work):
    other = harness.FileBucket(work / "other")
    with mount(other, name="other-data") as data:
        write(data / "theirs.db", "x")
        sync(data / "theirs.db")
    with mount(bucket) as data:
        write(data / "app.db", "one")
        sync(data / "app.db")
    before = harness.objects(other)
    with pytest.raises(harness.MountFailed, match="another bucket than before") as failure:
        mount(other).start()
    assert failure.value.status == FAILED
    assert "remove .litebucket" in failure.value.log
    assert harness.objects(other) == before
    with mount(bucket) as data:
        write(data / "app.db", "two")
        sync(data / "app.db")


def test_a_newer_format_is_refused_by_every_verb(bucket, mount, work):
    with mount(bucket) as data:
        write(data / "app.db", "one")
        sync(data / "app.db")
    put_catalog(bucket, {"format": 2})
    environment = bucket.environment()
    with pytest.raises(harness.MountFailed, match="newer litebucket") as failure:
        mount(bucket).start()
    assert failure.value.status == FAILED
    refused(FAILED, "newer litebucket", "list", bucket.url, env=environment)
    refused(FAILED, "newer litebucket", "history", bucket.url_of("app.db"), env=environment)
    refused(FAILED, "newer litebucket", "restore", "-o", work / "out", bucket.url_of("app.db"),
            env=environment)
    assert not (work / "out").exists()


def test_a_damaged_catalog_keeps_nobody_from_a_backup(bucket, mount, work):
    with mount(bucket) as data:
        write(data / "app.db", "one")
        sync(data / "app.db")
    bucket.write("catalog.json", b"{\"format\"")
    with mount(bucket) as data:
        write(data / "app.db", "two")
        sync(data / "app.db")
        data.wait_for_log("cannot write the catalog")
        status = json.loads(litebucket("status", "--json", data.point).stdout)
        assert "damaged" in status["catalog_error"]
        assert "damaged" in litebucket("status", data.point).stdout
    result = litebucket("list", "--json", bucket.url, env=bucket.environment())
    assert "warning" in result.stderr and "damaged" in result.stderr
    assert json.loads(result.stdout)["databases"][0]["state"] == "live"
    assert "warning" in restore(bucket, "app.db", work / "out").stderr
    assert texts(work / "out") == ["one", "two"]


def test_a_catalog_that_was_lost_is_made_again(file_bucket, mount):
    with mount(file_bucket) as data:
        write(data / "app.db", "one")
        sync(data / "app.db")
    identity = catalog_of(file_bucket)["bucket_id"]
    file_bucket.remove("catalog.json")
    assert listed(file_bucket)[1]["app.db"]["state"] == "live"
    with mount(file_bucket):
        wait_for_line(file_bucket, "app.db", state="live")
    assert catalog_of(file_bucket)["bucket_id"] == identity


def test_a_bucket_of_before_gets_a_catalog_at_the_first_write(file_bucket, mount, work):
    with mount(file_bucket) as data:
        write(data / "app.db", "one")
        sync(data / "app.db")
    # As the version that knew no catalog left it.
    file_bucket.remove("catalog.json")
    (work / "data" / ".litebucket" / "bucket").unlink()
    document, databases = listed(file_bucket)
    assert document["bucket_id"] is None and databases["app.db"]["state"] == "live"
    restore(file_bucket, "app.db", work / "out")
    assert history(file_bucket, "app.db")
    with mount(file_bucket) as data:
        write(data / "app.db", "two")
        sync(data / "app.db")
    assert line_of(file_bucket, "app.db")["state"] == "live"
    assert (work / "data" / ".litebucket" / "bucket").exists()


# --- log and catalog apart

def test_the_log_is_believed_where_the_catalog_is_behind(file_bucket, mount, work):
    with mount(file_bucket) as data:
        write(data / "app.db", "one")
        write(data / "gone.db", "one")
        sync(data / "app.db")
        sync(data / "gone.db")
        wait_for_line(file_bucket, "app.db")
        wait_for_line(file_bucket, "gone.db")
        (data / "gone.db").unlink()
        wait_for_line(file_bucket, "gone.db", state="dropped")
    document = catalog_of(file_bucket)
    line = document["databases"].pop("app.db")
    document["databases"]["gone.db"]["state"] = "live"
    document["databases"]["past.db"] = dict(line, state="dropped", txid="00000000000000ff")
    document["databases"]["lost.db"] = line
    put_catalog(file_bucket, document)
    result = litebucket("list", "--json", file_bucket.url, env=file_bucket.environment(), check=False)
    assert result.returncode == FAILED
    assert re.search("lost.db.*none of its LTX files", result.stderr), result.stderr
    shown = {db["path"]: db for db in json.loads(result.stdout)["databases"]}
    assert {path: db["state"] for path, db in shown.items()} == {
        "app.db": "live", "gone.db": "dropped", "past.db": "dropped", "lost.db": "unreadable"}
    assert shown["past.db"]["txid"] == "00000000000000ff"
    assert list(shown) == sorted(shown)


# --- requests

def test_a_restore_of_three_objects_takes_six_requests_at_most(s3_bucket, mount, work):
    with mount(s3_bucket, "--upload-interval", "0") as data:
        for i in range(3):
            write(data / "app.db", str(i))
            sync(data / "app.db")
    endpoint = urllib.parse.urlsplit(s3_bucket.endpoint)
    proxy = Proxy((endpoint.hostname, endpoint.port))
    try:
        url = s3_bucket.url_of("app.db", endpoint=f"http://127.0.0.1:{proxy.port}")
        txid = history(s3_bucket, "app.db")[2]
        litebucket("restore", "--txid", txid, "-o", work / "out", url, env=s3_bucket.environment())
    finally:
        proxy.close()
    assert len(proxy.requests) <= 6, proxy.requests
    assert sum("catalog.json" in path for _, path in proxy.requests) == 1, proxy.requests
