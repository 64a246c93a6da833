"""The process: a socket, a start-up beside it, and an orderly end.

The server listens from the first moment, so that `/readyz` can say what is going on; it
answers nothing else until the start-up is through. With `workers` above 1 this process
verifies and watches, and they answer.
"""

import asyncio
import json
import os
import signal
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import cast

from starlette.types import ASGIApp

from attest.errors import AttestError, ConfigurationError
from attest.manifest import Manifest
from attest.tokens import signing_digest
from gateway.app import build_app
from gateway.errors import StartupRefusedError
from gateway.front import Front, OwnFront
from gateway.listen import Server, listen, run, server_for
from gateway.logs import log
from gateway.scrape import MetricsPage
from gateway.session_keys import SessionKeys
from gateway.settings import Settings
from gateway.startup import Startup
from gateway.state import AppState
from gateway.store import open_store
from gateway.supervise import Supervisor
from gateway.tlog.publisher import Publisher, read_log_signer, read_witnesses
from gateway.tls import follow_renewals, server_context
from gateway.workers.parent import Workers

__all__ = ["run", "serve"]


def _private_directory(path: Path) -> Path:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise ConfigurationError(
            f"state_dir: {path}: {error.strerror}",
            hint="choose a directory that this user may write: --state-dir DIR",
        ) from error
    return path


class _Process:
    """One run of the gateway."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._state_dir = _private_directory(settings.state_dir)
        self._state = AppState.starting(settings)
        self._startup = Startup(
            settings,
            time.time,
            self._report,
            accept=self._accept,
            checked=self._may_load,
        )
        self._startup.prepare()
        self._publisher: Publisher | None = None
        self._publishing: asyncio.Task[None] | None = None
        self._open_store()
        self._context = server_context(settings.tls)
        self._workers = self._make_workers()
        self._front: Front = self._workers or OwnFront(
            settings, self._startup.signer, self._state, self._store, time.time
        )
        self._servers = self._make_servers()
        self._phase = ""
        self._accepted = 0.0

    def _make_workers(self) -> Workers | None:
        if self._settings.workers == 1:
            return None
        publisher = self._publisher
        return Workers(self._settings, None if publisher is None else publisher.key)

    def _make_servers(self) -> list[tuple[Server, socket.socket]]:
        """One for the answers, and a second one where the metrics are wanted."""
        settings, made = self._settings, []
        with ExitStack() as opened:
            if self._workers is None:
                bound = opened.enter_context(
                    listen(settings.host, settings.port, "port")
                )
                app = cast("ASGIApp", build_app(self._state))
                made.append((server_for(app, settings, self._context), bound))
            else:
                opened.callback(self._workers.close)
            if settings.metrics_port is not None:
                port = settings.metrics_port
                bound = opened.enter_context(
                    listen(settings.host, port, "metrics_port")
                )
                # In the clear: their port is for the machines beside this one.
                page = cast("ASGIApp", MetricsPage(self._state, self._workers))
                made.append((server_for(page, settings), bound))
            opened.pop_all()
        return made

    def _open_store(self) -> None:
        signer = read_log_signer(self._settings)
        witnesses = read_witnesses(self._settings)
        try:
            self._store = open_store(
                self._settings,
                log=signer is not None,
                shared=self._settings.workers > 1,
            )
        except StartupRefusedError as error:
            self._refuse(error)
            raise
        self._store.on_failure = self._state.metrics.store_failures.inc
        self._store.in_flight = lambda: self._state.in_flight
        self._state.session_keys = SessionKeys(self._store, time.time)
        self._state.shared = self._store.shared
        if signer is None:
            log.warning("no_log", tier="T1", reason="the setting log_key is not given")
            return
        self._publisher = Publisher(self._store, signer, self._state_dir, witnesses)

    def _accept(self, manifest: Manifest) -> None:
        self._state.rules.bound(manifest)
        if self._publisher is not None:
            self._publisher.check_manifest(manifest)
        self._accepted = time.monotonic()

    def _report(self, progress: str) -> None:
        self._front.report(progress)
        phase = progress.partition(",")[0]
        if phase != self._phase:
            self._phase = phase
            log.info("starting", phase=phase)

    async def run(self) -> int:
        """Serve until a signal; returns the exit status."""
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._stop)
        serving = asyncio.create_task(self._listen_on_all())
        renewing = asyncio.create_task(self._follow_renewals())
        supervising = asyncio.create_task(self._supervise())
        try:
            await asyncio.wait(
                {serving, supervising}, return_when=asyncio.FIRST_COMPLETED
            )
            if not supervising.done():
                await self._state.drained()
                supervising.cancel()
                # What ended it, where it was no signal.
                await serving
            await supervising
        except asyncio.CancelledError:
            return 0
        except AttestError as error:
            self._refuse(error)
            raise
        finally:
            self._stop()
            renewing.cancel()
            supervising.cancel()
            await asyncio.gather(serving, supervising, return_exceptions=True)
            if self._publishing is not None:
                self._publishing.cancel()
            if self._publisher is not None:
                await self._publisher.aclose()
            self._store.close()
            await asyncio.to_thread(self._state.traces.close)
        return 0

    async def _listen_on_all(self) -> None:
        """Until `_stop`, or until one of them fails; then all end."""
        listening = [
            asyncio.create_task(server.serve(sockets=[bound]))
            for server, bound in self._servers
        ]
        if self._workers is not None:
            listening.append(asyncio.create_task(self._workers.run()))
        try:
            await asyncio.gather(*listening)
        finally:
            self._stop()
            await asyncio.gather(*listening, return_exceptions=True)

    async def _follow_renewals(self) -> None:
        if self._context is not None:
            await follow_renewals(self._context, self._settings.tls)

    async def _supervise(self) -> None:
        if self._publisher is not None:
            await self._publisher.restore()
            self._state.log = self._publisher
        await Supervisor(
            settings=self._settings,
            startup=self._startup,
            front=self._front,
            clock=time.time,
            on_serving=self._publish,
        ).run()

    def _may_load(self) -> None:
        self._front.may_load()
        if self._settings.model is not None:
            self._state.metrics.hashing.set(time.monotonic() - self._accepted)
            self._state.metrics.hashed.set(self._startup.read_bytes)

    def _stop(self) -> None:
        for server, _ in self._servers:
            server.should_exit = True
        if self._workers is not None:
            self._workers.stop()

    def _publish(self, manifest: Manifest) -> None:
        if self._publisher is None or self._publishing is not None:
            return
        if not manifest.logs:
            log.warning("log_not_named", vkey=str(self._publisher.key))
        self._publishing = asyncio.create_task(self._publisher.run())

    def _refuse(self, error: AttestError) -> None:
        try:
            path = self._startup.refuse(error, self._state_dir / "refusals")
            if self._publisher is not None:
                record = path.read_bytes()
                token = json.loads(record)["refusal"]
                self._store.add_boot(signing_digest(token), record, token)
        except (OSError, AttestError) as problem:
            log.error("refusal_not_written", reason=type(problem).__name__)
        else:
            log.error("refused", code=error.code, refusal=str(path))


def serve(settings: Settings) -> int:
    """Run the gateway in this process until a signal ends it; returns the status.

    Raises:
        AttestError: it could not start; a signed refusal was left where that was
            possible.
    """
    return run(_Process(settings).run())
