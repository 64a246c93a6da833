"""The few ASGI moves that the data path needs, without request and response objects."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import suppress
from typing import Any

from gateway.errors import HttpError, RequestError

__all__ = [
    "ClientGoneError",
    "Receive",
    "Scope",
    "Send",
    "completed",
    "read_body",
    "send_body",
    "send_chunk",
    "send_error",
    "start_stream",
]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Fields = Sequence[tuple[bytes, bytes]]


class ClientGoneError(Exception):
    """The client left before its request was there; nobody is to be answered."""


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


async def completed(
    task: "asyncio.Task[None]", receive: Receive, gone: "asyncio.Future[None]"
) -> bool:
    """Whether the task ended before the client left; if not, it is cancelled.

    A client also counts as gone once `gone` is done.

    Reading is the only sure way to learn that a client left: most servers drop what is
    sent to one that is gone without a word; a few raise an OSError.

    Raises:
        Exception: whatever else the task raised.
    """
    watching = asyncio.create_task(_disconnect(receive))
    try:
        await asyncio.wait({task, watching, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            return False
        await task
    except OSError:
        return False
    else:
        return True
    finally:
        watching.cancel()
        if not task.done():
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


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
