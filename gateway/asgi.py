"""The few ASGI moves that the data path needs, without request and response objects."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from types import TracebackType
from typing import Any, Self

from gateway.errors import HttpError, RequestError

__all__ = [
    "WHOLE",
    "ClientGoneError",
    "Lost",
    "Patience",
    "Receive",
    "Scope",
    "Send",
    "read_body",
    "send_body",
    "send_chunk",
    "send_error",
    "start_stream",
]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Lost = Callable[[Callable[[], None]], Callable[[], object]]
Fields = Sequence[tuple[bytes, bytes]]


WHOLE = "attest.whole"
"""Extension of the scope: its member `take` gives the body if all of it is here.

None where it is not, or was taken. So nearly every body is had without a timer.
"""


class ClientGoneError(Exception):
    """The client left; nobody is to be answered."""


async def read_body(
    scope: Scope, receive: Receive, *, max_bytes: int, seconds: float
) -> bytes:
    """The whole request body.

    Raises:
        RequestError: larger than `max_bytes` (413), or not there in time (408): who
            sends a byte at a time holds a slot.
        ClientGoneError: the client left.
    """
    for name, value in scope["headers"]:
        # Only to refuse early; what counts is what comes.
        announced = value[:20] if name == b"content-length" else b""
        if announced.isdigit() and int(announced) > max_bytes:
            raise _too_large(max_bytes)
    whole = scope.get("extensions", {}).get(WHOLE)
    body: bytes | None = None if whole is None else whole["take"]()
    if body is not None:
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
        return body
    try:
        async with asyncio.timeout(seconds):
            return await _read(receive, max_bytes)
    except TimeoutError:
        raise RequestError(
            f"the body did not come within {seconds:g} s",
            status=408,
            headers=(("connection", "close"),),
        ) from None


async def _read(receive: Receive, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(max_bytes)
        chunks.append(chunk)
        more = message.get("more_body", False)
    return b"".join(chunks)


def _too_large(max_bytes: int) -> RequestError:
    return RequestError(
        f"the body is larger than {max_bytes} bytes",
        status=413,
        headers=(("connection", "close"),),
    )


class Patience:
    """A block that ends early when its time is up, or when the client leaves.

    `lost` registers a function for when the connection is lost, and gives one that
    takes it back. Without it the client is watched by reading on, which takes a task:
    most servers drop what is sent to one that is gone without a word.

    Raises:
        TimeoutError: on leaving the block, its time was up.
        ClientGoneError: likewise, the client left or `leave` was called.
    """

    __slots__ = ("_forget", "_gone", "_lost", "_receive", "_timeout")

    def __init__(self, seconds: float, receive: Receive, lost: Lost | None) -> None:
        self._timeout = asyncio.timeout(seconds)
        self._receive, self._lost = receive, lost
        self._gone = False
        self._forget: Callable[[], object] = bool

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        if self._lost is not None:
            self._forget = self._lost(self.leave)
        else:
            watching = asyncio.create_task(_disconnect(self._receive))
            watching.add_done_callback(self._left)
            self._forget = watching.cancel
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._forget()
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            if self._gone:
                raise ClientGoneError from None
            raise

    def leave(self) -> None:
        """End the block as if the client had left."""
        if not self._gone:
            self._gone = True
            if not self._timeout.expired():
                self._timeout.reschedule(0)

    def _left(self, watching: "asyncio.Task[None]") -> None:
        if not watching.cancelled():
            self.leave()


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def start_stream(send: Send, status: int, fields: Fields) -> None:
    """Send the head of an answer whose length is not known."""
    await send(
        {"type": "http.response.start", "status": status, "headers": list(fields)}
    )


async def send_chunk(send: Send, body: bytes, *, more: bool = True) -> None:
    """Send a piece of the body."""
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def send_body(send: Send, status: int, fields: Fields, body: bytes) -> None:
    """Send a whole answer."""
    length = (b"content-length", str(len(body)).encode("ascii"))
    await start_stream(send, status, [*fields, length])
    await send_chunk(send, body, more=False)


async def send_error(
    send: Send, error: HttpError, body: bytes, fields: Fields = ()
) -> None:
    """Send an error with its own header fields."""
    own = [
        (name.encode("ascii"), value.encode("ascii")) for name, value in error.headers
    ]
    kind = (b"content-type", b"application/json")
    await send_body(send, error.status, [kind, *own, *fields], body)
