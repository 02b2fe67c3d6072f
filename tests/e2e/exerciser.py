"""Random operations on a file, each compared with a model in memory."""
import ctypes
import errno
import mmap
import os
import random
import tempfile

LIBC = ctypes.CDLL(None, use_errno=True)
PUNCH_HOLE, KEEP_SIZE, ZERO_RANGE = 2, 1, 16
LARGEST = 256 * 1024


def fallocate(fd, mode, offset, length):
    if LIBC.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def lacking(directory):
    """The operations that the file system of a directory does not have."""
    names = set()
    with tempfile.TemporaryFile(dir=directory) as file:
        for name, mode in (("punch_hole", PUNCH_HOLE | KEEP_SIZE),
                           ("zero_range", ZERO_RANGE | KEEP_SIZE), ("allocate", 0)):
            try:
                fallocate(file.fileno(), mode, 0, 4096)
            except OSError as error:
                assert error.errno == errno.EOPNOTSUPP
                names.add(name)
    return names


class Exerciser:
    """A file that is opened, closed and renamed at will, and what it must hold."""

    def __init__(self, path, seed, content=b"", without=()):
        self.random = random.Random(seed)
        self.weights = {name: weight for name, weight in self.WEIGHTS.items() if name not in without}
        self.path = str(path)
        self.other_path = f"{path}.renamed"
        self.model = bytearray(content)
        with open(self.path, "wb") as file:
            file.write(content)
        self.fd = os.open(self.path, os.O_RDWR)

    def span(self, limit):
        offset = self.random.randrange(limit)
        # Often whole pages, as SQLite does.
        if self.random.random() < 0.3:
            offset = offset // 4096 * 4096
            return offset, 4096
        return offset, self.random.randint(1, 20000)

    def grow_model(self, size):
        if size > len(self.model):
            self.model.extend(bytes(size - len(self.model)))

    def put(self, offset, data):
        self.grow_model(offset + len(data))
        self.model[offset:offset + len(data)] = data

    def write(self):
        offset, length = self.span(LARGEST)
        data = self.random.randbytes(length)
        assert os.pwrite(self.fd, data, offset) == length
        self.put(offset, data)

    def append(self):
        if len(self.model) > LARGEST:
            return
        data = self.random.randbytes(self.random.randint(1, 5000))
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        os.write(fd, data)
        os.close(fd)
        self.put(len(self.model), data)

    def read(self):
        offset, length = self.span(LARGEST)
        assert os.pread(self.fd, length, offset) == self.model[offset:offset + length]

    def read_all(self):
        with open(self.path, "rb") as file:
            assert file.read() == self.model
        assert os.stat(self.path).st_size == os.fstat(self.fd).st_size == len(self.model)

    def mapped(self, change):
        if not self.model:
            return
        offset, length = self.span(len(self.model))
        length = min(length, len(self.model) - offset)
        with mmap.mmap(self.fd, len(self.model)) as view:
            if change:
                data = self.random.randbytes(length)
                view[offset:offset + length] = data
                self.put(offset, data)
                if self.random.random() < 0.5:
                    view.flush()
            else:
                assert view[offset:offset + length] == self.model[offset:offset + length]

    def read_mapped(self):
        self.mapped(False)

    def write_mapped(self):
        self.mapped(True)

    def truncate(self):
        size = self.random.randrange(LARGEST)
        os.ftruncate(self.fd, size)
        del self.model[size:]
        self.grow_model(size)

    def zero(self, mode):
        offset, length = self.span(LARGEST)
        fallocate(self.fd, mode | KEEP_SIZE, offset, length)
        end = min(offset + length, len(self.model))
        if end > offset:
            self.model[offset:end] = bytes(end - offset)

    def punch_hole(self):
        self.zero(PUNCH_HOLE)

    def zero_range(self):
        self.zero(ZERO_RANGE)

    def allocate(self):
        offset, length = self.span(LARGEST)
        fallocate(self.fd, 0, offset, length)
        self.grow_model(offset + length)

    def sync(self):
        os.fsync(self.fd)

    def reopen(self):
        os.close(self.fd)
        self.fd = os.open(self.path, os.O_RDWR)

    def rename(self):
        os.rename(self.path, self.other_path)
        self.path, self.other_path = self.other_path, self.path
        assert not os.path.exists(self.other_path)

    WEIGHTS = {"write": 20, "read": 20, "append": 4, "read_all": 3, "read_mapped": 8,
               "write_mapped": 8, "truncate": 4, "punch_hole": 3, "zero_range": 2, "allocate": 2,
               "sync": 1, "reopen": 3, "rename": 1}

    def run(self, count):
        try:
            self.run_some(self.random.choices(list(self.weights), self.weights.values(), k=count))
            self.read_all()
        finally:
            os.close(self.fd)

    def run_some(self, names):
        for number, name in enumerate(names):
            try:
                getattr(self, name)()
            except (AssertionError, OSError) as error:
                last = ", ".join(names[max(0, number - 10):number + 1])
                # Not the bytes, which are many.
                raise AssertionError(f"operation {number} of {last}: {str(error)[:200]}") from None
