"""The client's connection: uvicorn's, with bounds on what comes before a request.

uvicorn bounds neither the time nor the size of a request's head: one byte a second
holds a connection for ever, and a head without an end is kept in memory (slow loris,
CWE-400).
"""

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar, cast

from uvicorn.protocols.http.httptools_impl import (
    HttpToolsProtocol,
    RequestResponseCycle,
)

from gateway.asgi import WHOLE, WRITE, Scope
from gateway.endpoints import ENDPOINTS
from gateway.pace import AFewATurn
from gateway.turn import Turn

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
# What a client that left was sent is sealed, which takes some 0.3 ms. When thousands
# leave at once, whoever stays is served in between.
_AT_ONCE = 4


class Connection(HttpToolsProtocol):
    """One connection.

    A POST to a row of the route table gets a `Turn`, everything else what uvicorn has.
    It is closed without an answer when a head is not whole `head_seconds` after the
    connection, or its first byte, came; or when it is larger than 64 KiB.
    """

    head_seconds: ClassVar[float]
    rows: ClassVar[frozenset[bytes]]
    departed: ClassVar[AFewATurn]
    _deadline: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _in_head = True
    _idle: asyncio.TimerHandle | None = None
    _idle_since: float | None = None
    _is_lost = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock; see asyncio.Protocol."""
        super().connection_made(transport)
        self._listeners: set[Callable[[], None]] = set()
        self._arm()

    def data_received(self, data: bytes) -> None:
        """Count the head's bytes; see asyncio.Protocol."""
        if self._idle_since is not None:
            self._idle_since = self.loop.time()
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head:
            # Nearly every head comes whole, and then needs no timer.
            if self._deadline is None:
                self._arm()
            if self._head_bytes > MAX_HEAD_BYTES:
                self.transport.abort()

    def on_message_begin(self) -> None:
        """The first byte of a request is here; see httptools."""
        super().on_message_begin()
        # What came with it in one piece is not counted: less than a socket's buffer.
        self._in_head, self._head_bytes, self._idle_since = True, 0, None

    def on_headers_complete(self) -> None:
        """The head is whole; see httptools."""
        self._in_head = False
        self._disarm()
        # The task that reads the scope starts in a later turn of the loop.
        self.scope["extensions"] = {
            ABORT: {"now": self.transport.abort},
            LOST: {"tell": self.when_lost},
        }
        if self._is_row():
            self._take_turn()
        else:
            super().on_headers_complete()

    def _is_row(self) -> bool:
        """Whether this is an ordinary POST to a row of the route table."""
        parser = self.parser
        before = cast("RequestResponseCycle | None", self.cycle)
        return (
            self.url in self.rows
            and parser.get_method() == b"POST"
            and parser.get_http_version() == "1.1"
            and not parser.should_upgrade()
            and not self.expect_100_continue
            and (before is None or before.response_complete)
        )

    def _take_turn(self) -> None:
        path = self.url.decode("ascii")
        # uvicorn makes the rest of the scope when a request begins.
        self.scope |= {
            "method": "POST",
            "path": path,
            "raw_path": self.url,
            "query_string": b"",
        }
        turn = self.cycle = Turn(
            self,
            cast("Scope", self.scope),
            keep_alive=self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        extensions = self.scope["extensions"]
        extensions[WHOLE] = {"take": turn.take, "answer": turn.answer}
        extensions[WRITE] = {"now": turn.write}
        self._start_asgi_task(self.cycle, self.app)

    def on_response_complete(self) -> None:
        """An answer is complete; see uvicorn, which starts a timer for each.

        This one lasts as long as the connection, and looks how long it was idle.
        """
        if self._in_head or self.pipeline or self.transport.is_closing():
            super().on_response_complete()
            self._unset_keepalive_if_required()
            return
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self._idle_since = self.loop.time()
        if self._idle is None:
            self._look_later(self.timeout_keep_alive)

    def _look_later(self, seconds: float) -> None:
        self._idle = self.loop.call_later(seconds, self._look)

    def _look(self) -> None:
        self._idle = None
        if self._idle_since is None:
            return  # the end of the next answer starts it again
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._look_later(left)
        else:
            self.timeout_keep_alive_handler()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks, and soon tell who wants to know; see asyncio.Protocol."""
        self._disarm()
        if self._idle is not None:
            self._idle.cancel()
        super().connection_lost(exc)
        self._is_lost = True
        if self._listeners:
            self.loop.call_soon(self.departed.call, self._tell)

    def _tell(self) -> None:
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
    rows = frozenset(row.path.encode("ascii") for row in ENDPOINTS)
    members: dict[str, Any] = {
        "head_seconds": head_seconds,
        "rows": rows,
        "departed": AFewATurn(_AT_ONCE),
    }
    return type("BoundedConnection", (Connection,), members)
