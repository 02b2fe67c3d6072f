#!/usr/bin/python3
"""Measures the mount against the bare directory, and prints a Markdown table.

    tests/bench/bench.py [--seconds N] [--directory DIR]

Takes turns between both, several rounds, and keeps the best of each, so that
other work on the machine distorts a figure less than it would a single run.
Needs build/release (or LITEBUCKET), root, and for the S3 rows radosgw.
"""
import argparse
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time
import sqlite3

ROOT = pathlib.Path(__file__).resolve().parents[2]
os.environ.setdefault("LITEBUCKET", str(ROOT / "build" / "release" / "litebucket"))
sys.dont_write_bytecode = True
sys.path[:0] = [str(ROOT / "tests" / "e2e"), str(ROOT / "tests" / "lib")]

import harness  # noqa: E402

RATES = [
    ("commits, WAL, synchronous=NORMAL", "wal", "normal", "commits"),
    ("commits, WAL, synchronous=FULL", "wal", "full", "commits"),
    ("commits, DELETE, synchronous=FULL", "delete", "full", "commits"),
    ("point reads, WAL", "wal", "normal", "reads"),
    ("point reads, DELETE", "delete", "full", "reads"),
]
ROUNDS = 3
COMMITS = 60


def compile_bench(work):
    program = work / "bench"
    harness.run("cc", "-std=gnu17", "-O2", "-o", program, ROOT / "tests/bench/bench.c", "-lsqlite3")
    return program


def rate(program, directory, journal, synchronous, what, seconds):
    return float(harness.run(program, directory / f"{journal}.db", journal, synchronous, what,
                             seconds).stdout)


def measure_rates(program, work, seconds):
    """[(name, bare, mounted)] in operations per second."""
    bare = work / "bare"
    bare.mkdir()
    bucket_directory = work / "bucket"
    bucket_directory.mkdir()
    rows = []
    with harness.Mount(harness.FileBucket(bucket_directory), work / "mounted", work / "rates.log",
                       limit_seconds=3600) as mounted:
        for name, *case in RATES:
            best = {bare: 0.0, mounted: 0.0}
            for _ in range(ROUNDS):
                for directory in best:
                    best[directory] = max(best[directory],
                                          rate(program, directory, *case, seconds))
            rows.append((name, best[bare], best[mounted]))
    return rows


def latencies(bucket, exists, work, interval):
    """Milliseconds from the return of COMMIT to the object, for single commits."""
    found = []
    name = f"latency-{bucket.name}-{interval}"
    with harness.Mount(bucket, work / name, work / f"{name}.log", "--upload-interval", interval,
                       limit_seconds=3600) as mounted:
        database = mounted / "app.db"
        connection = sqlite3.connect(database, isolation_level=None)
        connection.execute("PRAGMA journal_mode=wal")
        connection.execute("CREATE TABLE t(body)")
        txid = int(harness.sync(database), 16)
        for _ in range(COMMITS):
            time.sleep(random.uniform(0, 0.5))
            connection.execute("INSERT INTO t VALUES (randomblob(100))")
            begin = time.monotonic()
            txid += 1
            while not exists(f"{txid:016x}-{txid:016x}.ltx"):
                assert time.monotonic() - begin < 30, mounted.log_text()
            found.append((time.monotonic() - begin) * 1000)
        connection.close()
    return sorted(found)


def file_latencies(work, interval):
    directory = work / f"bucket-{interval}"
    directory.mkdir()
    slots = directory / "app.db" / "ltx" / "0"
    return latencies(harness.FileBucket(directory), lambda name: (slots / name).exists(), work,
                     interval)


def s3_latencies(endpoint, work, interval):
    import s3

    bucket = harness.S3Bucket(endpoint, f"bench-{os.getpid()}-{interval}")

    def exists(name):
        try:
            bucket.client.head(f"{bucket.PREFIX}/app.db/0000/{name}")
            return True
        except s3.S3Error as error:
            if error.status != 404:
                raise
            return False

    return latencies(bucket, exists, work, interval)


class Gateway:
    """A radosgw of our own, or None where there is none."""

    def __init__(self, work):
        self.directory = work / "rgw"

    def __enter__(self):
        port = harness.run(ROOT / "tests/lib/free_port.py").stdout.strip()
        started = subprocess.run([ROOT / "tests/lib/rgw.sh", self.directory, port],
                                 stdout=subprocess.PIPE, text=True)
        return started.stdout.strip() if started.returncode == 0 else None

    def __exit__(self, *_):
        if (self.directory / "ceph.conf").exists():
            subprocess.run([ROOT / "tests/lib/rgw.sh", "--stop", self.directory], check=True)


def print_rates(rows):
    print("| operations per second | bare directory | mount | ratio |")
    print("|---|--:|--:|--:|")
    for name, bare, mounted in rows:
        print(f"| {name} | {bare:,.0f} | {mounted:,.0f} | {mounted / bare:.2f} |")
    print()


def print_latencies(rows):
    print("| commit to object, ms | upload interval | p50 | p99 |")
    print("|---|--:|--:|--:|")
    for name, interval, found in rows:
        p99 = found[min(len(found) - 1, int(len(found) * 0.99))]
        print(f"| {name} | {interval} | {statistics.median(found):,.0f} | {p99:,.0f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=3, help="for each figure and round (3)")
    parser.add_argument("--directory", help="where to work: a file system on a real disk")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="litebucket-bench.", dir=options.directory) as name:
        work = pathlib.Path(name).resolve()
        print_rates(measure_rates(compile_bench(work), work, options.seconds))
        rows = [("file://", interval, file_latencies(work, interval)) for interval in ("0", "1s")]
        with Gateway(work) as endpoint:
            if endpoint:
                rows += [("S3 (radosgw, loopback)", interval, s3_latencies(endpoint, work, interval))
                         for interval in ("0", "1s")]
        print_latencies(rows)


if __name__ == "__main__":
    main()
