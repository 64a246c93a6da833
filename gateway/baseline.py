"""What an engine does and holds right after the start, to compare with later."""

from dataclasses import asdict, dataclass
from typing import Any

from attest.claims import Measured
from gateway.canary import Canary, ask_canary
from gateway.engine.client import EngineClient
from gateway.examine import Examination
from gateway.live import live_digest
from gateway.settings import Settings

__all__ = ["Baseline", "take_baseline"]


@dataclass(frozen=True, slots=True)
class Baseline:
    """What was found.

    Attributes:
        canary: answers to the fixed questions, None where they were not asked.
        live: digest of the weights in memory, None where they were not hashed.
    """

    canary: Canary | None = None
    live: str | None = None

    def claims(self) -> dict[str, Any]:
        """What of it goes into the boot record."""
        found: dict[str, Any] = {}
        if self.canary is not None:
            found["canary"] = asdict(self.canary)
        if self.live is not None:
            found["live_weights"] = self.live
        return found


async def take_baseline(
    examination: Examination, measured: Measured, settings: Settings
) -> Baseline:
    """Ask and hash what the settings want.

    Raises:
        EngineDiedError: no answer.
        FormatError: an answer is not in its form.
    """
    client = EngineClient(examination.engine.address)
    canary, live = None, None
    if settings.canary_seconds:
        canary = await ask_canary(client, examination.served_model_name)
    if settings.live_weights_seconds and measured is Measured.ENGINE:
        live = await live_digest(client)
    return Baseline(canary, live)
