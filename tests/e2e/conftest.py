"""Fixtures of the end-to-end tests; see docs/testing.md.

What tests/run provides comes by environment: LITEBUCKET (the program),
TEST_S3 (an S3 server's endpoint), TEST_JUDGES (a
directory with `ltx` and `litestream`).  Without one of the latter two the tests
that need it are skipped; with CI set they fail.
"""
import copy
import itertools
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import urllib.parse

import pytest

import every_way
import faults
import harness
from proxy import Proxy

sys.path.insert(0, str(harness.ROOT / "tests" / "lib"))


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="a tenth of the long counts")
    parser.addoption("--soak", action="store_true", help="the long counts")


def pytest_configure(config):
    config.addinivalue_line("markers", "more: only with --all or --soak")


def pytest_collection_modifyitems(config, items):
    """Tables are long; tests/run takes of them what is unlike the rest."""
    if config.getoption("--all") or config.getoption("--soak"):
        return
    left_out = [item for item in items if item.get_closest_marker("more")]
    items[:] = [item for item in items if item not in set(left_out)]
    config.hook.pytest_deselected(items=left_out)


def required(what):
    """What is missing is a skip for people and a failure in CI."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} (required, because CI is set)")
    pytest.skip(what)


@pytest.fixture(scope="session", autouse=True)
def prerequisites():
    if not harness.LITEBUCKET.exists():
        pytest.exit(f"{harness.LITEBUCKET} does not exist; build it first", 2)
    if not os.path.exists("/dev/fuse"):
        required("no /dev/fuse")
    # The tests say themselves where they want something else.
    for name in list(os.environ):
        if name.startswith(("LITEBUCKET_", "AWS_")):
            del os.environ[name]


@pytest.fixture(scope="session")
def soak(request):
    """soak(few, many): a count for this run; --all is a tenth of many, at least few."""
    if request.config.getoption("--soak"):
        return lambda few, many: many
    if request.config.getoption("--all"):
        return lambda few, many: max(few, many // 10)
    return lambda few, many: few


@pytest.fixture
def work(tmp_path):
    """A directory of this test, removed after it, with nothing left mounted."""
    yield tmp_path
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        left = [line.split()[1] for line in mounts if str(tmp_path) in line.split()[1]]
    for point in reversed(left):
        subprocess.run(["umount", "-l", point], check=True)
    shutil.rmtree(tmp_path, ignore_errors=True)
    assert not left, f"the test left mounts behind: {left}"


@pytest.fixture
def anywhere():
    """A directory that every user reaches; pytest's own are its user's."""
    with tempfile.TemporaryDirectory(prefix="litebucket-") as directory:
        os.chmod(directory, 0o755)
        yield pathlib.Path(directory)


@pytest.fixture(scope="session")
def s3_endpoint():
    endpoint = os.environ.get("TEST_S3")
    if not endpoint:
        required("no S3 server: TEST_S3 is not set")
    return endpoint


bucket_numbers = itertools.count(1)


@pytest.fixture
def s3_bucket(s3_endpoint):
    return harness.S3Bucket(s3_endpoint, f"test-{os.getpid()}-{next(bucket_numbers)}")


@pytest.fixture
def away(s3_bucket):
    """The S3 bucket behind a network that can be cut."""
    endpoint = urllib.parse.urlsplit(s3_bucket.endpoint)
    proxy = Proxy((endpoint.hostname, endpoint.port))
    behind = copy.copy(s3_bucket)
    behind.url = s3_bucket.url_of("", endpoint=f"http://127.0.0.1:{proxy.port}")
    yield behind, proxy
    proxy.close()


@pytest.fixture
def file_bucket(work):
    (work / "bucket").mkdir()
    return harness.FileBucket(work / "bucket")


@pytest.fixture(params=["file", "s3"])
def bucket(request):
    """A fresh bucket of each kind."""
    return request.getfixturevalue(f"{request.param}_bucket")


@pytest.fixture
def mount(work):
    """mount(bucket, *options, ...): a Mount in this test's directory."""
    started = []

    def make(bucket, *options, name="data", **keywords):
        made = harness.Mount(bucket, work / name, work / f"{name}.log", *options, **keywords)
        started.append(made)
        return made

    yield make
    for made in started:
        made.unmount()


