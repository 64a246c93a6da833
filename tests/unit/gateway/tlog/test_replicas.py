"""Replicas with one log in PostgreSQL: to the outside there is one log."""

import asyncio
import itertools

import pytest
from fakes.log import SignedLog
from fakes.postgres import PostgresServer, needs_postgres

from attest.errors import AttestError
from attest.log.checkpoint import open_checkpoint
from attest.log.merkle import verify_consistency
from attest.log.tiles import consistency_proof
from gateway.errors import StartupRefusedError
from gateway.store.log import keep_checkpoint, read_tile
from gateway.store.postgres import PostgresStore
from gateway.store.records import Record
from gateway.tlog.publisher import Publisher

pytestmark = needs_postgres


@pytest.fixture(scope="module")
def server():
    server = PostgresServer()
    yield server
    server.stop()


@pytest.fixture
def replicas(server, tmp_path):
    log, dsn = SignedLog(), server.new_database("replicas")
    found = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        store = PostgresStore.open(dsn, log=True)
        store.add_boot(f"sha256:{number}", b"{}", f"boot{number}.x.y")
        found.append(Publisher(store, log.key, folder))
    yield found
    for publisher in found:
        publisher.store.close()


async def put(publisher, number, count, start=0):
    records = (
        Record.of(f"att_{number}_{i}", f"sha256:{number}", i, f"{number}.{i}.z~")
        for i in range(start, start + count)
    )
    await asyncio.gather(*map(publisher.store.put, records))


async def test_head_that_one_signed_is_shown_by_all(replicas):
    first, second = replicas
    await put(first, 0, 5)
    await first.publish()
    await second.refresh()
    assert str(second.note) == str(first.note)


async def test_log_never_shrinks_for_who_asks_replicas_in_turn(replicas):
    seen = []
    for number in range(20):
        publisher = replicas[number % 2]
        await put(publisher, number % 2, 40, start=40 * number)
        await publisher.publish()
        for shown in replicas:
            await shown.refresh()
            seen.append(shown.head)
    sizes = [head.size for head in seen]
    assert sizes == sorted(sizes)
    assert sizes[-1] == 802
    reader = replicas[0].store
    for older, newer in itertools.pairwise(seen):
        proof = await reader.read(
            lambda c, a=older.size, b=newer.size: consistency_proof(
                a, b, lambda level, tile: read_tile(c, level, tile)
            )
        )
        verify_consistency(
            older.root, newer.root, first=older.size, second=newer.size, proof=proof
        )


async def test_both_sign_at_once_and_both_heads_are_of_one_tree(replicas):
    await asyncio.gather(put(replicas[0], 0, 300), put(replicas[1], 1, 300))
    await asyncio.gather(*(publisher.publish() for publisher in replicas))
    for publisher in replicas:
        await publisher.publish()
    keys = [replicas[0].key]
    heads = [open_checkpoint(str(p.note), keys)[0] for p in replicas]
    assert heads[0] == heads[1]
    assert heads[0].size == 602


async def test_head_by_another_key_in_the_database_is_refused(replicas):
    first, second = replicas
    await put(first, 0, 1)
    stranger = SignedLog()
    stranger.add("a.b.c")
    note = stranger.checkpoint()
    await first.store.write(lambda c: keep_checkpoint(c, 9, note, witnessed=False))
    with pytest.raises(StartupRefusedError):
        await second.refresh()
    with pytest.raises(AttestError):
        await second.publish()
