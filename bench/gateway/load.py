"""The load: closed-loop requests, and streams whose tokens carry their own time.

Every answer is checked while it comes: status 200, the whole of it, and at the end of a
stream `[DONE]`. A sample is kept byte by byte, to be verified afterwards.
"""

import asyncio
import json
import re
import time
from dataclasses import dataclass, field

import httptools

__all__ = ["Kept", "Load", "body_of", "percentile"]

PATH = "/v1/chat/completions"
EMBEDDINGS_PATH = "/v1/embeddings"
_TOKEN = re.compile(rb'"content":"(\d{16}) "')
_LONGEST = len('"content":"0123456789abcdef "')


def body_of(ask: str, *, stream: bool) -> bytes:
    """A request of 1 kB that asks the engine of the bench for something."""
    messages = [
        {"role": "system", "content": "Be brief and kind."},
        {"role": "user", "content": f"bench {ask} ." + "x" * 800},
    ]
    value = {"model": "tiny", "messages": messages, "max_tokens": 100}
    return json.dumps({**value, "temperature": 0, "stream": stream}).encode()


def embeddings_body() -> bytes:
    """A request for the 1 MB of embeddings that the engine of the bench has."""
    texts = [f"bench embed {number}" for number in range(48)]
    return json.dumps({"model": "tiny", "input": texts}).encode()


def percentile(values: list[float], share: float) -> float:
    """The value below which this share of them lies; 0 where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


@dataclass
class Kept:
    """One exchange, byte by byte."""

    request: bytes
    body: bytes
    headers: dict[str, str]


@dataclass
class Load:
    """What came of one measurement.

    Attributes:
        seconds: from the first request to the last byte.
        latencies: of whole answers, in seconds.
        firsts: from the request to the first token of a stream, in seconds.
        lags: from the engine's write of a token to its arrival, in seconds.
        failures: answers that were not what they had to be.
    """

    keep_each: int = 0
    path: str = PATH
    seconds: float = 0.0
    done: int = 0
    latencies: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    async def requests(self, port: int, *, clients: int, seconds: float) -> None:
        """So many clients ask again and again for so long."""
        body = body_of("json", stream=False)
        until = time.monotonic() + seconds
        await self._run(port, body, clients, lambda _: time.monotonic() < until)

    async def embeddings(self, port: int, *, clients: int, seconds: float) -> None:
        """So many clients ask for embeddings again and again for so long."""
        body, until = embeddings_body(), time.monotonic() + seconds
        self.path = EMBEDDINGS_PATH
        await self._run(port, body, clients, lambda _: time.monotonic() < until)

    async def streams(
        self, port: int, *, count: int, tokens: int, delay_ms: int, rounds: int = 1
    ) -> None:
        """So many streams at a time, each `rounds` times."""
        body = body_of(f"sse {tokens} {delay_ms}", stream=True)
        await self._run(port, body, count, lambda done: done < rounds, tokens=tokens)

    async def _run(self, port, body, clients, go_on, *, tokens=0) -> None:  # noqa: ANN001
        loop = asyncio.get_running_loop()
        began = time.monotonic()
        made = []
        for _ in range(clients):
            _, client = await loop.create_connection(
                lambda: _Client(self, port, body, go_on, tokens), "127.0.0.1", port
            )
            made.append(client)
        await asyncio.gather(*(client.ended for client in made))
        self.seconds = time.monotonic() - began


class _Client(asyncio.Protocol):
    def __init__(self, load, port, body, go_on, tokens) -> None:  # noqa: ANN001
        self.load, self.body, self.go_on, self.tokens = load, body, go_on, tokens
        head = (
            f"POST {load.path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
            "user-agent: bench\r\naccept: */*\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        self.request = head.encode() + body
        self.ended = asyncio.get_running_loop().create_future()
        self.done = self.count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._ask()

    def _ask(self) -> None:
        self.pieces: list[bytes] = []
        self.headers: dict[str, str] = {}
        self.found, self.rest = 0, b""
        self.on_body = self._token if self.tokens else self.pieces.append
        self.parser = httptools.HttpResponseParser(self)
        self.count += 1
        each = self.load.keep_each
        self.keeps = bool(each) and (self.load.done + len(self.load.kept)) % each == 0
        self.began = time.monotonic()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.now = time.monotonic_ns()
        self.parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode().lower()] = value.decode("latin-1")

    def _token(self, piece: bytes) -> None:
        self.pieces.append(piece)
        text, end = self.rest + piece, 0
        for match in _TOKEN.finditer(text):
            end = match.end()
            lag = (self.now - int(match[1])) / 1e9
            if not self.found:
                self.load.firsts.append(time.monotonic() - self.began)
            self.found += 1
            self.load.lags.append(lag)
        self.rest = text[max(end, len(text) - _LONGEST) :]  # one may be cut in two

    def on_message_complete(self) -> None:
        load, status = self.load, self.parser.get_status_code()
        body = b"".join(self.pieces)
        whole = not self.tokens or (
            self.found == self.tokens and body.endswith(b"data: [DONE]\n\n")
        )
        if status != 200 or not whole:
            load.failures.append(f"status {status}, {self.found} of {self.tokens}")
        load.latencies.append(time.monotonic() - self.began)
        load.done += 1
        self.done += 1
        if self.keeps and len(load.kept) < 50:
            load.kept.append(Kept(self.body, body, self.headers))
        if self.go_on(self.done) and not load.failures:
            asyncio.get_running_loop().call_soon(self._ask)
        else:
            self.transport.close()
            self._end()

    def connection_lost(self, _: Exception | None) -> None:
        if not self.ended.done():
            self.load.failures.append("connection lost")
            self._end()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
