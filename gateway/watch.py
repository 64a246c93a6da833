"""Looking again while serving: nothing that was verified at the start may change.

Each look costs a few milliseconds: the stat of every model file, the engine's own
report, who listens on its socket. What it proves: the same process, which loaded
weights once and reports the same settings, and files that nobody wrote to. What it does
not: that the engine's memory is unchanged. The canary and the hashing of that memory
have timers of their own.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from attest.claims import Measured
from attest.errors import AttestError, EvidenceUnavailableError, FormatError
from attest.hashing import scan_model, stat_fingerprint
from attest.manifest import Manifest
from gateway.baseline import Baseline
from gateway.canary import ask_canary
from gateway.engine.client import EngineClient
from gateway.errors import EngineDiedError, StartupRefusedError
from gateway.examine import Examination, Finding
from gateway.live import live_digest
from gateway.logs import log
from gateway.weights import check_model_directory

__all__ = ["Change", "Changed", "Watch"]

# One look may fail because the engine is in the middle of a long prefill.
_MAX_FAILED = 3


class Changed(StrEnum):
    """What changed."""

    ENGINE = "engine"
    STATE = "state"
    FILES = "files"
    CANARY = "canary"
    LIVE = "live weights"


@dataclass(frozen=True, slots=True)
class Change:
    """What a look found; `reason` is for people and holds no prompt or answer."""

    what: Changed
    reason: str


@dataclass(kw_only=True)
class Watch:
    """The looks at one boot.

    Attributes:
        examination: how it was looked at when it started.
        finding: what was found then.
        baseline: what was answered and held in memory then.
        model: the model directory, None without one.
        files: its fingerprint when it was hashed.
        recheck_seconds: between two looks.
        canary_seconds: between two canaries, 0 for never.
        live_weights_seconds: between two hashings of the memory, 0 for never.
        clock: seconds since the epoch.
        on_verified: gets the time of every look that found all as it was.
    """

    examination: Examination
    finding: Finding
    baseline: Baseline
    model: Path | None
    files: str | None
    recheck_seconds: float
    canary_seconds: float
    live_weights_seconds: float
    clock: Callable[[], float]
    on_verified: Callable[[int], None]
    _failed: int = 0
    _canary_due: float = 0.0
    _live_due: float = 0.0

    async def run(self) -> Change:
        """Look until something changed."""
        self._canary_due = self.canary_seconds
        self._live_due = self.live_weights_seconds
        while True:
            await asyncio.sleep(self.recheck_seconds)
            self._canary_due -= self.recheck_seconds
            self._live_due -= self.recheck_seconds
            change = await self.look()
            if change is not None:
                return change

    async def look(self) -> Change | None:
        """One look; None where all is as it was, or where it could not be seen.

        What can't be seen three times in a row counts as a change of the engine.
        """
        at = int(self.clock())
        try:
            change = (
                await self._files()
                or await self._engine()
                or await self._live()
                or await self._canary()
            )
        except (EngineDiedError, EvidenceUnavailableError) as error:
            self._failed += 1
            log.warning("recheck_failed", code=error.code, times=self._failed)
            if self._failed < _MAX_FAILED:
                return None
            return Change(Changed.ENGINE, f"not verifiable any more: {error}")
        self._failed = 0
        if change is None and self.finding.measured is not Measured.ASSERTED:
            self.on_verified(at)
        return change

    async def _engine(self) -> Change | None:
        try:
            found = await self.examination.run()
        except (StartupRefusedError, FormatError) as error:
            return Change(Changed.STATE, str(error))
        for what, name in (
            (Changed.STATE, "measured"),
            (Changed.ENGINE, "peer"),
            (Changed.ENGINE, "process"),
            (Changed.STATE, "evidence"),
        ):
            if getattr(found, name) != getattr(self.finding, name):
                return Change(what, f"engine: its {name} is another than at the start")
        return None

    async def _files(self) -> Change | None:
        if self.model is None:
            return None
        try:
            found = stat_fingerprint(scan_model(self.model))
            if found != self.files:
                # Touched, or written to: the bytes decide.
                log.warning("files_touched", model=str(self.model))
                await asyncio.to_thread(_rehash, self.model, self.examination.manifest)
                self.files = found
        except EvidenceUnavailableError:
            raise
        except AttestError as error:  # other bytes, a wrong link, no directory
            return Change(Changed.FILES, str(error))
        return None

    async def _live(self) -> Change | None:
        if self.baseline.live is None or self._live_due > 0:
            return None
        self._live_due = self.live_weights_seconds
        client = EngineClient(self.examination.engine.address)
        if await live_digest(client) == self.baseline.live:
            return None
        return Change(Changed.LIVE, "engine: its memory holds other weights")

    async def _canary(self) -> Change | None:
        if (
            self.baseline.canary is None
            or not self.canary_seconds
            or self._canary_due > 0
        ):
            return None
        self._canary_due = self.canary_seconds
        client = EngineClient(self.examination.engine.address)
        model = self.examination.served_model_name
        # Twice, since a batch of other requests can change one greedy choice.
        for _ in range(2):
            if await ask_canary(client, model) == self.baseline.canary:
                return None
        return Change(Changed.CANARY, "engine: the canary answers otherwise")


def _rehash(model: Path, manifest: Manifest) -> None:
    check_model_directory(model, manifest, lambda *_: None)
