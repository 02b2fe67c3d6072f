#!/usr/bin/python3
"""Measures the mount against the bare directory, and prints a Markdown table.

    tests/bench/bench.py [--seconds N] [--directory DIR]

Takes turns between both, several rounds, and keeps the best of each, so that
other work on the machine distorts a figure less than it would a single run.
Needs build/release (or LITEBUCKET), root, and for the S3 rows radosgw.
"""
import pathlib
import random
import sqlite3
import statistics
import time

from common import (COMMITS, ROUNDS, Gateway, compile_bench, file_bucket, harness, in_bucket, parser,
                    percentile, s3_bucket, workplace)

RATES = [
    ("commits, WAL, synchronous=NORMAL", "wal", "normal", "commits"),
    ("commits, WAL, synchronous=FULL", "wal", "full", "commits"),
    ("commits, DELETE, synchronous=FULL", "delete", "full", "commits"),
    ("point reads, WAL", "wal", "normal", "reads"),
    ("point reads, DELETE", "delete", "full", "reads"),
]


def rate(program, directory, journal, synchronous, what, seconds):
    return float(harness.run(program, directory / f"{journal}.db", journal, synchronous, what,
                             seconds).stdout)


def measure_rates(program, work, seconds):
    """[(name, bare, mounted)] in operations per second."""
    bare = work / "bare"
    bare.mkdir()
    rows = []
    with harness.Mount(file_bucket(work, "bucket"), work / "mounted", work / "rates.log",
                       limit_seconds=3600) as mounted:
        for name, *case in RATES:
            best = {bare: 0.0, mounted: 0.0}
            for _ in range(ROUNDS):
                for directory in best:
                    best[directory] = max(best[directory],
                                          rate(program, directory, *case, seconds))
            rows.append((name, best[bare], best[mounted]))
    return rows


def latencies(bucket, work, interval):
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
            while not in_bucket(bucket, "app.db", txid):
                assert time.monotonic() - begin < 30, mounted.log_text()
            found.append((time.monotonic() - begin) * 1000)
        connection.close()
    return sorted(found)


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
        print(f"| {name} | {interval} | {statistics.median(found):,.0f} | "
              f"{percentile(found, 0.99):,.0f} |")


def main():
    options_parser = parser(__doc__)
    options_parser.add_argument("--seconds", type=float, default=3,
                                help="for each figure and round (3)")
    options = options_parser.parse_args()
    with workplace(options) as name:
        work = pathlib.Path(name).resolve()
        print_rates(measure_rates(compile_bench(work), work, options.seconds))
        rows = []
        for interval in ("0", "1s"):
            found = latencies(file_bucket(work, f"bucket-{interval}"), work, interval)
            rows.append(("file://", interval, found))
        with Gateway(work) as endpoint:
            for interval in ("0", "1s") if endpoint else ():
                found = latencies(s3_bucket(endpoint, interval), work, interval)
                rows.append(("S3 (radosgw, loopback)", interval, found))
        print_latencies(rows)


if __name__ == "__main__":
    main()
