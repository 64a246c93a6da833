"""A proxy between client and gateway that compresses what passes.

The digest is over what a client reads: a content coding that somebody on the way put on
and the HTTP library took off again changes nothing. Where the proving client
is sent one against its wish, it cannot tell, and says so.
"""

import asyncio
from contextlib import asynccontextmanager

import httpx2
import pytest
import uvicorn
from fakes.answers import SPOKEN
from fakes.gateway import chat_body, eventually, running_gateway
from fakes.upstream import gzipped, json_answer, sse
from fakes.world import NOW
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import StreamingResponse

from attest.client.httpx2 import AsyncAttestTransport
from attest.errors import EvidenceUnavailableError
from attest.policy import Policy

TEXT = "Hello. " * 500
_OF_ONE_HOP = {"transfer-encoding", "connection", "content-length", "host"}


def proxy_app(upstream, *, obstinate):
    """Passes everything on; `obstinate` compresses for clients that want none, too."""

    async def app(scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body")
        fields = [(k, v) for k, v in scope["headers"] if k.decode() not in _OF_ONE_HOP]
        async with upstream.stream(
            scope["method"], scope["path"], content=body, headers=fields
        ) as answer:
            kept = {k: v for k, v in answer.headers.items() if k not in _OF_ONE_HOP}
            passed = StreamingResponse(
                answer.aiter_raw(), status_code=answer.status_code, headers=kept
            )
            await passed(scope, receive, send)

    compressing = GZipMiddleware(app, minimum_size=1)

    async def forcing(scope, receive, send):
        fields = [(k, v) for k, v in scope["headers"] if k != b"accept-encoding"]
        fields.append((b"accept-encoding", b"gzip"))
        await compressing({**scope, "headers": fields}, receive, send)

    return forcing if obstinate else compressing


@asynccontextmanager
async def proxied(gateway, *, obstinate=False):
    """The URL of a proxy before the gateway."""
    address = f"http://127.0.0.1:{gateway.port}"
    async with httpx2.AsyncClient(base_url=address, trust_env=False) as upstream:
        config = uvicorn.Config(
            proxy_app(upstream, obstinate=obstinate),
            port=0,
            log_level="critical",
            lifespan="off",
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        await eventually(lambda: server.started)
        try:
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


@pytest.fixture
async def gateway(tmp_path):
    async with running_gateway(tmp_path) as running:
        yield running


ANSWERS = {
    "body": (False, json_answer(SPOKEN["chat"].body(TEXT))),
    "body that the engine compressed": (False, gzipped(SPOKEN["chat"].body(TEXT))),
    "stream": (True, sse(*SPOKEN["chat"].events(TEXT))),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_client_that_takes_gzip(gateway, name):
    streamed, answer = ANSWERS[name]
    gateway.engine.answer(answer)
    async with (
        proxied(gateway) as url,
        httpx2.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        response = await client.post(
            "/v1/chat/completions",
            json=chat_body(stream=streamed),
            headers={"accept-encoding": "gzip"},
        )
        # Some compressors leave event streams alone, as their reader would wait.
        assert streamed or response.headers["content-encoding"] == "gzip"
        await gateway.verify(response)


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("obstinate", [False, True])
async def test_proving_client(gateway, name, obstinate):
    streamed, answer = ANSWERS[name]
    gateway.engine.answer(answer)
    policy = Policy(authorities=(gateway.world.authority.public,))
    transport = AsyncAttestTransport(policy, clock=lambda: float(NOW))
    async with (
        proxied(gateway, obstinate=obstinate) as url,
        httpx2.AsyncClient(base_url=url, transport=transport) as client,
    ):
        asking = client.post("/v1/chat/completions", json=chat_body(stream=streamed))
        if obstinate:  # of a stream it compresses the evidence alone
            with pytest.raises(EvidenceUnavailableError, match="compressed"):
                await asking
            return
        response = await asking
        assert "Hello. Hello." in response.text
        assert "content-encoding" not in response.headers
