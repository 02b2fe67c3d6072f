"""The program as its users meet it: help, options, exit status, mistakes."""
import json
import os
import pty
import re
import select
import signal
import socket
import sqlite3
import subprocess
import time

import pytest

import harness
from harness import LITEBUCKET, assert_same_bytes, copy_at_rest, litebucket, run, sync

OK, FAILED, USAGE, NOT_FOUND = 0, 1, 2, 3
VERBS = ["mount", "status", "sync", "follow", "wait", "unlock", "restore", "list", "history"]
MAN = harness.ROOT / "docs" / "litebucket.1"


def commit(database, text="x", size=10):
    connection = sqlite3.connect(database, isolation_level=None, timeout=10)
    connection.execute("CREATE TABLE IF NOT EXISTS t(text, body)")
    connection.execute("INSERT INTO t VALUES (?, randomblob(?))", (text, size))
    connection.close()


def fails(status, pattern, *arguments, **options):
    """The command ends so, says why on stderr, and nothing on stdout."""
    result = litebucket(*arguments, check=False, **options)
    assert result.returncode == status, (arguments, result)
    assert result.stderr.startswith("litebucket: "), result.stderr
    assert re.search(pattern, result.stderr.splitlines()[0]), result.stderr
    assert result.stdout == ""
    return result.stderr


def environment(**variables):
    return {**os.environ, **variables}


# --- help

def help_options(text):
    """{"--output": ("-o", "FILE", default)} of a verb's help."""
    found = {}
    for line in text.splitlines():
        match = re.match(r"  (?:(-\w), |    )(--[\w-]+)(?: ([A-Z]+)\S*)?  *(.*)", line)
        if match:
            letter, name, value, clause = match.groups()
            default = re.search(r" \((\w+)\)$", clause)
            found[name] = (letter, value, default and default[1])
    return found


def man_verbs():
    """The same of the man page, by verb."""
    verbs, verb, head, found = {}, None, None, None
    for line in MAN.read_text().replace("\\-", "-").splitlines():
        if line.startswith((".SS ", ".SH ")):
            verb = line[4:] if line[4:] in VERBS else None
            if verb:
                found = verbs.setdefault(verb, {})
            head = None
        elif verb and line.startswith(".B") and "--" in line:
            words = re.findall(r"[\w-]+", re.sub(r"\\f[IR]", " ", line.split(None, 1)[1]))
            letter = next((w for w in words if re.fullmatch(r"-\w", w)), None)
            head = next(w for w in words if w.startswith("--"))
            value = next((w for w in words if w.isupper()), None)
            found[head] = (letter, value, None)
        elif head and (default := re.search(r"\((\w+)\)\.$", line)):
            found[head] = (*found[head][:2], default[1])
            head = None
    return verbs


def test_help_lists_every_verb_and_succeeds():
    for option in ("--help", "-h", "help"):
        result = litebucket(option)
        assert result.stderr == ""
        assert re.findall(r"^  (\w+) ", result.stdout, re.MULTILINE) == VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb):
    result = litebucket(verb, "--help")
    assert result.stderr == ""
    assert result.stdout.startswith(f"Usage: litebucket {verb} [OPTIONS]")
    assert "--help" in help_options(result.stdout)
    assert litebucket("help", verb).stdout == result.stdout
    assert litebucket("--help", verb).stdout == result.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_the_man_page_has_the_options_of_help_and_no_others(verb):
    assert man_verbs()[verb] == help_options(litebucket(verb, "--help").stdout)


@pytest.mark.parametrize("verb", VERBS)
def test_the_man_page_has_the_usage_of_help(verb):
    operands = litebucket(verb, "--help").stdout.splitlines()[0].split("[OPTIONS] ")[1]
    synopsis = MAN.read_text().split(".SH DESCRIPTION")[0].replace('"', "")
    line = re.search(rf"litebucket {verb}\n\.RI \[ OPTIONS \](.*)", synopsis)[1]
    assert "".join(line.split()) == "".join(operands.split())


def test_the_man_page_is_well_formed():
    try:
        result = run("groff", "-ww", "-man", "-Tutf8", MAN)
    except FileNotFoundError:
        pytest.skip("no groff")
    assert result.stderr == ""


