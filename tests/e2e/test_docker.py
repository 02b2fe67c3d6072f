"""The compose files, on a real engine; in the order in which they are here.

One project is up for all of them: what one test breaks and mends, the next one uses.
TEST_DOCKER_TAG=TAG takes images that `docker/build --tag TAG all` made, and builds none.
"""
import concurrent.futures
import os
import threading
import time

import pytest

import containers
from conftest import required
from containers import Page, Project, docker
from harness import eventually, run

BUCKET = "s3://backups/guestbook?endpoint=http://s3:7480"
DATABASE = "/data/guestbook.db"
FOLLOWERS = ("1", "2")
RUN = f"test-{os.getpid()}"
TAG = os.environ.get("TEST_DOCKER_TAG", RUN)


@pytest.fixture(scope="module")
def images():
    reason = containers.why_not()
    if reason:
        required(reason)
    if TAG != RUN:
        yield
        return
    try:
        containers.build_images(TAG)
        yield
    finally:
        containers.remove_images(TAG)


@pytest.fixture(scope="module")
def shared(images):
    with containers.shared_directory() as directory:
        yield directory


@pytest.fixture(scope="module")
def projects(images, shared):
    """Both compose files; they take half a minute each, so at the same time."""
    ports = containers.free_ports(4)
    (shared / "data").mkdir(mode=0o555)
    together = Project("compose.yaml", f"litebucket-{RUN}", TAG, PRIMARY_PORT=str(ports[0]),
                       READER_1_PORT=str(ports[1]), READER_2_PORT=str(ports[2]))
    together.primary = Page(ports[0])
    together.readers = {"1": Page(ports[1]), "2": Page(ports[2])}
    sidecar = Project("compose.sidecar.yaml", f"litebucket-{RUN}-sidecar", TAG,
                      PRIMARY_PORT=str(ports[3]), SHARED=str(shared))
    sidecar.page = Page(ports[3])
    try:
        with concurrent.futures.ThreadPoolExecutor() as pool:
            list(pool.map(Project.up, (together, sidecar)))
        yield {"together": together, "sidecar": sidecar}
    finally:
        sidecar.down()
        together.down()


@pytest.fixture
def project(projects):
    projects["together"].wait_healthy("primary")
    return projects["together"]


@pytest.fixture
def sidecar(projects):
    projects["sidecar"].wait_healthy("mount", "app")
    return projects["sidecar"]


def sign(page, *texts):
    for text in texts:
        assert page.sign(text), page.ask("/health")


def test_what_the_application_commits_is_read_on_both_followers(project):
    sign(project.primary, "one", "two", "three")
    for number in FOLLOWERS:
        project.readers[number].wait_texts(["one", "two", "three"])
    project.wait_healthy("reader-1", "reader-2")


def test_a_replica_tells_the_application_that_it_cannot_be_written(project):
    before = project.primary.texts()
    for number in FOLLOWERS:
        status, answer = project.readers[number].ask("/entries", b"mine")
        assert (status, answer["error"]) == (403, "attempt to write a readonly database")
        assert project.readers[number].texts() == before


def test_followers_and_applications_have_no_privilege(project):
    for service, program, user in (("primary", "python3", "1000"), ("follower-1", "litebucket follow", "1000"),
                                   ("reader-1", "python3", "1001")):
        status = project.process_status(service, program)
        assert set(status["Uid"].split()) == {user}, service
        assert status["NoNewPrivs"] == "1", service
        for kind in ("CapEff", "CapPrm", "CapInh", "CapBnd"):
            assert int(status[kind], 16) == 0, (service, kind)
    for service in ("follower-1", "reader-1"):
        project.execute(service, "sh", "-c", "! test -e /dev/fuse && ! touch /tmp/anything 2>/dev/null")


def test_a_follower_whose_network_is_cut_serves_on_and_catches_up(project):
    follower = project.container("follower-1")
    network = f"{project.name}_default"
    started = project.state("follower-1")["StartedAt"]
    before = project.primary.texts()
    docker("network", "disconnect", network, follower)
    try:
        sign(project.primary, *[f"while cut off {i}" for i in range(20)])
        after = project.primary.texts()
        project.readers["2"].wait_texts(after)
        assert project.readers["1"].texts() == before != after
    finally:
        docker("network", "connect", network, follower)
    project.readers["1"].wait_texts(after)
    assert project.state("follower-1")["StartedAt"] == started


