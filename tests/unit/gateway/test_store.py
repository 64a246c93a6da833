"""What both stores promise: a file for one process, a server for replicas."""

import asyncio
import sqlite3
import threading
from contextlib import nullcontext

import psycopg
import pytest
from fakes.postgres import PostgresServer, needs_postgres

import gateway.store.log
from attest.errors import ConfigurationError
from gateway.errors import StartupRefusedError, StoreError
from gateway.settings import load_settings
from gateway.store import open_store
from gateway.store.boots import boot_digests
from gateway.store.log import LogTables, log_root, log_size
from gateway.store.postgres import PostgresStore, read_dsn
from gateway.store.records import Record
from gateway.store.sqlite import SqliteStore, _File


@pytest.fixture(scope="module")
def server():
    server = PostgresServer()
    yield server
    server.stop()


@pytest.fixture(
    params=["sqlite", pytest.param("postgres", marks=needs_postgres)],
)
def place(request, tmp_path):
    """Opens stores on one and the same database."""
    opened = []
    if request.param == "sqlite":

        def opener(**options):
            return SqliteStore.open(tmp_path / "attestations.sqlite", **options)
    else:
        dsn = request.getfixturevalue("server").new_database("test")

        def opener(**options):
            return PostgresStore.open(dsn, **options)

    def _open(**options):
        opened.append(opener(**options))
        return opened[-1]

    yield _open
    for store in opened:
        store.close()


@pytest.fixture
def store(place):
    store = place()
    store.add_boot("sha256:b", b'{"endorsements": 1}')
    return store


async def test_records_of_a_busy_moment_share_a_transaction(place):
    store = place(log=True)
    store.add_boot("sha256:b", b"{}")
    store.in_flight = lambda: 40
    batches = []
    put = store._put
    store._put = lambda records, writer: (
        batches.append(len(records)),
        put(records, writer),
    )
    names = [f"att_{number}" for number in range(40)]
    await asyncio.gather(
        *(
            store.put(Record.of(name, "sha256:b", n, name))
            for n, name in enumerate(names)
        )
    )
    assert [(await store.get(name))[0] for name in names] == names
    assert await store.read(log_size) == 40
    assert max(batches) > 10


async def test_put_then_get(store):
    await store.put(Record.of("att_1", "sha256:b", 0, "token~"))
    assert await store.get("att_1") == ("token~", b'{"endorsements": 1}')


async def test_unknown_id(store):
    assert await store.get("att_0") is None


@pytest.mark.parametrize(("queued", "waits"), [(0, True), (63, True), (64, False)])
def test_batch_that_is_large_waits_for_no_more(tmp_path, monkeypatch, queued, waits):
    class SleptError(Exception):
        """The writer waits for others."""

    def sleep(seconds):
        raise SleptError

    store = SqliteStore(_File(tmp_path / "never_opened", shared=False), log=False)
    store.in_flight = lambda: 10**6
    for _ in range(queued):
        store._queue.put(None)
    monkeypatch.setattr("gateway.store.records.time.sleep", sleep)
    with pytest.raises(SleptError) if waits else nullcontext():
        store._linger()


async def test_put_returns_only_when_another_reader_sees_it(store, place):
    await store.put(Record.of("att_1", "sha256:b", 0, "token~"))
    assert await place().get("att_1") is not None


async def test_many_at_once_are_all_kept(store):
    records = [Record.of(f"att_{i}", "sha256:b", i, f"t{i}~") for i in range(700)]
    await asyncio.gather(*map(store.put, records))
    for i in range(700):
        assert (await store.get(f"att_{i}"))[0] == f"t{i}~"


async def test_sequence_number_used_twice_is_refused(store):
    await store.put(Record.of("att_1", "sha256:b", 0, "token~"))
    with pytest.raises(StoreError, match=r"(?i)unique"):
        await store.put(Record.of("att_2", "sha256:b", 0, "token~"))
    await store.put(Record.of("att_3", "sha256:b", 1, "token~"))


