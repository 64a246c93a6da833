"""A gateway that answers from a script and attests with the keys of a signed world.

Everything that a client checks is real: nonce, tokens, endorsements, delivery. What it
says is fixed, and each way to misbehave is an attribute. It is served in process, for
httpx and httpx2 alike, or over a loopback port by a real uvicorn.
"""

import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import uvicorn
from fakes.log import SignedLog
from fakes.world import ANSWER, NOW, STREAM, World, with_comment

from attest.bundle import MEDIA_TYPE, Bundle
from attest.delivery import ATTESTATION_HEADER, ID_HEADER, WELL_KNOWN
from attest.transcript import Dialect

__all__ = [
    "CHAT",
    "COMPLETION",
    "COMPLETIONS",
    "COMPLETION_REQUEST",
    "COMPLETION_STREAM",
    "AttestedGateway",
    "Received",
    "Reply",
    "chunked",
    "inner",
    "serve",
]

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


def _completion(text: str, finish_reason: str | None) -> dict[str, Any]:
    choice = {"index": 0, "text": text, "finish_reason": finish_reason}
    return {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": NOW,
        "model": "tiny",
        "choices": [choice],
    }


COMPLETION_REQUEST = json.dumps({"model": "tiny", "prompt": "2+2="}).encode()
COMPLETION = json.dumps(_completion("4", "stop")).encode()
COMPLETION_STREAM = (
    f"data: {json.dumps(_completion('4', None))}\n\n"
    f"data: {json.dumps(_completion('', 'stop'))}\n\n"
    "data: [DONE]\n\n"
).encode()
_ANSWERS = {CHAT: (ANSWER, STREAM), COMPLETIONS: (COMPLETION, COMPLETION_STREAM)}
_DIALECTS = {CHAT: Dialect.CHAT, COMPLETIONS: Dialect.COMPLETIONS}


@dataclass(frozen=True)
class Received:
    """A request as it arrived; names of header fields are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """What goes back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def without(self, *names: str) -> "Reply":
        """The same reply without these header fields."""
        kept = {k: v for k, v in self.headers.items() if k not in names}
        return replace(self, headers=kept)

    def swapped(self, old: bytes, new: bytes) -> "Reply":
        """The same reply with other bytes in its body."""
        assert old in self.body
        return replace(self, body=self.body.replace(old, new))


def _json(value: Any, status: int = 200, **headers: str) -> Reply:
    fields = {"content-type": "application/json", **headers}
    return Reply(status, fields, json.dumps(value).encode())


