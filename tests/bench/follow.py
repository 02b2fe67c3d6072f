#!/usr/bin/python3
"""Measures what a follower costs, and prints Markdown tables.

    tests/bench/follow.py [--commits N] [--seconds N] [--readers N] [--directory DIR]
                          [--only visible|apply]

visible   From the return of COMMIT in a mount to the row in the replica: single
          commits with random pauses, an upload interval of 0, and a reader that
          looks at the replica all the time.
apply     A follower is stopped (SIGSTOP) while for some seconds single commits
          become batches in the bucket, one each.  Timed is the way from SIGCONT
          until the last one can be read, and what the follower computed
          meanwhile.  A second follower goes the same way under readers with a
          pause of a millisecond before each read; beside it, the same readers
          have a replica at rest, and an ordinary file in WAL mode, at rest and
          while SQLite commits to it at the pace of the follower.

Each on file:// and on S3, where there is $TEST_S3 or radosgw.  Three rounds in
turns: of rates the best counts, which other work distorts least; reads are those
of all rounds.  Needs build/release (or LITEBUCKET) and root; takes five minutes.
"""
import array
import collections
import pathlib
import random
import signal
import sqlite3
import statistics
import subprocess
import time

from common import (COMMITS, ROUNDS, Gateway, compile_bench, file_bucket, harness, in_bucket, parser,
                    percentile, s3_bucket, workplace)
from following import Follower  # of tests/e2e, which common makes known

INTERVALS = {"10ms": 0.01, "100ms": 0.1, "1s": 1.0}
DATABASE = "app.db"
INSERT = "INSERT INTO t(k, body) VALUES (abs(random()) % 10007, hex(randomblob(50)))"
LONG_SECONDS = 60
PAUSE_US = 1000
KINDS = ("point", "range")
BASE = "ordinary file, at rest"


def connect(path):
    return sqlite3.connect(path, isolation_level=None, timeout=LONG_SECONDS)


def newest(connection):
    return connection.execute("SELECT max(id) FROM t").fetchone()[0]


def wait_row(reader, row, pause):
    deadline = time.monotonic() + LONG_SECONDS
    while newest(reader) < row:
        assert time.monotonic() < deadline, f"row {row} does not come to the replica"
        time.sleep(pause)
    return time.monotonic()


class Primary(harness.Mount):
    """A mount with one database, of which each commit becomes a batch."""

    def __init__(self, program, bucket, work):
        super().__init__(bucket, work / f"primary-{bucket.name}", work / f"{bucket.name}.log",
                         "--upload-interval", "0", limit_seconds=3600)
        self.program = program

    def __enter__(self):
        super().__enter__()
        harness.run(self.program, self / DATABASE, "wal", "normal", "commits", 0)
        self.connection = connect(self / DATABASE)
        self.txid = int(harness.sync(self / DATABASE), 16)
        return self

    def __exit__(self, *error):
        self.connection.close()
        super().__exit__(*error)

    def commit(self):
        """One row; the moment at which COMMIT returned."""
        self.connection.execute(INSERT)
        self.txid += 1
        return time.monotonic()

    def wait_stored(self):
        deadline = time.monotonic() + LONG_SECONDS
        while not in_bucket(self.bucket, DATABASE, self.txid):
            assert time.monotonic() < deadline, self.log_text()

    def make_batches(self, seconds):
        """How many; they are in the bucket."""
        before, end = self.txid, time.monotonic() + seconds
        while time.monotonic() < end:
            self.commit()
            self.wait_stored()
        return self.txid - before


def measure_visible(primary, work, interval, commits):
    """Milliseconds from COMMIT to the replica, in order."""
    name = f"visible-{primary.bucket.name}-{interval}"
    found = []
    with Follower(primary.bucket, work / name, work / f"{name}.log", "--interval",
                  interval) as replica:
        reader = connect(replica / DATABASE)
        for _ in range(commits):
            # The follower's looks are counted from the last batch: every moment
            # between two of them is as likely as any other.
            time.sleep(random.uniform(0, max(INTERVALS[interval], 0.2)))
            begin = primary.commit()
            end = wait_row(reader, newest(primary.connection), 0.0002)
            found.append((end - begin) * 1000)
        reader.close()
    return sorted(found)


class Paused(Follower):
    """A follower that is stopped, but for the times when it is measured."""

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def __exit__(self, *error):
        self.resume()
        super().__exit__(*error)

    def cpu_seconds(self):
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    def check_no_jump(self):
        """Who was silent for a minute may take all batches in one commit."""
        assert "in one commit" not in self.log.read_text(), "stopped for too long; fewer --seconds?"


def catch_up(follower, row):
    """Seconds until the row can be read, and seconds of processor."""
    reader = connect(follower / DATABASE)
    computed = follower.cpu_seconds()
    begin = time.monotonic()
    follower.resume()
    end = wait_row(reader, row, 0.002)
    computed = follower.cpu_seconds() - computed
    reader.close()
    follower.check_no_jump()
    return end - begin, computed


def start_readers(program, database, readers):
    """They are at work; their first reads, which open the file, are left out."""
    running = [subprocess.Popen([program, database, "latency", str(PAUSE_US)],
                                stdout=subprocess.PIPE) for _ in range(readers)]
    for process in running:
        assert len(process.stdout.read(4 * len(KINDS))) == 4 * len(KINDS), "a reader failed"
    return running