def test_version():
    for option in ("--version", "-V", "version"):
        assert re.fullmatch(r"litebucket \d+\.\d+\.\d+\n", litebucket(option).stdout)


# --- mistakes on the command line

MISTAKES = [
    (["monut"], "unknown verb 'monut'; is it mount\\?"),
    (["elephant"], "unknown verb 'elephant'; see litebucket --help"),
    (["mount"], "mount: DIR is missing"),
    (["mount", "/dir"], "mount: BUCKET is missing"),
    (["mount", "/dir", "file:///b", "more"], "'more' is one argument too many"),
    (["mount", "file:///b", "/dir"], "the directory comes first"),
    (["mount", "file:///b", "file:///c"], "'file:///b' is a URL"),
    (["mount", "/dir", "file:///b", "--upload-interva", "1s"], "is it --upload-interval\\?"),
    (["mount", "/dir", "file:///b", "--upload-interval", "1"], "'1' is no duration"),
    (["mount", "/dir", "file:///b", "--upload-connections", "0"], "'0' is not a number"),
    (["mount", "/dir", "file:///b", "--ready-fd", "777"], "777 is not open"),
    (["mount", "/dir", "file:///b", "--log-level", "loud"], "'loud' is no log level"),
    (["mount", "/dir", "file:///b", "--adopt", "foo"], "--adopt: 'foo' is neither local nor bucket"),
    (["restore"], "BUCKET/DB is missing"),
    (["restore", "file:///b/db"], "--output FILE is missing"),
    (["restore", "file:///b/db", "-o"], "-o needs a value"),
    (["restore", "file:///b/db", "-o", "--force"], "-o needs a value"),
    (["restore", "file:///b/db", "-o", "-"], "standard output"),
    (["restore", "db", "-o", "file:///b/db"], "looks like a URL"),
    (["restore", "file:///b/db", "-o", "x", "--txid", "xyz"], "'xyz' is no TXID.*like 0000"),
    (["restore", "file:///b/db", "-o", "x", "--txid", "0"], "'0' is no TXID"),
    (["restore", "file:///b/db", "-o", "x", "--timestamp", "noon"], "'noon' is no time.*2006"),
    (["restore", "file:///b/db", "-o", "x", "--txid", "1", "--timestamp", "2006-01-02T15:04:05Z"],
     "give one"),
    (["restore", "/b/db", "-o", "x"], "file://"),
    (["restore", "file:///b/db?endpoint=x", "-o", "x"], "."),
    (["list"], "BUCKET is missing"),
    (["list", ""], "BUCKET is empty"),
    (["list", "ftp://host"], "ftp"),
    (["sync"], "PATH is missing"),
]


@pytest.mark.parametrize("arguments, pattern", MISTAKES,
                         ids=[" ".join(arguments) for arguments, _ in MISTAKES])
def test_a_mistake_is_explained(arguments, pattern):
    stderr = fails(USAGE, pattern, *arguments)
    assert len(stderr.splitlines()) <= 2


def test_no_arguments_at_all_is_a_mistake_that_shows_the_verbs():
    result = litebucket(check=False)
    assert result.returncode == USAGE
    assert result.stdout == ""
    assert all(f"  {verb} " in result.stderr for verb in VERBS)


def test_names_cannot_break_the_line_of_an_error():
    stderr = fails(USAGE, "unknown verb", "a\nb\x1b[31m")
    assert len(stderr.splitlines()) == 1 and "\x1b" not in stderr


# --- environment

def test_an_option_comes_from_the_environment_and_the_command_line_wins(work):
    fails(USAGE, "LITEBUCKET_TXID: 'xyz' is no TXID", "restore", "file:///b/db", "-o", "x",
          env=environment(LITEBUCKET_TXID="xyz"))
    fails(NOT_FOUND, "nowhere", "restore", f"file://{work}/nowhere/db", "--txid", "1",
          env=environment(LITEBUCKET_TXID="xyz", LITEBUCKET_OUTPUT=str(work / "db")))


