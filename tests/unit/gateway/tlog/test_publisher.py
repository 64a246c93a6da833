import asyncio
import sqlite3
from dataclasses import replace

import pytest
from fakes.gateway import running_gateway
from fakes.log import SignedLog, leaf_of
from fakes.upstream import json_answer
from fakes.witnesses import witness_servers
from fakes.world import ANSWER, NOW, make_world

from attest.errors import ConfigurationError
from attest.keys import Algorithm, PrivateKey
from attest.log.checkpoint import cosignatures, open_checkpoint
from attest.log.merkle import MerkleTree
from attest.log.note import KeyKind, NoteSigner
from attest.policy import Tier
from attest.signers.file import write_private_key
from attest.verify import verify
from gateway.errors import StartupRefusedError, StoreError
from gateway.settings import load_settings
from gateway.store.records import Record
from gateway.store.sqlite import SqliteStore
from gateway.tlog.follower import Follower
from gateway.tlog.publisher import Publisher, read_log_signer, read_witnesses


@pytest.fixture(scope="module")
def log():
    return SignedLog()


@pytest.fixture(scope="module")
def world(log):
    return make_world(predicate={"trustAnchors": log.anchors})


def token(number):
    return f"head.{number}.sig~disclosure~"


async def fill(store, start, stop):
    records = [
        Record.of(f"att_{i}", "sha256:b", i, token(i)) for i in range(start, stop)
    ]
    await asyncio.gather(*map(store.put, records))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "attestations.sqlite"


@pytest.fixture
def open_log(path, log, tmp_path):
    opened = []

    def open_one(**changes):
        store = SqliteStore.open(path, log=True)
        opened.append(store)
        store.add_boot("sha256:b", b"{}", "boot.record.sig")
        return store, Publisher(store, changes.get("signer", log.key), tmp_path)

    yield open_one
    for store in opened:
        store.close()


async def reopened(open_log, **changes):
    store, publisher = open_log(**changes)
    await publisher.restore()
    return store, publisher


async def test_every_record_is_a_leaf_in_order(open_log, log):
    store, publisher = open_log()
    await fill(store, 0, 600)
    await publisher.publish()
    tree = MerkleTree()
    tree.append(leaf_of("boot.record.sig"))
    for number in range(600):
        tree.append(leaf_of(token(number)))
    head, _, _ = open_checkpoint(str(publisher.note), [log.key.key])
    assert (head.size, head.root) == (601, tree.root())


async def test_every_record_has_a_proof(open_log, log):
    store, publisher = open_log()
    await fill(store, 0, 300)
    assert await store.log_proof("att_7") is None
    await publisher.publish()
    for number in (0, 7, 254, 255, 256, 299):
        proof = await store.log_proof(f"att_{number}")
        proof.verify(leaf_of(token(number)), logs=[log.key.key], witnesses=[])
    assert await store.log_proof("att_300") is None


async def test_what_a_worker_adds_is_signed_by_its_parent_and_followed(
    path, log, tmp_path
):
    parent = SqliteStore.open(path, log=True, shared=True)
    parent.add_boot("sha256:b", b"{}", "boot.record.sig")
    worker = SqliteStore.open(path, log=True, shared=True, check=False)
    publisher, follower = (
        Publisher(parent, log.key, tmp_path),
        Follower(worker, log.key.key),
    )
    await fill(worker, 0, 300)
    await publisher.publish()
    await follower.refresh()
    assert publisher.head.size == 301
    assert str(follower.note) == str(publisher.note)
    proof = await worker.log_proof("att_299")
    proof.verify(leaf_of(token(299)), logs=[log.key.key], witnesses=[])
    worker.close()
    parent.close()


async def test_nothing_new_signs_nothing(open_log):
    _, publisher = open_log()
    await publisher.publish()
    first = publisher.note
    await publisher.publish()
    assert publisher.note is first


async def test_restart_goes_on(open_log, log):
    store, publisher = open_log()
    await fill(store, 0, 300)
    await publisher.publish()
    before = publisher.head
    await fill(store, 300, 310)  # stored, and never signed: as after a crash
    store.close()
    store, publisher = await reopened(open_log)
    assert publisher.head == before
    await fill(store, 310, 320)
    await publisher.publish()
    assert publisher.head.size == 321
    proof = await store.log_proof("att_305")
    proof.verify(leaf_of(token(305)), logs=[log.key.key], witnesses=[])


