"""The compose files of docker/, on a real engine: images, projects, containers."""
import concurrent.futures
import contextlib
import functools
import json
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import urllib.error
import urllib.request

from harness import ROOT, eventually, run

BUILD_SECONDS = 900
UP_SECONDS = 240
ENOUGH_SECONDS = 90
IMAGES = ("litebucket", "litebucket-app", "litebucket-primary", "litebucket-s3")


def docker(*arguments, **options):
    return run("docker", *arguments, **options).stdout.strip()


@functools.cache
def compose_command():
    """The plugin, or the program that was there before it; None if neither is."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and subprocess.run(
                [*command, "version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0:
            return command
    return None


def why_not():
    """Why containers cannot be tested here, or None."""
    if not shutil.which("docker"):
        return "no docker (apt-get install docker.io docker-compose debootstrap)"
    answer = run("docker", "version", check=False)
    if answer.returncode != 0:
        inside = os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv")
        return ("no docker engine answers" + (", and this is a container itself" if inside else "")
                + ": " + answer.stderr.strip().splitlines()[-1])
    if not compose_command():
        return "neither docker compose nor docker-compose (apt-get install docker-compose)"
    if os.geteuid() != 0:
        return "containers are tested by root, who can make a base image and mounts that are shared"
    if not shutil.which("debootstrap"):
        return "no debootstrap, which makes the base image"
    return None


def free_ports(number):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def build_images(tag):
    """All images of docker/, on a base that stays for the next run."""
    base = run(ROOT / "docker" / "base.sh", timeout=BUILD_SECONDS).stdout.strip()

    def build(*images):
        run(ROOT / "docker" / "build", "--base", base, "--tag", tag, *images, timeout=BUILD_SECONDS)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        halves = [pool.submit(build, "litebucket-s3", "litebucket-app"),
                  pool.submit(build, "litebucket", "litebucket-primary")]
        for half in halves:
            half.result()


def remove_images(tag):
    run("docker", "image", "rm", "-f", *[f"{image}:{tag}" for image in IMAGES], check=False)
    # What the stages before the last one left.
    run("docker", "image", "prune", "-f", "--filter", f"label=litebucket.build={tag}", check=False)


class Page:
    """The application, as its users see it."""

    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, path, data=None):
        """(status, what it answered); 0 where nobody answers."""
        try:
            with urllib.request.urlopen(self.url + path, data, timeout=30) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except (OSError, ValueError) as error:
            return 0, {"error": str(error)}

    def sign(self, text):
        """Is it certain that this was committed?"""
        return self.ask("/entries", text.encode())[0] == 201

    def texts(self):
        status, entries = self.ask("/entries")
        assert status == 200, entries
        return [entry["text"] for entry in entries]

    def wait_texts(self, texts):
        eventually(lambda: self.ask("/entries")[0] == 200 and self.texts() == texts, ENOUGH_SECONDS,
                   lambda: f"{self.url} has {self.ask('/entries')}, and not {texts}")


class Project:
    """A compose file, brought up under a name of its own."""

    def __init__(self, file, name, tag, **environment):
        self.name = name
        self.command = [*compose_command(), "-p", name, "-f", str(ROOT / "docker" / file)]
        self.environment = {**os.environ, "TAG": tag, **environment}

    def compose(self, *arguments, **options):
        return run(*self.command, *arguments, env=self.environment, **options).stdout.strip()

    def up(self, *services):
        try:
            self.compose("up", "-d", "--no-build", *services, timeout=UP_SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from error

    def down(self):
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "5", check=False)

    def logs(self):
        return run(*self.command, "logs", "--no-color", "--tail", "40", env=self.environment, check=False).stdout

    def container(self, service):
        """By its labels, which is asked quicker than compose is."""
        label = "label=com.docker.compose"
        found = docker("ps", "-aq", "--filter", f"{label}.project={self.name}",
                       "--filter", f"{label}.service={service}").split()
        assert len(found) == 1, f"{len(found)} containers of {service}"
        return found[0]

    def state(self, service):
        return json.loads(docker("inspect", "-f", "{{json .State}}", self.container(service)))

    def wait_healthy(self, *services):
        for service in services:
            eventually(lambda: self.state(service)["Health"]["Status"] == "healthy", ENOUGH_SECONDS,
                       lambda: f"{service} is not healthy: {self.state(service)}\n{self.logs()}")

    def execute(self, service, *command):
        return docker("exec", self.container(service), *command)

    def process_status(self, service, program):
        """/proc/PID/status of a container's process, as a dictionary."""
        text = self.execute(service, "sh", "-c", """
            for process in /proc/[0-9]*; do
                case $(tr '\\0' ' ' <$process/cmdline) in "$0"*) cat $process/status; exit ;; esac
            done
            exit 1""", program)
        return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


@contextlib.contextmanager
def shared_directory():
    """A directory of the host whose mounts reach containers, and come from them."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="litebucket-shared-"))
    directory.chmod(0o755)
    run("mount", "--bind", directory, directory)
    run("mount", "--make-rshared", directory)
    try:
        yield directory
    finally:
        # Mounts that containers left there, dead, lie above ours.
        lines = pathlib.Path("/proc/self/mounts").read_text().splitlines()
        for point in reversed([line.split()[1] for line in lines]):
            if point == str(directory) or point.startswith(f"{directory}/"):
                run("umount", "-l", point, check=False)
        shutil.rmtree(directory)
