"""Who answers requests for an engine that was verified.

That is this process, or workers beside it: whoever verifies and watches the engine
tells either the same things.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from attest.keys import Signer
from gateway.attestations import Attester, Store
from gateway.boot import Boot, Verified, open_boot
from gateway.engine.address import Address
from gateway.engine.peer import Peer
from gateway.logs import log
from gateway.rotation import Rotation
from gateway.settings import Settings
from gateway.state import AppState

__all__ = ["Front", "OwnFront"]


class Front(Protocol):
    """What is told of the engine, in order, to whoever answers for it."""

    def report(self, progress: str) -> None:
        """What is going on, in one line, for `/readyz`."""

    def may_load(self) -> None:
        """Manifest and files are checked: an engine may load them."""

    async def serve(
        self, verified: Verified, address: Address, peer: Peer | None
    ) -> None:
        """Answer from here on, under a boot of its own, what this engine says.

        Raises:
            AttestError: there could be no boot.
        """

    def verified(self, at: int) -> None:
        """A look at this time found all as it was."""

    def stale(self, since: int, reason: str) -> None:
        """Something changed: answer, and claim no measurement."""

    def refuse(self, reason: str) -> None:
        """Refuse, attested, until `serve` is called again."""

    async def rest(self) -> None:
        """The engine is being stopped: let go of it."""


@dataclass
class OwnFront:
    """This process answers."""

    settings: Settings
    signer: Signer
    state: AppState
    store: Store
    clock: Callable[[], float]
    _rotating: "asyncio.Task[None] | None" = None

    def report(self, progress: str) -> None:
        """As `Front.report`."""
        self.state.progress = progress

    def may_load(self) -> None:
        """As `Front.may_load`."""
        self.state.may_load = True

    async def serve(
        self, verified: Verified, address: Address, peer: Peer | None
    ) -> None:
        """As `Front.serve`; the session key is made here and leaves for nowhere.

        Raises:
            SignerError: the key store can't sign.
            StoreError: the boot record could not be kept.
        """
        boot = await asyncio.to_thread(
            open_boot,
            verified,
            self.signer,
            self.settings.gateway_id,
            now=int(self.clock()),
            status_uri=self.settings.key_status_uri,
        )
        await self.store.put_boot(boot.digest, boot.endorsements(), boot.record)
        attester = Attester(boot, self.store, self.clock)
        self.state.become_ready(attester, address, peer)
        log.info(
            "ready",
            manifest=boot.manifest.digest,
            weights=boot.weights.root,
            measured=str(boot.weights.measured),
            boot=boot.digest,
        )
        rotation = Rotation(self.settings, self.signer, self.state, self.clock)
        self._rotating = asyncio.create_task(rotation.run(attester))

    @property
    def boot(self) -> Boot | None:
        """The present boot, None before the first."""
        attester = self.state.attester
        return None if attester is None else attester.boot

    def verified(self, at: int) -> None:
        """As `Front.verified`."""
        if self.state.attester is not None:
            self.state.attester.mark_verified(at)

    def stale(self, since: int, reason: str) -> None:
        """As `Front.stale`."""
        if self.state.attester is not None:
            self.state.attester.mark_stale(since, reason)
        self.state.progress = f"answers are marked stale: {reason}"

    def refuse(self, reason: str) -> None:
        """As `Front.refuse`; the key stays, so that refusals can be signed."""
        self.state.refuse_all(reason)

    async def rest(self) -> None:
        """As `Front.rest`."""
        if self._rotating is not None:
            self._rotating.cancel()
            self._rotating = None
        await self.state.aclose()
