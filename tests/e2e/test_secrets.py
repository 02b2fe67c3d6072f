"""A secret never appears in what we print or write."""
import os
import pathlib

from harness import litebucket, restore, sync
from test_errors import commit

WRONG = "wrong-secret-0123456789abcdefghijklmnop"


def test_secrets_are_in_no_log_message_or_file(s3_bucket, mount, work):
    secrets = [s3_bucket.client.secret_key, WRONG]
    said = []

    def note(*arguments, environment):
        result = litebucket(*arguments, check=False, env=environment)
        said.append(result.stdout + result.stderr)

    environment = s3_bucket.environment()
    wrong = dict(environment, AWS_SECRET_ACCESS_KEY=WRONG, AWS_SESSION_TOKEN=WRONG)
    with mount(s3_bucket, "--log-level", "debug") as data:
        commit(data / "app.db", "one")
        sync(data / "app.db")
        said.append(pathlib.Path("/proc/self/mounts").read_text())
        said.append(pathlib.Path(f"/proc/{data.process.pid}/cmdline").read_text())
        note("status", "--json", data.point, environment=environment)
    restore(s3_bucket, "app.db", work / "restored")
    for arguments in (["list", s3_bucket.url], ["history", s3_bucket.url_of("app.db")],
                      ["restore", "--force", "-o", work / "restored", s3_bucket.url_of("app.db")],
                      ["list", s3_bucket.url.replace("127.0.0.1", "127.0.0.2")]):
        note(*arguments, environment=environment)
        note(*arguments, environment=wrong)
    note("list", f"s3://key:{WRONG}@bucket/", environment=environment)
    note("list", f"s3://key:{WRONG}/more@bucket/", environment=environment)
    note("list", f"s3://bucket/p?endpoint=https%3A%2F%2Fkey:{WRONG}@host", environment=environment)
    for parameters in (f"secret={WRONG}", f"region=r&secret_key={WRONG}&driver=curl", f"x={WRONG}&y"):
        note("list", f"s3://bucket/p?{parameters}", environment=environment)
        note("restore", f"s3://bucket/p/db?{parameters}", "-o", work / "db", environment=environment)
    assert "?region=r&secret_key=&driver=curl': " in said[-3] and "'secret_key'" in said[-3]

    said.append(data.log_text())
    assert "level=debug" in data.log_text()
    for directory, _, names in os.walk(work):
        for name in names:
            said.append((pathlib.Path(directory) / name).read_bytes().decode("latin-1"))
    for secret in secrets:
        assert not [text for text in said if secret in text]