async def test_killed_between_the_file_and_the_database_still_proves(open_log, log):
    store, publisher = open_log()
    await fill(store, 0, 3)
    await publisher.publish()
    await fill(store, 3, 5)

    async def killed(*_args, **_kept):
        raise StoreError("killed")

    publisher._keep = killed
    with pytest.raises(StoreError):
        await publisher.publish()
    store.close()
    store, publisher = await reopened(open_log)
    await publisher.publish()
    assert publisher.head.size == 6
    proof = await store.log_proof("att_4")
    proof.verify(leaf_of(token(4)), logs=[log.key.key], witnesses=[])


async def refused(open_log, match, **changes):
    with pytest.raises(StartupRefusedError, match=match) as caught:
        await reopened(open_log, **changes)
    assert caught.value.hint


async def test_store_without_a_log_has_none(path):
    store = SqliteStore.open(path)
    store.add_boot("sha256:b", b"{}", "boot.record.sig")
    await fill(store, 0, 1)
    assert await store.log_proof("att_0") is None
    store.close()


async def closed_log(open_log, count=300):
    store, publisher = open_log()
    await fill(store, 0, count)
    await publisher.publish()
    store.close()


EVERYTHING = "; ".join(
    f"DELETE FROM {table}"
    for table in ("log_checkpoints", "log_leaves", "log_hashes", "boots")
)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ("DELETE FROM log_leaves WHERE idx = 300", "300 entries, 301 were signed"),
        ("DELETE FROM log_leaves WHERE idx = 7", "entry 7 is missing"),
        ("DELETE FROM log_leaves WHERE idx > 200", "after 200 are missing"),
        ("UPDATE log_leaves SET leaf = zeroblob(32) WHERE idx = 7", "other hashes"),
        ("UPDATE log_leaves SET leaf = zeroblob(32) WHERE idx = 299", "another root"),
        ("UPDATE log_leaves SET leaf = zeroblob(31) WHERE idx = 7", "7 is missing"),
        ("UPDATE log_hashes SET hash = zeroblob(32)", "other hashes"),
        ("DELETE FROM log_hashes", "other hashes"),
        (EVERYTHING, "1 entries, 301 were signed"),
    ],
)
async def test_changed_database_refuses_to_start(open_log, path, change, match):
    await closed_log(open_log)
    with sqlite3.connect(path) as raw:
        raw.executescript(f"PRAGMA foreign_keys=OFF; {change}")
    raw.close()
    await refused(open_log, match)


async def test_database_from_a_backup_refuses_to_start(open_log, path, tmp_path):
    await closed_log(open_log, 5)
    old = path.read_bytes()
    store, publisher = await reopened(open_log)
    await fill(store, 5, 9)
    await publisher.publish()
    store.close()
    path.write_bytes(old)
    await refused(open_log, "6 entries, 10 were signed")


async def test_lost_file_of_the_head_is_no_harm(open_log, tmp_path):
    await closed_log(open_log)
    (tmp_path / "log-checkpoint").unlink()
    _, publisher = await reopened(open_log)
    assert publisher.head.size == 301


async def test_other_key_refuses_to_start(open_log, log):
    await closed_log(open_log)
    other = replace(log.key, signer=PrivateKey.generate())
    await refused(open_log, "not signed by this log's key", signer=other)


async def test_other_name_refuses_to_start(open_log, log):
    await closed_log(open_log)
    await refused(open_log, "nobody vouches", signer=replace(log.key, name="other"))


async def test_full_disk_loses_no_place_in_the_log(open_log, log):
    store, publisher = open_log()
    await fill(store, 0, 3)
    pages = store._writer.execute("PRAGMA page_count").fetchone()[0]
    store._writer.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StoreError, match="full"):
        await store.put(Record.of("att_big", "sha256:b", 9, "a.b.c~" + "x" * 100_000))
    store._writer.execute("PRAGMA max_page_count=100000")
    await fill(store, 3, 6)
    await publisher.publish()
    assert publisher.head.size == 7
    proof = await store.log_proof("att_3")
    assert proof.index == 4
    proof.verify(leaf_of(token(3)), logs=[log.key.key], witnesses=[])


def test_manifest_that_names_other_logs_is_refused(open_log, log, world):
    _, publisher = open_log()
    publisher.check_manifest(world.manifest)
    publisher.check_manifest(make_world().manifest)
    others = make_world(predicate={"trustAnchors": SignedLog().anchors})
    with pytest.raises(StartupRefusedError, match="names other logs"):
        publisher.check_manifest(others.manifest)


async def answered(tmp_path, world, log, clients):
    async with running_gateway(
        tmp_path, world=world, log=log.key, witnesses=clients
    ) as gateway:
        gateway.engine.answer(json_answer(ANSWER))
        response = await gateway.chat()
        await gateway.state.log.publish()
        kept = await gateway.attester.bundle(response.headers["attestation-id"])
        yield (
            gateway,
            replace(kept, request=response.request.content, response=response.content),
        )


