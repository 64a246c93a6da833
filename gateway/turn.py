"""One request on a connection and its answer, at half the cost of uvicorn's own.

What an ASGI server does for every application (an event, a check of each field, two
writes) is as much work as all that happens between a request and the engine. The rows
of the route table get this instead; how connections live, end and wait stays uvicorn's.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from gateway.asgi import Scope

if TYPE_CHECKING:
    from gateway.connection import Connection

__all__ = ["Turn"]

_GONE = {"type": "http.disconnect"}
_NO_LENGTH = -1


class Turn(RequestResponseCycle):
    """Serves a POST without `Expect`; see the ASGI specification, HTTP 2.3.

    The head of an answer goes out with the first byte of its body; where its length is
    not known, in the next turn of the loop at the latest. An application that fails
    before that has sent none. Names of header fields must be in lower case.
    """

    # What uvicorn's connection and the methods that are inherited look at.
    waiting_for_100_continue = access_log = False

    def __init__(  # its parent's would make more than is needed
        self,
        connection: "Connection",
        scope: Scope,
        *,
        keep_alive: bool,
        on_response: Callable[[], None],
    ) -> None:
        self.scope = scope  # type: ignore[assignment]
        self.transport, self.flow = connection.transport, connection.flow
        self.logger, self._loop = connection.logger, connection.loop
        self.default_headers = connection.server_state.default_headers
        self.keep_alive, self.on_response = keep_alive, on_response
        self.body, self.more_body = bytearray(), True
        self.disconnected = self.response_started = self.response_complete = False
        self._given = self._taken = False  # a piece of the body, and its last one
        self._waiter: asyncio.Future[None] | None = None
        self._head = b""
        self._left = _NO_LENGTH

    @property
    def message_event(self) -> Any:  # type: ignore[override]
        """What uvicorn's connection calls `set` of."""
        return self

    def set(self) -> None:
        """Something came of the request, or its client or its answer is at an end."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def receive(self) -> Any:
        """The next piece of the request's body, or that there is nobody any more."""
        while True:
            if self.disconnected or self.response_complete:
                return _GONE
            if self.body or not (self.more_body or self._taken):
                body, self.body = bytes(self.body), bytearray()
                self._given, self._taken = True, not self.more_body
                return {
                    "type": "http.request",
                    "body": body,
                    "more_body": self.more_body,
                }
            self.flow.resume_reading()
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def take(self) -> bytes | None:
        """The whole body; None where it is not here, or a piece of it was given."""
        if self.more_body or self._given or self.disconnected:
            return None
        self._given = self._taken = True
        body, self.body = bytes(self.body), bytearray()
        return body

    async def send(self, message: Any) -> None:
        """Write the head, or a piece of the body; waits for a client that is slow.

        Raises:
            RuntimeError: a field would end its line early, or the body is not as long
                as its head says.
        """
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if not self.response_started:
            self._head = self._start(message["status"], message["headers"])
            if self._left == _NO_LENGTH:
                self._loop.call_soon(self._send_head)
            return
        if self.response_complete:
            raise RuntimeError("the answer is complete already")
        body, more = message["body"], message["more_body"]
        head, self._head = self._head, b""
        if self._left == _NO_LENGTH:
            piece = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            self.transport.write(head + (piece if more else piece + b"0\r\n\r\n"))
        else:
            self._left -= len(body)
            if self._left < 0 or not (more or self._left == 0):
                raise RuntimeError("the body is not as long as its head says")
            self.transport.write(head + body)
        if not more:
            self._complete()

    def _send_head(self) -> None:
        if self._head and not self.disconnected:
            self.transport.write(self._head)
            self._head = b""

    def write(self, piece: bytes) -> bool:
        """Write a piece of a body of no known length that was begun; never waits.

        Returns:
            Whether the client keeps pace. Where it does not, `send` waits for it.
        """
        if piece and not (self.disconnected or self.response_complete):
            head, self._head = self._head, b""
            self.transport.write(b"%b%x\r\n%b\r\n" % (head, len(piece), piece))
        return not self.flow.write_paused

    async def answer(
        self, status: int, fields: Sequence[tuple[bytes, bytes]], body: bytes
    ) -> None:
        """Send a whole answer: what `send` makes of a head with its length and of it.

        Raises:
            RuntimeError: a field would end its line early, or an answer was begun.
        """
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if self.response_started:
            raise RuntimeError("an answer was begun already")
        length = b"content-length", b"%d" % len(body)
        self.transport.write(self._start(status, [*fields, length]) + body)
        self._complete()

    def _start(self, status: int, fields: Sequence[tuple[bytes, bytes]]) -> bytes:
        self.response_started = True
        lines = [b": ".join(field) for field in (*self.default_headers, *fields)]
        closes = not self.keep_alive
        for name, value in fields:
            if name == b"content-length":
                self._left = int(value)
            elif name == b"connection" and value == b"close":
                closes, self.keep_alive = False, False
        if closes:
            lines.append(b"connection: close")
        if self._left == _NO_LENGTH:
            lines.append(b"transfer-encoding: chunked")
        text = b"".join(lines)
        if b"\n" in text or b"\r" in text or b"\0" in text:
            raise RuntimeError("a header field does not fit on one line")
        return STATUS_LINE[status] + b"\r\n".join(lines) + b"\r\n\r\n"

    def _complete(self) -> None:
        self.response_complete = True
        self.scope = {}  # type: ignore[typeddict-item]  # its extensions know this one
        self.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
