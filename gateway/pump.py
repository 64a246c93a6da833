"""A stream on its way from the engine to the client.

What comes is sent in the very callback of the event loop that brought it: waking a task
for each token costs as much as sending it.
"""

import asyncio
from collections.abc import Callable

from attest.errors import FormatError
from gateway.asgi import Send, Write, send_chunk
from gateway.errors import UpstreamError
from gateway.stream import StreamRelay
from gateway.upstream import Pour

__all__ = ["Pump"]


class Pump:
    """Sends what a relay lets pass.

    Without `write`, an extension of our own server, each piece is sent by `send`. Where
    a client takes longer than so many `seconds` for a piece, `give_up` is called; it is
    waited for until somebody cancels that.
    """

    __slots__ = (
        "_beyond",
        "_give_up",
        "_relay",
        "_seconds",
        "_send",
        "_unsent",
        "_write",
    )

    def __init__(
        self,
        relay: StreamRelay,
        send: Send,
        write: Write | None = None,
        *,
        seconds: float,
        give_up: Callable[[], None],
    ) -> None:
        self._relay, self._send = relay, send
        self._write = self._hold if write is None else write
        self._seconds, self._give_up = seconds, give_up
        self._unsent = b""
        self._beyond = False

    async def run(self, pour: Pour) -> None:
        """Return once there is no more, or the relay holds the terminal event.

        Raises:
            UpstreamError: the body broke off, or has an event beyond bounds; what came
                before that is sent.
        """
        loop = asyncio.get_running_loop()
        while not await pour(self._take):
            unsent, self._unsent = self._unsent, b""
            timer = loop.call_later(self._seconds, self._give_up)
            try:
                await send_chunk(self._send, unsent)  # waits for a client that is slow
            finally:
                timer.cancel()
            if self._beyond:
                raise UpstreamError("the engine sent an event beyond bounds")
            if self._relay.ended:
                return

    def _take(self, chunk: bytes) -> bool:
        relay = self._relay
        try:
            out = relay.feed(chunk)
        except FormatError:
            self._unsent, self._beyond = relay.salvaged, True
            return False
        paced = not out or self._write(out)
        relay.account_in_batches()
        return paced and not relay.ended

    def _hold(self, piece: bytes) -> bool:
        self._unsent = piece
        return False