@pytest.mark.parametrize("verb, options", [("mount", ["force", "adopt"]), ("restore", ["force"])])
def test_what_is_dangerous_is_taken_from_the_command_line_only(work, verb, options):
    but = " and ".join(f"--{option}" for option in options)
    assert f"Every option but {but} can also come from" in litebucket(verb, "--help").stdout
    variables = {f"LITEBUCKET_{option.upper()}": "bucket" for option in options}
    arguments = {"mount": ["mount", work / "nowhere", f"file://{work}/bucket"],
                 "restore": ["restore", "-o", work / "db", f"file://{work}/nowhere/db"]}[verb]
    stderr = fails(NOT_FOUND, "warning", *arguments, env=environment(**variables))
    assert "nowhere" in stderr.splitlines()[-1]
    for option in options:
        assert (f"warning: LITEBUCKET_{option.upper()} in the environment is ignored: --{option} "
                "is taken from the command line only") in stderr


def test_a_forced_restore_is_not_forced_by_a_variable(example, file_bucket, work):
    sync(example[1])
    (work / "db").write_text("mine")
    stderr = fails(FAILED, "warning", "restore", "-o", work / "db",
                   file_bucket.url_of("sub dir/my app.db"), env=environment(LITEBUCKET_FORCE="true"))
    assert "exists" in stderr.splitlines()[-1]
    assert (work / "db").read_text() == "mine"


def test_a_misspelt_variable_gives_a_warning(work):
    (work / "bucket").mkdir()
    result = litebucket("list", "--json", f"file://{work}/bucket",
                        env=environment(LITEBUCKET_UPLOAD_INTERVALL="0", LITEBUCKET_JSON="",
                                        LITEBUCKET_UPLOAD_INTERVAL="0"))
    assert result.stderr.splitlines() == [
        "litebucket: warning: LITEBUCKET_UPLOAD_INTERVALL in the environment is no option of any "
        "verb; ignoring it"]


# --- results

def test_results_that_cannot_be_written_are_a_failure():
    with open("/dev/full", "w", encoding="utf-8") as full:
        result = subprocess.run([LITEBUCKET, "--help"], stdout=full, stderr=subprocess.PIPE,
                                text=True, check=False)
    assert result.returncode == FAILED
    assert "standard output" in result.stderr


def test_an_empty_bucket_lists_nothing(work):
    (work / "bucket").mkdir()
    url = f"file://{work}/bucket"
    result = litebucket("list", url)
    assert result.stdout == "" and "no databases" in result.stderr
    assert json.loads(litebucket("list", "--json", url).stdout) == {
        "version": 1, "bucket": url, "bucket_id": None, "databases": []}
    fails(NOT_FOUND, "app.db", "history", f"{url}/app.db")


def man_json(verb):
    """The names that the man page promises of a document."""
    section = MAN.read_text().split(".SH JSON")[1].split(".SH EXIT")[0]
    text = section.split(f".B {verb}\n")[1].split(".TP")[0]
    text = re.sub(r"\(.*?\)|^\.RB \(.*|\\f[IR]", "", text, flags=re.MULTILINE)
    return set(re.findall(r"\b[a-z_]+\b", text)) & set(re.findall(r"[a-z_]+", text)) - {
        "and", "each", "with", "used", "the", "of", "as", "in"}


def names(document):
    found = set(document) - {"version"}
    for value in document.values():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                found |= set(item)
    return found


@pytest.fixture
def example(file_bucket, mount):
    """A mount with one database in a directory, both with blanks in the name."""
    with mount(file_bucket, name="my data") as data:
        (data / "sub dir").mkdir()
        commit(data / "sub dir" / "my app.db")
        yield data, data / "sub dir" / "my app.db"


def test_documents_have_the_names_that_the_man_page_promises(example, file_bucket, work):
    data, database = example
    url = file_bucket.url_of("sub dir/my app.db")
    documents = {
        "sync": ["sync", database], "status": ["status", data.point], "list": ["list", file_bucket.url],
        "history": ["history", url], "restore": ["restore", "-o", work / "restored", url]}
    replica = work / "replica" / "sub dir" / "my app.db"
    litebucket("follow", "--once", file_bucket.url, work / "replica")
    documents["wait"] = ["wait", replica, "1"]
    documents["unlock"] = ["unlock", replica]
    for verb, command in documents.items():
        document = json.loads(litebucket(*command, "--json").stdout)
        assert document["version"] == 1
        assert names(document) == man_json(verb), verb


