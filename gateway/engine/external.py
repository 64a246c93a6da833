"""An engine that somebody else started: waited for, asked, and watched by a connection.

What is not known here: who started it, with which environment, and what else its
process does. With the plug-in in it, its loader is held to the manifest all the same.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attest.canonical import read_object
from attest.errors import FormatError
from gateway.engine.address import Address
from gateway.engine.client import MAX_EVIDENCE_BYTES, EngineClient, tls_context
from gateway.engine.managed import read_refusal
from gateway.engine.peer import Peer, bound_sockets
from gateway.errors import EngineDiedError, EngineStartError
from gateway.http import httpx
from gateway.logs import log

__all__ = ["ExternalEngine", "ExternalSpec"]

_POLL_SECONDS = 0.25
# Not there, or there and still loading, or behind a proxy that says so.
_NOT_YET = frozenset({502, 503, 504})


@dataclass(frozen=True, kw_only=True)
class ExternalSpec:
    """One engine to find.

    Attributes:
        address: where it answers, or will.
        reference: file that the gateway wrote for its loader, None where it has none;
            the loader leaves a refusal beside it.
        load_report: file that its plug-in writes, None where it is not asked to.
        start_timeout_seconds: how long it may take to answer.
    """

    address: Address
    reference: Path | None = None
    load_report: Path | None = None
    start_timeout_seconds: float = 600


class ExternalEngine:
    """The `Engine` of start-up for `upstream`; start it once.

    From `start` on one connection is held on which nothing is ever sent. The kernel
    ends it when the process at the other end goes, so that a restart of the engine is
    noticed at once, however quickly the next one listens. A proxy in between that ends
    idle connections looks the same: then everything is verified again.
    """

    mode = "external"

    def __init__(self, spec: ExternalSpec) -> None:
        self._spec = spec
        self._client = EngineClient(spec.address)
        self._problem = "no answer"
        self._held: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    @property
    def address(self) -> Address:
        """Where it answers."""
        return self._spec.address

    async def start(self, on_progress: Callable[[str], None] | None = None) -> None:
        """Return once it answers.

        Raises:
            StartupRefusedError: its loader met other weights than the reference's.
            EngineStartError: it does not answer in time.
        """
        if on_progress is not None:
            on_progress(f"waiting for the engine at {self.address}")
        try:
            async with asyncio.timeout(self._spec.start_timeout_seconds):
                await self._until_ready()
        except TimeoutError as error:
            raise EngineStartError(
                f"engine: nothing serves at {self.address} after "
                f"{self._spec.start_timeout_seconds:.0f} seconds: {self._problem}",
                hint="start it there, or raise engine.start_timeout_seconds; who is to "
                "connect to a socket needs the right to write to it",
            ) from error

    async def _until_ready(self) -> None:
        while True:
            reference = self._spec.reference
            if reference is not None and (
                refusal := read_refusal(reference.with_name("refusal.json"))
            ):
                raise refusal
            try:
                # Held before the first question: a restart in between is noticed too.
                self._held = await self._hold()
                status, _ = await self._client.call("GET", "/health")
                if status not in _NOT_YET:
                    return
                self._problem = f"HTTP status {status}"
            except (httpx.TransportError, OSError) as error:
                self._problem = getattr(error, "strerror", None) or str(error)
                if isinstance(error, (ConnectionRefusedError, PermissionError)):
                    self._remove_stale_socket()
            await self.stop()
            await asyncio.sleep(_POLL_SECONDS)

    def _remove_stale_socket(self) -> None:
        # vLLM refuses to start where a killed engine left its socket, which in a pod
        # outlives the container. It binds long before it listens, so that a refused
        # connection is no sign; that no process has it bound is. The path may be
        # another in the engine's mounts, but hardly its last part.
        path = self.address.socket
        if path is None or path.name in bound_sockets():
            return
        with contextlib.suppress(OSError):
            path.unlink()
            log.warning("stale_socket_removed", path=str(path))

    async def _hold(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.address.socket is not None:
            return await asyncio.open_unix_connection(str(self.address.socket))
        url = urlsplit(self.address.base_url)
        port = url.port or (443 if self.address.tls else 80)
        tls = tls_context(self.address) if self.address.tls else None
        return await asyncio.open_connection(url.hostname, port, ssl=tls)

    async def evidence(self, nonce: str) -> dict[str, Any] | None:
        """As `EngineClient.evidence`; None where the engine has no plug-in.

        Raises:
            EngineDiedError: it does not answer.
            FormatError: what it answers is not strict, or has another nonce.
        """
        try:
            status, _ = await self._client.call(
                "GET", "/attest/evidence", query="nonce="
            )
        except httpx.HTTPError as error:
            raise EngineDiedError(
                f"engine: {self.address} does not answer: {type(error).__name__}",
                hint="it is verified again once it does",
            ) from error
        # The plug-in refuses an empty nonce with 400; without it there is no route.
        return None if status == 404 else await self._client.evidence(nonce)

    def load_report(self) -> dict[str, Any] | None:
        """What the plug-in wrote after loading; None without a file.

        NOT checked: who wrote it. Whoever may write in that folder can.

        Raises:
            FormatError: it is no strict JSON object below 4 MiB.
        """
        if self._spec.load_report is None:
            return None
        try:
            with self._spec.load_report.open("rb") as file:
                data = file.read(MAX_EVIDENCE_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FormatError(f"load_report: {error.strerror}") from error
        return read_object(data, max_bytes=MAX_EVIDENCE_BYTES)

    async def peer(self) -> Peer | None:
        """Who listens now; None for TCP.

        Raises:
            EngineDiedError: nobody does.
        """
        return await self._client.peer()

    async def wait(self) -> int:
        """Return 0 once the held connection has ended, and with it that process.

        Raises:
            EngineDiedError: it was not started.
        """
        if self._held is None:
            raise EngineDiedError("engine: not started")
        with contextlib.suppress(OSError):
            while await self._held[0].read(4096):
                pass
        return 0

    async def stop(self) -> None:
        """Let go of the connection; the engine is not ours to end."""
        if self._held is not None:
            self._held[1].transport.abort()
            self._held = None
