"""Two nodes that take turns as the primary, with commits that wait for the bucket.

A history checker: whatever was acknowledged, by either, is in the final restore, and in
an order that everybody who was acknowledged has seen.
"""
import contextlib
import copy
import json
import os
import pathlib
import random
import re
import signal
import sqlite3
import subprocess
import threading
import time
import urllib.parse

import pytest

import bank
import harness
from conftest import required
from harness import LITEBUCKET, restore, sync
from proxy import Proxy

TTL_SECONDS = 2
BANK = harness.ROOT / "tests" / "lib" / "bank.py"


class Clock:
    """A wall clock that is wrong, by libfaketime; the monotonic one is as it is."""

    def __init__(self, file, library):
        self.file, self.library = file, library
        self.jump()

    def jump(self):
        new = self.file.with_suffix(".new")
        new.write_text(random.choice(["-1h", "-61m", "-5s", "+5s", "+20m", "+1h", "+90m"]))
        new.rename(self.file)

    def environment(self):
        options = os.environ.get("ASAN_OPTIONS", "")
        return {"LD_PRELOAD": self.library, "FAKETIME_TIMESTAMP_FILE": str(self.file),
                "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_FORCE_MONOTONIC_FIX": "0", "NO_FAKE_STAT": "1",
                "ASAN_OPTIONS": f"{options}:verify_asan_link_order=0".lstrip(":")}


class Node:
    """A machine: its mount is started again whenever it ends, and its client with it.

    What a supervisor does, this does: a mount that has lost its lease is ended.
    """

    def __init__(self, bucket, work, name, proxy=None, clock=None):
        self.bucket, self.name, self.proxy = bucket, name, proxy
        self.clock = clock and Clock(work / f"{name}.clock", clock)
        self.directory = work / name
        self.directory.mkdir(exist_ok=True)
        self.log = work / f"{name}.log"
        self.notes = work / f"{name}.notes"
        self.process = self.client = None
        self.serves = False
        self.turns = 0
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.supervise)

    def mount(self):
        command = [LITEBUCKET, "mount", "--durability", "bucket", "--lease-ttl", f"{TTL_SECONDS}s",
                   "--upload-interval", "1h", "--stop-timeout", "3s", self.directory, self.bucket.url]
        with open(self.log, "ab") as log:
            begin = log.tell()
            environment = self.clock.environment() if self.clock else {}
            self.process = subprocess.Popen(
                [str(part) for part in command], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                env={**self.bucket.environment(), **environment})
        return begin

    def said(self, begin):
        with open(self.log, "rb") as log:
            log.seek(begin)
            return log.read()

    def serve(self):
        self.serves = True
        self.turns += 1
        self.client = subprocess.Popen(["/usr/bin/python3", BANK, self.directory / "bank.db",
                                        self.name, self.notes])

    def live(self):
        """One life of the mount."""
        begin = self.mount()
        while self.process.poll() is None and not self.ending.wait(0.05):
            said = self.said(begin)
            if not self.serves and (b"promoted:" in said or
                                    b"msg=mounted" in said and b"standing by" not in said):
                self.serve()
            if b"the lease is lost" in said:
                self.process.terminate()
        self.serves = False
        if self.client:
            self.client.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.terminate()
            self.process.wait(20)
        self.process.kill()
        self.process.wait()
        if self.client:
            self.client.wait()
            self.client = None
        while harness.is_mounted(self.directory):
            subprocess.run(["umount", "-l", self.directory], check=True)

    def supervise(self):
        while not self.ending.is_set():
            self.live()
            # Else it would always be faster than the other, who looks once a second.
            self.ending.wait(random.uniform(0, 2 * TTL_SECONDS))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
        if self.proxy:
            self.proxy.mend()
        self.thread.join()

    # What happens to it.

    def kill(self):
        self.process.kill()

    def stop(self):
        self.process.terminate()

    def freeze(self):
        """For longer than its lease lasts, more or less."""
        self.process.send_signal(signal.SIGSTOP)
        time.sleep(TTL_SECONDS * random.uniform(0.2, 2))
        self.process.send_signal(signal.SIGCONT)

    def cut_off(self):
        self.proxy.cut()
        time.sleep(TTL_SECONDS * random.uniform(0.2, 2))
        self.proxy.mend()

    def lose_replies(self):
        self.proxy.lose_replies()
        time.sleep(random.uniform(0.1, 1))
        self.proxy.cut()
        self.proxy.mend()

    def jump(self):
        self.clock.jump()

    def suffer(self):
        what = [self.kill, self.stop, self.freeze]
        if self.proxy:
            what += [self.cut_off, self.cut_off, self.lose_replies]
        if self.clock:
            what += 2 * [self.jump]
        what = random.choice(what)
        what()
        return what.__name__


def notes_of(node):
    """What was tried; what was acknowledged.  A kill may have cut the last line off."""
    tried, acknowledged = set(), []
    for line in node.notes.read_text().splitlines() if node.notes.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            note = json.loads(line)
            tried.add(note["id"])
            if "seq" in note:
                acknowledged.append(note)
    return tried, acknowledged


