"""Stories: what happens to one database, step by step, and every state of it.

A story is a table of named steps on one database of a mount.  After each step
`sync` has everything in the bucket, and a copy is kept of the committed state
(D38).  In the end every TXID of the log is restored: those that a step ended in
must equal the copy, byte for byte; those that were sealed in the middle of a
step must be a sound database.

	story.tell({
	    "a table": "CREATE TABLE t(a)",
	    "in WAL mode": mode("wal"),
	    "by the shell": shell("INSERT INTO t VALUES(1)"),
	})
	story.check()

A step is SQL for the story's own connection, which stays open, or a function
that gets the story.
"""
import json
import pathlib
import sqlite3

import pytest

from harness import (assert_intact, assert_same_bytes, copy_at_rest, litebucket, restore, run, sync)


def cases(values, always):
    """Values of a parameter; those for which always() is false only with --all."""
    return [value if always(value) else
            pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.more)
            for value in values]


def statements(script):
    """The script's statements, one by one."""
    text = ""
    for part in script.split(";"):
        text += part + ";"
        if sqlite3.complete_statement(text) and text.strip("; \n"):
            yield text
            text = ""


def execute(connection, script):
    """Run a script as it is; the last row of its last statement."""
    row = None
    for statement in statements(script):
        rows = connection.execute(statement).fetchall()
        row = rows[-1] if rows else None
    return row


class Story:
    def __init__(self, mount, work, name="app.db"):
        self.mount = mount
        self.work = pathlib.Path(work)
        self.work.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.path = mount / name
        self.states = {}  # TXID: (step, copy)
        self.txid = None
        self.own = None
        self.others = {}
        self.sound = True  # or somebody has damaged it on purpose

    # Connections

    def connect(self, path=None, timeout=10):
        return sqlite3.connect(path or self.path, isolation_level=None, timeout=timeout,
                               check_same_thread=False)

    @property
    def connection(self):
        if not self.own:
            self.own = self.connect()
        return self.own

    def other(self, name):
        """A further connection that stays open, by any name."""
        if name not in self.others:
            self.others[name] = self.connect(timeout=0.1)
        return self.others[name]

    def close(self, name=None):
        if name:
            self.others.pop(name).close()
            return
        if self.own:
            self.own.close()
        self.own = None

    def close_all(self):
        self.close()
        for name in list(self.others):
            self.close(name)

    def execute(self, script):
        return execute(self.connection, script)

    # Steps

    def tell(self, steps):
        for name, step in steps.items():
            self.step(name, step)

    def step(self, name, step):
        if isinstance(step, str):
            self.execute(step)
        else:
            step(self)
        if getattr(step, "at_rest", True):
            self.rest(name)

    def rest(self, step):
        """All that is committed is in the bucket, and a copy of it kept."""
        self.txid = sync(self.path)
        number = len(list(self.work.iterdir()))
        copy = copy_at_rest(self.path, self.work / f"{number:03}")
        if self.txid in self.states:
            before, kept = self.states[self.txid]
            try:
                assert_same_bytes(copy, kept)
            except AssertionError as difference:
                raise AssertionError(f"'{step}' changed the database, and there is no TXID "
                                     f"after that of '{before}': {difference}") from None
            copy.unlink()
        self.states.setdefault(self.txid, (step, copy))

    # The end

    def points(self):
        """What the bucket has: [(TXID, kind)]."""
        text = litebucket("history", "--json", self.mount.bucket.url_of(self.name),
                          env=self.mount.bucket.environment()).stdout
        return [(point["txid"], point["kind"]) for point in json.loads(text)["points"]]

    def check(self, every=1):
        """Every TXID, or each every-th of them and the last, is what it was."""
        self.close_all()
        points = self.points()
        assert set(self.states) <= {txid for txid, _ in points}
        numbers = [int(txid, 16) for txid, _ in points]
        assert numbers == list(range(1, len(points) + 1)), "the log has a hole"
        for txid, kind in points[::-every]:
            self.check_point(txid, kind)

    def check_point(self, txid, kind):
        output = self.work / f"restored-{txid}"
        if kind == "drop":
            assert txid not in self.states
            gone = litebucket("restore", "--txid", txid, "-o", output,
                              self.mount.bucket.url_of(self.name), check=False,
                              env=self.mount.bucket.environment())
            assert gone.returncode == 3 and "dropped" in gone.stderr
            return
        restore(self.mount.bucket, self.name, output, txid)
        step, copy = self.states.get(txid, (None, None))
        try:
            if copy:
                assert_same_bytes(output, copy)
            if self.sound:
                assert_intact(output)
        except (AssertionError, sqlite3.Error) as difference:
            where = f"after '{step}'" if step else "between steps"
            raise AssertionError(f"{self.name} at {txid}, {where}: {difference}") from None
        output.unlink()


# Steps


def unfinished(step):
    """A step that leaves a transaction open: there is nothing to copy yet."""
    def take(story):
        story.execute(step) if isinstance(step, str) else step(story)
    take.at_rest = False
    return take


def pragma(name, value, expected=None):
    """PRAGMA name=value, and it must answer so, if that is expected."""
    def take(story):
        answer = story.execute(f"PRAGMA {name}={value}")
        assert expected is None or answer == (expected,), f"{name}={value}: {answer}"
    return take


def mode(journal, limit=None):
    """Another journal mode: it must be accepted."""
    def take(story):
        assert story.execute(f"PRAGMA journal_mode={journal}") == (journal,)
        if limit is not None:
            story.execute(f"PRAGMA journal_size_limit={limit}")
    return take


def closed(step=""):
    """Do it with no connection left open at its end."""
    def take(story):
        if isinstance(step, str):
            story.execute(step)
        else:
            step(story)
        story.close()
    return take


def shell(script, *options):
    """The sqlite3 shell does it; SQL or dot-commands, one per line."""
    def take(story):
        run("sqlite3", "-bail", "-cmd", ".timeout 10000", *options, story.path, script)
    return take


def command(*words):
    """A program does it; {db} is the database, {dir} the mount."""
    def take(story):
        run(*[str(word).format(db=story.path, dir=story.mount.point, work=story.work.parent)
              for word in words])
    return take


def fails(script, message):
    """SQL that must fail with this message."""
    def take(story):
        try:
            story.execute(script)
        except sqlite3.Error as error:
            assert message in str(error), error
        else:
            raise AssertionError(f"{script} did not fail")
    return take


def rows(count, size=100, table="t"):
    """SQL that inserts rows with content that differs from row to row."""
    return (f"WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < {count}) "
            f"INSERT INTO {table}(n, body) SELECT i, substr(hex(randomblob({size})), 1, {size}) "
            "FROM c")


TABLE = "CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER, body BLOB)"
