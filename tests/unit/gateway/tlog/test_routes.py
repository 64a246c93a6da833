import hashlib
from contextlib import asynccontextmanager

import pytest
from fakes.gateway import running_gateway
from fakes.log import SignedLog, leaf_of
from fakes.upstream import json_answer
from fakes.world import ANSWER, make_world

from attest import disclosures
from attest.log.checkpoint import open_checkpoint
from attest.log.tiles import decode_entries, tree_root

KEY = b"sk-test"
AUTH = {"authorization": f"Bearer {KEY.decode()}"}


@asynccontextmanager
async def logged(folder, answers=3):
    log = SignedLog()
    world = make_world(predicate={"trustAnchors": log.anchors})
    keys = [hashlib.sha256(KEY).digest()]
    async with running_gateway(
        folder, world=world, log=log.key, api_keys=keys
    ) as gateway:
        gateway.engine.answer(json_answer(ANSWER))
        for _ in range(answers):
            await gateway.chat(headers=AUTH)
        await gateway.state.log.publish()
        gateway.signed_log = log
        yield gateway


@pytest.fixture
async def gateway(tmp_path):
    async with logged(tmp_path) as gateway:
        yield gateway


async def get(gateway, path, **headers):
    return await gateway.client.get(f"/log/{path}", headers=headers)


async def test_checkpoint_verifies(gateway):
    answer = await get(gateway, "checkpoint")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    head, _, _ = open_checkpoint(answer.content, [gateway.signed_log.key.key])
    assert head.size == 4


async def test_tiles_give_the_root(gateway):
    head = gateway.state.log.head
    answer = await get(gateway, "tile/0/000.p/4")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert "immutable" in answer.headers["cache-control"]
    assert tree_root(4, lambda level, tile: answer.content) == head.root


async def test_records_are_what_the_entries_stand_for(gateway):
    entries = decode_entries((await get(gateway, "tile/entries/000.p/4")).content, 4)
    answer = await get(gateway, "records/000.p/4", **AUTH)
    records = answer.text.splitlines()
    assert list(map(leaf_of, records)) == entries
    assert records[0] == gateway.world.boot
    assert answer.headers["cache-control"] == "private, no-store"


async def test_records_carry_no_disclosure(gateway):
    answer = await get(gateway, "records/000.p/4", **AUTH)
    assert "~" not in answer.text
    for exchange in gateway.attester.exchanges:
        bundle = await gateway.attester.bundle(exchange.id)
        compact, opened = disclosures.split(bundle.token)
        assert compact in answer.text
        assert opened


async def test_endorsements_of_a_boot(gateway):
    name = leaf_of(gateway.world.boot).hex()
    answer = await get(gateway, f"endorsements/{name}", **AUTH)
    assert answer.json()["bootRecord"] == gateway.world.boot


@pytest.mark.parametrize("path", ["records/000.p/4", "endorsements/" + "0" * 64])
@pytest.mark.parametrize("fields", [{}, {"authorization": "Bearer sk-other"}])
async def test_records_need_a_key(gateway, path, fields):
    answer = await get(gateway, path, **fields)
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/000",
        "tile/0/000.p/5",
        "tile/0/001.p/1",
        "tile/1/000.p/1",
        "tile/7/000.p/1",
        "tile/8/000.p/1",
        "tile/00/000.p/4",
        "tile/-1/000.p/4",
        "tile/0/0",
        "tile/0/x999/x999/x999/x999/x999/999",
        "tile/0/../checkpoint",
        "tile/entries/000.p/5",
        "tile/entries/",
        "tile/",
        "",
        "other",
    ],
)
async def test_what_the_log_does_not_have_is_404(gateway, path):
    assert (await get(gateway, path)).status_code == 404


@pytest.mark.parametrize("path", ["records/000.p/5", "endorsements/x"])
async def test_records_that_are_not_there(gateway, path):
    assert (await get(gateway, path, **AUTH)).status_code == 404
    missing = "endorsements/" + "0" * 64
    assert (await get(gateway, missing, **AUTH)).status_code == 404


async def test_unsigned_entries_are_not_shown(gateway):
    await gateway.chat(headers=AUTH)
    assert (await get(gateway, "tile/0/000.p/5")).status_code == 404
    await gateway.state.log.publish()
    assert (await get(gateway, "tile/0/000.p/5")).status_code == 200
    assert (await get(gateway, "tile/0/000.p/4")).status_code == 200


async def test_gateway_without_a_log(tmp_path):
    async with running_gateway(tmp_path) as gateway:
        for path in ("checkpoint", "tile/0/000.p/1", "records/000.p/1"):
            answer = await gateway.client.get(f"/log/{path}")
            assert answer.status_code == 404
