import asyncio
import sqlite3

import pytest

from attest.errors import ConfigurationError
from gateway.errors import StoreError
from gateway.store.sqlite import SqliteStore


@pytest.fixture
def path(tmp_path):
    return tmp_path / "attestations.sqlite"


@pytest.fixture
def store(path):
    store = SqliteStore.open(path)
    store.add_boot("sha256:b", b'{"endorsements": 1}')
    yield store
    store.close()


async def test_put_then_get(store):
    await store.put(("att_1", "sha256:b", 0, "token~"))
    assert await store.get("att_1") == ("token~", b'{"endorsements": 1}')


async def test_unknown_id(store):
    assert await store.get("att_0") is None


async def test_put_returns_only_when_another_reader_sees_it(store, path):
    await store.put(("att_1", "sha256:b", 0, "token~"))
    other = sqlite3.connect(path)
    assert other.execute("SELECT id FROM attestations").fetchall() == [("att_1",)]
    other.close()


async def test_many_at_once_are_all_kept(store):
    records = [(f"att_{i}", "sha256:b", i, f"t{i}~") for i in range(700)]
    await asyncio.gather(*map(store.put, records))
    for i in (0, 255, 256, 699):
        assert (await store.get(f"att_{i}"))[0] == f"t{i}~"


async def test_sequence_number_used_twice_is_refused(store):
    await store.put(("att_1", "sha256:b", 0, "token~"))
    with pytest.raises(StoreError, match="UNIQUE"):
        await store.put(("att_2", "sha256:b", 0, "token~"))


async def test_full_disk_is_a_store_error_and_mends_itself(store):
    pages = store._writer.execute("PRAGMA page_count").fetchone()[0]
    store._writer.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StoreError, match="full"):
        await store.put(("att_1", "sha256:b", 0, "x" * 100_000))
    store._writer.execute("PRAGMA max_page_count=100000")
    await store.put(("att_2", "sha256:b", 1, "x" * 100_000))
    assert await store.get("att_1") is None


async def test_cancelled_caller_does_not_cancel_the_write(store):
    task = asyncio.create_task(store.put(("att_1", "sha256:b", 0, "token~")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await store.put(("att_2", "sha256:b", 1, "token~"))
    assert await store.get("att_1") is not None


async def test_records_outlive_the_process(path):
    first = SqliteStore.open(path)
    first.add_boot("sha256:b", b"{}")
    await first.put(("att_1", "sha256:b", 0, "token~"))
    first.close()
    second = SqliteStore.open(path)
    assert await second.get("att_1") == ("token~", b"{}")
    second.close()


def test_unwritable_place(tmp_path):
    with pytest.raises(ConfigurationError, match="unable to open") as caught:
        SqliteStore.open(tmp_path / "absent" / "db.sqlite")
    assert "--state-dir" in caught.value.hint


def test_file_that_is_no_database(path):
    path.write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(ConfigurationError, match="not a database"):
        SqliteStore.open(path)
