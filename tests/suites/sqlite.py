#!/usr/bin/env python3
"""SQLite's own tests, on a mount and beside it.

    sqlite.py [--selection few|some|all] [--only PATTERN] --junit FILE SUITE WORK

SUITE is what tests/lib/sqlite.sh printed.  Each test file is a process of its own
and runs twice, on a mount and in a bare directory of the same disk, as an
ordinary user.  What fails on the mount must fail in the bare directory too.

Then the oracle: each file that the test left on the mount and that is a database
is synced, restored and compared byte by byte with its copy at rest, and some of
its history is restored as well.  A run that compares nothing has failed.

One line per test file; the last one sums up.
"""
import argparse
import collections
import fnmatch
import os
import pathlib
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
import harness  # noqa: E402
from sqlite_oracle import Oracle  # noqa: E402
from sqlite_jobs import TclJob, jobs_of  # noqa: E402

NOBODY = 65534


class Run:
    """How one test file went in one directory."""

    def __init__(self, job, directory):
        directory.mkdir()
        os.chown(directory, NOBODY, NOBODY)
        began = time.monotonic()
        # The output goes beside the directory, not through the mount.
        process = subprocess.Popen(
            [str(part) for part in job.command(directory)], cwd=directory, user=NOBODY,
            group=NOBODY, extra_groups=[], start_new_session=True, text=True, errors="replace",
            env={"PATH": os.environ["PATH"], "HOME": str(directory), "LC_ALL": "C"},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        timed_out = False
        try:
            self.output, _ = process.communicate(timeout=job.limit_seconds)
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            end_session(process.pid)
        if timed_out:
            self.output, _ = process.communicate()
        self.seconds = time.monotonic() - began
        self.tests, self.failed = job.read_output(self.output, process.returncode)
        if timed_out:
            self.failed = {f"(not done after {job.limit_seconds} s)"}


def end_session(leader):
    """Whatever a test left running, for instance clients of mptester."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        pass


def remove(directory):
    """Also what a test made inaccessible, and if it is there at all."""
    if directory.exists():
        for path in [directory, *directory.rglob("*")]:
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)
        shutil.rmtree(directory)


class Result:
    def __init__(self, job):
        self.job = job
        self.failures = []
        self.seconds = self.seconds_beside = 0
        self.tests = 0
        self.counts = collections.Counter()


class Worker:
    """A mount and a bare directory, where one test file runs after the other."""

    def __init__(self, number, options, work):
        self.options = options
        self.work = work / str(number)
        self.bare, self.again = self.work / "bare", self.work / "again"
        self.bare.mkdir(parents=True)
        self.again.mkdir()
        (self.work / "bucket").mkdir()
        self.bucket = harness.FileBucket(self.work / "bucket")
        self.mount = harness.Mount(
            self.bucket, self.work / "data", self.work / "mount.log", "--allow-other",
            "--test-pending-byte", str(TclJob.pending_byte), limit_seconds=8 * 3600)
        self.mount.__enter__()
        os.chmod(self.mount.directory, 0o755)
        self.oracle = Oracle(self.bucket, options.suite, self.work / "oracle")

    def run(self, job):
        result = Result(job)
        try:
            self.look_for_locks_at(job.pending_byte)
            self.try_run(job, result)
        except Exception as error:  # pylint: disable=broad-except
            result.failures.append(f"{type(error).__name__}: {error}")
        if self.mount.process is None or self.mount.process.poll() is not None:
            result.failures.append(f"the mount ended: {self.mount.log_text()[-2000:]}")
            self.mount.unmount()
            self.mount.start()
        return result

    def look_for_locks_at(self, pending_byte):
        """The mount asks whether SQLite has a lock, and must know where."""
        if self.mount.options[-1] == str(pending_byte):
            return
        status = self.mount.stop()
        assert status == 0, f"the mount ended with {status}: {self.mount.log_text()[-2000:]}"
        self.mount.options[-1] = str(pending_byte)
        self.mount.start()

    def try_run(self, job, result):
        mounted, bare = self.mount.point / job.name, self.bare / job.name
        run = Run(job, mounted)
        result.seconds, result.tests = run.seconds, run.tests
        result.counts = self.oracle.check(mounted, job, result.failures)
        if run.failed or job.varies:
            beside = Run(job, bare)
            self.compare(job, run, beside, result)
            if run.tests < beside.tests and not beside.failed:
                self.count_again(job, run, beside, result)
        if not (result.failures and self.options.keep):
            remove(mounted)
            remove(bare)

    @staticmethod
    def compare(job, run, beside, result):
        result.seconds_beside = beside.seconds
        result.counts["errors here and beside"] += len(run.failed & beside.failed)
        new = run.failed - beside.failed
        if new:
            result.failures.append(
                f"fails on the mount only: {' '.join(sorted(new))}\n{job.explain(run.output, new)}")

    def count_again(self, job, run, beside, result):
        """Some files have as many tests as chance gives them, here as there."""
        again = Run(job, self.again / job.name)
        remove(self.again / job.name)
        if again.tests == beside.tests:
            result.failures.append(
                f"{run.tests} tests on the mount, {beside.tests} in the bare directory")

    def close(self):
        self.mount.__exit__(None, None, None)


def summary(results):
    counts = sum((result.counts for result in results), collections.Counter())
    counts["files"] = len(results)
    counts["tests"] = sum(result.tests for result in results)
    return counts


def describe(counts):
    return ", ".join(f"{counts[name]} {name}" for name in sorted(counts) if counts[name])


def write_junit(path, results):
    root = ElementTree.Element("testsuite", name="sqlite", tests=str(len(results)))
    for result in results:
        case = ElementTree.SubElement(root, "testcase", classname=result.job.suite,
                                      name=result.job.name, time=f"{result.seconds:.1f}")
        if result.failures:
            ElementTree.SubElement(case, "failure").text = "\n".join(result.failures)
    ElementTree.ElementTree(root).write(path)


def copy_suite(suite, work):
    """What the tests need, where an ordinary user may read it."""
    for part in ("src", "bld"):
        shutil.copytree(suite / part, work / "suite" / part, symlinks=True, dirs_exist_ok=True,
                        ignore=shutil.ignore_patterns("*.o", "*.lo", "*.html", "www"))
    return work / "suite"


def work_through(options, jobs):
    waiting, results = queue.Queue(), []
    for job in jobs:
        waiting.put(job)
    lock = threading.Lock()

    def serve(worker):
        while True:
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                return
            result = worker.run(job)
            with lock:
                results.append(result)
                report(result)

    workers = [Worker(n, options, options.work) for n in range(options.workers)]
    threads = [threading.Thread(target=serve, args=[worker]) for worker in workers]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        for worker in workers:
            worker.close()
    return results


def report(result):
    verdict = "FAILED" if result.failures else "ok"
    print(f"{verdict:6} {result.job.name}: {result.tests} tests in {result.seconds:.1f} s"
          f" ({result.seconds_beside:.1f} s beside); {describe(result.counts)}")
    for failure in result.failures:
        print("       " + failure.replace("\n", "\n       "))
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--selection", choices=["few", "some", "all"], default="some")
    parser.add_argument("--only", action="append", help="only jobs whose names match this pattern")
    parser.add_argument("--junit", type=pathlib.Path)
    parser.add_argument("--keep", action="store_true", help="leave the files of what failed")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("suite", type=pathlib.Path)
    parser.add_argument("work", type=lambda text: pathlib.Path(text).resolve())
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    options.suite = copy_suite(options.suite, options.work)
    jobs = jobs_of(options.suite, options.selection, options.work)
    if options.only:
        jobs = [job for job in jobs if any(fnmatch.fnmatch(job.name, p) for p in options.only)]
    results = work_through(options, jobs)
    if options.junit:
        write_junit(options.junit, results)
    counts = summary(results)
    print("SQLite's tests:", describe(counts))
    if not counts["databases compared"]:
        sys.exit("no database was compared")
    sys.exit(any(result.failures for result in results))


if __name__ == "__main__":
    main()
