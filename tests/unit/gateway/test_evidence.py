"""Evidence where several processes answer and share one store."""

import asyncio

import httpx2
import pytest
from fakes.gateway import running_gateway
from fakes.upstream import json_answer
from fakes.world import ANSWER, NOW

from attest.keys import PrivateKey
from gateway import session_keys
from gateway.app import build_app
from gateway.attestations import Attester
from gateway.auth import ApiKeys
from gateway.boot import Boot, certify
from gateway.errors import StoreError
from gateway.session_keys import SessionKeys
from gateway.settings import LimitSettings
from gateway.state import AppState

JWKS = "/.well-known/jwks.json"
ABSENT = "/v1/attestations/att_" + "0" * 22


@pytest.fixture
def now(monkeypatch):
    """Reads the store at every request instead of once a second."""
    monkeypatch.setattr(session_keys, "_MAX_AGE_SECONDS", 0.0)


class Beside:
    """A second process over the same store, with a boot of its own, in this one."""

    def __init__(self, gateway):
        first = gateway.attester
        manifest = first.boot.manifest
        session = certify(PrivateKey.generate(), "gateway.test", manifest, now=NOW)
        kept = first.boot
        self.boot = Boot(session, manifest, kept.envelope, kept.weights, kept.record)
        self.store = first._store
        self.state = AppState(LimitSettings(), ApiKeys())
        self.state.attester = Attester(self.boot, self.store, lambda: float(NOW))
        for state in (self.state, gateway.state):
            state.session_keys = SessionKeys(self.store, lambda: float(NOW))
            state.shared = True
        self.client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=build_app(self.state)),
            base_url="http://beside",
        )

    def keep_boot(self):
        # Names boots by a digest, which is not looked into here.
        self.store.add_boot("sha256:beside", self.boot.endorsements(), "")


async def kids(client):
    return [key["kid"] for key in (await client.get(JWKS)).json()["keys"]]


async def test_each_process_publishes_the_keys_of_all(gateway, now):
    beside = Beside(gateway)
    mine = gateway.attester.boot.session.key.public.thumbprint
    others = beside.boot.session.key.public.thumbprint
    assert await kids(gateway.client) == [mine]
    beside.keep_boot()
    assert await kids(gateway.client) == [mine, others]
    assert await kids(beside.client) == [others, mine]


async def test_store_is_asked_once_a_second_at_most(gateway):
    beside = Beside(gateway)
    reads, read = [], beside.store.read

    def counted(work):
        reads.append(work)
        return read(work)

    beside.store.read = counted
    await asyncio.gather(*(kids(gateway.client) for _ in range(20)))
    assert len(reads) == 1


async def test_each_boot_is_read_once(gateway, now, monkeypatch):
    Beside(gateway).keep_boot()
    read, original = [], session_keys.certified_keys
    monkeypatch.setattr(
        session_keys, "certified_keys", lambda data: read.append(1) or original(data)
    )
    for _ in range(3):
        await kids(gateway.client)
    assert len(read) == 2


async def test_store_that_does_not_answer_leaves_the_keys_that_are_known(gateway, now):
    beside = Beside(gateway)
    beside.keep_boot()
    before = await kids(gateway.client)

    async def down(_):
        raise StoreError("store: gone")

    beside.store.read = down
    assert await kids(gateway.client) == before


async def test_any_process_gives_the_bundle_of_any_answer(gateway):
    beside = Beside(gateway)
    gateway.engine.answer(json_answer(ANSWER))
    answer = await gateway.chat()
    path = f"/v1/attestations/{answer.headers['attestation-id']}"
    here, there = await gateway.client.get(path), await beside.client.get(path)
    assert (there.status_code, there.content) == (200, here.content)


async def test_id_that_may_be_open_elsewhere_is_worth_another_try(gateway):
    beside = Beside(gateway)
    gateway.attester.opened(ABSENT.rpartition("/")[2])
    here, there = await gateway.client.get(ABSENT), await beside.client.get(ABSENT)
    assert (here.status_code, here.headers["retry-after"]) == (202, "1")
    assert (there.status_code, there.headers["retry-after"]) == (404, "1")
    assert "another process" in there.json()["error"]["message"]


async def test_unknown_id_is_final_where_nobody_else_answers(tmp_path):
    async with running_gateway(tmp_path) as gateway:
        answer = await gateway.client.get(ABSENT)
    assert answer.status_code == 404
    assert "retry-after" not in answer.headers
