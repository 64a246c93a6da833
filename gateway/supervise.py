"""One verified engine behind the gateway: started, watched, and started again.

Every start is verified anew, and whoever answers for it makes a boot of its own of it,
with a key, a certificate and a boot record. Between two boots requests are refused,
attested with the key of the last one.
"""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from attest.errors import AttestError, ConfigurationError, VerificationError
from attest.manifest import Manifest
from gateway.errors import EngineDiedError, StartupRefusedError
from gateway.front import Front
from gateway.logs import log
from gateway.settings import Settings
from gateway.startup import Started, Startup
from gateway.watch import Changed, Watch
from gateway.weights import Protection

__all__ = ["Supervisor"]

# An engine that served this long has earned its restarts back.
_PROVEN_SECONDS = 600.0
_MAX_PAUSE_SECONDS = 60.0
# A restart would end the same way; somebody has to look.
_FINAL = (StartupRefusedError, VerificationError, ConfigurationError)


@dataclass(kw_only=True)
class Supervisor:
    """Runs boots, one after the other, until it is cancelled.

    Attributes:
        front: who answers.
        on_serving: called with the manifest each time answers can be had.
        sleep: how to wait before the next attempt.
    """

    settings: Settings
    startup: Startup
    front: Front
    clock: Callable[[], float]
    on_serving: Callable[[Manifest], None] = lambda _: None
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _failures: int = 0
    _served: bool = False

    async def run(self) -> None:
        """Serve; never returns.

        Raises:
            AttestError: the first start failed, or a later one for a reason that stays,
                or for the last time that `engine.restarts` allows.
        """
        while True:
            # Unix socket paths hold 107 bytes, so the private folder has a short name.
            with tempfile.TemporaryDirectory(prefix="attest-") as run_dir:
                try:
                    started = await self._begin(Path(run_dir))
                except AttestError as error:
                    if not self._served or isinstance(error, _FINAL):
                        raise
                    await self._pause(error)
                    continue
                began = self.clock()
                try:
                    await self._stay(started)
                finally:
                    await self.front.rest()
                    await started.engine.stop()
            if self.clock() - began > _PROVEN_SECONDS:
                self._failures = 0
            await self._pause(None)

    async def _pause(self, error: AttestError | None) -> None:
        self._failures += 1
        if self._failures > self.settings.engine.restarts:
            raise error or EngineDiedError(
                f"engine: ended {self._failures} times in a row",
                hint="look at what ends it, then start the gateway again",
            )
        pause = min(_MAX_PAUSE_SECONDS, 2.0**self._failures)
        code = None if error is None else error.code
        log.warning("restarting", attempt=self._failures, seconds=pause, code=code)
        await self.sleep(pause)

    async def _begin(self, run_dir: Path) -> Started:
        """One start, up to the first answers."""
        started = await self.startup.run(run_dir)
        try:
            await self.front.serve(
                started.verified, started.engine.address, started.finding.peer
            )
        except BaseException:
            await self.front.rest()
            await started.engine.stop()
            raise
        self._served = True
        self.on_serving(started.verified.manifest)
        return started

    async def _stay(self, started: Started) -> None:
        """Return once the engine has to be started, or verified, anew."""
        ended = asyncio.create_task(started.engine.wait())
        watching = asyncio.create_task(self._watch(started).run())
        try:
            await asyncio.wait({ended, watching}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done() and not ended.done():
                change = watching.result()
                log.error("changed", what=str(change.what), reason=change.reason)
                if change.what is not Changed.ENGINE:
                    await self._answer_change(change.reason, ended)
            if ended.done():
                log.error("engine_died", status=ended.result())
            self.front.refuse("the engine has ended and is verified anew")
        finally:
            ended.cancel()
            watching.cancel()

    async def _answer_change(self, reason: str, ended: "asyncio.Task[int]") -> None:
        """What `on_change` says; returns once the engine has ended, if it marks."""
        if self.settings.on_change == "mark":
            self.front.stale(int(self.clock()), reason)
            await asyncio.wait({ended})
            return
        self.front.refuse(f"what was verified has changed: {reason}")
        # For good: whoever changed it could change it back for the next look.
        await asyncio.Event().wait()

    def _watch(self, started: Started) -> Watch:
        settings, files = self.settings, started.files
        # What lies on the disk is nothing to an engine with sealed copies of it all.
        on_disk = files is not None and files.protection is not Protection.MEMFD
        return Watch(
            examination=started.examination,
            finding=started.finding,
            baseline=started.baseline,
            model=settings.model if on_disk else None,
            files=None if files is None else files.fingerprint,
            recheck_seconds=settings.recheck_seconds,
            canary_seconds=settings.canary_seconds,
            live_weights_seconds=settings.live_weights_seconds,
            clock=self.clock,
            on_verified=self.front.verified,
        )
