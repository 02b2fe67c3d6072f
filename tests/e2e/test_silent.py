"""A bucket that takes connections and never answers is waited for, but not long."""
import concurrent.futures
import sqlite3
import time

from harness import assert_intact, assert_same_bytes, copy_at_rest, eventually, restore, sync

SOON = 25  # seconds; each single try of the client would wait longer


def commit(database, text):
    connection = sqlite3.connect(database, isolation_level=None, timeout=60)
    connection.execute("CREATE TABLE IF NOT EXISTS t(text)")
    connection.execute("INSERT INTO t VALUES (?)", (text,))
    connection.close()


def silent(proxy):
    """For who was connected as for who comes now."""
    proxy.cut()
    proxy.mend()
    proxy.lose_replies()


def test_a_start_does_not_wait_for_it_and_nor_does_who_opens_a_database(away, s3_bucket, mount,
                                                                      work):
    behind, proxy = away
    names = [f"{number}.db" for number in range(12)]
    data = mount(behind)
    with data:
        for name in names:
            commit(data / name, "before")
            sync(data / name)
        # Each is looked at again at the next start.
        data.kill()
        data.unmount()
        silent(proxy)
        started = time.monotonic()
        data.start()
        assert time.monotonic() - started < SOON, data.log_text()
        started = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
            for done in [pool.submit(commit, data / name, "silent") for name in names]:
                done.result()
        assert time.monotonic() - started < SOON, data.log_text()
        proxy.cut()
        proxy.mend()
        for name in names:
            sync(data / name)
            expected = copy_at_rest(data / name, work / f"expected-{name}")
            restore(s3_bucket, name, work / f"restored-{name}")
            assert_same_bytes(work / f"restored-{name}", expected)


def test_a_stop_ends_in_order(away, s3_bucket, mount, work):
    behind, proxy = away
    data = mount(behind, "--stop-timeout", "3s")
    with data:
        commit(data / "app.db", "before")
        sync(data / "app.db")
        silent(proxy)
        commit(data / "app.db", "pending")
        started = time.monotonic()
        data.stop()
        assert time.monotonic() - started < SOON, data.log_text()
        assert "not in the bucket" in data.log_text()
        assert "out of time" not in data.log_text()
    proxy.mend()
    with data:
        assert "clean stop" not in data.log_text()
        sync(data / "app.db")
    restore(s3_bucket, "app.db", work / "restored")
    assert_intact(work / "restored")


def test_a_start_can_be_stopped(away, mount):
    behind, proxy = away
    silent(proxy)
    data = mount(behind)
    data.directory.mkdir()
    process = data.spawn(2)
    eventually(lambda: proxy.requests, 30, "the bucket is not asked")
    process.terminate()
    started = time.monotonic()
    assert process.wait(60) == 0
    assert time.monotonic() - started < 5, data.log_text()
    assert "stopped before it was mounted" in data.log_text()