async def test_cancelled_caller_does_not_cancel_the_write(store):
    task = asyncio.create_task(store.put(Record.of("att_1", "sha256:b", 0, "token~")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await store.put(Record.of("att_2", "sha256:b", 1, "token~"))
    assert await store.get("att_1") is not None


async def test_records_outlive_the_process(place):
    first = place()
    first.add_boot("sha256:b", b"{}")
    await first.put(Record.of("att_1", "sha256:b", 0, "token~"))
    first.close()
    assert await place().get("att_1") == ("token~", b"{}")


async def test_boots_come_latest_first_and_are_never_replaced(place):
    store = place()
    for name in ("a", "b", "c"):
        store.add_boot(f"sha256:{name}", name.encode())
        store.add_boot(f"sha256:{name}", b"again")
    found = await store.read(lambda reader: boot_digests(reader, 2))
    assert found == ["sha256:c", "sha256:b"]
    assert await store.endorsements("sha256:c") == b"c"


async def test_failed_record_leaves_no_leaf(place):
    store = place(log=True)
    store.add_boot("sha256:b", b"{}", "a.b.c")
    await store.put(Record.of("att_1", "sha256:b", 0, "d.e.f~"))
    with pytest.raises(StoreError):
        await store.put(Record.of("att_1", "sha256:b", 1, "g.h.i~"))
    await store.put(Record.of("att_2", "sha256:b", 1, "g.h.i~"))
    assert await store.read(log_size) == 3
    store.close()
    assert place(log=True).log.size == 3


async def test_log_that_lost_an_entry_is_not_gone_on_with(place):
    store = place(log=True)
    store.add_boot("sha256:b", b"{}", "a.b.c")
    await asyncio.gather(
        *(store.put(Record.of(f"a{i}", "sha256:b", i, f"{i}.x.y~")) for i in range(5))
    )
    await store.write(lambda c: c.execute("DELETE FROM log_leaves WHERE idx = 2"))
    with pytest.raises(StartupRefusedError, match="entry 2 is missing"):
        place(log=True)


# A file.


async def test_full_disk_is_a_store_error_and_mends_itself(tmp_path):
    store = SqliteStore.open(tmp_path / "attestations.sqlite")
    store.add_boot("sha256:b", b"{}")
    pages = store._writer.execute("PRAGMA page_count").fetchone()[0]
    store._writer.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StoreError, match="full"):
        await store.put(Record.of("att_1", "sha256:b", 0, "x" * 100_000))
    store._writer.execute("PRAGMA max_page_count=100000")
    await store.put(Record.of("att_2", "sha256:b", 1, "x" * 100_000))
    assert await store.get("att_1") is None
    store.close()


def test_unwritable_place(tmp_path):
    with pytest.raises(ConfigurationError, match="unable to open") as caught:
        SqliteStore.open(tmp_path / "absent" / "db.sqlite")
    assert "--state-dir" in caught.value.hint


def test_file_that_is_no_database(tmp_path):
    path = tmp_path / "attestations.sqlite"
    path.write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(ConfigurationError, match="not a database"):
        SqliteStore.open(path)


def test_file_of_the_first_release_is_gone_on_with(tmp_path):
    """Its tables are those of today."""
    path = tmp_path / "attestations.sqlite"
    SqliteStore.open(path).close()
    columns = sqlite3.connect(path).execute("PRAGMA table_info(boots)").fetchall()
    assert [column[1] for column in columns] == ["digest", "endorsements"]


# A server.


@needs_postgres
async def test_replicas_keep_one_log_in_one_order(server):
    """Each leaf once, no gap, and the root that a reader computes from the leaves."""
    dsn = server.new_database("replicas")
    replicas = [PostgresStore.open(dsn, log=True) for _ in range(3)]
    for number, replica in enumerate(replicas):
        replica.add_boot(f"sha256:{number}", b"{}", f"boot{number}.x.y")
    await asyncio.gather(
        *(
            replica.put(Record.of(f"att_{n}_{i}", f"sha256:{n}", i, f"{n}.{i}.z~"))
            for i in range(200)
            for n, replica in enumerate(replicas)
        )
    )
    for replica in replicas:
        assert await replica.read(log_size) == 603
        assert await replica.get("att_2_199") is not None
    root = await replicas[0].read(lambda reader: log_root(reader, 603))
    for replica in replicas:
        replica.close()
    checked = PostgresStore.open(dsn, log=True)
    assert await checked.read(lambda reader: log_root(reader, 603)) == root
    checked.close()


@needs_postgres
async def test_server_that_crashes_loses_no_record_that_was_kept(server):
    dsn = server.new_database("crash")
    store = PostgresStore.open(dsn, log=True)
    store.add_boot("sha256:b", b"{}", "a.b.c")
    await store.put(Record.of("att_1", "sha256:b", 0, "d.e.f~"))
    await store.get("att_1")
    server.crash()
    try:
        with pytest.raises(StoreError):
            await store.put(Record.of("att_2", "sha256:b", 1, "g.h.i~"))
        with pytest.raises(StoreError):
            await store.get("att_1")
    finally:
        server.start()
    await store.put(Record.of("att_3", "sha256:b", 1, "g.h.i~"))
    assert await store.get("att_1") is not None
    assert await store.read(log_size) == 3
    store.close()


@needs_postgres
@pytest.mark.parametrize("setting", ["synchronous_commit = off"])
def test_server_that_does_not_write_what_it_commits_is_refused(server, setting):
    dsn = server.new_database("lazy")
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE lazy SET {setting}")
    with pytest.raises(ConfigurationError, match="could lose attestations"):
        PostgresStore.open(dsn)


@needs_postgres
def test_server_that_is_not_there_is_named_without_the_password(server, tmp_path):
    dsn = f"host={tmp_path} user=attest password=geheim dbname=x"
    with pytest.raises(ConfigurationError) as caught:
        PostgresStore.open(dsn)
    assert str(tmp_path) in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_connection_string_that_is_none_is_not_shown(tmp_path):
    path = tmp_path / "dsn"
    path.write_text("password=geheim nonsense")
    with pytest.raises(ConfigurationError) as caught:
        read_dsn(path)
    assert "geheim" not in f"{caught.value} {caught.value.hint}"
    with pytest.raises(ConfigurationError, match="No such file"):
        read_dsn(tmp_path / "missing")


@needs_postgres
async def test_settings_choose_the_store(server, tmp_path):
    path = tmp_path / "dsn"
    path.write_text(server.new_database("chosen") + "\n")
    settings = load_settings(
        {
            "model": tmp_path,
            "authority": [tmp_path],
            "signer": "file:x",
            "state_dir": tmp_path,
        }
    )
    store = open_store(settings, log=False)
    assert not store.shared
    store.close()
    shared = settings.model_copy(update={"postgres_dsn_file": path})
    store = open_store(shared, log=False)
    assert store.shared
    store.close()


async def test_log_is_checked_in_pieces_as_in_one(place, monkeypatch):
    monkeypatch.setattr(gateway.store.log, "_ROWS", 2)
    store = place(log=True)
    store.add_boot("sha256:b", b"{}")
    for seq in range(5):
        await store.put(Record.of(f"att_{seq}", "sha256:b", seq, f"token {seq}~"))
    store.close()
    store = place(log=True)
    assert store.log.size == 5
    await store.write(lambda c: c.execute("DELETE FROM log_leaves WHERE idx = 3"))
    store.close()
    with pytest.raises(StartupRefusedError, match="entry 3 is missing"):
        place(log=True)


@needs_postgres
async def test_replica_that_checks_the_log_keeps_nobody_from_writing(
    server, monkeypatch
):
    dsn = server.new_database("checked")
    one = PostgresStore.open(dsn, log=True)
    one.add_boot("sha256:b", b"{}")
    await one.put(Record.of("att_0", "sha256:b", 0, "token 0~"))
    looked, go_on, check = threading.Event(), threading.Event(), LogTables.check

    def slow(*args):
        check(*args)
        looked.set()
        assert go_on.wait(10)

    monkeypatch.setattr(LogTables, "check", slow)
    opening = asyncio.create_task(asyncio.to_thread(PostgresStore.open, dsn, log=True))
    assert await asyncio.to_thread(looked.wait, 10)
    async with asyncio.timeout(5):
        await one.put(Record.of("att_1", "sha256:b", 1, "token 1~"))
    go_on.set()
    other = await opening
    await other.put(Record.of("att_2", "sha256:b", 2, "token 2~"))
    assert await other.read(log_size) == 3
    monkeypatch.undo()
    for store in (one, other, PostgresStore.open(dsn, log=True)):
        store.close()
