"""A worker in this process: what it does with what it is told."""

import asyncio
import json
import socket
import ssl
import time

import httpx2
import pytest
from fakes.gateway import eventually
from fakes.model import sign_directory
from fakes.routed_engine import RoutedEngine

from attest import tokens
from attest.bundle import Bundle
from attest.claims import Measured
from attest.errors import AttestError, FormatError
from attest.keys import PrivateKey
from attest.log.note import KeyKind, NoteSigner
from attest.policy import Policy
from attest.verify import verify
from gateway.boot import Verified, WeightsReport
from gateway.engine.address import Address
from gateway.engine.peer import Peer
from gateway.listen import SharedPort
from gateway.settings import load_settings
from gateway.store.sqlite import SqliteStore
from gateway.tlog.publisher import Publisher
from gateway.workers import messages
from gateway.workers.channel import Channel
from gateway.workers.child import Worker
from gateway.workers.handover import share_of

CHAT = "/v1/chat/completions"
BODY = {"model": "toy", "messages": [{"role": "user", "content": "hello"}]}
EVIDENCE = {
    "engine": {"name": "vllm", "version": "0.32.0", "dtype": "float32"},
    "serving_state": {"dtype": "float32"},
    "software": {"vllm": "0.32.0"},
}


class Told:
    """A worker, and the gateway's end of its channel."""

    def __init__(self, folder):
        self.folder = folder
        self.model = sign_directory(folder / "model", now=int(time.time()))
        self.model.write_keys(folder)
        self.engine = RoutedEngine(self.model.manifest)
        self.settings = load_settings(
            {
                "model": self.model.root,
                "authority": [folder / "authority.pem"],
                "signer": f"file:{folder / 'issuer.pem'}",
                "state_dir": folder,
                "workers": 2,
            }
        )

    async def start(self, log_key=None):
        self.port = SharedPort("127.0.0.1", 0, "port")
        ours, theirs = socket.socketpair()
        self.heard = heard = await Channel.over(theirs, messages.ToWorker)
        self.channel = await Channel.over(ours, messages.FromWorker)
        configure = messages.Configure(
            number=0, settings=share_of(self.settings), log_key=log_key
        )
        self.bound = self.port.bound()
        self.worker = Worker(configure, heard, self.bound)
        self.running = asyncio.create_task(self.worker.run())
        await eventually(lambda: self.worker._server.started)
        self.client = httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port.port}",
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            limits=httpx2.Limits(max_keepalive_connections=0),
        )

    def verified(self, **changes):
        """What a start found out, as the message that tells it."""
        manifest = self.model.manifest
        weights = WeightsReport(
            manifest.tensor_root,
            manifest.tensor_count,
            Measured.ENGINE,
            int(time.time()),
            "stat",
        )
        found = Verified(manifest, self.model.envelope, weights, EVIDENCE)
        address = Address.of_socket(self.folder / "e.sock")
        message = messages.Serve.of(found, address, None)
        return message.model_copy(update=changes)

    async def tell(self, message):
        self.channel.send(message)

    async def serve(self, **changes):
        await self.tell(self.verified(**changes))
        return await self.channel.receive()

    async def ask(self):
        return await self.client.post(CHAT, json=BODY)

    async def claims(self, answer):
        name = answer.headers["attestation-id"]
        kept = await self.client.get(f"/v1/attestations/{name}")
        bundle = Bundle.loads(kept.content)
        policy = Policy(
            authorities=(self.model.authority.public,), min_measured=Measured.ASSERTED
        )
        verdict = verify(bundle, policy, at=int(time.time()))
        assert verdict.step(4).status == "ok"
        return verdict.claims

    async def progress(self):
        answer = await self.client.get("/readyz")
        return answer.status_code, answer.json()["progress"]

    async def settled(self):
        """What was told before has been done."""
        await self.tell(messages.Ask(number=1))
        return await self.channel.receive()

    async def stop(self):
        self.channel.close()
        await self.running

    async def close(self):
        for end in (self.channel, self.heard):
            end.close()
        await asyncio.gather(self.running, return_exceptions=True)
        await self.client.aclose()
        self.port.close()
        self.bound.close()
        await self.engine.stop()


@pytest.fixture
async def told(tmp_path):
    told = Told(tmp_path)
    await told.engine.start(tmp_path / "e.sock")
    await told.start()
    yield told
    await told.close()


async def test_says_what_is_going_on_until_it_may_serve(told):
    await told.tell(messages.Report(progress="checking the weights, 40%"))
    await told.tell(messages.MayLoad())
    await told.settled()
    assert await told.progress() == (503, "checking the weights, 40%")
    assert (await told.client.get("/startupz")).status_code == 200
    assert (await told.ask()).status_code == 503


