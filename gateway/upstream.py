"""The connection to the engine: one narrow interface, and HTTP/1.1 behind it.

There is no HTTP client here. A client would follow redirects, keep cookies, read proxy
settings from the environment and ask for compressed answers; none of that may happen
between an engine and its attestation.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import ExitStack
from typing import Protocol

from gateway.engine.peer import Peer, peer_of
from gateway.errors import UpstreamDownError, UpstreamError
from gateway.http import httpx
from gateway.link import Link, Sink
from gateway.pace import AFewATurn
from gateway.wire import ResponseReader, request_head

__all__ = [
    "ENDS_AT_ONCE",
    "HttpUpstream",
    "Pour",
    "Upstream",
    "UpstreamResponse",
    "too_large",
]

# vLLM drops idle connections after 5 s. Ours are dropped before, so that a request is
# rarely written into a connection that is just being closed.
_KEEPALIVE_SECONDS = 3.0
_CONNECT_SECONDS = 5.0
# A Unix socket whose queue is full says so at once instead of letting us wait.
_QUEUE_FULL_SECONDS = 0.01
_WRITE_SECONDS = 60.0
# Between two reads. A long answer that is not streamed is one silence from start to
# end; OpenAI's own clients wait for ten minutes.
_READ_SECONDS = 600.0
_TIMED_OUT = 504
# What follows the end of a stream takes some 0.2 ms, its signature above all.
ENDS_AT_ONCE = 2


Pour = Callable[[Sink], Awaitable[bool]]
"""Gives a body to a sink; see `UpstreamResponse.pour`."""


class UpstreamResponse(Protocol):
    """An answer whose head has come."""

    @property
    def status(self) -> int:
        """HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Header fields, names in lower case; of a repeated one the last."""

    def aiter_raw(self) -> AsyncGenerator[bytes]:
        """The body as it arrives, with whatever content coding it has.

        Raises:
            UpstreamError: the connection broke, or the body is shorter than announced.
        """

    async def pour(self, sink: Sink) -> bool:
        """The same to a sink, each piece in the moment in which it comes.

        Returns:
            Whether all of it was taken; false once the sink wanted no more. What comes
            meanwhile waits for the next call.

        Raises:
            UpstreamError: as `aiter_raw`.
        """

    async def read(self, max_bytes: int) -> bytes:
        """The whole body, with whatever content coding it has.

        Raises:
            UpstreamError: as `aiter_raw`, or it is larger than `max_bytes`.
        """

    async def aclose(self) -> None:
        """Give the connection back; one that was not read to its end is closed."""


class Upstream(Protocol):
    """Where requests go."""

    async def open(
        self, method: str, path: str, *, headers: Mapping[str, str], body: bytes
    ) -> UpstreamResponse:
        """Send a request and wait for the head of the answer.

        Raises:
            UpstreamDownError: no connection, or to another process than the verified
                one; the engine saw nothing of the request.
            UpstreamError: the connection broke, timed out or did not speak HTTP.
        """

    async def aclose(self) -> None:
        """Close every connection."""


def too_large(max_bytes: int) -> UpstreamError:
    """The error for an answer of more bytes."""
    return UpstreamError(f"the engine's answer is larger than {max_bytes} bytes")


class _HttpResponse:
    def __init__(
        self, owner: "HttpUpstream", link: Link, reader: ResponseReader
    ) -> None:
        self._owner, self._link, self._reader = owner, link, reader
        self._ended = self._closed = False

    @property
    def status(self) -> int:
        return self._reader.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._reader.headers

    async def pour(self, sink: Sink) -> bool:
        self._ended = await self._link.pour(self._reader, sink)
        return self._ended

    async def aiter_raw(self) -> AsyncGenerator[bytes]:
        while piece := await self._link.take(self._reader):
            yield piece
        self._ended = True

    async def read(self, max_bytes: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        while piece := await self._link.take(self._reader):
            size += len(piece)
            if size > max_bytes:
                raise too_large(max_bytes)
            parts.append(piece)
        self._ended = True
        return b"".join(parts)

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._ended:
            self._owner.give_back(self._link)
        else:
            self._link.abort()


class HttpUpstream:
    """An engine that speaks HTTP/1.1 on a Unix socket or a port.

    With `peer`, every new connection must be to that very process, or it is closed
    before a byte is sent: whoever took the socket over is never asked.
    There is no cap on connections here: the gateway's own cap on requests in flight is
    the only one, so that a request never waits for a connection. Idle ones are closed
    after 3 s.
    """

    def __init__(
        self,
        *,
        uds: str | None = None,
        base_url: str = "http://engine",
        read_seconds: float = _READ_SECONDS,
        peer: Peer | None = None,
    ) -> None:
        url = httpx.URL(base_url)
        self._uds, self._peer, self._read_seconds = uds, peer, read_seconds
        self._name = url.raw_host.decode("ascii")
        self._host = url.netloc.decode("ascii")
        self._prefix = url.raw_path.decode("ascii").rstrip("/")
        self._tls = ssl.create_default_context() if url.scheme == "https" else None
        self._port = url.port or (80 if self._tls is None else 443)
        self._open: set[Link] = set()
        self._idle: dict[Link, None] = {}  # the one that was used last comes last
        self._sweeping: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Event | None = None
        self._ends = AFewATurn(ENDS_AT_ONCE)

    async def open(
        self, method: str, path: str, *, headers: Mapping[str, str], body: bytes
    ) -> UpstreamResponse:
        """See `Upstream.open`.

        Tried a second time, on a new connection, only where the first had been used
        before and broke before a single byte of an answer: the engine had just dropped
        it.
        """
        target = self._prefix + path
        head = request_head(method, target, self._host, headers, len(body))
        link = self._reusable()
        if link is not None:
            try:
                return await self._ask(link, head, body)
            except UpstreamError as error:
                if not link.silent or error.status == _TIMED_OUT:
                    raise
        return await self._ask(await self._connect(), head, body)

    async def _ask(self, link: Link, head: bytes, body: bytes) -> UpstreamResponse:
        try:
            reader = link.ask(head, body)
            await link.head(reader)
        except BaseException:
            link.abort()  # a cancelled request leaves no connection behind
            raise
        return _HttpResponse(self, link, reader)

    def give_back(self, link: Link) -> None:
        """Keep a connection whose answer was taken to its end for the next request."""
        if link.rest():
            self._idle[link] = None
            if self._sweeping is None:
                self._sweep_later(_KEEPALIVE_SECONDS)

    def _reusable(self) -> Link | None:
        expired = asyncio.get_running_loop().time() - _KEEPALIVE_SECONDS
        while self._idle:
            link, _ = self._idle.popitem()
            if link.usable and link.idle_since > expired:
                return link
            link.abort()
        return None

    def _sweep_later(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._sweeping = loop.call_later(seconds, self._sweep)

    def _sweep(self) -> None:
        now = asyncio.get_running_loop().time()
        self._sweeping = None
        for link in list(self._idle):
            left = link.idle_since + _KEEPALIVE_SECONDS - now
            if left > 0:
                self._sweep_later(left)
                return
            del self._idle[link]
            link.abort()

    async def _connect(self) -> Link:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                if self._uds is None:
                    link = await self._connect_tcp()
                else:
                    link = await self._connect_unix(self._uds)
        except (OSError, TimeoutError):
            raise UpstreamDownError(
                "the engine takes no connection", headers=(("retry-after", "5"),)
            ) from None
        # Not before: of one that is cancelled while it is made, uvloop never tells that
        # it was lost.
        if link.failure is None:
            self._open.add(link)
        return link

    async def _connect_tcp(self) -> Link:
        _, link = await asyncio.get_running_loop().create_connection(
            self._link,
            self._name,
            self._port,
            ssl=self._tls,
            server_hostname=None if self._tls is None else self._name,
        )
        return link

    async def _connect_unix(self, path: str) -> Link:
        with ExitStack() as opened:
            connection = opened.enter_context(await _dial(path))
            if self._peer is not None and peer_of(connection) != self._peer:
                raise UpstreamDownError(
                    "another process than the verified engine listens on its socket",
                    headers=(("retry-after", "5"),),
                )
            _, link = await asyncio.get_running_loop().create_unix_connection(
                self._link,
                sock=connection,
                ssl=self._tls,
                server_hostname=None if self._tls is None else self._name,
            )
            opened.pop_all()  # it is the link's now
        return link

    def _link(self) -> Link:
        return Link(
            read_seconds=self._read_seconds,
            write_seconds=_WRITE_SECONDS,
            lost=self._forget,
            ends=self._ends,
        )

    def _forget(self, link: Link) -> None:
        self._open.discard(link)
        self._idle.pop(link, None)
        if not self._open and self._emptied is not None:
            self._emptied.set()

    async def aclose(self) -> None:
        """Close every connection; answers that are being read break off."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        self._idle.clear()
        self._emptied = asyncio.Event()
        for link in self._open:
            link.abort()
        if self._open:
            await self._emptied.wait()


async def _dial(path: str) -> socket.socket:
    with ExitStack() as opened:
        connection = opened.enter_context(
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        )
        connection.setblocking(False)
        while (code := connection.connect_ex(path)) != 0:
            if code != errno.EAGAIN:
                raise OSError(code, "connect")
            await asyncio.sleep(_QUEUE_FULL_SECONDS)
        opened.pop_all()
    return connection
