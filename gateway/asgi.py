"""The few ASGI moves that the data path needs, without request and response objects."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from types import TracebackType
from typing import Any, Self

from gateway.errors import HttpError, RequestError

__all__ = [
    "WHOLE",
    "WRITE",
    "Answer",
    "ClientGoneError",
    "Lost",
    "Patience",
    "Receive",
    "Scope",
    "Send",
    "Write",
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
Answer = Callable[[int, Fields, bytes], Awaitable[None]]
Write = Callable[[bytes], bool]


WHOLE = "attest.whole"
"""Extension of the scope, for bodies that are whole.

    take    gives the request's body if all of it is here; None where it is not, or was
            taken. So nearly every body is had without a timer.
    answer  sends status, fields and a body at once, as `send_body` does in two messages
"""

WRITE = "attest.write"
"""Extension of the scope: its member `now` writes a piece of a stream without waiting.

It tells whether the client keeps pace; where it does not, the next piece is for `send`.
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
    take = scope.get("extensions", {}).get(WHOLE, {}).get("take")
    body: bytes | None = None if take is None else take()
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
    """A block (`with`) that ends early: its time is up, or the client leaves.

    `lost` registers a function for when the connection is lost, and gives one that
    takes it back. Without it the client is watched by reading on, which takes a task:
    most servers drop what is sent to one that is gone without a word.

    Raises:
        TimeoutError: on leaving the block, its time was up.
        ClientGoneError: likewise, the client left or `leave` was called.
    """

    __slots__ = (
        "_before",
        "_ended",
        "_forget",
        "_gone",
        "_loop",
        "_lost",
        "_receive",
        "_seconds",
        "_task",
        "_timer",
    )

    def __init__(self, seconds: float, receive: Receive, lost: Lost | None) -> None:
        self._seconds, self._receive, self._lost = seconds, receive, lost
        self._gone = self._ended = False

    # Not by `asyncio.timeout`, which costs four times as much for what is a timer here.

    def __enter__(self) -> Self:
        self._loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # noqa: S101  # only a task can wait
        self._task, self._before = task, task.cancelling()
        self._timer: asyncio.Handle = self._loop.call_later(self._seconds, self._end)
        if self._lost is not None:
            self._forget: Callable[[], object] = self._lost(self.leave)
        else:
            watching = self._loop.create_task(_disconnect(self._receive))
            watching.add_done_callback(self._left)
            self._forget = watching.cancel
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._forget()
        self._forget = bool  # it knows this one: neither would go without the collector
        self._timer.cancel()
        gone, self._gone = self._gone, True  # nobody is cancelled from here on
        # As `asyncio.timeout` does it: whoever else cancelled the task meant it.
        if (
            self._ended
            and self._task.uncancel() <= self._before
            and kind is asyncio.CancelledError
        ):
            if gone:
                raise ClientGoneError from None
            raise TimeoutError from error

    def leave(self) -> None:
        """End the block, soon, as if the client had left."""
        if not self._gone:
            self._gone = True
            if not self._ended:
                self._timer.cancel()
                self._timer = self._loop.call_soon(self._end)

    def _end(self) -> None:
        self._ended = True
        self._task.cancel()

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