def test_a_primary_that_is_killed_loses_nothing_and_its_followers_go_on(project):
    before = project.primary.texts()
    tried, certain, enough = [], [], threading.Event()

    def write():
        while not enough.is_set():
            tried.append(f"during the kill {len(tried)}")
            if project.primary.sign(tried[-1]):
                certain.append(tried[-1])
            else:
                time.sleep(0.2)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        writing = pool.submit(write)
        try:
            eventually(lambda: len(certain) > 10, 60, "nothing is written")
            docker("kill", project.container("primary"))
            at_kill = len(certain)
            docker("start", project.container("primary"))
            eventually(lambda: len(certain) > at_kill + 10, 60, "it does not go on")
        finally:
            enough.set()
        writing.result()
    assert len(certain) < len(tried), "the kill was not noticed"
    texts = project.primary.texts()
    assert texts[:len(before)] == before
    assert set(certain) <= set(texts[len(before):]) <= set(tried)
    for number in FOLLOWERS:
        project.readers[number].wait_texts(texts)


def test_a_mount_that_dies_takes_the_application_with_it_and_both_come_back(project):
    texts = project.primary.texts()
    started = project.state("primary")["StartedAt"]
    project.execute("primary", "sh", "-c", """
        for process in /proc/[0-9]*; do
            case $(tr '\\0' ' ' <$process/cmdline) in 'litebucket mount'*) kill -9 ${process#/proc/} ;; esac
        done""")
    eventually(lambda: project.state("primary")["StartedAt"] != started, 60, "it is not started again")
    project.wait_healthy("primary")
    assert project.primary.texts() == texts
    sign(project.primary, "after the mount's death")


def sha256_of_volume(volume):
    """The hash of the database in a volume, and nothing but the database may be there."""
    text = docker("run", "--rm", "--entrypoint", "sh", "-v", f"{volume}:/data:ro", f"litebucket:{TAG}", "-c",
                  f"ls /data && sha256sum {DATABASE}")
    names, line = text.splitlines()[:-1], text.splitlines()[-1]
    assert names == ["guestbook.db"], names
    return line.split()[0]


@pytest.mark.parametrize("by_hand", [True, False], ids=["by hand", "by the mount"])
def test_a_volume_that_is_lost_is_restored_from_the_bucket(project, by_hand):
    sign(project.primary, f"before the end, restored by hand: {by_hand}")
    texts = project.primary.texts()
    primary, volume = project.container("primary"), f"{project.name}_primary"
    docker("stop", primary)
    assert project.state("primary")["ExitCode"] == 0, project.logs()
    lost = sha256_of_volume(volume)
    docker("rm", primary)
    docker("volume", "rm", volume)

    if by_hand:
        project.compose("run", "--rm", "--no-deps", "--user", "1000:1000", "--entrypoint", "litebucket", "primary",
                        "restore", "-o", DATABASE, BUCKET.replace("?", "/guestbook.db?"))
        assert sha256_of_volume(volume) == lost
    project.up("primary")
    project.wait_healthy("primary")
    assert project.primary.texts() == texts
    sign(project.primary, "and a new beginning")
    for number in FOLLOWERS:
        project.readers[number].wait_texts([*texts, "and a new beginning"])


def restored_from_bucket(project):
    """How many entries the bucket has, seen by a program that reads nothing else."""
    docker("run", "--rm", "--entrypoint", "sh", "-v", f"{project.name}-restored:/data",
           "--network", f"{project.name}_default", "-e", "AWS_ACCESS_KEY_ID=demo",
           "-e", "AWS_SECRET_ACCESS_KEY=demo-secret", f"litebucket:{TAG}", "-c",
           f"litebucket restore --force -o {DATABASE} '{BUCKET.replace('?', '/guestbook.db?')}'")
    try:
        return docker("run", "--rm", "-v", f"{project.name}-restored:/data", "--user", "0",
                      "--entrypoint", "python3", f"litebucket-app:{TAG}", "-c", f"""
import sqlite3
print([text for text, in sqlite3.connect({DATABASE!r}).execute("SELECT text FROM entry ORDER BY id")])""")
    finally:
        docker("volume", "rm", f"{project.name}-restored")


