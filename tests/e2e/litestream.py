"""`litestream replicate`, running on a database of SQLite's, as somebody has it in production."""
import json
import signal
import subprocess

import harness
from following import ENOUGH_SECONDS
from harness import eventually

# A level is compacted, and what it was made of removed, within a second or so.
SHORT = """
l0-retention: 300ms
l0-retention-check-interval: 200ms
levels:
  - interval: 1s
  - interval: 2s
  - interval: 4s
snapshot:
  interval: 3s
  retention: 1s
"""


class Litestream:
    """Replicates one database into a bucket; `name` is what it is called there."""

    def __init__(self, program, database, bucket, name, work, settings=""):
        self.program = program
        self.database = database
        self.bucket = bucket
        self.config = work / "litestream.yml"
        self.socket = work / "litestream.sock"
        self.log = work / "litestream.log"
        self.process = None
        self.config.write_text(f"""{settings}
socket:
  enabled: true
  path: {self.socket}
dbs:
  - path: {database}
    monitor-interval: 20ms
    checkpoint-interval: 1s
    min-checkpoint-page-count: 100
    replica:
      sync-interval: 20ms
{self.place(bucket, name)}""")

    @staticmethod
    def place(bucket, name):
        if bucket.name == "file":
            return f"      type: file\n      path: {bucket.directory / name}\n"
        return (f"      type: s3\n      bucket: {bucket.bucket}\n"
                f"      path: {bucket.PREFIX}/{name}\n"
                f"      endpoint: {bucket.endpoint}\n      region: us-east-1\n")

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [self.program, "replicate", "-config", self.config],
                env=self.bucket.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(ENOUGH_SECONDS) == 0, self.log.read_text()

    def sync(self):
        """All that is committed is in the bucket; the TXID it has there."""
        def synced():
            result = harness.run(self.program, "sync", "-wait", "-json", "-socket", self.socket,
                                 self.database, check=False)
            return result.returncode == 0 and json.loads(result.stdout)["replica_txid"]
        return eventually(synced, ENOUGH_SECONDS, self.log.read_text)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.kill()