def test_names_with_blanks_go_all_the_way(bucket, mount, work):
    name = "2024/sub dir/my app\u00e9.db"
    with mount(bucket, name="my data") as data:
        (data / name).parent.mkdir(parents=True)
        commit(data / name)
        txid = sync(data / name)
        expected = copy_at_rest(data / name, work / "expected")
        status, = json.loads(litebucket("status", "--json", data.point).stdout)["databases"]
    assert (status["path"], status["txid"], status["confirmed"], status["state"]) == (
        name, txid, txid, "idle")
    known = {"env": bucket.environment()}
    listed, = json.loads(litebucket("list", "--json", bucket.url, **known).stdout)["databases"]
    assert (listed["path"], listed["txid"], listed["state"]) == (name, txid, "live")
    line = litebucket("restore", "-o", work / "re stored", bucket.url_of(name), **known).stdout
    assert re.fullmatch(rf'txid={txid} time=\S+Z size=\d+ path="{work}/re stored"\n', line)
    assert_same_bytes(work / "re stored", expected)
    # The name that it has in the bucket is right as well.
    litebucket("restore", "-o", work / "again", bucket.url_of(listed["key"]), **known)
    assert_same_bytes(work / "again", expected)
    fails(NOT_FOUND, "there is no", "history", bucket.url_of("2024/sub dir/nothing"), **known)


def test_a_name_that_no_url_may_hold_is_restored_nevertheless(file_bucket, mount, work):
    with mount(file_bucket) as data:
        commit(data / "two\nlines.db")
        sync(data / "two\nlines.db")
        expected = copy_at_rest(data / "two\nlines.db", work / "expected")
    url = file_bucket.url_of("two\nlines.db")
    litebucket("restore", "-o", work / "restored", url)
    assert_same_bytes(work / "restored", expected)
    fails(USAGE, "control character", "history", file_bucket.url_of("no\nname.db"))


def test_tables_show_what_the_documents_hold(example, file_bucket):
    data, database = example
    txid = sync(database)
    for command in (["status", data.point], ["list", file_bucket.url],
                    ["history", file_bucket.url_of("sub dir/my app.db")]):
        text = litebucket(*command).stdout
        assert txid in text
        assert all(line == line.rstrip() for line in text.splitlines())


def test_status_of_a_part_shows_that_part(example):
    data, database = example
    commit(data / "other.db")
    sync(data / "other.db")

    def paths(path, **options):
        document = json.loads(litebucket("status", "--json", *path, **options).stdout)
        return [db["path"] for db in document["databases"]]

    assert paths([data.point]) == ["other.db", "sub dir/my app.db"]
    assert paths([f"{data.point}/sub dir/"]) == ["sub dir/my app.db"]
    assert paths([data / "other.db"]) == ["other.db"]
    assert paths([], cwd=data / "sub dir") == ["sub dir/my app.db"]
    assert paths(["."], cwd=data.point) == ["other.db", "sub dir/my app.db"]


def test_a_quiet_restore_says_nothing(example, file_bucket, work):
    _, database = example
    sync(database)
    result = litebucket("restore", "--quiet", "-o", work / "db",
                        file_bucket.url_of("sub dir/my app.db"))
    assert result.stdout == result.stderr == ""
    assert (work / "db").stat().st_mode & 0o777 == 0o600


def on_a_terminal(*command):
    """Run a command with a terminal for stderr; what it showed there."""
    terminal, child = pty.openpty()
    process = subprocess.Popen([str(part) for part in command], stderr=child,
                               stdout=subprocess.DEVNULL, env=environment(TERM="xterm"))
    os.close(child)
    shown = b""
    try:
        while data := os.read(terminal, 4096):
            shown += data
    except OSError:
        pass
    os.close(terminal)
    assert process.wait(60) == 0
    return shown.decode()


def test_a_restore_shows_its_progress_on_a_terminal_only(example, file_bucket, work):
    data, _ = example
    commit(data / "big.db", size=5_000_000)
    sync(data / "big.db")
    url = file_bucket.url_of("big.db")
    shown = on_a_terminal(LITEBUCKET, "restore", "-o", work / "one", url)
    assert "\rrestoring " in shown and shown.endswith("\r\x1b[K")
    assert on_a_terminal(LITEBUCKET, "restore", "--quiet", "-o", work / "two", url) == ""
    assert litebucket("restore", "-o", work / "three", url).stderr == ""


