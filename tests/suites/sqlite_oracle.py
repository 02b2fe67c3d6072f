"""Is what a test left behind in the bucket, byte by byte?"""
import collections
import os
import pathlib
import re
import shutil
import stat
import struct

import harness

MAGIC = b"SQLite format 3\0"
JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
SIBLING = re.compile(r"-(journal|wal|shm|mj[0-9A-F]*)$")
POINTS = 5


def page_size_of(header):
    """0: this is not the first page of a database."""
    if len(header) < 100 or header[:16] != MAGIC or header[21:24] != b"\x40\x20\x20":
        return 0
    size, = struct.unpack(">H", header[16:18])
    size = 65536 if size == 1 else size
    return size if size >= 512 and size & (size - 1) == 0 else 0


def size_by_header(path):
    """How large the database in a file is, as SQLite reads it.

    The file can be longer: SQLite shortens it only after the commit, and a file
    system may have given it more.  It can be shorter: then the last page ends in
    zeros that nobody wrote.
    """
    with open(path, "rb") as file:
        header = file.read(100)
    page_size = page_size_of(header)
    pages, = struct.unpack(">I", header[28:32])
    if header[24:28] != header[92:96] or not pages:
        return path.stat().st_size
    return pages * page_size


def has_hot_journal(path):
    try:
        with open(f"{path}-journal", "rb") as file:
            return file.read(8) == JOURNAL_MAGIC
    except FileNotFoundError:
        return False


def open_as_application(path):
    """SQLite reads the database, and with that plays back a journal."""
    harness.run("sqlite3", path, "PRAGMA schema_version")


class Oracle:
    def __init__(self, bucket, suite, scratch):
        self.bucket = bucket
        self.suite = suite
        self.scratch = scratch

    def check(self, directory, job, failures):
        counts = collections.Counter()
        # Looking at a database removes what a crash left beside it.
        for path in [path for path in sorted(directory.rglob("*")) if not SIBLING.search(path.name)]:
            if stat.S_ISREG(path.lstat().st_mode):
                shutil.rmtree(self.scratch, ignore_errors=True)
                self.scratch.mkdir()
                try:
                    self.check_file(path, directory, job, counts)
                except Exception as error:  # pylint: disable=broad-except
                    failures.append(f"{path.relative_to(directory)}: {type(error).__name__}: {error}"[:2000])
        return counts

    def check_file(self, path, directory, job, counts):
        database = str(path.relative_to(directory.parent))
        with open(path, "rb") as file:
            page_size = page_size_of(file.read(100))
        if not page_size:
            counts["other files"] += 1
            self.check_other(path, database)
        elif not path.with_name(path.name + "-wal").exists() and size_by_header(path) >= path.stat().st_size + page_size:
            counts["incomplete files"] += 1
            self.check_incomplete(path, database)
        else:
            if has_hot_journal(path):
                counts["hot journals"] += 1
                self.check_hot(path, database)
            self.check_database(path, database, job, counts)

    def check_database(self, path, database, job, counts):
        txid = harness.sync(path)
        if os.path.exists(f"{path}-wal"):
            counts["WALs left"] += 1
        expected = harness.copy_at_rest(path, self.scratch / "expected")
        self.compare(database, expected)
        counts["databases compared"] += 1
        counts["bytes"] += expected.stat().st_size
        self.check_history(database, txid, job, counts)

    def compare(self, database, expected):
        restored = self.scratch / "restored"
        harness.restore(self.bucket, database, restored)
        if restored.stat().st_size != expected.stat().st_size:
            os.truncate(expected, size_by_header(expected))
        harness.assert_same_bytes(restored, expected)
        restored.unlink()

    def check_hot(self, path, database):
        """A transaction was left; what SQLite makes of it must be in the bucket.

        If the database was captured before, it is already: a journal brings back
        what was.  If it came with its journal, as copies of both, then nobody but
        SQLite knows what it holds, and sync says so.
        """
        expected = self.scratch / "played back"
        harness.run("cp", path, expected)
        harness.run("cp", f"{path}-journal", f"{expected}-journal")
        open_as_application(expected)
        result = harness.litebucket("sync", path, check=False)
        if result.returncode == 0:
            self.compare(database, expected)
        else:
            assert "is in a transaction" in result.stderr, result.stderr
        open_as_application(path)

    def check_incomplete(self, path, database):
        """A file that lacks pages, which SQLite calls malformed.

        What came so from elsewhere is waited for.  What SQLite committed so, through
        a VFS that keeps the rest in other files, is taken for zeros.
        """
        result = harness.litebucket("sync", path, check=False)
        if result.returncode == 0:
            expected = self.scratch / "expected"
            harness.run("cp", path, expected)
            os.truncate(expected, size_by_header(expected))
            self.compare(database, expected)
        else:
            assert result.returncode == 1 and "is not complete" in result.stderr, (
                f"sync of half a database: {result.returncode} {result.stdout}{result.stderr}")

    def check_other(self, path, database):
        """What is no database is not in the bucket either, or dropped."""
        result = harness.litebucket("sync", path, check=False)
        said = f"sync of what is no database: {result.returncode} {result.stderr}{result.stdout}"
        assert result.returncode in (0, 3), said
        if result.returncode == 0:
            result = harness.litebucket("restore", "-o", self.scratch / "restored",
                                        self.bucket.url_of(database), check=False)
            assert result.returncode == 3 and "dropped" in result.stderr, said + result.stderr

    def check_history(self, database, txid, job, counts):
        points = harness.history(self.bucket, database)
        assert points[-1] == txid, f"{txid} is synced, and {points[-1]} is last in the bucket"
        counts["batches"] += len(points)
        restored = []
        for point in points[::max(1, len(points) // POINTS)]:
            output = self.scratch / f"at-{point}"
            result = harness.litebucket("restore", "--txid", point, "-o", output,
                                        self.bucket.url_of(database), check=False)
            said = f"restoring {point}: {result.returncode} {result.stderr}"
            if result.returncode == 3:
                assert "dropped" in result.stderr, said
                counts["points without a database"] += 1
            else:
                assert result.returncode == 0, said
                restored.append(output)
        counts["points restored"] += len(restored)
        if not job.damages:
            self.check_integrity(restored, counts)

    def check_integrity(self, databases, counts):
        script = pathlib.Path(__file__).with_name("sqlite_integrity.tcl")
        lines = harness.run(self.suite / "bld" / "testfixture", script, *databases).stdout.splitlines()
        assert len(lines) == len(databases), lines
        for line in lines:
            said = line.split(": ", 1)[1]
            assert said in ("ok", "unknown"), line
            counts["points intact"] += said == "ok"
