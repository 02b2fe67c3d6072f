"""A TCP forwarder that can be cut and mended: a network that fails.

It notes the HTTP requests that pass: each begins a block of what a client sends,
because a client waits for an answer before it sends the next.
"""
import re
import socket
import threading


REQUEST = re.compile(rb"^([A-Z]+) ([^ ]+) HTTP/1\.1\r\n")


class Proxy:
    def __init__(self, target):
        self.target = target
        self.up = True
        self.losing = False
        self.lock = threading.Lock()  # guards open and up
        self.open = set()
        self.requests = []  # (method, path with query), in the order they came
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                up = self.up
            if not up:
                client.close()
                continue
            server = socket.create_connection(self.target)
            with self.lock:
                self.open |= {client, server}
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self.forward, args=(source, sink, source is client),
                                 daemon=True).start()

    def forward(self, source, sink, is_client):
        try:
            while data := source.recv(1 << 16):
                request = REQUEST.match(data) if is_client else None
                if request:
                    with self.lock:
                        self.requests.append(tuple(part.decode() for part in request.groups()))
                if is_client or not self.losing:
                    sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        with self.lock:
            self.open -= {source}
        source.close()

    def cut(self):
        """Every connection breaks now, and new ones at once."""
        with self.lock:
            self.up = False
            for connection in self.open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def lose_replies(self):
        """Requests arrive from now on, and who sent them hears nothing of it."""
        self.losing = True

    def mend(self):
        with self.lock:
            self.up = True
            self.losing = False

    def close(self):
        self.cut()
        self.listener.close()
