"""Session keys that take over from each other while the gateway serves.

A key signs for a day, its certificate runs for six: where the signer can't be reached,
the old key goes on signing and the rotation is tried again, until the certificate ends.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass

from attest.errors import AttestError
from attest.keys import PublicKey, Signer
from gateway.attestations import Attester, Store
from gateway.boot import certify, session_key
from gateway.logs import log
from gateway.settings import Settings
from gateway.state import AppState

__all__ = ["Rotation", "still_certified"]

_RETRY_SECONDS = 60.0
# One a day for six days, and some restarts.
_RETAINED_BOOTS = 32
_RUN_OUT = "the session key has run out and the signer certifies no other"


@dataclass(frozen=True, slots=True)
class Rotation:
    """Rotates the keys of one boot."""

    settings: Settings
    signer: Signer
    state: AppState
    store: Store
    clock: Callable[[], float]

    async def run(self, attester: Attester) -> None:
        """Rotate until it is cancelled."""
        await self._retain(attester)
        pause = self.settings.session_key_seconds
        while True:
            await asyncio.sleep(pause)
            rotated = await self._rotate(attester)
            longest = self.settings.session_key_seconds
            pause = longest if rotated else min(_RETRY_SECONDS, longest)

    async def _rotate(self, attester: Attester) -> bool:
        boot = attester.boot
        try:
            session = await asyncio.to_thread(
                certify,
                self.signer,
                boot.session.gateway_id,
                boot.manifest,
                now=int(self.clock()),
                status_uri=self.settings.key_status_uri,
            )
            await attester.rotate(session)
        except AttestError as error:
            _, ends = session_key(boot.session.certificate)
            log.error("key_not_rotated", code=error.code, certificate_ends=ends)
            if ends <= self.clock():
                self.state.refuse_all(_RUN_OUT)
            return False
        log.info("key_rotated", kid=session.key.public.thumbprint)
        self.state.serve_again(_RUN_OUT)
        await self._retain(attester)
        return True

    async def _retain(self, attester: Attester) -> None:
        found = await self.store.recent_endorsements(_RETAINED_BOOTS)
        present = attester.boot.session.key.public
        self.state.retained_keys = tuple(
            key for key in still_certified(found, self.clock()) if key != present
        )


def still_certified(endorsements: list[bytes], now: float) -> tuple[PublicKey, ...]:
    """The session keys of boots whose certificates run at `now`, each once."""
    found: dict[str, PublicKey] = {}
    for data in endorsements:
        for certificate in json.loads(data).get("keyCertificates", ()):
            key, ends = session_key(certificate)
            if ends > now:
                found.setdefault(key.thumbprint, key)
    return tuple(found.values())
