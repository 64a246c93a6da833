"""The gateway's whole data path on real sockets: uvicorn, attester, store, client.

Only the engine is a fake. Each attestation can be fetched from the store and verified
against the bytes that the client received.
"""

import asyncio
import json
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx2
import uvicorn
from fakes.upstream import ScriptedEngine
from fakes.world import GATEWAY, NOW, World, make_world

from attest import disclosures, tokens
from attest.bundle import Bundle
from attest.claims import Measured, Outcome
from attest.delivery import split_stream
from attest.policy import Policy
from attest.verify import verify
from gateway.app import build_app
from gateway.attestations import Attester
from gateway.auth import ApiKeys
from gateway.boot import Boot, Session, WeightsReport
from gateway.connection import connection_class
from gateway.policy import Rules
from gateway.settings import LimitSettings
from gateway.state import AppState, Serving
from gateway.store.sqlite import SqliteStore
from gateway.tlog.publisher import Publisher
from gateway.upstream import HttpUpstream

__all__ = [
    "CHAT",
    "COMPLETIONS",
    "Running",
    "chat_body",
    "eventually",
    "running_gateway",
]

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


def chat_body(**members):
    messages = [{"role": "user", "content": "hello"}]
    return {"model": "tiny", "messages": messages, **members}


class Recorder(Attester):
    """The real attester, which also keeps what it sealed."""

    def __init__(self, *args):
        super().__init__(*args)
        self.exchanges = []
        self.sealed = asyncio.Event()
        self.fail_with = None

    async def seal(self, exchange):
        self.exchanges.append(exchange)
        if self.fail_with is not None:
            raise self.fail_with
        sealed = await super().seal(exchange)
        self.sealed.set()
        return sealed


async def eventually(condition):
    """Let the event loop run until the condition holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # there is no event to wait for
            await asyncio.sleep(0.001)


@dataclass
class Running:
    """A gateway that listens, and a client of it."""

    world: World
    engine: ScriptedEngine
    state: AppState
    attester: Recorder
    client: httpx2.AsyncClient
    port: int
    server: uvicorn.Server = field(repr=False)

    @property
    def exchange(self):
        """The exchange that was sealed last."""
        return self.attester.exchanges[-1]

    async def chat(self, body=None, *, path=CHAT, headers=None):
        """Post a body: a mapping, or bytes as they are."""
        body = chat_body() if body is None else body
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = {"content-type": "application/json", **(headers or {})}
        return await self.client.post(path, content=content, headers=fields)

    async def raw(self, data):
        """Send bytes on a connection of their own; all that comes back."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        received = await reader.read()
        writer.close()
        return received

    async def wait_sealed(self):
        await asyncio.wait_for(self.attester.sealed.wait(), 10)
        return self.exchange

    async def claims(self, attestation_id):
        bundle = await self.attester.bundle(attestation_id)
        compact, _ = disclosures.split(bundle.token)
        return tokens.parse(compact, typ="inference-attestation+jwt").claims

    async def verify(self, response, *, outcomes=("complete",)):
        """The claims, once what `verdict` looks at is proven."""
        verdict = await self.verdict(response, outcomes=outcomes)
        verdict.raise_unless_proven()
        return verdict.claims

    async def verdict(self, response, *, outcomes=("complete",)):
        """What the client has against what the store has.

        `response` is the client's; a stream's comment must hold the stored token.
        """
        attestation_id = response.headers["attestation-id"]
        covered, token = split_stream(response.content)
        kept = await self.attester.bundle(attestation_id)
        for delivered in (token, response.headers.get("attestation")):
            assert delivered in (None, kept.token)
        bundle = Bundle(
            token=kept.token,
            key_certificates=kept.key_certificates,
            boot_record=kept.boot_record,
            manifest=kept.manifest,
            request=response.request.content,
            response=covered,
        )
        policy = Policy(
            authorities=(self.world.authority.public,),
            outcomes=frozenset(map(Outcome, outcomes)),
            overrides=None,
        )
        return verify(bundle, policy, at=NOW)


def _boot(world):
    manifest = world.manifest
    weights = WeightsReport(
        manifest.tensor_root, manifest.tensor_count, Measured.ENGINE, NOW
    )
    session = Session(world.session, world.certificate, GATEWAY)
    return Boot(session, manifest, world.envelope, weights, world.boot)


class _Server(uvicorn.Server):
    """Ends at once: uvicorn's own loop looks for the end every 0.1 s."""

    def __init__(self, config):
        super().__init__(config)
        self.end = asyncio.Event()

    async def main_loop(self):
        await self.on_tick(0)
        await self.end.wait()


@asynccontextmanager
async def running_gateway(
    folder,
    *,
    limits=None,
    api_keys=(),
    read_seconds=30.0,
    world=None,
    log=None,
    witnesses=(),
    status_lists=(),
    rules=None,
    comments=True,
    store=None,
):
    """A gateway with a fake engine behind it on a Unix socket.

    `store` is closed with it; by default it is a file in the folder.
    `log` signs the heads of its log (a `NoteSigner`); without one it keeps none. Heads
    are signed when a test calls `state.log.publish()`.
    """
    world = world or make_world()
    boot = _boot(world)
    engine = ScriptedEngine()
    await engine.start(folder / "e.sock")
    if store is None:
        store = SqliteStore.open(folder / "attestations.sqlite", log=log is not None)
    store.add_boot(boot.digest, boot.endorsements(), boot.record)
    publisher = Publisher(store, log, folder, witnesses) if log else None
    attester = Recorder(boot, store, lambda: float(NOW))
    upstream = HttpUpstream(uds=str(folder / "e.sock"), read_seconds=read_seconds)
    state = AppState(
        limits or LimitSettings(),
        ApiKeys(api_keys),
        progress="ready",
        serving=Serving(upstream, attester, world.manifest.digest),
        attester=attester,
        log=publisher,
        status_lists=status_lists,
        clock=lambda: float(NOW),
        rules=(rules or Rules()).bound(world.manifest),
        comments=comments,
    )
    config = uvicorn.Config(
        build_app(state),
        port=0,
        http=connection_class(state.limits.head_seconds),
        log_level="critical",
        lifespan="off",
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve())
    await eventually(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    client = httpx2.AsyncClient(
        base_url=f"http://127.0.0.1:{port}",
        trust_env=False,
        timeout=30,
        # Reading the list of authorities would take most of a test's time.
        verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
    )
    try:
        async with client:
            yield Running(world, engine, state, attester, client, port, server)
    finally:
        server.force_exit = True
        server.end.set()
        await serving
        await state.aclose()
        await engine.stop()
        if publisher is not None:
            await publisher.aclose()
        store.close()
