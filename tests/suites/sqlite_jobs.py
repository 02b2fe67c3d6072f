"""What of SQLite's own tests runs: one job per test file and way to run it."""
import fnmatch
import pathlib
import re
import subprocess

# SQLite's tests of syncing, journals and recovery, with a SQLite that syncs.
SYNCING = ("wal*", "pager*", "journal*", "crash*", "savepoint*", "vacuum*", "incrvacuum*",
           "backup*", "attach*", "exclusive*", "lock*")
# Those of a memory or an I/O that fails fail above the mount, thousands of times.
NOT_SYNCING = ("*malloc*", "*ioerr*", "*fault*")
PERMUTATIONS = ("wal", "persistent_journal", "truncate_journal")
MPTEST_SCRIPTS = ("crash01", "config01", "config02", "multiwrite01")
JOURNAL_MODES = ("delete", "persist", "truncate", "wal")

# What "some" runs, by the jobs' names: whatever is about files, journals and
# locks, but for what takes long.
SOME = tuple(f"veryquick-{name}" for name in (
    "wal*", "pager*", "journal*", "jrnlmode*", "mjournal", "crash*", "lock*", "shmlock",
    "exclusive*", "savepoint*", "vacuum*", "incrvacuum*", "autovacuum*", "backup*", "attach*",
    "shared*", "thread*", "mmap*", "io", "sync*", "symlink*", "delete_db", "8_3_names", "avtrans",
    "trans*", "tempdb*", "temptable*", "rollback*", "memjournal*", "subjournal", "superlock",
    "oserror", "unixexcl", "nolock", "cacheflush", "rdonly", "tkt3457", "tkt-f3e5abed55", "busy",
    "multiplex*", "quota*", "snapshot*", "zerodamage", "pagesize", "pragma*", "uri*", "corrupt*",
    "incrcorrupt", "chunksize", "filectrl", "filefmt", "e_vacuum", "e_wal*", "manydb", "diskfull",
)) + ("wal-savepoint*", "wal-*trans", "wal-fts3a[a-d]", "persistent_journal-*",
      "truncate_journal-[!im]*") + tuple(f"syncing-{name}" for name in (
    "wal", "wal2", "wal7", "walmode", "pager1", "journal1", "journal3", "crash3", "crash8",
    "savepoint", "savepoint2", "vacuum", "vacuum2", "incrvacuum2", "backup2", "attach*",
    "exclusive*", "lock*",
)) + ("mptest-crash01-*", "mptest-multiwrite01-*", "mptest-config01-delete", "mptest-config02-wal",
      "threadtest3-walthread[15]", "threadtest3-vacuum1", "threadtest3-checkpoint_starvation_1",
      "threadtest3-create_drop_index_1")
NOT_SOME = ("veryquick-walbig", "veryquick-walcrash4", "veryquick-walsetlk", "veryquick-vacuum6",
            "veryquick-vacuummem")
# For a build that is slow.
FEW = ("veryquick-wal", "veryquick-wal2", "veryquick-walmode", "veryquick-pager3", "veryquick-jrnlmode",
       "veryquick-journal[123]", "veryquick-savepoint", "veryquick-vacuum", "veryquick-attach",
       "veryquick-backup2", "veryquick-symlink", "veryquick-tkt3457", "persistent_journal-vacuum",
       "syncing-wal7", "mptest-multiwrite01-*")

SUMMARY = re.compile(r"^(\d+) errors out of (\d+) tests", re.MULTILINE)
FAILED = re.compile(r"^!Failures on these tests:(.*)$", re.MULTILINE)


# A test that writes into database files behind SQLite's back, copies them in the
# middle of a transaction, or writes in a way after which SQLite promises nothing;
# or that moves the page which SQLite never uses.
DAMAGES = re.compile(r"hexio_write|writable_schema|corrupt|journal_mode *= *(off|memory)"
                     r"|forcecopy|copy_file|file copy|faultsim|control_pending_byte", re.IGNORECASE)


class Job:
    limit_seconds = 1800
    damages = False
    varies = True # how many tests it has, so that a bare directory must tell
    pending_byte = 0x40000000 # where its SQLite has its locks

    def __init__(self, suite, name, *command):
        self.suite = suite
        self.name = name
        self.arguments = command

    def command(self, directory):
        return self.arguments

    def explain(self, output, failed):
        return output[-2000:]


