"""A directory whose disk fails on demand: tests/lib/faultfs.c, or LazyFS."""
import os
import pathlib
import random
import select
import subprocess

import harness

# Real LazyFS instead, for the tests that lose power: its program, as built.
LAZYFS = os.environ.get("TEST_LAZYFS")


class Disk:
    """faultfs.c over a directory of a test.

    `disk.path` is the mount; the harness's directories go below it.
    """

    def __init__(self, program, work, name, *options):
        self.root = work / f"{name}.root"
        self.path = work / name
        self.root.mkdir()
        self.path.mkdir()
        self.process = subprocess.Popen([program, *options, self.root, self.path],
                                        stdin=subprocess.DEVNULL)
        harness.eventually(lambda: harness.is_mounted(self.path) or self.process.poll() is not None,
                           30, "the file system does not get mounted")
        assert self.process.poll() is None

    def command(self, text):
        """Returns when it is done."""
        fd = os.open(self.path / ".faultfs", os.O_WRONLY)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)

    def state(self):
        words = (self.path / ".faultfs").read_text().split()
        return {name: int(value) for name, value in zip(words[::2], words[1::2])}

    def lose(self, percent=0):
        """The power goes; returns how many changes were lost."""
        seed = random.randrange(1 << 31)
        print(f"lose {percent} {seed}")
        self.command(f"lose {percent} {seed}")
        return self.state()["lost"]

    def fail(self, operations, error, pattern, skip=0, count=1 << 31):
        self.command(f"fail {operations} {error} {pattern} {skip} {count}")

    def heal(self):
        """Everything works again; returns how often something did not."""
        failed = self.state()["failed"]
        self.command("heal")
        return failed

    def end(self):
        self.process.kill()
        self.process.wait(harness.STEP_SECONDS)
        subprocess.run(["umount", "-l", self.path], check=True)


class LazyDisk:
    """The same for LazyFS, as far as it can: what is lost is lost whole."""

    def __init__(self, program, work, name):
        self.root = work / f"{name}.root"
        self.path = work / name
        self.fifo = work / f"{name}.fifo"
        self.done = work / f"{name}.done"
        self.root.mkdir()
        self.path.mkdir()
        config = work / f"{name}.toml"
        config.write_text(f'[faults]\nfifo_path="{self.fifo}"\n'
                          f'fifo_path_completed="{self.done}"\n'
                          '[cache]\napply_eviction=false\n'
                          '[cache.simple]\ncustom_size="1gb"\nblocks_per_page=1\n')
        os.mkfifo(self.fifo)
        os.mkfifo(self.done)
        # It opens this once, and so do we.
        self.answers = os.open(self.done, os.O_RDONLY | os.O_NONBLOCK)
        with open(work / f"{name}.lazyfs.log", "wb") as log:
            self.process = subprocess.Popen(
                [program, self.path, "--config-path", config, "-o", "allow_other",
                 "-o", "modules=subdir", "-o", f"subdir={self.root}", "-f"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        harness.eventually(lambda: harness.is_mounted(self.path), 30, "LazyFS does not get mounted")

    def lose(self, percent=0):
        assert percent == 0, "LazyFS loses all or nothing"
        with open(self.fifo, "w", encoding="ascii") as fifo:
            fifo.write("lazyfs::clear-cache\n")
        readable, _, _ = select.select([self.answers], [], [], harness.STEP_SECONDS)
        assert readable and os.read(self.answers, 4096), "LazyFS does not answer"
        return 1

    def end(self):
        Disk.end(self)
        os.close(self.answers)


def make_disk(program, work, name="disk"):
    """The disk of the power loss tests."""
    if LAZYFS:
        return LazyDisk(LAZYFS, work, name)
    return Disk(program, work, name)