async def test_makes_a_boot_of_its_own_and_serves(told):
    found = await told.serve()
    assert isinstance(found, messages.Serving)
    claims = await told.claims(await told.ask())
    assert (claims["boot"], claims["seq"]) == (found.boot, 0)
    assert claims["weights"]["measured"] == "engine"
    published = (await told.client.get("/.well-known/attestation")).json()
    record = tokens.parse(published["bootRecord"], typ="eat+jwt").claims
    assert record["weights"]["protection"] == "stat"
    assert record["software"] == EVIDENCE["software"]


async def test_next_engine_is_the_next_boot(told):
    first = await told.serve()
    await told.tell(messages.Refuse(reason="the engine has ended"))
    await told.tell(messages.Rest())
    await told.settled()
    refused = await told.ask()
    assert refused.status_code == 503
    assert (await told.claims(refused))["boot"] == first.boot
    second = await told.serve()
    claims = await told.claims(await told.ask())
    assert (claims["boot"], claims["seq"]) == (second.boot, 0)


async def test_look_shows_in_tokens(told):
    await told.serve()
    await told.tell(messages.Seen(at=1234567890))
    await told.settled()
    claims = await told.claims(await told.ask())
    assert claims["weights"]["verified_at"] == 1234567890


@pytest.mark.parametrize("later", [False, True])
async def test_stale_whether_it_was_told_before_or_later(told, later):
    stale = messages.Stale(since=5, reason="files changed")
    await told.serve(**({} if later else {"stale": stale}))
    if later:
        await told.tell(stale)
        await told.settled()
    claims = await told.claims(await told.ask())
    assert claims["stale"] == {"since": 5, "reason": "files changed"}
    assert claims["weights"]["measured"] == "asserted"
    assert "marked stale" in (await told.progress())[1]


@pytest.mark.parametrize("later", [False, True])
async def test_refused_whether_it_was_told_before_or_later(told, later):
    await told.serve(**({} if later else {"refused": "changed"}))
    if later:
        await told.tell(messages.Refuse(reason="changed"))
        await told.settled()
    answer = await told.ask()
    assert answer.status_code == 503
    claims = await told.claims(answer)
    assert claims["res"]["outcome"] == "refused"
    assert await told.progress() == (503, "changed")


async def test_another_process_at_the_engines_socket_is_never_asked(told):
    await told.serve(peer=[1, 0, 1])
    before = len(told.engine.requests)
    assert (await told.ask()).status_code == 503
    assert len(told.engine.requests) == before


async def test_manifest_is_verified_here_too(told):
    envelope = json.loads(told.model.envelope)
    envelope["payload"] = envelope["payload"][::-1]
    await told.tell(told.verified(envelope=json.dumps(envelope)))
    with pytest.raises(AttestError):
        await told.running


async def test_numbers_are_told_when_asked(told):
    await told.serve()
    await told.ask()
    found = await told.settled()
    assert found.number == 1
    [family] = [f for f in found.families if f.name.endswith("responses_attested")]
    assert [s.value for s in family.samples] == [1]


async def test_end_of_the_channel_is_its_end_after_what_is_in_flight(told):
    await told.serve()
    asked, answer = asyncio.Event(), asyncio.Event()
    record = told.engine._record

    async def hold(reader):
        await record(reader)
        asked.set()
        await answer.wait()

    told.engine._record = hold
    asking = asyncio.create_task(told.ask())
    await asked.wait()
    told.channel.close()
    await eventually(lambda: told.worker._server.should_exit)
    answer.set()
    assert (await asking).status_code == 200
    await told.running
    with pytest.raises(httpx2.ConnectError):
        await told.ask()


async def test_signal_ends_it_without_an_error(told):
    await told.serve()
    told.worker.stop()
    await told.running


async def test_nonsense_from_the_gateway_ends_it(told):
    first = messages.Configure(number=0, settings={}, log_key=None)
    await told.tell(first)
    with pytest.raises(FormatError, match="twice"):
        await told.running


async def test_log_is_followed(tmp_path):
    told, key = Told(tmp_path), PrivateKey.generate()
    signer = NoteSigner("log.test", KeyKind.LOG, key)
    await told.engine.start(tmp_path / "e.sock")
    parent = SqliteStore.open(tmp_path / "attestations.sqlite", log=True, shared=True)
    publisher = Publisher(parent, signer, tmp_path)
    await told.start(str(signer.key))
    try:
        await told.serve()
        await told.ask()
        assert (await told.client.get("/log/checkpoint")).status_code == 404
        await publisher.publish()
        note = await told.client.get("/log/checkpoint")
        assert note.text == str(publisher.note)
        assert publisher.head.size == 2
    finally:
        await told.close()
        await publisher.aclose()
        parent.close()


def test_process_that_listens_is_handed_over():
    message = messages.Serve(
        envelope="",
        weights=messages.Weights(
            root="", count=0, measured="files", verified_at=0, protection=None
        ),
        evidence={},
        address="unix:/e.sock",
        peer=[1, 2, 3],
    )
    assert message.process() == Peer(1, 2, 3)
    assert message.report().measured is Measured.FILES