def test_an_interrupted_restore_leaves_nothing(example, file_bucket, work):
    data, _ = example
    commit(data / "big.db", size=60_000_000)
    sync(data / "big.db")
    out = work / "out"
    out.mkdir()
    for _ in range(20):
        process = subprocess.Popen(
            [LITEBUCKET, "restore", "-o", out / "db", file_bucket.url_of("big.db")],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # Only now is there something that could be left.
        while process.poll() is None and not any(out.glob(".db*")):
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        if process.wait(60) == -signal.SIGINT:
            break
        (out / "db").unlink()
    else:
        pytest.fail("no restore could be interrupted")
    assert list(out.iterdir()) == []


# --- mount: where

def mount_refused(status, pattern, directory, bucket, *options, **keywords):
    return fails(status, pattern, "mount", *options, directory, bucket, **keywords)


def test_a_directory_that_cannot_be_mounted_is_refused(work):
    bucket = f"file://{work}/bucket"
    mount_refused(NOT_FOUND, "nowhere.*create it", work / "nowhere", bucket)
    (work / "file").write_text("")
    mount_refused(FAILED, "[Nn]ot a directory", work / "file", bucket)
    mount_refused(FAILED, "proc", "/proc/self", bucket)
    assert not (work / "bucket").exists()


def test_a_mountpoint_that_cannot_be_is_refused(work):
    (work / "data" / "inside").mkdir(parents=True)
    bucket = f"file://{work}/bucket"
    mount_refused(USAGE, "lies inside", work / "data", bucket, "--mountpoint",
                  work / "data" / "inside")
    mount_refused(NOT_FOUND, "--mountpoint '.*nowhere'", work / "data", bucket, "--mountpoint",
                  work / "nowhere")
    (work / "file").write_text("")
    mount_refused(FAILED, "--mountpoint '.*file' is no directory", work / "data", bucket,
                  "--mountpoint", work / "file")


def test_without_fuse_a_mount_fails_and_is_not_missing(work):
    (work / "data").mkdir()
    (work / "bucket").mkdir()
    hidden = run("unshare", "-m", "true", check=False)
    if hidden.returncode != 0:
        pytest.skip(f"no namespace of our own here: {hidden.stderr.strip()}")
    result = run("unshare", "-m", "sh", "-c", 'mount -t tmpfs none /dev && exec "$@"', "sh",
                 LITEBUCKET, "mount", work / "data", f"file://{work}/bucket", check=False)
    assert result.returncode == FAILED and "/dev/fuse" in result.stderr, result.stderr


def test_a_bucket_and_a_directory_that_hold_each_other_are_refused(work):
    (work / "data").mkdir()
    (work / "link").symlink_to("data")
    for path in ("data", "data/backup", "link/backup", ""):
        mount_refused(USAGE, "apart", work / "data", f"file://{work}/{path}")
    assert list((work / "data").iterdir()) == []


def test_a_live_mount_is_not_mounted_again(example, work):
    data, _ = example
    for path in (data.point, data / "sub dir"):
        mount_refused(FAILED, "already", path, f"file://{work}/other")
    assert not (work / "other").exists()


def test_a_directory_above_a_live_mount_is_refused(example, work):
    data, _ = example
    mount_refused(FAILED, f"at '{re.escape(str(data.point))}'", work,
                  f"file://{work.parent}/other-bucket")


def test_relative_paths_and_slashes_mean_what_they_say(file_bucket, work):
    (work / "data").mkdir()
    ready, child = os.pipe()
    with open(work / "log", "wb") as log:
        process = subprocess.Popen(
            [LITEBUCKET, "mount", "data//", "--ready-fd", str(child), file_bucket.url],
            cwd=work, pass_fds=[child], stderr=log)
    os.close(child)
    try:
        assert os.read(ready, 64) == b"ready\n", (work / "log").read_text()
        assert os.read(ready, 64) == b"", "the descriptor is not closed"
        assert harness.is_mounted(work / "data")
        commit(work / "data" / "app.db")
        result = litebucket("sync", "./data/app.db", cwd=work)
        assert re.fullmatch(r"[0-9a-f]{16}\n", result.stdout)
    finally:
        os.close(ready)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, (work / "log").read_text()
    assert not harness.is_mounted(work / "data")


def test_what_is_no_database_is_not_synced_and_not_remembered(file_bucket, mount):
    with mount(file_bucket) as data:
        (data / "directory").mkdir()
        (data / "text").write_text("no database")
        for name in ("directory", "text", "."):
            fails(NOT_FOUND, "not a database", "sync", data / name)
        status = json.loads(litebucket("status", "--json", data.point).stdout)
    assert status["databases"] == []
    assert "not sealed" not in data.log_text()


def test_a_mount_elsewhere(file_bucket, mount, work):
    data = mount(file_bucket, mountpoint=work / "point")
    with data:
        commit(work / "point" / "app.db")
        sync(work / "point" / "app.db")
        assert (work / "data" / "app.db").exists()
        document = json.loads(litebucket("status", "--json", work / "point").stdout)
        assert document["mount"] == str(work / "point")
        assert document["directory"] == str(work / "data")
    assert list((work / "point").iterdir()) == []


# --- mount: beginning and end

def test_systemd_is_told(file_bucket, mount, work):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(work / "notify"))
        notify.settimeout(30)
        with mount(file_bucket, environment={"NOTIFY_SOCKET": str(work / "notify")}):
            assert notify.recv(256) == b"READY=1"
        assert notify.recv(256) == b"STOPPING=1"


