"""Whatever is a database and not replicated is named, with the reason."""
import json
import os
import pathlib
import re
import sqlite3

import pytest

from harness import assert_same_bytes, copy_at_rest, eventually, litebucket, restore, run, sync

FAILED = 1

# 255 bytes are a name's limit below; each "ö" takes six in a key.
TOO_LONG = {
    "escapes": "ö" * 100 + ".db",
    "directories": "/".join(["ö" * 40] * 4) + "/app.db",
}


def write(database, text):
    connection = sqlite3.connect(os.fsencode(database), isolation_level=None)
    connection.execute("CREATE TABLE IF NOT EXISTS t (x)")
    connection.execute("INSERT INTO t VALUES (?)", (text,))
    connection.close()


def status_of(mount):
    document = json.loads(litebucket("status", "--json", mount.point).stdout)
    return {db["path"]: db for db in document["databases"]}


@pytest.mark.parametrize("name", TOO_LONG.values(), ids=TOO_LONG.keys())
def test_a_name_too_long_for_a_key_is_named_with_the_reason(file_bucket, mount, work, name):
    with mount(file_bucket) as data:
        write(data / "app.db", "replicated")
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        write(data / name, "not replicated")
        sync(data / "app.db")
        shown = eventually(lambda: status_of(data).get(name), 30, "it is not named")
        assert shown["state"] == "stopped" and shown["confirmed"] is None
        assert "too long for keys in a bucket" in shown["error"]
        assert "too long for keys" in litebucket("status", data.point).stdout
        assert status_of(data)["app.db"]["error"] is None
        assert re.search("level=error.*too long", data.log_text())
        result = litebucket("sync", data / name, check=False)
        assert result.returncode == FAILED and "too long" in result.stderr

        # Its applications go on; under a name that is short enough it is uploaded.
        write(data / name, "still not")
        (data / name).rename(data / "short.db")
        sync(data / "short.db")
        copy_at_rest(data / "short.db", work / "copy")
        eventually(lambda: name not in status_of(data), 30, "it is named, and gone")
    restore(file_bucket, "short.db", work / "restored")
    assert_same_bytes(work / "restored", work / "copy")
    assert not any(key.startswith("=C3") for key in file_bucket.keys())


def test_it_is_named_again_after_a_restart(file_bucket, mount):
    name = TOO_LONG["escapes"]
    directory = mount(file_bucket).directory
    directory.mkdir()
    write(directory / name, "x")
    for _ in range(2):
        with mount(file_bucket) as data:
            assert "too long" in status_of(data)[name]["error"]


@pytest.mark.parametrize("name", ["n" * 197 + ".db", "ö" * 40 + ".db"], ids=["plain", "escapes"])
def test_long_names_that_fit_are_replicated(bucket, mount, work, name):
    with mount(bucket) as data:
        write(data / name, "x")
        sync(data / name)
        copy_at_rest(data / name, work / "copy")
        assert status_of(data)[name]["error"] is None
    restore(bucket, name, work / "restored")
    assert_same_bytes(work / "restored", work / "copy")


def test_a_name_that_is_no_utf8_is_replicated_and_shown(bucket, mount, work):
    raw = b"caf\xe9 \xff.db"
    with mount(bucket) as data:
        path = pathlib.Path(os.fsdecode(os.fsencode(data.point) + b"/" + raw))
        write(path, "x")
        sync(path)
        run("cp", path, work / "copy")
        shown = status_of(data)["caf\ufffd \ufffd.db"]
        assert shown["error"] is None and shown["confirmed"]
    listed = json.loads(litebucket("list", "--json", bucket.url, env=bucket.environment()).stdout)
    assert [(db["path"], db["key"]) for db in listed["databases"]] == [
        ("caf\ufffd \ufffd.db", "caf=E9=20=FF.db")]
    assert "caf=E9=20=FF.db" in json.loads(bucket.read("catalog.json"))["databases"]
    url = bucket.url_of("X").replace("/X", "/caf%E9%20%FF.db")
    litebucket("restore", "-o", work / "restored", url, env=bucket.environment())
    assert_same_bytes(work / "restored", work / "copy")
