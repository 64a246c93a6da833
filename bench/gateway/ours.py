"""Our gateway for the bench: the real application, attester and store.

    python bench/gateway/ours.py MODE PORT ENGINE_PORT DIRECTORY

Everything is as `attest-gateway serve` has it, but for the engine, which is nobody's
child here, and the start-up, which has no weights to check. MODE is one of

    attested  attested and kept, with a log
    no-log    attested and kept, without a log
    no-store  attested, and not kept at all
    off       the same admission, limits, routes and connections; nothing is read,
              hashed, signed or kept

`attested` also answers `GET /bench/authority` with the key that a verifier trusts.
"""

import sys
from pathlib import Path

import uvicorn
from starlette.responses import Response
from starlette.routing import Route

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from fakes.gateway import _boot
from fakes.world import NOW, make_world

from attest.keys import PrivateKey
from attest.log.note import KeyKind, NoteSigner
from gateway.app import build_app
from gateway.asgi import send_body, send_chunk, start_stream
from gateway.attestations import Attester
from gateway.auth import ApiKeys
from gateway.call import _STREAM_FIELDS
from gateway.connection import connection_class
from gateway.endpoints import ENDPOINTS
from gateway.headers import response_fields, upstream_headers
from gateway.proxy import _Endpoint
from gateway.server import run
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
                whole = b"".join([piece async for piece in response.aiter_raw()])
                await send_body(send, response.status, fields, whole)
                return
            await start_stream(send, response.status, [*fields, *_STREAM_FIELDS])
            async for piece in response.aiter_raw():
                await send_chunk(send, piece)
            await send_chunk(send, b"", more=False)
        finally:
            await response.aclose()


async def _forget(_: object) -> None:
    """Keep nothing."""


def main() -> None:
    mode, port, engine, folder = sys.argv[1:]
    world = make_world()
    boot = _boot(world)
    log = NoteSigner(ORIGIN, KeyKind.LOG, PrivateKey.generate())
    store = SqliteStore.open(Path(folder) / f"{mode}.sqlite", log=mode == "attested")
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
        log=Publisher(store, log, Path(folder)) if mode == "attested" else None,
    )
    store.in_flight = lambda: state.in_flight
    state.rules = state.rules.bound(world.manifest)
    app = build_app(state)
    if mode == "off":
        app = Unattested(ENDPOINTS[0], state)
    else:
        key = Route("/bench/authority", lambda _: Response(world.authority.public.pem))
        app.router.routes.append(key)
    config = uvicorn.Config(
        app,
        port=int(port),
        http=connection_class(state.limits.head_seconds),
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        lifespan="off",
        backlog=8192,
    )
    run(uvicorn.Server(config).serve())


if __name__ == "__main__":
    main()