def collect(running):
    """End them; each kind's nanoseconds, of all readers together."""
    found = [[] for _ in KINDS]
    for process in running:
        process.terminate()
    for process in running:
        numbers = array.array("I", process.communicate()[0])
        assert process.returncode == 0, "a reader failed"
        for kind, of_kind in enumerate(found):
            of_kind.extend(numbers[kind::len(KINDS)])
    return found


def read(program, database, readers, seconds):
    running = start_readers(program, database, readers)
    time.sleep(seconds)
    return collect(running)


def read_while_written(program, database, readers, seconds, rate):
    with subprocess.Popen([program, database, "wal", "normal", "commits", str(LONG_SECONDS),
                           f"{rate:.0f}"], stdout=subprocess.DEVNULL) as writer:
        found = read(program, database, readers, seconds)
        writer.terminate()
    assert writer.returncode == 0, "the writer of the ordinary file failed"
    return found


def read_while_applied(program, follower, readers, row):
    """From the first batch to the last; and the seconds that this took."""
    running = start_readers(program, follower / DATABASE, readers)
    seconds, _ = catch_up(follower, row)
    return collect(running), seconds


def measure_apply(program, primary, work, options):
    """The best (batches per second, processor seconds per batch), and reads by where."""
    name = primary.bucket.name
    plain = work / f"plain-{name}.db"
    harness.run(program, plain, "wal", "normal", "commits", 0)
    alone = Paused(primary.bucket, work / f"alone-{name}", work / f"alone-{name}.log")
    busy = Paused(primary.bucket, work / f"busy-{name}", work / f"busy-{name}.log")
    best, reads = (0, 0), collections.defaultdict(lambda: [[] for _ in KINDS])
    with alone, busy:
        for _ in range(ROUNDS):
            for follower in alone, busy:
                follower.pause()
            batches = primary.make_batches(options.seconds)
            row = newest(primary.connection)
            spent, computed = catch_up(alone, row)
            best = max(best, (batches / spent, computed / batches))
            found, seconds = read_while_applied(program, busy, options.readers, row)
            rate = batches / seconds
            for where, found in (
                (BASE, read(program, plain, options.readers, seconds)),
                ("ordinary file, SQLite commits",
                 read_while_written(program, plain, options.readers, seconds, rate)),
                ("replica, at rest", read(program, busy / DATABASE, options.readers, seconds)),
                ("replica, batches applied", found),
            ):
                for kind, of_kind in enumerate(found):
                    reads[where][kind].extend(of_kind)
    return best, reads


def print_visible(rows):
    print("| commit to visible, ms | interval | p50 | p99 |")
    print("|---|--:|--:|--:|")
    for name, interval, found in rows:
        print(f"| {name} | {interval} | {statistics.median(found):,.0f} | "
              f"{percentile(found, 0.99):,.0f} |")
    print()


def print_apply(rows):
    print("| applying | batches per second | processor per batch, ms |")
    print("|---|--:|--:|")
    for name, (rate, computed), _ in rows:
        print(f"| {name} | {rate:,.0f} | {computed * 1000:.2f} |")
    print()


def microseconds(found, base):
    """p50, p99, what that is to the base's, and the slowest."""
    ordered = sorted(found)
    p99 = percentile(ordered, 0.99)
    return [f"{statistics.median(ordered) / 1000:,.0f}", f"{p99 / 1000:,.0f}",
            f"{p99 / percentile(sorted(base), 0.99):.1f}", f"{ordered[-1] / 1000:,.0f}"]


def print_reads(rows):
    for name, _, reads in rows:
        print(f"| reads beside {name}, µs | point p50 | p99 | ratio | max "
              "| range p50 | p99 | ratio | max |")
        print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
        for where, found in reads.items():
            cells = [cell for pair in zip(found, reads[BASE]) for cell in microseconds(*pair)]
            print(f"| {where} | {' | '.join(cells)} |")
        print()


def parse():
    made = parser(__doc__)
    made.add_argument("--commits", type=int, default=COMMITS, help=f"per interval ({COMMITS})")
    made.add_argument("--seconds", type=float, default=20,
                      help="in which batches gather, per round (20; less than a minute)")
    made.add_argument("--readers", type=int, default=4, help="processes (4)")
    made.add_argument("--only", choices=["visible", "apply"], help="this and nothing else")
    return made.parse_args()


def main():
    options = parse()
    visible, apply = [], []
    with workplace(options) as name:
        work = pathlib.Path(name).resolve()
        program = compile_bench(work)
        with Gateway(work) as endpoint:
            stores = [("file://", file_bucket(work, "bucket"))]
            if endpoint:
                stores.append(("S3 (radosgw, loopback)", s3_bucket(endpoint, "follow")))
            for store, bucket in stores:
                with Primary(program, bucket, work) as primary:
                    if options.only != "apply":
                        visible += [(store, interval,
                                     measure_visible(primary, work, interval, options.commits))
                                    for interval in INTERVALS]
                    if options.only != "visible":
                        apply.append((store, *measure_apply(program, primary, work, options)))
    if visible:
        print_visible(visible)
    if apply:
        print_apply(apply)
        print_reads(apply)


if __name__ == "__main__":
    main()
