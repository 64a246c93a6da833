"""The process: a socket, a start-up beside it, and an orderly end.

The server listens from the first moment, so that `/readyz` can say what is going on; it
answers nothing else until the start-up is through.
"""

import asyncio
import json
import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from attest.errors import AttestError, ConfigurationError
from attest.manifest import Manifest
from attest.tokens import signing_digest
from gateway.app import build_app
from gateway.attestations import Attester
from gateway.errors import StartupRefusedError
from gateway.logs import log
from gateway.settings import Settings
from gateway.startup import Started, Startup
from gateway.state import AppState
from gateway.store.sqlite import SqliteStore
from gateway.tlog.publisher import Publisher, read_log_signer, read_witnesses

__all__ = ["serve"]

# Requests in flight get this long to end before their connections are closed.
DRAIN_SECONDS = 30


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to us: uvicorn raises them again before the engine ends."""
        yield


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=2048)
    except OSError as error:
        raise ConfigurationError(
            f"port: {host}:{port}: {error.strerror}",
            hint="stop what listens there, or choose another: --port N",
        ) from error


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
        self._startup = Startup(settings, time.time, self._report, accept=self._accept)
        self._startup.prepare()
        self._publisher: Publisher | None = None
        self._open_store()
        self._socket = _listen(settings.host, settings.port)
        config = uvicorn.Config(
            build_app(self._state),
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
        self._server = _Server(config)
        self._phase = ""

    def _open_store(self) -> None:
        signer = read_log_signer(self._settings)
        witnesses = read_witnesses(self._settings)
        try:
            self._store = SqliteStore.open(
                self._state_dir / "attestations.sqlite", log=signer is not None
            )
        except StartupRefusedError as error:
            self._refuse(error)
            raise
        if signer is None:
            log.warning("no_log", tier="T1", reason="the setting log_key is not given")
            return
        self._publisher = Publisher(self._store, signer, self._state_dir, witnesses)

    def _accept(self, manifest: Manifest) -> None:
        self._state.rules.bound(manifest)
        if self._publisher is not None:
            self._publisher.check_manifest(manifest)

    def _report(self, progress: str) -> None:
        self._state.progress = progress
        phase = progress.partition(",")[0]
        if phase != self._phase:
            self._phase = phase
            log.info("starting", phase=phase)

    async def run(self) -> int:
        """Serve until a signal; returns the exit status."""
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._stop)
        serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        # Unix socket paths hold 107 bytes, so the private folder has a short name.
        with tempfile.TemporaryDirectory(prefix="attest-") as run_dir:
            starting = asyncio.create_task(self._start(Path(run_dir)))
            await asyncio.wait({serving, starting}, return_when=asyncio.FIRST_COMPLETED)
            try:
                if not starting.done():
                    starting.cancel()
                    await asyncio.gather(starting, return_exceptions=True)
                    return 0
                await self._serve(await starting, serving)
            except AttestError as error:
                self._refuse(error)
                raise
            finally:
                self._stop()
                await serving
                if self._publisher is not None:
                    await self._publisher.aclose()
                self._store.close()
        return 0

    async def _start(self, run_dir: Path) -> Started:
        if self._publisher is not None:
            await self._publisher.restore()
            self._state.log = self._publisher
        return await self._startup.run(run_dir)

    def _stop(self) -> None:
        self._server.should_exit = True

    async def _serve(self, started: Started, serving: "asyncio.Task[None]") -> None:
        boot, engine = started.boot, started.engine
        self._store.add_boot(boot.digest, boot.endorsements(), boot.record)
        attester = Attester(boot, self._store, time.time)
        publishing = asyncio.create_task(self._publish(boot.manifest))
        try:
            peer = started.finding.peer
            self._state.become_ready(attester, engine.address, peer)
            log.info(
                "ready",
                manifest=boot.manifest.digest,
                weights=boot.weights.root,
                measured=str(boot.weights.measured),
                boot=boot.digest,
            )
            watching = asyncio.create_task(engine.wait())
            await asyncio.wait({serving, watching}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                # The key stays, so that refusals can still be signed; answers cannot be
                # had any more, and /readyz says so.
                self._state.engine_died()
                log.error("engine_died", status=watching.result())
            await serving
            await self._state.drained()
            watching.cancel()
        finally:
            publishing.cancel()
            await self._state.aclose()
            await engine.stop()

    async def _publish(self, manifest: Manifest) -> None:
        if self._publisher is None:
            return
        if not manifest.logs:
            log.warning("log_not_named", vkey=str(self._publisher.key))
        await self._publisher.run()

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
    return asyncio.run(_Process(settings).run())
