"""What the benchmarks have in common; importing it chooses the release build.

Needs build/release (or LITEBUCKET) and root.
"""
import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
os.environ.setdefault("LITEBUCKET", str(ROOT / "build" / "release" / "litebucket"))
sys.dont_write_bytecode = True
sys.path[:0] = [str(ROOT / "tests" / "e2e"), str(ROOT / "tests" / "lib")]

import harness  # noqa: E402
import s3  # noqa: E402

ROUNDS = 3
COMMITS = 60


def compile_bench(work):
    program = work / "bench"
    harness.run("cc", "-std=gnu17", "-O2", "-o", program, ROOT / "tests/bench/bench.c", "-lsqlite3")
    return program


def file_bucket(work, name):
    directory = work / name
    directory.mkdir()
    return harness.FileBucket(directory)


def s3_bucket(endpoint, name):
    return harness.S3Bucket(endpoint, f"bench-{os.getpid()}-{name}")


def in_bucket(bucket, database, txid):
    """Is this batch there?  By one look at the store, without our program."""
    name = f"{txid:016x}-{txid:016x}.ltx"
    if isinstance(bucket, harness.FileBucket):
        return (bucket.directory / database / "ltx" / "0" / name).exists()
    try:
        bucket.client.head(f"{bucket.PREFIX}/{database}/0000/{name}")
        return True
    except s3.S3Error as error:
        if error.status != 404:
            raise
        return False


class Gateway:
    """The S3 server of $TEST_S3, a radosgw of our own, or None where there is none."""

    def __init__(self, work):
        self.directory = work / "rgw"

    def __enter__(self):
        if os.environ.get("TEST_S3"):
            return os.environ["TEST_S3"]
        port = harness.run(ROOT / "tests/lib/free_port.py").stdout.strip()
        started = subprocess.run([ROOT / "tests/lib/rgw.sh", self.directory, port],
                                 stdout=subprocess.PIPE, text=True)
        return started.stdout.strip() if started.returncode == 0 else None

    def __exit__(self, *_):
        if (self.directory / "ceph.conf").exists():
            subprocess.run([ROOT / "tests/lib/rgw.sh", "--stop", self.directory], check=True)


def percentile(ordered, part):
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def parser(description):
    made = argparse.ArgumentParser(description=description,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--directory", help="where to work: a file system on a real disk")
    return made


def workplace(options):
    return tempfile.TemporaryDirectory(prefix="litebucket-bench.", dir=options.directory)
