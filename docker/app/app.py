"""A guest book: a web application with a SQLite database, and nothing else.

    GET  /              the page
    GET  /entries       all entries, as JSON
    POST /entries       add one; the body is the text
    GET  /health        can the database be read?

DATABASE is the file, PORT where it listens (8000).  It knows of no replication: the
same program runs on a plain file, on a mount, and on a replica, where SQLite says that
the database cannot be written.
"""
import contextlib
import html
import http.server
import json
import os
import signal
import sqlite3
import sys
import urllib.parse

DATABASE = os.environ.get("DATABASE", "guestbook.db")
PORT = int(os.environ.get("PORT", "8000"))
LONGEST = 10000

PAGE = """<!doctype html><meta charset=utf-8><title>Guest book</title><h1>Guest book</h1>
<form method=post action=/><input name=text maxlength=1000 autofocus><button>Sign</button></form>
<ol>{}</ol>
"""


@contextlib.contextmanager
def database():
    connection = sqlite3.connect(DATABASE, timeout=10, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


def prepare():
    """What any application does at its start; on a replica both are there already."""
    with database() as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE IF NOT EXISTS entry(id INTEGER PRIMARY KEY, text TEXT NOT NULL)")


def entries():
    with database() as db:
        rows = db.execute("SELECT id, text FROM entry ORDER BY id").fetchall()
    return [{"id": number, "text": text} for number, text in rows]


def add(text):
    with database() as db:
        return db.execute("INSERT INTO entry(text) VALUES (?)", (text,)).lastrowid


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, status, body, kind="application/json", **headers):
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def try_to(self, what):
        """Run it; what SQLite says against it is the answer."""
        try:
            what()
        except sqlite3.Error as error:
            read_only = getattr(error, "sqlite_errorname", "").startswith("SQLITE_READONLY")
            self.answer(403 if read_only else 503, {"error": str(error)})

    def do_GET(self):
        actions = {"/": self.page, "/entries": lambda: self.answer(200, entries()),
                   "/health": self.health}
        self.try_to(actions.get(self.path, lambda: self.answer(404, {"error": "no such page"})))

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        if length > LONGEST:
            self.close_connection = True
            self.answer(413, {"error": "too long"})
            return
        body = self.rfile.read(length).decode(errors="replace")
        if self.path == "/entries":
            self.try_to(lambda: self.answer(201, {"id": add(body)}))
        else:
            self.try_to(lambda: self.signed(body))

    def page(self):
        lines = "".join(f"<li>{html.escape(entry['text'])}" for entry in entries())
        self.answer(200, PAGE.format(lines), "text/html")

    def signed(self, form):
        add(urllib.parse.parse_qs(form).get("text", [""])[0])
        self.answer(303, "", Location="/")

    def health(self):
        with database() as db:
            db.execute("SELECT 1 FROM entry LIMIT 1").fetchall()
        self.answer(200, {"health": "good"})

    def log_message(self, *_):
        """Silence: a health check asks every few seconds."""


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        prepare()
    except sqlite3.Error as error:
        # A replica may not be there yet; each request says what is wrong.
        print(f"{DATABASE}: {error}", file=sys.stderr, flush=True)
    with http.server.ThreadingHTTPServer(("", PORT), Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
