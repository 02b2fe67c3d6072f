"""Everyday work on a database, by three clients.

Each step is one commit: a Python connection that stays open, the sqlite3 shell
and a C program that come and go.  Between them they insert, update, delete,
change the schema, write large blobs and transactions of 20,000 rows, and shrink
the file.
"""
import sqlite3

import harness

JOURNALS = ["delete", "truncate", "persist", "wal"]
PAGE_SIZES = [512, 4096, 65536]

MANY_ROWS = 20000

# (client, what it does); the order makes every client meet the others' work.
STEPS = [
    ("python", "INSERT INTO t(n, body) VALUES (1, 'one'), (2, 'two'), (3, NULL)"),
    ("shell", "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 500) "
              "INSERT INTO t(n, body) SELECT i, randomblob(100) FROM c"),
    ("c", ("blob", 300_000)),
    ("python", "UPDATE t SET body = randomblob(200) WHERE id % 7 = 0"),
    ("c", ("rows", MANY_ROWS)),
    ("shell", "ALTER TABLE t ADD COLUMN note TEXT DEFAULT 'none'"),
    ("c", ("update",)),
    ("python", "CREATE INDEX IF NOT EXISTS t_n ON t(n)"),
    ("c", ("delete",)),
    ("shell", "INSERT INTO t(n, body) VALUES (7, randomblob(1500000))"),
    ("python", MANY_ROWS),
    ("shell", "DELETE FROM t WHERE length(body) > 1000"),
    ("python", "CREATE TABLE side AS SELECT * FROM t WHERE id % 5 = 0"),
    ("shell", "VACUUM"),
    ("c", ("rows", 10)),
    ("python", "DROP TABLE side"),
    ("shell", "UPDATE t SET n = -n WHERE id % 2 = 1"),
    ("c", ("delete",)),
    ("shell", "VACUUM"),
    ("python", "DELETE FROM t WHERE id > 100"),
    ("shell", "DROP INDEX IF EXISTS t_n"),
    ("python", "ALTER TABLE t DROP COLUMN note"),
]


class Workload:
    def __init__(self, path, journal, page_size, c_client):
        self.path = path
        self.journal = journal
        self.c_client = c_client
        self.connection = sqlite3.connect(path, isolation_level=None, timeout=10)
        self.connection.execute(f"PRAGMA page_size={page_size}")
        self.set_up = [f"PRAGMA journal_mode={journal}"]
        self.set_up.append("CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER, body BLOB)")

    def close(self):
        self.connection.close()

    def commits(self, count):
        """Do count commits, one at each step of the iteration."""
        steps = [("python", sql) for sql in self.set_up]
        if self.journal != "wal":
            # Such a mode is a connection's own and changes no file.
            self.connection.execute(self.set_up[0])
            del steps[0]
        while len(steps) < count:
            steps += STEPS
        for client, step in steps[:count]:
            getattr(self, f"by_{client}")(step)
            yield

    def by_python(self, step):
        if step == MANY_ROWS:
            with_rows = [(i, b"x" * (i % 40)) for i in range(MANY_ROWS)]
            self.connection.execute("BEGIN")
            self.connection.executemany("INSERT INTO t(n, body) VALUES (?, ?)", with_rows)
            self.connection.execute("COMMIT")
        else:
            self.connection.execute(step).fetchall()

    def by_shell(self, step):
        harness.run("sqlite3", "-bail", "-cmd", ".timeout 10000", self.path,
                    f"PRAGMA journal_mode={self.journal};\n{step};")

    def by_c(self, step):
        harness.run(self.c_client, self.path, self.journal, *step)
