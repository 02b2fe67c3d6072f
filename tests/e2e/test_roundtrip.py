"""What applications commit arrives in the bucket and comes back, byte for byte."""
import sqlite3

import pytest

from harness import (assert_intact, assert_same_bytes, copy_at_rest, history, objects, restore, run,
                     slot_key, sync)
from workload import JOURNALS, PAGE_SIZES, Workload


def work_and_copy(mount, journal, page_size, c_client, count, copies):
    """{TXID: copy} of each commit; sync has it in the bucket."""
    copies.mkdir()
    database = mount / "app.db"
    states = {}
    workload = Workload(database, journal, page_size, c_client)
    for number, _ in enumerate(workload.commits(count)):
        txid = sync(database)
        assert txid not in states, f"commit {number} did not get a TXID of its own"
        slot_key(mount.bucket, "app.db", txid)
        states[txid] = copy_at_rest(database, copies / txid)
    workload.close()
    return states


@pytest.mark.parametrize("page_size", PAGE_SIZES)
@pytest.mark.parametrize("journal", JOURNALS)
def test_every_commit_comes_back_byte_for_byte(bucket, mount, work, soak, c_client, journal,
                                               page_size):
    count = soak(20, 200)
    with mount(bucket) as data:
        states = work_and_copy(data, journal, page_size, c_client, count, work / "copies")

    # A TXID is a batch of commits: none is missing, none is empty.
    assert history(bucket, "app.db") == list(states)
    step = 1 if bucket.name == "file" else min(20, count // 2)
    chosen = list(states)[::-step]
    for txid in chosen:
        restored = work / f"restored-{txid}"
        restore(bucket, "app.db", restored, txid)
        assert_same_bytes(restored, states[txid])
        restored.unlink()

    restore(bucket, "app.db", work / "latest")
    assert_same_bytes(work / "latest", states[chosen[0]])
    assert_intact(work / "latest")


@pytest.mark.parametrize("journal", JOURNALS)
def test_every_batch_sealed_beside_a_writer_is_a_committed_state(file_bucket, mount, work, soak,
                                                                 c_client, journal):
    with mount(file_bucket, "--upload-interval", "50ms") as data:
        # Each transaction syncs in some modes: a slow disk does 50 of them a second.
        run(c_client, data / "app.db", journal, "balance", soak(1000, 20000),
            timeout=soak(120, 1800))
        sync(data / "app.db")
        expected = copy_at_rest(data / "app.db", work / "expected")
    txids = history(file_bucket, "app.db")
    assert len(txids) > 10, "nothing was sealed beside the writer"
    for txid in txids[::-(len(txids) // 20 + 1)]:
        restored = work / txid
        restore(file_bucket, "app.db", restored, txid)
        assert_intact(restored)
        assert balance(restored) == 0, f"{txid} holds half a transaction"
        if txid == txids[-1]:
            assert_same_bytes(restored, expected)
        restored.unlink()


def balance(database):
    connection = sqlite3.connect(f"file:{database}?immutable=1", uri=True)
    made = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'accounts'").fetchone()
    total = connection.execute("SELECT sum(n) FROM accounts").fetchone()[0] if made else 0
    connection.close()
    return total


def test_a_stop_uploads_what_is_pending(bucket, mount, work, c_client):
    with mount(bucket, "--upload-interval", "1h") as data:
        workload = Workload(data / "app.db", "wal", 4096, c_client)
        for _ in workload.commits(8):
            pass
        workload.close()
        expected = copy_at_rest(data / "app.db", work / "expected")
    restore(bucket, "app.db", work / "restored")
    assert_same_bytes(work / "restored", expected)


def test_a_second_start_goes_on_where_the_first_ended(bucket, mount, work, c_client):
    with mount(bucket) as data:
        states = work_and_copy(data, "wal", 4096, c_client, 5, work / "first")
    before = objects(bucket)
    with mount(bucket) as data:
        workload = Workload(data / "app.db", "wal", 4096, c_client)
        workload.by_c(("rows", 10))
        txid = sync(data / "app.db")
        workload.close()
    assert int(txid, 16) == int(list(states)[-1], 16) + 1
    assert before.items() <= objects(bucket).items()


def test_a_start_after_changes_behind_its_back_uploads_them(file_bucket, mount, work, c_client):
    """While nothing is mounted the directory holds plain SQLite files."""
    with mount(file_bucket) as data:
        work_and_copy(data, "delete", 4096, c_client, 5, work / "first")
    workload = Workload(data.directory / "app.db", "delete", 4096, c_client)
    workload.by_c(("rows", 1000))
    workload.close()
    with mount(file_bucket) as data:
        sync(data / "app.db")
        expected = copy_at_rest(data / "app.db", work / "expected")
    restore(file_bucket, "app.db", work / "restored")
    assert_same_bytes(work / "restored", expected)


def test_a_directory_can_be_mounted_elsewhere(file_bucket, mount, work, c_client):
    with mount(file_bucket, mountpoint=work / "elsewhere") as data:
        states = work_and_copy(data, "wal", 4096, c_client, 5, work / "copies")
    restore(file_bucket, "app.db", work / "restored")
    assert_same_bytes(work / "restored", list(states.values())[-1])
    assert (work / "data" / "app.db").exists()
    assert not any((work / "elsewhere").iterdir())


def test_databases_in_subdirectories_and_other_files(file_bucket, mount, work, c_client):
    with mount(file_bucket) as data:
        (data / "tenants" / "Ünï cödé").mkdir(parents=True)
        (data / "notes.txt").write_text("no database")
        names = ["a.db", "tenants/b.db", "tenants/Ünï cödé/c d.db"]
        copies = {}
        for name in names:
            workload = Workload(data / name, "wal", 4096, c_client)
            for _ in workload.commits(4):
                pass
            workload.close()
            sync(data / name)
            copies[name] = copy_at_rest(data / name, work / f"copy-{len(copies)}")
        assert not (data / ".litebucket").exists()
        assert ".litebucket" not in [entry.name for entry in data.point.iterdir()]
    for name, copy in copies.items():
        output = work / "restored"
        restore(file_bucket, name, output)
        assert_same_bytes(output, copy)
        output.unlink()
    assert (work / "data" / "notes.txt").read_text() == "no database"