async def test_answer_of_a_witnessed_gateway_reaches_t2(tmp_path, world, log):
    with witness_servers(log, tmp_path) as clients:
        async for gateway, bundle in answered(tmp_path, world, log, clients):
            verdict = verify(bundle, replace(world.policy, min_tier=Tier.T2), at=NOW)
            verdict.raise_unless_proven()
            assert "3 of 3 witnesses" in verdict.step(8).detail
            note = gateway.state.log.note
            keys = [witness.key for witness in log.witnesses]
            assert len(cosignatures(note, keys)) == 3


async def test_proof_keeps_the_first_witnessed_head(tmp_path, world, log):
    with witness_servers(log, tmp_path) as clients:
        async for gateway, bundle in answered(tmp_path, world, log, clients):
            await gateway.chat()
            await gateway.state.log.publish()
            again = await gateway.attester.bundle(gateway.attester.exchanges[0].id)
            assert again.log == bundle.log
            assert gateway.state.log.head.size == 3


async def test_witness_that_is_down_costs_its_cosignature_alone(tmp_path, world, log):
    with witness_servers(log, tmp_path) as clients:
        clients[0].url = "http://127.0.0.1:1"
        async for _, bundle in answered(tmp_path, world, log, clients):
            verdict = verify(bundle, world.policy, at=NOW)
            assert verdict.tier is Tier.T2
            assert "2 of 3" in verdict.step(8).detail


async def test_all_witnesses_down(tmp_path, world, log):
    with witness_servers(log, tmp_path) as clients:
        for client in clients:
            client.url = "http://127.0.0.1:1"
        async for _, bundle in answered(tmp_path, world, log, clients):
            verdict = verify(bundle, world.policy, at=NOW)
            assert (verdict.proven, verdict.tier) == (True, Tier.T1)


async def test_restarted_gateway_learns_what_the_witness_knows(tmp_path, world, log):
    with witness_servers(log, tmp_path) as clients:
        async for gateway, _ in answered(tmp_path, world, log, clients):
            clients[0].seen = 0  # as after a restart
            await gateway.chat()
            await gateway.state.log.publish()
            keys = [witness.key for witness in log.witnesses]
            assert len(cosignatures(gateway.state.log.note, keys)) == 3


FLAGS = {"model": "m", "authority": ["a.pem"], "signer": "file:i.pem"}


def settings(tmp_path, **flags):
    return load_settings({**FLAGS, **flags})


def test_without_a_key_there_is_no_log(tmp_path):
    assert read_log_signer(settings(tmp_path)) is None


def test_key_and_name_from_the_settings(tmp_path):
    key = PrivateKey.generate()
    write_private_key(tmp_path / "log.key.pem", key)
    found = read_log_signer(settings(tmp_path, log_key=tmp_path / "log.key.pem"))
    assert found.key == NoteSigner("urn:attest-gateway:local", KeyKind.LOG, key).key
    named = settings(tmp_path, log_key=tmp_path / "log.key.pem", log_origin="a/log")
    assert read_log_signer(named).name == "a/log"


@pytest.mark.parametrize(
    ("alg", "origin"), [(Algorithm.ES256, "log"), (Algorithm.EDDSA, "a b")]
)
def test_unusable_key_or_name(tmp_path, alg, origin):
    path = tmp_path / "log.key.pem"
    write_private_key(path, PrivateKey.generate(alg))
    with pytest.raises(ConfigurationError, match="log_key"):
        read_log_signer(settings(tmp_path, log_key=path, log_origin=origin))


def test_missing_key_file(tmp_path):
    with pytest.raises(ConfigurationError, match="log_key"):
        read_log_signer(settings(tmp_path, log_key=tmp_path / "absent.pem"))


def test_witnesses_from_the_settings(tmp_path, log):
    vkey = str(log.witnesses[0].key)
    found = settings(tmp_path, log_witnesses=[{"url": "https://w.test", "vkey": vkey}])
    (client,) = read_witnesses(found)
    assert (client.url, str(client.key)) == ("https://w.test", vkey)


@pytest.mark.parametrize("vkey", ["nonsense", None])
def test_unusable_witness(tmp_path, log, vkey):
    items = [{"url": "https://w.test", "vkey": vkey or str(log.key.key)}]
    with pytest.raises(ConfigurationError, match="log_witnesses"):
        read_witnesses(settings(tmp_path, log_witnesses=items))
