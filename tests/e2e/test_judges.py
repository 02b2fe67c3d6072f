"""The public programs of this format agree with us.

`ltx` v0.5.3 (superfly/ltx) and `litestream` v0.5.18 (benbjohnson/litestream).
"""
import pytest

import harness
from harness import assert_same_bytes, copy_at_rest, restore, sync
from workload import Workload

REPLICA = harness.ROOT / "tests" / "fixtures" / "litestream"


@pytest.mark.parametrize("journal, page_size",
                         [("wal", 4096), ("delete", 512), ("truncate", 65536), ("persist", 4096)])
def test_public_programs_read_what_we_write(bucket, mount, work, c_client, judges, journal,
                                            page_size):
    states = {}
    with mount(bucket) as data:
        workload = Workload(data / "app.db", journal, page_size, c_client)
        for number, _ in enumerate(workload.commits(20)):
            txid = sync(data / "app.db")
            states[txid] = copy_at_rest(data / "app.db", work / f"copy-{number}")
        workload.close()

    files = []
    for number, key in enumerate(bucket.keys()):
        files.append(work / f"object-{number}.ltx")
        files[-1].write_bytes(bucket.read(key))
    assert len(files) > len(states)
    harness.run(judges / "ltx", "verify", *files)

    def litestream_restores(expected, *options):
        output = work / "by-litestream"
        harness.run(judges / "litestream", "restore", *options, "-o", output,
                    bucket.url_of("app.db"), env=bucket.environment())
        assert_same_bytes(output, expected)
        output.unlink()

    litestream_restores(list(states.values())[-1])
    for txid in list(states)[::2]:
        litestream_restores(states[txid], "-txid", txid)


def fixture_txids():
    return sorted(path.stem.removeprefix("txid-") for path in REPLICA.glob("expected/txid-*.db"))


def test_there_is_a_replica_to_restore():
    assert len(fixture_txids()) == 14


@pytest.mark.parametrize("txid", fixture_txids())
def test_we_restore_what_litestream_wrote(work, txid):
    bucket = harness.FileBucket(REPLICA)
    restore(bucket, "replica", work / "restored", txid)
    assert_same_bytes(work / "restored", REPLICA / "expected" / f"txid-{txid}.db")


def test_we_restore_the_latest_that_litestream_wrote(work):
    restore(harness.FileBucket(REPLICA), "replica", work / "restored")
    latest = REPLICA / "expected" / f"txid-{fixture_txids()[-1]}.db"
    assert_same_bytes(work / "restored", latest)