def test_beside_a_side_car_what_the_application_commits_is_in_the_bucket(sidecar):
    sign(sidecar.page, "from another container", "by a program that knows nothing")
    sidecar.execute("mount", "litebucket", "sync", "/shared/data/guestbook.db")
    assert restored_from_bucket(sidecar) == str(sidecar.page.texts())


def test_while_the_side_car_is_away_the_application_gets_errors_and_no_other_files(sidecar, shared):
    texts = sidecar.page.texts()
    app_started = sidecar.state("app")["StartedAt"]
    for end in ("kill", "stop"):
        docker(end, sidecar.container("mount"))
        for _ in range(3):
            status, answer = sidecar.page.ask("/entries", b"nowhere")
            assert (status, answer["error"]) == (503, "unable to open database file")
        if end == "stop":
            assert not list((shared / "data").iterdir()), "something was written past the mount"
        docker("start", sidecar.container("mount"))
        sidecar.wait_healthy("mount")
        assert sidecar.page.texts() == texts
        sign(sidecar.page, f"after a {end}")
        texts.append(f"after a {end}")
    assert sidecar.state("app")["StartedAt"] == app_started
    sidecar.execute("mount", "litebucket", "sync", "/shared/data/guestbook.db")
    assert restored_from_bucket(sidecar) == str(texts)


# What docs/docker.md says of each way to bring a mount from one container to another: how
# each is bound, and what a container meets that was started before the mount, and one
# that was started after it; then the same once the mount's container was killed and started.
WAYS = {
    "parent, rshared and rslave": ("{shared}:/shared:rshared", "{shared}:/shared:rslave", "mount mount mount mount"),
    "parent, private where it is made": ("{shared}:/shared", "{shared}:/shared:rslave", "plain plain plain plain"),
    "parent, private where it is used": ("{shared}:/shared:rshared", "{shared}:/shared", "plain mount plain dead"),
    "itself, rslave": ("{shared}:/shared:rshared", "{shared}/here:/shared/here:rslave", "mount mount mount dead"),
    "itself, private": ("{shared}:/shared:rshared", "{shared}/here:/shared/here", "plain mount plain dead"),
    "named volume": ("{volume}:/shared", "{volume}:/shared", "plain plain plain plain"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_mount_reaches_another_container_by_bind_mounts_of_the_parent_alone(images, shared, way):
    made, used, expected = WAYS[way]
    names = {part: f"litebucket-{RUN}-{part}" for part in ("mount", "before", "after", "volume")}
    made, used = [place.format(shared=shared, volume=names["volume"]) for place in (made, used)]
    (shared / "here").mkdir(exist_ok=True)

    def start_other(part):
        docker("run", "-d", "--name", names[part], "-v", used, "--entrypoint", "sleep", f"litebucket:{TAG}", "600")

    def what_meets(part):
        return docker("exec", names[part], "sh", "-c", """
            if ! ls /shared/here >/dev/null 2>&1; then echo dead
            elif stat -f -c %T /shared/here | grep -q fuse; then echo mount
            else echo plain
            fi""")

    def wait_mounted():
        command = ("docker", "exec", names["mount"], "litebucket", "status", "/shared/here")
        eventually(lambda: run(*command, check=False).returncode == 0, 60,
                   lambda: run("docker", "logs", names["mount"]).stderr)

    try:
        docker("volume", "create", names["volume"])
        docker("run", "--rm", "-v", made, "--entrypoint", "mkdir", f"litebucket:{TAG}", "-p", "/shared/here")
        start_other("before")
        docker("run", "-d", "--name", names["mount"], "--device", "/dev/fuse", "--cap-add", "SYS_ADMIN",
               "--cap-add", "LEASE", "--security-opt", "apparmor=unconfined", "-v", made,
               f"litebucket:{TAG}", "mount", "--allow-other", "/shared/here", "file:///bucket")
        wait_mounted()
        start_other("after")
        met = [what_meets("before"), what_meets("after")]
        docker("kill", names["mount"])
        docker("start", names["mount"])
        wait_mounted()
        met += [what_meets("before"), what_meets("after")]
        assert " ".join(met) == expected
    finally:
        run("docker", "rm", "-f", "-v", *[names[part] for part in ("mount", "before", "after")], check=False)
        run("docker", "volume", "rm", names["volume"], check=False)
        while run("umount", "-l", shared / "here", check=False).returncode == 0:
            pass
