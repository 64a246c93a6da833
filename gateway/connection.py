"""The client's connection: uvicorn's, with bounds on what comes before a request.

uvicorn bounds neither the time nor the size of a request's head: one byte a second
holds a connection for ever, and a head without an end is kept in memory (slow loris,
CWE-400).
"""

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["ABORT", "LOST", "Connection", "connection_class"]

ABORT = "attest.abort"
"""Extension of the scope: a function that closes the connection at once.

An orderly close waits for a client that has stopped reading.
"""

LOST = "attest.lost"
"""Extension of the scope: its member `tell` is `Connection.when_lost`.

Reading on until the client leaves would take a task for each request.
"""

MAX_HEAD_BYTES = 64 * 1024


class Connection(HttpToolsProtocol):
    """One connection.

    It is closed without an answer when a head is not whole `head_seconds` after the
    connection, or its first byte, came; or when it is larger than 64 KiB.
    """

    head_seconds: ClassVar[float]
    _deadline: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _is_lost = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock; see asyncio.Protocol."""
        super().connection_made(transport)
        self._listeners: set[Callable[[], None]] = set()
        self._arm()

    def data_received(self, data: bytes) -> None:
        """Count the head's bytes; see asyncio.Protocol."""
        if self._deadline is not None:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._deadline is not None and self._head_bytes > MAX_HEAD_BYTES:
            self.transport.abort()

    def on_message_begin(self) -> None:
        """The first byte of a request is here; see httptools."""
        super().on_message_begin()
        # What came with it in one piece is not counted: less than a socket's buffer.
        self._head_bytes = 0
        if self._deadline is None:
            self._arm()

    def on_headers_complete(self) -> None:
        """The head is whole; see httptools."""
        self._disarm()
        # The task that reads the scope starts in a later turn of the loop.
        self.scope["extensions"] = {
            ABORT: {"now": self.transport.abort},
            LOST: {"tell": self.when_lost},
        }
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock, and tell who wants to know; see asyncio.Protocol."""
        self._disarm()
        super().connection_lost(exc)
        self._is_lost = True
        for tell in list(self._listeners):
            tell()

    def when_lost(self, tell: Callable[[], None]) -> Callable[[], object]:
        """Have `tell` called once the client is gone, at once if it is already.

        Returns:
            What takes that back.
        """
        if self._is_lost:
            return self.loop.call_soon(tell).cancel
        self._listeners.add(tell)
        return lambda: self._listeners.discard(tell)

    def _arm(self) -> None:
        self._deadline = self.loop.call_later(self.head_seconds, self.transport.abort)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def connection_class(head_seconds: float) -> type[Connection]:
    """The class of connections whose heads may take so long."""
    members: dict[str, Any] = {"head_seconds": head_seconds}
    return type("BoundedConnection", (Connection,), members)
