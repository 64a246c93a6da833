"""One connection to the engine: a request at a time, and no task of its own."""

import asyncio
from collections.abc import Callable
from typing import cast

from gateway.errors import UpstreamError
from gateway.pace import AFewATurn
from gateway.wire import ResponseReader

__all__ = ["Link", "Sink"]

# More of an answer than this is not read before its reader took some.
_MAX_HELD = 256 * 1024


Sink = Callable[[bytes], bool]
"""Takes a piece of a body; false where it wants no more for now. It must not raise."""


class Link(asyncio.Protocol):
    """A connection. `ask`, `head`, then `take` or `pour` to the end; or `abort`.

    Nothing here waits for the other side to close: a link that is not given back is
    aborted, whatever the reason, so that none is ever left behind.

    Args:
        ends: what tells of the ends of streams; links that share it take turns.

    Attributes:
        reader: the answer that is being read, None while idle.
        failure: why there is no more to come; None while there is.
        silent: whether not one byte came since the last `ask`.
        used: whether it has carried a whole answer before.
        idle_since: when it was put aside, in the loop's time.
    """

    def __init__(
        self,
        *,
        read_seconds: float,
        write_seconds: float,
        lost: Callable[["Link"], None],
        ends: AFewATurn,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._read_seconds, self._write_seconds = read_seconds, write_seconds
        self._lost, self._ends = lost, ends
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._since = 0.0
        self._clock: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._held = 0
        self._paused = False
        self._sink: Sink | None = None
        self.reader: ResponseReader | None = None
        self.failure: UpstreamError | None = None
        self.silent = True
        self.used = False
        self.idle_since = 0.0

    # For whoever asks.

    def ask(self, head: bytes, body: bytes) -> ResponseReader:
        """Write a request; what comes from here on is its answer."""
        assert self._transport is not None  # noqa: S101  # made before anybody has it
        self.reader = reader = ResponseReader()
        self.silent, self._held = True, 0
        if self._clock is None:
            self._clock = self._loop.call_later(self._read_seconds, self._tick)
        self._transport.write(head + body)
        return reader

    async def head(self, reader: ResponseReader) -> None:
        """Return when the head of the answer is here.

        Raises:
            UpstreamError: it does not come.
        """
        while not reader.head:
            if self.failure is not None:
                raise self.failure
            await self._wait()

    async def take(self, reader: ResponseReader) -> bytes:
        """What came of the body since the last time; empty once all of it was taken.

        Raises:
            UpstreamError: there is no more, and it is not whole.
        """
        body = reader.body
        while not body:
            if reader.complete:
                return b""
            if self.failure is not None:
                raise self.failure
            await self._wait()
        return self._taken(body)

    async def pour(self, reader: ResponseReader, sink: Sink) -> bool:
        """Give the body to `sink`, each piece in the moment in which it comes.

        Returns:
            Whether all of it was taken; false once the sink wanted no more. What comes
            meanwhile waits for the next call.

        Raises:
            UpstreamError: there is no more, and it is not whole.
        """
        while not reader.body or sink(self._taken(reader.body)):
            if reader.complete and not reader.body:
                return True
            if self.failure is not None:
                raise self.failure
            self._sink = sink
            try:
                await self._wait()
            finally:
                wanted, self._sink = self._sink is not None, None
            if not wanted:
                return False
        return False

    def _taken(self, body: list[bytes]) -> bytes:
        piece = body[0] if len(body) == 1 else b"".join(body)
        body.clear()
        self._held = 0
        if self._paused:
            self._paused = False
            if self.usable:
                assert self._transport is not None  # noqa: S101
                self._transport.resume_reading()
        return piece

    def rest(self) -> bool:
        """Become idle after an answer that was taken to its end.

        Returns:
            Whether it can carry another one; if not, it is aborted.
        """
        reader, self.reader = self.reader, None
        usable = reader is not None and reader.complete and reader.reusable
        if reader is not None:
            reader.release()
        if not usable or self._stall is not None or not self.usable:
            self.abort()
            return False
        self.used, self.idle_since = True, self._loop.time()
        return True

    @property
    def usable(self) -> bool:
        """Whether the connection stands, as far as is known here."""
        return (
            self.failure is None
            and self._transport is not None
            and not self._transport.is_closing()
        )

    def abort(self) -> None:
        """Close at once; `lost` is called soon after."""
        if self._transport is not None:
            self._transport.abort()

    async def _wait(self) -> None:
        self._since = self._loop.time()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, failure: UpstreamError) -> None:
        if self.failure is None:
            self.failure = failure
        self.abort()
        self._wake()

    def _late(self) -> None:
        self._fail(UpstreamError("the engine did not answer in time", status=504))

    def _tick(self) -> None:
        # One timer for the life of the connection, not one for each read: it looks how
        # long the present read has waited, and when to look again.
        waited = 0.0
        if self._waiter is not None:
            waited = self._loop.time() - self._since
            if waited >= self._read_seconds:
                self._late()
                return
        self._clock = self._loop.call_later(self._read_seconds - waited, self._tick)

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        reader = self.reader
        if reader is None or reader.complete:
            # Nobody asked for it. An answer that is whole already stays whole.
            if reader is not None:
                reader.reusable = False
            self.abort()
            return
        self.silent = False
        self._since = self._loop.time()
        begun = reader.head
        try:
            reader.feed(data)
        except UpstreamError as error:
            self._fail(error)
            return
        self._held += len(data)
        if self._held > _MAX_HELD and not self._paused and not reader.complete:
            assert self._transport is not None  # noqa: S101
            self._paused = True
            self._transport.pause_reading()
        if self._sink is not None and reader.body:
            if not self._sink(self._taken(reader.body)):
                self._sink = None
            elif not reader.complete:
                return
        if reader.complete and begun:
            self._ends.call(self._wake)
        elif reader.body or reader.head:
            self._wake()

    def pause_writing(self) -> None:
        """See asyncio.BaseProtocol: the engine does not read our request."""
        self._stall = self._loop.call_later(self._write_seconds, self._late)

    def resume_writing(self) -> None:
        """See asyncio.BaseProtocol."""
        self._end_stall()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.BaseProtocol."""
        del exc  # its text may quote what the engine sent
        self._end_stall()
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
        if self.failure is None:
            self.failure = UpstreamError("the engine broke off")
        if self.reader is not None:
            self.reader.release()
        self._wake()
        self._lost(self)

    def _end_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