class TclJob(Job):
    """testfixture with one test file, by the permutation it belongs to."""

    pending_byte = 0x10000

    def __init__(self, suite, program, source, permutation, path):
        stem = pathlib.Path(path).stem
        super().__init__(suite, f"{suite}-{stem}", program, source / "test" / "permutations.test",
                         permutation, pathlib.Path(path).name)
        text = (source / "test" / path).read_text(errors="replace")
        self.damages = bool(DAMAGES.search(text))

    def read_output(self, output, status):
        summary = SUMMARY.search(output)
        if not summary:
            return 0, {f"(ended with status {status})"}
        failed = FAILED.search(output)
        names = set(failed[1].split()) if failed else set()
        if int(summary[1]) and not names:
            names = {"(errors without a name)"}
        return int(summary[2]), names

    def explain(self, output, failed):
        lines = output.splitlines()
        picked = []
        for number, line in enumerate(lines):
            if any(f"! {name} " in line for name in failed):
                picked += lines[max(0, number - 1):number + 3]
        return "\n".join(picked[:40]) or output[-2000:]


class MptestJob(Job):
    """Several processes and one database."""

    varies = False
    limit_seconds = 300

    def __init__(self, build, source, script, mode):
        super().__init__("mptest", f"mptest-{script}-{mode}")
        self.program, self.script, self.mode = build / "mptester", source / "mptest" / f"{script}.test", mode

    def command(self, directory):
        # Its scripts name others without a directory.
        return ["sh", "-c", 'cd "$1" && exec "$2" "$3/x.db" "$4" --journalmode "$5"', "sh",
                self.script.parent, self.program, directory, self.script.name, self.mode]

    def read_output(self, output, status):
        summary = re.search(r"Summary: (\d+) errors out of (\d+) tests", output)
        if not summary:
            return 0, {f"(no summary, status {status})"}
        return int(summary[2]), {"(errors)"} if int(summary[1]) else set()

    def explain(self, output, failed):
        return "\n".join(re.findall(r".*:(?:ERROR|FATAL):.*", output)[:40]) or output[-2000:]


class ThreadJob(Job):
    """Threads of one process."""

    varies = False
    limit_seconds = 300

    def __init__(self, build, name):
        super().__init__("threadtest3", f"threadtest3-{name}", build / "threadtest3", name)

    def read_output(self, output, status):
        done = re.search(r"(\d+) errors out of (\d+) tests", output)
        if not done:
            return 0, {f"(no summary, status {status})"}
        return int(done[2]), {"(errors)"} if int(done[1]) or status else set()


def list_files(suite, permutation, work):
    """The test files of a permutation, as its own list has them."""
    script = work / "list.tcl"
    script.write_text(
        f"set argv0 {{{suite}/src/test/list.test}}\n"
        f"set testdir {{{suite}/src/test}}\n"
        "source $testdir/permutations.test\n"
        f"array set spec $::testspec({permutation})\n"
        "foreach f [lsort $spec(-files)] { puts \"FILE $f\" }\n"
        "exit 0\n")
    output = subprocess.run([suite / "bld" / "testfixture", script, f"--testdir={work}/list"],
                            check=True, text=True, stdout=subprocess.PIPE).stdout
    files = re.findall(r"^FILE (.*)$", output, re.MULTILINE)
    assert files, output
    return files


def matches(name, patterns):
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def is_selected(job, selection):
    if selection == "all":
        return True
    if selection == "few":
        return matches(job.name, FEW)
    return matches(job.name, SOME) and not matches(job.name, NOT_SOME)


def jobs_of(suite, selection, work):
    source, build = suite / "src", suite / "bld"
    jobs = [TclJob(permutation, build / "testfixture", source, permutation, path)
            for permutation in ("veryquick", *PERMUTATIONS)
            for path in list_files(suite, permutation, work)]
    jobs += [TclJob("syncing", build / "testfixture-sync", source, "full", path)
             for path in list_files(suite, "full", work)
             if matches(pathlib.PurePath(path).stem, SYNCING)
             and not matches(pathlib.PurePath(path).stem, NOT_SYNCING)]
    jobs += [MptestJob(build, source, script, mode)
             for script in MPTEST_SCRIPTS for mode in JOURNAL_MODES]
    tests = re.findall(r'^    \{ \w+, +"(\w+)"', (source / "test" / "threadtest3.c").read_text(), re.MULTILINE)
    jobs += [ThreadJob(build, name) for name in tests]
    return [job for job in jobs if is_selected(job, selection)]
