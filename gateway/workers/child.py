"""A worker: a process that answers on one socket what its gateway lets it.

It makes its own session key and its own boot record, so that its attestations are a
chain of their own. It verifies the manifest itself; for what is known of engine and
files it takes its gateway's word, which is the same user's.

    python -m gateway.workers.child CHANNEL SOCKET      (two inherited descriptors)
"""

import asyncio
import contextlib
import signal
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any, cast

import structlog
from starlette.types import ASGIApp
from structlog.typing import EventDict

from attest.errors import AttestError, FormatError
from attest.log.note import NoteKey
from attest.manifest import open_manifest
from attest.signers import load_signer
from gateway.app import build_app
from gateway.boot import Verified
from gateway.engine.address import Address
from gateway.front import OwnFront
from gateway.listen import run, server_for
from gateway.logs import configure_logs, log
from gateway.scrape import StateCollector
from gateway.session_keys import SessionKeys
from gateway.startup import read_authorities
from gateway.state import AppState
from gateway.store import open_store
from gateway.tlog.follower import Follower
from gateway.tls import follow_renewals, server_context
from gateway.workers import messages
from gateway.workers.channel import Channel
from gateway.workers.handover import restore_settings

__all__ = ["Worker", "main"]


class Worker:
    """One worker.

    Raises:
        AttestError: a file that the settings name has become unusable.
    """

    def __init__(
        self,
        configure: messages.Configure,
        channel: "Channel[messages.ToWorker]",
        bound: socket.socket,
    ) -> None:
        settings = self._settings = restore_settings(configure.settings)
        self._channel, self._bound = channel, bound
        self._state = state = AppState.starting(settings)
        self._context = server_context(settings.tls)
        key = configure.log_key
        self._store = store = open_store(
            settings, log=key is not None, shared=True, check=False
        )
        store.on_failure = state.metrics.store_failures.inc
        store.in_flight = lambda: state.in_flight
        state.shared = True
        state.session_keys = SessionKeys(store, time.time)
        state.log = None if key is None else Follower(store, NoteKey.parse(key))
        signer = load_signer(settings.signer)
        self._front = OwnFront(settings, signer, state, store, time.time)
        app = cast("ASGIApp", build_app(state))
        self._server = server_for(app, settings, self._context)

    def stop(self) -> None:
        """Take no more requests, and end once those in flight have."""
        self._server.should_exit = True

    async def run(self) -> None:
        """Answer until the channel ends, or `stop`.

        Raises:
            AttestError: there could be no boot, or the channel brought nonsense.
        """
        serving = asyncio.create_task(self._server.serve(sockets=[self._bound]))
        obeying = asyncio.create_task(self._obey())
        renewing = asyncio.create_task(self._follow_renewals())
        try:
            await asyncio.wait({serving, obeying}, return_when=asyncio.FIRST_COMPLETED)
            self.stop()
            await serving
            await self._state.drained()
            if obeying.done():
                obeying.result()
        finally:
            for task in (obeying, renewing):
                task.cancel()
            await self._front.rest()
            self._store.close()
            await asyncio.to_thread(self._state.traces.close)

    async def _follow_renewals(self) -> None:
        if self._context is not None:
            await follow_renewals(self._context, self._settings.tls)

    async def _obey(self) -> None:
        while (message := await self._channel.receive()) is not None:
            match message:
                case messages.Serve():
                    await self._serve(message)
                case messages.Rest():
                    await self._front.rest()
                case messages.Ask():
                    self._tell(message.number)
                case messages.Configure():
                    raise FormatError("channel: configured twice")
                case _:
                    self._pass_on(message)

    def _pass_on(
        self,
        message: messages.Report
        | messages.MayLoad
        | messages.Seen
        | messages.Stale
        | messages.Refuse,
    ) -> None:
        match message:
            case messages.Report():
                self._front.report(message.progress)
            case messages.MayLoad():
                self._front.may_load()
            case messages.Seen():
                self._front.verified(message.at)
            case messages.Stale():
                self._front.stale(message.since, message.reason)
            case messages.Refuse():
                self._front.refuse(message.reason)

    async def _serve(self, message: messages.Serve) -> None:
        settings = self._settings
        envelope = message.envelope.encode()
        manifest = open_manifest(
            envelope, read_authorities(settings), threshold=settings.threshold
        )
        verified = Verified(manifest, envelope, message.report(), message.evidence)
        await self._front.serve(
            verified, Address.parse(message.address), message.process()
        )
        # Without a turn of the loop in between: no request sees it as it was before.
        if message.stale is not None:
            self._front.stale(message.stale.since, message.stale.reason)
        if message.refused:
            self._front.refuse(message.refused)
        boot = self._front.boot
        assert boot is not None  # noqa: S101  # made by the line above
        self._channel.send(messages.Serving(boot=boot.digest))

    def _tell(self, number: int) -> None:
        found = StateCollector(self._state).collect()
        families = [messages.Family.of(metric) for metric in found]
        self._channel.send(messages.Taken(number=number, families=families))


async def _main(channel_end: socket.socket, bound: socket.socket) -> int:
    channel: Channel[messages.ToWorker] = await Channel.over(
        channel_end, messages.ToWorker
    )
    try:
        first = await channel.receive()
        if not isinstance(first, messages.Configure):
            return 0 if first is None else 1
        _sign_lines(first.number)
        worker = Worker(first, channel, bound)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, worker.stop)
        await worker.run()
    except AttestError as error:
        log.error("worker_failed", code=error.code, reason=str(error))
        channel.send(messages.Failed(code=error.code, reason=str(error)))
        return 1
    finally:
        channel.close()
        with contextlib.suppress(OSError):
            await channel.closed()
    return 0


def _sign_lines(number: int) -> None:
    """Say in every line of the log which worker wrote it."""

    def sign(_: Any, __: str, event: EventDict) -> Mapping[str, Any]:
        return {**event, "worker": number}

    kept = structlog.get_config()["processors"]
    structlog.configure(processors=[sign, *kept])


def main(arguments: list[str]) -> int:
    """Be a worker over two inherited descriptors; returns the exit status."""
    # A terminal sends it to all processes; the gateway says when to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    configure_logs()
    channel_end, bound = (socket.socket(fileno=int(text)) for text in arguments)
    return run(_main(channel_end, bound))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
