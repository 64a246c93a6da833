"""One worker, as its gateway sees it."""

import asyncio
import contextlib
import socket
import sys
from pathlib import Path
from typing import Self

from attest.errors import FormatError
from gateway.errors import WorkerError
from gateway.logs import log
from gateway.workers import messages
from gateway.workers.channel import Channel
from gateway.workers.messages import Family

__all__ = ["WorkerProcess"]

_BOOT_SECONDS = 60.0
_TELL_SECONDS = 1.0


class WorkerProcess:
    """A process, from its start to its end.

    Attributes:
        number: among the workers of the gateway.
        channel: what it is told by.
        failed: why it ended, where it said so.
    """

    def __init__(
        self,
        number: int,
        process: asyncio.subprocess.Process,
        channel: "Channel[messages.FromWorker]",
    ) -> None:
        self.number, self.channel = number, channel
        self.failed: WorkerError | None = None
        self._process = process
        self._over = False
        self._boot: asyncio.Future[WorkerError | None] | None = None
        self._asked: dict[int, asyncio.Future[list[Family]]] = {}

    @classmethod
    async def start(cls, number: int, bound: socket.socket) -> Self:
        """A new one, which will answer on this socket.

        Raises:
            OSError: there could be no process.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            passed = theirs.fileno(), bound.fileno()
            process = await asyncio.create_subprocess_exec(
                *_interpreter(),
                *("-m", "gateway.workers.child", *map(str, passed)),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=passed,
            )
        return cls(number, process, await Channel.over(ours, messages.FromWorker))

    async def run(self) -> int:
        """Take what it says until it ends; returns its exit status."""
        try:
            while (message := await self.channel.receive()) is not None:
                self._take(message)
        except FormatError as error:
            log.error("worker_talks_nonsense", worker=self.number, reason=str(error))
            self.kill()
        self._over = True
        self.channel.close()
        self._answer(self.failed or WorkerError(f"worker {self.number}: it has ended"))
        for future in self._asked.values():
            future.cancel()
        return await self._process.wait()

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def _take(self, message: messages.FromWorker) -> None:
        match message:
            case messages.Serving():
                self._answer(None)
            case messages.Failed():
                text = f"worker {self.number}: {message.code}: {message.reason}"
                self.failed = WorkerError(text)
                self._answer(self.failed)
            case messages.Taken():
                future = self._asked.pop(message.number, None)
                if future is not None and not future.done():
                    future.set_result(message.families)

    def _answer(self, found: WorkerError | None) -> None:
        if self._boot is not None and not self._boot.done():
            self._boot.set_result(found)

    async def serve(self, message: messages.Serve) -> WorkerError | None:
        """Tell it to serve; None once it does, otherwise why it does not."""
        if self._over:
            return WorkerError(f"worker {self.number}: it has ended")
        self._boot = asyncio.get_running_loop().create_future()
        self.channel.send(message)
        done, _ = await asyncio.wait({self._boot}, timeout=_BOOT_SECONDS)
        if done:
            return self._boot.result()
        return WorkerError(
            f"worker {self.number}: no boot within {_BOOT_SECONDS:.0f} s",
            hint="is the signer out of reach?",
        )

    async def numbers(self, ask: int) -> list[Family] | None:
        """What it has counted; None where it does not say within a second."""
        if self._over:
            return None
        future = asyncio.get_running_loop().create_future()
        self._asked[ask] = future
        self.channel.send(messages.Ask(number=ask))
        done, _ = await asyncio.wait({future}, timeout=_TELL_SECONDS)
        self._asked.pop(ask, None)
        if not done or future.cancelled():
            return None
        families: list[Family] = future.result()
        return families


def _interpreter() -> list[str]:
    # `-m` would put the working directory before all other places to import from;
    # that is for who started the gateway so.
    here = {"", str(Path.cwd())}
    return [sys.executable, *([] if here & set(sys.path) else ["-P"])]
