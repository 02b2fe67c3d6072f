"""A file on the mount behaves as bytes in memory do, whatever its name and content."""
import pathlib
import random
import sqlite3

import pytest

from exerciser import Exerciser, lacking


def database(work):
    path = work / "made.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t(body)")
    connection.execute("INSERT INTO t VALUES (randomblob(50000))")
    connection.commit()
    connection.close()
    return path.read_bytes()


@pytest.mark.parametrize("name", ["plain", "text.db", "app.db", "app.db-wal", "app.db-journal"])
def test_random_operations_give_what_memory_gives(file_bucket, mount, work, soak, name):
    seed = random.randrange(1 << 31)
    print(f"seed {seed}")
    count = soak(4000, 200000)
    with mount(file_bucket, "--upload-interval", "50ms") as data:
        if name.startswith("app.db-"):
            (data / "app.db").write_bytes(database(work))
        content = database(work) if name == "app.db" else b""
        exerciser = Exerciser(data / name, seed, content, lacking(work))
        exerciser.run(count)
    # Below the mount it is the same.
    below = data.directory / pathlib.Path(exerciser.path).name
    assert below.read_bytes() == exerciser.model
