"""What every request sees of the process: its limits, its engine and its attester."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from attest.errors import AttestError
from attest.keys import PublicKey
from gateway.attestations import Attester
from gateway.auth import ApiKeys
from gateway.engine.address import Address
from gateway.engine.peer import Peer
from gateway.errors import OverloadedError, UpstreamDownError
from gateway.exchange import Sealer
from gateway.metrics import Metrics
from gateway.policy import Rules
from gateway.session_keys import SessionKeys
from gateway.settings import LimitSettings, Settings
from gateway.tlog.follower import Follower
from gateway.traces import NO_TRACES, Traces, open_traces
from gateway.upstream import HttpUpstream, Upstream

__all__ = ["AppState", "Serving"]


@dataclass(frozen=True, slots=True)
class Serving:
    """What there is only once the start-up is through."""

    upstream: Upstream
    sealer: Sealer
    manifest_digest: str


@dataclass
class AppState:
    """State of one gateway process. Only the event loop's thread touches it.

    Attributes:
        progress: what is going on, in one line, for `/readyz`.
        serving: None until the start-up is through.
        attester: the sealer with its boot, for the evidence routes.
        log: the transparency log; None where none is kept.
        status_lists: files with signed status lists, for bundles.
        session_keys: those of all processes; None where only this one's are known.
        shared: whether others answer too, with their attestations in the same store.
        down: why no answer can be attested, empty while answers can.
        unkept: whether the last attestation could not be kept.
        may_load: whether manifest and files are checked, so that an engine may load.
        in_flight: requests that are being served.
        clock: seconds since the epoch.
        rules: what requests may ask for.
        traces: where the span of each request goes.
        log_requests: whether the log gets a line for each request.
        comments: whether streams carry the attestation as a comment.
        metrics: what is counted and timed.
    """

    limits: LimitSettings
    api_keys: ApiKeys
    progress: str = "starting"
    serving: Serving | None = None
    attester: Attester | None = None
    log: Follower | None = None
    status_lists: tuple[Path, ...] = ()
    session_keys: SessionKeys | None = None
    shared: bool = False
    down: str = ""
    may_load: bool = False
    unkept: bool = False
    in_flight: int = 0
    clock: Callable[[], float] = time.time
    rules: Rules = field(default_factory=Rules)
    comments: bool = True
    log_requests: bool = False
    traces: Traces = NO_TRACES
    metrics: Metrics = field(default_factory=Metrics)
    _callers: Counter[str] = field(default_factory=Counter)
    _trying: "asyncio.Task[None] | None" = None

    @classmethod
    def starting(cls, settings: Settings) -> Self:
        """The state before start-up.

        Raises:
            ConfigurationError: the file of API keys is unusable, or that of the prompt
                to inject.
        """
        return cls(
            settings.limits,
            ApiKeys.read(settings.api_keys_file),
            rules=Rules.read(settings),
            comments=settings.stream_delivery == "comment",
            log_requests=settings.log_requests,
            traces=open_traces(settings.traces_endpoint, settings.gateway_id),
            status_lists=settings.status_lists,
        )

    async def known_keys(self) -> tuple[PublicKey, ...]:
        """The session keys that verify what this gateway signed, as far as known."""
        return () if self.session_keys is None else await self.session_keys.running()

    @property
    def ready(self) -> bool:
        """Whether answers can be had and attested."""
        return self.serving is not None and not self.down and not self.unkept

    async def look_at_store(self) -> None:
        """Where the last attestation could not be kept, try again whether one could.

        Without requests nobody else would. Waits for a second at most; a try goes on
        until it ends, and there is one at a time.
        """
        if not self.unkept or self.attester is None:
            return
        if self._trying is None or self._trying.done():
            self._trying = asyncio.create_task(self._try_to_keep(self.attester))
        await asyncio.wait({self._trying}, timeout=1)

    async def _try_to_keep(self, attester: Attester) -> None:
        with suppress(AttestError):
            await attester.try_to_keep()
            self.unkept = False

    def become_ready(
        self, attester: Attester, address: Address, peer: Peer | None = None
    ) -> None:
        """The start-up is through: serve, with the engine at this address.

        Requests only go to the process `peer`, where the kernel says which one that is.
        """
        self.attester = attester
        self.rules = self.rules.bound(attester.boot.manifest)
        uds = None if address.socket is None else str(address.socket)
        self.serving = Serving(
            upstream=HttpUpstream(uds=uds, base_url=address.base_url, peer=peer),
            sealer=attester,
            manifest_digest=attester.boot.manifest.digest,
        )
        self.progress, self.down = "ready", ""

    def refuse_all(self, reason: str) -> None:
        """Refuse from here on, attested, until `become_ready` is called again."""
        self.progress = self.down = reason

    def serve_again(self, reason: str) -> None:
        """Take back a `refuse_all` for this very reason; any other one stays."""
        if self.down == reason:
            self.progress, self.down = "ready", ""

    def require_serving(self) -> Serving:
        """What is needed to serve.

        Raises:
            OverloadedError: the gateway is still starting (503).
        """
        if self.serving is None:
            raise OverloadedError(
                f"the gateway is not ready: {self.progress}",
                hint="GET /readyz says how far it is",
                status=503,
                headers=(("retry-after", "5"),),
            )
        return self.serving

    def require_engine(self) -> Upstream:
        """The engine.

        Raises:
            OverloadedError: as `require_serving`.
            UpstreamDownError: it has ended, or is no longer what was verified.
        """
        serving = self.require_serving()
        if self.down:
            # The reason names files and settings; it is for the log and /readyz.
            raise UpstreamDownError(
                "no answer can be attested at the moment",
                hint="GET /readyz says why",
                headers=(("retry-after", "5"),),
            )
        return serving.upstream

    def enter(self, caller: str) -> None:
        """Count a request as in flight, of that API key too, until `leave`.

        Raises:
            OverloadedError: a limit is reached (429); it is not counted.
        """
        limits, mine = self.limits, self._callers[caller]
        if self.in_flight >= limits.max_concurrency:
            raise _full(limits.max_concurrency, "")
        per_key = limits.max_concurrency_per_key
        if caller and per_key is not None and mine >= per_key:
            raise _full(per_key, " of this API key")
        self.in_flight += 1
        self._callers[caller] = mine + 1

    def leave(self, caller: str) -> None:
        """A request that `enter` counted is over."""
        self.in_flight -= 1
        self._callers[caller] -= 1

    async def drained(self, seconds: float = 5.0) -> None:
        """Return when no request is in flight, or after so many seconds.

        At the end of its patience the server cancels what still runs, and waits for
        none of it; each is then sealed, for which the store must be open.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.in_flight:  # noqa: ASYNC110  # once per process
                    await asyncio.sleep(0.01)

    async def aclose(self) -> None:
        """Close the connections to the engine."""
        if self.serving is not None:
            await self.serving.upstream.aclose()


def _full(limit: int, whose: str) -> OverloadedError:
    return OverloadedError(
        f"{limit} requests{whose} are in flight already",
        headers=(("retry-after", "1"),),
    )