@pytest.fixture(scope="module")
def table_mount(tmp_path_factory):
    """One mount for all stories of a table; each has names of its own."""
    work = tmp_path_factory.mktemp("table")
    (work / "bucket").mkdir()
    made = harness.Mount(harness.FileBucket(work / "bucket"), work / "data", work / "log",
                         "--upload-interval", "50ms", limit_seconds=3600)
    with made:
        yield made
    shutil.rmtree(work, ignore_errors=True)


story_numbers = itertools.count(1)


@pytest.fixture
def story(table_mount, tmp_path):
    """A new database's story; told and checked by the test."""
    told = every_way.Story(table_mount, tmp_path / "copies", f"story-{next(story_numbers)}.db")
    yield told
    told.close_all()
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture
def small_disk(work):
    """small_disk(name, kib): a mounted file system of that size."""
    disks = []

    def make(name, kib):
        directory = work / name
        directory.mkdir()
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "small", directory],
                              stderr=subprocess.PIPE, text=True)
        if made.returncode != 0:
            pytest.skip(f"no file system of our own here: {made.stderr.strip()}")
        disks.append(directory)
        return directory

    yield make
    for disk in disks:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.fixture(scope="session")
def c_client(tmp_path_factory):
    """tests/lib/client.c, compiled without sanitizers: an ordinary program."""
    program = tmp_path_factory.mktemp("client") / "client"
    source = harness.ROOT / "tests" / "lib" / "client.c"
    harness.run("cc", "-std=gnu17", "-O1", "-Wall", "-Wextra", "-Werror", "-o", program, source, "-lsqlite3")
    return program


@pytest.fixture(scope="session")
def c_reader(tmp_path_factory):
    """tests/lib/reader.c, compiled without sanitizers: an ordinary program."""
    program = tmp_path_factory.mktemp("reader") / "reader"
    harness.run("cc", "-std=gnu17", "-O1", "-Wall", "-Wextra", "-Werror", "-o", program,
                harness.ROOT / "tests" / "lib" / "reader.c", "-lsqlite3")
    # Another user runs it, too.
    for directory in (program.parent, *program.parents):
        if str(directory).startswith("/tmp/"):
            directory.chmod(0o711)
    return program


@pytest.fixture(scope="session")
def faultfs(tmp_path_factory):
    """tests/lib/faultfs.c, compiled: a file system that fails on demand."""
    program = tmp_path_factory.mktemp("faultfs") / "faultfs"
    sources = sorted((harness.ROOT / "tests" / "lib").glob("faultfs*.c"))
    flags = harness.run("pkg-config", "--cflags", "--libs", "fuse3").stdout.split()
    harness.run("cc", "-std=gnu17", "-D_GNU_SOURCE", "-O1", "-g", "-Wall", "-Wextra", "-Werror",
                "-o", program, *sources, *flags)
    return program


@pytest.fixture
def disk(faultfs, work):
    """disk(*options): a directory on a disk that can fail and lose power."""
    made = []

    def make(*options, name="disk"):
        made.append(faults.Disk(faultfs, work, name, *options))
        return made[-1]

    yield make
    for each in made:
        each.end()


@pytest.fixture
def lossy(faultfs, work):
    """lossy(*options): a disk that loses power; LazyFS if TEST_LAZYFS names it."""
    made = []

    def make(*options):
        made.append(faults.make_disk(faultfs, work, *options))
        return made[-1]

    yield make
    for disk in made:
        disk.end()


@pytest.fixture(scope="session")
def judges():
    """The directory of the public programs `ltx` and `litestream`."""
    directory = os.environ.get("TEST_JUDGES")
    if not directory:
        required("no judges: TEST_JUDGES is not set")
    return pathlib.Path(directory)
