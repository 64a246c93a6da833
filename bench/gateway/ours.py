"""Our gateway for the bench: the real application, attester and store.

    python bench/gateway/ours.py MODE PORT ENGINE_PORT DIRECTORY

Everything is as `attest-gateway serve` has it, but for the engine, which is nobody's
child here, and the start-up, which has no weights to check. MODE is one of

    attested  attested and kept, with a log
    no-log    attested and kept, without a log
    no-store  attested, and not kept at all
    off       the same admission, limits, routes and connections; nothing is read,
              hashed, signed or kept
    workers   two processes of `attested` on one port, with one store and one log

`attested` also answers `GET /bench/authority` with the key that a verifier trusts.
"""

import asyncio
import signal
import socket
import subprocess
import sys
from pathlib import Path

import uvicorn
from starlette.responses import Response
from starlette.routing import Route

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from fakes.gateway import _boot
from fakes.world import NOW, World, make_world

from attest.keys import PrivateKey
from attest.log.note import KeyKind, NoteSigner
from attest.transcript import MAX_BODY
from gateway.app import build_app
from gateway.asgi import WHOLE, WRITE, send_chunk, start_stream
from gateway.attestations import Attester
from gateway.auth import ApiKeys
from gateway.call import _STREAM_FIELDS
from gateway.connection import connection_class
from gateway.endpoints import ENDPOINTS
from gateway.headers import response_fields, upstream_headers
from gateway.listen import run
from gateway.proxy import _Endpoint
from gateway.settings import LimitSettings
from gateway.state import AppState, Serving
from gateway.store.sqlite import SqliteStore
from gateway.tlog.publisher import Publisher
from gateway.upstream import HttpUpstream

ORIGIN = "bench.test/log"


class Unattested(_Endpoint):
    """The same way through the gateway, as if it attested nothing."""

    async def _serve(self, scope, receive, send, entry) -> None:  # noqa: ANN001
        body = await self._body(scope, receive)
        response = await self._state.require_engine().open(
            "POST",
            self._endpoint.path,
            headers=upstream_headers(scope["headers"], entry.request_id),
            body=body,
        )
        fields = response_fields(
            response.headers, request_id=entry.request_id, attestation_id=None
        )
        try:
            if "content-length" in response.headers:
                whole = await response.read(MAX_BODY)
                await scope["extensions"][WHOLE]["answer"](
                    response.status, fields, whole
                )
                return
            await start_stream(send, response.status, [*fields, *_STREAM_FIELDS])
            while not await response.pour(scope["extensions"][WRITE]["now"]):
                await send_chunk(send, b"")
            await send_chunk(send, b"", more=False)
        finally:
            await response.aclose()


async def _forget(_: object) -> None:
    """Keep nothing."""


class ByPath:
    """Each row of the table, unattested."""

    def __init__(self, state: AppState) -> None:
        self._rows = {row.path: Unattested(row, state) for row in ENDPOINTS}

    async def __call__(self, scope, receive, send) -> None:  # noqa: ANN001
        await self._rows[scope["path"]](scope, receive, send)


def _state(mode: str, engine: str, folder: Path, world: World) -> AppState:
    boot, logs = _boot(world), mode in ("attested", "worker", "sibling")
    shared = mode in ("worker", "sibling")
    path = folder / f"{'shared' if shared else mode}.sqlite"
    store = SqliteStore.open(path, log=logs, shared=shared)
    store.add_boot(boot.digest, boot.endorsements(), boot.record)
    if mode == "no-store":
        store.put = _forget
    attester = Attester(boot, store, lambda: float(NOW))
    state = AppState(
        LimitSettings(max_concurrency=100_000),
        ApiKeys(()),
        progress="ready",
        serving=Serving(
            HttpUpstream(base_url=f"http://127.0.0.1:{engine}"),
            attester,
            world.manifest.digest,
        ),
        attester=attester,
    )
    if logs:
        signer = NoteSigner(ORIGIN, KeyKind.LOG, PrivateKey.generate())
        state.log = Publisher(store, signer, folder)
    store.in_flight = lambda: state.in_flight
    state.rules = state.rules.bound(world.manifest)
    return state


async def _serve(mode: str, port: str, engine: str, folder: Path) -> None:
    world = make_world()
    state = _state(mode, engine, folder, world)
    app = ByPath(state) if mode == "off" else build_app(state)
    if mode == "attested":
        key = Route("/bench/authority", lambda _: Response(world.authority.public.pem))
        app.router.routes.append(key)
    config = uvicorn.Config(
        app,
        http=connection_class(state.limits.head_seconds),
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        lifespan="off",
    )
    bound = socket.create_server(
        ("127.0.0.1", int(port)), backlog=8192, reuse_port=mode in ("worker", "sibling")
    )
    if mode in ("attested", "worker"):
        publishing = asyncio.create_task(state.log.run())
    await uvicorn.Server(config).serve(sockets=[bound])
    if mode in ("attested", "worker"):
        publishing.cancel()


def _two(rest: list[str]) -> None:
    """Both workers, until this process is told to end."""
    each = [
        subprocess.Popen([sys.executable, __file__, mode, *rest])
        for mode in ("worker", "sibling")
    ]
    signal.signal(signal.SIGTERM, lambda *_: [one.terminate() for one in each])
    for one in each:
        one.wait()


def main() -> None:
    mode, *rest = sys.argv[1:]
    if mode == "workers":
        _two(rest)
    else:
        port, engine, folder = rest
        run(_serve(mode, port, engine, Path(folder)))


if __name__ == "__main__":
    main()