@dataclass
class AttestedGateway:
    """The gateway.

    Attributes:
        world: whose keys sign.
        received: every request so far.
        mangle: what somebody between gateway and client does to attested answers.
        forge: makes the token instead of the world; gets the exchange.
        header: whether bodies carry the token in a header.
        comment: whether streams carry it in a comment.
        status: of the answer; an error body where it is 400 and above.
        pending: how often /v1/attestations/{id} still says 202.
        retry_after: what it then says about trying again; None leaves it out.
        log: where attestations are logged, if anywhere; proofs are in the bundles.
        uncovered: how often a bundle still comes without its log proof.
        evidence: replies for paths, instead of the true ones.
        closed: connections that the client let go of, in process only.
        chunk: bodies are sent in pieces of so many bytes.
    """

    world: World
    received: list[Received] = field(default_factory=list)
    mangle: Callable[[Reply], Reply] = lambda reply: reply
    forge: Callable[..., str] | None = None
    header: bool = True
    comment: bool = True
    status: int = 200
    pending: int = 0
    retry_after: str | None = "0"
    log: SignedLog | None = None
    uncovered: int = 0
    evidence: dict[str, Reply] = field(default_factory=dict)
    closed: int = 0
    chunk: int = 40
    _bundles: dict[str, Bundle] = field(default_factory=dict)

    def paths(self) -> list[str]:
        """Paths of all requests so far."""
        return [request.path for request in self.received]

    def handle(self, request: Received) -> Reply:
        """Answer one request."""
        self.received.append(request)
        if request.path in self.evidence:
            return self.evidence[request.path]
        if request.path.endswith(WELL_KNOWN):
            return _json(self.world.endorsements)
        if request.method == "GET":
            return self._evidence(request.path.rpartition("/")[2])
        # The gateway may be reached below a path of its own.
        path = "/v1/" + request.path.rpartition("/v1/")[2]
        if path not in _ANSWERS:
            return _json({"count": 3})
        return self.mangle(self._answer(request, path))

    def _evidence(self, name: str) -> Reply:
        if self.pending and name in self._bundles:
            self.pending -= 1
            wait = {} if self.retry_after is None else {"retry-after": self.retry_after}
            return Reply(202, wait, b"")
        if name not in self._bundles:
            return _json({"error": {"message": "unknown"}}, 404)
        bundle = self._bundles[name]
        if self.uncovered:
            self.uncovered -= 1
            bundle = replace(bundle, log=None)
        return Reply(200, {"content-type": MEDIA_TYPE}, bundle.dumps())

    def _answer(self, request: Received, path: str) -> Reply:
        plain, stream = _ANSWERS[path]
        streamed = json.loads(request.body).get("stream") and self.status < 400
        body = stream if streamed else plain
        if self.status >= 400:
            error = {"message": "no", "type": "t", "param": None, "code": self.status}
            body = json.dumps({"error": error}).encode()
        make = self.forge or self.world.token
        token = make(
            request.body,
            body,
            nonce=request.headers.get("attestation-nonce"),
            status=self.status,
            dialect=_DIALECTS[path],
        )
        name = f"att_{len(self._bundles)}"
        bundle = replace(self.world.bundle(), token=token, request=None, response=None)
        self._bundles[name] = bundle if self.log is None else self.log.prove(bundle)
        headers = {ID_HEADER: name, "content-type": "application/json"}
        if streamed:
            headers["content-type"] = "text/event-stream; charset=utf-8"
            body = with_comment(body, token) if self.comment else body
        elif self.header:
            headers[ATTESTATION_HEADER] = token
        return Reply(self.status, headers, body)


def chunked(body: bytes, size: int) -> list[bytes]:
    """The body in pieces."""
    return [body[i : i + size] for i in range(0, len(body), size)]


def inner(gateway: AttestedGateway, http: Any) -> Any:
    """An inner transport, sync and async, of `httpx` or `httpx2`: no socket."""

    class Stream(http.SyncByteStream, http.AsyncByteStream):
        def __init__(self, body: bytes) -> None:
            self.chunks = chunked(body, gateway.chunk)
            self.is_closed = False

        def __iter__(self) -> Iterator[bytes]:
            yield from self.chunks

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for chunk in self.chunks:
                yield chunk

        def close(self) -> None:
            gateway.closed += not self.is_closed
            self.is_closed = True

        async def aclose(self) -> None:
            self.close()

    def handle(request: Any) -> Any:
        headers = {name.lower(): value for name, value in request.headers.items()}
        received = Received(request.method, request.url.path, headers, request.content)
        reply = gateway.handle(received)
        return http.Response(
            reply.status, headers=dict(reply.headers), stream=Stream(reply.body)
        )

    return http.MockTransport(handle)


async def _read_body(receive: Callable[[], Any]) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


@contextmanager
def serve(gateway: AttestedGateway) -> Iterator[str]:
    """Serve over a loopback port; gives the base URL without a path."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = {
            k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]
        }
        body = await _read_body(receive)
        received = Received(scope["method"], scope["path"], headers, body)
        reply = gateway.handle(received)
        fields = [(k.encode(), v.encode()) for k, v in reply.headers.items()]
        await send(
            {"type": "http.response.start", "status": reply.status, "headers": fields}
        )
        for piece in chunked(reply.body, gateway.chunk):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    config = uvicorn.Config(app, lifespan="off", ws="none", log_level="error")
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