def check(ledger, balances, tried, acknowledged):
    """What must hold of the final state, and of any history that leads to it."""
    assert sum(balances) == 1000 * bank.ACCOUNTS
    expected = [1000] * bank.ACCOUNTS
    for _, _, source, target, amount in ledger:
        expected[source] -= amount
        expected[target] += amount
    assert balances == expected
    assert [row[0] for row in ledger] == list(range(1, len(ledger) + 1))
    found = {row[1]: row[0] for row in ledger}
    assert set(found) <= tried
    lost = [note for note in acknowledged if found.get(note["id"]) != note["seq"]]
    assert not lost, f"{len(lost)} of {len(acknowledged)} acknowledged commits are lost: {lost[:5]}"
    # In real time: what had ended before another began is before it.
    earliest_end = float("inf")
    for note in sorted(acknowledged, key=lambda note: -note["seq"]):
        assert note["begun"] <= earliest_end, note
        earliest_end = min(earliest_end, note["ended"])


def test_the_checker_finds_what_it_is_for():
    ledger = [(1, "a", 0, 1, 5), (2, "b", 1, 0, 5)]
    balances = [1000] * bank.ACCOUNTS
    acknowledged = [{"id": "a", "seq": 1, "begun": 1, "ended": 2},
                    {"id": "b", "seq": 2, "begun": 3, "ended": 4}]
    check(ledger, balances, {"a", "b", "c"}, acknowledged)
    for ledger_, balances_, tried, acknowledged_ in (
            (ledger[:1], [995, 1005] + [1000] * 6, {"a", "b"}, acknowledged),
            (ledger, [999] + [1000] * 7, {"a", "b"}, acknowledged),
            (ledger, balances, {"a"}, acknowledged[:1]),
            (ledger[1:], [1005, 995] + [1000] * 6, {"a", "b"}, []),
            (ledger, balances, {"a", "b"},
             [{**acknowledged[0], "begun": 5, "ended": 6}, acknowledged[1]])):
        with pytest.raises(AssertionError):
            check(ledger_, balances_, tried, acknowledged_)


def behind_proxies(bucket, n):
    endpoint = urllib.parse.urlsplit(bucket.endpoint)
    for _ in range(n):
        proxy = Proxy((endpoint.hostname, endpoint.port))
        behind = copy.copy(bucket)
        behind.url = bucket.url_of("", endpoint=f"http://127.0.0.1:{proxy.port}")
        yield behind, proxy


@pytest.fixture
def bucket_of(request):
    return lambda kind: request.getfixturevalue(f"{kind}_bucket")


@pytest.fixture
def clock_library():
    found = next(pathlib.Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if not found:
        required("no libfaketime")
    return str(found)


@pytest.mark.parametrize("kind, journal", [("file", "wal"), ("file", "delete"), ("s3", "wal"),
                                           ("s3", "truncate")])
def test_nothing_acknowledged_is_lost_between_two_primaries(bucket_of, mount, work, kind, journal,
                                                            soak):
    take_turns(bucket_of(kind), mount, work, kind, journal, soak(25, 600))


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_clocks_that_are_wrong_and_jump_are_no_danger(bucket_of, mount, work, kind, soak,
                                                      clock_library):
    take_turns(bucket_of(kind), mount, work, kind, "wal", soak(25, 600), clock_library)


def take_turns(bucket, mount, work, kind, journal, seconds, clock=None):
    seed = random.randrange(1 << 30)
    random.seed(seed)
    with mount(bucket, name="first") as data:
        bank.create(data / "bank.db", journal)
        sync(data / "bank.db")
    places = list(behind_proxies(bucket, 2)) if kind == "s3" else [(bucket, None)] * 2
    suffered = []
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(Node(place, work, name, proxy, clock))
                 for name, (place, proxy) in zip(("first", "second"), places)]
        until = time.monotonic() + seconds
        # Chance may let one of them rest at first.
        while time.monotonic() < until or (not all(node.turns for node in nodes) and
                                           time.monotonic() < until + 2 * seconds):
            time.sleep(random.uniform(0.5, 2 * TTL_SECONDS))
            serving = [node for node in nodes if node.serves]
            suffered.append(random.choice(serving * 3 + nodes).suffer())
    for _, proxy in places:
        if proxy:
            proxy.close()
    tried, acknowledged = set(), []
    for node in nodes:
        of_node = notes_of(node)
        tried |= of_node[0]
        acknowledged += of_node[1]
        log = node.log.read_text(errors="replace")
        assert not harness.SANITIZER.search(log), log
        # Its own is wrong: by the store's, or by that of the file system.
        assert not clock or re.search("using the bucket's clock|signing with the store's", log), log
    print(f"seed {seed}: {len(acknowledged)} of {len(tried)} acknowledged, "
          f"turns {[node.turns for node in nodes]}, suffered {suffered}")
    restore(bucket, "bank.db", work / "restored.db")
    with contextlib.closing(sqlite3.connect(work / "restored.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        ledger = connection.execute("SELECT * FROM ledger ORDER BY seq").fetchall()
        balances = [row for row, in connection.execute("SELECT balance FROM account ORDER BY id")]
    check(ledger, balances, tried, acknowledged)
    assert len(acknowledged) > 2 * seconds and all(node.turns for node in nodes)
    # Whatever was set aside can still be read.
    for node in nodes:
        for kept in (node.directory / ".litebucket").glob("aside/*/database"):
            with contextlib.closing(sqlite3.connect(kept)) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                assert connection.execute("SELECT sum(balance) FROM account").fetchone() == (8000,)