def test_an_option_of_the_mount_comes_from_the_environment(file_bucket, mount):
    with mount(file_bucket, environment={"LITEBUCKET_LOG_LEVEL": "error"}) as data:
        assert "msg=mounted" not in data.log_text()
    with mount(file_bucket, "--log-level=info",
               environment={"LITEBUCKET_LOG_LEVEL": "error"}) as data:
        assert "msg=mounted" in data.log_text()


def test_umount_ends_the_daemon_in_order(file_bucket, mount, work):
    with mount(file_bucket, "--upload-interval", "1h") as data:
        commit(data / "app.db", "one")
        sync(data / "app.db")
        commit(data / "app.db", "two")
        run("umount", data.point)
        process = data.forget_process()
        assert process.wait(60) == 0
    litebucket("restore", "-o", work / "db", file_bucket.url_of("app.db"))
    rows = sqlite3.connect(work / "db").execute("SELECT text FROM t").fetchall()
    assert rows == [("one",), ("two",)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_uploads_what_is_pending(file_bucket, mount, work, number):
    with mount(file_bucket, "--upload-interval", "1h") as data:
        commit(data / "app.db", "one")
        sync(data / "app.db")
        commit(data / "app.db", "two")
        process = data.forget_process()
        process.send_signal(number)
        assert process.wait(60) == 0
        assert not harness.is_mounted(data.point)
    litebucket("restore", "-o", work / "db", file_bucket.url_of("app.db"))
    rows = sqlite3.connect(work / "db").execute("SELECT text FROM t").fetchall()
    assert rows == [("one",), ("two",)]


@pytest.fixture
def unsteady(work):
    """A bucket on a disk of its own, that cut() makes refuse all writing."""
    directory = work / "unsteady"
    directory.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "unsteady", directory], stderr=subprocess.PIPE,
                          text=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"no file system of our own here: {made.stderr.strip()}")
    yield harness.FileBucket(directory)
    run("umount", directory)


def cut(bucket):
    run("mount", "-o", "remount,ro", bucket.directory)


def mend(bucket):
    run("mount", "-o", "remount,rw", bucket.directory)


def trouble(point):
    """The status of the only database, if it has an error."""
    database, = json.loads(litebucket("status", "--json", point).stdout)["databases"]
    return database if database["error"] else None


