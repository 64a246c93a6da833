"""How long the store's writer is waited for, with one timer for all who wait."""

import asyncio
from collections.abc import Callable

__all__ = ["Deadlines"]

_Future = asyncio.Future[None]


class Deadlines:
    """Ends every wait that has lasted for `seconds`; those of one event loop at a time.

    Attributes:
        seconds: how long a wait may last; read when the timer is set.
    """

    def __init__(self, seconds: float, failure: Callable[[], Exception]) -> None:
        self.seconds, self._failure = seconds, failure
        self._since: dict[_Future, float] = {}  # the oldest first
        self._timed: asyncio.AbstractEventLoop | None = None

    async def wait(self, future: _Future) -> None:
        """Return when the future is done.

        Raises:
            What the future holds, or `failure()` where it was not done in time.
        """
        loop = future.get_loop()
        self._since[future] = loop.time()
        if self._timed is not loop:
            self._look(loop)
        try:
            await future
        finally:
            del self._since[future]

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timed = None
        for future, since in self._since.items():
            left = since + self.seconds - loop.time()
            if future.get_loop() is not loop:
                continue  # of a loop that has ended
            if left > 0:
                self._timed = loop
                loop.call_later(left, self._look, loop)
                return
            if not future.done():
                future.set_exception(self._failure())
