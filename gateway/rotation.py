"""Session keys that take over from each other while the gateway serves.

A key signs for a day, its certificate runs for six: where the signer can't be reached,
the old key goes on signing and the rotation is tried again, until the certificate ends.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from attest.errors import AttestError
from attest.keys import Signer
from gateway.attestations import Attester
from gateway.boot import certify, session_key
from gateway.logs import log
from gateway.settings import Settings
from gateway.state import AppState

__all__ = ["Rotation"]

_RETRY_SECONDS = 60.0
_RUN_OUT = "the session key has run out and the signer certifies no other"


@dataclass(frozen=True, slots=True)
class Rotation:
    """Rotates the keys of one boot."""

    settings: Settings
    signer: Signer
    state: AppState
    clock: Callable[[], float]

    async def run(self, attester: Attester) -> None:
        """Rotate until it is cancelled."""
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
        return True
