"""The session keys that verify what this gateway signed, whichever process signed it.

Each process has a key of its own and keeps what vouches for it in the store before the
key signs anything. So whoever reads the store knows the keys of all: of the workers
beside it, of replicas, and of those before them whose certificates still run.
"""

import asyncio
import json
import time
from collections.abc import Callable

from attest.keys import PublicKey
from gateway.boot import session_key
from gateway.errors import StoreError
from gateway.logs import log
from gateway.store.boots import boot_digests, boot_endorsements
from gateway.store.database import Connection
from gateway.store.records import RecordStore

__all__ = ["SessionKeys", "certified_keys"]

_MAX_AGE_SECONDS = 1.0
# Certificates run for six days and keys for one: seven each of 36 processes.
_MAX_BOOTS = 256

_Keys = tuple[tuple[PublicKey, int], ...]


def certified_keys(endorsements: bytes) -> _Keys:
    """The keys of a boot's certificates, each with when its certificate ends.

    Empty for a refusal to start. Signatures are NOT checked.

    Raises:
        FormatError: what stands for a certificate is none.
    """
    return tuple(map(session_key, json.loads(endorsements).get("keyCertificates", ())))


class SessionKeys:
    """The keys of the last 256 boots in a store; each boot is read once."""

    def __init__(self, store: RecordStore, clock: Callable[[], float]) -> None:
        self._store, self._clock = store, clock
        self._boots: dict[str, _Keys] = {}
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    async def running(self) -> tuple[PublicKey, ...]:
        """Each key whose certificate runs now, the latest first.

        The store is asked at most once a second, so a key may be missing for so long;
        where it does not answer, the keys stay those that it named before.
        """
        async with self._reading:
            if time.monotonic() - self._read_at >= _MAX_AGE_SECONDS:
                try:
                    self._boots = await self._store.read(self._look)
                except StoreError as error:
                    log.warning("session_keys_not_read", code=error.code)
                self._read_at = time.monotonic()
        now = self._clock()
        found = {
            key.thumbprint: key
            for keys in self._boots.values()
            for key, ends in keys
            if ends > now
        }
        return tuple(found.values())

    def _look(self, reader: Connection) -> dict[str, _Keys]:
        known = self._boots
        return {
            digest: known[digest]
            if digest in known
            else certified_keys(boot_endorsements(reader, digest) or b"{}")
            for digest in boot_digests(reader, _MAX_BOOTS)
        }
