"""What many ask for in one moment, done a few at a time."""

import asyncio
from collections import deque
from collections.abc import Callable

__all__ = ["AFewATurn"]


class AFewATurn:
    """Calls functions, in their order: so many at most in one turn of the event loop.

    When thousands of streams or clients end at once, the network is looked at in
    between: who asks anew is served before the last of them is signed.
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._waiting: deque[Callable[[], None]] = deque()
        self._called = 0

    def call(self, function: Callable[[], None]) -> None:
        """Call it now, or in a later turn."""
        if self._waiting or self._called >= self._at_once:
            self._waiting.append(function)
            return
        if not self._called:
            asyncio.get_running_loop().call_soon(self._next)
        self._called += 1
        function()

    def _next(self) -> None:
        self._called = min(self._at_once, len(self._waiting))
        if self._called:
            asyncio.get_running_loop().call_soon(self._next)
        for _ in range(self._called):
            self._waiting.popleft()()
