#!/usr/bin/python3
"""Measures what durability in the bucket and a failover cost; prints Markdown tables.

    tests/bench/primary.py [--commits N] [--rounds N] [--directory DIR]

commits    The time that COMMIT takes, for single commits one after another by one
           connection, with --durability local and with bucket, in turns.
failover   A primary with a database of 10 MB, and a standby.  From the kill -9 of the
           first, or the beginning of its orderly stop, until a commit returns on the
           second one, which is tried all the time by new connections.

Each on file:// and on S3, where there is $TEST_S3 or radosgw.  Needs build/release (or
LITEBUCKET) and root; takes four minutes.
"""
import pathlib
import sqlite3
import statistics
import time

from common import Gateway, file_bucket, harness, parser, percentile, s3_bucket, workplace

JOURNALS = ("wal", "delete")
STANDING = "standing by: the databases can be read"
TTLS = (2, 10)


def connect(path, timeout=20):
    return sqlite3.connect(path, isolation_level=None, timeout=timeout)


def commit_times(database, journal, count):
    """Milliseconds of each."""
    connection = connect(database)
    connection.execute(f"PRAGMA journal_mode = {journal}")
    connection.execute("CREATE TABLE IF NOT EXISTS t(body)")
    found = []
    for _ in range(count):
        begin = time.monotonic()
        connection.execute("INSERT INTO t VALUES (randomblob(100))")
        found.append((time.monotonic() - begin) * 1000)
    connection.close()
    return found


def measure_commits(bucket, work, count):
    """{(journal, durability): sorted times}"""
    found = {(journal, kind): [] for journal in JOURNALS for kind in ("local", "bucket")}
    name = f"commits-{bucket.name}"
    with harness.Mount(bucket, work / name, work / f"{name}.log", "--durability", "bucket:bucket-*",
                       limit_seconds=3600) as mounted:
        for _ in range(4):
            for journal, kind in found:
                found[journal, kind] += commit_times(mounted / f"{kind}-{journal}.db", journal,
                                                     count // 4)
    return {key: sorted(times) for key, times in found.items()}


def first_commit(database):
    """As an application does it that opens the database anew after an error."""
    while True:
        try:
            connection = connect(database, timeout=0.05)
            connection.execute("INSERT INTO t VALUES ('first')")
            connection.close()
            return time.monotonic()
        except sqlite3.Error:
            time.sleep(0.005)


def failover(bucket, work, name, ttl, killed):
    """Seconds."""
    place = [work / f"{name}-{side}" for side in ("first", "second")]
    first, second = (harness.Mount(bucket, directory, f"{directory}.log", "--lease-ttl", f"{ttl}s",
                                   limit_seconds=3600) for directory in place)
    with first:
        connection = connect(first / "app.db")
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("CREATE TABLE t(body)")
        connection.execute("WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s "
                           "WHERE i < 2500) INSERT INTO t SELECT randomblob(4000) FROM s")
        connection.close()
        harness.sync(first / "app.db")
        with second:
            second.wait_for_log(STANDING)
            begin = time.monotonic()
            if killed:
                first.kill()
            else:
                first.process.terminate()
            took = first_commit(second / "app.db") - begin
            harness.sync(second / "app.db")
    return took


def print_commits(rows):
    print("| a commit, ms | journal | local p50 | p99 | bucket p50 | p99 |")
    print("|---|---|--:|--:|--:|--:|")
    for name, times in rows:
        for journal in JOURNALS:
            figures = [f"{percentile(times[journal, kind], part):,.1f}"
                       for kind in ("local", "bucket") for part in (0.5, 0.99)]
            print(f"| {name} | {journal} | {' | '.join(figures)} |")
    print()


def print_failovers(rows):
    print("| failover, s | `--lease-ttl` | median | slowest |")
    print("|---|--:|--:|--:|")
    for name, ttl, times in rows:
        print(f"| {name} | {ttl} s | {statistics.median(times):.1f} | {max(times):.1f} |")
    print()


def main():
    options_parser = parser(__doc__)
    options_parser.add_argument("--commits", type=int, default=400, help="of each kind")
    options_parser.add_argument("--rounds", type=int, default=5, help="failovers of each kind")
    options = options_parser.parse_args()
    with workplace(options) as name:
        work = pathlib.Path(name)
        with Gateway(work) as endpoint:
            kinds = [("file://", lambda name: file_bucket(work, f"bucket-{name}"))]
            if endpoint:
                kinds.append(("S3 (radosgw, loopback)", lambda name: s3_bucket(endpoint, name)))
            print_commits([(label, measure_commits(make("commits"), work, options.commits))
                           for label, make in kinds])
            rows = []
            for number, (label, make) in enumerate(kinds):
                for what, ttl in [("killed", ttl) for ttl in TTLS] + [("stopped", TTLS[-1])]:
                    names = [f"{number}-{what}-{ttl}-{turn}" for turn in range(options.rounds)]
                    rows.append((f"{what}, {label}", ttl,
                                 [failover(make(each), work, each, ttl, what == "killed")
                                  for each in names]))
            print_failovers(rows)


if __name__ == "__main__":
    main()