def test_what_stays_in_the_spool_is_reported_and_a_failure(unsteady, mount, work):
    with mount(unsteady, "--stop-timeout", "500ms") as data:
        commit(data / "app.db", "one")
        sync(data / "app.db")
        cut(unsteady)
        commit(data / "app.db", "two")
        status = harness.eventually(lambda: trouble(data.point), 30, "status shows no trouble")
        assert status["state"] == "retrying" and status["spool_batches"] == 1, status
        assert 0 < status["lag_seconds"] < 30 and status["spool_bytes"] > 0, status
        text = litebucket("status", "--json", data.point).stdout
        assert re.search(r'"lag_seconds": \d+\.\d{1,3},\n', text), text
        started = time.monotonic()
        assert data.stop() == FAILED
        assert time.monotonic() - started < 10
        assert re.search(r'level=error .*next mount will send it.* db=app.db .*batches=1',
                         data.log_text()), data.log_text()
    mend(unsteady)
    with mount(unsteady):
        pass
    litebucket("restore", "-o", work / "db", unsteady.url_of("app.db"))
    rows = sqlite3.connect(work / "db").execute("SELECT text FROM t").fetchall()
    assert rows == [("one",), ("two",)]


def test_a_second_signal_ends_at_once(unsteady, mount, work):
    with mount(unsteady, "--stop-timeout", "1h") as data:
        commit(data / "app.db", "one")
        sync(data / "app.db")
        cut(unsteady)
        commit(data / "app.db", "two")
        process = data.forget_process()
        process.terminate()
        data.wait_for_log("msg=stopping")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.terminate()
        assert process.wait(10) == FAILED
        assert not harness.is_mounted(data.point)


def test_a_second_signal_does_not_wait_for_open_files(file_bucket, mount, work):
    with mount(file_bucket, "--stop-timeout", "1h") as data:
        commit(data / "app.db", "one")
        with open(data / "app.db", "rb"):
            process = data.forget_process()
            process.terminate()
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1)
            assert harness.is_mounted(data.point)
            process.terminate()
            process.wait(10)
            with pytest.raises(OSError):
                os.statvfs(data.point)
        assert "msg=stopped" in data.log_text(), "it did not end in order"


def test_a_sync_that_waits_ends_when_the_mount_does(unsteady, mount, work):
    with mount(unsteady, "--stop-timeout", "1s") as data:
        commit(data / "app.db", "one")
        sync(data / "app.db")
        cut(unsteady)
        commit(data / "app.db", "two")
        waiting = subprocess.Popen([LITEBUCKET, "sync", data / "app.db"], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        readable, _, _ = select.select([waiting.stdout], [], [], 1.5)
        assert not readable, "sync did not wait for the bucket"
        assert data.stop() == FAILED
        out, err = waiting.communicate(timeout=30)
        assert waiting.returncode == FAILED and out == ""
        assert re.fullmatch(r"litebucket: syncing .*stopped.*\n", err), err
        assert "msg=stopped" in data.log_text(), "it did not end in order"


def test_a_database_that_was_copied_over_needs_no_quiet_time_at_the_end(file_bucket, mount, work):
    commit(work / "app.db", "copied", size=100_000)
    with mount(file_bucket, "--upload-interval", "1h") as data:
        commit(data / "app.db", "one")
        sync(data / "app.db")
        (data / "app.db").write_bytes((work / "app.db").read_bytes())
        assert data.stop() == OK
    litebucket("restore", "-o", work / "db", file_bucket.url_of("app.db"))
    assert_same_bytes(work / "db", work / "app.db")


# --- a store that is not there, or not good enough

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "not-to-be-seen"}


class AnyBucket:
    """A URL and some credentials."""

    def __init__(self, url):
        self.url = url

    def environment(self):
        return environment(**CREDENTIALS)


def test_a_mount_starts_and_takes_commits_without_its_bucket(mount):
    """Nobody listens on port 1."""
    bucket = AnyBucket("s3://nobody/p?endpoint=http://127.0.0.1:1")
    with mount(bucket, "--stop-timeout", "500ms") as data:
        data.wait_for_log("level=warn")
        commit(data / "app.db")
        status = harness.eventually(lambda: trouble(data.point), 30, "status shows no trouble")
        assert status["state"] == "retrying" and status["confirmed"] is None
        started = time.monotonic()
        assert data.stop() == FAILED
        assert time.monotonic() - started < 10
        assert "not-to-be-seen" not in data.log_text()


def test_a_mount_without_credentials_is_refused(work):
    (work / "data").mkdir()
    mount_refused(FAILED, "AWS_ACCESS_KEY_ID", work / "data", "s3://name/prefix")
    assert list((work / "data").iterdir()) == []
