"""What tests of crashes have in common: a writer that notes what it was promised, and
what must hold afterwards."""
import pathlib
import sqlite3
import subprocess

import harness
from harness import assert_intact, assert_same_bytes, copy_at_rest, history_points, objects, restore, sync


def committed(notes):
    """The last number that a commit has returned for, or 0."""
    complete = notes.read_text().rpartition("\n")[0] if notes.exists() else ""
    return int(complete.rpartition("\n")[2] or 0)


class Writer:
    """A program that commits 1, 2, 3, ... and notes each that returned."""

    def __init__(self, c_client, database, journal, notes):
        self.notes = notes
        self.errors = pathlib.Path(f"{notes}.err")
        with open(notes, "ab") as file, open(self.errors, "wb") as errors:
            self.process = subprocess.Popen([c_client, database, journal, "loop"],
                                            stdin=subprocess.DEVNULL, stdout=file, stderr=errors)

    def committed(self):
        return committed(self.notes)

    def wait_for(self, number):
        harness.eventually(lambda: self.committed() >= number or self.process.poll() is not None,
                           60, "the writer does not get on")
        assert self.process.poll() is None, f"the writer ended too early: {self.errors.read_text()}"

    def end(self):
        """It ends by itself, as its files are gone with the daemon; or by us."""
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            # Commits into an inode that the kernel still serves go on.
            self.process.kill()
            self.process.wait()


    def forget(self, number):
        """What was committed beyond is lost, and will be committed again."""
        self.notes.write_text("".join(f"{n + 1}\n" for n in range(number)))


def numbers(database):
    connection = sqlite3.connect(f"file:{database}?immutable=1", uri=True)
    made = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'numbers'").fetchone()
    found = [n for n, in connection.execute("SELECT n FROM numbers ORDER BY n")] if made else []
    connection.close()
    return found


def is_prefix(found):
    return found == list(range(1, len(found) + 1))


class Past:
    """What the bucket had, and was found right, at earlier checks."""

    def __init__(self, bucket, work, database="app.db"):
        self.bucket = bucket
        self.database = database
        self.output = pathlib.Path(work) / "restored"
        self.objects = {}
        self.checked = set()

    def see(self):
        """Note the bucket's objects; those of before are all there, as they were."""
        now = objects(self.bucket)
        assert self.objects.items() <= now.items(), "an object has changed or is gone"
        self.objects = now

    def restored(self, txid=None):
        self.output.unlink(missing_ok=True)
        restore(self.bucket, self.database, self.output, txid)
        return self.output

    def check_states(self, most, is_right):
        """Each TXID that was not looked at yet restores to a committed state.

        At most so many of them: the last ones, where crashes leave traces.
        """
        if not self.has_any():
            return
        new = {point["txid"]: point["kind"] for point in history_points(self.bucket, self.database)
               if point["txid"] not in self.checked}
        for txid in list(new)[-most:]:
            if new[txid] == "drop":
                continue
            state = self.restored(txid)
            assert_intact(state)
            assert is_right(state), f"TXID {txid} is no committed state"
        self.checked.update(new)

    def check_same(self, local):
        """The bucket's last state is the local one; no bytes are no database."""
        if local.stat().st_size:
            assert_same_bytes(self.restored(), local)
        else:
            assert not self.has_any(), "the local database is empty, and the bucket's is not"

    def has_any(self):
        return any(key.startswith(f"{self.database}/") for key in self.objects)

    def check(self, mounted, acknowledged, most=8):
        """After a crash and a new start: the invariant of every test of crashes."""
        if not mounted.stat().st_size:
            # Its first transaction did not come to its end; it is no database yet.
            assert acknowledged == 0
            self.see()
            assert not self.has_any(), "the local database is empty, and the bucket's is not"
            return 0
        sync(mounted)
        local = copy_at_rest(mounted, self.output.with_name("expected"))
        assert_intact(local)
        found = numbers(local)
        assert is_prefix(found)
        assert len(found) >= acknowledged, f"commits are missing: {len(found)} of {acknowledged}"
        self.check_same(local)
        self.see()
        self.check_states(most, lambda state: is_prefix(numbers(state)))
        return len(found)
